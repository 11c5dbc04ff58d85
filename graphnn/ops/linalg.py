"""Products of vectors, matrices and tensors."""

from __future__ import annotations

from typing import Any

from graphnn.apply import TENSOR_OPS, apply, promoted, type_of
from graphnn.compiler.ops import contract
from graphnn.compiler.ops.linalg import MatMul
from graphnn.ops.manipulation import matrix_transpose
from graphnn.ops.public import plain, ready
from graphnn.ops.reduction import norm
from graphnn.sizes import integer
from graphnn.tensor import Operand, Tensor

__all__ = [
    "diag",
    "diagonal",
    "dot",
    "einsum",
    "matmul",
    "matrix_transpose",
    "matvec",
    "norm",
    "outer",
    "tensordot",
    "trace",
    "vecdot",
]


_PRODUCTS = {
    (a, b): MatMul(transpose_a=a, transpose_b=b) for a in (False, True) for b in (False, True)
}


def _pair(a: Any, b: Any) -> tuple[Tensor, ...]:
    tensors = promoted((a, b), "common")
    if tensors[0].dtype not in MatMul.accepts:
        plain(MatMul).check_dtypes([type_of(t) for t in tensors])
    return tensors


def matmul(
    a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, name: Any = None
) -> Tensor:
    """Product of matrices, or of stacks of matrices whose leading axes broadcast.

    a: (..., m, k) or (k,). b: (..., k, n) or (k,). A vector counts as a row on the left, as a
    column on the right, and that axis is dropped from the result. transpose_a, transpose_b: swap
    the last two axes of that input first, without a copy. Raises ShapeError when the inner sizes
    differ, DTypeError for bools.

    >>> graphnn.matmul([[1.0, 2.0]], [[3.0], [4.0]])
    Tensor([[11.]], shape=(1, 1), dtype=float32)
    """
    op = _PRODUCTS[bool(transpose_a), bool(transpose_b)]
    x, y = ready(op, (a, b)) or _pair(a, b)
    if transpose_a or transpose_b or (x.ndim >= 2 and y.ndim >= 2):
        return apply(op, x, y)  # type: ignore[no-any-return]
    return contract.matmul(TENSOR_OPS, x, y)  # type: ignore[no-any-return]


def matvec(a: Any, b: Any, transpose_a: bool = False) -> Tensor:
    """Product of matrices and vectors: (..., m, k) and (..., k) give (..., m).

    >>> graphnn.linalg.matvec([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).numpy()
    array([3., 7.], dtype=float32)
    """
    x, y = _pair(a, b)
    column = TENSOR_OPS.expand_dims(y, axes=(y.ndim,))
    return TENSOR_OPS.squeeze(matmul(x, column, transpose_a=transpose_a), axes=(-1,))  # type: ignore[no-any-return]


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """Sum of products over pairs of axes.

    axes: a count n (the last n axes of a with the first n of b), or two sequences of axes.
    Returns: the other axes of a, then those of b. Raises ArgumentError and ShapeError.

    >>> graphnn.tensordot([[1.0, 2.0]], [[3.0], [4.0]], axes=1)
    Tensor([[11.]], shape=(1, 1), dtype=float32)
    """
    x, y = _pair(a, b)
    return contract.tensordot(TENSOR_OPS, x, y, _axes(axes))  # type: ignore[no-any-return]


def _axes(axes: Any) -> Any:
    if isinstance(axes, Operand):
        axes = axes.tolist()
    if isinstance(axes, list | tuple):
        return tuple((s,) if isinstance(s, int) else tuple(s) for s in axes)
    return integer(axes, "axes of tensordot")


def dot(a: Any, b: Any) -> Tensor:
    """NumPy's dot: a product with a number, of vectors, or over a's last and b's last but one axis.

    >>> graphnn.dot([1.0, 2.0], [3.0, 4.0])
    Tensor(11.0, shape=(), dtype=float32)
    """
    x, y = _pair(a, b)
    if not x.ndim or not y.ndim:
        return x * y
    return tensordot(x, y, ((-1,), (-1 if y.ndim == 1 else -2,)))


def outer(a: Any, b: Any) -> Tensor:
    """All products of two vectors: (m,) and (n,) give (m, n).

    >>> graphnn.outer([1.0, 2.0], [3.0, 4.0]).numpy().tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """
    return tensordot(a, b, axes=0)


def vecdot(a: Any, b: Any, /, *, axis: int = -1) -> Tensor:
    """Sum of products along one axis, with broadcasting over the others.

    >>> graphnn.vecdot([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).numpy()
    array([3., 7.], dtype=float32)
    """
    x, y = _pair(a, b)
    product = x * y
    place = axis % product.ndim if product.ndim else 0
    return TENSOR_OPS.sum(product, axes=(place,))  # type: ignore[no-any-return]


def einsum(equation: str, *inputs: Any, optimize: Any = None) -> Tensor:
    """Sums of products over named axes, e.g. "ij,jk->ik"; "..." stands for further axes.

    The operands are contracted in pairs, the cheapest first. Raises ArgumentError for a wrong
    equation, ShapeError for sizes that differ.

    >>> graphnn.einsum("ij,ij->i", [[1.0, 2.0]], [[3.0, 4.0]])
    Tensor([11.], shape=(1,), dtype=float32)
    """
    return contract.einsum(TENSOR_OPS, equation, *promoted(inputs, "common"))  # type: ignore[no-any-return]


def diagonal(x: Any, offset: int = 0) -> Tensor:
    """A diagonal of the last two axes, as the last axis; offset: above the main one if positive.

    >>> graphnn.diagonal([[1, 2], [3, 4]]).numpy()
    array([1, 4], dtype=int32)
    """
    (x,) = promoted((x,), "common")
    return TENSOR_OPS.diagonal(x, offset=integer(offset, "offset of diagonal"))  # type: ignore[no-any-return]


def diag(x: Any, k: int = 0) -> Tensor:
    """Matrices with the last axis on a diagonal, else 0.

    >>> graphnn.diag([1, 2]).numpy().tolist()
    [[1, 0], [0, 2]]
    """
    (x,) = promoted((x,), "common")
    k = int(integer(k, "k of diag"))
    size = x.shape[-1] + abs(k) if x.ndim else 0
    return TENSOR_OPS.diagonal_embed(x, offset=k, rows=size, cols=size)  # type: ignore[no-any-return]


def trace(x: Any, offset: int = 0) -> Tensor:
    """Sum of a diagonal of the last two axes.

    >>> graphnn.linalg.trace([[1.0, 2.0], [3.0, 4.0]])
    Tensor(5.0, shape=(), dtype=float32)
    """
    return TENSOR_OPS.sum(diagonal(x, offset), axes=(-1,))  # type: ignore[no-any-return]
