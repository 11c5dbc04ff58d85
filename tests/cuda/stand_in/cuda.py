"""`cupy.cuda`: devices, streams, events, graphs, kernels, and the bare runtime and driver."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cuda.stand_in import memory, nvrtc
from tests.cuda.stand_in.machine import CUDARuntimeError, Fault, Mark, ended, gpu

_own = threading.local()


# ---- the runtime -------------------------------------------------------------------------------


class runtime:
    """`cupy.cuda.runtime`."""

    CUDARuntimeError = CUDARuntimeError
    memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost = 0, 1, 2
    memcpyDeviceToDevice, memcpyDefault = 3, 4
    streamDefault, streamNonBlocking, streamLegacy, streamPerThread = 0, 1, 1, 2
    streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = 0, 1, 2
    eventDefault, eventBlockingSync, eventDisableTiming = 0, 1, 2
    is_hip = False

    @staticmethod
    def getDeviceCount() -> int:
        if not gpu.devices:
            raise CUDARuntimeError(100)
        return gpu.devices

    @staticmethod
    def getDevice() -> int:
        return gpu.device

    @staticmethod
    def setDevice(device: int) -> None:
        gpu.device = device

    @staticmethod
    def getDeviceProperties(device: int) -> dict[str, Any]:
        if not 0 <= device < gpu.devices:
            raise CUDARuntimeError(101)
        major, minor = gpu.chip.capability
        return {
            "name": gpu.chip.name.encode(),
            "totalGlobalMem": gpu.chip.memory_bytes,
            "multiProcessorCount": gpu.chip.multiprocessors,
            "major": major,
            "minor": minor,
            "warpSize": 32,
            "clockRate": 1980000,
            "memoryClockRate": 2619000,
            "memoryBusWidth": 5120,
            "l2CacheSize": 50 << 20,
            "sharedMemPerBlock": 48 << 10,
            "sharedMemPerBlockOptin": gpu.chip.shared_bytes,
        }

    @staticmethod
    def memGetInfo() -> tuple[int, int]:
        _own.context = True  # as every call of the runtime that works on a device
        total = gpu.chip.memory_bytes
        return total - gpu.allocated[gpu.device], total

    @staticmethod
    def memset(ptr: int, value: int, size: int) -> None:
        memory.memset(ptr, value, size, 0)

    @staticmethod
    def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
        memory.memset(ptr, value, size, stream)

    @staticmethod
    def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        devices = {1: (dst,), 2: (src,), 3: (dst, src)}.get(kind, ())
        if any(gpu.find(a, size) is None for a in devices if size):
            raise CUDARuntimeError(1)
        gpu.copy(dst, src, size, stream)

    @classmethod
    def memcpy(cls, dst: int, src: int, size: int, kind: int) -> None:
        cls.memcpyAsync(dst, src, size, kind, 0)
        cls.streamSynchronize(0)

    @staticmethod
    def deviceSynchronize() -> None:
        gpu.wait_device("deviceSynchronize")

    @staticmethod
    def streamSynchronize(stream: int) -> None:
        gpu.wait_queue(gpu.queue(stream), "streamSynchronize")

    @staticmethod
    def streamIsCapturing(stream: int) -> bool:
        return gpu.queue(stream).capture is not None

    @staticmethod
    def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
        gpu.after(gpu.queue(stream), gpu.marks[event])

    @staticmethod
    def streamQuery(stream: int) -> int:
        last = gpu.queue(stream).last
        return 0 if last is None or last.done else 600

    @staticmethod
    def deviceCanAccessPeer(device: int, peerDevice: int) -> int:
        return int(gpu.peers and device != peerDevice)

    @staticmethod
    def runtimeGetVersion() -> int:
        return 13000

    @staticmethod
    def driverGetVersion() -> int:
        return 13000


ATTRIBUTES = {
    "ClockRate": 1980000,
    "GlobalMemoryBusWidth": 5120,
    "L2CacheSize": 50 << 20,
    "MaxGridDimX": 2**31 - 1,
    "MaxThreadsPerBlock": 1024,
    "MaxSharedMemoryPerBlock": 48 << 10,
    "MemoryClockRate": 2619000,
    "WarpSize": 32,
}


class Device:
    """A GPU; used in a `with`, the current one."""

    def __init__(self, device: Any = None) -> None:
        self.id = gpu.device if device is None else int(device)
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        before = gpu.device
        gpu.device = self.id
        self._before.append(before)
        return self

    def __exit__(self, *error: object) -> None:
        gpu.device = self._before.pop()

    def use(self) -> None:
        gpu.device = self.id

    def synchronize(self) -> None:
        with self:
            gpu.wait_device("Device.synchronize")

    @property
    def compute_capability(self) -> str:
        return "{}{}".format(*gpu.chip.capability)

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return runtime.memGetInfo()

    @property
    def attributes(self) -> dict[str, int]:
        runtime.getDeviceProperties(self.id)  # raises for a device that does not exist
        return ATTRIBUTES | {  # as in CuPy without the capability
            "MultiProcessorCount": gpu.chip.multiprocessors,
            "MaxSharedMemoryPerBlockOptin": gpu.chip.shared_bytes,
        }


# ---- streams and events --------------------------------------------------------------------------


class Event:
    """A point on a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self.ptr = next(gpu.handles)
        gpu.marks[self.ptr] = Mark(self.ptr, not disable_timing)

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if not ended():
            gpu.marks.pop(self.ptr, None)

    @property
    def done(self) -> bool:
        job = gpu.marks[self.ptr].job
        return job is None or job.done

    def record(self, stream: Any = None) -> None:
        stream = get_current_stream() if stream is None else stream
        gpu.record(gpu.marks[self.ptr], gpu.queue(stream.ptr))

    def synchronize(self) -> None:
        gpu.wait_mark(gpu.marks[self.ptr])


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events that are over."""
    marks = [gpu.marks[e.ptr] for e in (start_event, end_event)]
    if any(m.capture is not None for m in marks):
        raise CUDARuntimeError(907)
    if any(m.job is None or not m.timed for m in marks):
        raise CUDARuntimeError(400)
    if any(m.job is not None and not m.job.done for m in marks):
        raise CUDARuntimeError(600)
    first, last = (m.job.time for m in marks if m.job is not None)
    return 1e3 * (last - first)


class _BaseStream:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def __enter__(self) -> _BaseStream:
        self._fits()
        _stacks().setdefault(gpu.device, []).append(self)
        _order().append(gpu.device)
        return self

    def __exit__(self, *error: object) -> None:
        _stacks()[_order().pop()].pop()

    def _fits(self) -> None:
        if self.device_id not in (-1, gpu.device):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id})"
                f" does not match with the current device ({gpu.device})"
            )

    def use(self) -> _BaseStream:
        self._fits()
        stack = _stacks().setdefault(gpu.device, [])
        stack[-1:] = [self]
        return self

    @property
    def done(self) -> bool:
        return runtime.streamQuery(self.ptr) == 0

    def synchronize(self) -> None:
        gpu.wait_queue(gpu.queue(self.ptr), "Stream.synchronize")

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        gpu.after(gpu.queue(self.ptr), gpu.marks[event.ptr])

    def launch_host_func(self, callback: Any, arg: Any) -> None:
        gpu.host_function(gpu.queue(self.ptr), lambda: callback(arg))

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        gpu.begin(gpu.queue(self.ptr), runtime.streamCaptureModeRelaxed if mode is None else mode)

    def end_capture(self) -> Graph:
        made = Graph.__new__(Graph)
        made.graph = made.graphExec = gpu.end(gpu.queue(self.ptr))
        return made

    def is_capturing(self) -> bool:
        return runtime.streamIsCapturing(self.ptr)

    @property
    def is_non_blocking(self) -> bool:
        return not gpu.queue(self.ptr).blocking


class Stream(_BaseStream):
    """A stream of the current device."""

    null: Stream
    ptds: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ) -> None:
        if null or ptds:
            super().__init__(0 if null else runtime.streamPerThread, -1)
        else:
            super().__init__(gpu.create(not non_blocking), gpu.device)

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if not ended() and self.ptr > 2:
            queue = gpu.queues.get((-1, self.ptr))
            if queue is not None and (queue.last is None or queue.last.done):
                del gpu.queues[-1, self.ptr]


class ExternalStream(_BaseStream):
    """Another library's stream."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        super().__init__(ptr, device_id)


Stream.null, Stream.ptds = Stream(null=True), Stream(ptds=True)


def _stacks() -> dict[int, list[_BaseStream]]:
    if not hasattr(_own, "stacks"):
        _own.stacks, _own.order = {}, []
    return _own.stacks  # type: ignore[no-any-return]


def _order() -> list[int]:
    _stacks()
    return _own.order  # type: ignore[no-any-return]


def get_current_stream(device_id: int = -1) -> Any:
    """The stream that work goes to."""
    stack = _stacks().get(gpu.device if device_id < 0 else device_id)
    return stack[-1] if stack else Stream.null


class Graph:
    """Recorded work."""

    graph = graphExec = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("currently this class cannot be initiated by the user")

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if not ended():
            gpu.graphs.pop(self.graph, None)

    def launch(self, stream: Any = None) -> None:
        stream = get_current_stream() if stream is None else stream
        gpu.replay(self.graph, gpu.queue(stream.ptr))

    def upload(self, stream: Any = None) -> None:
        """Nothing is to be prepared."""


# ---- kernels -------------------------------------------------------------------------------------


class CUDADriverError(RuntimeError):
    """An error of the driver."""

    def __init__(self, status: int, name: str, text: str) -> None:
        self.status = status
        super().__init__(f"{name}: {text}")


class driver:
    """`cupy.cuda.driver`."""

    CUDADriverError = CUDADriverError
    CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8

    @staticmethod
    def funcSetAttribute(func: int, attribute: int, value: int) -> None:
        _needs_context()
        entry = _entries[func]
        if attribute != 8 or value > gpu.chip.shared_bytes:
            raise CUDADriverError(1, "CUDA_ERROR_INVALID_VALUE", "invalid argument")
        entry.granted = value

    @staticmethod
    def launchKernel(
        f: int, grid_dim_x: int, grid_dim_y: int, grid_dim_z: int, block_dim_x: int,
        block_dim_y: int, block_dim_z: int, shared_mem_bytes: int, stream: int,
        kernel_params: int, extra: int,
    ) -> None:  # fmt: skip
        _needs_context()
        entry = _entries[f]
        count = len(entry.sizes())
        places = (ctypes.c_void_p * count).from_address(kernel_params) if count else ()
        values = [ctypes.string_at(p, abs(n)) for p, n in zip(places, entry.sizes(), strict=True)]
        grid = (grid_dim_x, grid_dim_y, grid_dim_z)
        _start(entry, grid, (block_dim_x, block_dim_y, block_dim_z), shared_mem_bytes, stream,
               values)  # fmt: skip


_entries: dict[int, nvrtc.Entry] = {}


def _needs_context() -> None:
    """The driver's calls know no GPU in a thread where the runtime has not been called."""
    if not getattr(_own, "context", False):
        raise CUDADriverError(201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context")


class Module:
    """Loaded machine code."""

    def __init__(self) -> None:
        self.ptr, self._code = 0, None

    def load(self, cubin: bytes) -> None:
        if not isinstance(cubin, bytes):
            raise TypeError(f"Argument 'cubin' has incorrect type: {type(cubin).__name__}")
        self._code = nvrtc.Code.load(cubin)
        if self._code is None or self._code.architecture != "sm_{}{}".format(*gpu.chip.capability):
            text = "no kernel image is available for execution on the device"
            raise CUDADriverError(209, "CUDA_ERROR_NO_BINARY_FOR_GPU", text)
        self.ptr = next(gpu.handles)

    def get_function(self, name: str) -> Function:
        return Function(self, name)


class Function:
    """A kernel."""

    def __init__(self, module: Module, funcname: str) -> None:
        entry = module._code.entries.get(funcname) if module._code is not None else None
        if entry is None:
            raise CUDADriverError(500, "CUDA_ERROR_NOT_FOUND", "named symbol not found")
        self.module, self.name, self.ptr = module, funcname, next(gpu.handles)
        _entries[self.ptr] = entry

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if not ended():
            _entries.pop(getattr(self, "ptr", 0), None)

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Any,
        shared_mem: int = 0,
        stream: Any = None,
        enable_cooperative_groups: bool = False,
    ) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("grid and block are tuples")
        grid, block = ((*d, 1, 1)[:3] for d in (grid, block))
        given = get_current_stream() if stream is None else stream
        shape = [tuple(max(1, int(n)) for n in d) for d in (grid, block)]
        _start(_entries[self.ptr], *shape, shared_mem, given.ptr, [_bytes(a) for a in args])


def _bytes(value: Any) -> bytes:
    """A parameter as CuPy passes it."""
    from tests.cuda.stand_in.arrays import ndarray

    if isinstance(value, ndarray):
        return np.uint64(value.data.ptr).tobytes()
    if isinstance(value, memory.MemoryPointer):
        return np.uint64(value.ptr).tobytes()
    if value is None:
        return bytes(8)
    if isinstance(value, np.ndarray) and value.size != 1:
        raise TypeError(
            f"You are trying to pass a numpy.ndarray of shape {value.shape} as a kernel parameter."
        )
    if isinstance(value, np.generic | np.ndarray | bool | int | float | complex):
        return np.asarray(value).tobytes()
    raise TypeError(f"Unsupported type {type(value)}")


def _start(
    entry: nvrtc.Entry,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    shared: int,
    stream: int,
    values: list[bytes],
) -> None:
    """Check and start a kernel."""
    threads, sizes = block[0] * block[1] * block[2], entry.sizes()
    if threads > 1024 or (shared > 48 << 10 and shared > entry.granted) or grid[0] >= 2**31:
        raise CUDADriverError(1, "CUDA_ERROR_INVALID_VALUE", "invalid argument")
    if threads > entry.most:
        text = "too many resources requested for launch"
        raise CUDADriverError(701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", text)
    if max(grid[1:] + block[1:]) > 1:
        raise Fault("the emulation knows the x axis of grids and blocks only")
    if [len(v) for v in values] != [abs(n) for n in sizes]:
        given = [len(v) for v in values]
        raise Fault(
            f"{entry.name} takes parameters of {[abs(n) for n in sizes]} bytes, not {given}"
        )
    pointers = [int.from_bytes(v, "little") for v, n in zip(values, sizes, strict=True) if n < 0]
    spans = [(p, 1) for p in pointers if p]
    gpu.kernel(entry.name, lambda: entry.run(grid[0], threads, shared, values), spans, stream)


def is_available() -> bool:
    return gpu.devices > 0


def alloc_pinned_memory(size: int) -> memory.PinnedMemoryPointer:
    """Pinned memory of the host."""
    return memory.PinnedMemoryPool().malloc(size)
