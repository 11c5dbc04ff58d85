"""`x[key]`: ints, slices, Ellipsis, None, integer tensors, and boolean masks (eager only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphnn.apply import TENSOR_OPS, convert
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import bool_, describe, is_integer
from graphnn.runtime.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from graphnn.sizes import known_value
from graphnn.state import state
from graphnn.tensor import Operand, Tensor, Traced

_BASIC: set[Any] = {int, slice, type(None), type(...)}
_GAP = object()  # an Ellipsis that stands for no axis, yet keeps index arrays apart


class Part(NamedTuple):
    """What a key does to one axis: a regular slice, which an integer drops afterwards."""

    start: Any
    step: int
    size: Any
    drop: bool = False


def getitem(self: Operand, key: Any) -> Tensor:
    """The part of a tensor that a key names, by NumPy's rules.

    Raises OutOfRangeError for an integer outside its axis, ShapeError for too many indices,
    DTypeError for keys of other kinds, TraceError for a boolean mask while tracing.
    """
    x = self._tensor()
    keys = list(key) if isinstance(key, tuple) else [key]
    if not state.busy and type(x._value) is not Traced and {type(k) for k in keys} <= _BASIC:
        part = _eager_part(x._value, key)
        if part is not None:
            return part
    keys = [_simplify(k) for k in keys]
    keys = _spell_out(x, keys)
    parts, arrays, new, places = _read(x, keys)
    y = _slice(x, parts)
    if arrays:
        return _index(y, parts, arrays, new, places)
    shape = _result_shape(parts, new)
    return y if shape == tuple(y.shape) else TENSOR_OPS.reshape(y, shape=shape)


def _eager_part(array: np.ndarray[Any, Any], key: Any) -> Tensor | None:
    """NumPy's view for ints and slices; None where it refuses."""
    try:
        part = np.asarray(array[key], array.dtype)  # one string would be of another dtype
    except (IndexError, TypeError, ValueError):
        return None
    return Tensor(part if part.flags.writeable else part.copy())


def _simplify(key: Any) -> Any:
    """A key as int, Size, slice, Ellipsis, None or an index Tensor."""
    if key is None or key is Ellipsis or isinstance(key, slice | Size):
        return key
    if isinstance(key, bool | np.bool_):
        return convert(bool(key))
    if isinstance(key, int | np.integer):
        return int(key)
    if isinstance(key, Operand) and not key.shape and is_integer(key.dtype):
        value = known_value(key)
        return key._tensor() if value is None else value
    try:
        index = convert(np.asarray(key, np.int32) if isinstance(key, list) and not key else key)
    except DTypeError:
        raise _bad_key(repr(key)) from None
    if index.dtype != bool_ and not is_integer(index.dtype):
        raise _bad_key(describe(index.dtype, index.shape))
    return index


def _bad_key(received: str) -> DTypeError:
    return DTypeError(
        "indexing",
        received=f"{received} as an index",
        expected="integers, slices, Ellipsis, None, or integer or bool tensors",
        fix="cast the index to int32",
    )


def _spell_out(x: Tensor, keys: list[Any]) -> list[Any]:
    """One key per axis (and None for new axes): masks become positions, Ellipsis slices."""
    used = sum(_width(k) for k in keys)
    if used > x.ndim:
        raise ShapeError(
            "indexing",
            received=f"{used} indices for a tensor {describe(x.dtype, x.shape)}",
            expected=f"at most {x.ndim} indices",
            fix="drop an index, or add an axis first",
        )
    if sum(k is Ellipsis for k in keys) > 1:
        raise ArgumentError(
            "indexing", received="Ellipsis twice", expected="it at most once", fix="write one out"
        )
    fill: list[Any] = [slice(None)] * (x.ndim - used)
    if not any(k is Ellipsis for k in keys):
        keys = [*keys, Ellipsis]
    result: list[Any] = []
    axis = 0
    for key in keys:
        if key is Ellipsis:
            result += fill or [_GAP]
            axis += len(fill)
        elif isinstance(key, Tensor) and key.dtype == bool_:
            result += _positions(x, key, axis)
            axis += key.ndim
        else:
            result.append(key)
            axis += key is not None
    return result


def _width(key: Any) -> int:
    if key is None or key is Ellipsis:
        return 0
    return key.ndim if isinstance(key, Tensor) and key.dtype == bool_ else 1


def _positions(x: Tensor, mask: Tensor, axis: int) -> list[Tensor]:
    """A mask as one tensor of positions per axis."""
    wanted = tuple(x.shape)[axis : axis + mask.ndim]
    if tuple(mask.shape) != wanted:
        raise ShapeError(
            "indexing",
            received=f"a mask of shape {mask.shape} for axes of sizes {wanted}",
            expected="a mask with the sizes of the axes that it stands for",
            fix="compare the tensor itself to make the mask",
        )
    if not mask.ndim:  # x[True] adds an axis of size 1, x[False] one of size 0
        raise _bad_key("a single bool")
    return list(TENSOR_OPS.nonzero(mask))


def _read(
    x: Tensor, keys: Sequence[Any]
) -> tuple[list[Part], dict[int, Tensor], list[int], list[int]]:
    """(slice of each axis, index tensors by axis, new axes before each axis, places of indices).

    new: for each None, the number of axes of x that come before it. places: positions among the
    keys at which advanced indices (integers beside tensors included) stand.
    """
    parts: list[Part] = []
    arrays: dict[int, Tensor] = {}
    new: list[int] = []
    places: list[int] = []
    advanced = any(isinstance(k, Tensor) for k in keys)
    for place, key in enumerate(keys):
        axis = len(parts)
        if key is None or key is _GAP:
            new += [] if key is _GAP else [axis]
            continue
        extent = x.shape[axis] if axis < x.ndim else 0
        if isinstance(key, int) and isinstance(extent, Size) and not -2 <= key < 2:
            key = convert(key)  # perhaps outside: the op checks it when the program runs
        if isinstance(key, Tensor):
            arrays[axis] = key
            parts.append(Part(0, 1, extent))
            places.append(place)
        elif isinstance(key, slice):
            parts.append(_slice_part(key, extent))
        else:
            parts.append(Part(_checked(x, key, axis), 1, 1, drop=True))
            places += [place] if advanced else []
    return parts, arrays, new, places


def _checked(x: Tensor, key: Any, axis: int) -> Any:
    """A non-negative index."""
    if axis >= x.ndim:
        raise ShapeError(
            "indexing",
            received=f"an index for axis {axis} of a tensor {describe(x.dtype, x.shape)}",
            expected=f"at most {x.ndim} indices",
            fix="drop an index",
        )
    extent = x.shape[axis]
    if isinstance(extent, Size) or isinstance(key, Size):
        return key + extent if isinstance(key, int) and key < 0 else key
    if not -extent <= key < extent:
        raise OutOfRangeError(
            "indexing",
            received=f"index {key} for axis {axis} of a tensor {describe(x.dtype, x.shape)}",
            expected=f"{-extent} <= index < {extent}" if extent else "no index: the axis is empty",
            fix="use an index inside the axis, or a slice, which may reach beyond it",
        )
    return key % extent


def _bound(value: Any) -> Any:
    """A slice bound as an int, a symbolic size or None."""
    if isinstance(value, Operand):
        known = known_value(value)
        return value.__index__() if known is None else known
    if value is None or isinstance(value, Size):
        return value
    try:
        return value.__index__()
    except AttributeError:
        raise _bad_key(f"{value!r} as a slice bound") from None


def _slice_part(key: slice, extent: Any) -> Part:
    start, stop, step = _bound(key.start), _bound(key.stop), _bound(key.step)
    if step == 0:
        raise ArgumentError(
            "indexing", received="a slice with step 0", expected="another step", fix="leave it out"
        )
    if not any(isinstance(v, Size) for v in (extent, start, stop)):
        begin, end, by = slice(start, stop, step).indices(extent)
        return Part(begin if len(range(begin, end, by)) else 0, by, len(range(begin, end, by)))
    by = 1 if step is None else step
    if by < 0:
        return _backward(start, stop, by, extent)
    begin = _clamped(0 if start is None else start, extent)
    end = _clamped(extent if stop is None else stop, extent)
    return Part(begin, by, (end - begin + (by - 1)) // by if by != 1 else end - begin)


def _clamped(bound: Any, extent: Any, low: int = 0) -> Any:
    """A bound counted from the front, kept in the axis. One size is symbolic.

    Raises TraceError where it depends on the symbolic size whether the bound lies in the axis.
    """
    if isinstance(bound, int) and bound < 0:
        bound = extent + bound - low
        return low if bound < low else bound
    return extent if bound > extent else bound


def _backward(start: Any, stop: Any, by: int, extent: Any) -> Part:
    begin = extent - 1 if start is None else _clamped(start, extent - 1, -1)
    end = -1 if stop is None else _clamped(stop, extent - 1, -1)
    return Part(begin, by, (begin - end + (-by - 1)) // -by if by != -1 else begin - end)


def _slice(x: Tensor, parts: list[Part]) -> Tensor:
    shape = tuple(p.size for p in parts)
    starts, steps = tuple(p.start for p in parts), tuple(p.step for p in parts)
    if shape == tuple(x.shape) and all(s == 0 for s in starts) and all(s == 1 for s in steps):
        return x
    return TENSOR_OPS.slice(x, starts=starts, steps=steps, shape=shape)  # type: ignore[no-any-return]


def _result_shape(parts: list[Part], new: list[int]) -> tuple[Any, ...]:
    shape: list[Any] = []
    for axis, part in enumerate(parts):
        shape += [1] * new.count(axis)
        shape += [] if part.drop else [part.size]
    return (*shape, *[1] * sum(n >= len(parts) for n in new))


def _index(
    y: Tensor, parts: list[Part], arrays: dict[int, Tensor], new: list[int], places: list[int]
) -> Tensor:
    """Integer-array indexing of the sliced tensor; integers beside arrays broadcast with them."""
    together = places == list(range(places[0], places[0] + len(places)))
    # Axes of y: new ones are put in first, so that `at` counts them as NumPy does.
    shape: list[Any] = []
    where: dict[int, int] = {}
    for axis, part in enumerate(parts):
        shape += [1] * new.count(axis)
        where[axis] = len(shape)
        shape.append(part.size)
    shape += [1] * sum(n >= len(parts) for n in new)
    if tuple(shape) != tuple(y.shape):
        y = TENSOR_OPS.reshape(y, shape=tuple(shape))
    axes, indices = [], []
    for axis, part in enumerate(parts):
        if axis in arrays or part.drop:
            axes.append(where[axis])
            indices.append(arrays[axis] if axis in arrays else convert(0))
    at = min(axes) if together else 0
    return TENSOR_OPS.index(y, *indices, axes=tuple(axes), at=at)  # type: ignore[no-any-return]
