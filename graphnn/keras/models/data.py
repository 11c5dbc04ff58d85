"""Batches for the training loop: from arrays in memory, or from anything that gives batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from graphnn import ops, tree
from graphnn.keras.seeds import new_seed
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.tensor import Operand, Tensor

Leaves = tuple[Any, ...]


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """One batch as the train step gets it: (x,), (x, y) or (x, y, sample_weight)."""
    if sample_weight is not None:
        return (x, y, sample_weight)
    return (x,) if y is None else (x, y)


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


def _as_array(value: Any) -> Any:
    """A contiguous NumPy array; float64 becomes float32, as everywhere in Keras."""
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array


def _as_tensor(value: Any) -> Any:
    if isinstance(value, Operand):
        return value._tensor()
    return ops.asarray(_as_array(value))


class BatchSource:
    """Base: gives the batches of each epoch as tuples of tensors, the leaves of `structure`.

    steps: batches per epoch, None if not known. example: the leaves of one batch.
    """

    structure: Any
    steps: int | None
    example: Leaves

    def epoch(self) -> Iterator[Leaves]:
        """The batches of the next epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not define epoch")


class ArrayData(BatchSource):
    """Arrays with examples along their first axis, cut into batches; the last may be smaller.

    reuse: whether a batch may be overwritten by the next one, which saves memory traffic.
    Raises ShapeError if the numbers of examples differ.
    """

    def __init__(
        self, data: Any, batch_size: int = 32, shuffle: bool = False, reuse: bool = True
    ) -> None:
        self._places = [leaf is not None for leaf in tree.flatten(data)]
        self.arrays = [_as_array(leaf) for leaf in tree.flatten(data) if leaf is not None]
        self.structure = data
        self.batch_size, self.shuffle, self.reuse = batch_size, shuffle, reuse
        self.count = _examples(self.arrays)
        self.steps = -(-self.count // batch_size)
        self.example = tuple(Tensor(a[: min(batch_size, self.count)]) for a in self.arrays)
        self._order = np.random.default_rng(new_seed()) if shuffle else None
        self._buffers: dict[int, tuple[list[Any], Leaves]] = {}

    def epoch(self) -> Iterator[Leaves]:
        if self._order is None:
            return self._in_order()
        return self._shuffled(self._order.permutation(self.count))

    def _in_order(self) -> Iterator[Leaves]:
        for start in range(0, self.count, self.batch_size):
            yield tuple(Tensor(a[start : start + self.batch_size]) for a in self.arrays)

    def _shuffled(self, order: Any) -> Iterator[Leaves]:
        for start in range(0, self.count, self.batch_size):
            rows = order[start : start + self.batch_size]
            buffers, tensors = self._space(len(rows))
            for array, buffer in zip(self.arrays, buffers, strict=True):
                # With mode="clip" NumPy writes straight into the buffer; the rows are in range.
                np.take(array, rows, axis=0, out=buffer, mode="clip")
            yield tensors

    def _space(self, size: int) -> tuple[list[Any], Leaves]:
        """Arrays for one batch and the tensors that show them."""
        if self.reuse and size in self._buffers:
            return self._buffers[size]
        buffers = [np.empty((size, *a.shape[1:]), a.dtype) for a in self.arrays]
        self._buffers[size] = buffers, tuple(map(Tensor, buffers))
        return self._buffers[size]


def _examples(arrays: list[Any]) -> int:
    counts = {a.shape[0] if a.ndim else None for a in arrays}
    if len(counts) == 1 and None not in counts:
        count = counts.pop()
        if count:
            return int(count)
    raise ShapeError(
        "the data of a model",
        received="arrays of shapes " + ", ".join(str(a.shape) for a in arrays),
        expected="the same number of examples, at least one, along the first axis of all",
        fix="cut x, y and sample_weight to one length",
    )


class IterableData(BatchSource):
    """Batches from any iterable; an iterator goes on where the last epoch stopped.

    steps: batches per epoch; without it an epoch is one pass. Raises ArgumentError without a batch.
    """

    def __init__(self, batches: Iterable[Any], steps: int | None = None) -> None:
        self._batches = batches
        self._endless = isinstance(batches, Iterator)
        self._iterator = iter(batches)
        self.steps = steps if steps is not None else _length(batches)
        first = next(self._iterator, None)
        if first is None:
            raise ArgumentError(
                "the data of a model",
                received="an iterable without a batch",
                expected="at least one batch",
                fix="check what the generator yields; an exhausted one gives nothing again",
            )
        self._iterator = itertools.chain([first], self._iterator)
        self.structure = self._normal(first)
        self.example = self._leaves(first)
        self._started = False

    @staticmethod
    def _normal(batch: Any) -> Any:
        return tuple(batch) if isinstance(batch, list) else batch

    def _leaves(self, batch: Any) -> Leaves:
        flat = tree.flatten(self._normal(batch))
        return tuple(_as_tensor(leaf) for leaf in flat if leaf is not None)

    def epoch(self) -> Iterator[Leaves]:
        if self._started and not self._endless:
            self._iterator = iter(self._batches)
        self._started = True
        return map(self._leaves, itertools.islice(self._iterator, self.steps))


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None


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
    shuffle: bool = False,
    reuse: bool = True,
    class_weight: dict[int, float] | None = None,
) -> BatchSource:
    """The batches of what a user gave to fit, evaluate or predict.

    Raises ArgumentError for targets given beside a source of batches.
    """
    if is_array_like(x):
        if class_weight is not None:
            sample_weight = _weights_of(class_weight, y, sample_weight)
        x, y = _stacked(x), _stacked(y)
        data = pack_x_y_sample_weight(x, y, sample_weight)
        return ArrayData(data, batch_size or 32, shuffle, reuse)
    if not isinstance(x, Iterable):
        raise ArgumentError(
            "the data of a model",
            received=f"x of type {type(x).__name__}",
            expected="arrays, tensors, or an iterable of batches",
            fix="give NumPy arrays",
        )
    if y is not None or sample_weight is not None or class_weight is not None:
        raise ArgumentError(
            "the data of a model",
            received=f"x of type {type(x).__name__} together with y, sample_weight or class_weight",
            expected="batches (x, y) or (x, y, sample_weight) from x alone",
            fix="let the iterable give the targets too",
        )
    return IterableData(x, steps)


def _stacked(value: Any) -> Any:
    """A plain list of numbers (or of lists of them) is one array, not a list of inputs."""
    numbers = isinstance(value, list) and all(
        isinstance(leaf, int | float | bool) for leaf in tree.flatten(value)
    )
    return np.asarray(value) if numbers else value


def _weights_of(class_weight: dict[int, float], y: Any, sample_weight: Any) -> Any:
    labels = np.asarray(y)
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(-1)
    table = np.ones(max(int(labels.max()), *class_weight) + 1, np.float32)
    for number, weight in class_weight.items():
        table[number] = weight
    weights = table[labels.reshape(len(labels)).astype(np.int64)]
    return weights if sample_weight is None else weights * np.asarray(sample_weight)


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
