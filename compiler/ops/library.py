"""What an op may ask of a library instead of a loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.types import DType


@dataclass(frozen=True)
class Gemm:
    """out[t] = op(a[t]) @ op(b[t]) for each t of a batch; row-major, op may transpose.

    batch: sizes of the batch axes; a_batch, b_batch: the inputs' own, where 1 stretches.
    """

    dtype: DType
    m: Any
    n: Any
    k: Any
    transpose_a: bool
    transpose_b: bool
    batch: tuple[Any, ...]
    a_batch: tuple[Any, ...]
    b_batch: tuple[Any, ...]
