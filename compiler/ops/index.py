"""Reading at computed indices: take, take_along_axis, integer-array indexing, one_hot, nonzero.

Negative indices count from the end. An index out of range raises OutOfRangeError, in eager code at
once and in compiled code at the end of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.types import (
    ALL,
    INTEGERS,
    UNSIGNED,
    TensorType,
    as_dtype,
    broadcast,
    describe,
    int64,
)
from graphnn.compiler.ops.base import (
    Composite,
    Load,
    Move,
    NoGradient,
    Opaque,
    Sample,
    broadcast_index,
    normalize_axis,
)
from graphnn.compiler.ops.checks import IndexCheck
from graphnn.compiler.ops.shape import normalize_axes
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError, TraceError


def check_indices(types: Sequence[TensorType], subject: str) -> None:
    """Raise DTypeError unless all indices are integers."""
    for t in types:
        if t.dtype not in INTEGERS:
            raise DTypeError(
                subject,
                received=f"indices {describe(t.dtype, t.shape)}",
                expected="integer indices",
                fix="cast the indices, e.g. graphnn.cast(indices, 'int32')",
            )


def check_axis(x: TensorType, axis: int, subject: str) -> int:
    """The non-negative axis; raises ShapeError for a tensor without axes."""
    if x.ndim == 0:
        raise ShapeError(
            subject,
            received=describe(x.dtype, x.shape),
            expected="a tensor with at least one axis",
            fix="reshape it to (1,) first",
        )
    return normalize_axis(axis, x.ndim, subject)


def wrap(xp: Any, indices: Any, check: IndexCheck) -> Any:
    """Indices as non-negative int64; raises OutOfRangeError for the first one out of range."""
    if indices.dtype.kind not in "iu":
        check_indices((TensorType(indices.shape, indices.dtype),), check.op)
    wide, extent = indices.astype(int64, copy=False), int(check.extent)
    if not wide.size:
        return wide
    if wide.min() < -extent or wide.max() >= extent:
        flat = wide.reshape(-1)
        raise check.error(flat[xp.argmax((flat < -extent) | (flat >= extent))])
    return xp.where(wide < 0, wide + extent, wide)


def place(emit: Any, raw: Any, dtype: Any, check: IndexCheck) -> Any:
    """An index expression from a loaded index, range-checked and counted from the front."""
    at, extent = emit.cast(raw, int64), check.extent
    size = emit.index(extent)
    low = emit.compare("ge", at, emit.index(0 if dtype in UNSIGNED else -1 * extent))
    ok = emit.bitwise("and", low, emit.compare("lt", at, size))
    at = emit.check(ok, at, check)
    if dtype not in UNSIGNED:
        at = emit.select(emit.compare("lt", at, 0), at + size, at)
    return emit.dynamic(at, extent)


class Take(Move):
    """Slices of x along an axis, at given positions: also called gather.

    x: any dtype. indices: integers of any shape. axis: of x. Returns: x.shape with that axis
    replaced by indices.shape. Raises OutOfRangeError.

    >>> graphnn.take([10, 20, 30], [2, 0]).numpy().tolist()
    [30, 10]
    """

    name = "take"
    samples = (
        Sample((("f", (5, 3)), ("i", (2, 4), 0, 5)), {"axis": 0}),
        Sample((("f", (2, 4)), ("i", (3,), -4, 4)), {"axis": -1}),
        Sample((("f", (3,)), ("i", (), 0, 3)), {"axis": 0}),
        Sample((("i", (2, 3)), ("i", (0,), 0, 1)), {"axis": 1}),
        Sample((("f", (1, 2)), ("i", (3,), 0, 1)), {"axis": 0}),
    )
    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        check_indices((indices,), self.name)
        axis = check_axis(x, self.axis, self.name)
        return x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def eager(self, xp: Any, x: Any, indices: Any) -> Any:
        axis = normalize_axis(self.axis, x.ndim, self.name)
        at = wrap(xp, indices, IndexCheck(self.name, axis, x.shape[axis]))
        return xp.asarray(xp.take(x, at, axis=axis))

    def grad(self, ops: Any, x: Any, indices: Any, *, out: Any, g: Any) -> Any:
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        settings = {"axes": (axis,), "at": axis, "mode": "add"}
        return ops.scatter(ops.zeros_like(x), indices, g, **settings), None

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        x, indices = loads
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        end = axis + len(indices.shape)
        check = IndexCheck(self.name, axis, x.shape[axis])
        at = place(emit, indices(index[axis:end]), indices.dtype, check)
        return x((*index[:axis], at, *index[end:]))


class TakeAlongAxis(Move):
    """Elements of x along an axis, each at its own position.

    x: any dtype. indices: integers, as many axes as x, sizes equal on all other axes (the public
    function broadcasts). Returns: the shape of indices. Raises OutOfRangeError.

    >>> graphnn.take_along_axis([[1, 2], [3, 4]], [[1], [0]], axis=1).numpy().tolist()
    [[2], [3]]
    """

    name = "take_along_axis"
    samples = (
        Sample((("f", (3, 4)), ("i", (3, 2), -4, 4)), {"axis": 1}),
        Sample((("f", (3, 2)), ("i", (5, 2), 0, 3)), {"axis": -2}),
        Sample((("i", (2, 1)), ("i", (2, 1), 0, 1)), {"axis": 1}),
        Sample((("b", (2,)), ("i", (0,), 0, 1)), {"axis": 0}),
    )
    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        check_indices((indices,), self.name)
        axis = check_axis(x, self.axis, self.name)
        wanted = (*x.shape[:axis], *indices.shape[axis : axis + 1], *x.shape[axis + 1 :])
        if indices.shape != wanted:
            raise ShapeError(
                self.name,
                received=f"x {describe(x.dtype, x.shape)}, indices "
                f"{describe(indices.dtype, indices.shape)}",
                expected=f"equal sizes on all axes but axis {axis}",
                fix="broadcast one of them to the other's shape",
            )
        return x.with_shape(indices.shape)

    def eager(self, xp: Any, x: Any, indices: Any) -> Any:
        axis = normalize_axis(self.axis, x.ndim, self.name)
        at = wrap(xp, indices, IndexCheck(self.name, axis, x.shape[axis]))
        return xp.take_along_axis(x, at, axis=axis)

    def grad(self, ops: Any, x: Any, indices: Any, *, out: Any, g: Any) -> Any:
        settings = {"axis": self.axis, "mode": "add"}
        return ops.put_along_axis(ops.zeros_like(x), indices, g, **settings), None

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        x, indices = loads
        axis = normalize_axis(self.axis, out.ndim, self.name)
        check = IndexCheck(self.name, axis, x.shape[axis])
        at = place(emit, indices(index), indices.dtype, check)
        return x((*index[:axis], at, *index[axis + 1 :]))


class Index(Move):
    """Integer-array indexing on chosen axes, as in x[:, i, j].

    x: any dtype. indices: one integer tensor for each of `axes`; they broadcast to one shape.
    Returns: the axes of x that are not indexed, with the broadcast axes inserted before the
    `at`-th of them. Slices are taken before, by the public functions. Raises OutOfRangeError.

    >>> graphnn.constant([[1, 2], [3, 4]])[[0, 1], [1, 0]].numpy().tolist()
    [2, 3]
    """

    name = "index"
    samples = (
        Sample((("f", (4, 5)), ("i", (3,), -4, 4), ("i", (2, 1), 0, 5)), {"axes": (0, 1), "at": 0}),
        Sample((("f", (4, 2, 5)), ("i", (3,), 0, 4), ("i", (), 0, 5)), {"axes": (0, 2), "at": 0}),
        Sample((("f", (2, 3, 4)), ("i", (2, 2), 0, 3)), {"axes": (1,), "at": 1}),
        Sample((("i", (2, 3)), ("i", (0,), 0, 3)), {"axes": (1,), "at": 1}),
        Sample((("f", (3, 2)), ("i", (), 0, 3), ("i", (), 0, 2)), {"axes": (0, 1), "at": 0}),
    )
    axes: tuple[int, ...]
    at: int

    def infer(self, *types: TensorType) -> TensorType:
        x, *indices = types
        return x.with_shape(indexed_shape(self.name, x, indices, self.axes, self.at))

    def eager(self, xp: Any, x: Any, *indices: Any) -> Any:
        axes = normalize_axes(self.axes, x.ndim, self.name)
        rest = [a for a in range(x.ndim) if a not in axes]
        checks = (IndexCheck(self.name, a, x.shape[a]) for a in axes)
        where = tuple(wrap(xp, i, c) for i, c in zip(indices, checks, strict=True))
        found = xp.asarray(x.transpose((*axes, *rest))[where])
        count = found.ndim - len(rest)
        if self.at and count:
            found = xp.moveaxis(found, range(count), range(self.at, self.at + count))
        return found

    def grad(self, ops: Any, x: Any, *indices: Any, out: Any, g: Any) -> Any:
        settings = {"axes": self.axes, "at": self.at, "mode": "add"}
        gx = ops.scatter(ops.zeros_like(x), *indices, g, **settings)
        return (gx, *[None] * len(indices))

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        x, *indices = loads
        return x(source_index(emit, self.name, index, x.type, indices, self.axes, self.at))


def indexed_shape(
    subject: str, x: TensorType, indices: Sequence[TensorType], axes: tuple[int, ...], at: int
) -> tuple[Any, ...]:
    """Shape of x indexed by integer tensors on some axes."""
    check_indices(indices, subject)
    found = normalize_axes(axes, x.ndim, subject)
    if len(found) != len(indices) or not 0 <= at <= x.ndim - len(found) or not found:
        raise ArgumentError(
            subject,
            received=f"{len(indices)} indices, axes {axes}, at={at} for "
            f"{describe(x.dtype, x.shape)}",
            expected="one index per axis, and a place among the other axes",
            fix="index with x[i, j]",
        )
    rest = [s for a, s in enumerate(x.shape) if a not in found]
    middle = broadcast(tuple(i.shape for i in indices), subject)
    return (*rest[:at], *middle, *rest[at:])


def source_index(
    emit: Any,
    subject: str,
    index: tuple[Any, ...],
    x: TensorType,
    indices: Sequence[Load],
    axes: tuple[int, ...],
    at: int,
) -> tuple[Any, ...]:
    """The index into x for an index of the indexed tensor."""
    axes = normalize_axes(axes, x.ndim, subject)
    count = max(len(i.shape) for i in indices)
    middle, rest = index[at : at + count], iter((*index[:at], *index[at + count :]))
    places: list[Any] = [None if a in axes else next(rest) for a in range(x.ndim)]
    for axis, load in zip(axes, indices, strict=True):
        raw = load(broadcast_index(middle, load.shape))
        places[axis] = place(emit, raw, load.dtype, IndexCheck(subject, axis, x.shape[axis]))
    return tuple(places)


class GatherND(Composite):
    """Elements or slices of x at index vectors: the last axis of indices holds (i, j, ...).

    x: any dtype. indices: integers (..., k) with k <= the axes of x. Returns: indices.shape[:-1]
    and then the axes of x after the k-th. Raises OutOfRangeError.

    >>> graphnn.gather_nd([[1, 2], [3, 4]], [[1, 0]]).numpy().tolist()
    [3]
    """

    name, accepts, promotes = "gather_nd", ALL, "none"
    samples = (
        Sample((("f", (3, 4)), ("i", (5, 2), 0, 3))),
        Sample((("f", (3, 2, 2)), ("i", (2, 3, 1), -3, 3))),
    )

    def decompose(self, ops: Any, x: Any, indices: Any) -> Any:
        parts = index_parts(ops, x, indices, self.name)
        return ops.index(x, *parts, axes=tuple(range(len(parts))), at=0)


def index_parts(ops: Any, x: Any, indices: Any, subject: str) -> list[Any]:
    """The columns of index vectors."""
    shape = tuple(indices.shape)
    if not shape or not isinstance(shape[-1], int) or not 1 <= shape[-1] <= len(x.shape):
        raise ShapeError(
            subject,
            received=f"indices {describe(indices.dtype, shape)} for {len(x.shape)} axes",
            expected=f"a last axis with 1 to {len(x.shape)} indices",
            fix="put the index vectors on the last axis",
        )
    parts, none = [], (0,) * (len(shape) - 1)
    for k in range(shape[-1]):
        column = {"starts": (*none, k), "steps": (1,) * len(shape), "shape": (*shape[:-1], 1)}
        parts.append(ops.squeeze(ops.slice(indices, **column), axes=(-1,)))
    return parts


class OneHot(Move):
    """1 at the position that an index names along a new axis, else 0; all 0 if it is out of range.

    indices: integers. depth: size of the new axis. axis: its place in the result.

    >>> graphnn.one_hot([1, 0], 2).numpy().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    name, accepts, fusion = "one_hot", INTEGERS, "map"
    gradient: ClassVar[NoGradient | None] = NoGradient("the indices are integers")
    samples = (
        Sample((("i", (3, 2), 0, 4),), {"depth": 4}),
        Sample((("i", (3,), -1, 4),), {"depth": 3, "axis": 0, "dtype": "bool"}),
        Sample((("i", (), 0, 2),), {"depth": 2, "dtype": "int32"}),
        Sample((("i", (2,), 0, 2),), {"depth": 0}),
    )
    depth: Any
    dtype: str = "float32"
    axis: int = -1

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        (indices,) = types
        axis = normalize_axis(self.axis, indices.ndim + 1, self.name)
        shape = (*indices.shape[:axis], self.depth, *indices.shape[axis:])
        return TensorType(shape, as_dtype(self.dtype))

    def eager(self, xp: Any, indices: Any) -> Any:
        self.check_dtypes((TensorType(indices.shape, indices.dtype),))
        axis = normalize_axis(self.axis, indices.ndim + 1, self.name)
        places = xp.arange(self.depth).reshape((-1,) + (1,) * (indices.ndim - axis))
        return (xp.expand_dims(indices, axis) == places).astype(as_dtype(self.dtype))

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        axis = normalize_axis(self.axis, out.ndim, self.name)
        wanted = emit.cast(loads[0]((*index[:axis], *index[axis + 1 :])), int64)
        return emit.cast(emit.compare("eq", wanted, emit.index(index[axis])), out.dtype)


# ---- shapes that depend on the data: eager only --------------------------------------------


def _data_dependent(subject: str, fix: str) -> TraceError:
    return TraceError(
        subject,
        received="a traced tensor, whose values are not known yet",
        expected="eager tensors: the shape of the result depends on the values",
        fix=fix,
    )


class NonZero(Opaque):
    """Positions of the elements that are not zero: one int64 tensor per axis. Eager only.

    >>> [i.numpy().tolist() for i in graphnn.nonzero([0, 5, 7])]
    [[1, 2]]
    """

    name = "nonzero"
    gradient = NoGradient("positions are integers")

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        raise _data_dependent(
            self.name, "call it outside @function, or use graphnn.where(condition, x, y)"
        )

    def eager(self, xp: Any, x: Any) -> Any:
        return tuple(i.astype(int64, copy=False) for i in xp.nonzero(xp.atleast_1d(x)))


class BooleanMask(Opaque):
    """The slices of x where a mask is true, along one axis in place of the mask's. Eager only.

    x: any dtype. mask: bool, its shape equal to that of x from `axis` on.

    >>> graphnn.boolean_mask([1, 2, 3], [True, False, True]).numpy().tolist()
    [1, 3]
    """

    name = "boolean_mask"
    axis: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        x, mask = types
        self._check(x, mask)
        raise _data_dependent(
            self.name, "call it outside @function, or use graphnn.where(mask, x, 0)"
        )

    def _check(self, x: Any, mask: Any) -> int:
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        fits = tuple(x.shape[axis : axis + len(mask.shape)]) == tuple(mask.shape)
        if not fits or not mask.shape or mask.dtype != np.bool_:
            raise ShapeError(
                self.name,
                received=f"x {describe(x.dtype, x.shape)}, mask {describe(mask.dtype, mask.shape)}",
                expected=f"a bool mask with the sizes of x from axis {axis} on",
                fix="compare x itself to make the mask, or give the axis",
            )
        return axis

    def eager(self, xp: Any, x: Any, mask: Any) -> Any:
        axis = self._check(x, mask)
        return x[(*[slice(None)] * axis, mask)]

    def grad(self, ops: Any, x: Any, mask: Any, *, out: Any, g: Any) -> Any:
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        places = ops.nonzero(mask)
        axes = tuple(range(axis, axis + len(mask.shape)))
        settings = {"axes": axes, "at": axis, "mode": "add"}
        return ops.scatter(ops.zeros_like(x), *places, g, **settings), None
