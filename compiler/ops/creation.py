"""Tensors made from nothing: fill, ranges, the identity matrix."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.sizes import Size, substitute
from graphnn.compiler.ir.types import (
    DType,
    TensorType,
    as_dtype,
    bfloat16,
    float16,
    float32,
    float64,
    int64,
    is_float,
)
from graphnn.compiler.ops.base import NoGradient, Sample, Source
from graphnn.runtime.errors import ArgumentError

NO_INPUTS = NoGradient("a source has no inputs")


def check_extent(value: Any, name: str, subject: str) -> None:
    """Raise ArgumentError for a negative number of elements."""
    if isinstance(value, int) and value < 0:
        raise ArgumentError(
            subject,
            received=f"{name}={value}",
            expected=f"{name} of 0 or more",
            fix="check how the size is computed",
        )


def round_from_double(xp: Any, values: Any, dtype: DType) -> Any:
    """float64 values in another dtype; 16-bit floats by way of float32, as compiled code does."""
    if dtype in (float16, bfloat16):
        values = values.astype(float32)
    return values.astype(dtype)


class NumberSource(Source):
    """A source with Python numbers as settings, which are equal only if their texts are.

    So 0.0 and -0.0 are two settings, and nan is equal to itself.
    """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


class Full(NumberSource):
    """A tensor with one value everywhere.

    shape: sizes. dtype: name of any dtype. value: a Python number or a symbolic size.

    >>> graphnn.full((2,), 3.0).numpy().tolist()
    [3.0, 3.0]
    """

    name = "full"
    gradient = NO_INPUTS
    samples = (
        Sample((), {"shape": (2, 3), "dtype": "float32", "value": 1.5}),
        Sample((), {"shape": (), "dtype": "int32", "value": 7}),
        Sample((), {"shape": (0, 2), "dtype": "bool", "value": True}),
        Sample((), {"shape": (3,), "dtype": "bfloat16", "value": -0.0}),
    )
    shape: tuple[Any, ...]
    dtype: str
    value: Any

    __eq__, __hash__ = NumberSource.__eq__, NumberSource.__hash__

    def infer(self, *types: TensorType) -> TensorType:
        for extent in self.shape:
            check_extent(extent, "size", self.name)
        return TensorType(tuple(self.shape), as_dtype(self.dtype))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return xp.full(self.shape, substitute(self.value, {}), as_dtype(self.dtype))

    def uniform(self) -> Any:
        return None if isinstance(self.value, Size) else self.value

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        return emit.constant(self.value, out.dtype)


class Arange(NumberSource):
    """start, start + step, ...: `size` numbers.

    start, step: Python numbers or, for integer results, symbolic sizes. Floats are computed as
    start + i * step in float64 and rounded once.

    >>> graphnn.arange(3).numpy().tolist()
    [0, 1, 2]
    """

    name = "arange"
    gradient = NO_INPUTS
    samples = (
        Sample((), {"start": 0, "step": 1, "size": 5, "dtype": "int32"}),
        Sample((), {"start": 7, "step": -2, "size": 4, "dtype": "int64"}),
        Sample((), {"start": 0.5, "step": 0.1, "size": 7, "dtype": "float32"}),
        Sample((), {"start": -1.0, "step": 0.3, "size": 6, "dtype": "float16"}),
        Sample((), {"start": 0, "step": 1, "size": 0, "dtype": "float64"}),
    )
    start: Any
    step: Any
    size: Any
    dtype: str

    __eq__, __hash__ = NumberSource.__eq__, NumberSource.__hash__

    def infer(self, *types: TensorType) -> TensorType:
        check_extent(self.size, "size", self.name)
        return TensorType((self.size,), as_dtype(self.dtype))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        dtype = as_dtype(self.dtype)
        start, step = substitute(self.start, {}), substitute(self.step, {})
        if not is_float(dtype):
            return (xp.arange(self.size, dtype=int64) * int(step) + int(start)).astype(dtype)
        counts = xp.arange(self.size, dtype=float64)
        return round_from_double(xp, counts * float(step) + float(start), dtype)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        (i,) = index
        if not is_float(out.dtype):
            step = self.step if isinstance(self.step, Size) else int(self.step)
            start = self.start if isinstance(self.start, Size) else int(self.start)
            return emit.cast(emit.index(i * step + start), out.dtype)
        return emit.cast(emit.cast(emit.index(i), float64) * self.step + self.start, out.dtype)


class Linspace(NumberSource):
    """`size` floats from start to stop, evenly spaced.

    endpoint: whether the last one is stop. Computed as start + i * step in float64.

    >>> graphnn.linspace(0.0, 1.0, 3).numpy().tolist()
    [0.0, 0.5, 1.0]
    """

    name = "linspace"
    gradient = NO_INPUTS
    samples = (
        Sample((), {"start": 0.0, "stop": 1.0, "size": 5, "dtype": "float32"}),
        Sample((), {"start": 2.0, "stop": -1.0, "size": 6, "dtype": "float64", "endpoint": False}),
        Sample((), {"start": 3.0, "stop": 9.0, "size": 1, "dtype": "float32"}),
        Sample((), {"start": 0.0, "stop": 9.0, "size": 0, "dtype": "float16"}),
    )
    start: float
    stop: float
    size: Any
    dtype: str
    endpoint: bool = True

    __eq__, __hash__ = NumberSource.__eq__, NumberSource.__hash__

    def infer(self, *types: TensorType) -> TensorType:
        check_extent(self.size, "size", self.name)
        return TensorType((self.size,), as_dtype(self.dtype))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        intervals = max(int(self.size) - self.endpoint, 1)
        step = (float(self.stop) - float(self.start)) / intervals
        values = xp.arange(self.size, dtype=float64) * step + float(self.start)
        if self.endpoint and self.size > 1:
            values[-1] = self.stop
        return round_from_double(xp, values, as_dtype(self.dtype))

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        (i,) = index
        span = float(self.stop) - float(self.start)
        intervals = self.size - self.endpoint
        if isinstance(intervals, Size):
            step = emit.constant(span, float64) / emit.constant(intervals, float64)
        else:
            step = emit.constant(span / max(intervals, 1), float64)
        value = emit.cast(emit.index(i), float64) * step + float(self.start)
        if self.endpoint and (isinstance(self.size, Size) or self.size > 1):
            last = emit.compare("eq", emit.index(i), emit.index(self.size - 1))
            value = emit.select(last, float(self.stop), value)
        return emit.cast(value, out.dtype)


class Eye(Source):
    """A matrix with ones on one diagonal, else zeros.

    rows, cols: sizes. k: the diagonal, 0 the main one, above it when positive.

    >>> graphnn.eye(2).numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    name = "eye"
    gradient = NO_INPUTS
    samples = (
        Sample((), {"rows": 3, "cols": 3, "dtype": "float32"}),
        Sample((), {"rows": 2, "cols": 4, "k": 1, "dtype": "int32"}),
        Sample((), {"rows": 3, "cols": 2, "k": -2, "dtype": "bool"}),
        Sample((), {"rows": 0, "cols": 2, "dtype": "float64"}),
    )
    rows: Any
    cols: Any
    k: int = 0
    dtype: str = "float32"

    def infer(self, *types: TensorType) -> TensorType:
        check_extent(self.rows, "rows", self.name)
        check_extent(self.cols, "cols", self.name)
        return TensorType((self.rows, self.cols), as_dtype(self.dtype))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return xp.eye(self.rows, self.cols, self.k, dtype=xp.bool_).astype(as_dtype(self.dtype))

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        row, col = index
        hit = emit.compare("eq", emit.index(col), emit.index(row + self.k))
        return emit.cast(hit, out.dtype)
