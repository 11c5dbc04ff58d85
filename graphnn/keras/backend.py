"""What Keras code reaches as keras.backend."""

from __future__ import annotations

from graphnn.keras.utils import clear_session

__all__ = ["clear_session"]
