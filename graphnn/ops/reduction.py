"""Sums, extremes, statistics, positions of extremes, and running sums."""

from __future__ import annotations

import builtins
from functools import lru_cache
from typing import Any

from graphnn.apply import TENSOR_OPS, cast, convert
from graphnn.compiler.ir.types import as_dtype, bool_, float32, is_float
from graphnn.compiler.ops import reduce as _reduce
from graphnn.compiler.ops import scan as _scan
from graphnn.compiler.ops.nn import LogSumExp
from graphnn.ops.public import call, call_op
from graphnn.sizes import axes_of, one_axis
from graphnn.tensor import Tensor

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "cumulative_prod",
    "cumulative_sum",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "prod",
    "std",
    "sum",
    "var",
]


def _over(cls: Any, x: Any, axis: Any, keepdims: bool, **settings: Any) -> Tensor:
    x = convert(x)
    axes = axes_of(axis, x.ndim, cls.name)
    if settings:
        return call(cls, (x,), {"axes": axes, "keepdims": bool(keepdims), **settings})  # type: ignore[no-any-return]
    return call_op(_made(cls, axes, bool(keepdims)), (x,))  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def _made(cls: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    return cls(axes=axes, keepdims=keepdims)


def sum(x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over axes (all by default); 0 over an empty axis.

    axis: an int or a sequence. keepdims: whether the axes stay, with size 1. Returns: the dtype of
    x; int64 or uint64 for bools and integers. dtype: cast to it first. Raises ArgumentError for a
    wrong axis.

    >>> graphnn.sum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([4. 6.], shape=(2,), dtype=float32)
    """
    x = convert(x) if dtype is None else cast(convert(x), as_dtype(dtype))
    return _over(_reduce.Sum, x, axis, keepdims)


def prod(x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """Product over axes (all by default); 1 over an empty axis. Dtypes as in `sum`.

    >>> graphnn.prod([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([ 2. 12.], shape=(2,), dtype=float32)
    """
    x = convert(x) if dtype is None else cast(convert(x), as_dtype(dtype))
    return _over(_reduce.Prod, x, axis, keepdims)


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Greatest element over axes (all by default); NaN if there is one.

    Equal greatest elements share the gradient equally. Raises ShapeError over an empty axis.

    >>> graphnn.max([[1, 5], [3, 2]], axis=1).numpy()
    array([5, 3], dtype=int32)
    """
    return _over(_reduce.Max, x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Least element over axes (all by default); NaN if there is one.

    Equal least elements share the gradient equally. Raises ShapeError over an empty axis.

    >>> graphnn.min([[1, 5], [3, 2]], axis=1).numpy()
    array([1, 2], dtype=int32)
    """
    return _over(_reduce.Min, x, axis, keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over axes (all by default); NaN over an empty axis. Integers give float32.

    >>> graphnn.mean([1.0, 2.0, 6.0])
    Tensor(3.0, shape=(), dtype=float32)
    """
    return _over(_reduce.Mean, x, axis, keepdims)


def var(x: Any, axis: Any = None, keepdims: bool = False, *, correction: float = 0) -> Tensor:
    """Variance over axes: squared distances from the mean, over (count - correction).

    correction: 0 for a whole population, 1 for a sample. Integers give float32.

    >>> graphnn.var([1.0, 3.0], correction=1)
    Tensor(2.0, shape=(), dtype=float32)
    """
    return _over(_reduce.Var, x, axis, keepdims, correction=correction)


def std(x: Any, axis: Any = None, keepdims: bool = False, *, correction: float = 0) -> Tensor:
    """Standard deviation over axes: the square root of `var`.

    >>> graphnn.std([1.0, 3.0])
    Tensor(1.0, shape=(), dtype=float32)
    """
    return _over(_reduce.Std, x, axis, keepdims, correction=correction)


def _truth(x: Any) -> Tensor:
    x = convert(x)
    return x if x.dtype == bool_ else TENSOR_OPS.not_equal(x, 0)  # type: ignore[no-any-return]


def any(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether any element over axes is true (or not 0); False over an empty axis. Dtype bool.

    >>> graphnn.any([[False, True], [False, False]], axis=1).numpy()
    array([ True, False])
    """
    return _over(_reduce.Any_, _truth(x), axis, keepdims)


def all(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether all elements over axes are true (or not 0); True over an empty axis. Dtype bool.

    >>> graphnn.all([[False, True], [True, True]], axis=1).numpy()
    array([False,  True])
    """
    return _over(_reduce.All, _truth(x), axis, keepdims)


def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """How many elements over axes are not 0; int64.

    >>> graphnn.count_nonzero([0, 3, 0, 4]).item()
    2
    """
    return sum(_truth(x), axis, keepdims)


def _extreme(cls: Any, x: Any, axis: Any, keepdims: bool) -> Tensor:
    x = convert(x)
    if axis is None:
        flat = TENSOR_OPS.reshape(x, shape=(x.size,))
        found = call(cls, (flat,), {"axis": 0})
        shape = (1,) * x.ndim if keepdims else ()
        return found if not keepdims else TENSOR_OPS.reshape(found, shape=shape)  # type: ignore[no-any-return]
    settings = {"axis": one_axis(axis, x.ndim, cls.name), "keepdims": bool(keepdims)}
    return call(cls, (x,), settings)  # type: ignore[no-any-return]


def argmax(
    x: Any, axis: Any = None, keepdims: bool = False, *, output_type: Any = "int64"
) -> Tensor:
    """Position of the greatest element along an axis, int64; the first of equal ones.

    axis: None for the position in the flattened tensor. NaN counts as the greatest. Raises
    ShapeError over an empty axis.

    >>> graphnn.argmax([[1, 5], [3, 2]], axis=1).numpy()
    array([1, 0])
    """
    return cast(_extreme(_reduce.ArgMax, x, axis, keepdims), as_dtype(output_type))


def argmin(
    x: Any, axis: Any = None, keepdims: bool = False, *, output_type: Any = "int64"
) -> Tensor:
    """Position of the least element along an axis, int64; the first of equal ones.

    axis: None for the position in the flattened tensor. NaN counts as the least. Raises
    ShapeError over an empty axis.

    >>> graphnn.argmin([[1, 5], [3, 2]], axis=1).numpy()
    array([0, 1])
    """
    return cast(_extreme(_reduce.ArgMin, x, axis, keepdims), as_dtype(output_type))


def cumsum(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sum along an axis.

    exclusive: leave out each element itself. reverse: run from the end. Returns: shape of x;
    dtype as in `sum`.

    >>> graphnn.cumsum([1.0, 2.0, 3.0]).numpy()
    array([1., 3., 6.], dtype=float32)
    """
    return _scanned(_scan.CumSum, x, axis, exclusive, reverse)


def cumprod(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running product along an axis; arguments as in `cumsum`.

    >>> graphnn.cumprod([1.0, 2.0, 3.0]).numpy()
    array([1., 2., 6.], dtype=float32)
    """
    return _scanned(_scan.CumProd, x, axis, exclusive, reverse)


def _scanned(cls: Any, x: Any, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    x = convert(x)
    settings = {"axis": one_axis(axis, x.ndim, cls.name), "exclusive": bool(exclusive)}
    return call(cls, (x,), settings | {"reverse": bool(reverse)})  # type: ignore[no-any-return]


def _cumulative(cls: Any, x: Any, axis: int | None, dtype: Any, include_initial: bool) -> Tensor:
    x = convert(x) if dtype is None else cast(convert(x), as_dtype(dtype))
    if axis is None and x.ndim != 1:
        axes_of(None if x.ndim == 1 else x.ndim, x.ndim, cls.name)  # an axis must be named
    place = one_axis(0 if axis is None else axis, x.ndim, cls.name)
    result = _scanned(cls, x, place, False, False)
    if not include_initial:
        return result
    shape = tuple(1 if a == place else s for a, s in enumerate(x.shape))
    start = TENSOR_OPS.full(
        shape=shape, dtype=result.dtype.name, value=1 if cls is _scan.CumProd else 0
    )
    return TENSOR_OPS.concat(start, result, axis=place)  # type: ignore[no-any-return]


def cumulative_sum(
    x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Running sum, as the array API standard spells it.

    axis: may be left out for one axis. include_initial: put a 0 before the first sum.

    >>> graphnn.cumulative_sum([1.0, 2.0], include_initial=True).numpy()
    array([0., 1., 3.], dtype=float32)
    """
    return _cumulative(_scan.CumSum, x, axis, dtype, include_initial)


def cumulative_prod(
    x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Running product, as the array API standard spells it; arguments as in `cumulative_sum`.

    >>> graphnn.cumulative_prod([2.0, 3.0]).numpy()
    array([2., 6.], dtype=float32)
    """
    return _cumulative(_scan.CumProd, x, axis, dtype, include_initial)


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes (all by default), without overflow. Integers give float32.

    >>> graphnn.logsumexp([1000.0, 1000.0]).numpy().item()
    1000.693...
    """
    return _over(LogSumExp, x, axis, keepdims)


def norm(x: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False) -> Tensor:
    """Length of vectors over axes (all by default): a float dtype.

    ord: "euclidean" or 2 (root of the sum of squares), 1 (sum of absolute values), infinity
    (greatest absolute value), or another positive number p. The gradient at 0 is not defined.

    >>> graphnn.norm([3.0, 4.0])
    Tensor(5.0, shape=(), dtype=float32)
    """
    x = convert(x)
    x = x if is_float(x.dtype) else cast(x, float32)
    if ord in ("euclidean", "fro", 2, None):
        return TENSOR_OPS.sqrt(sum(TENSOR_OPS.square(x), axis, keepdims))  # type: ignore[no-any-return]
    size = TENSOR_OPS.abs(x)
    if ord == 1:
        return sum(size, axis, keepdims)
    if ord == float("inf"):
        return max(size, axis, keepdims)
    total = sum(TENSOR_OPS.power(size, builtins.float(ord)), axis, keepdims)
    return TENSOR_OPS.power(total, 1.0 / ord)  # type: ignore[no-any-return]
