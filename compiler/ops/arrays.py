"""What the element-wise families share: quiet NumPy calls, and scalar rules run on whole arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.types import DType, bfloat16, bool_, float16, float32
from graphnn.compiler.ops.base import Elementwise
from graphnn.runtime import xp as special

HALVES = (float16, bfloat16)


@np.errstate(all="ignore")
def quiet(function: Callable[..., Any], *arrays: Any, **settings: Any) -> Any:
    """function(...) without NumPy's warnings: infinities and NaN are results like others."""
    return function(*arrays, **settings)


def widen(x: Any) -> Any:
    """float16 and bfloat16 arrays as float32, in which they are computed; others as they are."""
    return x.astype(float32) if x.dtype in HALVES else x


class Plain(Elementwise):
    """An element-wise op that one NumPy function computes.

    numpy: the name of that function, where it is not the op's own. call: the maths function of
    the scalar rule, where that is a single call.
    """

    numpy: ClassVar[str] = ""
    call: ClassVar[str] = ""

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return quiet(getattr(xp, self.numpy or self.name), *arrays)

    def scalar(self, emit: Any, *elements: Any) -> Any:
        return emit.call(self.call or self.name, *elements)


class Formula(Elementwise):
    """An element-wise op whose eager value is its scalar rule run on whole arrays."""

    def eager(self, xp: Any, *arrays: Any) -> Any:
        wide = [xp.atleast_1d(widen(a)) for a in arrays]
        result = quiet(self.scalar, ArrayEmit(xp), *wide)
        result = quiet(xp.asarray, result, self.result or arrays[0].dtype)
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        if result.size != math.prod(shape):
            result = xp.array(xp.broadcast_to(result, shape or (1,)))
        return result.reshape(shape)


_BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "minimum": "minimum",
    "maximum": "maximum",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "shl": "left_shift",
    "shr": "right_shift",
}
_UNARY = {
    "neg": "negative",
    "abs": "absolute",
    "not": "invert",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "rint",
    "sqrt": "sqrt",
}
_COMPARE = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_CALL = {"pow": "power", "atan2": "arctan2"}
SPECIAL = ("sigmoid", "erf", "erfc", "erfinv", "lgamma", "digamma")


class ArrayEmit:
    """The words of `codegen.scalar.Emit` that formulas use, computed at once on arrays.

    Arrays are NumPy's or CuPy's and carry the dtype; + - * / and unary - act on them directly.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def constant(self, value: Any, dtype: DType) -> Any:
        """A number as an array of one element, so that integers wrap without a warning."""
        return self.xp.asarray([value], dtype)

    def lift(self, value: Any, dtype: DType) -> Any:
        """A Python number as an array; an array as it is."""
        return value if hasattr(value, "dtype") else self.constant(value, dtype)

    def binary(self, op: str, a: Any, b: Any) -> Any:
        """See Emit.binary."""
        return getattr(self.xp, _BINARY[op])(a, b)

    bitwise = binary

    def unary(self, op: str, a: Any) -> Any:
        """See Emit.unary."""
        return getattr(self.xp, _UNARY[op])(a)

    def minimum(self, a: Any, b: Any) -> Any:
        """See Emit.minimum."""
        return self.xp.minimum(a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """See Emit.maximum."""
        return self.xp.maximum(a, b)

    def compare(self, kind: str, a: Any, b: Any) -> Any:
        """See Emit.compare."""
        return getattr(self.xp, _COMPARE[kind])(a, b)

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        """See Emit.select."""
        like = a if hasattr(a, "dtype") else b
        return self.xp.where(condition, self.lift(a, like.dtype), self.lift(b, like.dtype))

    def isnan(self, a: Any) -> Any:
        """See Emit.isnan."""
        return a != a

    def logical_not(self, a: Any) -> Any:
        """See Emit.logical_not."""
        return self.xp.invert(a)

    def cast(self, a: Any, dtype: DType) -> Any:
        """See Emit.cast; not for floats that leave the range of an integer dtype."""
        return a.astype(dtype)

    def bitcast(self, a: Any, dtype: DType) -> Any:
        """See Emit.bitcast."""
        return self.xp.ascontiguousarray(a).view(dtype)

    def call(self, name: str, *args: Any) -> Any:
        """See Emit.call; a function of NumPy, or of `runtime.xp` where NumPy lacks it."""
        if name in SPECIAL:
            return getattr(special, name)(self.xp, *args)
        return getattr(self.xp, _CALL.get(name, name))(*args)


def is_bool(x: Any) -> bool:
    """Whether an element or array is of dtype bool."""
    return bool(x.dtype == bool_)


def wide_op(ops: Any, x: Any) -> Any:
    """A value of an `ops` namespace, float16 and bfloat16 cast to float32."""
    return ops.cast(x, dtype="float32") if x.dtype in HALVES else x


def cast_op(ops: Any, x: Any, dtype: DType) -> Any:
    """A value of an `ops` namespace in a dtype; nothing is done where it has it."""
    return x if x.dtype == dtype else ops.cast(x, dtype=dtype.name)
