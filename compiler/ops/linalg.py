"""Products of matrices, done by the BLAS library."""

from __future__ import annotations

from math import prod
from typing import Any

from graphnn.compiler.ir.types import (
    NUMBERS,
    TensorType,
    bfloat16,
    broadcast,
    describe,
    float16,
    float32,
    float64,
)
from graphnn.compiler.ops.arrays import quiet
from graphnn.compiler.ops.base import Op, Sample
from graphnn.compiler.ops.library import Gemm
from graphnn.compiler.ops.shape import PermuteDims, normalize_axes
from graphnn.runtime.errors import DTypeError, ShapeError


class MatMul(Op):
    """Product of matrices, or of stacks of matrices whose leading axes broadcast.

    a: (..., m, k), b: (..., k, n), of one dtype. transpose_a, transpose_b: the last two axes of
    that input are swapped first, without a copy. Returns: (..., m, n). 16-bit floats are
    multiplied and added in float32 and rounded once. Raises ShapeError when the inner sizes differ.

    >>> graphnn.matmul([[1.0, 2.0]], [[3.0], [4.0]]).numpy().tolist()
    [[11.0]]
    """

    name, accepts, promotes, fusion = "matmul", NUMBERS, "common", "library"
    samples = (
        Sample((("f", (3, 4)), ("f", (4, 2)))),
        Sample((("f", (4, 3)), ("f", (2, 4))), {"transpose_a": True, "transpose_b": True}),
        Sample((("f", (2, 3, 4)), ("f", (4, 2)))),
        Sample((("f", (2, 1, 3, 4)), ("f", (3, 2, 4))), {"transpose_b": True}),
        Sample((("f", (4, 3)), ("f", (2, 4, 2))), {"transpose_a": True}),
        Sample((("i", (1, 3)), ("i", (3, 1)))),
        Sample((("f", (2, 0)), ("f", (0, 3)))),
    )
    transpose_a: bool = False
    transpose_b: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        a, b = types
        if a.dtype != b.dtype:
            raise DTypeError(
                self.name,
                received=f"{describe(a.dtype, a.shape)} and {describe(b.dtype, b.shape)}",
                expected="inputs of one dtype",
                fix="cast one of them",
            )
        if a.ndim < 2 or b.ndim < 2:
            raise self._mismatch(a, b, "at least 2 axes each", "add an axis with expand_dims")
        m, inner = (a.shape[-1], a.shape[-2]) if self.transpose_a else a.shape[-2:]
        other, n = (b.shape[-1], b.shape[-2]) if self.transpose_b else b.shape[-2:]
        if inner != other:
            names = f"a.shape[{-2 if self.transpose_a else -1}] == "
            names += f"b.shape[{-1 if self.transpose_b else -2}]"
            raise self._mismatch(
                a, b, f"{names}; got {inner} and {other}", "transpose or reshape one of them"
            )
        batch = broadcast((a.shape[:-2], b.shape[:-2]), self.name)
        return TensorType((*batch, m, n), a.dtype)

    def _mismatch(self, a: TensorType, b: TensorType, expected: str, fix: str) -> ShapeError:
        received = f"a {describe(a.dtype, a.shape)}, b {describe(b.dtype, b.shape)}"
        return ShapeError(self.name, received=received, expected=expected, fix=fix)

    def eager(self, xp: Any, a: Any, b: Any) -> Any:
        dtype = a.dtype
        if dtype in (float16, bfloat16):
            a, b = a.astype("float32"), b.astype("float32")
        a = a.swapaxes(-1, -2) if self.transpose_a else a
        b = b.swapaxes(-1, -2) if self.transpose_b else b
        if self._has_one_matrix(a, b):
            rows = a.reshape(prod(a.shape[:-1]), a.shape[-1])
            out = quiet(xp.matmul, rows, b).reshape((*a.shape[:-1], b.shape[-1]))
        else:
            out = quiet(xp.matmul, a, b)
        return out if out.dtype == dtype else out.astype(dtype)

    def library(self, target: str, a: TensorType, b: TensorType) -> Gemm | None:
        """The call that the target's library can do; None for dtypes that it lacks."""
        short = (float16, bfloat16) if target == "cuda" else ()
        if a.dtype not in (float32, float64, *short):
            return None
        m, k = (a.shape[-1], a.shape[-2]) if self.transpose_a else a.shape[-2:]
        n = b.shape[-2] if self.transpose_b else b.shape[-1]
        out = self.infer(a, b)
        batches = (out.shape[:-2], a.shape[:-2], b.shape[:-2])
        return Gemm(a.dtype, m, n, k, self.transpose_a, self.transpose_b, *batches)

    def fold(self, ops: Any, a: Any, b: Any) -> Any:
        """A transposition of the last two axes becomes the product's own; with one right matrix
        for a whole stack the stack is one tall matrix."""
        new_a, new_b = _swapped(a), _swapped(b)
        if new_a is None and new_b is None:
            return self._flattened(ops, a, b) if self._has_one_matrix(a, b) else None
        return ops.matmul(
            a if new_a is None else new_a,
            b if new_b is None else new_b,
            transpose_a=self.transpose_a != (new_a is not None),
            transpose_b=self.transpose_b != (new_b is not None),
        )

    def _has_one_matrix(self, a: Any, b: Any) -> bool:
        return len(b.shape) == 2 and len(a.shape) > 2 and not self.transpose_a

    def _flattened(self, ops: Any, a: Any, b: Any) -> Any:
        out = ops.matmul(_as_matrix(ops, a), b, transpose_b=self.transpose_b)
        return ops.reshape(out, shape=(*a.shape[:-1], out.shape[-1]))

    def grad(self, ops: Any, a: Any, b: Any, *, out: Any, g: Any) -> Any:
        return self._grad_a(ops, b, g), self._grad_b(ops, a, b, g)

    def _grad_a(self, ops: Any, b: Any, g: Any) -> Any:
        if self.transpose_a:
            return ops.matmul(b, g, transpose_a=self.transpose_b, transpose_b=True)
        return ops.matmul(g, b, transpose_b=not self.transpose_b)

    def _grad_b(self, ops: Any, a: Any, b: Any, g: Any) -> Any:
        if self._has_one_matrix(a, b):
            a, g = _as_matrix(ops, a), _as_matrix(ops, g)  # one product instead of one per batch
        if self.transpose_b:
            return ops.matmul(g, a, transpose_a=True, transpose_b=self.transpose_a)
        return ops.matmul(a, g, transpose_a=not self.transpose_a)


def _swapped(node: Any) -> Any:
    """What a node is the transposition of, in its last two axes, or None."""
    if not isinstance(node.op, PermuteDims):
        return None
    ndim = len(node.shape)
    axes = normalize_axes(node.op.axes, ndim, node.op.name)
    return node.inputs[0] if axes == (*range(ndim - 2), ndim - 1, ndim - 2) else None


def _as_matrix(ops: Any, x: Any) -> Any:
    """All axes but the last made one."""
    rows: Any = 1
    for extent in x.shape[:-1]:
        rows = rows * extent
    return ops.reshape(x, shape=(rows, x.shape[-1]))
