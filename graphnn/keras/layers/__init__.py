"""Layers: the pieces that models are made of."""

from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.core import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    ReLU,
    Rescaling,
    Reshape,
    Softmax,
)
from graphnn.keras.layers.inputs import Input, InputLayer
from graphnn.keras.layers.norm import BatchNormalization, LayerNormalization
from graphnn.keras.layers.registry import deserialize, serialize

__all__ = [
    "Activation",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "deserialize",
    "serialize",
]
