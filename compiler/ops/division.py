"""Division to whole numbers: the quotient rounded down, and the remainder.

Integers divided by 0 raise DivisionError: in eager code at once, in compiled code at the end of the
call. A constant divisor that is not 0 costs no check.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.compiler.ir.sizes import bounds
from graphnn.compiler.ir.types import NUMBERS, float32, is_float
from graphnn.compiler.ops.arrays import quiet
from graphnn.compiler.ops.base import Elementwise, NoGradient, Sample
from graphnn.compiler.ops.checks import DivisionCheck

_SAMPLES = (
    Sample((("f", (3, 4)), ("f", (4,), 0.5, 3.0))),
    Sample((("f", (2, 1)), ("f", (1, 3), -3.0, -0.5))),
    Sample((("f", ()), ("f", (), 0.5, 3.0))),
    Sample((("i", (4, 5)), ("i", (5,), 1, 5))),
    Sample((("i", (9,)), ("i", (), 2, 3))),
    Sample((("i", (0, 2)), ("i", (1,), 0, 1))),  # a divisor 0 of no number
)


class Division(Elementwise):
    """What both have in common; `numpy` names their functions."""

    arity, accepts = 2, NUMBERS
    samples = _SAMPLES

    def eager(self, xp: Any, x: Any, y: Any) -> Any:
        function = getattr(xp, self.name)
        if not is_float(x.dtype):
            return _whole(function, xp, x, y, DivisionCheck(self.name, y.dtype.name))
        return quiet(_of_floats, function, x, y)

    def divisor(self, emit: Any, y: Any) -> Any:
        """The divisor; of integers one that is not 0, after a check where it may be."""
        if is_float(y.dtype) or _is_never_zero(y):
            return y
        check = DivisionCheck(self.name, y.dtype.name)
        return emit.check(emit.compare("ne", y, 0), y, check, instead=1)


def _of_floats(function: Any, x: Any, y: Any) -> Any:
    if x.dtype.itemsize == 2:  # ml_dtypes differs from NumPy at infinities
        return function(x.astype(float32), y.astype(float32)).astype(x.dtype)
    return function(x, y)


def _whole(function: Any, xp: Any, x: Any, y: Any, check: DivisionCheck) -> Any:
    if xp is not np:
        result = function(x, y)
        if result.size and not y.all():
            raise check.error()
        return result
    try:
        return _alert(function, x, y)
    except FloatingPointError:
        raise check.error() from None


@np.errstate(all="ignore", divide="raise")
def _alert(function: Any, x: Any, y: Any) -> Any:
    """function(x, y), where NumPy itself tells of a divisor 0: no pass over y of our own."""
    return function(x, y)


def _is_never_zero(y: Any) -> bool:
    """Whether a scalar of a kernel is a constant or a size that cannot be 0."""
    if y.op == "constant":
        return bool(y.attrs[0].value != 0)
    index = y.args[0] if y.op == "cast" else y
    if index.op != "index":
        return False
    least, most = bounds(index.attrs[0])
    # 256 is 0 as uint8: the cast must keep it.
    fits = y.dtype.itemsize >= 4 if most is None else most <= np.iinfo(y.dtype).max
    return least is not None and least > 0 and fits


class FloorDivide(Division):
    """Quotient rounded down, with broadcasting. Raises DivisionError for an integer divided by 0.

    Floats follow Python and NumPy: (x - x mod y) / y, so 1.0 // 0.1 is 9.0.
    The most negative integer divided by -1 wraps to itself.
    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.floor_divide(-7, 2).numpy().item()
    -4
    """

    name = "floor_divide"
    gradient = NoGradient("the quotient rounded down is piecewise constant")

    def on_sizes(self, *values: Any) -> Any:
        return values[0] // values[1]

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.floordiv(x, self.divisor(emit, y))


class Remainder(Division):
    """x - floor(x / y) * y, with the sign of y. Also called mod.

    Raises DivisionError for an integer modulo 0.
    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.remainder(-7, 3).numpy().item()
    2
    """

    name = "remainder"

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return g, ops.negative(ops.multiply(g, ops.floor_divide(x, y)))

    def on_sizes(self, *values: Any) -> Any:
        return values[0] % values[1]

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.mod(x, self.divisor(emit, y))
