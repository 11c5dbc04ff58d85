"""Small helpers that Keras code expects under keras.utils."""

from __future__ import annotations

import gc
import random as python_random
from typing import Any

import numpy as np

from graphnn import random
from graphnn.data.directories import image_dataset_from_directory, text_dataset_from_directory
from graphnn.keras import naming
from graphnn.keras.custom_objects import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from graphnn.keras.models.data import pack_x_y_sample_weight, unpack_x_y_sample_weight
from graphnn.keras.models.plot import model_to_svg, plot_model
from graphnn.keras.models.pydataset import PyDataset
from graphnn.keras.serialization import deserialize_keras_object, serialize_keras_object

__all__ = [
    "CustomObjectScope",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "image_dataset_from_directory",
    "model_to_svg",
    "pack_x_y_sample_weight",
    "plot_model",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "text_dataset_from_directory",
    "to_categorical",
    "unpack_x_y_sample_weight",
]

Sequence = PyDataset  # its name in Keras 2


def clear_session(free_memory: bool = True) -> None:
    """Name what is made from now on as in a new process: dense, dense_1, ...

    Models and layers that exist stay as they are. free_memory: collect garbage at once, so that the
    memory of models that nobody holds any more is free before the next one is made.

    >>> clear_session()
    >>> graphnn.keras.layers.Dense(1).name
    'dense'
    """
    naming.reset_names()
    if free_memory:
        gc.collect()


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and graphnn's random numbers: what follows is the same each time."""
    python_random.seed(seed)
    np.random.seed(seed % 2**32)
    random.set_seed(seed)


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """One-hot rows for class numbers, as a float32 NumPy array.

    x: integers from 0, any shape (a trailing axis of size 1 is dropped). num_classes: the largest
    number plus 1 by default. Raises IndexError for a number outside the classes.

    >>> to_categorical([0, 2])
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    labels = np.asarray(x, dtype=np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    count = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise IndexError(f"class numbers from {labels.min()} to {labels.max()}, {count} classes")
    return np.eye(count, dtype=np.float32)[labels]
