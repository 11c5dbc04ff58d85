"""Reductions and scans: sum, prod, max, min, any, all, mean, var, std, argmax, cumsum, cumprod."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import (
    ALL,
    NUMBERS,
    SIGNED,
    UNSIGNED,
    DType,
    TensorType,
    bfloat16,
    bool_,
    describe,
    float16,
    float32,
    int64,
    is_float,
    uint64,
)
from graphnn.compiler.ops.arrays import quiet
from graphnn.compiler.ops.base import (
    Composite,
    NoGradient,
    Reduce,
    Sample,
    element_count,
    normalize_axis,
    reduced_shape,
)
from graphnn.compiler.ops.shape import PermuteDims, normalize_axes
from graphnn.runtime.errors import ShapeError


def wide_integer(dtype: DType) -> DType:
    """Dtype in which integers are added up: int64 or uint64, as in the array API standard."""
    if dtype in SIGNED or dtype == bool_:
        return int64
    return uint64 if dtype in UNSIGNED else dtype


def compute_type(dtype: DType) -> DType:
    """Dtype in which NumPy should accumulate: 16-bit floats would round after each element."""
    return float32 if dtype in (float16, bfloat16) else dtype


def positive_axes(axes: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Non-negative axes."""
    return tuple(a % ndim if ndim else 0 for a in axes)


def expand_reduced(ops: Any, value: Any, x: Any, axes: Sequence[int], keepdims: bool) -> Any:
    """A reduced value with its reduced axes back as axes of size 1."""
    if keepdims:
        return value
    shape = tuple(x.shape)
    axes = positive_axes(axes, len(shape))
    return ops.reshape(value, shape=reduced_shape(shape, axes, True)) if axes else value


class AxisReduce(Reduce):
    """Template of the reductions here: over axes of size 1 they only drop them, and they reduce
    what lies under a transposition, in the order in which it is stored."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def fold(self, ops: Any, x: Any) -> Any:
        axes = positive_axes(self.axes, len(x.shape))
        if all(x.shape[a] == 1 for a in axes) and self.result_dtype(x.dtype) == x.dtype:
            return ops.reshape(x, shape=reduced_shape(x.shape, axes, self.keepdims))
        return self._under(ops, x, axes) if isinstance(x.op, PermuteDims) else None

    def _under(self, ops: Any, x: Any, axes: tuple[int, ...]) -> Any:
        """The reduction of what x is a transposition of, transposed after it."""
        order = normalize_axes(x.op.axes, len(x.shape), x.op.name)
        inner = tuple(sorted(order[a] for a in axes))
        out = getattr(ops, self.name)(x.inputs[0], axes=inner, keepdims=self.keepdims)
        left = order if self.keepdims else tuple(a for a in order if a not in inner)
        ranks = tuple(sorted(left).index(a) for a in left)
        return out if ranks == tuple(range(len(ranks))) else ops.permute_dims(out, axes=ranks)


class Sum(AxisReduce):
    """Sum over axes.

    axes: the axes, () for none. keepdims: whether they stay with size 1. Returns: the dtype of x;
    int64 (bool and signed) or uint64 for integers. Empty axes give 0.

    >>> graphnn.sum([1.0, 2.0, 3.0]).numpy().item()
    6.0
    """

    name, monoid, accepts = "sum", "add", ALL
    samples = (
        Sample((("f", (3, 4)),), {"axes": (0,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (0, -1), "keepdims": True}),
        Sample((("f", ()),), {"axes": ()}),
        Sample((("i", (3, 2)),), {"axes": (0, 1)}),
        Sample((("b", (5,)),), {"axes": (0,)}),
        Sample((("f", (0, 3)),), {"axes": (0,)}),
        Sample((("f", (1, 3)),), {"axes": (0,)}),
    )

    def result_dtype(self, dtype: DType) -> DType:
        return wide_integer(dtype)

    def eager(self, xp: Any, x: Any) -> Any:
        dtype = wide_integer(x.dtype)
        total = quiet(xp.sum, x, axis=self.axes, keepdims=self.keepdims, dtype=compute_type(dtype))
        return xp.asarray(total, dtype)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        g = expand_reduced(ops, g, x, self.axes, self.keepdims)
        return (ops.broadcast_to(g, shape=tuple(x.shape)),)


class Prod(AxisReduce):
    """Product over axes. Dtypes as in `sum`; empty axes give 1.

    The gradient is the product of the other elements, also where elements are 0.

    >>> graphnn.prod([2.0, 3.0]).numpy().item()
    6.0
    """

    name, monoid, accepts = "prod", "mul", ALL
    samples = (
        Sample((("f", (3, 4)),), {"axes": (1,)}),
        Sample((("f", (2, 3, 2)),), {"axes": (0, 2), "keepdims": True}),
        Sample((("i", (3,)),), {"axes": (0,)}),
        Sample((("b", (3,)),), {"axes": (0,)}),
        Sample((("f", (2, 0)),), {"axes": (1,)}),
        Sample((("f", ()),), {"axes": ()}),
    )

    def result_dtype(self, dtype: DType) -> DType:
        return wide_integer(dtype)

    def eager(self, xp: Any, x: Any) -> Any:
        dtype = wide_integer(x.dtype)
        total = quiet(xp.prod, x, axis=self.axes, keepdims=self.keepdims, dtype=compute_type(dtype))
        return xp.asarray(total, dtype)

    def on_sizes(self, *values: Any) -> Any:
        return values[0].prod(axis=self.axes, keepdims=self.keepdims)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        shape = tuple(x.shape)
        axes = positive_axes(self.axes, len(shape))
        if not axes:
            return (g,)
        order = (*(a for a in range(len(shape)) if a not in axes), *axes)
        moved = tuple(shape[a] for a in order)
        flat = (*moved[: len(shape) - len(axes)], element_count(moved[len(shape) - len(axes) :]))
        rows = ops.reshape(ops.permute_dims(x, axes=order), shape=flat)
        before = ops.cumprod(rows, axis=len(flat) - 1, exclusive=True)
        after = ops.cumprod(rows, axis=len(flat) - 1, exclusive=True, reverse=True)
        others = ops.reshape(ops.multiply(before, after), shape=moved)
        back = tuple(order.index(a) for a in range(len(shape)))
        others = ops.permute_dims(others, axes=back)
        return (ops.multiply(expand_reduced(ops, g, x, axes, self.keepdims), others),)


class Extreme(AxisReduce):
    """Template of max and min. Equal extremes share the gradient equally."""

    accepts = NUMBERS

    def infer(self, *types: TensorType) -> TensorType:
        result = super().infer(*types)
        (x,) = types
        axes = positive_axes(self.axes, x.ndim)
        if any(isinstance(x.shape[a], int) and x.shape[a] == 0 for a in axes):
            raise ShapeError(
                self.name,
                received=f"{describe(x.dtype, x.shape)}, reduced over axes {axes}",
                expected="at least one element on each reduced axis: "
                f"the {self.name} of nothing has no value",
                fix="check for empty input first",
            )
        return result

    def eager(self, xp: Any, x: Any) -> Any:
        reduce = getattr(xp, self.name)
        values = quiet(
            reduce, x.astype(compute_type(x.dtype)), axis=self.axes, keepdims=self.keepdims
        )
        return xp.asarray(values, x.dtype)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        out = expand_reduced(ops, out, x, self.axes, self.keepdims)
        g = expand_reduced(ops, g, x, self.axes, self.keepdims)
        hits = ops.cast(ops.equal(x, out), dtype=x.dtype.name)
        ties = ops.sum(hits, axes=self.axes, keepdims=True)
        return (ops.multiply(hits, ops.divide(g, ties)),)


class Max(Extreme):
    """Greatest element over axes; NaN if there is one. Equal ones share the gradient equally.

    Raises ShapeError when a reduced axis is empty.

    >>> graphnn.max([1.0, 3.0, 2.0]).numpy().item()
    3.0
    """

    name, monoid = "max", "max"
    samples = (
        Sample((("f", (3, 4)),), {"axes": (0,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (1, -1), "keepdims": True}),
        Sample((("i", (3, 2)),), {"axes": (0, 1)}),
        Sample((("f", (0, 3)),), {"axes": (1,)}),
        Sample((("f", ()),), {"axes": ()}),
    )


class Min(Extreme):
    """Least element over axes; NaN if there is one. Equal ones share the gradient equally.

    Raises ShapeError when a reduced axis is empty.

    >>> graphnn.min([1.0, 3.0, 2.0]).numpy().item()
    1.0
    """

    name, monoid = "min", "min"
    samples = (
        Sample((("f", (3, 4)),), {"axes": (1,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (0,), "keepdims": True}),
        Sample((("i", (3, 2)),), {"axes": (0, 1)}),
    )


class Truth(AxisReduce):
    """Template of any and all."""

    accepts = (bool_,)
    gradient: ClassVar[NoGradient | None] = NoGradient("the result is a truth value")

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.asarray(getattr(xp, self.name)(x, axis=self.axes, keepdims=self.keepdims))


class Any_(Truth):
    """Whether any element over axes is true; False for none.

    >>> graphnn.any([False, True]).numpy().item()
    True
    """

    name, monoid = "any", "or"
    samples = (
        Sample((("b", (3, 4)),), {"axes": (0,)}),
        Sample((("b", (2, 0)),), {"axes": (1,), "keepdims": True}),
        Sample((("b", ()),), {"axes": ()}),
    )


class All(Truth):
    """Whether all elements over axes are true; True for none.

    >>> graphnn.all([False, True]).numpy().item()
    False
    """

    name, monoid = "all", "and"
    samples = (
        Sample((("b", (3, 4)),), {"axes": (0, 1)}),
        Sample((("b", (2, 0)),), {"axes": (1,)}),
    )


# ---- statistics -----------------------------------------------------------------------------


def _wide(ops: Any, x: Any) -> Any:
    """16-bit floats as float32, in which sums do not overflow or lose digits."""
    return ops.cast(x, dtype="float32") if x.dtype in (float16, bfloat16) else x


def _narrow(ops: Any, value: Any, dtype: DType) -> Any:
    return value if value.dtype == dtype else ops.cast(value, dtype=dtype.name)


class Mean(Composite):
    """Arithmetic mean over axes; NaN for empty axes.

    >>> graphnn.mean([1.0, 2.0, 6.0]).numpy().item()
    3.0
    """

    name = "mean"
    samples = (
        Sample((("f", (3, 4)),), {"axes": (0,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (0, -1), "keepdims": True}),
        Sample((("f", ()),), {"axes": ()}),
    )
    axes: tuple[int, ...]
    keepdims: bool = False

    def decompose(self, ops: Any, x: Any) -> Any:
        total = ops.sum(_wide(ops, x), axes=self.axes, keepdims=self.keepdims)
        return _narrow(ops, ops.divide(total, _count(x, self.axes)), x.dtype)


def _count(x: Any, axes: Sequence[int]) -> Any:
    return element_count([x.shape[a] for a in axes])


class Var(Composite):
    """Variance over axes: the sum of squared distances from the mean over (count - correction).

    correction: 0 for the population, 1 for a sample (Bessel). NaN or infinity where the
    denominator is not positive, as in NumPy. Computed in two passes.

    >>> graphnn.var([1.0, 3.0]).numpy().item()
    1.0
    """

    name = "var"
    samples = (
        Sample((("f", (3, 4)),), {"axes": (0,)}),
        Sample((("f", (2, 3, 4)),), {"axes": (0, -1), "keepdims": True, "correction": 1}),
    )
    axes: tuple[int, ...]
    keepdims: bool = False
    correction: float = 0

    def decompose(self, ops: Any, x: Any) -> Any:
        wide, count = _wide(ops, x), _count(x, self.axes)
        mean = ops.divide(ops.sum(wide, axes=self.axes, keepdims=True), count)
        squares = ops.square(ops.subtract(wide, mean))
        total = ops.sum(squares, axes=self.axes, keepdims=self.keepdims)
        return _narrow(ops, ops.divide(total, self._denominator(ops, total, count)), x.dtype)

    def _denominator(self, ops: Any, total: Any, count: Any) -> Any:
        if not isinstance(count, Size):
            return max(count - self.correction, 0)
        if float(self.correction).is_integer():
            return count - int(self.correction)
        number = ops.full(shape=(), dtype=total.dtype.name, value=count)
        return ops.subtract(number, self.correction)


class Std(Composite):
    """Standard deviation over axes: the square root of `var`.

    >>> graphnn.std([1.0, 3.0]).numpy().item()
    1.0
    """

    name = "std"
    samples = (
        Sample((("f", (3, 4)),), {"axes": (0,)}),
        Sample((("f", (2, 5)),), {"axes": (1,), "keepdims": True, "correction": 1}),
    )
    axes: tuple[int, ...]
    keepdims: bool = False
    correction: float = 0

    def decompose(self, ops: Any, x: Any) -> Any:
        wide = _wide(ops, x)
        settings = {"axes": self.axes, "keepdims": self.keepdims, "correction": self.correction}
        return _narrow(ops, ops.sqrt(ops.var(wide, **settings)), x.dtype)


# ---- positions of extremes --------------------------------------------------------------------


class ArgExtreme(Composite):
    """Template of argmax and argmin: the least position that holds the extreme.

    Said with max and min over positions, so that both reductions run as vector code.
    """

    accepts, promotes = NUMBERS, "none"
    gradient: ClassVar[NoGradient | None] = NoGradient("the result is an integer position")
    extreme: ClassVar[str]
    axis: int
    keepdims: bool = False

    def decompose(self, ops: Any, x: Any) -> Any:
        ndim = len(x.shape)
        axis = normalize_axis(self.axis, ndim, self.name)
        best = getattr(ops, self.extreme)(x, axes=(axis,), keepdims=True)
        hit = ops.equal(x, best)
        if is_float(x.dtype):  # where there is a NaN it is the extreme, and equals nothing
            hit = ops.logical_or(hit, ops.isnan(x))
        size = x.shape[axis]
        places = ops.arange(start=0, step=1, size=size, dtype="int64")
        places = ops.reshape(places, shape=tuple(size if a == axis else 1 for a in range(ndim)))
        return ops.min(ops.where(hit, places, size), axes=(axis,), keepdims=self.keepdims)

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        (x,) = types
        axis = normalize_axis(self.axis, x.ndim, self.name)
        if x.ndim == 0 or (isinstance(x.shape[axis], int) and x.shape[axis] == 0):
            raise ShapeError(
                self.name,
                received=f"{describe(x.dtype, x.shape)}, axis {self.axis}",
                expected="an axis with at least one element",
                fix="check for empty input first",
            )
        return TensorType(reduced_shape(x.shape, (axis,), self.keepdims), int64)

    def eager(self, xp: Any, x: Any) -> Any:
        find = getattr(xp, self.name)
        found = find(x.astype(compute_type(x.dtype)), axis=self.axis, keepdims=self.keepdims)
        return xp.asarray(found, int64)


class ArgMax(ArgExtreme):
    """Position of the greatest element along an axis, int64; the first of equal ones.

    NaN counts as the greatest. Raises ShapeError when the axis is empty.

    >>> graphnn.argmax([1.0, 3.0, 3.0]).numpy().item()
    1
    """

    name, extreme = "argmax", "max"
    samples = (
        Sample((("f", (3, 4)),), {"axis": 1}),
        Sample((("i", (3, 2)),), {"axis": 0, "keepdims": True}),
        Sample((("f", (1,)),), {"axis": -1}),
        Sample((("f", (0, 2)),), {"axis": 1}),
    )


class ArgMin(ArgExtreme):
    """Position of the least element along an axis, int64; the first of equal ones.

    NaN counts as the least. Raises ShapeError when the axis is empty.

    >>> graphnn.argmin([1.0, 0.0, 0.0]).numpy().item()
    1
    """

    name, extreme = "argmin", "min"
    samples = (Sample((("f", (3, 4)),), {"axis": 0}), Sample((("i", (3, 2)),), {"axis": -1}))
