"""Reading and writing at computed positions, choice by a condition, limits, sorting."""

from __future__ import annotations

from typing import Any

from graphnn.apply import TENSOR_OPS, apply, cast, convert, promoted
from graphnn.compiler.ir.types import DEFAULT_FLOAT, as_dtype, bool_
from graphnn.compiler.ops.base import REGISTRY
from graphnn.ops.public import call, plain
from graphnn.runtime.errors import ArgumentError
from graphnn.sizes import extent_of, integer, one_axis
from graphnn.tensor import Tensor

__all__ = [
    "boolean_mask",
    "clip",
    "gather",
    "gather_nd",
    "nonzero",
    "one_hot",
    "put_along_axis",
    "scatter",
    "scatter_nd",
    "take",
    "take_along_axis",
    "tensor_scatter_nd_add",
    "tensor_scatter_nd_max",
    "tensor_scatter_nd_min",
    "tensor_scatter_nd_sub",
    "tensor_scatter_nd_update",
    "where",
]


def where(condition: Any, x: Any = None, y: Any = None, name: Any = None) -> Any:
    """x where the condition is true, else y, with broadcasting.

    With the condition alone (eager only): the positions where it is true, int64 (count, axes).

    >>> graphnn.where([True, False], [1.0, 2.0], 0.0)
    Tensor([1. 0.], shape=(2,), dtype=float32)
    """
    condition = convert(condition)
    if condition.dtype != bool_:
        condition = TENSOR_OPS.not_equal(condition, 0)
    if x is None and y is None:
        return TENSOR_OPS.stack(*TENSOR_OPS.nonzero(condition), axis=1)
    if x is None or y is None:
        raise ArgumentError(
            "where", received="one of x and y", expected="both or none", fix="give both"
        )
    return call(REGISTRY["where"], (condition, x, y))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """Elements below min raised to it, and above max lowered to it; None: no limit.

    Returns: the dtype of x if the limits are numbers. NaN stays.

    >>> graphnn.clip([-1.0, 0.5, 3.0], 0.0, 1.0).numpy()
    array([0. , 0.5, 1. ], dtype=float32)
    """
    if min is None and max is None:
        return convert(x)
    if min is None:
        return call(REGISTRY["minimum"], (x, max))  # type: ignore[no-any-return]
    if max is None:
        return call(REGISTRY["maximum"], (x, min))  # type: ignore[no-any-return]
    return call(REGISTRY["clip"], (x, min, max))  # type: ignore[no-any-return]


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """Slices of x along an axis at given positions; negative ones count from the end.

    axis: None takes from the flattened tensor (as NumPy does). Raises OutOfRangeError.

    >>> graphnn.take([[1, 2], [3, 4]], [1, 0, 1], axis=1).numpy().tolist()
    [[2, 1, 2], [4, 3, 4]]
    """
    x = convert(x)
    if axis is None:
        x, axis = TENSOR_OPS.reshape(x, shape=(x.size,)) if x.ndim != 1 else x, 0
    return TENSOR_OPS.take(x, _indices(indices), axis=one_axis(axis, x.ndim, "take"))  # type: ignore[no-any-return]


def _indices(value: Any) -> Tensor:
    """Index tensor; an empty list means no index, although it would be a float tensor."""
    index = convert(value)
    return cast(index, as_dtype("int32")) if isinstance(value, list) and not index.size else index


def gather(
    params: Any,
    indices: Any,
    validate_indices: Any = None,
    axis: Any = None,
    batch_dims: int = 0,
    name: Any = None,
) -> Tensor:
    """Slices of a tensor along an axis (the first by default) at given positions.

    batch_dims: that many leading axes of both belong together; axis counts from there. Raises
    OutOfRangeError.

    >>> graphnn.gather([[1, 2], [3, 4]], [1]).numpy().tolist()
    [[3, 4]]
    """
    x, index = convert(params), _indices(indices)
    batch = batch_dims % x.ndim if batch_dims < 0 else batch_dims
    place = one_axis(batch if axis is None else axis, x.ndim, "gather")
    if not batch:
        return TENSOR_OPS.take(x, index, axis=place)  # type: ignore[no-any-return]
    if place != batch:
        order = (*range(batch), place, *(a for a in range(batch, x.ndim) if a != place))
        x = TENSOR_OPS.permute_dims(x, axes=order)
    return _gather_batched(x, index, batch, place)


def _gather_batched(x: Tensor, index: Tensor, batch: int, place: int) -> Tensor:
    """x[b, index[b]] for leading axes b; the taken axes then move to `place`."""
    grids = []
    for axis in range(batch):
        size = x.shape[axis]
        counts = TENSOR_OPS.arange(start=0, step=1, size=size, dtype=index.dtype.name)
        shape = tuple(size if a == axis else 1 for a in range(index.ndim))
        grids.append(TENSOR_OPS.reshape(counts, shape=shape))
    out = TENSOR_OPS.index(x, *grids, index, axes=tuple(range(batch + 1)), at=0)
    if place == batch:
        return out  # type: ignore[no-any-return]
    moved = list(range(batch, index.ndim))
    rest = [a for a in range(out.ndim) if a not in moved]
    return TENSOR_OPS.permute_dims(out, axes=(*rest[:place], *moved, *rest[place:]))  # type: ignore[no-any-return]


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tensor:
    """Elements of x along an axis, each row at its own positions. Raises OutOfRangeError.

    indices: as many axes as x; sizes of 1 on other axes broadcast. Returns: their shape.

    >>> graphnn.take_along_axis([[1, 2], [3, 4]], [[1], [0]], axis=1).numpy().tolist()
    [[2], [3]]
    """
    x, index = convert(x), _indices(indices)
    place = one_axis(axis, x.ndim, "take_along_axis")
    x, index = _lined_up(x, index, place)
    return TENSOR_OPS.take_along_axis(x, index, axis=place)  # type: ignore[no-any-return]


def _lined_up(x: Tensor, index: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Both broadcast against each other on all axes but one."""
    if x.ndim != index.ndim:
        return x, index  # the op says what is wrong
    pairs = list(zip(x.shape, index.shape, strict=True))
    rest = [b if type(a) is int and a == 1 else a for a, b in pairs]
    for tensor in (x, index):
        rest[place] = tensor.shape[place]
        if tuple(tensor.shape) != tuple(rest) and _fits(tensor, rest):
            wide = TENSOR_OPS.broadcast_to(tensor, shape=tuple(rest))
            x, index = (wide, index) if tensor is x else (x, wide)
    return x, index


def _fits(tensor: Tensor, shape: list[Any]) -> bool:
    return all(
        (type(a) is int and a == 1) or a == b for a, b in zip(tensor.shape, shape, strict=True)
    )


def put_along_axis(x: Any, indices: Any, values: Any, axis: int, *, mode: str = "set") -> Tensor:
    """A copy of x with values put in where `take_along_axis` would read.

    mode: "set", "add", "mul", "max" or "min". Raises OutOfRangeError.

    >>> graphnn.put_along_axis([[1, 2]], [[0]], [[9]], axis=1).numpy().tolist()
    [[9, 2]]
    """
    base, index = convert(x), _indices(indices)
    updates = TENSOR_OPS.broadcast_to(convert(values, base.dtype), shape=tuple(index.shape))
    place = one_axis(axis, base.ndim, "put_along_axis")
    return TENSOR_OPS.put_along_axis(base, index, updates, axis=place, mode=mode)  # type: ignore[no-any-return]


def gather_nd(params: Any, indices: Any, batch_dims: int = 0, name: Any = None) -> Tensor:
    """Elements or slices at index vectors, which the last axis of `indices` holds.

    Raises OutOfRangeError, ArgumentError for batch_dims other than 0.

    >>> graphnn.gather_nd([[1, 2], [3, 4]], [[1, 0], [0, 1]]).numpy()
    array([3, 2], dtype=int32)
    """
    if batch_dims:
        raise ArgumentError(
            "gather_nd",
            received=f"batch_dims={batch_dims}",
            expected="0",
            fix="use gather with batch_dims",
        )
    return apply(plain(REGISTRY["gather_nd"]), convert(params), _indices(indices))  # type: ignore[no-any-return]


def scatter_nd(indices: Any, updates: Any, shape: Any, name: Any = None) -> Tensor:
    """Zeros with updates added at index vectors; equal ones add up. Raises OutOfRangeError.

    >>> graphnn.scatter_nd([[1], [1]], [2.0, 3.0], (3,)).numpy()
    array([0., 5., 0.], dtype=float32)
    """
    values = convert(updates)
    sizes = tuple(integer(s, "scatter_nd") for s in shape)
    base = TENSOR_OPS.full(shape=sizes, dtype=values.dtype.name, value=0)
    return _scattered(base, indices, values, "add")


def _scattered(tensor: Any, indices: Any, updates: Any, mode: str) -> Tensor:
    base = convert(tensor)
    values = convert(updates, base.dtype)
    return TENSOR_OPS.scatter_nd(base, _indices(indices), values, mode=mode)  # type: ignore[no-any-return]


def scatter(base: Any, indices: Any, updates: Any, *, axis: int = 0, mode: str = "add") -> Tensor:
    """A copy of a tensor with slices along an axis changed where `take` would read them.

    updates: in the shape of take(base, indices, axis=axis). mode: "add" (equal indices add up),
    "set" (the last one wins), "mul", "max" or "min". Raises OutOfRangeError, ShapeError.

    >>> graphnn.scatter([0, 0, 0], [2, 2], [1, 5]).numpy()
    array([0, 0, 6], dtype=int32)
    """
    x = convert(base)
    place = one_axis(axis, x.ndim, "scatter")
    values, index = convert(updates, x.dtype), _indices(indices)
    return TENSOR_OPS.scatter(x, index, values, axes=(place,), at=place, mode=mode)  # type: ignore[no-any-return]


def tensor_scatter_nd_update(tensor: Any, indices: Any, updates: Any, name: Any = None) -> Tensor:
    """A copy of a tensor with elements or slices set at index vectors; the last one wins.

    >>> graphnn.tensor_scatter_nd_update([1, 2, 3], [[0]], [9]).numpy()
    array([9, 2, 3], dtype=int32)
    """
    return _scattered(tensor, indices, updates, "set")


def tensor_scatter_nd_add(tensor: Any, indices: Any, updates: Any, name: Any = None) -> Tensor:
    """A copy with updates added at index vectors.

    >>> graphnn.tensor_scatter_nd_add([1, 2, 3], [[0]], [9]).numpy()
    array([10,  2,  3], dtype=int32)
    """
    return _scattered(tensor, indices, updates, "add")


def tensor_scatter_nd_sub(tensor: Any, indices: Any, updates: Any, name: Any = None) -> Tensor:
    """A copy with updates subtracted at index vectors.

    >>> graphnn.tensor_scatter_nd_sub([1, 2, 3], [[0]], [9]).numpy()
    array([-8,  2,  3], dtype=int32)
    """
    base = convert(tensor)
    return _scattered(base, indices, TENSOR_OPS.negative(convert(updates, base.dtype)), "add")


def tensor_scatter_nd_max(tensor: Any, indices: Any, updates: Any, name: Any = None) -> Tensor:
    """A copy with the greater of element and update at index vectors.

    >>> graphnn.tensor_scatter_nd_max([1, 2, 3], [[0]], [9]).numpy()
    array([9, 2, 3], dtype=int32)
    """
    return _scattered(tensor, indices, updates, "max")


def tensor_scatter_nd_min(tensor: Any, indices: Any, updates: Any, name: Any = None) -> Tensor:
    """A copy with the lesser of element and update at index vectors.

    >>> graphnn.tensor_scatter_nd_min([1, 2, 3], [[2]], [0]).numpy()
    array([1, 2, 0], dtype=int32)
    """
    return _scattered(tensor, indices, updates, "min")


def one_hot(
    indices: Any,
    depth: Any,
    on_value: Any = None,
    off_value: Any = None,
    axis: int = -1,
    dtype: Any = None,
    name: Any = None,
) -> Tensor:
    """1 (or on_value) at the position that an index names along a new axis, else 0 (off_value).

    depth: size of the new axis. An index out of range gives no 1. dtype: float32 by default.

    >>> graphnn.one_hot([1, 0], 2).numpy().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    index = _indices(indices)
    place = one_axis(axis, index.ndim + 1, "one_hot")
    wanted = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    plain_values = on_value is None and off_value is None
    hot = TENSOR_OPS.one_hot(
        index,
        depth=extent_of(depth, "depth of one_hot"),
        axis=place,
        dtype=wanted.name if plain_values else "bool",
    )
    if plain_values:
        return hot  # type: ignore[no-any-return]
    on, off = promoted(
        (1 if on_value is None else on_value, 0 if off_value is None else off_value), "common"
    )
    if dtype is not None:
        on, off = cast(on, wanted), cast(off, wanted)
    return TENSOR_OPS.where(hot, on, off)  # type: ignore[no-any-return]


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """Positions of the elements that are not 0: one int64 tensor per axis. Eager only.

    >>> [i.numpy().tolist() for i in graphnn.nonzero([0, 5, 7])]
    [[1, 2]]
    """
    return tuple(TENSOR_OPS.nonzero(convert(x)))


def boolean_mask(tensor: Any, mask: Any, axis: Any = None, name: Any = None) -> Tensor:
    """The slices of a tensor where a mask is true, along one axis. Eager only.

    >>> graphnn.boolean_mask([1, 2, 3], [True, False, True]).numpy()
    array([1, 3], dtype=int32)
    """
    place = 0 if axis is None else integer(axis, "boolean_mask")
    return TENSOR_OPS.boolean_mask(convert(tensor), convert(mask), axis=place)  # type: ignore[no-any-return]
