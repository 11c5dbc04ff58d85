"""The thread pool that runs parallel regions of compiled programs.

`parallel_address()` is the address of

    void gnn_parallel(ptr kernel, ptr buffers, ptr sizes, i64 total, i64 grain, i64 parts)

which splits [0, total) into `parts` ranges whose bounds are multiples of `grain` (the last range
takes what is left, empty ranges are left out), calls
`kernel(ptr buffers, ptr sizes, i64 begin, i64 end, i64 part)` once for each and returns when all
are done. Part 0 runs on the calling thread. The ranges depend on the arguments alone, never on
threads, so a kernel that keeps one partial result per part gives the same result every time.
Nested regions, and regions of a second thread while the pool is busy, run serially.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from graphnn.runtime.cpu.jit import Library, compile_library
from graphnn.runtime.cpu.pool_ir import MAX_WORKERS, OFFSETS, Platform, pool_ir
from graphnn.runtime.cpu.target import available_cores, host_cpu
from graphnn.runtime.errors import warn_user

__all__ = ["num_threads", "parallel_address", "pool_status", "set_num_threads"]

# How long an idle worker looks for work before it sleeps: waking it costs about as much again.
_SPIN_US = 100.0
_STACK_BYTES = 4 << 20
_EXIT_TRIES = 200_000
_RESIZE_TRIES = 20_000_000
_FAULTS = ("SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV")


@dataclass(frozen=True)
class _Pool:
    """The loaded pool. It is never unloaded: a worker may stand in its code at any time."""

    library: Library
    state: int
    parallel: int

    def field(self, name: str, kind: Any = ctypes.c_int32) -> Any:
        return kind.from_address(self.state + OFFSETS[name])

    def stop(self, keep_lock: bool, tries: int) -> bool:
        """End the workers; False when a region did not end in time."""
        function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.c_int64)
        return bool(function(self.library.address("gnn_pool_stop"))(keep_lock, tries))


_pool: _Pool | None = None
_guard = threading.Lock()
OWN_SETTING = "GRAPHNN_NUM_THREADS"
_threads: int | None = None


def num_threads() -> int:
    """Threads that a parallel region may use, the calling one included.

    The number given to `set_num_threads`, else `GRAPHNN_NUM_THREADS`, else `OMP_NUM_THREADS`, else
    the cores that this process may run on.

    >>> num_threads() >= 1
    True
    """
    global _threads
    if _threads is None:
        _threads = _default_threads()
    return _threads


def set_num_threads(count: int | None) -> None:
    """Set the number of threads of parallel regions; None goes back to the default.

    Raises:
        ValueError: `count` is less than 1.
        RuntimeError: a region is still running, for example when called from inside one.
    """
    global _threads
    if count is not None and count < 1:
        raise ValueError(f"the number of threads must be at least 1, got {count}")
    wanted = _default_threads() if count is None else min(int(count), MAX_WORKERS + 1)
    with _guard:
        if _pool is not None:
            if not _pool.stop(keep_lock=False, tries=_RESIZE_TRIES):
                raise RuntimeError("cannot change the number of threads inside a parallel region")
            _pool.field("threads").value = wanted
        _threads = wanted


def parallel_address() -> int:
    """Address of `gnn_parallel`; the first call loads the pool, threads start at the first use."""
    return _loaded().parallel


def pool_status() -> dict[str, int]:
    """Counts since loading: `threads` wanted, `workers` started, `regions` run in parallel, and
    `wakes`, the regions that found workers asleep. All but `threads` are 0 before first use."""
    if _pool is None:
        return {"threads": num_threads(), "workers": 0, "regions": 0, "wakes": 0}
    return {
        "threads": num_threads(),
        "workers": _pool.field("started").value,
        "regions": _pool.field("regions", ctypes.c_int64).value,
        "wakes": _pool.field("wakes", ctypes.c_int64).value,
    }


def _default_threads() -> int:
    for variable in (OWN_SETTING, "OMP_NUM_THREADS"):
        # OMP_NUM_THREADS may list one number per nesting level.
        first = os.environ.get(variable, "").split(",")[0].strip()
        if first.isdigit() and int(first) > 0:
            return min(int(first), MAX_WORKERS + 1)
        if first and variable == OWN_SETTING:
            warn_user(
                f"{OWN_SETTING}={first!r} is not used: expected a whole number of at least 1, "
                f"e.g. {OWN_SETTING}=2"
            )
    return min(available_cores(), MAX_WORKERS + 1)


def _loaded() -> _Pool:
    global _pool
    if _pool is not None:
        return _pool
    with _guard:
        if _pool is None:
            _pool = _load()
    return _pool


def _load() -> _Pool:
    library = compile_library([("pool", pool_ir(_platform()))])
    state = ctypes.CFUNCTYPE(ctypes.c_void_p)(library.address("gnn_pool_state"))()
    pool = _Pool(library, state, library.address("gnn_parallel"))
    _init_system_objects(pool)
    pool.field("spin", ctypes.c_int64).value = _spin_count(library)
    pool.field("threads").value = num_threads()
    atexit.register(_at_exit, pool)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
    return pool


def _platform() -> Platform:
    machine = host_cpu().triple.split("-")[0]
    if sys.platform == "win32":
        return Platform(windows=True, machine=machine)
    faults = [getattr(signal, name) for name in _FAULTS if hasattr(signal, name)]
    blocked = ~sum(1 << (number - 1) for number in faults)
    return Platform(False, machine, int(signal.SIG_SETMASK), blocked)


def _init_system_objects(pool: _Pool) -> None:
    # The objects of Windows start out as zeros.
    if sys.platform == "win32":
        return
    process = ctypes.CDLL(None)
    place = {name: ctypes.c_void_p(pool.state + offset) for name, offset in OFFSETS.items()}
    process.pthread_mutex_init(place["mutex"], None)
    process.pthread_cond_init(place["condition"], None)
    process.pthread_attr_init(place["attributes"])
    process.pthread_attr_setstacksize(place["attributes"], ctypes.c_size_t(_STACK_BYTES))


def _spin_count(library: Library) -> int:
    """Rounds of the idle loop that take the wished time: a pause lasts 1 to 50 ns by CPU."""
    spin = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("gnn_pool_spin"))
    rounds = 1000
    spin(10)
    start = time.perf_counter()
    spin(rounds)
    each = (time.perf_counter() - start) / rounds
    return max(100, int(_SPIN_US * 1e-6 / max(each, 1e-10)))


def _at_exit(pool: _Pool) -> None:
    # Keeping the lock makes whatever still runs serial. A region that does not end is left alone.
    if pool.field("started").value:
        pool.stop(keep_lock=True, tries=_EXIT_TRIES)


def _after_fork() -> None:
    """Only the forking thread lives on in the child: forget the workers and all locks."""
    global _guard
    _guard = threading.Lock()
    if _pool is None:
        return
    for name in ("lock", "started", "quit", "sleepers"):
        _pool.field(name).value = 0
    for name in ("word", "pending", "regions", "wakes"):
        _pool.field(name, ctypes.c_int64).value = 0
    _init_system_objects(_pool)
