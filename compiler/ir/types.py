"""Types of the IR: dtypes with their short names, promotion, and tensors with symbolic sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from graphnn.compiler.ir.sizes import Size, product, substitute
from graphnn.runtime.errors import DTypeError, ShapeError

DType = np.dtype[Any]

bool_ = np.dtype(np.bool_)
int8, int16, int32, int64 = (np.dtype(f"int{n}") for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{n}") for n in (8, 16, 32, 64))
float16, float32, float64 = (np.dtype(f"float{n}") for n in (16, 32, 64))
bfloat16: DType = np.dtype(ml_dtypes.bfloat16)

SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
INTEGERS = SIGNED + UNSIGNED
FLOATS = (float16, bfloat16, float32, float64)
NUMBERS = INTEGERS + FLOATS
ALL = (bool_, *NUMBERS)

SHORT: dict[DType, str] = {bool_: "bool", bfloat16: "bf16"}
SHORT |= {d: f"i{8 * d.itemsize}" for d in SIGNED}
SHORT |= {d: f"u{8 * d.itemsize}" for d in UNSIGNED}
SHORT |= {d: f"f{8 * d.itemsize}" for d in (float16, float32, float64)}
BY_SHORT = {name: dtype for dtype, name in SHORT.items()}

DEFAULT_FLOAT = float32
DEFAULT_INT = int32


@cache
def as_dtype(value: Any) -> DType:
    """The dtype that a name, a NumPy type, a Python type or a dtype means.

    >>> as_dtype("bfloat16").itemsize, as_dtype(float)
    (2, dtype('float32'))
    """
    if value is bool:
        return bool_
    if value is int:
        return DEFAULT_INT
    if value is float:
        return DEFAULT_FLOAT
    if value == "bfloat16":
        return bfloat16
    value = getattr(value, "as_numpy_dtype", value)
    try:
        dtype: DType | None = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or dtype not in SHORT:
        raise DTypeError(
            "a dtype",
            received=str(value),
            expected=", ".join(d.name for d in ALL),
            fix="convert the data to one of these dtypes first",
        )
    return dtype


def is_float(dtype: DType) -> bool:
    """Whether a dtype is one of the floating-point ones."""
    return dtype in FLOATS


def is_integer(dtype: DType) -> bool:
    """Whether a dtype is a signed or unsigned integer."""
    return dtype in INTEGERS


@cache
def promote(a: DType, b: DType) -> DType:
    """The common dtype of two tensors: the float wins over integers, as in the array API's order.

    >>> promote(int32, float32), promote(float16, bfloat16), promote(uint8, int8)
    (dtype('float32'), dtype('float32'), dtype('int16'))
    """
    if a == b:
        return a
    if is_float(a) != is_float(b):
        return a if is_float(a) else b
    if {a, b} == {float16, bfloat16}:
        return float32
    if bfloat16 in (a, b):
        return b if a == bfloat16 else a
    common = np.promote_types(a, b)
    return int64 if is_float(common) and not is_float(a) else common


def scalar_dtype(value: bool | int | float, other: DType) -> DType:
    """The dtype a weak Python scalar takes beside a tensor of dtype `other`."""
    if isinstance(value, bool | np.bool_) or is_float(other):
        return other
    if isinstance(value, int):
        return DEFAULT_INT if other == bool_ else other
    return DEFAULT_FLOAT


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype; a size is an int or a symbolic `Size`."""

    shape: tuple[Any, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"{SHORT[self.dtype]}[{','.join(map(str, self.shape))}]"

    __repr__ = __str__

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Any:
        """Number of elements, an int or a Size."""
        return product(self.shape)

    @property
    def nbytes(self) -> Any:
        """Bytes of a dense row-major array of this type."""
        return self.size * self.dtype.itemsize

    @property
    def is_static(self) -> bool:
        """Whether all sizes are known."""
        return not any(isinstance(s, Size) for s in self.shape)

    def with_shape(self, shape: tuple[Any, ...]) -> TensorType:
        """Same dtype, other shape."""
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        """Same shape, other dtype."""
        return TensorType(self.shape, dtype)

    def bind(self, env: dict[Any, Any]) -> TensorType:
        """The type with symbols replaced by sizes."""
        return TensorType(tuple(substitute(s, env) for s in self.shape), self.dtype)


@dataclass(frozen=True)
class TupleType:
    """Type of an op with several results; `item` takes one of them."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"

    __repr__ = __str__


Type = TensorType | TupleType


def describe(dtype: DType, shape: tuple[Any, ...]) -> str:
    """How errors name a tensor: float32[64,128]."""
    name = "string" if dtype.kind == "T" else dtype.name
    return f"{name}[{','.join(map(str, shape))}]"


def broadcast(shapes: tuple[tuple[Any, ...], ...], subject: str) -> tuple[Any, ...]:
    """The broadcast shape, by NumPy's rules.

    A symbol stands for a size of at least 2, so it equals itself or stretches a 1; two different
    symbols, or a symbol and a number, do not fit.
    """
    ndim = max(map(len, shapes), default=0)
    result: list[Any] = []
    for axis in range(-ndim, 0):
        extents = [s[axis] for s in shapes if len(s) >= -axis]
        wide = [e for e in extents if e != 1]
        if any(e != wide[0] for e in wide):
            raise ShapeError(
                subject,
                received=" and ".join(f"({', '.join(map(str, s))})" for s in shapes),
                expected=f"sizes equal or 1 on each axis; axis {axis} has "
                + " and ".join(map(str, extents)),
                fix="reshape or expand_dims one side so that the axes line up from the right",
            )
        result.append(wide[0] if wide else 1)
    return tuple(result)
