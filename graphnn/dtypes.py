"""Dtypes by name, and the questions of the array API standard about them.

A dtype is a `numpy.dtype`: it compares equal to its name and to NumPy's types, so NumPy, graphnn
and other libraries can share it.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from graphnn.compiler.ir.types import (
    ALL,
    FLOATS,
    SIGNED,
    UNSIGNED,
    DType,
    as_dtype,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    is_float,
    promote,
    scalar_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from graphnn.runtime.errors import ArgumentError

half, double = float16, float64

__all__ = [
    "as_dtype",
    "bfloat16",
    "bool_",
    "can_cast",
    "default_float",
    "double",
    "finfo",
    "float16",
    "float32",
    "float64",
    "half",
    "iinfo",
    "int8",
    "int16",
    "int32",
    "int64",
    "isdtype",
    "result_type",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]

_KINDS: dict[str, tuple[DType, ...]] = {
    "bool": (bool_,),
    "signed integer": SIGNED,
    "unsigned integer": UNSIGNED,
    "integral": SIGNED + UNSIGNED,
    "real floating": FLOATS,
    "complex floating": (),
    "numeric": SIGNED + UNSIGNED + FLOATS,
}


def _dtype_of(value: Any) -> DType:
    """The dtype of a tensor or array, or the dtype that a name or type means."""
    return as_dtype(getattr(value, "dtype", value))


def default_float(dtype: DType) -> DType:
    """The dtype itself if it is a float, otherwise float32: what sqrt of an integer gives.

    >>> default_float(int32)
    dtype('float32')
    """
    return dtype if is_float(dtype) else float32


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, the name of a kind, or a tuple of these.

    kind: "bool", "signed integer", "unsigned integer", "integral", "real floating", "complex
    floating" or "numeric". Raises ArgumentError for another name.

    >>> graphnn.isdtype(graphnn.int32, ("bool", "integral"))
    True
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if not isinstance(kind, str) or kind in {d.name for d in ALL}:
        return as_dtype(dtype) == as_dtype(kind)
    if kind not in _KINDS:
        raise ArgumentError(
            "isdtype",
            received=f"kind {kind!r}",
            expected="one of " + ", ".join(map(repr, _KINDS)),
            fix="use one of these names, or a dtype",
        )
    return as_dtype(dtype) in _KINDS[kind]


def result_type(*values: Any) -> DType:
    """The common dtype of tensors, dtypes and Python numbers (which are weak).

    >>> graphnn.result_type(graphnn.int32, graphnn.float16, 1.0)
    dtype('float16')
    """
    numbers = [v for v in values if isinstance(v, bool | int | float)]
    strong = [_dtype_of(v) for v in values if not isinstance(v, bool | int | float)]
    if not values:
        raise ArgumentError(
            "result_type", received="no argument", expected="tensors, dtypes or numbers"
        )
    kind: Any = type(numbers[0]) if numbers else None
    result = strong[0] if strong else as_dtype(kind)
    for dtype in strong[1:]:
        result = promote(result, dtype)
    for number in numbers:
        result = promote(result, scalar_dtype(number, result))
    return result


def can_cast(source: Any, target: Any) -> bool:
    """Whether a cast keeps the kind and loses no range: promotion of both gives the target.

    >>> graphnn.can_cast(graphnn.int8, graphnn.int32), graphnn.can_cast(graphnn.int32, "int8")
    (True, False)
    """
    to = as_dtype(target)
    return promote(_dtype_of(source), to) == to


def finfo(dtype: Any) -> Any:
    """Limits of a floating-point dtype: bits, eps, max, min, smallest_normal.

    >>> float(graphnn.finfo("float32").eps)
    1.1920928955078125e-07
    """
    of = _dtype_of(dtype)
    make: Any = ml_dtypes.finfo if of == bfloat16 else np.finfo
    return make(of)


def iinfo(dtype: Any) -> Any:
    """Limits of an integer dtype: bits, max, min.

    >>> graphnn.iinfo("int8").max
    127
    """
    return np.iinfo(_dtype_of(dtype))
