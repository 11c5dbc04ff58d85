"""Models: layers that can be trained."""

from graphnn.keras.models.cloning import clone_model
from graphnn.keras.models.model import Functional, Model
from graphnn.keras.models.sequential import Sequential
from graphnn.keras.saving.api import load_model, model_from_json, save_model

__all__ = [
    "Functional",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]
