"""Tensors from numbers, arrays and shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphnn import strings
from graphnn.apply import (
    TENSOR_OPS,
    cast,
    constant_of,
    convert,
    from_gpu,
    from_gpu_dlpack,
    from_node,
)
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import DEFAULT_FLOAT, DType, as_dtype, int32, is_float
from graphnn.compiler.ops import logic as _logic
from graphnn.logical import device as on_device
from graphnn.ops.public import call_op, plain
from graphnn.runtime.errors import ArgumentError
from graphnn.sizes import extent_of, integer, shape_of
from graphnn.state import state
from graphnn.tensor import Operand, Symbolic, Tensor

__all__ = [
    "arange",
    "asarray",
    "constant",
    "convert_to_tensor",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "range",
    "shape",
    "size",
    "zeros",
    "zeros_like",
]


_ON_GPU = (2, 13)  # kDLCUDA, kDLCUDAManaged


def _dtype(dtype: Any) -> DType | None:
    return None if dtype is None else as_dtype(dtype)


def _converted(value: Any, dtype: Any) -> Tensor:
    if strings.is_string_dtype(dtype):
        return Tensor(strings.text_array(value).copy())
    return convert(value, _dtype(dtype))


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Tensor:
    """A tensor from numbers, nested lists, arrays or tensors; the data are copied.

    dtype: by default float32 for Python floats, int32 for ints, bool for bools; arrays keep
    theirs. shape: reshape to it; one number fills it. Raises DTypeError for data that are no
    numbers, ArgumentError for an int that the dtype cannot hold.

    >>> graphnn.constant([[1, 2], [3, 4]])
    Tensor([[1 2]
     [3 4]], shape=(2, 2), dtype=int32)
    """
    tensor = _converted(value, dtype)
    if shape is None:
        return tensor
    wanted = shape_of(shape, "constant")
    if tensor.size == 1 and tensor.shape != wanted:
        return TENSOR_OPS.broadcast_to(TENSOR_OPS.reshape(tensor, shape=()), shape=wanted)  # type: ignore[no-any-return]
    return TENSOR_OPS.reshape(tensor, shape=wanted)  # type: ignore[no-any-return]


def convert_to_tensor(
    value: Any, dtype: Any = None, dtype_hint: Any = None, name: str | None = None
) -> Tensor:
    """A value as a tensor; a tensor is returned as it is, or cast when `dtype` differs.

    >>> graphnn.convert_to_tensor([1.0, 2.0]).shape
    (2,)
    """
    return _converted(value, dtype)


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> Tensor:
    """A value as a tensor, as the array API standard spells it.

    device: where the tensor shall be; by default an array stays on its GPU, and new tensors go to
    the default device. copy: arrays of other libraries are always copied unless False: then arrays
    of NumPy, and those on a GPU, are shared, and must not be changed any more. Raises ArgumentError
    if False cannot be obeyed.

    >>> graphnn.asarray([1, 2]).dtype.name
    'int32'
    """
    wanted = _dtype(dtype)
    if device is not None:
        with on_device(device):
            return asarray(obj, dtype=dtype, copy=copy).to_device(device)  # type: ignore[no-any-return]
    if copy is not False or isinstance(obj, Operand):
        return convert(obj, wanted)
    if hasattr(obj, "__cuda_array_interface__") and wanted in (None, obj.dtype):
        return from_gpu(obj, copy=False)
    array = np.asarray(obj)
    if not isinstance(obj, np.ndarray) or (wanted is not None and array.dtype != wanted):
        raise ArgumentError(
            "asarray",
            received=f"copy=False for a {type(obj).__name__}",
            expected="a NumPy array that has the wanted dtype already",
            fix="leave copy out",
        )
    as_dtype(array.dtype)
    return Tensor(array)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor that shares memory with an array of another library, on the CPU or a GPU.

    device: where the tensor shall be; by default where the array is. copy: True for memory of its
    own. The other library must not change the values any more. Raises DTypeError for dtypes that
    graphnn lacks, DeviceError for an array on a GPU without CuPy.

    >>> graphnn.from_dlpack(np.ones(2, "float32"))
    Tensor([1. 1.], shape=(2,), dtype=float32)
    """
    if isinstance(x, Operand):
        tensor = x._tensor()
    elif x.__dlpack_device__()[0] in _ON_GPU:
        tensor = from_gpu_dlpack(x, bool(copy))
    else:
        array = np.from_dlpack(x)
        as_dtype(array.dtype)
        tensor = Tensor(array.copy() if copy else array)
    return tensor if device is None else tensor.to_device(device)


def full(shape: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Tensor:
    """A tensor with one value everywhere; a 0-d tensor may be the value.

    dtype: by default that of the value: float32, int32 or bool for Python numbers. Raises
    ArgumentError for a negative size.

    >>> graphnn.full((2,), 7)
    Tensor([7 7], shape=(2,), dtype=int32)
    """
    if device is not None:
        with on_device(device):
            return full(shape, fill_value, dtype)
    sizes = shape_of(shape, "full")
    if isinstance(fill_value, Operand | np.ndarray):
        return TENSOR_OPS.broadcast_to(convert(fill_value, _dtype(dtype)), shape=sizes)  # type: ignore[no-any-return]
    if isinstance(fill_value, np.generic):
        dtype, fill_value = dtype or fill_value.dtype, fill_value.item()
    kind: Any = type(fill_value) if dtype is None else dtype
    wanted = as_dtype(kind)
    _check_number(fill_value, wanted)
    return TENSOR_OPS.full(shape=sizes, dtype=wanted.name, value=fill_value)  # type: ignore[no-any-return]


def _check_number(value: Any, dtype: DType) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        constant_of(value, dtype)


def zeros(shape: Any, dtype: Any = None, name: Any = None, *, device: Any = None) -> Tensor:
    """A tensor of zeros, float32 by default.

    >>> graphnn.zeros((1, 2))
    Tensor([[0. 0.]], shape=(1, 2), dtype=float32)
    """
    return full(shape, 0, DEFAULT_FLOAT if dtype is None else dtype, device=device)


def ones(shape: Any, dtype: Any = None, name: Any = None, *, device: Any = None) -> Tensor:
    """A tensor of ones, float32 by default.

    >>> graphnn.ones(2)
    Tensor([1. 1.], shape=(2,), dtype=float32)
    """
    return full(shape, 1, DEFAULT_FLOAT if dtype is None else dtype, device=device)


def empty(shape: Any, dtype: Any = None, *, device: Any = None) -> Tensor:
    """A tensor whose values do not matter: zeros.

    >>> graphnn.empty(3).shape
    (3,)
    """
    return zeros(shape, dtype, device=device)


def zeros_like(x: Any, dtype: Any = None, name: Any = None, *, device: Any = None) -> Tensor:
    """Zeros in the shape (and dtype, unless given) of a tensor.

    >>> graphnn.zeros_like([1, 2])
    Tensor([0 0], shape=(2,), dtype=int32)
    """
    return _like(plain(_logic.ZerosLike), x, dtype, device)


def ones_like(x: Any, dtype: Any = None, name: Any = None, *, device: Any = None) -> Tensor:
    """Ones in the shape (and dtype, unless given) of a tensor.

    >>> graphnn.ones_like([1, 2])
    Tensor([1 1], shape=(2,), dtype=int32)
    """
    return _like(plain(_logic.OnesLike), x, dtype, device)


def empty_like(x: Any, dtype: Any = None, *, device: Any = None) -> Tensor:
    """A tensor in the shape of another, whose values do not matter: zeros.

    >>> graphnn.empty_like([1, 2]).shape
    (2,)
    """
    return zeros_like(x, dtype, device=device)


def full_like(x: Any, fill_value: Any = None, dtype: Any = None, *, value: Any = None) -> Tensor:
    """One value in the shape (and dtype, unless given) of a tensor.

    >>> graphnn.full_like([1.0, 2.0], 7)
    Tensor([7. 7.], shape=(2,), dtype=float32)
    """
    x = convert(x)
    return full(
        x.shape, value if fill_value is None else fill_value, x.dtype if dtype is None else dtype
    )


def _like(op: Any, x: Any, dtype: Any, device: Any) -> Tensor:
    if device is not None:
        with on_device(device):
            return _like(op, x, dtype, None)
    result = call_op(op, (x,))
    return result if dtype is None else cast(result, as_dtype(dtype))


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """start, start + step, ... up to but not including stop; `arange(n)` counts from 0.

    dtype: by default int32, or float32 if one of the numbers is a float. Floats are computed as
    start + i * step in float64. Raises ArgumentError for step 0.

    >>> graphnn.arange(2, 8, 3).numpy()
    array([2, 5], dtype=int32)
    """
    if device is not None:
        with on_device(device):
            return arange(start, stop, step, dtype=dtype)
    start, stop = (0, start) if stop is None else (start, stop)
    start, stop, step = (_number(v) for v in (start, stop, step))
    if step == 0:
        raise ArgumentError("arange", received="step 0", expected="another step", fix="change it")
    floats = any(isinstance(v, float) for v in (start, stop, step))
    wanted = _dtype(dtype) or (DEFAULT_FLOAT if floats else int32)
    return TENSOR_OPS.arange(  # type: ignore[no-any-return]
        start=start, step=step, size=_count(start, stop, step), dtype=wanted.name
    )


def _number(value: Any) -> Any:
    if isinstance(value, Operand) and is_float(value.dtype):
        return value.item()
    if isinstance(value, float | np.floating):
        return float(value)
    return integer(value, "arange")


def _count(start: Any, stop: Any, step: Any) -> Any:
    if isinstance(start, Size) or isinstance(stop, Size) or isinstance(step, Size):
        return (stop - start + (step - 1)) // step if step != 1 else stop - start
    return max(0, math.ceil((stop - start) / step))


def range(
    start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: Any = None
) -> Tensor:
    """TensorFlow's name of `arange`.

    >>> graphnn.range(3).numpy()
    array([0, 1, 2], dtype=int32)
    """
    return arange(start, limit, delta, dtype=dtype)


def linspace(
    start: Any, stop: Any, num: Any, /, *, dtype: Any = None, endpoint: bool = True
) -> Tensor:
    """`num` evenly spaced floats from start to stop, float32 by default.

    endpoint: whether stop is the last one. Raises ArgumentError for a negative num.

    >>> graphnn.linspace(0.0, 1.0, 3).numpy()
    array([0. , 0.5, 1. ], dtype=float32)
    """
    wanted = as_dtype(DEFAULT_FLOAT if dtype is None else dtype)
    return TENSOR_OPS.linspace(  # type: ignore[no-any-return]
        start=float(start),
        stop=float(stop),
        size=extent_of(num, "num of linspace"),
        dtype=wanted.name,
        endpoint=bool(endpoint),
    )


def eye(
    rows: Any, cols: Any = None, /, batch_shape: Any = None, dtype: Any = None, *, k: int = 0
) -> Tensor:
    """Ones on a diagonal, zeros elsewhere; float32 by default.

    k: the diagonal, 0 the main one, above it positive. batch_shape: leading axes over which the
    matrix is repeated.

    >>> graphnn.eye(2).numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    rows = integer(rows, "eye")
    cols = rows if cols is None else integer(cols, "eye")
    wanted = as_dtype(DEFAULT_FLOAT if dtype is None else dtype)
    matrix = TENSOR_OPS.eye(rows=rows, cols=cols, k=int(k), dtype=wanted.name)
    if batch_shape is None:
        return matrix  # type: ignore[no-any-return]
    return TENSOR_OPS.broadcast_to(matrix, shape=(*shape_of(batch_shape, "eye"), rows, cols))  # type: ignore[no-any-return]


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Tensor]:
    """Coordinate tensors of a grid from 1-D coordinates.

    indexing: "xy" (the first two axes swapped, as in plots) or "ij". Raises ArgumentError for
    another word.

    >>> [g.numpy().tolist() for g in graphnn.meshgrid([1, 2], [3, 4], indexing="ij")]
    [[[1, 1], [2, 2]], [[3, 4], [3, 4]]]
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(
            "meshgrid", received=f"indexing={indexing!r}", expected="'xy' or 'ij'", fix="choose one"
        )
    axes = [convert(a) for a in arrays]
    order: list[int] = np.arange(len(axes)).tolist()
    if indexing == "xy" and len(axes) > 1:
        order[0], order[1] = 1, 0
    sizes: list[Any] = [None] * len(axes)
    for x, place in zip(axes, order, strict=True):
        sizes[place] = x.size
    grids = []
    for x, place in zip(axes, order, strict=True):
        shape = tuple(x.size if a == place else 1 for a in np.arange(len(axes)))
        grids.append(
            TENSOR_OPS.broadcast_to(TENSOR_OPS.reshape(x, shape=shape), shape=tuple(sizes))
        )
    return grids


def shape(x: Any, out_type: Any = "int32", name: Any = None) -> Tensor:
    """The shape as a 1-D integer tensor; symbolic sizes are computed when the program runs.

    For a symbolic tensor of a Keras model, its `shape`, which can be computed with.

    >>> graphnn.shape(graphnn.zeros((2, 3))).numpy()
    array([2, 3], dtype=int32)
    """
    if isinstance(x, Tensor) and isinstance(x._value, Symbolic):
        return x.shape  # type: ignore[return-value]
    return _size_tensor(tuple(convert(x).shape), as_dtype(out_type))


def size(x: Any, out_type: Any = "int32", name: Any = None) -> Tensor:
    """The number of elements as a 0-d integer tensor.

    >>> graphnn.size(graphnn.zeros((2, 3))).item()
    6
    """
    return constant_of(convert(x).size, as_dtype(out_type))


def _size_tensor(sizes: tuple[Any, ...], dtype: DType) -> Tensor:
    trace = state.trace
    if trace is None or not any(isinstance(s, Size) for s in sizes):
        return constant_of(np.array(sizes, np.int64), dtype)
    columns = [
        TENSOR_OPS.reshape(from_node(trace.constant(s, dtype), trace), shape=(1,)) for s in sizes
    ]
    return TENSOR_OPS.concat(*columns, axis=0) if len(columns) > 1 else columns[0]  # type: ignore[no-any-return]
