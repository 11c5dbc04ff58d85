"""Host memory: arrays over blocks that are kept and used again.

A fresh page costs microseconds, so large arrays live in blocks that come back to their shelf when
the array and all its views have died. Blocks of 2 MiB and more are aligned to, and ask for, huge
pages. Nothing here waits for a lock in a finaliser, which may run at any moment in any thread.
"""

from __future__ import annotations

import collections
import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["address", "empty", "empty_cache", "memory_stats"]

_SMALL_BYTES = 256 << 10
_HUGE_PAGE = 2 << 20
_STEPS_PER_OCTAVE = 8
_IDLE_FRACTION = 0.25
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An uninitialised C-ordered array, from kept memory where it is large.

    Args:
        shape: sizes, none negative.
        dtype: a NumPy dtype object, not a string.

    Raises:
        MemoryError: the system has no memory of that size.

    >>> empty((1024, 1024), np.dtype("float32")).shape
    (1024, 1024)
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _SMALL_BYTES or dtype.hasobject:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, _arena.lease(nbytes))


def memory_stats() -> dict[str, int]:
    """Bytes of large blocks: `in_use`, `idle` (kept for later), `limit` of idle ones, and how many
    blocks were reused (`hits`) or newly mapped (`misses`) so far."""
    return _arena.stats()


def empty_cache() -> int:
    """Give all idle blocks back to the system; returns their bytes.

    >>> empty_cache() >= 0
    True
    """
    return _arena.trim(0)


class _Block:
    """A private mapping; `address` is that of its first usable byte."""

    __slots__ = ("address", "mapping", "shelf")

    def __init__(self, shelf: _Shelf) -> None:
        self.shelf = shelf
        huge = shelf.size >= _HUGE_PAGE
        self.mapping = _map(shelf.size + (_HUGE_PAGE if huge else 0))
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        self.address = start + (-start % _HUGE_PAGE if huge else 0)
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self.mapping.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages


def _map(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    # Shared is the default of Python: a forked child would write into its parent's arrays.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)


class _Shelf:
    """Idle blocks of one size, and the type of what lends them out."""

    __slots__ = ("arena", "idle", "lease_type", "size")

    def __init__(self, arena: _Arena, size: int) -> None:
        self.arena = arena
        self.size = size
        self.idle: collections.deque[_Block] = collections.deque()
        # NumPy takes memory from objects with a buffer, and ctypes arrays have one. The array
        # and through it every view holds the lease; when it dies the block is free.
        body = {"_type_": ctypes.c_char, "_length_": size, "__del__": _give_back}
        self.lease_type: Any = type("Lease", (ctypes.Array,), body)


def _give_back(lease: Any) -> None:
    block = getattr(lease, "block", None)
    if block is None:
        return
    # Reached through the lease alone: at interpreter exit module names may be gone.
    shelf = block.shelf
    shelf.idle.append(block)
    arena = shelf.arena
    if arena.mapped > arena.idle_limit:
        arena.trim(arena.idle_limit, wait=False)


class _Arena:
    """All shelves of the process."""

    def __init__(self) -> None:
        self._shelves: dict[int, _Shelf] = {}
        self.lock = threading.Lock()
        self.idle_limit = -1
        self.mapped = 0
        self._hits = 0
        self._misses = 0

    def lease(self, nbytes: int) -> Any:
        """An object with a writable buffer of at least `nbytes` bytes."""
        shelf = self._shelf(_size_class(nbytes))
        try:
            block = shelf.idle.pop()
            self._hits += 1
        except IndexError:
            block = self._new_block(shelf)
        lease = shelf.lease_type.from_address(block.address)
        lease.block = block
        return lease

    def trim(self, limit: int, wait: bool = True) -> int:
        """Unmap idle blocks, those idle longest of the fullest shelf first, down to `limit` bytes.

        With `wait` False it does nothing while another thread, or this one further up its own
        stack, holds the lock.
        """
        if not self.lock.acquire(blocking=wait):
            return 0
        freed = 0
        try:
            idle = self._idle_bytes()
            while idle - freed > limit:
                shelf = max(self._shelves.values(), key=lambda s: len(s.idle) * s.size)
                freed += self._unmap_oldest(shelf)
        except IndexError:
            pass  # another thread took the last block
        finally:
            self.mapped -= freed
            self.lock.release()
        return freed

    def stats(self) -> dict[str, int]:
        idle = self._idle_bytes()
        return {
            "in_use": max(0, self.mapped - idle),
            "idle": idle,
            "limit": self._limit(),
            "hits": self._hits,
            "misses": self._misses,
        }

    def _idle_bytes(self) -> int:
        return sum(len(shelf.idle) * shelf.size for shelf in list(self._shelves.values()))

    def _unmap_oldest(self, shelf: _Shelf) -> int:
        shelf.idle.popleft().mapping.close()
        return shelf.size

    def _shelf(self, size: int) -> _Shelf:
        found = self._shelves.get(size)
        return self._shelves.setdefault(size, _Shelf(self, size)) if found is None else found

    def _limit(self) -> int:
        if self.idle_limit < 0:
            self.idle_limit = _idle_limit(os.environ.get("GRAPHNN_CACHE_MEMORY", ""))
        return self.idle_limit

    def _new_block(self, shelf: _Shelf) -> _Block:
        self._limit()
        try:
            block = _Block(shelf)
        except (OSError, MemoryError):
            # What is kept for later may be what is missing now.
            self.trim(0)
            block = self._last_try(shelf)
        with self.lock:
            self.mapped += shelf.size
            self._misses += 1
        return block

    def _last_try(self, shelf: _Shelf) -> _Block:
        try:
            return _Block(shelf)
        except (OSError, MemoryError) as error:
            raise MemoryError(f"cannot allocate {shelf.size} bytes for an array") from error


def _size_class(nbytes: int) -> int:
    """The next size of eight per power of two: close sizes share blocks, an eighth is lost."""
    step = max(4096, (1 << (nbytes - 1).bit_length()) // (2 * _STEPS_PER_OCTAVE))
    return -(-nbytes // step) * step


def _idle_limit(setting: str) -> int:
    """Bytes that may lie idle: a fraction of memory (`0.1`), or bytes (`800M`, `2G`, `0`)."""
    text = setting.strip().upper().removesuffix("B")
    total = _system_memory()
    try:
        if text[-1:] in _UNITS:
            return max(0, int(float(text[:-1]) * _UNITS[text[-1]]))
        value = float(text) if text else _IDLE_FRACTION
    except ValueError:
        value = _IDLE_FRACTION
    if not math.isfinite(value) or value < 0:
        value = _IDLE_FRACTION
    return int(value * total) if value <= 1 else int(value)


def _system_memory() -> int:
    """Bytes of memory that this process may use, 8 GiB where the system does not say."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        total = _windows_memory() if sys.platform == "win32" else 8 << 30
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return min(total, int(file.read()))
    except (OSError, ValueError):
        return total


def _windows_memory() -> int:
    # MEMORYSTATUSEX: two 32-bit fields, then seven 64-bit ones, of which the first is the total.
    status = (ctypes.c_uint64 * 8)()
    ctypes.c_uint32.from_buffer(status).value = ctypes.sizeof(status)
    kernel32 = getattr(ctypes, "windll").kernel32  # noqa: B009 - other systems lack it
    kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status[1])


def _address_reader() -> Callable[[np.ndarray[Any, Any]], int]:
    """The fastest way to an array's data pointer that proves right on this interpreter.

    NumPy's array object holds the pointer right behind the object header; reading it there takes
    a tenth of the time that the array interface takes.
    """
    if sys.implementation.name != "cpython":
        return _address_by_interface
    offset = object.__basicsize__
    read = ctypes.c_size_t.from_address

    def address(array: np.ndarray[Any, Any]) -> int:
        if type(array) is not np.ndarray:  # anything else holds no pointer there
            return _address_by_interface(array)
        return read(id(array) + offset).value

    probe = np.zeros(4, np.int32)
    right = all(address(a) == _address_by_interface(a) for a in (probe, probe[1:], probe[:0]))
    return address if right else _address_by_interface


def _address_by_interface(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


_read_address = _address_reader()


def address(array: np.ndarray[Any, Any]) -> int:
    """Address of the array's first element, as an integer; the array must be kept alive.

    >>> values = np.arange(4)
    >>> address(values) == values.ctypes.data
    True
    """
    return _read_address(array)


_arena = _Arena()


def _after_fork() -> None:
    # Another thread of the parent may have held it.
    _arena.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
