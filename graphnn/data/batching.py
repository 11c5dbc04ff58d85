"""Stages that put elements together along a new first axis, and take them apart again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from graphnn.data.blocks import Block, count, row, stack
from graphnn.data.elements import (
    Array,
    describe_element,
    is_container,
    is_string,
    leaves,
    map_leaves,
    to_array,
    zip_leaves,
)
from graphnn.data.specs import batched, unbatched
from graphnn.data.stage import INFINITE, UNKNOWN, Cursor, Stage, State, repeated
from graphnn.runtime import memory
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.signature import TensorSpec


class Batch(Stage):
    """Elements put together `rows` at a time; the last batch may be smaller unless dropped."""

    name = "batch"

    def __init__(self, child: Stage, rows: int, drop: bool) -> None:
        super().__init__(child)
        self.child, self.rows, self.drop = child, rows, drop

    def open(self) -> Cursor:
        return _BatchCursor(self.child.open(), self.rows, self.drop, self.child.columnar)

    def size(self) -> int:
        size = self.child.size()
        if size < 0:
            return size
        return size // self.rows if self.drop else -(-size // self.rows)

    def spec(self) -> Any:
        return batched(self.child.spec(), self.rows if self.drop else None)

    def example(self, rows: int) -> Any:
        return repeated(self.child.example(rows), self.rows if self.drop else rows)

    def settings(self) -> str:
        return f"{self.rows}{', drop_remainder' if self.drop else ''}"


class _BatchCursor(Cursor):
    def __init__(self, child: Cursor, rows: int, drop: bool, columnar: bool) -> None:
        super().__init__(child)
        self.child, self.rows, self.drop, self.columnar = child, rows, drop, columnar
        self._rows: Callable[[int], Block | None] = child.together

    def next(self) -> Any:
        block = self._rows(self.rows)
        if block is None or (self.drop and count(block) < self.rows):
            raise StopIteration
        return block if self.columnar else self._stack(block)

    def _stack(self, elements: list[Any]) -> Any:
        return stack(elements)

    def lend(self, lent: bool = True) -> None:
        if self.columnar:  # a list holds its elements until they are stacked
            self.child.lend(lent)


class PaddedBatch(Batch):
    """Batches of elements of different sizes, filled up at the end of each axis.

    shapes: per leaf None, or sizes of which None and -1 mean the longest in the batch. values: per
    leaf what to fill with, None for 0 or "".
    """

    name = "padded_batch"

    def __init__(self, child: Stage, rows: int, drop: bool, shapes: Any, values: Any) -> None:
        super().__init__(child, rows, drop)
        self.shapes, self.values = shapes, values

    def open(self) -> Cursor:
        return _PaddedBatchCursor(self.child.open(), self)

    def spec(self) -> Any:
        spec = self.child.spec()
        shapes = list(_shapes(self.shapes, spec))
        padded = (TensorSpec(shape, leaf.dtype) for shape, leaf in zip(shapes, leaves(spec)))  # noqa: B905
        filled = map_leaves(lambda _: next(padded), spec)
        return batched(filled, self.rows if self.drop else None)

    def example(self, rows: int) -> Any:
        return self.together([self.child.example(rows)] * (self.rows if self.drop else rows))

    def together(self, elements: list[Any]) -> Any:
        """One padded batch."""
        first = elements[0]
        shapes, values = iter(_shapes(self.shapes, first)), iter(_values(self.values, first))
        return zip_leaves(lambda *a: pad(list(a), next(shapes), next(values)), *elements)


class _PaddedBatchCursor(_BatchCursor):
    def __init__(self, child: Cursor, stage: PaddedBatch) -> None:
        super().__init__(child, stage.rows, stage.drop, False)
        self.stage = stage
        if stage.child.columnar:  # a list of elements, as from other children
            self._rows = partial(Cursor.block, child)

    def _stack(self, elements: list[Any]) -> Any:
        return self.stage.together(elements)


def _shapes(shapes: Any, element: Any) -> list[tuple[int | None, ...]]:
    """The shape to pad to of each leaf, as far as it is given."""
    if shapes is None:
        return [tuple(None for _ in leaf.shape) for leaf in leaves(element)]
    given = _per_leaf(shapes, element)
    result = []
    for shape, leaf in zip(given, leaves(element), strict=True):
        sizes = (None,) * len(leaf.shape) if shape is None else tuple(shape)
        if len(sizes) != len(leaf.shape):
            raise ShapeError(
                "Dataset.padded_batch",
                received=f"padded_shapes {tuple(sizes)} for {describe_element(leaf)}",
                expected="one size, or None, for each axis",
                fix="give None for axes that are padded to the longest",
            )
        result.append(tuple(None if s in (None, -1) else int(s) for s in sizes))
    return result


def _per_leaf(shapes: Any, element: Any) -> list[Any]:
    if not is_container(element):
        return [shapes]
    values = element.values() if isinstance(element, dict) else element
    parts = [shapes[k] for k in element] if isinstance(element, dict) else list(shapes)
    if len(parts) != len(element):
        raise ArgumentError(
            "Dataset.padded_batch",
            received=f"padded_shapes of {len(parts)} parts",
            expected=f"as many as an element has: {len(element)}",
        )
    return [s for part, v in zip(parts, values, strict=True) for s in _per_leaf(part, v)]


def _values(values: Any, element: Any) -> list[Any]:
    if values is None:
        return [None for _ in leaves(element)]
    if not is_container(values):
        return [values for _ in leaves(element)]
    return list(leaves(zip_leaves(lambda _, value: value, element, values)))


def pad(arrays: list[Array], shape: tuple[int | None, ...], value: Any) -> Array:
    """One array with a new first axis; arrays are filled up at the end of each axis.

    Raises ShapeError for an array that is larger than the shape, or has another number of axes.

    >>> pad([np.array([1, 2]), np.array([3])], (None,), 0)
    array([[1, 2],
           [3, 0]])
    """
    first = arrays[0]
    sizes = []
    for axis, given in enumerate(shape):
        longest = max(a.shape[axis] if a.ndim == len(shape) else -1 for a in arrays)
        sizes.append(longest if given is None else given)
    for array in arrays:
        if array.ndim != len(shape) or any(s > t for s, t in zip(array.shape, sizes, strict=True)):
            raise ShapeError(
                "Dataset.padded_batch",
                received=f"{describe_element(array)} in a batch of shape {tuple(sizes)}",
                expected="elements with the same number of axes, none longer than padded_shapes",
                fix="raise padded_shapes, or cut the elements in map",
            )
    out = _filled((len(arrays), *sizes), first, value)
    for position, array in enumerate(arrays):
        out[position, ...][tuple(slice(s) for s in array.shape)] = array
    return out


def _filled(shape: tuple[int, ...], like: Array, value: Any) -> Array:
    if is_string(like):
        return np.full(shape, "" if value is None else str(to_array(value)), like.dtype)
    out = memory.empty(shape, like.dtype)
    out[...] = 0 if value is None else to_array(value)
    return out


class Unbatch(Stage):
    """The parts of each element along its first axis."""

    name = "unbatch"

    def __init__(self, child: Stage) -> None:
        super().__init__(child)
        self.child = child

    def open(self) -> Cursor:
        return _UnbatchCursor(self.child.open())

    def size(self) -> int:
        size = self.child.size()
        if size in (0, INFINITE):
            return size
        # The spec would tell more, but it may have to call users' functions.
        if not isinstance(self.child, Batch):
            return UNKNOWN
        return size * self.child.rows if self.child.drop and size > 0 else self.child.child.size()

    def spec(self) -> Any:
        return unbatched(self.child.spec())

    def example(self, rows: int) -> Any:
        return row(self.child.example(rows), 0)


class _UnbatchCursor(Cursor):
    def __init__(self, child: Cursor) -> None:
        super().__init__(child)
        self.child = child
        self.batch: Any = None
        self.at = self.rows = 0

    def next(self) -> Any:
        while self.at >= self.rows:
            self.batch = self.child.next()
            self.at, self.rows = 0, _rows_of(self.batch)
        self.at += 1
        return row(self.batch, self.at - 1)

    def restart(self) -> None:
        super().restart()
        self.batch, self.at, self.rows = None, 0, 0

    def save(self) -> State:
        left = self.batch if self.at < self.rows else None
        return {"at": self.at, "batch": left, **super().save()}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.batch = state["batch"]
        self.at = state["at"] if self.batch is not None else 0
        self.rows = 0 if self.batch is None else _rows_of(self.batch)


def _rows_of(batch: Any) -> int:
    sizes = {a.shape[0] if a.ndim else None for a in leaves(batch)}
    if len(sizes) == 1 and None not in sizes:
        return int(sizes.pop() or 0)
    raise ShapeError(
        "Dataset.unbatch",
        received=f"the element {describe_element(batch)}",
        expected="the same size along the first axis of all parts",
        fix="batch the dataset first, or leave unbatch out",
    )
