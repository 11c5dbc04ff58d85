"""Several elements at once: a list of elements, or columns (a structure of arrays whose first axis
counts the elements). Orders of row numbers are columns of one array."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.data.elements import Array, describe_element, is_string, leaves, map_leaves, zip_leaves
from graphnn.runtime import memory
from graphnn.runtime.errors import ArgumentError, ShapeError

Block = Any


def count(block: Block) -> int:
    """Number of elements."""
    kind = type(block)
    if kind is list or kind is np.ndarray:
        return len(block)
    return count(block[0]) if kind is tuple else len(next(leaves(block)))


def cut(block: Block, start: int, stop: int | None = None, step: int = 1) -> Block:
    """A part of the elements; columns are views."""
    kind = type(block)
    if kind is list or kind is np.ndarray:
        return block[start:stop:step]
    return map_leaves(lambda a: a[start:stop:step], block)


def row(columns: Block, index: int) -> Any:
    """One element of columns; its leaves are views."""
    return map_leaves(lambda a: a[index, ...], columns)


def join(blocks: list[Block]) -> Block:
    """All elements of blocks of one kind, of which there is at least one."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    kind = type(first)
    if kind is list:
        return [element for block in blocks for element in block]
    if kind is np.ndarray:
        return np.concatenate(blocks)
    return zip_leaves(lambda *parts: np.concatenate(parts), *blocks)


def take_rows(array: Array, rows: Array) -> Array:
    """Rows of an array by their numbers, which must be in range, as a new array."""
    if is_string(array):
        return array[rows]
    out = memory.empty((len(rows), *array.shape[1:]), array.dtype)
    # With mode="clip" NumPy writes straight into the array.
    return array.take(rows, 0, out, "clip")


def pick(columns: Block, rows: Array) -> Block:
    """Elements of columns by their numbers, as new arrays."""
    if type(columns) is np.ndarray:
        return take_rows(columns, rows)
    return map_leaves(lambda a: take_rows(a, rows), columns)


class Space:
    """Arrays that rows of columns are gathered into again and again: for a reader that is done
    with one batch before it asks for the next."""

    def __init__(self, columns: Block) -> None:
        self._columns = columns
        self._made: dict[int, tuple[Block, list[tuple[Array, Array]]]] = {}
        self._texts = any(map(is_string, leaves(columns)))

    def pick(self, rows: Array) -> Block:
        """Elements by their numbers; the same arrays for each batch of one size."""
        size = len(rows)
        block, pairs = self._made.get(size) or self._make(size)
        for array, out in pairs:
            if self._texts and is_string(array):
                out[...] = array[rows]
            else:
                array.take(rows, 0, out, "clip")
        return block

    def _make(self, size: int) -> tuple[Block, list[tuple[Array, Array]]]:
        pairs = []

        def room(array: Array) -> Array:
            pairs.append((array, memory.empty((size, *array.shape[1:]), array.dtype)))
            return pairs[-1][1]

        self._made[size] = map_leaves(room, self._columns), pairs
        return self._made[size]


def stack(elements: list[Any], subject: str = "Dataset.batch") -> Any:
    """Columns from a list of at least one element.

    Raises ShapeError for elements of different shapes or dtypes, ArgumentError for different
    structures.

    >>> stack([(np.array(1), np.zeros(2)), (np.array(3), np.ones(2))])
    (array([1, 3]), array([[0., 0.],
           [1., 1.]]))
    """
    first = elements[0]
    kind = type(first)
    if kind is np.ndarray:
        return stack_leaf(elements, subject)
    if kind is tuple and all(type(e) is tuple and len(e) == len(first) for e in elements):
        return tuple([stack(list(column), subject) for column in zip(*elements, strict=True)])
    if kind is dict and all(type(e) is dict and e.keys() == first.keys() for e in elements):
        return {key: stack([e[key] for e in elements], subject) for key in first}
    return zip_leaves(lambda *column: stack_leaf(list(column), subject), *elements)


def stack_leaf(arrays: list[Any], subject: str) -> Array:
    """One array with a new first axis from arrays of one shape and dtype."""
    first = arrays[0]
    if not isinstance(first, np.ndarray):
        raise _no_array(first)
    shape, dtype = first.shape, first.dtype
    for position, array in enumerate(arrays):
        if type(array) is not np.ndarray:
            raise _no_array(array)
        if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype):
            raise _unlike(subject, first, array, position)
    if is_string(first):
        return np.array([a[()] for a in arrays], dtype) if not shape else np.stack(arrays)
    out = memory.empty((len(arrays), *shape), dtype)
    for position, array in enumerate(arrays):
        out[position] = array
    return out


def _no_array(value: Any) -> ArgumentError:
    return ArgumentError(
        "a Dataset",
        received=f"elements {describe_element(value)} among arrays",
        expected="the same structure of tuples and dicts in all elements",
        fix="return the same structure from each call of your function",
    )


def _unlike(subject: str, first: Array, other: Array, position: int) -> ShapeError:
    return ShapeError(
        subject,
        received=f"{describe_element(first)} as element 0 of the batch and "
        f"{describe_element(other)} as element {position}",
        expected="elements of one shape and dtype",
        fix="use padded_batch for different sizes, or make the elements alike in map",
    )
