"""`cupy.ndarray`: an array on a device, strict about what it takes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tests.cuda.stand_in import memory
from tests.cuda.stand_in.machine import CUDARuntimeError, Fault, gpu

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SCALARS = (bool, int, float, complex, np.generic)


def supported(dtype: Any) -> np.dtype[Any]:
    """A dtype that a device can hold. Raises ValueError for others, as CuPy does."""
    dtype = np.dtype(dtype)
    if dtype.char not in "?bhilqBHILQefdFD" and dtype != BFLOAT16:
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


class Capsule:
    """What `__dlpack__` gives, for `cupy.from_dlpack`."""

    def __init__(self, array: ndarray) -> None:
        self.array = array


class ndarray:
    """An array on a device. `_host` is the emulation's view of its memory."""

    __slots__ = ("__weakref__", "_host", "base", "data")
    __module__ = "cupy"

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: Any = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        shape = (operator.index(shape),) if not isinstance(shape, tuple | list) else shape
        shape = tuple(operator.index(n) for n in shape)
        if any(n < 0 for n in shape):
            raise ValueError("Negative dimensions are not allowed")
        dtype = supported(dtype)
        nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        self.data = memory.alloc(nbytes) if memptr is None else memptr
        self.base: Any = None
        self._host = _view(self.data, shape, dtype, strides, order or "C")

    @classmethod
    def _made(cls, host: np.ndarray[Any, Any], parent: ndarray) -> ndarray:
        """The array for a view of a parent's memory."""
        own = cls.__new__(cls)
        mem = parent.data.mem
        at = host.__array_interface__["data"][0] if host.size else mem.ptr
        own.data = memory.MemoryPointer(mem, at - mem.ptr)
        own.base = parent if parent.base is None else parent.base
        own._host = host
        return own

    # ---- what it is --------------------------------------------------------------------------

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: self.data.device)

    @property
    def T(self) -> ndarray:
        return self.transpose()

    @property
    def real(self) -> Any:
        return _call("real", self)

    @property
    def imag(self) -> Any:
        return _call("imag", self)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        from tests.cuda.stand_in.cuda import get_current_stream

        dense = self._host.flags.c_contiguous
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": get_current_stream().ptr or 1,
            "version": 3,
            "strides": None if dense else self.strides,
            "data": (self.data.ptr if self.size else 0, False),
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None,
        copy: bool | None = None,
    ) -> Any:  # fmt: skip
        if dl_device is not None and dl_device[0] == 1:
            return self.get().__dlpack__(max_version=max_version)
        if stream is not None and stream != -1:
            raise Fault("the emulation orders memory given away on the current stream only")
        return Capsule(self)

    def _alive(self) -> np.ndarray[Any, Any]:
        """The host's view, if the memory was not freed and belongs to the current device."""
        block = self.data.mem.block
        if self.size and (block is None or not block.live):
            raise Fault(f"an array of shape {self.shape} is used after its memory was freed")
        if self.data.device_id != gpu.device and not gpu.peers:
            raise ValueError(
                f"The device where the array resides ({self.data.device_id}) is different from "
                f"the current device ({gpu.device}). Peer access is unavailable between these "
                "devices."
            )
        return self._host

    def _span(self) -> list[tuple[int, int]]:
        """The bytes between the first and the last element."""
        if not self.size:
            return []
        low, high = np.lib.array_utils.byte_bounds(self._host)
        return [(low, high - low)]

    # ---- the host ----------------------------------------------------------------------------

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray[Any, Any]:
        source: ndarray = self
        if out is None and not self.size:
            return np.empty(self.shape, self.dtype)
        if out is None:
            out = np.empty(self.shape, self.dtype, order="F" if order == "F" else "C")
        elif not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if out.shape != self.shape:
            raise ValueError(
                f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}"
            )
        if not out.flags.c_contiguous and not out.flags.f_contiguous:
            raise RuntimeError("`out` cannot be specified when copying to non-contiguous ndarray")
        from tests.cuda.stand_in.cuda import Device, get_current_stream

        with Device(self.data.device_id):
            stream = get_current_stream() if stream is None else stream
            same = out.flags.c_contiguous and self._host.flags.c_contiguous
            if not same and not (out.flags.f_contiguous and self._host.flags.f_contiguous):
                source = _call("ascontiguousarray" if out.flags.c_contiguous else
                               "asfortranarray", self)  # fmt: skip
            source._alive()
            source.data.copy_to_host_async(out.ctypes.data, source.nbytes, stream)
            if blocking:
                gpu.wait_queue(gpu.queue(stream.ptr), "ndarray.get")
        return out  # type: ignore[no-any-return]

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if self._host.flags.c_contiguous:
            arr = np.ascontiguousarray(arr)
        elif self._host.flags.f_contiguous:
            arr = np.asfortranarray(arr)
        else:
            raise RuntimeError("Cannot set to non-contiguous array")
        from tests.cuda.stand_in.cuda import Device

        with Device(self.data.device_id):
            self._alive()
            self.data.copy_from_host_async(arr.ctypes.data, self.nbytes, stream)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from tests.cuda.stand_in import functions

        out = kwargs.pop("out", None)
        if out is not None:
            (kwargs["out"],) = out
        found = functions.lookup(ufunc.__name__)
        if found is None or not all(isinstance(x, (*SCALARS, ndarray, np.ndarray)) for x in inputs):
            return NotImplemented
        return (found if method == "__call__" else getattr(found, method))(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from tests.cuda.stand_in import functions

        found = functions.lookup(func.__name__)
        if found is None or not all(issubclass(t, ndarray | np.ndarray) for t in types):
            return NotImplemented
        return found(*args, **kwargs)

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self.get(order=order).tobytes()

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        return bool(self.size and self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __bytes__(self) -> bytes:
        return bytes(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, format_spec: str) -> str:
        return format(self.get(), format_spec)

    def __reduce__(self) -> Any:
        from tests.cuda.stand_in import functions

        return functions.lookup("array"), (self.get(),)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    # ---- shapes ------------------------------------------------------------------------------

    def view(self, dtype: Any = None) -> ndarray:
        return ndarray._made(self._host.view(self.dtype if dtype is None else dtype), self)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        wanted = shape[0] if len(shape) == 1 else shape
        return _call("reshape", self, wanted, order=order)

    def transpose(self, *axes: Any) -> Any:
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return _call("transpose", self, given or None)

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None,
        copy: bool = True,
    ) -> Any:  # fmt: skip
        from tests.cuda.stand_in import functions

        return functions.cast(self, dtype, copy)

    def copy(self, order: str = "C") -> Any:
        return _call("copy", self, order)

    def fill(self, value: Any) -> None:
        if isinstance(value, ndarray | np.ndarray) and value.shape:
            raise ValueError("non-scalar array cannot be used for fill")
        self[...] = value.item() if isinstance(value, np.ndarray) else value

    def get_array(self) -> Any:
        raise AttributeError("get_array")

    def __getitem__(self, key: Any) -> Any:
        from tests.cuda.stand_in import indexing

        return indexing.get(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        from tests.cuda.stand_in import indexing

        indexing.put(self, key, value)


del ndarray.get_array


def _view(
    data: memory.MemoryPointer,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    strides: Any,
    order: str,
) -> np.ndarray[Any, Any]:
    """NumPy's view of an array's memory."""
    block = data.mem.block
    if 0 in shape:
        return np.empty(shape, dtype, order="F" if order == "F" else "C")
    if block is None:
        raise CUDARuntimeError(1)
    offset = data.ptr - block.start
    try:
        return np.ndarray(shape, dtype, block.bytes.data, offset, strides, order)  # type: ignore
    except (TypeError, ValueError) as error:
        raise Fault(f"an array of shape {shape} goes beyond its memory: {error}") from None


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Uninitialised memory as an array."""
    return ndarray(shape, dtype, order=order)


def _call(name: str, *args: Any, **kwargs: Any) -> Any:
    from tests.cuda.stand_in import functions

    return functions.lookup(name)(*args, **kwargs)


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: _call(name, self, *args, **kwargs)


for _name in (
    "all any argmax argmin argpartition argsort choose clip conj conjugate cumprod cumsum diagonal "
    "dot max mean min nonzero partition prod ptp put ravel repeat round searchsorted squeeze std "
    "sum swapaxes take trace var"
).split():
    setattr(ndarray, _name, _method(_name))
ndarray.flatten = lambda self, order="C": self.copy(order).ravel(order)  # type: ignore[attr-defined]


def _operand(other: Any) -> bool:
    """Whether an operator takes this; arrays of NumPy raise TypeError in the function itself."""
    return isinstance(other, (*SCALARS, ndarray, np.ndarray))


def _binary(name: str, swapped: bool = False) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        return _call(name, *((other, self) if swapped else (self, other)))

    return call


def _in_place(name: str) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> Any:
        return _call(name, self, other, out=self) if _operand(other) else NotImplemented

    return call


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "lshift": "left_shift",
    "rshift": "right_shift", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "divmod": "divmod",
}  # fmt: skip
for _short, _name in OPERATORS.items():
    setattr(ndarray, f"__{_short}__", _binary(_name))
    setattr(ndarray, f"__r{_short}__", _binary(_name, swapped=True))
    if _short != "divmod":
        setattr(ndarray, f"__i{_short}__", _in_place(_name))
for _short, _name in {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
                      "eq": "equal", "ne": "not_equal"}.items():  # fmt: skip
    setattr(ndarray, f"__{_short}__", _binary(_name))
for _short, _name in {"neg": "negative", "pos": "positive", "abs": "absolute",
                      "invert": "invert"}.items():  # fmt: skip
    setattr(ndarray, f"__{_short}__", _method(_name))
ndarray.__matmul__ = _binary("matmul")  # type: ignore[attr-defined]
ndarray.__rmatmul__ = _binary("matmul", swapped=True)  # type: ignore[attr-defined]
Shape = Sequence[int]
