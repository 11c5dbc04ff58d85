"""Activation functions: each one element-wise op whose formula serves arrays and kernels alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphnn.compiler.ir.types import FLOATS, NUMBERS
from graphnn.compiler.ops.arrays import Formula
from graphnn.compiler.ops.base import Sample

_SAMPLES = (
    Sample((("f", (3, 4), -4.0, 4.0),)),
    Sample((("f", ()),)),
    Sample((("f", (0, 2)),)),
)
SELU_ALPHA = 1.6732632423543772848170429916717  # G. Klambauer et al. (2017), equation 14
SELU_SCALE = 1.0507009873554804934193349852946


class _Activation(Formula):
    """A float function of one element."""

    accepts, promotes = FLOATS, "float"
    samples: ClassVar[Sequence[Sample]] = _SAMPLES


class Relu(Formula):
    """max(x, 0) of each element; the gradient at 0 is 0.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.nn.relu(-2.0).numpy().item()
    0.0
    """

    name, accepts = "relu", NUMBERS
    samples = (*_SAMPLES, Sample((("i", (3, 4), -3, 4),)))

    @property
    def epilogue(self) -> str:
        return "relu"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.where(ops.greater(out, 0), g, 0),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.maximum(x, emit.constant(0, x.dtype))


class Relu6(Formula):
    """min(max(x, 0), 6) of each element; the gradient is 0 at and outside of the bounds.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.nn.relu6(8.0).numpy().item()
    6.0
    """

    name, accepts = "relu6", NUMBERS
    samples = (Sample((("f", (3, 4), -3.0, 9.0),)), Sample((("i", (9,), -3, 9),)))

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        inside = ops.logical_and(ops.greater(out, 0), ops.less(out, 6))
        return (ops.where(inside, g, 0),)

    def scalar(self, emit: Any, x: Any) -> Any:
        low = emit.maximum(x, emit.constant(0, x.dtype))
        return emit.minimum(low, emit.constant(6, x.dtype))


class LeakyRelu(_Activation):
    """x where it is positive, else alpha * x.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.leaky_relu(-1.0).numpy().item()
    -0.20000000298023224
    """

    name = "leaky_relu"
    alpha: float = 0.2

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.where(ops.greater(x, 0), g, ops.multiply(g, self.alpha)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.select(emit.compare("gt", x, 0.0), x, x * self.alpha)


class Elu(_Activation):
    """x where it is positive, else alpha * (exp(x) - 1).

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.elu(1.0).numpy().item()
    1.0
    """

    name = "elu"
    alpha: float = 1.0

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        below = ops.multiply(ops.exp(ops.minimum(x, 0)), self.alpha)
        return (ops.multiply(g, ops.where(ops.greater(x, 0), 1, below)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        below = emit.call("expm1", x) * self.alpha
        return emit.select(emit.compare("gt", x, 0.0), x, below)


class Selu(_Activation):
    """Scaled elu that keeps mean and variance: scale * elu(x, alpha) with fixed numbers.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.selu(0.0).numpy().item()
    0.0
    """

    name = "selu"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        below = ops.multiply(ops.exp(ops.minimum(x, 0)), SELU_ALPHA * SELU_SCALE)
        return (ops.multiply(g, ops.where(ops.greater(x, 0), SELU_SCALE, below)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        below = emit.call("expm1", x) * (SELU_ALPHA * SELU_SCALE)
        return emit.select(emit.compare("gt", x, 0.0), x * SELU_SCALE, below)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)) of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.sigmoid(0.0).numpy().item()
    0.5
    """

    name = "sigmoid"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.multiply(out, ops.subtract(1, out))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.call("sigmoid", x)


class LogSigmoid(_Activation):
    """log(sigmoid(x)) of each element, without overflow.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.log_sigmoid(100.0).numpy().item()
    -3.783505853677006e-44
    """

    name = "log_sigmoid"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.sigmoid(ops.negative(x))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        small = emit.call("exp", -emit.unary("abs", x))
        return emit.minimum(x, emit.constant(0.0, x.dtype)) - emit.call("log1p", small)


class Softplus(_Activation):
    """log(1 + exp(x)) of each element, without overflow.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.softplus(100.0).numpy().item()
    100.0
    """

    name = "softplus"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.sigmoid(x)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return _softplus(emit, x)


class Silu(_Activation):
    """x * sigmoid(x) of each element; also called swish.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.silu(0.0).numpy().item()
    0.0
    """

    name = "silu"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        s = ops.sigmoid(x)
        return (ops.multiply(g, ops.add(s, ops.multiply(out, ops.subtract(1, s)))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x * emit.call("sigmoid", x)


class Mish(_Activation):
    """x * tanh(softplus(x)) of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.mish(0.0).numpy().item()
    0.0
    """

    name = "mish"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        t = ops.tanh(ops.softplus(x))
        slope = ops.multiply(ops.subtract(1, ops.square(t)), ops.sigmoid(x))
        return (ops.multiply(g, ops.add(t, ops.multiply(x, slope))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x * emit.call("tanh", _softplus(emit, x))


class Softsign(_Activation):
    """x / (1 + |x|) of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.softsign(1.0).numpy().item()
    0.5
    """

    name = "softsign"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, ops.square(ops.add(ops.abs(x), 1))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x / (1.0 + emit.unary("abs", x))


class HardSigmoid(_Activation):
    """x / 6 + 1/2 of each element, kept between 0 and 1 (as in Keras 3).

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.hard_sigmoid(0.0).numpy().item()
    0.5
    """

    name = "hard_sigmoid"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        inside = ops.logical_and(ops.greater(x, -3), ops.less(x, 3))
        return (ops.where(inside, ops.multiply(g, 1 / 6), 0),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return _hard_sigmoid(emit, x)


class HardSilu(_Activation):
    """x * hard_sigmoid(x) of each element; also called hard_swish.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.hard_silu(6.0).numpy().item()
    6.0
    """

    name = "hard_silu"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        slope = ops.add(ops.multiply(x, 1 / 3), 0.5)
        above = ops.where(ops.greater(x, 3), 1, slope)
        return (ops.multiply(g, ops.where(ops.less(x, -3), 0, above)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x * _hard_sigmoid(emit, x)


class HardTanh(_Activation):
    """Each element kept between -1 and 1; the gradient is 0 at and outside of the bounds.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.hard_tanh(3.0).numpy().item()
    1.0
    """

    name = "hard_tanh"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        inside = ops.logical_and(ops.greater(x, -1), ops.less(x, 1))
        return (ops.where(inside, g, 0),)

    def scalar(self, emit: Any, x: Any) -> Any:
        low = emit.maximum(x, emit.constant(-1.0, x.dtype))
        return emit.minimum(low, emit.constant(1.0, x.dtype))


class Gelu(_Activation):
    """x times the normal distribution function of x (D. Hendrycks and K. Gimpel, 2016).

    approximate: by tanh instead of erf.
    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.nn.gelu(0.0).numpy().item()
    0.0
    """

    name = "gelu"
    approximate: bool = False
    samples = (  # left of 0 the result is a difference of nearly equal numbers
        Sample((("f", (3, 4), -4.0, 4.0),), ulp=4),
        Sample((("f", ()),), ulp=4),
        Sample((("f", (0, 2)),)),
        Sample((("f", (3, 4), -4.0, 4.0),), {"approximate": True}, ulp=4),
    )

    @property
    def epilogue(self) -> str:
        return "gelu" if self.approximate else ""

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        if self.approximate:
            return (ops.multiply(g, _tanh_gelu_slope(ops, x)),)
        # The same expression as in `scalar`, so that erf is evaluated once in a shared kernel.
        level = ops.multiply(ops.add(ops.erf(ops.multiply(x, math.sqrt(0.5))), 1), 0.5)
        bell = ops.exp(ops.multiply(ops.square(x), -0.5))
        slope = ops.multiply(ops.multiply(x, bell), 1 / math.sqrt(2 * math.pi))
        return (ops.multiply(g, ops.add(level, slope)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        if self.approximate:
            inner = x * GELU_SCALE * (x * x * GELU_CUBIC + 1.0)
            return x * ((emit.call("tanh", inner) + 1.0) * 0.5)
        return x * ((emit.call("erf", x * math.sqrt(0.5)) + 1.0) * 0.5)


GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def _tanh_gelu_slope(ops: Any, x: Any) -> Any:
    cube = ops.multiply(ops.multiply(x, x), GELU_CUBIC)
    inner = ops.multiply(ops.multiply(x, GELU_SCALE), ops.add(cube, 1))
    t = ops.tanh(inner)
    level = ops.multiply(ops.add(t, 1), 0.5)
    slope = ops.multiply(ops.add(ops.multiply(cube, 3), 1), 0.5 * GELU_SCALE)
    slope = ops.multiply(ops.multiply(x, slope), ops.subtract(1, ops.square(t)))
    return ops.add(level, slope)


def _softplus(emit: Any, x: Any) -> Any:
    small = emit.call("exp", -emit.unary("abs", x))
    return emit.maximum(x, emit.constant(0.0, x.dtype)) + emit.call("log1p", small)


def _hard_sigmoid(emit: Any, x: Any) -> Any:
    line = x * (1 / 6) + 0.5
    return emit.minimum(
        emit.maximum(line, emit.constant(0.0, x.dtype)), emit.constant(1.0, x.dtype)
    )
