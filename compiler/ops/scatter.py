"""Writing at computed indices: add, set, multiply, maximum or minimum into a copy of a tensor.

Updates are applied in row-major order of the indices; so with "set" the last of equal indices wins.
Negative indices count from the end; an index out of range raises OutOfRangeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from graphnn.compiler.ir.types import ALL, NUMBERS, TensorType, bool_, describe
from graphnn.compiler.ops.base import Composite, Load, Op, Sample, element_count, normalize_axis
from graphnn.compiler.ops.checks import IndexCheck
from graphnn.compiler.ops.index import (
    check_axis,
    check_indices,
    index_parts,
    indexed_shape,
    place,
    source_index,
    wrap,
)
from graphnn.compiler.ops.shape import normalize_axes, show_shape
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError

MODES = {"add": "add", "mul": "multiply", "max": "maximum", "min": "minimum", "set": ""}


class Scattering(Op):
    """Template: inputs (base, *indices, updates); the result is base with the updates put in.

    mode: "add", "set", "mul", "max" or "min". The code generator copies (or reuses) base, runs
    serially over the elements of updates and combines each into `update_index(...)` of the result.
    Gradients: "set" gives them to the update that won; "max" and "min" share among equals.
    """

    fusion = "scatter"
    accepts = ALL
    mode: str

    def read(self, ops: Any, x: Any, indices: Sequence[Any]) -> Any:
        """The elements of x at the places that are written."""
        raise TypeError(f"{self.name} states no reading op")

    def places(self, xp: Any, base: Any, indices: Sequence[Any]) -> Any:
        """Linear indices into base, in the shape of updates."""
        raise TypeError(f"{self.name} states no places")

    def update_index(
        self, emit: Any, out: TensorType, index: tuple[Any, ...], loads: Sequence[Load]
    ) -> tuple[Any, ...]:
        """Where in the result the update at an index goes. loads: of all inputs in order."""
        raise TypeError(f"{self.name} states no update_index rule")

    def check_updates(self, types: Sequence[TensorType], wanted: tuple[Any, ...]) -> TensorType:
        """The result's type; raises for a wrong mode, dtype or shape of the updates."""
        base, updates = types[0], types[-1]
        if self.mode not in MODES:
            raise ArgumentError(
                self.name,
                received=f"mode {self.mode!r}",
                expected=", ".join(MODES),
                fix="choose one of these modes",
            )
        if base.dtype != updates.dtype or (base.dtype == bool_ and self.mode != "set"):
            raise DTypeError(
                self.name,
                received=f"base {base.dtype.name}, updates {updates.dtype.name}, mode {self.mode}",
                expected="one dtype; bool only with mode 'set'",
                fix="cast the updates",
            )
        if updates.shape != wanted:
            raise ShapeError(
                self.name,
                received=f"base {describe(base.dtype, base.shape)}, updates "
                f"{describe(updates.dtype, updates.shape)}",
                expected=f"updates of shape {show_shape(wanted)}",
                fix="reshape or broadcast the updates",
            )
        return base

    def eager(self, xp: Any, base: Any, *rest: Any) -> Any:
        *indices, updates = rest
        places = self.places(xp, base, indices)
        if places.shape != updates.shape:
            self.check_updates(types_of(base, updates), places.shape)
        out = xp.array(base, order="C")
        flat, where, values = out.reshape(-1), places.reshape(-1), updates.reshape(-1)
        if self.mode == "set":
            flat[where] = values
            return out
        with np.errstate(all="ignore"):
            getattr(xp, MODES[self.mode]).at(flat, where, values)
        return out

    def grad(self, ops: Any, base: Any, *rest: Any, out: Any, g: Any) -> Any:
        *indices, updates = rest
        rules = {"add": self._grad_add, "set": self._grad_set, "mul": self._grad_mul}
        rule = rules.get(self.mode, self._grad_extreme)
        to_base, to_updates = rule(ops, base, indices, updates, out, g)
        return (to_base, *[None] * len(indices), to_updates)

    def _write(self, ops: Any, base: Any, indices: Any, updates: Any, mode: str) -> Any:
        settings = {**self.settings(), "mode": mode}
        return getattr(ops, self.name)(base, *indices, updates, **settings)

    def _grad_add(self, ops: Any, base: Any, indices: Any, updates: Any, out: Any, g: Any) -> Any:
        return g, self.read(ops, g, indices)

    def _grad_set(self, ops: Any, base: Any, indices: Any, updates: Any, out: Any, g: Any) -> Any:
        shape = tuple(updates.shape)
        count = element_count(shape)
        order = ops.reshape(ops.arange(start=0, step=1, size=count, dtype="int64"), shape=shape)
        none = ops.full(shape=tuple(base.shape), dtype="int64", value=-1)
        last = self.read(ops, self._write(ops, none, indices, order, "max"), indices)
        taken = self.read(ops, g, indices)
        to_updates = ops.where(ops.equal(last, order), taken, ops.zeros_like(taken))
        return self._write(ops, g, indices, ops.zeros_like(updates), "set"), to_updates

    def _grad_extreme(
        self, ops: Any, base: Any, indices: Any, updates: Any, out: Any, g: Any
    ) -> Any:
        dtype = base.dtype.name
        from_base = ops.cast(ops.equal(base, out), dtype=dtype)
        from_updates = ops.cast(ops.equal(updates, self.read(ops, out, indices)), dtype=dtype)
        ties = self._write(ops, from_base, indices, from_updates, "add")
        share = ops.divide(g, ties)
        to_updates = ops.multiply(from_updates, self.read(ops, share, indices))
        return ops.multiply(from_base, share), to_updates

    def _grad_mul(self, ops: Any, base: Any, indices: Any, updates: Any, out: Any, g: Any) -> Any:
        """An update's factor is the product of the others: of all by it, but for zeros."""
        ones, zeros = ops.ones_like(base), ops.zeros_like(base)
        to_base = ops.multiply(g, self._write(ops, ones, indices, updates, "mul"))
        zero = ops.equal(updates, 0)
        safe = ops.where(zero, 1, updates)
        product = self.read(ops, self._write(ops, base, indices, safe, "mul"), indices)
        missing = ops.cast(zero, dtype=base.dtype.name)
        count = self.read(ops, self._write(ops, zeros, indices, missing, "add"), indices)
        others = ops.where(ops.equal(count, missing), ops.divide(product, safe), 0)
        return to_base, ops.multiply(self.read(ops, g, indices), others)


class Scatter(Scattering):
    """base with updates put in where `index` would read: x[:, i, j] += updates, as a new tensor.

    base: any dtype. indices: one integer tensor for each of `axes`. updates: dtype of base, shape
    of base indexed the same way. Returns: shape and dtype of base. Raises OutOfRangeError.

    >>> graphnn.scatter([0, 0, 0], [2, 2], [1, 5]).numpy().tolist()
    [0, 0, 6]
    """

    name = "scatter"
    samples = (
        Sample(
            (("f", (5, 3)), ("i", (2, 2), -5, 5), ("f", (2, 2, 3))),
            {"axes": (0,), "at": 0, "mode": "add"},
        ),
        Sample(
            (("f", (2, 4)), ("i", (3,), 0, 4), ("f", (2, 3))),
            {"axes": (1,), "at": 1, "mode": "set"},
        ),
        Sample(
            (("f", (3, 2, 4)), ("i", (2, 1), 0, 3), ("i", (3,), 0, 4), ("f", (2, 3, 2))),
            {"axes": (0, 2), "at": 0, "mode": "max"},
        ),
        Sample((("f", (3,)), ("i", (4,), 0, 3), ("f", (4,))), {"axes": (0,), "mode": "mul"}),
        Sample((("f", (3,)), ("i", (4,), 0, 3), ("f", (4,))), {"axes": (0,), "mode": "min"}),
        Sample((("i", (3,)), ("i", (), 0, 3), ("i", ())), {"axes": (0,), "mode": "add"}),
        Sample((("f", (3,)), ("i", (0,), 0, 1), ("f", (0,))), {"axes": (0,), "mode": "add"}),
    )
    axes: tuple[int, ...]
    at: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        base, *indices, _ = types
        wanted = indexed_shape(self.name, base, indices, self.axes, self.at)
        return self.check_updates(types, wanted)

    def read(self, ops: Any, x: Any, indices: Sequence[Any]) -> Any:
        return ops.index(x, *indices, axes=self.axes, at=self.at)

    def places(self, xp: Any, base: Any, indices: Sequence[Any]) -> Any:
        axes = normalize_axes(self.axes, base.ndim, self.name)
        steps = _steps(base.shape)
        total: Any = 0
        for axis, index in zip(axes, indices, strict=True):
            at = wrap(xp, index, IndexCheck(self.name, axis, base.shape[axis]))
            total = total + at * steps[axis]
        rest = [a for a in range(base.ndim) if a not in axes]
        before, after = rest[: self.at], rest[self.at :]
        total = total.reshape((1,) * len(before) + total.shape + (1,) * len(after))
        for position, axis in enumerate(reversed(rest)):
            behind = position if axis in after else position + total.ndim - len(rest)
            along = xp.arange(base.shape[axis]).reshape((-1,) + (1,) * behind)
            total = total + along * steps[axis]
        return total

    def update_index(
        self, emit: Any, out: TensorType, index: tuple[Any, ...], loads: Sequence[Load]
    ) -> tuple[Any, ...]:
        return source_index(emit, self.name, index, out, loads[1:-1], self.axes, self.at)


def types_of(*arrays: Any) -> tuple[TensorType, ...]:
    """Types of arrays."""
    return tuple(TensorType(tuple(a.shape), a.dtype) for a in arrays)


def _steps(shape: tuple[int, ...]) -> list[int]:
    """Elements between neighbours along each axis of a row-major array."""
    return [prod(shape[a + 1 :]) for a in range(len(shape))]


class PutAlongAxis(Scattering):
    """base with updates put in where `take_along_axis` would read, as a new tensor.

    base: any dtype. indices, updates: of one shape, which is that of base but for the axis.

    >>> graphnn.put_along_axis([[1, 2]], [[0]], [[5]], axis=1).numpy().tolist()
    [[5, 2]]
    """

    name = "put_along_axis"
    samples = (
        Sample((("f", (3, 4)), ("i", (3, 2), -4, 4), ("f", (3, 2))), {"axis": 1, "mode": "add"}),
        Sample((("f", (3, 2)), ("i", (5, 2), 0, 3), ("f", (5, 2))), {"axis": 0, "mode": "set"}),
        Sample((("f", (3, 2)), ("i", (5, 2), 0, 3), ("f", (5, 2))), {"axis": 0, "mode": "mul"}),
        Sample((("i", (2,)), ("i", (3,), 0, 2), ("i", (3,))), {"axis": -1, "mode": "min"}),
    )
    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        base, indices, _ = types
        check_indices((indices,), self.name)
        axis = check_axis(base, self.axis, self.name)
        wanted = (*base.shape[:axis], *indices.shape[axis : axis + 1], *base.shape[axis + 1 :])
        if indices.shape != wanted:
            raise ShapeError(
                self.name,
                received=f"base {describe(base.dtype, base.shape)}, indices "
                f"{describe(indices.dtype, indices.shape)}",
                expected=f"equal sizes on all axes but axis {axis}",
                fix="broadcast the indices to the shape of base",
            )
        return self.check_updates(types, indices.shape)

    def read(self, ops: Any, x: Any, indices: Sequence[Any]) -> Any:
        return ops.take_along_axis(x, *indices, axis=self.axis)

    def places(self, xp: Any, base: Any, indices: Sequence[Any]) -> Any:
        axis = normalize_axis(self.axis, base.ndim, self.name)
        steps = _steps(base.shape)
        total = wrap(xp, indices[0], IndexCheck(self.name, axis, base.shape[axis])) * steps[axis]
        for other in range(base.ndim):
            if other != axis:
                along = xp.arange(base.shape[other]) * steps[other]
                total = total + along.reshape((-1,) + (1,) * (base.ndim - 1 - other))
        return total

    def update_index(
        self, emit: Any, out: TensorType, index: tuple[Any, ...], loads: Sequence[Load]
    ) -> tuple[Any, ...]:
        indices = loads[1]
        axis = normalize_axis(self.axis, out.ndim, self.name)
        check = IndexCheck(self.name, axis, out.shape[axis])
        at = place(emit, indices(index), indices.dtype, check)
        return (*index[:axis], at, *index[axis + 1 :])


class ScatterND(Composite):
    """base with updates put in at index vectors: the last axis of indices holds (i, j, ...).

    base: numbers. indices: integers (..., k). updates: indices.shape[:-1] and then the axes of
    base after the k-th. mode: as in `scatter`. Raises OutOfRangeError.

    >>> graphnn.scatter_nd([[1], [0]], [7, 8], (3,)).numpy().tolist()
    [8, 7, 0]
    """

    name, accepts, promotes = "scatter_nd", NUMBERS, "none"
    samples = (
        Sample((("f", (3, 4)), ("i", (5, 2), 0, 3), ("f", (5,)))),
        Sample((("f", (3, 2)), ("i", (2, 1), -3, 3), ("f", (2, 2))), {"mode": "set"}),
    )
    mode: str = "add"

    def decompose(self, ops: Any, base: Any, indices: Any, updates: Any) -> Any:
        parts = index_parts(ops, base, indices, self.name)
        axes = tuple(range(len(parts)))
        return ops.scatter(base, *parts, updates, axes=axes, at=0, mode=self.mode)
