"""Running reductions along an axis: cumsum, cumprod."""

from __future__ import annotations

from typing import Any, ClassVar

from graphnn.compiler.ir.types import ALL, DType, TensorType, describe
from graphnn.compiler.ops.arrays import quiet
from graphnn.compiler.ops.base import Op, Sample, neutral, normalize_axis
from graphnn.compiler.ops.reduce import compute_type, wide_integer
from graphnn.runtime.errors import ShapeError


class Scan(Op):
    """Template of running reductions along an axis.

    axis: the axis. exclusive: element i leaves out input i (the first result is the neutral
    element). reverse: runs from the end. `monoid` is the scalar operation; the code generator
    runs one accumulator of the result's (compute) dtype along the axis.
    """

    fusion = "scan"
    accepts = ALL
    monoid: ClassVar[str]
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        axis = normalize_axis(self.axis, x.ndim, self.name)
        if x.ndim == 0:
            raise ShapeError(
                self.name,
                received=describe(x.dtype, x.shape),
                expected=f"a tensor with an axis {axis}",
                fix="reshape it to at least one axis",
            )
        return x.with_dtype(self.result_dtype(x.dtype))

    def result_dtype(self, dtype: DType) -> DType:
        """Dtype of the result."""
        return wide_integer(dtype)

    def initial(self, dtype: DType) -> Any:
        """The neutral element."""
        return neutral(self.monoid, dtype)

    def eager(self, xp: Any, x: Any) -> Any:
        axis = normalize_axis(self.axis, x.ndim, self.name)
        dtype = wide_integer(x.dtype)
        source = xp.flip(x, axis) if self.reverse else x
        run = xp.cumsum if self.monoid == "add" else xp.cumprod
        out = quiet(run, source, axis=axis, dtype=compute_type(dtype)).astype(dtype)
        if self.exclusive and x.shape[axis]:
            first: list[Any] = [slice(None)] * x.ndim
            rest, start = list(first), list(first)
            first[axis], rest[axis], start[axis] = slice(0, -1), slice(1, None), slice(0, 1)
            shifted = xp.empty_like(out)
            shifted[tuple(rest)] = out[tuple(first)]
            shifted[tuple(start)] = self.initial(dtype)
            out = shifted
        return xp.flip(out, axis) if self.reverse else out


class CumSum(Scan):
    """Running sum along an axis. Dtypes as in `sum`.

    exclusive: element i is the sum before it. reverse: summed from the end.

    >>> graphnn.cumsum([1.0, 2.0, 3.0]).numpy().tolist()
    [1.0, 3.0, 6.0]
    """

    name, monoid = "cumsum", "add"
    samples = (
        Sample((("f", (3, 4)),), {"axis": 1}),
        Sample((("f", (3, 2)),), {"axis": 0, "exclusive": True, "reverse": True}),
        Sample((("f", (3, 1)),), {"axis": -2, "exclusive": True}),
        Sample((("i", (4,)),), {"axis": 0, "reverse": True}),
        Sample((("b", (4,)),), {"axis": 0}),
        Sample((("f", (0, 2)),), {"axis": 0, "exclusive": True}),
    )

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        turned = {"exclusive": self.exclusive, "reverse": not self.reverse}
        return (ops.cumsum(g, axis=self.axis, **turned),)


class CumProd(Scan):
    """Running product along an axis. Dtypes as in `sum`.

    exclusive: element i is the product before it. reverse: multiplied from the end. The gradient
    is right where elements are 0; the second one only where there is no 0.

    >>> graphnn.cumprod([1.0, 2.0, 3.0]).numpy().tolist()
    [1.0, 2.0, 6.0]
    """

    name, monoid = "cumprod", "mul"
    samples = (
        Sample((("f", (3, 4)),), {"axis": 1}),
        Sample((("f", (3, 2)),), {"axis": 0, "exclusive": True, "reverse": True}),
        Sample((("f", (3, 1)),), {"axis": -2, "exclusive": True}),
        Sample((("i", (4,)),), {"axis": 0, "reverse": True}),
        Sample((("f", (2, 0)),), {"axis": 1, "exclusive": True}),
    )

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        """With S_i = sum of g_j out_j over j at or after i, the gradient before the first zero is
        S_i / x_i, at that zero it is S_i with the zero left out of the products, after it 0.
        """
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        along = {"axis": axis, "reverse": self.reverse}
        if self.exclusive:
            g = self._unshift(ops, g, axis)
            out = ops.cumprod(x, **along)
        zero = ops.equal(x, 0)
        zeros = ops.cumsum(ops.cast(zero, dtype="int32"), **along)
        first = ops.logical_and(zero, ops.equal(zeros, 1))
        without = ops.cumprod(ops.where(first, 1, x), **along)
        back = {"axis": axis, "reverse": not self.reverse}
        sums = ops.cumsum(ops.multiply(g, out), **back)
        sums_without = ops.cumsum(ops.multiply(g, without), **back)
        before = ops.divide(sums, ops.where(zero, 1, x))
        clear = ops.where(ops.equal(zeros, 0), before, ops.zeros_like(x))
        return (ops.where(first, sums_without, clear),)

    def _unshift(self, ops: Any, g: Any, axis: int) -> Any:
        """The gradient of the inclusive product from that of the exclusive one."""
        shape = tuple(g.shape)
        if isinstance(shape[axis], int) and shape[axis] == 0:
            return g
        ndim = len(shape)
        kept = tuple(n - 1 if a == axis else n for a, n in enumerate(shape))
        starts = tuple(1 if a == axis and not self.reverse else 0 for a in range(ndim))
        part = ops.slice(g, starts=starts, steps=(1,) * ndim, shape=kept)
        edge = tuple(int(a == axis) for a in range(ndim))
        none = (0,) * ndim
        low, high = (edge, none) if self.reverse else (none, edge)
        return ops.pad(part, low=low, high=high)
