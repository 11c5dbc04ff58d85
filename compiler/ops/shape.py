"""Moves: reshape, transpose, broadcast, slice, pad, flip, concat, triangles, diagonals.

An element of the result is one element of an input (or a fill value) at a mapped index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn.compiler.ir.sizes import bounds, ravel, unravel
from graphnn.compiler.ir.types import TensorType, describe
from graphnn.compiler.ops.base import Load, Move, Sample, element_count, normalize_axis
from graphnn.runtime.errors import ArgumentError, ShapeError


def normalize_axes(axes: Sequence[int], ndim: int, subject: str) -> tuple[int, ...]:
    """Non-negative axes, each once; raises ArgumentError otherwise."""
    found = tuple(normalize_axis(a, ndim, subject) for a in axes)
    if len(set(found)) != len(found):
        raise ArgumentError(
            subject, received=f"axes {tuple(axes)}", expected="each axis once", fix="drop one"
        )
    return found


def certainly_negative(value: Any) -> bool:
    """Whether a size is below 0 whatever its symbols are."""
    high = bounds(value)[1]
    return high is not None and high < 0


def show_shape(shape: Sequence[Any]) -> str:
    """A shape in an error text."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


class Reshape(Move):
    """The elements in row-major order under another shape.

    shape: sizes whose product is the number of elements (no -1: the public function resolves it).

    >>> graphnn.reshape([1, 2, 3, 4], (2, 2)).numpy().tolist()
    [[1, 2], [3, 4]]
    """

    name = "reshape"
    rearranges = True
    samples = (
        Sample((("f", (3, 4)),), {"shape": (2, 6)}),
        Sample((("f", ()),), {"shape": (1, 1)}),
        Sample((("i", (2, 0)),), {"shape": (0, 3)}),
        Sample((("b", (2, 1, 3)),), {"shape": (6,)}),
        Sample((("f", (2, 3, 4)),), {"shape": (4, 3, 2)}),
    )
    shape: tuple[Any, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        count = element_count(self.shape)
        negative = any(isinstance(s, int) and s < 0 for s in self.shape)
        if count != x.size or negative:
            raise ShapeError(
                self.name,
                received=f"{describe(x.dtype, x.shape)} with {x.size} elements",
                expected=f"as many as shape {show_shape(self.shape)}: {count}",
                fix="give a shape whose product is the number of elements; where that depends on a "
                "symbolic size, give that axis a fixed size in input_signature",
            )
        return x.with_shape(tuple(self.shape))

    def eager(self, xp: Any, x: Any) -> Any:
        return x.reshape(self.shape)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.reshape(g, shape=tuple(x.shape)),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        return loads[0](unravel(ravel(index, out.shape), loads[0].shape))

    def fold(self, ops: Any, x: Any) -> Any:
        if x.shape == self.shape:
            return x
        source = x
        while isinstance(source.op, Reshape | ExpandDims | Squeeze):
            source = source.inputs[0]
        return None if source is x else ops.reshape(source, shape=self.shape)


class PermuteDims(Move):
    """The axes in another order: result axis i is input axis axes[i].

    >>> graphnn.permute_dims([[1, 2]], (1, 0)).numpy().tolist()
    [[1], [2]]
    """

    name = "permute_dims"
    rearranges = True
    samples = (
        Sample((("f", (2, 3, 4)),), {"axes": (2, 0, 1)}),
        Sample((("i", (3, 1)),), {"axes": (1, 0)}),
        Sample((("f", ()),), {"axes": ()}),
        Sample((("b", (0, 2)),), {"axes": (-1, 0)}),
    )
    axes: tuple[int, ...]

    def _axes(self, ndim: int) -> tuple[int, ...]:
        axes = normalize_axes(self.axes, ndim, self.name)
        if len(axes) != ndim:
            raise ArgumentError(
                self.name,
                received=f"axes {self.axes} for a tensor with {ndim} axes",
                expected=f"all {ndim} axes, each once",
                fix="name every axis",
            )
        return axes

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        return x.with_shape(tuple(x.shape[a] for a in self._axes(x.ndim)))

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.transpose(x, self.axes)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        axes = self._axes(len(x.shape))
        return (ops.permute_dims(g, axes=tuple(axes.index(i) for i in range(len(axes)))),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        axes = self._axes(out.ndim)
        return loads[0](tuple(index[axes.index(i)] for i in range(out.ndim)))

    def fold(self, ops: Any, x: Any) -> Any:
        axes = self._axes(len(x.shape))
        if axes == tuple(range(len(axes))):
            return x
        if not isinstance(x.op, PermuteDims):
            return None
        first = x.op._axes(len(axes))
        return ops.permute_dims(x.inputs[0], axes=tuple(first[a] for a in axes))


class BroadcastTo(Move):
    """The tensor repeated along axes of size 1 and new leading axes.

    >>> graphnn.broadcast_to([1, 2], (2, 2)).numpy().tolist()
    [[1, 2], [1, 2]]
    """

    name = "broadcast_to"
    rearranges = True
    stretches = True
    samples = (
        Sample((("f", (3, 1)),), {"shape": (2, 3, 4)}),
        Sample((("f", ()),), {"shape": (2, 2)}),
        Sample((("i", (1,)),), {"shape": (0,)}),
        Sample((("b", (2,)),), {"shape": (2,)}),
    )
    shape: tuple[Any, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        own = self.shape[len(self.shape) - x.ndim :]
        fits = x.ndim <= len(self.shape) and all(
            s in (1, t) for s, t in zip(x.shape, own, strict=True)
        )
        if not fits:
            raise ShapeError(
                self.name,
                received=f"{describe(x.dtype, x.shape)} for shape {show_shape(self.shape)}",
                expected="sizes equal or 1 on each axis, lined up from the right",
                fix="insert axes of size 1 with expand_dims",
            )
        return x.with_shape(tuple(self.shape))

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.broadcast_to(x, self.shape)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (g,)  # the driver sums over the stretched axes

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        shape = loads[0].shape
        own = index[len(index) - len(shape) :]
        return loads[0](tuple(0 if s == 1 else i for i, s in zip(own, shape, strict=True)))

    def fold(self, ops: Any, x: Any) -> Any:
        if x.shape == self.shape:
            return x
        return ops.broadcast_to(x.inputs[0], shape=self.shape) if x.op.stretches else None


class ExpandDims(Move):
    """New axes of size 1. axes: their places in the result.

    >>> graphnn.expand_dims([1, 2], 0).shape
    (1, 2)
    """

    name = "expand_dims"
    rearranges = True
    samples = (
        Sample((("f", (2, 3)),), {"axes": (0, 2)}),
        Sample((("i", ()),), {"axes": (-1,)}),
        Sample((("b", (0,)),), {"axes": (-1,)}),
    )
    axes: tuple[int, ...]

    def _shape(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        ndim = len(shape) + len(self.axes)
        axes = normalize_axes(self.axes, ndim, self.name)
        rest = iter(shape)
        return tuple(1 if i in axes else next(rest) for i in range(ndim))

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        return x.with_shape(self._shape(x.shape))

    def eager(self, xp: Any, x: Any) -> Any:
        return x.reshape(self._shape(x.shape))

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.squeeze(g, axes=self.axes),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        axes = normalize_axes(self.axes, out.ndim, self.name)
        return loads[0](tuple(v for i, v in enumerate(index) if i not in axes))

    def fold(self, ops: Any, x: Any) -> Any:
        return None if self.axes else x


class Squeeze(Move):
    """The tensor without some axes of size 1.

    >>> graphnn.squeeze([[1], [2]], axis=1).shape
    (2,)
    """

    name = "squeeze"
    rearranges = True
    samples = (
        Sample((("f", (1, 3, 1)),), {"axes": (0, -1)}),
        Sample((("i", (1,)),), {"axes": (0,)}),
        Sample((("b", (1, 0)),), {"axes": (0,)}),
    )
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        axes = normalize_axes(self.axes, x.ndim, self.name)
        wide = [a for a in axes if x.shape[a] != 1]
        if wide:
            raise ShapeError(
                self.name,
                received=f"{describe(x.dtype, x.shape)}, whose axis {wide[0]} has size "
                f"{x.shape[wide[0]]}",
                expected="axes of size 1",
                fix="squeeze only axes of size 1, or select an index on the axis",
            )
        return x.with_shape(tuple(s for i, s in enumerate(x.shape) if i not in axes))

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.squeeze(x, self.axes)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.reshape(g, shape=tuple(x.shape)),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        ndim = len(loads[0].shape)
        axes = normalize_axes(self.axes, ndim, self.name)
        rest = iter(index)
        return loads[0](tuple(0 if i in axes else next(rest) for i in range(ndim)))

    def fold(self, ops: Any, x: Any) -> Any:
        return None if self.axes else x


class Slice(Move):
    """A regular part: result index i is input index starts + i * steps, on each axis.

    starts: non-negative. steps: not 0, negative allowed. shape: sizes of the result.
    Python slices are brought to this form by the public functions.

    >>> graphnn.constant([1, 2, 3, 4])[::-2].numpy().tolist()
    [4, 2]
    """

    name = "slice"
    rearranges = True
    samples = (
        Sample((("f", (5, 6)),), {"starts": (1, 0), "steps": (1, 2), "shape": (3, 3)}),
        Sample((("f", (5, 4)),), {"starts": (4, 3), "steps": (-2, -1), "shape": (3, 2)}),
        Sample((("i", (4,)),), {"starts": (4,), "steps": (1,), "shape": (0,)}),
        Sample((("b", (3, 1)),), {"starts": (2, 0), "steps": (3, 1), "shape": (1, 1)}),
        Sample((("f", ()),), {"starts": (), "steps": (), "shape": ()}),
        Sample((("f", (7,)),), {"starts": (1,), "steps": (3,), "shape": (2,)}),
    )
    starts: tuple[Any, ...]
    steps: tuple[int, ...]
    shape: tuple[Any, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if not len(self.starts) == len(self.steps) == len(self.shape) == x.ndim or 0 in self.steps:
            raise ArgumentError(
                self.name,
                received=f"starts {self.starts}, steps {self.steps}, shape {self.shape}",
                expected=f"one start, non-zero step and size for each of {x.ndim} axes",
                fix="slice with x[start:stop:step]",
            )
        rows = zip(self.starts, self.steps, self.shape, x.shape, strict=True)
        for axis, (start, step, size, extent) in enumerate(rows):
            last = start + (size - 1) * step
            ends = () if size == 0 else (start, last, extent - 1 - start, extent - 1 - last)
            if any(map(certainly_negative, (size, *ends))):
                raise ShapeError(
                    self.name,
                    received=f"start {start}, step {step}, size {size} on axis {axis} of "
                    f"{describe(x.dtype, x.shape)}",
                    expected=f"indices from 0 to {extent - 1}",
                    fix="keep the slice inside the axis",
                )
        return x.with_shape(tuple(self.shape))

    def eager(self, xp: Any, x: Any) -> Any:
        where = []
        for start, step, size in zip(self.starts, self.steps, self.shape, strict=True):
            stop = start + size * step if size else start
            where.append(slice(start, None if stop < 0 else stop, step))
        return x[(*where, Ellipsis)]

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        back = tuple(i for i, step in enumerate(self.steps) if step < 0)
        g = ops.flip(g, axes=back) if back else g
        low, high, interior = [], [], []
        for start, step, size, extent in zip(
            self.starts, self.steps, self.shape, tuple(x.shape), strict=True
        ):
            first = start if step > 0 else start + (size - 1) * step
            empty = isinstance(size, int) and size == 0
            span = 0 if empty else (size - 1) * abs(step) + 1
            first = 0 if empty else first
            low.append(first)
            high.append(extent - first - span)
            interior.append(abs(step) - 1)
        pads = {"low": tuple(low), "high": tuple(high), "interior": tuple(interior)}
        return (ops.pad(g, **pads),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        rows = zip(index, self.starts, self.steps, strict=True)
        return loads[0](tuple(i * step + start for i, start, step in rows))

    def fold(self, ops: Any, x: Any) -> Any:
        if x.shape == self.shape and all(step == 1 for step in self.steps):
            return x
        if not isinstance(x.op, Slice):
            return None
        inner = x.op
        rows = zip(inner.starts, inner.steps, self.starts, strict=True)
        starts = tuple(first + step * start for first, step, start in rows)
        steps = tuple(a * b for a, b in zip(inner.steps, self.steps, strict=True))
        return ops.slice(x.inputs[0], starts=starts, steps=steps, shape=self.shape)
