"""What users give to fit, evaluate and predict, as batches for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.keras.models.batches import ArrayData, BatchSource, Leaves
from graphnn.keras.models.streams import IterableData, SequenceData, is_sequence
from graphnn.runtime.errors import ArgumentError

__all__ = [
    "ArrayData",
    "BatchSource",
    "IterableData",
    "Leaves",
    "SequenceData",
    "class_weights",
    "is_array_like",
    "make_source",
    "pack_x_y_sample_weight",
    "rebuild",
    "split_validation",
    "unpack_x_y_sample_weight",
]


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """One batch as the train step gets it: x, (x, y) or (x, y, sample_weight).

    x alone is not wrapped, unless it has parts, since (x1, x2) would mean x and y.
    """
    if sample_weight is not None:
        return (x, y, sample_weight)
    if y is not None:
        return (x, y)
    return (x,) if tree.is_nested(x) else x


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """x, y and sample_weight of one batch; what is missing is None. Raises ArgumentError for a
    tuple of another length.

    >>> unpack_x_y_sample_weight((1, 2))
    (1, 2, None)
    """
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if 1 <= len(data) <= 3:
        return (*data, None, None)[:3]
    raise ArgumentError(
        "a batch of data",
        received=f"a tuple of {len(data)}",
        expected="x, (x, y) or (x, y, sample_weight)",
        fix="put several inputs into one list or dict: ([x1, x2], y)",
    )


def rebuild(structure: Any, leaves: Leaves) -> Any:
    """The structure of a batch with other leaves at the places that are not None."""
    rest = iter(leaves)
    filled = [None if leaf is None else next(rest) for leaf in tree.flatten(structure)]
    return tree.unflatten(structure, filled)


def is_array_like(x: Any) -> bool:
    """Whether x holds all examples (and is not a source of batches)."""
    leaves = tree.flatten(x)
    return bool(leaves) and all(
        hasattr(leaf, "__array__") or isinstance(leaf, int | float | bool) for leaf in leaves
    )


def make_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    reuse: bool = True,
    class_weight: dict[int, float] | None = None,
    restart: bool = False,
) -> BatchSource:
    """The batches of what a user gave to fit, evaluate or predict.

    restart: whether each epoch begins anew although `steps` left batches over. Raises ArgumentError
    for targets given beside a source of batches.
    """
    if is_array_like(x):
        if class_weight is not None:
            sample_weight = class_weights(class_weight, y, sample_weight)
        x, y = _stacked(x), _stacked(y)
        data = pack_x_y_sample_weight(x, y, sample_weight)
        return ArrayData(data, batch_size or 32, bool(shuffle), reuse)
    _check_stream(x, y, sample_weight)
    change = _weighting(class_weight) if class_weight is not None else None
    if is_sequence(x):
        return SequenceData(x, bool(shuffle), change)
    return IterableData(x, steps, change, restart, reuse)


def _check_stream(x: Any, y: Any, sample_weight: Any) -> None:
    if not isinstance(x, Iterable) and not is_sequence(x):
        raise ArgumentError(
            "the data of a model",
            received=f"x of type {type(x).__name__}",
            expected="arrays, tensors, a Dataset, or an iterable of batches",
            fix="call the function that makes the generator" if callable(x) else "give arrays",
        )
    if y is not None or sample_weight is not None:
        raise ArgumentError(
            "the data of a model",
            received=f"x of type {type(x).__name__} together with y or sample_weight",
            expected="batches (x, y) or (x, y, sample_weight) from x alone",
            fix="let the iterable give the targets too",
        )


def _weighting(class_weight: dict[int, float]) -> Callable[[Any], Any]:
    """A function that gives each batch the weights of its classes."""

    def change(batch: Any) -> Any:
        x, y, sample_weight = unpack_x_y_sample_weight(batch)
        return x, y, class_weights(class_weight, y, sample_weight)

    return change


def _stacked(value: Any) -> Any:
    """A plain list of numbers (or of lists of them) is one array, not a list of inputs."""
    numbers = isinstance(value, list) and all(
        isinstance(leaf, int | float | bool) for leaf in tree.flatten(value)
    )
    return np.asarray(value) if numbers else value


def class_weights(class_weight: dict[int, float], y: Any, sample_weight: Any) -> Any:
    """The weight of each example by its class, times its own. Raises ArgumentError without one
    target, or for several."""
    if not isinstance(class_weight, dict):
        raise ArgumentError(
            "fit",
            received=f"class_weight of type {type(class_weight).__name__}",
            expected="a dict from class numbers to weights",
            fix="for example class_weight={0: 1.0, 1: 5.0}; dict(enumerate(weights)) of a list",
        )
    if y is None or tree.is_nested(_stacked(y)):
        raise ArgumentError(
            "fit",
            received="class_weight with " + ("no targets" if y is None else "several targets"),
            expected="one array of class numbers or of one-hot rows",
            fix="give sample_weight instead",
        )
    labels = np.asarray(y)
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(-1)
    labels = labels.reshape(len(labels), -1)[:, 0].astype(np.int64)
    table = np.ones(max(int(labels.max(initial=0)), *class_weight) + 1, np.float32)
    for number, weight in class_weight.items():
        table[number] = weight
    weights = table[labels]
    return weights if sample_weight is None else weights * np.asarray(sample_weight, np.float32)


def split_validation(
    x: Any, y: Any, sample_weight: Any, share: float
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """The first part for training and the last `share` of the examples for validation.

    Raises ArgumentError unless both parts have an example.
    """
    if not is_array_like(x):
        raise ArgumentError(
            "fit",
            received="validation_split with a source of batches",
            expected="arrays",
            fix="give validation_data instead",
        )
    parts = tuple(
        tree.map_structure(lambda a: None if a is None else np.asarray(a), _stacked(p))
        for p in (x, y, sample_weight)
    )
    count = len(next(a for a in tree.flatten(parts[0])))
    cut = int(count * (1.0 - share))
    if not 0 < cut < count:
        raise ArgumentError(
            "fit",
            received=f"validation_split={share} of {count} examples",
            expected="at least one example for training and one for validation",
            fix="choose a number between 0 and 1, such as 0.2",
        )

    def pick(rows: slice) -> tuple[Any, Any, Any]:
        one, two, three = (
            tree.map_structure(lambda a: None if a is None else a[rows], p) for p in parts
        )
        return one, two, three

    return pick(slice(0, cut)), pick(slice(cut, None))
