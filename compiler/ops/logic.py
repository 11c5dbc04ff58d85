"""Comparisons, logical and bitwise ops, choice, finite checks, casts and tensors of constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.types import (
    ALL,
    INTEGERS,
    NUMBERS,
    DType,
    TensorType,
    as_dtype,
    bfloat16,
    bool_,
    broadcast,
    describe,
    float16,
    float32,
    float64,
    is_float,
    is_integer,
)
from graphnn.compiler.ops.algebra import made_by, uniform
from graphnn.compiler.ops.arrays import HALVES, Plain, is_bool, quiet
from graphnn.compiler.ops.base import Elementwise, NoGradient, Sample
from graphnn.runtime.errors import DTypeError

_PAIR = (
    Sample((("f", (3, 4), -1, 2), ("f", (4,), -1, 2))),
    Sample((("i", (3, 1), 0, 3), ("i", (1, 4), 0, 3))),
    Sample((("b", (2, 3)), ("b", (3,)))),
    Sample((("f", ()), ("f", ()))),
    Sample((("i", (0, 2)), ("i", (1, 2)))),
)
_ONE = (
    Sample((("f", (3, 4)),)),
    Sample((("i", (3, 1), -1, 2),)),
    Sample((("f", (0,)),)),
    Sample((("f", ()),)),
)


class _Comparison(Plain):
    """Compares two elements; the result is bool."""

    arity, accepts, result = 2, ALL, bool_
    gradient = NoGradient("a comparison is piecewise constant")
    samples = _PAIR

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.compare(self.call, x, y)


class Equal(_Comparison):
    """Whether two elements are equal; False beside NaN; with broadcasting.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.equal(2, 2).numpy().item()
    True
    """

    name, call, commutative = "equal", "eq", True


class NotEqual(_Comparison):
    """Whether two elements differ; True beside NaN; with broadcasting.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.not_equal(2, 2).numpy().item()
    False
    """

    name, call, commutative = "not_equal", "ne", True


class Less(_Comparison):
    """Whether the first element is less; False beside NaN; with broadcasting.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.less(1, 2).numpy().item()
    True
    """

    name, call, commutative = "less", "lt", False


class LessEqual(_Comparison):
    """Whether the first element is less or equal; False beside NaN; with broadcasting.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.less_equal(2, 2).numpy().item()
    True
    """

    name, call, commutative = "less_equal", "le", False


class Greater(_Comparison):
    """Whether the first element is greater; False beside NaN; with broadcasting.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.greater(1, 2).numpy().item()
    False
    """

    name, call, commutative = "greater", "gt", False


class GreaterEqual(_Comparison):
    """Whether the first element is greater or equal; False beside NaN; with broadcasting.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.greater_equal(2, 2).numpy().item()
    True
    """

    name, call, commutative = "greater_equal", "ge", False


def _truth(emit: Any, x: Any) -> Any:
    """Whether an element is not zero; NaN counts as true."""
    return x if is_bool(x) else emit.compare("ne", x, 0)


class _Logical(Plain):
    """A truth function of elements; numbers are true where they are not zero."""

    arity, accepts, result, commutative = 2, ALL, bool_, True
    gradient = NoGradient("the result is bool")
    samples = _PAIR

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.bitwise(self.call, _truth(emit, x), _truth(emit, y))


class LogicalAnd(_Logical):
    """Whether both elements are true, with broadcasting; a number is true unless it is 0.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.logical_and(True, False).numpy().item()
    False
    """

    name, call = "logical_and", "and"


class LogicalOr(_Logical):
    """Whether at least one element is true, with broadcasting; a number is true unless it is 0.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.logical_or(True, False).numpy().item()
    True
    """

    name, call = "logical_or", "or"


class LogicalXor(_Logical):
    """Whether exactly one element is true, with broadcasting; a number is true unless it is 0.

    x, y: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.logical_xor(True, False).numpy().item()
    True
    """

    name, call = "logical_xor", "xor"


class LogicalNot(Plain):
    """Whether an element is false; a number is false where it is 0.

    x: any dtype. Returns: bool. It has no gradient.

    >>> graphnn.logical_not(True).numpy().item()
    False
    """

    name, accepts, result = "logical_not", ALL, bool_
    gradient = NoGradient("the result is bool")
    samples = (*_ONE, Sample((("b", (2, 3)),)))

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.logical_not(x) if is_bool(x) else emit.compare("eq", x, 0)

    def fold(self, ops: Any, x: Any) -> Any:
        if not made_by(x, LogicalNot) or x.inputs[0].dtype != bool_:
            return None
        return x.inputs[0]


class _Bitwise(Plain):
    """Combines the bits of two elements."""

    arity, accepts, commutative = 2, (bool_, *INTEGERS), True
    gradient = NoGradient("bits have no gradient")
    samples = (
        Sample((("i", (3, 1), 0, 99), ("i", (1, 4), 0, 99))),
        Sample((("b", (2, 3)), ("b", (3,)))),
        Sample((("i", (0,)), ("i", ()))),
    )

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.bitwise(self.call, x, y)


class BitwiseAnd(_Bitwise):
    """The bits set in both elements, with broadcasting.

    x, y: integers or bool. Returns: their common dtype. It has no gradient.

    >>> graphnn.bitwise_and(12, 10).numpy().item()
    8
    """

    name, call = "bitwise_and", "and"


class BitwiseOr(_Bitwise):
    """The bits set in at least one element, with broadcasting.

    x, y: integers or bool. Returns: their common dtype. It has no gradient.

    >>> graphnn.bitwise_or(12, 10).numpy().item()
    14
    """

    name, call = "bitwise_or", "or"


class BitwiseXor(_Bitwise):
    """The bits set in exactly one element, with broadcasting.

    x, y: integers or bool. Returns: their common dtype. It has no gradient.

    >>> graphnn.bitwise_xor(12, 10).numpy().item()
    6
    """

    name, call = "bitwise_xor", "xor"


class BitwiseInvert(Plain):
    """All bits of each element turned over; for bool the negation.

    x: integers or bool. Returns: same shape and dtype. It has no gradient.

    >>> graphnn.bitwise_invert(5).numpy().item()
    -6
    """

    name, numpy, accepts = "bitwise_invert", "invert", (bool_, *INTEGERS)
    gradient = NoGradient("bits have no gradient")
    samples = (Sample((("i", (3, 4), 0, 99),)), Sample((("b", (5,)),)), Sample((("i", ()),)))

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.logical_not(x)


class _Shift(Plain):
    """Shifts bits; a count that is negative or not below the width counts as the width."""

    arity, accepts = 2, INTEGERS
    gradient = NoGradient("bits have no gradient")
    samples = (
        Sample((("i", (3, 1), 0, 99), ("i", (1, 4), 0, 7))),
        Sample((("i", (6,), -9, 9), ("i", (6,), -2, 99))),
    )

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return emit.bitwise(self.call, x, y)


class BitwiseLeftShift(_Shift):
    """x times 2**y, wrapping; 0 where y is negative or not below the width of the dtype.

    x, y: integers. Returns: their common dtype. It has no gradient.

    >>> graphnn.bitwise_left_shift(3, 2).numpy().item()
    12
    """

    name, numpy, call = "bitwise_left_shift", "left_shift", "shl"


class BitwiseRightShift(_Shift):
    """x divided by 2**y, rounded down.

    Where y is negative or not below the width of the dtype: 0, or -1 for a negative x.
    x, y: integers. Returns: their common dtype. It has no gradient.

    >>> graphnn.bitwise_right_shift(-9, 1).numpy().item()
    -5
    """

    name, numpy, call = "bitwise_right_shift", "right_shift", "shr"


class _FiniteCheck(Plain):
    """A property of each number; integers are finite."""

    accepts, result = NUMBERS, bool_
    gradient = NoGradient("the result is bool")
    samples = _ONE


class Isnan(_FiniteCheck):
    """Whether each element is NaN.

    x: numbers of any dtype, bool excluded. Returns: bool. It has no gradient.

    >>> graphnn.isnan(float("nan")).numpy().item()
    True
    """

    name = "isnan"

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.isnan(x) if is_float(x.dtype) else emit.constant(False, bool_)


class Isinf(_FiniteCheck):
    """Whether each element is plus or minus infinity.

    x: numbers of any dtype, bool excluded. Returns: bool. It has no gradient.

    >>> graphnn.isinf(float("-inf")).numpy().item()
    True
    """

    name = "isinf"

    def scalar(self, emit: Any, x: Any) -> Any:
        if not is_float(x.dtype):
            return emit.constant(False, bool_)
        return emit.compare("eq", emit.unary("abs", x), np.inf)


class Isfinite(_FiniteCheck):
    """Whether each element is neither infinite nor NaN.

    x: numbers of any dtype, bool excluded. Returns: bool. It has no gradient.

    >>> graphnn.isfinite(1.0).numpy().item()
    True
    """

    name = "isfinite"

    def scalar(self, emit: Any, x: Any) -> Any:
        if not is_float(x.dtype):
            return emit.constant(True, bool_)
        return emit.compare("lt", emit.unary("abs", x), np.inf)


class Where(Elementwise):
    """x where the condition holds, else y, with broadcasting.

    condition: bool. x, y: any dtype, the same for both. Returns: that dtype.

    >>> graphnn.where(True, 1.0, 2.0).numpy().item()
    1.0
    """

    name, arity = "where", 3
    fixed_inputs = (0,)  # the condition takes no part in the promotion of dtypes
    samples = (
        Sample((("b", (3, 4)), ("f", (3, 4)), ("f", (4,)))),
        Sample((("b", (3, 1)), ("f", ()), ("f", (2,)))),
        Sample((("b", ()), ("i", (0,)), ("i", ()))),
    )

    def infer(self, *types: TensorType) -> TensorType:
        condition, x, y = types
        if condition.dtype != bool_ or x.dtype != y.dtype:
            raise DTypeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected="a bool condition, and two tensors of one dtype",
                fix="compare to get a condition, and cast one of the two tensors",
            )
        return TensorType(broadcast(tuple(t.shape for t in types), self.name), x.dtype)

    def eager(self, xp: Any, condition: Any, x: Any, y: Any) -> Any:
        return xp.where(condition, x, y)

    def grad(self, ops: Any, condition: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return None, ops.where(condition, g, 0), ops.where(condition, 0, g)

    def scalar(self, emit: Any, condition: Any, x: Any, y: Any) -> Any:
        return emit.select(condition, x, y)

    def fold(self, ops: Any, condition: Any, x: Any, y: Any) -> Any:
        if x is y:
            return x
        known = uniform(condition)
        return None if known is None else x if known else y


def cast_array(xp: Any, x: Any, dtype: DType) -> Any:
    """An array in another dtype, by the rules of `Cast`."""
    if is_float(x.dtype) and is_integer(dtype):
        return _saturate(xp, x, dtype)
    if dtype in HALVES and x.dtype not in HALVES:
        x = quiet(x.astype, float32)  # as compiled code does: rounded twice from wider dtypes
    elif x.dtype in HALVES and is_bool_dtype(dtype):
        x = x.astype(float32)
    return quiet(x.astype, dtype)


def is_bool_dtype(dtype: DType) -> bool:
    """Whether a dtype is bool."""
    return bool(dtype == bool_)


def _saturate(xp: Any, x: Any, dtype: DType) -> Any:
    """Floats truncated to integers, kept in range, NaN as 0."""
    info = np.iinfo(dtype)
    x = x if x.dtype.itemsize > 2 else x.astype(float32)
    low, limit = float(info.min), float(info.max // 2 + 1) * 2  # exact in every float dtype
    inside = (x > low) & (x < limit)
    result = xp.where(inside, x, xp.asarray(0, x.dtype)).astype(dtype)
    result = xp.where(x >= limit, xp.asarray(info.max, dtype), result)
    return xp.where(x <= low, xp.asarray(info.min, dtype), result)


_DIGITS = {bfloat16: 8, float16: 11, float32: 24, float64: 53}


def keeps_values(source: DType, target: DType) -> bool:
    """Whether every number of one dtype is one of the other as well."""
    if source == bool_ or source == target:
        return True
    if is_float(source):  # the halves differ in range, so neither holds the other
        return target in (float32, float64) and _DIGITS[source] <= _DIGITS[target]
    if is_float(target):
        return 8 * source.itemsize <= _DIGITS[target]
    return target != bool_ and bool(np.can_cast(source, target))


class Cast(Elementwise):
    """Each element in another dtype.

    Floats become integers by truncation; out of range they take the nearest integer, NaN becomes
    0. Integers wrap; to bool, everything but 0 is True. float16 and bfloat16 are made by way of
    float32.
    x: any dtype. Returns: same shape, the stated dtype.

    >>> graphnn.cast(2.75, dtype="int32").numpy().item()
    2
    """

    name, promotes = "cast", "none"
    dtype: str
    samples = (
        Sample((("f", (3, 4)),), {"dtype": "float64"}),
        Sample((("f", (3, 4)),), {"dtype": "float32"}, differentiable=False),
        Sample((("f", (3, 4), -300, 300),), {"dtype": "int8"}, differentiable=False),
        Sample((("f", (), -9, 9),), {"dtype": "uint32"}, differentiable=False),
        Sample((("i", (2, 0)),), {"dtype": "float64"}),
        Sample((("i", (5,), -1, 2),), {"dtype": "bool"}),
        Sample((("b", (5,)),), {"dtype": "bfloat16"}),
        Sample((("f", (3, 4)),), {"dtype": "float16"}, differentiable=False),
    )

    @property
    def epilogue(self) -> str:
        return "cast"

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        return types[0].with_dtype(as_dtype(self.dtype))

    def eager(self, xp: Any, x: Any) -> Any:
        return cast_array(xp, x, as_dtype(self.dtype))

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.cast(g, dtype=x.dtype.name) if is_float(out.dtype) else None,)

    def on_sizes(self, *values: Any) -> Any:
        return values[0] if as_dtype(self.dtype).kind in "iu" else None

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.cast(x, as_dtype(self.dtype))

    def fold(self, ops: Any, x: Any) -> Any:
        if x.dtype == as_dtype(self.dtype):
            return x
        if made_by(x, Cast) and keeps_values(x.inputs[0].dtype, x.dtype):
            return ops.cast(x.inputs[0], dtype=self.dtype)
        return None


class _Like(Elementwise):
    """A constant in the shape of another tensor; its values are not read."""

    promotes = "none"
    gradient = NoGradient("the values of the input are not used")
    samples: ClassVar[Sequence[Sample]] = _ONE

    def fill(self) -> Any:
        """The number to fill with."""
        return 0

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.full(x.shape, self.fill(), x.dtype)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.constant(self.fill(), x.dtype)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        return emit.constant(self.fill(), out.dtype)

    def fold(self, ops: Any, x: Any) -> Any:
        return ops.full(shape=tuple(x.shape), dtype=x.dtype.name, value=self.fill())


class ZerosLike(_Like):
    """Zeros in the shape and dtype of a tensor. It has no gradient.

    x: any dtype. Returns: same shape and dtype.

    >>> graphnn.zeros_like(3.0).numpy().item()
    0.0
    """

    name = "zeros_like"


class OnesLike(_Like):
    """Ones in the shape and dtype of a tensor. It has no gradient.

    x: any dtype. Returns: same shape and dtype.

    >>> graphnn.ones_like(3.0).numpy().item()
    1.0
    """

    name = "ones_like"

    def fill(self) -> Any:
        return 1


class FullLike(_Like):
    """One number in the shape and dtype of a tensor. It has no gradient.

    x: any dtype. value: a Python number. Returns: same shape and dtype.

    >>> graphnn.full_like(3.0, value=7).numpy().item()
    7.0
    """

    name = "full_like"
    value: Any
    samples = (Sample((("f", (3, 4)),), {"value": 1.5}), Sample((("i", ()),), {"value": 3}))

    def fill(self) -> Any:
        return self.value
