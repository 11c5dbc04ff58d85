"""Element-wise functions: exponentials, logarithms, trigonometry, hyperbolics, error and gamma."""

from __future__ import annotations

import math
from typing import Any

from graphnn.compiler.ir.types import FLOATS, float64
from graphnn.compiler.ops.arrays import ArrayEmit, Plain, quiet, widen
from graphnn.compiler.ops.base import Sample
from graphnn.runtime import xp as special


def _samples(low: float, high: float) -> tuple[Sample, ...]:
    shapes: tuple[tuple[int, ...], ...] = ((3, 4), (), (0,))
    return tuple(Sample((("f", shape, low, high),)) for shape in shapes)


class _Function(Plain):
    """A float function of one element."""

    accepts, promotes = FLOATS, "float"
    samples = _samples(-2.0, 2.0)


class _Special(_Function):
    """A function that NumPy lacks and `runtime.xp` has; half floats are computed in float32."""

    def eager(self, xp: Any, x: Any) -> Any:
        value = quiet(getattr(special, self.name), xp, widen(x))
        return quiet(value.astype, x.dtype)


class Exp(_Function):
    """e to the power of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.exp(0.0).numpy().item()
    1.0
    """

    name = "exp"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, out),)


class Exp2(_Function):
    """2 to the power of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.exp2(3.0).numpy().item()
    8.0
    """

    name = "exp2"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.multiply(out, math.log(2))),)


class Expm1(_Function):
    """exp(x) - 1 of each element, precise near 0.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.expm1(0.0).numpy().item()
    0.0
    """

    name = "expm1"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.exp(x)),)


class Log(_Function):
    """Natural logarithm of each element; -inf at 0, NaN below.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.log(1.0).numpy().item()
    0.0
    """

    name = "log"
    samples = _samples(0.1, 4.0)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, x),)


class Log2(_Function):
    """Logarithm to base 2 of each element; -inf at 0, NaN below.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.log2(8.0).numpy().item()
    3.0
    """

    name = "log2"
    samples = _samples(0.1, 4.0)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, ops.multiply(x, math.log(2))),)


class Log10(_Function):
    """Logarithm to base 10 of each element; -inf at 0, NaN below.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.log10(1.0).numpy().item()
    0.0
    """

    name = "log10"
    samples = _samples(0.1, 4.0)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, ops.multiply(x, math.log(10))),)


class Log1p(_Function):
    """log(1 + x) of each element, precise near 0; -inf at -1, NaN below.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.log1p(0.0).numpy().item()
    0.0
    """

    name = "log1p"
    samples = _samples(-0.8, 3.0)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, ops.add(x, 1)),)


class Sin(_Function):
    """Sine of each element, in radians; NaN at infinity.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.sin(0.0).numpy().item()
    0.0
    """

    name = "sin"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.cos(x)),)


class Cos(_Function):
    """Cosine of each element, in radians; NaN at infinity.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.cos(0.0).numpy().item()
    1.0
    """

    name = "cos"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.negative(ops.multiply(g, ops.sin(x))),)


class Tan(_Function):
    """Tangent of each element, in radians; NaN at infinity.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.tan(0.0).numpy().item()
    0.0
    """

    name = "tan"
    samples = _samples(-1.2, 1.2)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.add(ops.square(out), 1)),)


class Asin(_Function):
    """Inverse sine of each element, in radians; NaN outside [-1, 1].

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.asin(0.0).numpy().item()
    0.0
    """

    name, numpy = "asin", "arcsin"
    samples = _samples(-0.9, 0.9)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.rsqrt(ops.subtract(1, ops.square(x)))),)


class Acos(_Function):
    """Inverse cosine of each element, in radians; NaN outside [-1, 1].

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.acos(1.0).numpy().item()
    0.0
    """

    name, numpy = "acos", "arccos"
    samples = _samples(-0.9, 0.9)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.negative(ops.multiply(g, ops.rsqrt(ops.subtract(1, ops.square(x))))),)


class Atan(_Function):
    """Inverse tangent of each element, in radians.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.atan(0.0).numpy().item()
    0.0
    """

    name, numpy = "atan", "arctan"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, ops.add(ops.square(x), 1)),)


class Sinh(_Function):
    """Hyperbolic sine of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.sinh(0.0).numpy().item()
    0.0
    """

    name = "sinh"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.cosh(x)),)


class Cosh(_Function):
    """Hyperbolic cosine of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.cosh(0.0).numpy().item()
    1.0
    """

    name = "cosh"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.sinh(x)),)


class Tanh(_Function):
    """Hyperbolic tangent of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.tanh(0.0).numpy().item()
    0.0
    """

    name = "tanh"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.subtract(1, ops.square(out))),)


class Asinh(_Function):
    """Inverse hyperbolic sine of each element.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.asinh(0.0).numpy().item()
    0.0
    """

    name, numpy = "asinh", "arcsinh"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.rsqrt(ops.add(ops.square(x), 1))),)


class Acosh(_Function):
    """Inverse hyperbolic cosine of each element; NaN below 1.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.acosh(1.0).numpy().item()
    0.0
    """

    name, numpy = "acosh", "arccosh"
    samples = _samples(1.2, 4.0)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.rsqrt(ops.multiply(ops.subtract(x, 1), ops.add(x, 1)))),)


class Atanh(_Function):
    """Inverse hyperbolic tangent of each element; infinite at -1 and 1, NaN outside.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.atanh(0.0).numpy().item()
    0.0
    """

    name, numpy = "atanh", "arctanh"
    samples = _samples(-0.8, 0.8)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(g, ops.subtract(1, ops.square(x))),)


class Atan2(Plain):
    """Angle of the point (x, y) in radians, from -pi to pi, with broadcasting.

    y, x: floats (integers become float32). Returns: their common dtype.

    >>> graphnn.atan2(0.0, 1.0).numpy().item()
    0.0
    """

    name, numpy, arity, accepts, promotes = "atan2", "arctan2", 2, FLOATS, "float"
    samples = (
        Sample((("f", (3, 4), 0.5, 2.0), ("f", (4,)))),
        Sample((("f", (3, 1), -2.0, -0.5), ("f", (1, 2)))),
    )

    def grad(self, ops: Any, y: Any, x: Any, *, out: Any, g: Any) -> Any:
        scaled = ops.divide(g, ops.add(ops.square(x), ops.square(y)))
        return ops.multiply(scaled, x), ops.negative(ops.multiply(scaled, y))


class Erf(_Special):
    """Gauss error function of each element: 2/sqrt(pi) times the integral of exp(-t^2) up to x.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.erf(0.0).numpy().item()
    0.0
    """

    name = "erf"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        bell = ops.exp(ops.negative(ops.square(x)))
        return (ops.multiply(g, ops.multiply(bell, 2 / math.sqrt(math.pi))),)


class Erfc(_Special):
    """1 - erf(x) of each element, with full precision for large x.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.erfc(0.0).numpy().item()
    1.0
    """

    name = "erfc"

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        bell = ops.exp(ops.negative(ops.square(x)))
        return (ops.multiply(g, ops.multiply(bell, -2 / math.sqrt(math.pi))),)


class Erfinv(_Special):
    """Inverse of erf for each element; infinite at -1 and 1, NaN outside.

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.erfinv(0.0).numpy().item()
    0.0
    """

    name = "erfinv"
    samples = _samples(-0.9, 0.9)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.multiply(ops.exp(ops.square(out)), math.sqrt(math.pi) / 2)),)


class Lgamma(_Special):
    """Logarithm of the absolute value of the gamma function; infinite at 0, -1, -2, ...

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> graphnn.lgamma(1.0).numpy().item()
    0.0
    """

    name = "lgamma"
    samples = (
        Sample((("f", (3, 4), 0.3, 6.0),), ulp=4),
        Sample((("f", ()),), ulp=4),
        Sample((("f", (5,), -2.9, -2.1),), ulp=8),
    )

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.digamma(x)),)


class Digamma(_Special):
    """Derivative of lgamma; -inf at 0, NaN at -1, -2, ...

    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> f"{graphnn.digamma(1.0).numpy().item():.4f}"
    '-0.5772'
    """

    name = "digamma"
    samples = (
        Sample((("f", (3, 4), 0.3, 6.0),), ulp=8),
        Sample((("f", ()),), ulp=8),
        Sample((("f", (5,), -2.9, -2.1),), ulp=16),
    )

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.polygamma(x, order=1)),)


class Polygamma(_Function):
    """Derivative of digamma of a fixed order of at least 1; infinite at 0, -1, -2, ...

    Above 8 by the asymptotic series (Abramowitz and Stegun, 6.4.11), below by recurrence (6.4.6)
    and, left of 1/2, by reflection (6.4.7); computed in float64.
    x: floats (integers become float32), any shape. Returns: same shape and dtype.

    >>> f"{graphnn.polygamma(1.0, order=1).numpy().item():.4f}"
    '1.6449'
    """

    name = "polygamma"
    order: int = 1
    samples = (
        Sample((("f", (3, 4), 0.3, 6.0),)),
        Sample((("f", (5,), -2.9, -2.1),), {"order": 2}),
    )

    def eager(self, xp: Any, x: Any) -> Any:
        wide = xp.atleast_1d(x).astype(float64)
        value = quiet(_polygamma, ArrayEmit(xp), self.order, wide)
        return quiet(value.astype, x.dtype).reshape(x.shape)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.polygamma(x, order=self.order + 1)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.cast(_polygamma(emit, self.order, emit.cast(x, float64)), x.dtype)


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _polygamma(emit: Any, order: int, x: Any) -> Any:
    """The polygamma function in float64, on arrays and in scalar code alike."""
    left = emit.compare("lt", x, 0.5)
    y = emit.select(left, 1.0 - x, x)
    total: Any = emit.constant(0.0, float64)
    for _ in range(8 + order):
        total = total + _power(1.0 / y, order + 1)
        y = y + 1.0
    inverse = 1.0 / y
    series: Any = emit.constant(0.0, float64)
    for k in range(len(_BERNOULLI), 0, -1):
        factor = _BERNOULLI[k - 1] * math.factorial(2 * k + order - 1) / math.factorial(2 * k)
        series = series * (inverse * inverse) + factor
    tail = math.factorial(order - 1) + inverse * (math.factorial(order) / 2 + inverse * series)
    sign = -1.0 if order % 2 == 0 else 1.0
    right = (total * float(math.factorial(order)) + _power(inverse, order) * tail) * sign
    angle = (x - emit.unary("rint", x)) * math.pi
    cotangent = emit.call("cos", angle) / emit.call("sin", angle)
    mirrored: Any = emit.constant(0.0, float64)
    for c in reversed(_cotangent_derivative(order)):
        mirrored = mirrored * cotangent + c
    mirrored = right * -sign - mirrored * math.pi ** (order + 1)
    return emit.select(left, mirrored, right)


def _power(x: Any, exponent: int) -> Any:
    result = x
    for _ in range(exponent - 1):
        result = result * x
    return result


def _cotangent_derivative(order: int) -> list[float]:
    """Coefficients, lowest first, of the derivative of cot as a polynomial in cot."""
    p = [0.0, 1.0]
    for _ in range(order):
        slope = [i * c for i, c in enumerate(p)][1:]
        p = [0.0] * (len(slope) + 2)
        for i, c in enumerate(slope):  # d cot = -(1 + cot^2)
            p[i] -= c
            p[i + 2] -= c
    return p
