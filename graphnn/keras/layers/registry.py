"""Layers by class name."""

from __future__ import annotations

from graphnn.keras.registry import Registry

LAYERS = Registry("layers")
register, serialize, deserialize = LAYERS.register, LAYERS.serialize, LAYERS.deserialize
