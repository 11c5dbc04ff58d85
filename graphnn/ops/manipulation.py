"""Shapes changed, axes moved, tensors joined, cut and repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.apply import TENSOR_OPS, convert, promoted
from graphnn.apply import cast as _cast
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import as_dtype, broadcast, describe
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.sizes import axes_of, integer, one_axis, shape_of
from graphnn.tensor import Operand, Tensor

__all__ = [
    "astype",
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_to",
    "cast",
    "concat",
    "concatenate",
    "expand_dims",
    "flip",
    "matrix_transpose",
    "moveaxis",
    "pad",
    "permute_dims",
    "repeat",
    "reshape",
    "roll",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "transpose",
    "tril",
    "triu",
    "unstack",
]


def cast(x: Any, dtype: Any, name: Any = None) -> Tensor:
    """The elements in another dtype; the tensor itself if it has that dtype.

    Floats become integers by truncation and stay in range, NaN becomes 0; integers wrap.

    >>> graphnn.cast([1.7, -1.7], "int32")
    Tensor([ 1 -1], shape=(2,), dtype=int32)
    """
    wanted = as_dtype(dtype)
    return convert(x, wanted) if isinstance(x, Operand) else _cast(convert(x), wanted)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """The array API's name of `cast`. Tensors cannot be changed, so `copy` means nothing.

    >>> graphnn.astype(graphnn.ones(1), graphnn.int8).dtype.name
    'int8'
    """
    return cast(x, dtype)


def reshape(x: Any, shape: Any, name: Any = None, *, copy: bool | None = None) -> Tensor:
    """The same elements in row-major order, in another shape; one size may be -1.

    Raises ShapeError where the number of elements differs.

    >>> graphnn.reshape([1, 2, 3, 4], (2, -1)).shape
    (2, 2)
    """
    x = convert(x)
    sizes = shape_of(shape, "reshape")
    if any(type(s) is int and s < 0 for s in sizes):
        sizes = _resolved(x, sizes)
    return TENSOR_OPS.reshape(x, shape=sizes)  # type: ignore[no-any-return]


def _resolved(x: Tensor, sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """A shape with its -1 replaced."""
    rest: Any = 1
    for extent in sizes:
        rest = rest if type(extent) is int and extent == -1 else rest * extent
    count = x.size
    known = type(rest) is int and type(count) is int
    if (
        sum(type(s) is int and s < 0 for s in sizes) > 1
        or (known and rest <= 0)
        or (known and count % rest)
    ):
        raise ShapeError(
            "reshape",
            received=f"{describe(x.dtype, x.shape)} to shape {sizes}",
            expected="at most one -1, and other sizes that divide the number of elements",
            fix="work out the sizes: their product must be " + str(count),
        )
    missing = _quotient(count, rest)
    return tuple(missing if type(s) is int and s == -1 else s for s in sizes)


def _quotient(count: Any, rest: Any) -> Any:
    return count if type(rest) is int and rest == 1 else count // rest


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """The tensor repeated along axes of size 1 and new leading axes. Raises ShapeError.

    >>> graphnn.broadcast_to([1, 2], (2, 2)).numpy().tolist()
    [[1, 2], [1, 2]]
    """
    return TENSOR_OPS.broadcast_to(convert(x), shape=shape_of(shape, "broadcast_to"))  # type: ignore[no-any-return]


def broadcast_shapes(*shapes: Any) -> tuple[Any, ...]:
    """The shape to which some shapes broadcast. Raises ShapeError.

    >>> graphnn.broadcast_shapes((2, 1), (3,))
    (2, 3)
    """
    subject = "broadcast_shapes"
    return broadcast(tuple(shape_of(s, subject) for s in shapes), subject)


def broadcast_arrays(*arrays: Any) -> list[Tensor]:
    """Tensors broadcast against each other. Raises ShapeError.

    >>> [a.shape for a in graphnn.broadcast_arrays([[1], [2]], [3, 4, 5])]
    [(2, 3), (2, 3)]
    """
    tensors = [convert(a) for a in arrays]
    shape = broadcast(tuple(tuple(t.shape) for t in tensors), "broadcast_arrays")
    return [TENSOR_OPS.broadcast_to(t, shape=shape) for t in tensors]


def expand_dims(x: Any, axis: Any = 0, name: Any = None) -> Tensor:
    """The tensor with new axes of size 1 at the places `axis` (an int or several) of the result.

    >>> graphnn.expand_dims([1, 2], axis=-1).shape
    (2, 1)
    """
    x = convert(x)
    count = len(axis) if isinstance(axis, list | tuple) else 1
    axes = axes_of(axis, x.ndim + count, "expand_dims")
    return TENSOR_OPS.expand_dims(x, axes=tuple(sorted(axes)))  # type: ignore[no-any-return]


def squeeze(x: Any, axis: Any = None, name: Any = None) -> Tensor:
    """The tensor without axes of size 1: those named, or all. Raises ShapeError for other sizes.

    >>> graphnn.squeeze([[[1, 2]]], axis=0).shape
    (1, 2)
    """
    x = convert(x)
    if axis is None or (isinstance(axis, list | tuple) and not axis):
        axes = tuple(a for a, s in enumerate(x.shape) if type(s) is int and s == 1)
    else:
        axes = axes_of(axis, x.ndim, "squeeze")
    return TENSOR_OPS.squeeze(x, axes=tuple(sorted(axes))) if axes else x  # type: ignore[no-any-return]


def permute_dims(x: Any, /, axes: Sequence[int]) -> Tensor:
    """The axes in another order: result axis i is axis axes[i]. Raises ArgumentError.

    >>> graphnn.permute_dims(graphnn.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    tensor = convert(x)
    order = axes_of(axes, tensor.ndim, "permute_dims")
    if len(order) != tensor.ndim:
        raise ArgumentError(
            "permute_dims",
            received=f"axes {tuple(axes)} for a tensor with {tensor.ndim} axes",
            expected="each axis once",
            fix="name all axes",
        )
    if list(order) == sorted(order):
        return tensor
    return TENSOR_OPS.permute_dims(tensor, axes=order)  # type: ignore[no-any-return]


def transpose(x: Any, perm: Any = None, conjugate: bool = False, name: Any = None) -> Tensor:
    """The axes in the order `perm`, by default reversed.

    >>> graphnn.transpose([[1, 2, 3]]).shape
    (3, 1)
    """
    x = convert(x)
    return permute_dims(x, tuple(reversed(np.arange(x.ndim).tolist())) if perm is None else perm)


def matrix_transpose(x: Any, name: Any = None, conjugate: bool = False) -> Tensor:
    """The last two axes swapped. Raises ArgumentError for fewer than two axes.

    >>> graphnn.matrix_transpose(graphnn.zeros((2, 3, 4))).shape
    (2, 4, 3)
    """
    return swapaxes(x, -1, -2)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes swapped.

    >>> graphnn.swapaxes(graphnn.zeros((2, 3, 4)), 0, 2).shape
    (4, 3, 2)
    """
    x = convert(x)
    a, b = one_axis(axis1, x.ndim, "swapaxes"), one_axis(axis2, x.ndim, "swapaxes")
    order = np.arange(x.ndim).tolist()
    order[a], order[b] = b, a
    return permute_dims(x, order)


def moveaxis(x: Any, source: Any, destination: Any, /) -> Tensor:
    """Axes moved to other places; the others keep their order.

    >>> graphnn.moveaxis(graphnn.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = convert(x)
    sources = axes_of(source, x.ndim, "moveaxis")
    places = axes_of(destination, x.ndim, "moveaxis")
    if len(sources) != len(places):
        raise ArgumentError(
            "moveaxis",
            received=f"{len(sources)} sources and {len(places)} destinations",
            expected="as many of both",
            fix="give one destination per source",
        )
    order = [a for a in np.arange(x.ndim).tolist() if a not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return permute_dims(x, order)


def concat(values: Any, axis: Any = 0, name: Any = None) -> Tensor:
    """Tensors joined along an existing axis; None: of the flattened tensors.

    Raises ShapeError where other axes differ, ArgumentError for no tensor.

    >>> graphnn.concat([[1, 2], [3]], axis=0)
    Tensor([1 2 3], shape=(3,), dtype=int32)
    """
    tensors = _several(values, "concat")
    if axis is None:
        tensors, axis = tuple(TENSOR_OPS.reshape(t, shape=(t.size,)) for t in tensors), 0
    if len(tensors) == 1:
        return tensors[0]
    place = one_axis(axis, tensors[0].ndim, "concat")
    return TENSOR_OPS.concat(*tensors, axis=place)  # type: ignore[no-any-return]


def concatenate(values: Any, axis: Any = 0) -> Tensor:
    """NumPy's name of `concat`.

    >>> graphnn.concatenate([[1, 2], [3]]).numpy()
    array([1, 2, 3], dtype=int32)
    """
    return concat(values, axis)


def stack(values: Any, axis: int = 0, name: Any = None) -> Tensor:
    """Tensors of one shape joined along a new axis. Raises ShapeError, ArgumentError for none.

    >>> graphnn.stack([[1, 2], [3, 4]], axis=1).numpy().tolist()
    [[1, 3], [2, 4]]
    """
    tensors = _several(values, "stack")
    place = one_axis(axis, tensors[0].ndim + 1, "stack")
    return TENSOR_OPS.stack(*tensors, axis=place)  # type: ignore[no-any-return]


def _several(values: Any, subject: str) -> tuple[Tensor, ...]:
    if isinstance(values, Operand):
        values = list(values)
    if not values:
        raise ArgumentError(
            subject, received="no tensor", expected="one or more", fix="check the list first"
        )
    return promoted(values, "common")


def unstack(x: Any, num: Any = None, axis: int = 0, name: Any = None) -> list[Tensor]:
    """The slices along an axis, without that axis.

    Raises ShapeError for a symbolic size.

    >>> [part.numpy().tolist() for part in graphnn.unstack([[1, 2], [3, 4]], axis=1)]
    [[1, 3], [2, 4]]
    """
    x = convert(x)
    place = one_axis(axis, x.ndim, "unstack")
    parts = split(x, _static(x, place, "unstack"), place)
    return [TENSOR_OPS.squeeze(part, axes=(place,)) for part in parts]


def _static(x: Tensor, axis: int, subject: str) -> int:
    extent = x.shape[axis]
    if isinstance(extent, Size):
        raise ShapeError(
            subject,
            received=f"{describe(x.dtype, x.shape)} with a symbolic size on axis {axis}",
            expected="a size that is known while tracing",
            fix="give the axis a fixed size in input_signature",
        )
    return int(extent)


def split(value: Any, num_or_size_splits: Any, axis: int = 0, num: Any = None) -> list[Tensor]:
    """A tensor cut along an axis: into equal parts (a count), or parts of given sizes.

    One of the sizes may be -1. Raises ShapeError if the parts do not add up to the axis.

    >>> [part.numpy().tolist() for part in graphnn.split([1, 2, 3], [1, 2])]
    [[1], [2, 3]]
    """
    x = convert(value)
    place = one_axis(axis, x.ndim, "split")
    extent = x.shape[place]
    if isinstance(num_or_size_splits, Operand | list | tuple | np.ndarray) and np.ndim(
        num_or_size_splits
    ):
        sizes = list(shape_of(num_or_size_splits, "split"))
        total = sum(s for s in sizes if not (type(s) is int and s == -1))
        sizes = [extent - total if type(s) is int and s == -1 else s for s in sizes]
    else:
        count = int(integer(num_or_size_splits, "split"))
        sizes = [extent // count] * count if count > 0 else []
    if not sizes or sum(sizes) != extent:
        raise ShapeError(
            "split",
            received=f"axis {place} of {describe(x.dtype, x.shape)} into {num_or_size_splits}",
            expected="parts that add up to the size of the axis",
            fix="give the sizes as a list, one of them -1",
        )
    return list(TENSOR_OPS.split(x, sizes=tuple(sizes), axis=place))


def flip(x: Any, axis: Any = None) -> Tensor:
    """The order of the elements reversed along axes (all by default).

    >>> graphnn.flip([1, 2, 3]).numpy()
    array([3, 2, 1], dtype=int32)
    """
    x = convert(x)
    axes = axes_of(axis, x.ndim, "flip")
    return TENSOR_OPS.flip(x, axes=axes) if axes else x  # type: ignore[no-any-return]


def roll(x: Any, shift: Any, axis: Any = None) -> Tensor:
    """Elements moved along axes by `shift` places; those that fall off come in at the other end.

    axis: None rolls the flattened tensor.

    >>> graphnn.roll([1, 2, 3], 1).numpy()
    array([3, 1, 2], dtype=int32)
    """
    x = convert(x)
    if axis is None:
        flat = TENSOR_OPS.reshape(x, shape=(x.size,))
        return TENSOR_OPS.reshape(roll(flat, shift, 0), shape=tuple(x.shape))  # type: ignore[no-any-return]
    axes = axes_of(axis, x.ndim, "roll")
    shifts = shape_of(shift, "roll")
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    if len(shifts) != len(axes):
        raise ArgumentError(
            "roll",
            received=f"{len(shifts)} shifts for {len(axes)} axes",
            expected="one shift, or one per axis",
            fix="give one shift per axis",
        )
    return TENSOR_OPS.roll(x, shifts=shifts, axes=axes)  # type: ignore[no-any-return]


def tile(x: Any, multiples: Any, name: Any = None) -> Tensor:
    """The whole tensor repeated along each axis.

    multiples: counts for the last axes (NumPy's rule: missing ones on the left are 1, and further
    ones add axes).

    >>> graphnn.tile([1, 2], 2).numpy()
    array([1, 2, 1, 2], dtype=int32)
    """
    x, repeats = convert(x), shape_of(multiples, "tile")
    if len(repeats) > x.ndim:
        x = TENSOR_OPS.reshape(x, shape=(*[1] * (len(repeats) - x.ndim), *x.shape))
    repeats = (*[1] * (x.ndim - len(repeats)), *repeats)
    return TENSOR_OPS.tile(x, repeats=repeats)  # type: ignore[no-any-return]


def repeat(x: Any, repeats: Any, axis: int | None = None, name: Any = None) -> Tensor:
    """Each element repeated along an axis (None: of the flattened tensor).

    repeats: a count, or one count per element, which must be known while tracing.

    >>> graphnn.repeat([1, 2], 2).numpy()
    array([1, 1, 2, 2], dtype=int32)
    """
    x = convert(x)
    if axis is None:
        x, axis = TENSOR_OPS.reshape(x, shape=(x.size,)), 0
    place = one_axis(axis, x.ndim, "repeat")
    counts = shape_of(repeats, "repeat")
    if len(counts) == 1:
        return TENSOR_OPS.repeat(x, repeats=counts[0], axis=place)  # type: ignore[no-any-return]
    if len(counts) != _static(x, place, "repeat"):
        raise ShapeError(
            "repeat",
            received=f"{len(counts)} counts for axis {place} of {describe(x.dtype, x.shape)}",
            expected="one count, or one per element of the axis",
            fix="give as many counts as the axis has elements",
        )
    where = np.repeat(np.arange(len(counts)), counts)
    return TENSOR_OPS.take(x, convert(where), axis=place)  # type: ignore[no-any-return]


_PAD_MODES = {"constant": "", "reflect": "reflect", "symmetric": "symmetric", "edge": "edge"}


def pad(
    x: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0, name: Any = None
) -> Tensor:
    """The tensor with elements put around it.

    paddings: (before, after) for each axis, or one pair, or one number, for all. mode: "constant"
    (with the number constant_values), "reflect" (mirrored without the edge), "symmetric" (with
    it) or "edge", in any case. Raises ArgumentError.

    >>> graphnn.pad([1, 2], [[1, 2]]).numpy()
    array([0, 1, 2, 0, 0], dtype=int32)
    """
    x = convert(x)
    word = str(mode).lower()
    if word not in _PAD_MODES:
        raise ArgumentError(
            "pad",
            received=f"mode={mode!r}",
            expected=", ".join(map(repr, _PAD_MODES)),
            fix="choose one of these modes",
        )
    pairs = _pairs(paddings, x.ndim)
    low, high = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    if word != "constant":
        return TENSOR_OPS.pad_mode(x, low=low, high=high, mode=_PAD_MODES[word])  # type: ignore[no-any-return]
    value = constant_values.item() if hasattr(constant_values, "item") else constant_values
    return TENSOR_OPS.pad(x, low=low, high=high, value=value)  # type: ignore[no-any-return]


def _pairs(paddings: Any, ndim: int) -> list[tuple[Any, ...]]:
    if isinstance(paddings, Operand | np.ndarray):
        paddings = paddings.tolist()
    if not isinstance(paddings, list | tuple):
        paddings = (paddings, paddings)
    if len(paddings) == 2 and not any(isinstance(p, list | tuple) for p in paddings):
        paddings = [paddings] * ndim
    pairs = [shape_of(p, "pad") for p in paddings]
    if len(pairs) == 1 != ndim:
        pairs = pairs * ndim
    if len(pairs) != ndim or any(len(p) != 2 for p in pairs):
        raise ArgumentError(
            "pad",
            received=f"paddings {paddings} for a tensor with {ndim} axes",
            expected="one (before, after) pair for each axis",
            fix="add (0, 0) for axes that stay as they are",
        )
    return pairs


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The lower triangle of the last two axes, else 0: elements with column <= row + k.

    >>> graphnn.tril([[1, 2], [3, 4]]).numpy().tolist()
    [[1, 0], [3, 4]]
    """
    return TENSOR_OPS.tril(convert(x), k=int(integer(k, "k of tril")))  # type: ignore[no-any-return]


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The upper triangle of the last two axes, else 0: elements with column >= row + k.

    >>> graphnn.triu([[1, 2], [3, 4]]).numpy().tolist()
    [[1, 2], [0, 4]]
    """
    return TENSOR_OPS.triu(convert(x), k=int(integer(k, "k of triu")))  # type: ignore[no-any-return]
