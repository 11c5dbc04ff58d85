"""Normalisation: layer norm, moments over axes, and the application of batch statistics.

Statistics are computed in float32 for float16 and bfloat16 tensors. Forward and gradient formulas
use the same expressions for mean and deviation, so that a program computes them once.
"""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import TensorType, describe
from graphnn.compiler.ops.arrays import cast_op, wide_op
from graphnn.compiler.ops.base import (
    Composite,
    Sample,
    element_count,
    normalize_axis,
    reduced_shape,
)
from graphnn.runtime.errors import ShapeError


def _mean(ops: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Mean over axes that are kept with size 1."""
    count = element_count([x.shape[a] for a in axes])
    return ops.divide(ops.sum(x, axes=axes, keepdims=True), count)


def _standardized(ops: Any, x: Any, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any]:
    """(x - mean) / deviation, and 1 / deviation."""
    centered = ops.subtract(x, _mean(ops, x, axes))
    inverse = ops.rsqrt(ops.add(_mean(ops, ops.square(centered), axes), epsilon))
    return ops.multiply(centered, inverse), inverse


class LayerNorm(Composite):
    """Each vector along the last axis, shifted and scaled to mean 0 and variance 1.

    Inputs: x, then gamma if `scale`, then beta if `center`, both of shape (x.shape[-1],).
    The result is x^ * gamma + beta with x^ = (x - mean) / sqrt(variance + epsilon) (J. Ba et al.,
    2016). Returns: shape and dtype of x. Raises ShapeError where gamma or beta do not fit.

    >>> graphnn.nn.layer_norm([1.0, 3.0], epsilon=0.0).numpy().tolist()
    [-1.0, 1.0]
    """

    name = "layer_norm"
    epsilon: float = 1e-5
    scale: bool = True
    center: bool = True
    samples = (
        Sample((("f", (3, 4)), ("f", (4,)), ("f", (4,))), ulp=16),
        Sample((("f", (2, 3, 4)), ("f", (4,))), {"center": False, "epsilon": 1e-3}, ulp=16),
        Sample((("f", (2, 4)),), {"scale": False, "center": False}, ulp=16),
        Sample((("f", (0, 4)), ("f", (4,)), ("f", (4,)))),
    )

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        x = types[0]
        fits = x.ndim > 0 and all(t.shape == x.shape[-1:] for t in types[1:])
        if not fits or len(types) != 1 + self.scale + self.center:
            raise ShapeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected="x with at least one axis, and gamma and beta of shape (x.shape[-1],)",
                fix="build the layer for the size of the last axis of x",
            )
        return x

    def decompose(self, ops: Any, x: Any, *scales: Any) -> Any:
        wide = [wide_op(ops, s) for s in scales]
        result, _ = _standardized(ops, wide_op(ops, x), (len(x.shape) - 1,), self.epsilon)
        if self.scale:
            result = ops.multiply(result, cast_op(ops, wide[0], result.dtype))
        if self.center:
            result = ops.add(result, cast_op(ops, wide[-1], result.dtype))
        return cast_op(ops, result, x.dtype)

    def grad(self, ops: Any, x: Any, *scales: Any, out: Any, g: Any) -> Any:
        axes = (len(x.shape) - 1,)
        xhat, inverse = _standardized(ops, wide_op(ops, x), axes, self.epsilon)
        g = cast_op(ops, g, xhat.dtype)
        gy = ops.multiply(g, cast_op(ops, scales[0], xhat.dtype)) if self.scale else g
        along = ops.multiply(xhat, _mean(ops, ops.multiply(gy, xhat), axes))
        gx = ops.subtract(ops.subtract(gy, _mean(ops, gy, axes)), along)
        result = [cast_op(ops, ops.multiply(inverse, gx), x.dtype)]
        parts = [ops.multiply(g, xhat)] * self.scale + [g] * self.center
        leading = tuple(range(len(x.shape) - 1))
        for value, part in zip(scales, parts, strict=True):
            total = ops.sum(part, axes=leading) if leading else part
            result.append(cast_op(ops, total, value.dtype))
        return tuple(result)


class Moments(Composite):
    """Mean and variance over axes: two tensors.

    x: floats. axes: the axes. keepdims: whether they stay with size 1. The variance is the mean
    squared distance from the mean, in two passes. Returns: two tensors of the dtype of x.

    >>> [float(v) for v in graphnn.nn.moments([1.0, 3.0], axes=[0])]
    [2.0, 1.0]
    """

    name = "moments"
    axes: tuple[int, ...]
    keepdims: bool = False
    samples = (
        Sample((("f", (3, 4)),), {"axes": (0,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (0, -2), "keepdims": True}),
    )

    def decompose(self, ops: Any, x: Any) -> Any:
        wide, axes = wide_op(ops, x), self._axes(x)
        mean = _mean(ops, wide, axes)
        variance = _mean(ops, ops.square(ops.subtract(wide, mean)), axes)
        return tuple(self._result(ops, v, x) for v in (mean, variance))

    def _axes(self, x: Any) -> tuple[int, ...]:
        return tuple(normalize_axis(a, len(x.shape), self.name) for a in self.axes)

    def _result(self, ops: Any, value: Any, x: Any) -> Any:
        if not self.keepdims:
            value = ops.reshape(value, shape=reduced_shape(tuple(x.shape), self._axes(x), False))
        return cast_op(ops, value, x.dtype)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        wide, axes = wide_op(ops, x), self._axes(x)
        count = element_count([x.shape[a] for a in axes])
        kept = reduced_shape(tuple(x.shape), axes, True)
        of_mean, of_variance = (wide_op(ops, ops.reshape(v, shape=kept)) for v in g)
        centered = ops.subtract(wide, _mean(ops, wide, axes))
        slope = ops.multiply(centered, ops.divide(ops.multiply(of_variance, 2), count))
        return (cast_op(ops, ops.add(slope, ops.divide(of_mean, count)), x.dtype),)


class BatchNormalization(Composite):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, by given statistics of each channel.

    Inputs: x, mean, variance, then gamma if `scale`, then beta if `center`; all but x have the
    shape (x.shape[axis],). Returns: shape and dtype of x. Raises ShapeError where they do not fit.

    >>> settings = dict(epsilon=0.0, scale=False, center=False)
    >>> graphnn.nn.batch_normalization([[3.0]], [1.0], [4.0], **settings).numpy().tolist()
    [[1.0]]
    """

    name = "batch_normalization"
    axis: int = -1
    epsilon: float = 1e-3
    scale: bool = True
    center: bool = True
    samples = (
        Sample(
            (("f", (3, 4)), ("f", (4,)), ("f", (4,), 0.5, 2.0), ("f", (4,)), ("f", (4,))),
        ),
        Sample(
            (("f", (2, 3, 2)), ("f", (3,)), ("f", (3,), 0.5, 2.0), ("f", (3,))),
            {"axis": 1, "scale": False},
        ),
    )

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        x, *others = types
        axis = normalize_axis(self.axis, x.ndim, self.name)
        wanted = x.shape[axis : axis + 1]
        if not wanted or any(t.shape != wanted for t in others) or len(others) != self._count():
            raise ShapeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected=f"mean, variance, gamma and beta of shape (x.shape[{self.axis}],)",
                fix="give statistics of the channels of x",
            )
        return x

    def _count(self) -> int:
        return 2 + self.scale + self.center

    def _lined_up(self, ops: Any, x: Any, values: Any) -> list[Any]:
        """Statistics in the dtype of computation, with axes of size 1 to line up with x."""
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        dtype = wide_op(ops, x).dtype
        shape = tuple(s if i == axis else 1 for i, s in enumerate(x.shape))
        values = [cast_op(ops, v, dtype) for v in values]
        if axis == len(shape) - 1:
            return list(values)
        return [ops.reshape(v, shape=shape) for v in values]

    def decompose(self, ops: Any, x: Any, *others: Any) -> Any:
        mean, variance, *rest = self._lined_up(ops, x, others)
        factor = ops.rsqrt(ops.add(variance, self.epsilon))
        if self.scale:
            factor = ops.multiply(factor, rest[0])
        result = ops.multiply(ops.subtract(wide_op(ops, x), mean), factor)
        if self.center:
            result = ops.add(result, rest[-1])
        return cast_op(ops, result, x.dtype)

    def grad(self, ops: Any, x: Any, *others: Any, out: Any, g: Any) -> Any:
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        rest_axes = tuple(i for i in range(len(x.shape)) if i != axis)
        mean, variance, *rest = self._lined_up(ops, x, others)
        inverse = ops.rsqrt(ops.add(variance, self.epsilon))
        factor = ops.multiply(inverse, rest[0]) if self.scale else inverse
        g = wide_op(ops, g)
        centered = ops.subtract(wide_op(ops, x), mean)

        def total(value: Any) -> Any:
            return ops.sum(value, axes=rest_axes) if rest_axes else value

        def flat(value: Any) -> Any:
            return ops.reshape(value, shape=(x.shape[axis],))

        sum_g, sum_gx = total(g), total(ops.multiply(g, centered))
        inverse, factor = flat(inverse), flat(factor)
        cube = ops.multiply(ops.multiply(factor, ops.square(inverse)), -0.5)
        result = [ops.negative(ops.multiply(sum_g, factor)), ops.multiply(sum_gx, cube)]
        result += [ops.multiply(sum_gx, inverse)] * self.scale + [sum_g] * self.center
        factor = self._lined_up(ops, x, [factor])[0]
        gx = cast_op(ops, ops.multiply(g, factor), x.dtype)
        typed = (cast_op(ops, r, v.dtype) for r, v in zip(result, others, strict=True))
        return (gx, *typed)
