"""Moves that join, surround, reverse or repeat: pad, flip, roll, concat, split, tile, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.compiler.ir.types import ALL, TensorType, describe
from graphnn.compiler.ops.base import Composite, Load, Move, Sample, normalize_axis
from graphnn.compiler.ops.shape import certainly_negative, normalize_axes
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError


class Pad(Move):
    """A constant put around the tensor, and `interior` times between neighbours.

    low, high: non-negative counts before and after, for each axis. interior: counts, default 0.
    value: a Python number. Other modes are the op pad_mode.

    >>> graphnn.pad([1, 2], ((1, 0),)).numpy().tolist()
    [0, 1, 2]
    """

    name = "pad"
    samples = (
        Sample((("f", (2, 3)),), {"low": (1, 0), "high": (0, 2), "value": 1.5}),
        Sample((("f", (3,)),), {"low": (1,), "high": (2,), "interior": (2,)}),
        Sample((("i", (0, 2)),), {"low": (1, 1), "high": (1, 0), "value": 3}),
        Sample((("b", (2,)),), {"low": (1,), "high": (1,), "value": True}),
        Sample((("f", ()),), {"low": (), "high": ()}),
    )
    low: tuple[Any, ...]
    high: tuple[Any, ...]
    interior: tuple[int, ...] = ()
    value: Any = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pad) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def _interior(self, ndim: int) -> tuple[int, ...]:
        return self.interior or (0,) * ndim

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        interior = self._interior(x.ndim)
        counts = (*self.low, *self.high, *interior)
        one_each = len(self.low) == len(self.high) == len(interior) == x.ndim
        if not one_each or any(map(certainly_negative, counts)):
            raise ArgumentError(
                self.name,
                received=f"low {self.low}, high {self.high}, interior {interior} for "
                f"{describe(x.dtype, x.shape)}",
                expected=f"non-negative counts for each of {x.ndim} axes",
                fix="give one (before, after) pair per axis; cut with a slice",
            )
        rows = zip(self.low, x.shape, interior, self.high, strict=True)
        return x.with_shape(tuple(a + _dilated(n, k) + b for a, n, k, b in rows))

    def eager(self, xp: Any, x: Any) -> Any:
        shape = self.infer(TensorType(tuple(x.shape), x.dtype)).shape
        out = xp.full(shape, self.value, x.dtype)
        rows = zip(self.low, x.shape, self._interior(x.ndim), strict=True)
        where = tuple(slice(a, a + _dilated(n, k), k + 1) for a, n, k in rows)
        out[where] = x
        return out

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        shape = tuple(x.shape)
        steps = tuple(k + 1 for k in self._interior(len(shape)))
        return (ops.slice(g, starts=tuple(self.low), steps=steps, shape=shape),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        (x,) = loads
        inside, places = None, []
        rows = zip(index, self.low, self.high, x.shape, self._interior(out.ndim), strict=True)
        for i, low, high, extent, gap in rows:
            place = i - low
            conditions = []
            if low != 0 or high != 0:
                conditions.append(emit.within(i, low, low + _dilated(extent, gap)))
            if gap:
                between = emit.mod(emit.index(place), emit.index(gap + 1))
                conditions.append(emit.compare("eq", between, 0))
                place = place // (gap + 1)
            for condition in conditions:
                inside = condition if inside is None else emit.bitwise("and", inside, condition)
            places.append(place)
        if inside is None:
            return x(tuple(places))
        return emit.guarded(inside, lambda: x(tuple(places)), self.value)

    def fold(self, ops: Any, x: Any) -> Any:
        return None if any(n != 0 for n in (*self.low, *self.high, *self.interior)) else x


def _dilated(extent: Any, gap: int) -> Any:
    """Size of an axis with `gap` more elements between neighbours."""
    if gap == 0 or (isinstance(extent, int) and extent == 0):
        return extent
    return (extent - 1) * (gap + 1) + 1


class Flip(Move):
    """The order of the elements reversed along axes.

    >>> graphnn.flip([1, 2, 3]).numpy().tolist()
    [3, 2, 1]
    """

    name = "flip"
    rearranges = True
    samples = (
        Sample((("f", (2, 3)),), {"axes": (0, 1)}),
        Sample((("i", (4, 1)),), {"axes": (-1,)}),
        Sample((("b", (0,)),), {"axes": (0,)}),
    )
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        normalize_axes(self.axes, types[0].ndim, self.name)
        return types[0]

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.flip(x, self.axes)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.flip(g, axes=self.axes),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        axes = normalize_axes(self.axes, out.ndim, self.name)
        rows = enumerate(zip(index, out.shape, strict=True))
        return loads[0](tuple(n - 1 - i if a in axes else i for a, (i, n) in rows))

    def fold(self, ops: Any, x: Any) -> Any:
        if isinstance(x.op, Flip) and x.op.axes == self.axes:
            return x.inputs[0]
        return None if self.axes else x


class Concat(Move):
    """Tensors joined along an axis. Inputs: one or more, of one dtype, equal on all other axes.

    >>> graphnn.concat([[1, 2], [3]]).numpy().tolist()
    [1, 2, 3]
    """

    name, promotes = "concat", "common"
    samples = (
        Sample((("f", (2, 3)), ("f", (2, 1)), ("f", (2, 2))), {"axis": 1}),
        Sample((("i", (1, 2)), ("i", (0, 2))), {"axis": -2}),
        Sample((("b", (2,)),), {"axis": 0}),
    )
    axis: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        first = types[0]
        axis = normalize_axis(self.axis, first.ndim, self.name)
        if len({t.dtype for t in types}) > 1:
            raise DTypeError(
                self.name,
                received=" and ".join(describe(t.dtype, t.shape) for t in types),
                expected="inputs of one dtype",
                fix="cast them to one dtype",
            )
        rests = {t.shape[:axis] + t.shape[axis + 1 :] for t in types}
        if first.ndim == 0 or len(rests) > 1 or any(t.ndim != first.ndim for t in types):
            raise ShapeError(
                self.name,
                received=" and ".join(describe(t.dtype, t.shape) for t in types),
                expected=f"at least one axis, and equal sizes on all axes but axis {axis}",
                fix="reshape the inputs, or use stack to join along a new axis",
            )
        total = sum((t.shape[axis] for t in types), 0)
        return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return xp.concatenate(arrays, self.axis)

    def grad(self, ops: Any, *inputs: Any, out: Any, g: Any) -> Any:
        ndim = len(g.shape)
        axis = normalize_axis(self.axis, ndim, self.name)
        parts, at = [], 0
        for x in inputs:
            starts = tuple(at if a == axis else 0 for a in range(ndim))
            parts.append(ops.slice(g, starts=starts, steps=(1,) * ndim, shape=tuple(x.shape)))
            at = at + x.shape[axis]
        return parts

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        axis = normalize_axis(self.axis, out.ndim, self.name)
        if len(loads) == 1:
            return loads[0](index)
        result, at = emit.constant(0, out.dtype), 0
        for load in loads:
            piece = _piece(load, index, axis, at)
            end = at + load.shape[axis]
            result = emit.guarded(emit.within(index[axis], at, end), piece, result)
            at = end
        return result

    def fold(self, ops: Any, *inputs: Any) -> Any:
        return inputs[0] if len(inputs) == 1 else None


def _piece(load: Load, index: tuple[Any, ...], axis: int, at: Any) -> Any:
    place = (*index[:axis], index[axis] - at, *index[axis + 1 :])
    return lambda: load(place)


# ---- said in other moves --------------------------------------------------------------------


class MoveComposite(Composite):
    """Template of moves that other moves say; any dtype."""

    accepts, promotes = ALL, "none"

    def on_sizes(self, *values: Any) -> Any:
        return self.eager(np, *values)


def part(ops: Any, x: Any, axis: int, start: Any, size: Any, step: int = 1) -> Any:
    """A regular part of one axis."""
    ndim = len(x.shape)
    return ops.slice(
        x,
        starts=tuple(start if a == axis else 0 for a in range(ndim)),
        steps=tuple(step if a == axis else 1 for a in range(ndim)),
        shape=tuple(size if a == axis else n for a, n in enumerate(x.shape)),
    )


class PadMode(MoveComposite):
    """The tensor surrounded by its own elements.

    low, high: non-negative counts before and after, for each axis. mode: "edge" repeats the
    border, "reflect" mirrors without the border, "symmetric" with it, "wrap" goes on from the
    other end. All but "edge" take at most as many elements as there are.

    >>> graphnn.pad([1, 2, 3], ((2, 0),), mode="reflect").numpy().tolist()
    [3, 2, 1, 2, 3]
    """

    name = "pad_mode"
    samples = (
        Sample((("f", (3, 4)),), {"low": (2, 0), "high": (1, 3), "mode": "reflect"}),
        Sample((("f", (3, 2)),), {"low": (3, 0), "high": (0, 2), "mode": "symmetric"}),
        Sample((("i", (3,)),), {"low": (4,), "high": (1,), "mode": "edge"}),
        Sample((("b", (1, 3)),), {"low": (0, 3), "high": (0, 2), "mode": "wrap"}),
    )
    low: tuple[int, ...]
    high: tuple[int, ...]
    mode: str

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if self.mode not in ("edge", "reflect", "symmetric", "wrap"):
            raise ArgumentError(
                self.name,
                received=f"mode {self.mode!r}",
                expected="constant, edge, reflect, symmetric or wrap",
                fix="choose one of these modes",
            )
        if not len(self.low) == len(self.high) == x.ndim or min((0, *self.low, *self.high)) < 0:
            raise ArgumentError(
                self.name,
                received=f"low {self.low}, high {self.high} for {describe(x.dtype, x.shape)}",
                expected=f"non-negative counts for each of {x.ndim} axes",
                fix="give one (before, after) pair per axis",
            )
        for axis, (low, high, extent) in enumerate(zip(self.low, self.high, x.shape, strict=True)):
            room = 1 if self.mode == "edge" else extent - (self.mode == "reflect")
            needed = min(max(low, high), 1) if self.mode == "edge" else max(low, high)
            if certainly_negative(room - needed) or (needed and extent == 0):
                raise ShapeError(
                    self.name,
                    received=f"{needed} elements of padding on axis {axis} of size {extent}",
                    expected=f"at most {room} with mode {self.mode!r}",
                    fix="pad less, or with a constant",
                )
        rows = zip(self.low, x.shape, self.high, strict=True)
        return x.with_shape(tuple(a + n + b for a, n, b in rows))

    def decompose(self, ops: Any, x: Any) -> Any:
        for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            pieces = [x]
            if low:
                pieces.insert(0, self._border(ops, x, axis, low, 0))
            if high:
                pieces.append(self._border(ops, x, axis, high, 1))
            x = ops.concat(*pieces, axis=axis) if len(pieces) > 1 else x
        return x

    def _border(self, ops: Any, x: Any, axis: int, count: int, end: int) -> Any:
        extent = x.shape[axis]
        if self.mode == "edge":
            one = part(ops, x, axis, extent - 1 if end else 0, 1)
            shape = tuple(count if a == axis else n for a, n in enumerate(x.shape))
            return ops.broadcast_to(one, shape=shape)
        if self.mode == "wrap":
            return part(ops, x, axis, 0 if end else extent - count, count)
        skip = 1 if self.mode == "reflect" else 0
        last = extent - 1 - skip if end else skip + count - 1
        return part(ops, x, axis, last, count, -1)


class Roll(MoveComposite):
    """Elements shifted along axes; what leaves at one end comes in at the other.

    shifts: one integer per axis, towards higher indices when positive.

    >>> graphnn.roll([1, 2, 3], 1).numpy().tolist()
    [3, 1, 2]
    """

    name = "roll"
    samples = (
        Sample((("f", (3, 4)),), {"shifts": (1, -5), "axes": (0, 1)}),
        Sample((("i", (3,)),), {"shifts": (3,), "axes": (0,)}),
        Sample((("b", (0, 2)),), {"shifts": (1,), "axes": (0,)}),
    )
    shifts: tuple[int, ...]
    axes: tuple[int, ...]

    def decompose(self, ops: Any, x: Any) -> Any:
        if len(self.shifts) != len(self.axes):
            raise ArgumentError(
                self.name,
                received=f"shifts {self.shifts}, axes {self.axes}",
                expected="one shift per axis",
                fix="give both the same length",
            )
        for shift, axis in zip(self.shifts, self.axes, strict=True):
            x = self._rolled(ops, x, shift, normalize_axis(axis, len(x.shape), self.name))
        return x

    @staticmethod
    def _rolled(ops: Any, x: Any, shift: int, axis: int) -> Any:
        extent = x.shape[axis]
        if shift == 0 or (isinstance(extent, int) and (extent == 0 or shift % extent == 0)):
            return ops.identity(x)
        moved = shift % extent
        last = part(ops, x, axis, extent - moved, moved)
        return ops.concat(last, part(ops, x, axis, 0, extent - moved), axis=axis)


class Tile(MoveComposite):
    """The tensor laid side by side. repeats: one count per axis.

    >>> graphnn.tile([1, 2], (2,)).numpy().tolist()
    [1, 2, 1, 2]
    """

    name = "tile"
    samples = (
        Sample((("f", (2, 3)),), {"repeats": (2, 1)}),
        Sample((("i", (2,)),), {"repeats": (0,)}),
        Sample((("b", ()),), {"repeats": ()}),
    )
    repeats: tuple[Any, ...]

    def decompose(self, ops: Any, x: Any) -> Any:
        shape = tuple(x.shape)
        if len(self.repeats) != len(shape) or any(map(certainly_negative, self.repeats)):
            raise ArgumentError(
                self.name,
                received=f"repeats {self.repeats} for {describe(x.dtype, shape)}",
                expected=f"non-negative counts for each of {len(shape)} axes",
                fix="give one count per axis",
            )
        pairs = list(zip(self.repeats, shape, strict=True))
        single = tuple(n for _, size in pairs for n in (1, size))
        wide = tuple(n for pair in pairs for n in pair)
        x = ops.broadcast_to(ops.reshape(x, shape=single), shape=wide)
        return ops.reshape(x, shape=tuple(count * size for count, size in pairs))


class Repeat(MoveComposite):
    """Each element `repeats` times in a row along an axis.

    >>> graphnn.repeat([1, 2], 2).numpy().tolist()
    [1, 1, 2, 2]
    """

    name = "repeat"
    samples = (
        Sample((("f", (2, 3)),), {"repeats": 2, "axis": 1}),
        Sample((("i", (2, 1)),), {"repeats": 0, "axis": -2}),
    )
    repeats: Any
    axis: int

    def decompose(self, ops: Any, x: Any) -> Any:
        shape = tuple(x.shape)
        axis = normalize_axis(self.axis, len(shape), self.name)
        if not shape or certainly_negative(self.repeats):
            raise ArgumentError(
                self.name,
                received=f"repeats {self.repeats} for {describe(x.dtype, shape)}",
                expected="a non-negative count and a tensor with an axis",
                fix="reshape to at least one axis",
            )
        before, after = shape[: axis + 1], shape[axis + 1 :]
        x = ops.reshape(x, shape=(*before, 1, *after))
        x = ops.broadcast_to(x, shape=(*before, self.repeats, *after))
        return ops.reshape(x, shape=(*shape[:axis], shape[axis] * self.repeats, *after))


class Stack(MoveComposite):
    """Tensors of one shape joined along a new axis. axis: its place in the result.

    >>> graphnn.stack([[1, 2], [3, 4]]).shape
    (2, 2)
    """

    name, promotes = "stack", "common"
    samples = (
        Sample((("f", (2, 3)), ("f", (2, 3))), {"axis": 1}),
        Sample((("i", ()), ("i", ()), ("i", ())), {"axis": -1}),
        Sample((("b", (0,)),), {"axis": 0}),
    )
    axis: int = 0

    def decompose(self, ops: Any, *inputs: Any) -> Any:
        if any(tuple(x.shape) != tuple(inputs[0].shape) for x in inputs):
            raise ShapeError(
                self.name,
                received=" and ".join(describe(x.dtype, tuple(x.shape)) for x in inputs),
                expected="tensors of one shape",
                fix="reshape or broadcast them, or join along an old axis with concat",
            )
        axis = normalize_axis(self.axis, len(inputs[0].shape) + 1, self.name)
        return ops.concat(*(ops.expand_dims(x, axes=(axis,)) for x in inputs), axis=axis)


class Split(MoveComposite):
    """Consecutive parts of an axis, as several results. sizes: of the parts; they fill the axis.

    >>> [t.numpy().tolist() for t in graphnn.split([1, 2, 3, 4], 2)]
    [[1, 2], [3, 4]]
    """

    name = "split"
    samples = (
        Sample((("f", (2, 5)),), {"sizes": (2, 0, 3), "axis": 1}),
        Sample((("i", (4,)),), {"sizes": (4,), "axis": -1}),
    )
    sizes: tuple[Any, ...]
    axis: int = 0

    def decompose(self, ops: Any, x: Any) -> Any:
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        if not x.shape or sum(self.sizes, 0) != x.shape[axis]:
            raise ShapeError(
                self.name,
                received=f"sizes {self.sizes} for axis {self.axis} of "
                f"{describe(x.dtype, tuple(x.shape))}",
                expected="sizes that add up to the size of the axis",
                fix="change the sizes, or slice",
            )
        parts, at = [], 0
        for size in self.sizes:
            parts.append(part(ops, x, axis, at, size))
            at = at + size
        return tuple(parts)
