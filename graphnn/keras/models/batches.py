"""Batches for the training loop: the base of what gives them, and arrays in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.keras.seeds import new_seed
from graphnn.runtime.errors import ShapeError, StateError
from graphnn.strings import looks_like_text, text_array
from graphnn.tensor import Tensor

Leaves = tuple[Any, ...]
State = dict[str, Any]


def as_array(value: Any) -> Any:
    """A contiguous NumPy array; float64 becomes float32, as everywhere in Keras, and text
    `StringDType`."""
    if looks_like_text(value):
        return text_array(value)
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array


class BatchSource(ABC):
    """Base: gives the batches of each epoch as tuples of tensors, the leaves of `structure`.

    steps: batches per epoch, None if not known. example: the leaves of one batch.
    """

    structure: Any
    steps: int | None
    example: Leaves

    def ready(self) -> bool:
        """Whether there is a batch for another epoch; asked before each epoch."""
        return True

    @abstractmethod
    def epoch(self, limit: int | None = None, first: int = 0) -> Iterator[Leaves]:
        """The batches of the next epoch.

        limit: how many batches an epoch has at most. first: the number of the first one, for an
        epoch that was begun before a backup.
        """

    @abstractmethod
    def state(self, batch: int) -> State:
        """The position after `batch` batches of an epoch, or between epochs for 0, as plain data:
        what `restore` needs to go on in the same order."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go to a position that `state` gave, also in another process. Raises StateError for one
        in other data."""

    def close(self) -> None:  # noqa: B027
        """End threads and close files."""


class ArrayData(BatchSource):
    """Arrays with examples along their first axis, cut into batches; the last may be smaller.

    reuse: whether a batch may be overwritten by the next one, which saves memory traffic.
    Raises ShapeError if the numbers of examples differ.
    """

    def __init__(
        self, data: Any, batch_size: int = 32, shuffle: bool = False, reuse: bool = True
    ) -> None:
        self._places = [leaf is not None for leaf in tree.flatten(data)]
        self.arrays = [as_array(leaf) for leaf in tree.flatten(data) if leaf is not None]
        self.structure = data
        self.batch_size, self.shuffle, self.reuse = batch_size, shuffle, reuse
        self.count = _examples(self.arrays)
        self.steps = -(-self.count // batch_size)
        self.example = tuple(Tensor(a[: min(batch_size, self.count)]) for a in self.arrays)
        self._order = np.random.default_rng(new_seed()) if shuffle else None
        self._before: Any = None  # state of the random numbers before this epoch's order was drawn
        self._buffers: dict[int, tuple[list[Any], Leaves]] = {}

    def epoch(self, limit: int | None = None, first: int = 0) -> Iterator[Leaves]:
        count = -(-self.count // self.batch_size)
        batches = range(first, count if limit is None else min(limit, count))
        starts = range(batches.start * self.batch_size, batches.stop * self.batch_size)
        starts = starts[:: self.batch_size]
        if self._order is None:
            return self._in_order(starts)
        self._before = self._order.bit_generator.state
        return self._shuffled(self._order.permutation(self.count), starts)

    def _in_order(self, starts: range) -> Iterator[Leaves]:
        for start in starts:
            yield tuple(Tensor(a[start : start + self.batch_size]) for a in self.arrays)

    def _shuffled(self, order: Any, starts: range) -> Iterator[Leaves]:
        for start in starts:
            rows = order[start : start + self.batch_size]
            buffers, tensors = self._space(len(rows))
            for array, buffer in zip(self.arrays, buffers, strict=True):
                # With mode="clip" NumPy writes straight into the buffer; the rows are in range.
                array.take(rows, 0, buffer, "clip")
            yield tensors

    def _space(self, size: int) -> tuple[list[Any], Leaves]:
        """Arrays for one batch and the tensors that show them."""
        if self.reuse and size in self._buffers:
            return self._buffers[size]
        buffers = [np.empty((size, *a.shape[1:]), a.dtype) for a in self.arrays]
        self._buffers[size] = buffers, tuple(map(Tensor, buffers))
        return self._buffers[size]

    def _shape(self) -> list[int]:
        return [self.count, self.batch_size]

    def state(self, batch: int) -> State:
        rng = None
        if self._order is not None:
            rng = self._before if batch else self._order.bit_generator.state
        return {"kind": "arrays", "rng": rng, "shape": self._shape()}

    def restore(self, state: State) -> None:
        if state.get("kind") != "arrays" or state["shape"] != self._shape():
            raise StateError(
                "the position in the data",
                received=f"a position in {state.get('kind')} {state.get('shape', '')}",
                expected=f"one in {self.count} examples in batches of {self.batch_size}",
                fix="give fit the same data as before, or delete the backup",
            )
        if self._order is not None and state["rng"] is not None:
            self._order.bit_generator.state = state["rng"]


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
