"""The devices of this process: one backend for the host and one for each GPU.

An array that is no `numpy.ndarray` is a `cupy.ndarray` and lies on a GPU. As long as no GPU has
been used, `used` is False and nothing here is asked: the fast paths of eager code stay as they are.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphnn.runtime import memory
from graphnn.runtime.cuda import device as cuda_device
from graphnn.runtime.cuda import nccl
from graphnn.runtime.errors import ArgumentError
from graphnn.runtime.later import Later

if TYPE_CHECKING:
    from graphnn.runtime.cuda.backend import Gpu

Array = Any
HOST = "/device:CPU:0"

_backend = Later("graphnn.runtime.cuda.backend")


class Backend(Protocol):
    """A device as eager code and programs see it. Arrays are those of `xp`."""

    name: str
    kind: str
    index: int
    xp: Any

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which new arrays of `xp` are on this device."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array."""

    def upload(self, values: np.ndarray[Any, Any]) -> Array:
        """A NumPy array on this device; on the host the array itself."""

    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """The values on the host; waits. Raises the error of a check that failed before."""

    def copy(self, target: Array, source: Array) -> None:
        """Overwrite an array of this device with one of the host or of this device."""

    def duplicate(self, array: Array) -> Array:
        """The values in memory of their own, dense."""

    def address(self, array: Array) -> int:
        """Where the first element is."""

    def synchronize(self) -> None:
        """Wait for all work. Raises the error of a check that failed in it."""

    def memory_info(self) -> dict[str, int]:
        """Bytes in use (`current`) and the most so far (`peak`)."""


class Host:
    """The CPU: NumPy arrays."""

    name, kind, index = HOST, "CPU", 0
    xp = np

    def scope(self) -> AbstractContextManager[Any]:
        """Nothing to be done."""
        return nullcontext()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of the caching allocator."""
        return memory.empty(shape, dtype)

    def upload(self, values: np.ndarray[Any, Any]) -> Array:
        """The array itself."""
        return values

    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """The array itself."""
        return array  # type: ignore[no-any-return]

    def copy(self, target: Array, source: Array) -> None:
        """Overwrite an array."""
        np.copyto(target, source)

    def duplicate(self, array: Array) -> Array:
        """A dense copy."""
        return np.array(array, order="C")

    def address(self, array: Array) -> int:
        """Where the first element is."""
        return memory.address(array)

    def synchronize(self) -> None:
        """Nothing is under way: calls on the host return when they are done."""

    def memory_info(self) -> dict[str, int]:
        """Bytes of large blocks in use, and of all that are mapped."""
        stats = memory.memory_stats()
        return {"current": stats["in_use"], "peak": stats["in_use"] + stats["idle"]}


host = Host()

# ---- whether a GPU is in use ------------------------------------------------------------------

used = False  # whether eager code has to look where arrays are
ARRAYS: tuple[type, ...] = ()  # what an array on a GPU is an instance of
on_change: list[Callable[[bool], None]] = []  # called with the new `used`
on_refresh: list[Callable[[], None]] = []  # called when all is forgotten

_gpus: dict[int, Gpu] = {}
_lock = threading.RLock()


def _use(on: bool) -> None:
    global used
    if used is not on:
        used = on
        for hook in on_change:
            hook(on)


def gpu(index: int = 0) -> Gpu:
    """The backend of a physical GPU. Raises DeviceError if there is none of that number."""
    found = _gpus.get(index)
    return found if found is not None else _begin(index)


def _begin(index: int) -> Gpu:
    global ARRAYS
    with _lock:
        if index not in _gpus:
            cuda_device.require_gpu(f"GPU {index}")
            if not 0 <= index < cuda_device.count():
                raise cuda_device.DeviceError(
                    f"GPU {index}",
                    received=f"number {index}",
                    expected=f"one below {cuda_device.count()}, the number of GPUs here",
                    fix="see graphnn.config.list_physical_devices('GPU')",
                )
            import cupy

            ARRAYS = (cupy.ndarray,)
            _gpus[index] = _backend.Gpu(index, name_of(index))
            _use(True)
        return _gpus[index]


def refresh() -> None:
    """Forget which GPUs there are and what was chosen; arrays on them must be gone."""
    global ARRAYS
    with _lock:
        _use(False)
        _gpus.clear()
        ARRAYS = ()
        cuda_device.forget()
        nccl.forget()
        _choice.reset()
        for hook in on_refresh:
            hook()
        _use(_may_have_gpu())


def backends() -> list[Gpu]:
    """The GPUs that have been used."""
    return list(_gpus.values())


def backend_of(array: Array) -> Any:
    """The backend on whose device an array lies."""
    if isinstance(array, ARRAYS):
        return gpu(array.data.device_id)  # type: ignore[attr-defined]
    return host


def is_device_array(value: Any) -> bool:
    """Whether a value is an array on a GPU."""
    return isinstance(value, ARRAYS)


def on_host(array: Array) -> Any:
    """The array, or its values on the host if it is on a GPU: waits then."""
    return backend_of(array).download(array) if isinstance(array, ARRAYS) else array


def duplicate(array: Array) -> Array:
    """A dense copy on the same device."""
    return backend_of(array).duplicate(array)


def dense(array: Array) -> Array:
    """The array itself if it is row-major without gaps, else a copy that is."""
    return array if array.flags.c_contiguous else duplicate(array)


def travels(body: Any) -> bool:
    """Whether a leaf of a batch can be copied to a GPU: an array on the host of a dtype that GPUs
    have, which text is not."""
    return type(body) is np.ndarray and body.dtype.kind in "biufV"  # bfloat16 is V


def share_memory(a: Array, b: Array) -> bool:
    """Whether two arrays may lie in one piece of memory."""
    if isinstance(a, ARRAYS) or isinstance(b, ARRAYS):
        return type(a) is type(b) and a.data.mem is b.data.mem
    return np.may_share_memory(a, b)


def move(array: Array, target: Any) -> Array:
    """The values on another device, or the array itself if it is there."""
    source = backend_of(array)
    if source is target:
        return array
    if source is not host and target is not host:
        return target.receive(array, source)
    return target.upload(source.download(array))


# ---- memory of Variables ------------------------------------------------------------------------

_guarded: dict[int, int] = {}  # id of a piece of memory: how many Variables live in it


def guard(array: Array) -> Any:
    """Mark an array's memory as that of a Variable. Returns a function that ends it."""
    memory = array.data.mem
    key = id(memory)
    _guarded[key] = _guarded.get(key, 0) + 1

    def end(_memory: Any = memory) -> None:  # holds the memory, so that its id stays its own
        left = _guarded.get(key, 1) - 1
        if left:
            _guarded[key] = left
        else:
            _guarded.pop(key, None)

    return end


def is_guarded(array: Array) -> bool:
    """Whether an array on a GPU lies in the memory of a Variable."""
    return id(array.data.mem) in _guarded


def is_lent(array: Array) -> bool:
    """Whether an array shows a Variable's memory, which the next assign overwrites."""
    return is_guarded(array) if isinstance(array, ARRAYS) else not array.flags.writeable


# ---- names --------------------------------------------------------------------------------------


class _Choice:
    """What the user chose: the visible GPUs, the parts of each, and the default device.

    visible: numbers of the GPUs in the order of their logical names, None for all. parts: how many
    logical devices a physical one shows as. default: a backend, or None for the first GPU if there
    is one.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As when the process began."""
        self.visible: list[int] | None = None
        self.parts: dict[int, int] = {}
        self.default: Any = None


_choice = _Choice()


def visible() -> list[int]:
    """Numbers of the physical GPUs that may be used."""
    count = 0 if cuda_device.why_not() else cuda_device.count()
    return list(range(count)) if _choice.visible is None else list(_choice.visible)


def logical() -> list[int]:
    """The physical GPU of each logical one, in the order of their names."""
    return [index for index in visible() for _ in range(_choice.parts.get(index, 1))]


def set_visible(indices: Sequence[int] | None) -> None:
    """Choose the GPUs that may be used, None for all; also which of them is the default device."""
    with _lock:
        _choice.visible = None if indices is None else list(indices)
        _rename()


def set_parts(index: int, parts: int) -> None:
    """Let a GPU show as several logical devices."""
    with _lock:
        _choice.parts[index] = parts
        _rename()


def _rename() -> None:
    for index, backend in _gpus.items():
        backend.name = name_of(index)
    if _choice.default is not None and _choice.default is not host:
        _choice.default = None
    _use(bool(_gpus) or _may_have_gpu())


def name_of(index: int) -> str:
    """The logical name of a physical GPU: that of its first part."""
    known = logical()
    return f"/device:GPU:{known.index(index) if index in known else index}"


def named(name: str) -> Any:
    """The backend of a full name such as "/device:GPU:0". Raises DeviceError without that GPU."""
    _, kind, number = name.rsplit(":", 2)
    if kind.endswith("CPU"):
        return host
    cuda_device.require_gpu(name)
    known = logical()
    if int(number) >= len(known):
        raise ArgumentError(
            "a device",
            received=repr(name),
            expected=f"a GPU below {len(known)}",
            fix="see graphnn.config.list_logical_devices('GPU')",
        )
    return gpu(known[int(number)])


# ---- the default device -------------------------------------------------------------------------


def default() -> Any:
    """Where ops without inputs run outside of `device` contexts.

    The first visible GPU if CuPy and a GPU are there, else the CPU; the environment variable
    GRAPHNN_DEVICE (cpu, gpu or gpu:1) and `set_default` say otherwise.
    """
    if not used:
        return host
    if _choice.default is None:
        _choice.default = _first_choice()
        if _choice.default is host:
            _use(bool(_gpus))
    return _choice.default


def set_default(backend: Any) -> None:
    """Choose the default device; None goes back to the first choice."""
    with _lock:
        _choice.default = backend
        _use(bool(_gpus) or (backend is None and _may_have_gpu()))


def _wish() -> str:
    return os.environ.get("GRAPHNN_DEVICE", "").strip().lower()


def _first_choice() -> Any:
    wish = _wish()
    if wish and not wish.startswith("cpu"):
        number = wish.rpartition(":")[2] if ":" in wish else "0"
        return named(f"/device:GPU:{number}")
    if wish or cuda_device.why_not() or not visible():
        return host
    return gpu(visible()[0])


def _may_have_gpu() -> bool:
    """Whether the default device may be a GPU, without looking for one: import stays quick."""
    wish = _wish()
    if wish.startswith("cpu") or _choice.visible == []:
        return False
    return bool(wish) or "cupy" in sys.modules or importlib.util.find_spec("cupy") is not None


def prepare() -> None:
    """Called once when graphnn has been imported: eager code asks for the default device only
    where it may be a GPU."""
    _use(_may_have_gpu())
