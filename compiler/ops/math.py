"""Element-wise arithmetic, powers, rounding, minimum and maximum."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import FLOATS, NUMBERS, UNSIGNED, float32, is_float
from graphnn.compiler.ops.algebra import is_uniform, made_by, zero
from graphnn.compiler.ops.arrays import Plain, quiet
from graphnn.compiler.ops.base import Elementwise, NoGradient, Sample

_PAIR = (
    Sample((("f", (3, 4)), ("f", (4,)))),
    Sample((("f", (2, 1)), ("f", (1, 3)))),
    Sample((("f", ()), ("f", ()))),
    Sample((("f", (0, 3)), ("f", (3,)))),
    Sample((("i", (5,)), ("i", ()))),
)
_NONZERO = (
    Sample((("f", (3, 4)), ("f", (4,), 0.5, 3.0))),
    Sample((("f", (2, 1)), ("f", (1, 3), -3.0, -0.5))),
    Sample((("f", ()), ("f", (), 0.5, 3.0))),
)
_ONE = (Sample((("f", (3, 4)),)), Sample((("f", ()),)), Sample((("f", (0,)),)))
_POSITIVE = (Sample((("f", (3, 4), 0.1, 4.0),)), Sample((("f", (), 0.1, 4.0),)))
_WITH_INTEGERS = (*_ONE, Sample((("i", (3, 1)),)))


class Add(Plain):
    """Sum of two tensors, with broadcasting.

    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.add(2.0, 3.0).numpy().item()
    5.0
    """

    name, arity, accepts, commutative = "add", 2, NUMBERS, True
    samples = _PAIR

    @property
    def epilogue(self) -> str:
        return "add"

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return g, g

    def on_sizes(self, *values: Any) -> Any:
        return values[0] + values[1]

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return x + y

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        nothing = zero(x.dtype, negative=True)  # 0.0 would make -0.0 positive
        if is_uniform(y, nothing):
            return x
        if is_uniform(x, nothing):
            return y
        if made_by(y, Negative):
            return ops.subtract(x, y.inputs[0])
        return ops.subtract(y, x.inputs[0]) if made_by(x, Negative) else None


class Subtract(Plain):
    """Difference of two tensors, with broadcasting; unsigned integers wrap.

    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.subtract(2.0, 3.0).numpy().item()
    -1.0
    """

    name, arity, accepts = "subtract", 2, NUMBERS
    samples = _PAIR

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return g, ops.negative(g)

    def on_sizes(self, *values: Any) -> Any:
        return values[0] - values[1]

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return x - y

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        if is_uniform(y, zero(x.dtype)):
            return x
        if is_uniform(x, zero(x.dtype, negative=True)):
            return ops.negative(y)
        return ops.add(x, y.inputs[0]) if made_by(y, Negative) else None


class Multiply(Plain):
    """Product of two tensors, with broadcasting; integers wrap.

    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.multiply(2.0, 3.0).numpy().item()
    6.0
    """

    name, arity, accepts, commutative = "multiply", 2, NUMBERS, True
    samples = _PAIR

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return ops.multiply(g, y), ops.multiply(g, x)

    def on_sizes(self, *values: Any) -> Any:
        return values[0] * values[1]

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return x * y

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        for one, other in ((x, y), (y, x)):
            if is_uniform(one, 1):
                return other
            if not is_float(x.dtype) and is_uniform(one, 0):
                return one
            if x.dtype not in UNSIGNED and is_uniform(one, -1):
                return ops.negative(other)
        if made_by(x, Negative) and made_by(y, Negative):
            return ops.multiply(x.inputs[0], y.inputs[0])
        return None


class Divide(Plain):
    """Quotient of two tensors, with broadcasting. Integers are divided as floats.

    x, y: floats (integers become float32). Returns: their common dtype.

    >>> graphnn.divide(3.0, 2.0).numpy().item()
    1.5
    """

    name, arity, accepts, promotes = "divide", 2, FLOATS, "float"
    samples = _NONZERO

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        gx = ops.divide(g, y)
        return gx, ops.negative(ops.multiply(gx, out))

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return x / y

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        if is_uniform(y, -1):
            return ops.negative(x)
        return x if is_uniform(y, 1) else None


class Power(Elementwise):
    """x to the power of y, with broadcasting.

    Integers wrap; to a negative power they give 1 / x**-y rounded towards zero, and 0 for x = 0.
    The gradient for y is 0 where x <= 0. Squares, cubes, roots and reciprocals by a constant y
    are computed without logarithms.
    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.power(2.0, 10.0).numpy().item()
    1024.0
    """

    name, arity, accepts = "power", 2, NUMBERS
    samples = (
        Sample((("f", (3, 4), 0.2, 3.0), ("f", (4,)))),
        Sample((("f", (), 0.5, 2.0), ("f", (3, 1)))),
        Sample((("i", (6,), -3, 4), ("i", (1,), 0, 5))),
    )

    def eager(self, xp: Any, x: Any, y: Any) -> Any:
        if is_float(x.dtype):
            return quiet(xp.power, x, y)
        if y.dtype in UNSIGNED or not (y < 0).any():
            return xp.power(x, y)
        one = xp.asarray(1, x.dtype)
        up = xp.power(x, xp.maximum(y, 0))
        odd = xp.where(xp.bitwise_and(y, one) == one, x, one)
        down = xp.where(xp.abs(x) == one, odd, xp.asarray(0, x.dtype))
        return xp.where(y < 0, down, up)

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        flat = ops.equal(y, 0)
        lower = ops.power(x, ops.where(flat, 1, ops.subtract(y, 1)))
        gx = ops.multiply(g, ops.where(flat, 0, ops.multiply(y, lower)))
        log = ops.log(ops.where(ops.greater(x, 0), x, 1))
        return gx, ops.multiply(g, ops.multiply(out, log))

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        if not is_float(x.dtype):
            return _integer_power(emit, x, y)
        known = {2.0: lambda: x * x, 3.0: lambda: x * x * x, 1.0: lambda: x, -1.0: lambda: 1.0 / x}
        short = known.get(float(y.attrs[0].value)) if y.op == "constant" else None
        return emit.call("pow", x, y) if short is None else short()

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        if is_uniform(y, 1):
            return x
        return ops.square(x) if is_uniform(y, 2) else None


def _integer_power(emit: Any, x: Any, y: Any) -> Any:
    """By squaring, over all bits of y: a loop without branches."""
    unsigned = x.dtype in UNSIGNED
    steps = 8 * x.dtype.itemsize - (not unsigned)
    if y.op == "constant" and int(y.attrs[0].value) >= 0:
        steps = int(y.attrs[0].value).bit_length()
    result, factor = emit.constant(1, x.dtype), x
    for bit in range(steps):
        used = emit.bitwise("and", y, emit.constant(1 << bit, y.dtype))
        result = emit.select(emit.compare("ne", used, 0), result * factor, result)
        factor = factor * factor if bit + 1 < steps else factor
    if unsigned:
        return result
    odd = emit.compare("ne", emit.bitwise("and", y, 1), 0)
    unit = emit.compare("eq", emit.unary("abs", x), 1)
    down = emit.select(unit, emit.select(odd, x, 1), emit.constant(0, x.dtype))
    return emit.select(emit.compare("lt", y, 0), down, result)


class Negative(Plain):
    """The negative of each element; integers wrap.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.negative(2.0).numpy().item()
    -2.0
    """

    name, accepts = "negative", NUMBERS
    samples = _WITH_INTEGERS

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.negative(g),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return -x

    def fold(self, ops: Any, x: Any) -> Any:
        return x.inputs[0] if made_by(x, Negative) else None


class Positive(Plain):
    """The elements as they are.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.positive(2.0).numpy().item()
    2.0
    """

    name, accepts = "positive", NUMBERS
    samples = _WITH_INTEGERS

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (g,)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x

    def fold(self, ops: Any, x: Any) -> Any:
        return x


class Abs(Plain):
    """Absolute value of each element; the most negative integer stays as it is.

    The gradient at 0 is 0.
    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.abs(-2.0).numpy().item()
    2.0
    """

    name, numpy, accepts = "abs", "absolute", NUMBERS
    samples = _WITH_INTEGERS

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.sign(x)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x if x.dtype in UNSIGNED else emit.unary("abs", x)

    def fold(self, ops: Any, x: Any) -> Any:
        if x.dtype in UNSIGNED or made_by(x, Abs):
            return x
        return ops.abs(x.inputs[0]) if made_by(x, Negative) else None


class Sign(Plain):
    """-1, 0 or 1 by the sign of each element; NaN for NaN. The gradient is 0.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.sign(-2.5).numpy().item()
    -1.0
    """

    name, accepts = "sign", NUMBERS
    samples = _WITH_INTEGERS

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.zeros_like(x),)

    def scalar(self, emit: Any, x: Any) -> Any:
        one = emit.constant(1, x.dtype)
        if x.dtype in UNSIGNED:
            return emit.minimum(x, one)
        other = emit.select(emit.compare("eq", x, 0), emit.constant(0, x.dtype), x)
        other = emit.select(emit.compare("lt", x, 0), -one, other)
        return emit.select(emit.compare("gt", x, 0), one, other)


class Square(Plain):
    """Each element times itself; integers wrap.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.square(3.0).numpy().item()
    9.0
    """

    name, accepts = "square", NUMBERS
    samples = _WITH_INTEGERS

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, ops.multiply(x, 2)),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x * x

    def fold(self, ops: Any, x: Any) -> Any:
        return ops.square(x.inputs[0]) if made_by(x, Negative) or made_by(x, Abs) else None


class Sqrt(Plain):
    """Square root of each element; NaN below zero.

    x: floats (integers become float32). Returns: same shape and dtype.

    >>> graphnn.sqrt(9.0).numpy().item()
    3.0
    """

    name, accepts, promotes = "sqrt", FLOATS, "float"
    samples = _POSITIVE

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.divide(ops.multiply(g, 0.5), out),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.unary("sqrt", x)


class Rsqrt(Elementwise):
    """1 / sqrt(x) of each element; infinity at 0, NaN below.

    x: floats (integers become float32). Returns: same shape and dtype.

    >>> graphnn.rsqrt(4.0).numpy().item()
    0.5
    """

    name, accepts, promotes = "rsqrt", FLOATS, "float"
    samples = _POSITIVE

    def eager(self, xp: Any, x: Any) -> Any:
        wide = x.astype(float32) if x.dtype.itemsize == 2 else x
        return quiet(lambda v: 1 / xp.sqrt(v), wide).astype(x.dtype)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(ops.multiply(g, -0.5), ops.multiply(out, ops.square(out))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return 1.0 / emit.unary("sqrt", x)


class Reciprocal(Plain):
    """1 / x of each element.

    x: floats (integers become float32). Returns: same shape and dtype.

    >>> graphnn.reciprocal(4.0).numpy().item()
    0.25
    """

    name, accepts, promotes = "reciprocal", FLOATS, "float"
    samples = _POSITIVE

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.negative(ops.multiply(g, ops.square(out))),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return 1.0 / x


class Minimum(Plain):
    """The smaller of two elements, with broadcasting; NaN if either is NaN.

    Where both are equal the gradient goes to the first.
    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.minimum(2.0, 3.0).numpy().item()
    2.0
    """

    name, arity, accepts, commutative = "minimum", 2, NUMBERS, False
    samples = _PAIR

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        first = ops.less_equal(x, y)
        return ops.where(first, g, 0), ops.where(first, 0, g)

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.minimum(x, y)

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        return x if x is y else None


class Maximum(Plain):
    """The greater of two elements, with broadcasting; NaN if either is NaN.

    Where both are equal the gradient goes to the first.
    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.maximum(2.0, 3.0).numpy().item()
    3.0
    """

    name, arity, accepts, commutative = "maximum", 2, NUMBERS, False
    samples = _PAIR

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        first = ops.greater_equal(x, y)
        return ops.where(first, g, 0), ops.where(first, 0, g)

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.maximum(x, y)

    def fold(self, ops: Any, x: Any, y: Any) -> Any:
        return x if x is y else None


class Clip(Elementwise):
    """minimum(maximum(x, low), high), with broadcasting; NaN if any is NaN.

    The gradient goes to x where low <= x <= high, else to the bound that was taken.
    x, low, high: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.clip(5.0, 0.0, 1.0).numpy().item()
    1.0
    """

    name, arity, accepts = "clip", 3, NUMBERS
    samples = (
        Sample((("f", (3, 4)), ("f", (), -1.0, -0.5), ("f", (4,), 0.5, 1.0))),
        Sample((("f", ()), ("f", (), -1.0, 0.0), ("f", (), 0.5, 1.0))),
        Sample((("i", (3, 4)), ("i", (), 1, 2), ("i", (), 2, 4))),
    )

    def eager(self, xp: Any, x: Any, low: Any, high: Any) -> Any:
        return quiet(lambda: xp.minimum(xp.maximum(x, low), high))

    def grad(self, ops: Any, x: Any, low: Any, high: Any, *, out: Any, g: Any) -> Any:
        below, above = ops.less(x, low), ops.greater(x, high)
        taken = ops.greater(low, high)  # then the result is `high`, whatever x is
        to_low = ops.logical_and(below, ops.logical_not(taken))
        to_high = ops.logical_or(above, taken)
        to_x = ops.logical_not(ops.logical_or(to_low, to_high))
        return tuple(ops.where(c, g, 0) for c in (to_x, to_low, to_high))

    def scalar(self, emit: Any, x: Any, low: Any, high: Any) -> Any:
        return emit.minimum(emit.maximum(x, low), high)


class _Rounding(Plain):
    """Rounds each element to a whole number; integers stay as they are."""

    gradient = NoGradient("rounding is piecewise constant")
    accepts = NUMBERS
    samples = _WITH_INTEGERS

    def eager(self, xp: Any, x: Any) -> Any:
        return super().eager(xp, x) if is_float(x.dtype) else x

    def scalar(self, emit: Any, x: Any) -> Any:
        word = {"round": "rint"}.get(self.name, self.name)
        return emit.unary(word, x) if is_float(x.dtype) else x

    def fold(self, ops: Any, x: Any) -> Any:
        return x if not is_float(x.dtype) or made_by(x, _Rounding) else None


class Floor(_Rounding):
    """The greatest whole number not above each element. It has no gradient.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.floor(-1.5).numpy().item()
    -2.0
    """

    name = "floor"


class Ceil(_Rounding):
    """The least whole number not below each element. It has no gradient.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.ceil(-1.5).numpy().item()
    -1.0
    """

    name = "ceil"


class Trunc(_Rounding):
    """Each element rounded towards zero. It has no gradient.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.trunc(-1.5).numpy().item()
    -1.0
    """

    name = "trunc"


class Round(_Rounding):
    """The nearest whole number, halves to the even one. It has no gradient.

    x: numbers of any dtype, bool excluded. Returns: same shape and dtype.

    >>> graphnn.round(2.5).numpy().item()
    2.0
    """

    name, numpy = "round", "rint"
