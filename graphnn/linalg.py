"""Products, norms and diagonals of vectors and matrices, under the names of both conventions."""

from graphnn.ops.creation import eye
from graphnn.ops.linalg import (
    diag,
    diagonal,
    einsum,
    matmul,
    matrix_transpose,
    matvec,
    norm,
    outer,
    tensordot,
    trace,
    vecdot,
)
from graphnn.tf_names import global_norm

diag_part = tensor_diag_part = diagonal
tensor_diag = diag

__all__ = [
    "diag",
    "diag_part",
    "diagonal",
    "einsum",
    "eye",
    "global_norm",
    "matmul",
    "matrix_transpose",
    "matvec",
    "norm",
    "outer",
    "tensor_diag",
    "tensor_diag_part",
    "tensordot",
    "trace",
    "vecdot",
]
