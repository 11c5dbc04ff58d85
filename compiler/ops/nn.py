"""Softmax and its family. Sums run in float32 for float16 and bfloat16 tensors.

The gradients are written in the expressions of the forward formulas, so that after merging equal
expressions the maximum, the exponentials and their sum are computed once.
"""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ops.arrays import cast_op, wide_op
from graphnn.compiler.ops.base import Composite, Sample, normalize_axis, reduced_shape


def shifted_exp(ops: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """(x - max, exp(x - max), sum of these), maximum and sum over axes that are kept."""
    z = ops.subtract(x, ops.max(x, axes=axes, keepdims=True))
    e = ops.exp(z)
    return z, e, ops.sum(e, axes=axes, keepdims=True)


class Softmax(Composite):
    """exp(x) over its sum along an axis, without overflow.

    x: floats with at least one axis. axis: the axis whose elements add up to 1. Returns: same
    shape and dtype.

    >>> graphnn.nn.softmax([0.0, 0.0]).numpy().tolist()
    [0.5, 0.5]
    """

    name = "softmax"
    axis: int = -1
    samples = (
        Sample((("f", (3, 4)),)),
        Sample((("f", (2, 3, 4)),), {"axis": 1}),
        Sample((("f", (0, 3)),)),
        Sample((("f", (3, 1)),)),
    )

    def decompose(self, ops: Any, x: Any) -> Any:
        axes = (normalize_axis(self.axis, len(x.shape), self.name),)
        _, e, s = shifted_exp(ops, wide_op(ops, x), axes)
        return cast_op(ops, ops.divide(e, s), x.dtype)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        axes = (normalize_axis(self.axis, len(x.shape), self.name),)
        y, g = wide_op(ops, out), wide_op(ops, g)
        total = ops.sum(ops.multiply(g, y), axes=axes, keepdims=True)
        return (cast_op(ops, ops.multiply(y, ops.subtract(g, total)), x.dtype),)


class LogSoftmax(Composite):
    """Logarithm of softmax along an axis, without overflow.

    x: floats with at least one axis. axis: the axis. Returns: same shape and dtype.

    >>> [f"{v:.4f}" for v in graphnn.nn.log_softmax([0.0, 0.0]).numpy().tolist()]
    ['-0.6931', '-0.6931']
    """

    name = "log_softmax"
    axis: int = -1
    samples = (Sample((("f", (3, 4)),)), Sample((("f", (2, 3, 4)),), {"axis": 0}))

    def decompose(self, ops: Any, x: Any) -> Any:
        axes = (normalize_axis(self.axis, len(x.shape), self.name),)
        z, _, s = shifted_exp(ops, wide_op(ops, x), axes)
        return cast_op(ops, ops.subtract(z, ops.log(s)), x.dtype)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        axes = (normalize_axis(self.axis, len(x.shape), self.name),)
        _, e, s = shifted_exp(ops, wide_op(ops, x), axes)
        g = wide_op(ops, g)
        share = ops.multiply(ops.divide(e, s), ops.sum(g, axes=axes, keepdims=True))
        return (cast_op(ops, ops.subtract(g, share), x.dtype),)


class LogSumExp(Composite):
    """log(sum(exp(x))) over axes, without overflow; -inf where all elements are -inf.

    x: floats. axes: the axes. keepdims: whether they stay with size 1. Returns: same dtype.

    >>> f"{graphnn.logsumexp([0.0, 0.0]).numpy().item():.4f}"
    '0.6931'
    """

    name = "logsumexp"
    axes: tuple[int, ...]
    keepdims: bool = False
    samples = (
        Sample((("f", (3, 4)),), {"axes": (1,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (0, -1), "keepdims": True}),
        Sample((("f", ()),), {"axes": ()}),
    )

    def decompose(self, ops: Any, x: Any) -> Any:
        axes = self._axes(x)
        top, _, s = self._parts(ops, wide_op(ops, x), axes)
        result = cast_op(ops, ops.add(ops.log(s), top), x.dtype)
        if self.keepdims or not axes:
            return result
        return ops.reshape(result, shape=reduced_shape(tuple(x.shape), axes, False))

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        axes = self._axes(x)
        _, e, s = self._parts(ops, wide_op(ops, x), axes)
        if not self.keepdims and axes:
            g = ops.reshape(g, shape=reduced_shape(tuple(x.shape), axes, True))
        return (cast_op(ops, ops.multiply(wide_op(ops, g), ops.divide(e, s)), x.dtype),)

    def _axes(self, x: Any) -> tuple[int, ...]:
        return tuple(normalize_axis(a, len(x.shape), self.name) for a in self.axes)

    def _parts(self, ops: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """(finite maximum, exp(x - maximum), their sum)."""
        top = ops.max(x, axes=axes, keepdims=True) if axes else x
        top = ops.where(ops.isfinite(top), top, 0)
        e = ops.exp(ops.subtract(x, top))
        return top, e, ops.sum(e, axes=axes, keepdims=True) if axes else e


class Dropout(Composite):
    """Sets a random share of the elements to 0 and divides the others by 1 - rate.

    The mask is `random_uniform` < rate for the given state: the same in eager and compiled code.
    x: floats. state: uint32[4], see `random_bits`. rate: from 0 to below 1. noise_shape: shape of
    the mask, which broadcasts to x; empty for the shape of x. Returns: shape and dtype of x.

    >>> graphnn.nn.dropout([1.0, 2.0], rate=0.0).numpy().tolist()
    [1.0, 2.0]
    """

    name, promotes = "dropout", "none"
    rate: float
    noise_shape: tuple[Any, ...] = ()
    samples = (
        Sample((("f", (3, 4)), ("uint32", (4,))), {"rate": 0.4}),
        Sample((("f", (5, 6)), ("uint32", (4,))), {"rate": 0.5, "noise_shape": (5, 1)}),
        Sample((("f", ()), ("uint32", (4,))), {"rate": 0.25}),
    )

    def check_dtypes(self, types: Any) -> None:
        super().check_dtypes(types[:1])

    def decompose(self, ops: Any, x: Any, state: Any) -> Any:
        return self._masked(ops, x, x, state)

    def grad(self, ops: Any, x: Any, state: Any, *, out: Any, g: Any) -> Any:
        return self._masked(ops, x, g, state), None

    def _masked(self, ops: Any, x: Any, value: Any, state: Any) -> Any:
        if self.rate == 0:
            return value
        shape = tuple(self.noise_shape) or tuple(x.shape)
        uniform = ops.random_uniform(state, shape=shape, dtype="float32")
        kept = ops.greater_equal(uniform, float(self.rate))
        return ops.where(kept, ops.multiply(value, 1 / (1 - self.rate)), 0)
