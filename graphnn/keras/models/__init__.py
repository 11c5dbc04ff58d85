"""Models: layers that can be trained."""

from graphnn.keras.models.model import Model
from graphnn.keras.models.sequential import Sequential

__all__ = ["Model", "Sequential"]
