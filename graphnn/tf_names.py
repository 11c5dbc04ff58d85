"""TensorFlow's spellings, as one flat table: name, and the function that it means.

Where TensorFlow's arguments or results differ there is a function here; else it is the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn.apply import TENSOR_OPS, convert
from graphnn.apply import cast as _cast_tensor
from graphnn.ops import creation, elementwise, indexing, manipulation, reduction
from graphnn.runtime.errors import ArgumentError
from graphnn.sizes import shape_of
from graphnn.tensor import Shape, Tensor


def reduce_sum(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Sum over axes (all by default), in the dtype of the tensor also for integers.

    >>> graphnn.reduce_sum([[1, 2], [3, 4]], axis=0)
    Tensor([4 6], shape=(2,), dtype=int32)
    """
    x = convert(input_tensor)
    return _cast_tensor(reduction.sum(x, axis, keepdims), x.dtype)


def reduce_prod(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Product over axes (all by default), in the dtype of the tensor also for integers.

    >>> graphnn.reduce_prod([2, 3])
    Tensor(6, shape=(), dtype=int32)
    """
    x = convert(input_tensor)
    return _cast_tensor(reduction.prod(x, axis, keepdims), x.dtype)


def reduce_mean(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Mean over axes (all by default); integers give float32.

    >>> graphnn.reduce_mean([1.0, 3.0])
    Tensor(2.0, shape=(), dtype=float32)
    """
    return reduction.mean(input_tensor, axis, keepdims)


def reduce_max(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Greatest element over axes (all by default).

    >>> graphnn.reduce_max([1.0, 3.0])
    Tensor(3.0, shape=(), dtype=float32)
    """
    return reduction.max(input_tensor, axis, keepdims)


def reduce_min(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Least element over axes (all by default).

    >>> graphnn.reduce_min([1.0, 3.0])
    Tensor(1.0, shape=(), dtype=float32)
    """
    return reduction.min(input_tensor, axis, keepdims)


def reduce_any(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Whether any element over axes is true.

    >>> bool(graphnn.reduce_any([True, False]))
    True
    """
    return reduction.any(input_tensor, axis, keepdims)


def reduce_all(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Whether all elements over axes are true.

    >>> bool(graphnn.reduce_all([True, False]))
    False
    """
    return reduction.all(input_tensor, axis, keepdims)


def reduce_logsumexp(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """log(sum(exp(x))) over axes (all by default), without overflow.

    >>> graphnn.reduce_logsumexp([0.0])
    Tensor(0.0, shape=(), dtype=float32)
    """
    return reduction.logsumexp(input_tensor, axis, keepdims)


def reduce_variance(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Variance of a whole population over axes (all by default).

    >>> graphnn.math.reduce_variance([1.0, 3.0])
    Tensor(1.0, shape=(), dtype=float32)
    """
    return reduction.var(input_tensor, axis, keepdims)


def reduce_std(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Standard deviation of a whole population over axes (all by default).

    >>> graphnn.math.reduce_std([1.0, 3.0])
    Tensor(1.0, shape=(), dtype=float32)
    """
    return reduction.std(input_tensor, axis, keepdims)


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any, name: Any = None) -> Tensor:
    """Elements limited to a range.

    >>> graphnn.clip_by_value([-1.0, 2.0], 0.0, 1.0).numpy()
    array([0., 1.], dtype=float32)
    """
    return indexing.clip(t, clip_value_min, clip_value_max)


def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None, name: Any = None) -> Tensor:
    """The tensor scaled down so that its length is at most clip_norm.

    >>> graphnn.clip_by_norm([3.0, 4.0], 1.0).numpy()
    array([0.6, 0.8], dtype=float32)
    """
    length = reduction.norm(t, axis=axes, keepdims=True)
    scaled: Tensor = convert(t) * clip_norm / elementwise.maximum(length, clip_norm)
    return scaled


def global_norm(t_list: Any, name: Any = None) -> Tensor:
    """The length of all tensors of a list together; None entries count as nothing.

    Raises ArgumentError for a list without tensors.

    >>> graphnn.linalg.global_norm([graphnn.constant(3.0), graphnn.constant(4.0)])
    Tensor(5.0, shape=(), dtype=float32)
    """
    squares = [reduction.sum(elementwise.square(t)) for t in t_list if t is not None]
    if not squares:
        raise ArgumentError(
            "global_norm", received="no tensor", expected="one or more", fix="check the list first"
        )
    total = squares[0]
    for other in squares[1:]:
        total = total + other
    return elementwise.sqrt(total)  # type: ignore[no-any-return]


def clip_by_global_norm(
    t_list: Any, clip_norm: Any, use_norm: Any = None, name: Any = None
) -> tuple[list[Tensor | None], Tensor]:
    """(tensors scaled down together so that their common length is at most clip_norm, length).

    >>> clipped, length = graphnn.clip_by_global_norm([[3.0], [4.0]], 1.0)
    >>> [c.numpy().tolist() for c in clipped], float(length)
    ([[0.6...], [0.8...]], 5.0)
    """
    tensors = [None if t is None else convert(t) for t in t_list]
    length = global_norm(tensors) if use_norm is None else convert(use_norm)
    factor = clip_norm / elementwise.maximum(length, clip_norm)
    return [None if t is None else t * factor for t in tensors], length


def divide_no_nan(x: Any, y: Any, name: Any = None) -> Tensor:
    """x / y, and 0 where y is 0.

    >>> graphnn.math.divide_no_nan([1.0, 1.0], [2.0, 0.0]).numpy()
    array([0.5, 0. ], dtype=float32)
    """
    y = convert(y)
    zero = elementwise.equal(y, 0)
    quotient = elementwise.divide(x, indexing.where(zero, 1, y))
    return indexing.where(zero, 0, quotient)  # type: ignore[no-any-return]


def squared_difference(x: Any, y: Any, name: Any = None) -> Tensor:
    """(x - y) squared.

    >>> graphnn.math.squared_difference(3.0, 1.0)
    Tensor(4.0, shape=(), dtype=float32)
    """
    return elementwise.square(elementwise.subtract(x, y))  # type: ignore[no-any-return]


def add_n(inputs: Any, name: Any = None) -> Tensor:
    """Sum of tensors of one shape. Raises ArgumentError for none.

    >>> graphnn.add_n([[1.0], [2.0], [3.0]])
    Tensor([6.], shape=(1,), dtype=float32)
    """
    if not inputs:
        raise ArgumentError(
            "add_n", received="no tensor", expected="one or more", fix="check the list first"
        )
    total = convert(inputs[0])
    for other in inputs[1:]:
        total = total + other
    return total


def fill(dims: Any, value: Any, name: Any = None) -> Tensor:
    """A tensor with one value everywhere.

    >>> graphnn.fill([2], 9)
    Tensor([9 9], shape=(2,), dtype=int32)
    """
    return creation.full(dims, value)


def rank(input: Any, name: Any = None) -> Tensor:
    """The number of axes as a 0-d int32 tensor.

    >>> graphnn.rank([[1.0]])
    Tensor(2, shape=(), dtype=int32)
    """
    return convert(convert(input).ndim)


def tf_slice(input_: Any, begin: Any, size: Any, name: Any = None) -> Tensor:
    """The part that starts at `begin` and has the sizes `size`; -1 means all that is left.

    >>> graphnn.slice([1, 2, 3], [1], [-1]).numpy()
    array([2, 3], dtype=int32)
    """
    x = convert(input_)
    starts, sizes = shape_of(begin, "slice"), shape_of(size, "slice")
    key = tuple(slice(b, None if n == -1 else b + n) for b, n in zip(starts, sizes, strict=True))
    return x[key]


def tf_cumsum(
    x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: Any = None
) -> Tensor:
    """Running sum along an axis, in the dtype of the tensor also for integers.

    >>> graphnn.math.cumsum([1, 2, 3]).dtype.name
    'int32'
    """
    x = convert(x)
    return _cast_tensor(reduction.cumsum(x, axis, exclusive, reverse), x.dtype)


def tf_argmax(input: Any, axis: Any = 0, output_type: Any = "int64", name: Any = None) -> Tensor:
    """Position of the greatest element along an axis, the first by default.

    >>> graphnn.math.argmax([[1, 9], [5, 2]]).numpy()
    array([1, 0])
    """
    return manipulation.cast(reduction.argmax(input, 0 if axis is None else axis), output_type)


def tf_argmin(input: Any, axis: Any = 0, output_type: Any = "int64", name: Any = None) -> Tensor:
    """Position of the least element along an axis, the first by default.

    >>> graphnn.math.argmin([[1, 9], [5, 2]]).numpy()
    array([0, 1])
    """
    return manipulation.cast(reduction.argmin(input, 0 if axis is None else axis), output_type)


def identity(input: Any, name: Any = None) -> Tensor:
    """A tensor with the same values.

    >>> graphnn.identity([1.0])
    Tensor([1.], shape=(1,), dtype=float32)
    """
    return TENSOR_OPS.identity(convert(input))  # type: ignore[no-any-return]


def ensure_shape(x: Any, shape: Any, name: Any = None) -> Tensor:
    """The tensor, whose shape must fit a pattern in which None stands for any size.

    Raises ArgumentError if it does not.

    >>> graphnn.ensure_shape([[1.0, 2.0]], (None, 2)).shape
    (1, 2)
    """
    tensor = convert(x)
    tensor.set_shape(shape)
    return tensor


# The table: names at the top level of TensorFlow.
TOP: dict[str, Any] = {
    "TensorShape": Shape,
    "add_n": add_n,
    "clip_by_global_norm": clip_by_global_norm,
    "clip_by_norm": clip_by_norm,
    "clip_by_value": clip_by_value,
    "ensure_shape": ensure_shape,
    "fill": fill,
    "identity": identity,
    "rank": rank,
    "reduce_all": reduce_all,
    "reduce_any": reduce_any,
    "reduce_logsumexp": reduce_logsumexp,
    "reduce_max": reduce_max,
    "reduce_mean": reduce_mean,
    "reduce_min": reduce_min,
    "reduce_prod": reduce_prod,
    "reduce_sum": reduce_sum,
    "reverse": manipulation.flip,
    "slice": tf_slice,
    "truediv": elementwise.divide,
}

# Names in tensorflow.math that are not element-wise functions under the same name.
MATH: dict[str, Callable[..., Any]] = {
    "accumulate_n": add_n,
    "argmax": tf_argmax,
    "argmin": tf_argmin,
    "atan2": elementwise.atan2,
    "count_nonzero": reduction.count_nonzero,
    "cumprod": reduction.cumprod,
    "cumsum": tf_cumsum,
    "divide_no_nan": divide_no_nan,
    "floordiv": elementwise.floor_divide,
    "floormod": elementwise.remainder,
    "is_finite": elementwise.isfinite,
    "is_inf": elementwise.isinf,
    "is_nan": elementwise.isnan,
    "mod": elementwise.remainder,
    "pow": elementwise.power,
    "reduce_all": reduce_all,
    "reduce_any": reduce_any,
    "reduce_logsumexp": reduce_logsumexp,
    "reduce_max": reduce_max,
    "reduce_mean": reduce_mean,
    "reduce_min": reduce_min,
    "reduce_prod": reduce_prod,
    "reduce_std": reduce_std,
    "reduce_sum": reduce_sum,
    "reduce_variance": reduce_variance,
    "squared_difference": squared_difference,
    "truediv": elementwise.divide,
}
