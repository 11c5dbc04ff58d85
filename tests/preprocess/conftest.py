"""What the tests of preprocessing share."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import graphnn as tf
from graphnn.data import Dataset


def stream(array: Any, size: int) -> Iterator[Any]:
    """The batches of an array, as a generator gives them."""
    for start in range(0, len(array), size):
        yield array[start : start + size]


def sources(array: Any, size: int = 7) -> dict[str, Callable[[], Any]]:
    """Ways to give the same data to `adapt`."""
    return {
        "array": lambda: np.asarray(array),
        "tensor": lambda: tf.constant(array),
        "dataset": lambda: Dataset.from_tensor_slices(np.asarray(array)).batch(size),
        "generator": lambda: stream(np.asarray(array), size),
        "list of batches": lambda: list(stream(np.asarray(array), size)),
        "with targets": lambda: ((b, np.zeros(len(b))) for b in stream(np.asarray(array), size)),
    }


def compiled(layer: Any, x: Any, *, any_size: bool = False) -> Any:
    """What a compiled function gives that calls the layer."""
    x = tf.constant(x)
    sizes = [None] * x.ndim if any_size else x.shape
    return tf.function(lambda t: layer(t), input_signature=[tf.TensorSpec(sizes, x.dtype)])(x)
