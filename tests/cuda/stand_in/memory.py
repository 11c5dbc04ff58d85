"""`cupy.cuda.memory` and pinned memory: pointers, the pool with its arenas for each stream."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.cuda.stand_in.machine import UNIT, Block, CUDARuntimeError, Fault, ended, gpu


class OutOfMemoryError(MemoryError):
    """The pool's limit or the device's memory is reached."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size, self._total, self._limit = size, total, limit
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))

    def __reduce__(self) -> Any:
        return type(self), (self._size, self._total, self._limit)


class BaseMemory:
    """Memory with an address. block: what the emulation knows of it."""

    ptr, size, device_id = 0, 0, 0
    block: Block | None = None

    def __int__(self) -> int:
        return self.ptr

    @property
    def device(self) -> Any:
        from tests.cuda.stand_in.cuda import Device

        return Device(self.device_id)


class Memory(BaseMemory):
    """Memory by cudaMalloc."""

    def __init__(self, size: int) -> None:
        self.size, self.device_id = size, gpu.device
        if size:
            self.block = gpu.allocate(size)
            self.ptr = self.block.start

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if self.block is not None and not ended():
            gpu.release(self.block)


class UnownedMemory(BaseMemory):
    """Memory that another library owns."""

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self._owner = ptr, size, owner
        self.block = gpu.find(ptr, max(1, size)) if size else None
        if size and self.block is None:
            raise CUDARuntimeError(1)
        found = self.block.device if self.block is not None else gpu.device
        self.device_id = found if device_id < 0 else device_id


class PooledMemory(BaseMemory):
    """Memory of a pool, given back when nothing refers to it."""

    def __init__(self, block: Block, pool: SingleDeviceMemoryPool, stream: int) -> None:
        self.block, self._stream = block, stream
        self.ptr, self.size, self.device_id = block.start, block.size, block.device
        self._pool = weakref.ref(pool)

    def free(self) -> None:
        """Give the memory back now."""
        block, self.ptr, self.size = self.block, 0, 0
        pool = self._pool()
        if block is not None and block.live and pool is not None:
            pool.take_back(block, self._stream)
        self.block = None

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if not ended():
            self.free()


class MemoryPointer:
    """A place in memory, which it keeps alive."""

    def __init__(self, mem: BaseMemory, offset: int) -> None:
        assert mem.ptr or not offset
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    def __int__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<MemoryPointer 0x{self.ptr:x} device={self.device_id} mem={self.mem!r}>"

    @property
    def device(self) -> Any:
        return self.mem.device

    def __add__(self, offset: int) -> MemoryPointer:
        if not isinstance(offset, int | np.integer):
            raise TypeError(f"an integer is required, not {type(offset).__name__}")
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + int(offset))

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        _no_capture("synchronous API calls")
        _copy(self.ptr, src.ptr, size, 0)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        if not isinstance(src, MemoryPointer):
            raise TypeError("Argument 'src' has incorrect type")
        _copy(self.ptr, src.ptr, size, _stream(stream))

    def copy_from_host(self, mem: Any, size: int) -> None:
        _no_capture("synchronous API calls")
        _copy(self.ptr, _address(mem), size, 0)

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        _no_capture("H2D transfers", stream)
        _copy(self.ptr, _address(mem), size, _stream(stream))

    def copy_to_host(self, mem: Any, size: int) -> None:
        _no_capture("synchronous API calls")
        _copy(_address(mem), self.ptr, size, 0)

    def copy_to_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        _no_capture("D2H transfers", stream)
        _copy(_address(mem), self.ptr, size, _stream(stream))

    def copy_from_async(self, mem: Any, size: int, stream: Any = None) -> None:
        device = isinstance(mem, MemoryPointer)
        copy = self.copy_from_device_async if device else self.copy_from_host_async
        copy(mem, size, stream)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        if size:
            memset(self.ptr, value, size, _stream(stream))


def memset(ptr: int, value: int, size: int, stream: int) -> None:
    """cudaMemsetAsync."""
    there = gpu.memory(ptr, size)
    work = lambda: there.fill(value & 255)  # noqa: E731
    gpu.kernel("memset", work, [(ptr, size)], stream)


def _address(mem: Any) -> int:
    return mem if isinstance(mem, int) else int(mem.value)


def _stream(stream: Any) -> int:
    from tests.cuda.stand_in.cuda import get_current_stream

    return int((get_current_stream() if stream is None else stream).ptr)


def _no_capture(what: str, stream: Any = None) -> None:
    if gpu.queue(_stream(stream)).capture is not None:
        raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")


def _copy(target: int, source: int, size: int, stream: int) -> None:
    if size:
        gpu.copy(target, source, size, stream)


class SingleDeviceMemoryPool:
    """Free blocks of one device, kept for the stream that they were made on. Unlike CuPy's, blocks
    are not split: a block serves requests of its own size."""

    def __init__(self, device: int) -> None:
        self.device, self.limit, self.used, self.total = device, 0, 0, 0
        self.arenas: dict[int, dict[int, list[Block]]] = {}

    def malloc(self, wanted: int) -> MemoryPointer:
        if not wanted:
            return MemoryPointer(Memory(0), 0)
        size, stream = -(-wanted // UNIT) * UNIT, _stream(None)
        with gpu.lock:
            free = self.arenas.setdefault(stream, {}).get(size)
            block = free.pop() if free else self._new(size)
            block.live, block.wanted = True, wanted
            self.used += size
        return MemoryPointer(PooledMemory(block, self, stream), 0)

    def _new(self, size: int) -> Block:
        steps: list[Callable[[], Any]] = [self.free_all_blocks, gc.collect, self.free_all_blocks]
        while True:
            fits = not self.limit or self.total + size <= self.limit
            try:
                if fits:
                    block = gpu.allocate(size)
                    self.total += size
                    return block
            except CUDARuntimeError as error:
                if error.status != 2:
                    raise
            if not steps:
                raise OutOfMemoryError(size, self.total, self.limit)
            steps.pop(0)()

    def take_back(self, block: Block, stream: int) -> None:
        """Poison memory when the work before on its stream is done, and keep it."""
        with gpu.lock:
            if block.start not in gpu.blocks:
                return  # of a machine that was reset
            block.check("somebody")
            block.live, block.uses, block.wanted = False, block.uses + 1, block.size
            queue = gpu.queues.get((self.device if stream < 3 else -1, stream))
            if queue is None:
                block.poison()
            elif queue.capture is None:
                gpu.submit(queue, "free", block.poison)
            self.used -= block.size
            self.arenas.setdefault(stream, {}).setdefault(block.size, []).append(block)

    def free_all_blocks(self, stream: Any = None) -> None:
        with gpu.lock:
            for key, arena in self.arenas.items():
                if stream is not None and key != stream.ptr:
                    continue
                for block in [b for blocks in arena.values() for b in blocks]:
                    self.total -= block.size
                    block.live = False
                    gpu.release(block)
                arena.clear()


class MemoryPool:
    """A pool for each device."""

    def __init__(self, allocator: Any = None) -> None:
        self._pools: dict[int, SingleDeviceMemoryPool] = {}

    def _own(self) -> SingleDeviceMemoryPool:
        return self._pools.setdefault(gpu.device, SingleDeviceMemoryPool(gpu.device))

    def malloc(self, size: int) -> MemoryPointer:
        if size < 0:
            raise OverflowError("can't convert negative value to size_t")
        return self._own().malloc(int(size))

    def free_all_blocks(self, stream: Any = None) -> None:
        self._own().free_all_blocks(stream)

    def n_free_blocks(self) -> int:
        return sum(len(b) for arena in self._own().arenas.values() for b in arena.values())

    def used_bytes(self) -> int:
        return self._own().used

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def total_bytes(self) -> int:
        return self._own().total

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if size is not None and fraction is not None:
            raise ValueError("size and fraction cannot be specified at one time")
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"memory limit fraction out of range: {fraction}")
        if size is not None and size < 0:
            raise ValueError(f"memory limit size out of range: {size}")
        self._own().limit = int((fraction or 0) * gpu.chip.memory_bytes) if size is None else size

    def get_limit(self) -> int:
        return self._own().limit


# ---- pinned memory -----------------------------------------------------------------------------


class PinnedMemory:
    """Memory of the host that copies reach without a stop."""

    def __init__(self, size: int, flags: int = 0) -> None:
        self.block = gpu.allocate(max(1, size), pinned=True)
        self.ptr, self.size = self.block.start, size

    def __int__(self) -> int:
        return self.ptr

    def __del__(self, ended: Callable[[], bool] = ended) -> None:
        if not ended():
            gpu.release(self.block)


class PinnedMemoryPointer:
    """A place in pinned memory; NumPy sees it as a buffer, which needs a class made in C."""

    mem: PinnedMemory
    ptr: int

    def __new__(cls, mem: PinnedMemory, offset: int = 0) -> PinnedMemoryPointer:
        size = mem.size - offset
        kind = type("PinnedMemoryPointer", (cls, ctypes.c_ubyte * size), {})
        made: PinnedMemoryPointer = kind.from_address(mem.ptr + offset)  # type: ignore[attr-defined]
        made.mem, made.ptr = mem, mem.ptr + offset
        return made

    def __init__(self, mem: PinnedMemory, offset: int = 0) -> None:
        """Everything is done."""

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> PinnedMemoryPointer:
        return PinnedMemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    def size(self) -> int:
        return self.mem.size - (self.ptr - self.mem.ptr)


class PinnedMemoryPool:
    """Pinned memory; every request is a new allocation."""

    def __init__(self, allocator: Any = None) -> None:
        self._made: weakref.WeakSet[PinnedMemory] = weakref.WeakSet()

    def malloc(self, size: int) -> PinnedMemoryPointer:
        mem = PinnedMemory(size)
        self._made.add(mem)
        return PinnedMemoryPointer(mem, 0)

    def free_all_blocks(self) -> None:
        """Nothing is kept."""

    def n_free_blocks(self) -> int:
        return 0


# ---- the current allocator -----------------------------------------------------------------------

_own = threading.local()


class _State:
    allocator: Any = None


def alloc(size: int) -> MemoryPointer:
    """Memory by the current allocator."""
    found = getattr(_own, "allocator", None) or _State.allocator
    pointer = found(int(size))
    if not isinstance(pointer, MemoryPointer):
        raise Fault("an allocator gave something else than a MemoryPointer")
    return pointer


def set_allocator(allocator: Any = None) -> None:
    """The allocator of all threads; None is cudaMalloc."""
    _State.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))


def get_allocator() -> Any:
    return getattr(_own, "allocator", None) or _State.allocator


@contextlib.contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """The allocator of this thread for a while."""
    before = getattr(_own, "allocator", None)
    _own.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
    try:
        yield
    finally:
        _own.allocator = before
