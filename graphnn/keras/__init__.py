"""Keras on graphnn: layers, models and all that is needed to train them."""

from graphnn.keras import (
    activations,
    backend,
    callbacks,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    mixed_precision,
    models,
    optimizers,
    regularizers,
    saving,
    utils,
)
from graphnn.keras.layers import Input, Layer
from graphnn.keras.layers.symbolic import KerasTensor
from graphnn.keras.mixed_precision import DTypePolicy
from graphnn.keras.models import Model, Sequential

__all__ = [
    "DTypePolicy",
    "Input",
    "KerasTensor",
    "Layer",
    "Model",
    "Sequential",
    "activations",
    "backend",
    "callbacks",
    "constraints",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "optimizers",
    "regularizers",
    "saving",
    "utils",
]
