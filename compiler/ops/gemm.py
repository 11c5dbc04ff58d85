"""The product of matrices as a library on a device does it: strided, with work on its result."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.types import (
    FLOATS,
    TensorType,
    as_dtype,
    bfloat16,
    describe,
    float16,
    float32,
    float64,
)
from graphnn.compiler.ops.base import NoGradient, Op, Sample
from graphnn.runtime.errors import ShapeError

MASK_BITS = 128  # what the rows of kept bits are padded to a multiple of
SHORT = (float16, bfloat16)
GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi); of the formula by tanh
Layout = tuple[Any, tuple[Any, ...], Any, Any]


def dense(rows: Any, cols: Any, transposed: bool = False) -> Layout:
    """The layout of one row-major matrix; transposed: it is stored as cols x rows."""
    return (0, (), 1, rows) if transposed else (0, (), cols, 1)


_SAMPLE: dict[str, Any] = {
    "m": 3, "n": 2, "k": 4, "a": dense(3, 4), "b": dense(4, 2), "c": dense(3, 2), "shape": (3, 2),
}  # fmt: skip


def mask_bytes(n: Any) -> Any:
    """Bytes of the kept bits of one row."""
    return (n + MASK_BITS - 1) // MASK_BITS * (MASK_BITS // 8)


def merged(axes: list[tuple[Any, tuple[Any, ...]]]) -> list[tuple[Any, tuple[Any, ...]]]:
    """Axes (size, strides) of a batch with those made one whose strides follow from one another.

    >>> merged([(2, (12, 0)), (3, (4, 0)), (1, (7, 7))])
    [(6, (4, 0))]
    """
    found: list[tuple[Any, tuple[Any, ...]]] = []
    for size, strides in axes:
        if size == 1:
            continue
        if found and all(a == b * size for a, b in zip(found[-1][1], strides, strict=True)):
            found[-1] = (found[-1][0] * size, strides)
        else:
            found.append((size, strides))
    return found


class Gemm(Op):
    """c[t] = a[t] @ b[t] for each t of a batch, where a and b are matrices inside of tensors.

    m, n, k, batch: sizes. a, b, c: layouts (offset, strides of the batch axes, of rows, of columns)
    in elements of the tensors; c has columns side by side. shape, dtype: the type of c,
    by default the dtype of a and b; float32 from 16-bit floats is the only other one.
    Inputs: a, b, then `bias` (n,), `residual` of the type of c, and what was kept for a `slope`.
    c = activation(a @ b + bias + residual) with activation "relu", "gelu" (by tanh) or "", times
    the derivative of `slope`. Results: c; with `keeps` also what the gradient of the activation
    needs: bits of where it is positive (m, bytes), or the values before gelu; with `sums`
    ("a", "b", "c") the sums over the rows of that matrix, as it is stored.
    16-bit floats are multiplied and added in float32. tf32: whether a device may cut float32 inputs
    to 10 bits. Made by `passes.libraries`; raises ShapeError for inputs that do not fit.
    """

    name, accepts, fusion = "gemm", FLOATS, "library"
    gradient: ClassVar[NoGradient] = NoGradient("it is made after gradients are written out")
    samples = (
        Sample((("f", (3, 4)), ("f", (4, 2))), _SAMPLE),
        Sample((("f", (3, 4)), ("f", (4, 2)), ("f", (3, 2))), {**_SAMPLE, "residual": True}),
    )
    m: Any
    n: Any
    k: Any
    a: Layout
    b: Layout
    c: Layout
    shape: tuple[Any, ...]
    dtype: str = ""
    batch: tuple[Any, ...] = ()
    bias: bool = False
    residual: bool = False
    activation: str = ""
    keeps: bool = False
    slope: str = ""
    sums: str = ""
    tf32: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it multiplies and does nothing else."""
        others = (self.activation, self.slope, self.sums, self.keeps)
        return not (self.bias or self.residual or any(others))

    @property
    def words(self) -> str:
        """What it does, for the dump."""
        batch = f"{'x'.join(map(str, self.batch))} times " if self.batch else ""
        parts = [f"{batch}{self.m}x{self.k} @ {self.k}x{self.n}"]
        parts += [w for w in ("bias", "residual") if getattr(self, w)]
        parts += [self.activation] * bool(self.activation) + ["kept"] * self.keeps
        parts += [f"slope of {self.slope}"] * bool(self.slope)
        return ", ".join(parts + [f"sums of {self.sums}"] * bool(self.sums))

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        self.check_dtypes(types[:2])
        out = TensorType(self.shape, as_dtype(self.dtype or types[0].dtype.name))
        wanted = 2 + self.bias + self.residual + bool(self.slope)
        added = types[2 : 2 + self.bias + self.residual]
        fits = len(types) == wanted and types[0].dtype == types[1].dtype
        short = types[0].dtype in SHORT
        same_kind = out.dtype == types[0].dtype or (short and out.dtype == float32)
        if not (fits and same_kind and all(t.dtype == out.dtype for t in added)):
            raise ShapeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected=f"{wanted} inputs, a and b of one dtype, the others like the result",
                fix="leave it to passes.libraries to make this op",
            )
        results = [out]
        if self.keeps:
            results.append(self._kept_type(out))
        if self.sums:
            results.append(TensorType((self.n if self.sums != "a" else self.m,), out.dtype))
        return tuple(results) if len(results) > 1 else out

    def _kept_type(self, out: TensorType) -> TensorType:
        if self.activation == "relu":
            return TensorType((self.m, mask_bytes(self.n)), as_dtype("uint8"))
        return TensorType((self.m, self.n), out.dtype)

    # ---- the reference -----------------------------------------------------------------------

    def eager(self, xp: Any, a: Any, b: Any, *rest: Any) -> Any:
        others = list(rest)
        left, right = (
            self._matrices(a, self.a, self.m, self.k),
            self._matrices(b, self.b, self.k, self.n),
        )
        with np.errstate(all="ignore"):
            value = _wide(left) @ _wide(right)
            if self.bias:
                value = value + _wide(others.pop(0))
            if self.residual:
                value = value + self._matrices(_wide(others.pop(0)), self.c, self.m, self.n)
            kept = self._kept(value) if self.keeps else None
            value = _activated(self.activation, value)
            if self.slope:
                value = value * self._slope(others.pop(0))
        dtype = as_dtype(self.dtype or a.dtype.name)
        out = np.empty(self.shape, dtype)
        self._matrices(out, self.c, self.m, self.n)[...] = value.astype(dtype)
        results = [out] if kept is None else [out, kept.astype(self._kept_type_of(dtype))]
        if self.sums:
            source = {"a": _wide(left).sum(-1), "b": _wide(right).sum(-2)}
            total = source[self.sums] if self.sums != "c" else value.sum(-2)
            results.append(total.astype(dtype))
        return tuple(results) if len(results) > 1 else out

    def _kept_type_of(self, dtype: Any) -> Any:
        return np.uint8 if self.activation == "relu" else dtype

    def _kept(self, value: Any) -> Any:
        if self.activation != "relu":
            return value
        bits = np.packbits(value > 0, axis=-1, bitorder="little")
        return np.pad(bits, ((0, 0), (0, int(mask_bytes(self.n)) - bits.shape[-1])))

    def _slope(self, kept: Any) -> Any:
        if self.slope == "relu":
            return np.unpackbits(kept, axis=-1, bitorder="little")[:, : self.n].astype(np.float32)
        x = _wide(kept).reshape(self.m, self.n)
        t = np.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3))
        inner = GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x)
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner

    def _matrices(self, array: Any, layout: Layout, rows: Any, cols: Any) -> Any:
        """The stack of matrices inside an array, as a view."""
        flat = np.ascontiguousarray(array).reshape(-1) if not array.flags.c_contiguous else array
        offset, batch, row, col = layout
        strides = tuple(s * array.itemsize for s in (*batch, row, col))
        shape = (*self.batch, rows, cols)
        if not prod(shape):
            return np.empty(shape, array.dtype)
        return np.lib.stride_tricks.as_strided(flat.reshape(-1)[offset:], shape, strides)


def _wide(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype in SHORT else array


def _activated(word: str, x: Any) -> Any:
    if word == "relu":
        return np.maximum(x, 0)
    if word == "gelu":
        return 0.5 * x * (1 + np.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3)))
    return x


def epilogue_dtypes() -> tuple[Any, ...]:
    """Dtypes whose products may have more than a sum."""
    return tuple(d for d in FLOATS if d != float64)
