"""Triangles and diagonals of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import ALL, NUMBERS, TensorType, describe
from graphnn.compiler.ops.base import Load, Move, Sample
from graphnn.runtime.errors import ShapeError


class Triangle(Move):
    """Template of tril and triu: the elements on one side of a diagonal, else 0."""

    accepts, fusion = ALL, "map"  # "map": where it is 0 it is not its input
    k: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if x.ndim < 2:
            raise ShapeError(
                self.name,
                received=describe(x.dtype, x.shape),
                expected="at least 2 axes",
                fix="give a matrix or a stack of matrices",
            )
        return x

    def eager(self, xp: Any, x: Any) -> Any:
        return getattr(xp, self.name)(x, self.k)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (getattr(ops, self.name)(g, k=self.k),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        row, col = index[-2:]
        side = "le" if self.name == "tril" else "ge"
        kept = emit.compare(side, emit.index(col), emit.index(row + self.k))
        return emit.select(kept, loads[0](index), 0)


class Tril(Triangle):
    """The lower triangle of the last two axes: elements with column <= row + k.

    >>> graphnn.tril([[1, 2], [3, 4]]).numpy().tolist()
    [[1, 0], [3, 4]]
    """

    name = "tril"
    samples = (
        Sample((("f", (3, 3)),)),
        Sample((("f", (2, 2, 4)),), {"k": 1}),
        Sample((("i", (0, 3)),), {"k": -1}),
        Sample((("b", (3, 2)),), {"k": -1}),
    )


class Triu(Triangle):
    """The upper triangle of the last two axes: elements with column >= row + k.

    >>> graphnn.triu([[1, 2], [3, 4]]).numpy().tolist()
    [[1, 2], [0, 4]]
    """

    name = "triu"
    samples = (Sample((("f", (3, 3)),)), Sample((("i", (4, 2)),), {"k": -1}))


class Diagonal(Move):
    """A diagonal of the last two axes, as the last axis.

    offset: 0 the main diagonal, above it when positive.

    >>> graphnn.diagonal([[1, 2], [3, 4]]).numpy().tolist()
    [1, 4]
    """

    name = "diagonal"
    samples = (
        Sample((("f", (3, 3)),)),
        Sample((("f", (2, 3, 4)),), {"offset": 1}),
        Sample((("i", (3, 2)),), {"offset": -2}),
        Sample((("b", (2, 2)),), {"offset": 5}),
    )
    offset: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if x.ndim < 2:
            raise ShapeError(
                self.name,
                received=describe(x.dtype, x.shape),
                expected="at least 2 axes",
                fix="give a matrix or a stack of matrices",
            )
        *batch, rows, cols = x.shape
        return x.with_shape((*batch, self._length(rows, cols)))

    def _length(self, rows: Any, cols: Any) -> Any:
        rows, cols = rows - max(0, -self.offset), cols - max(0, self.offset)
        if rows == cols:
            return rows
        if isinstance(rows, Size) or isinstance(cols, Size):
            raise ShapeError(
                self.name,
                received=f"a matrix with {rows} and {cols} places along the diagonal",
                expected="a length that is known while tracing",
                fix="give both axes fixed sizes in input_signature, or the same symbol",
            )
        return max(0, min(rows, cols))

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.diagonal(x, self.offset, -2, -1)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        rows, cols = tuple(x.shape)[-2:]
        return (ops.diagonal_embed(g, offset=self.offset, rows=rows, cols=cols),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        *batch, i = index
        return loads[0]((*batch, i + max(0, -self.offset), i + max(0, self.offset)))


class DiagonalEmbed(Move):
    """Matrices with the last axis on a diagonal, else 0: the inverse of `diagonal`.

    rows, cols: sizes of the matrices; the diagonal must be as long as the input's last axis.

    >>> graphnn.diag([1, 2]).numpy().tolist()
    [[1, 0], [0, 2]]
    """

    name, accepts = "diagonal_embed", NUMBERS
    samples = (
        Sample((("f", (3,)),), {"offset": 0, "rows": 3, "cols": 3}),
        Sample((("f", (2, 2)),), {"offset": -1, "rows": 3, "cols": 4}),
    )
    offset: int
    rows: Any
    cols: Any

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        self.check_dtypes(types)
        result = x.with_shape((*x.shape[:-1], self.rows, self.cols))
        if x.ndim < 1 or Diagonal(offset=self.offset).infer(result).shape != x.shape:
            raise ShapeError(
                self.name,
                received=f"{describe(x.dtype, x.shape)} for diagonal {self.offset} of "
                f"({self.rows}, {self.cols}) matrices",
                expected="a last axis as long as the diagonal",
                fix="change rows and cols",
            )
        return result

    def eager(self, xp: Any, x: Any) -> Any:
        out = xp.zeros((*x.shape[:-1], self.rows, self.cols), x.dtype)
        along = xp.arange(x.shape[-1])
        out[..., along + max(0, -self.offset), along + max(0, self.offset)] = x
        return out

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.diagonal(g, offset=self.offset),)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        *batch, row, col = index
        on = emit.compare("eq", emit.index(col), emit.index(row + self.offset))
        near, load = row - max(0, -self.offset), loads[0]
        inside = emit.bitwise("and", on, emit.within(near, 0, load.shape[-1]))
        return emit.guarded(inside, lambda: load((*batch, near)), 0)
