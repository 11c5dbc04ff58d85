"""Evaluates scalar code on NumPy arrays: what an op's `scalar` or `element` rule means.

The rule is run once with loop variables as index; then every node of the expression is computed
for all result elements at a time. Loads are checked against the bounds of their buffer wherever
a guard lets them happen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.compiler.codegen.scalar import Buffer, Emit, Scalar
from graphnn.compiler.ir.sizes import Dynamic, FloorDiv, Var, atom, ravel, terms_of
from graphnn.compiler.ir.types import (
    TensorType,
    as_dtype,
    bool_,
    float32,
    int64,
    is_float,
    is_integer,
)
from graphnn.compiler.ops.arrays import ArrayEmit
from graphnn.compiler.ops.base import Load, Op
from graphnn.compiler.ops.logic import cast_array


def element_value(op: Op, out: TensorType, arrays: Sequence[Any]) -> Any:
    """The op's value by its `element` rule."""
    if 0 in out.shape:
        return np.empty(out.shape, out.dtype)
    emit = Emit()
    buffers = [Buffer(f"x{k}", a.dtype, a.size) for k, a in enumerate(arrays)]
    variables = [Var(f"i{axis}", size) for axis, size in enumerate(out.shape)]
    loads = [_load(emit, b, a) for b, a in zip(buffers, arrays, strict=True)]
    result = op.element(emit, out, tuple(atom(v) for v in variables), loads)  # type: ignore[attr-defined]
    count = math.prod(out.shape)
    mesh = np.indices(out.shape).reshape(len(out.shape), count)
    run = Evaluation(
        {b.name: a.reshape(-1) for b, a in zip(buffers, arrays, strict=True)},
        dict(zip(variables, mesh, strict=True)),
        count,
    )
    with np.errstate(all="ignore"):
        value = run.value(result, np.ones(run.count, np.bool_))
        return value.astype(out.dtype).reshape(out.shape)


def _load(emit: Emit, buffer: Buffer, array: Any) -> Load:
    type = TensorType(array.shape, array.dtype)
    return Load(type, lambda index: emit.load(buffer, ravel(index, array.shape)))


class Evaluation:
    """Values of scalars for `count` elements; `where` masks say for which of them they matter."""

    def __init__(self, buffers: dict[str, Any], variables: dict[Any, Any], count: int) -> None:
        self.buffers, self.variables, self.count = buffers, variables, count
        self.emit = ArrayEmit(np)
        self._known: dict[tuple[int, int], tuple[Any, Any]] = {}  # keeps the masks alive too

    def value(self, s: Scalar, where: Any) -> Any:
        """One array of `count` elements."""
        key = (id(s), id(where))
        if key not in self._known:
            self._known[key] = (self._computed(s, where), where)
        return self._known[key][0]

    def _computed(self, s: Scalar, where: Any) -> Any:
        method = getattr(self, f"_{s.op}", None)
        if method is not None:
            result = method(s, where)
        else:
            args = [self.value(a, where) for a in s.args]
            result = self._word(s, args)
        result = np.broadcast_to(np.asarray(result), (self.count,))
        assert result.dtype == s.dtype, f"{s.op} gives {result.dtype}, not {s.dtype}"
        return result

    def _word(self, s: Scalar, args: list[Any]) -> Any:
        if s.op == "compare":
            return self.emit.compare(s.attrs[0], *args)
        if s.op == "call":
            return self.emit.call(s.attrs[0], *args)
        if s.op == "fma":
            return args[0] * args[1] + args[2]
        if len(args) == 2:
            return self.emit.binary(s.op, *args)
        return self.emit.unary(s.op, *args)

    def _constant(self, s: Scalar, where: Any) -> Any:
        return s.attrs[0].value

    def _index(self, s: Scalar, where: Any) -> Any:
        return np.asarray(self.size(s.attrs[0], where), int64)

    def _load(self, s: Scalar, where: Any) -> Any:
        buffer, linear = s.attrs
        array = self.buffers[buffer.name]
        at = np.broadcast_to(self.size(linear, where), (self.count,))
        outside = where & ((at < 0) | (at >= array.size))
        assert not outside.any(), f"{s} reads outside of {buffer.name}: {at[outside]}"
        if not array.size:
            return np.zeros(self.count, s.dtype)
        return array[np.clip(at, 0, array.size - 1)].astype(s.dtype)

    def _select(self, s: Scalar, where: Any) -> Any:
        test, a, b = (self.value(a, where) for a in s.args)
        return np.where(test, a, b)

    def _guarded(self, s: Scalar, where: Any) -> Any:
        test = self.value(s.args[0], where)
        inner = self.value(s.args[1], where & test)
        return np.where(test, inner, self.value(s.args[2], where))

    def _cast(self, s: Scalar, where: Any) -> Any:
        a = self.value(s.args[0], where)
        if is_float(a.dtype) and is_integer(s.dtype):
            return cast_array(np, a, s.dtype)
        return a != 0 if s.dtype == bool_ else a.astype(s.dtype)

    def _round(self, s: Scalar, where: Any) -> Any:
        return self.value(s.args[0], where).astype(as_dtype(s.attrs[0])).astype(float32)

    def _bitcast(self, s: Scalar, where: Any) -> Any:
        return self.emit.bitcast(self.value(s.args[0], where), s.dtype)

    def _check(self, s: Scalar, where: Any) -> Any:
        ok, value, other = (self.value(a, where) for a in s.args)
        wrong = where & ~ok
        if wrong.any():
            raise s.attrs[0].error(value[np.argmax(wrong)])
        return np.where(ok, value, other)

    def size(self, size: Any, where: Any) -> Any:
        """The number that a size expression is for each element."""
        total: Any = 0
        for monomial, factor in terms_of(size).items():
            product: Any = factor
            for a in monomial:
                product = product * self._atom(a, where)
            total = total + product
        return total

    def _atom(self, a: Any, where: Any) -> Any:
        if isinstance(a, FloorDiv):
            return self.size(a.numerator, where) // self.size(a.denominator, where)
        return self.value(a.value, where) if isinstance(a, Dynamic) else self.variables[a]
