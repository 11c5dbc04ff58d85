"""The driver for real GPUs: CuPy's memory pool, modules, streams and graphs.

Work is put on CuPy's current stream, so it is ordered with the user's own CuPy code. A capture runs
on a stream of its own and is ended whatever happens in it.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from graphnn.runtime.cuda import nvrtc
from graphnn.runtime.cuda.cublaslt import Products
from graphnn.runtime.cuda.cudnn import Attentions
from graphnn.runtime.cuda.device import DeviceError, count, facts
from graphnn.runtime.cuda.execute import raise_failed
from graphnn.runtime.cuda.pieces import Arguments
from graphnn.runtime.device import AttentionRun, ProductRun

Array = Any
DEFAULT_SHARED = 48 << 10  # bytes of shared memory that need no permission
PER_THREAD = 2  # the pointer of a thread's default stream, in every thread
GATE = 1.0  # seconds for which the device waits at most until all works are started
# Works started behind one gate: a stream holds about a thousand launches, and some libraries wait
# for room in it with Python's lock, which the gate needs.
BEHIND_GATE = 128
# Codes of the driver for machine code or PTX that it cannot load.
NOT_LOADED = (200, 209, 218, 222, 300)


class _Thread(threading.local):
    """What differs between threads.

    replays_on: the stream that will replay the capture under way; None for none. ready: whether
    the driver's own calls know this GPU.
    """

    replays_on: int | None = None
    ready: bool = False


class CupyDriver:
    """A `Driver` (see `execute`) for one GPU. index: its number."""

    def __init__(self, index: int = 0) -> None:
        self.facts = facts(index)  # raises without a GPU
        import cupy

        self.index = index
        self.products = Products(self.facts, self._timed)
        self.attentions = Attentions(self.facts)
        self.pending: dict[Any, int] = {}
        self._allowed: dict[int, int] = {}  # function -> bytes of shared memory granted
        self._thread = _Thread()
        self._current = partial(cupy.cuda.get_current_stream, index)
        self._start = cupy.cuda.driver.launchKernel
        self._ndarray = cupy.ndarray
        self.many = count() > 1

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which this GPU is CuPy's current one."""
        import cupy

        return cupy.cuda.Device(self.index)  # type: ignore[no-any-return]

    @property
    def stream(self) -> int:
        """The current stream; that which will replay, while a graph is captured.

        The default streams of threads all have one pointer: here each has a number of its own.
        """
        replays_on = self._thread.replays_on
        if replays_on is not None:
            return replays_on
        pointer: int = self._current().ptr
        return pointer if pointer != PER_THREAD else -threading.get_ident()

    # ---- code --------------------------------------------------------------------------------

    def compile(self, texts: Sequence[str], entries: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions with these names, from CUDA C: a prelude, then kernels. wide: with 64-bit
        indices."""
        import cupy

        defines = ["GNN_WIDE"] if wide else []
        found: dict[str, Any] = {}
        for text, code in nvrtc.compile_cubins(texts, self.facts.architecture, defines):
            module = cupy.cuda.Module()
            _load(module, code)
            own = [name for name in entries if f" {name}(" in text]
            found |= {name: module.get_function(name) for name in own}
        return found

    def launch(
        self, function: Any, blocks: int, threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Start a kernel on the current stream."""
        if not self._thread.ready:
            self._enter()
        if shared > DEFAULT_SHARED:
            self._allow(function, shared)
        given = arguments if isinstance(arguments, Arguments) else Arguments(arguments)
        place, stream = ctypes.addressof(given.pointers), self._current().ptr
        self._start(function.ptr, blocks, 1, 1, threads, 1, 1, shared, stream, place, 0)

    def _enter(self) -> None:
        """Let the driver's calls in this thread know the GPU: only the runtime's do it unasked."""
        import cupy

        cupy.cuda.runtime.memGetInfo()
        self._thread.ready = True

    def _allow(self, function: Any, shared: int) -> None:
        from cupy.cuda import driver

        if self._allowed.get(function.ptr, 0) < shared:
            which = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.funcSetAttribute(function.ptr, which, shared)
            self._allowed[function.ptr] = shared

    def library(self, run: ProductRun | AttentionRun, addresses: Sequence[int]) -> None:
        """Start a library call on the current stream; addresses of its operands."""
        stream, owner = self._current().ptr, self.stream
        if isinstance(run, AttentionRun):
            self.attentions.run(run, addresses, stream, owner)
            return
        tune = self._thread.replays_on is None
        self.products.run(run, addresses, stream, tune, owner)

    def _timed(self, work: Callable[[], None], times: int) -> float:
        """Milliseconds of one of some runs on the current stream."""
        import cupy

        stream = cupy.cuda.get_current_stream()
        first, last = cupy.cuda.Event(), cupy.cuda.Event()
        work()
        first.record(stream)
        for _ in range(times):
            work()
        last.record(stream)
        last.synchronize()
        return float(cupy.cuda.get_elapsed_time(first, last)) / times

    # ---- memory ------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array of CuPy's pool."""
        return self._ndarray(shape, dtype)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CupyBuffer:
        """Memory for results, of CuPy's pool."""
        return CupyBuffer(self._ndarray, shape, dtype)

    def shared(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, int]:
        """Zeroed memory of the host that kernels can write: the array, the device's address.

        Pinned memory has one address for the host and all devices.
        """
        import cupy

        size = int(np.prod(shape))
        pinned = cupy.cuda.alloc_pinned_memory(max(1, size) * dtype.itemsize)
        array = np.frombuffer(pinned, dtype, size).reshape(shape)  # keeps the memory alive
        array[...] = 0
        return array, int(pinned.ptr)

    def address(self, array: Array) -> int:
        """Where an array's first element is."""
        return array.data.ptr  # type: ignore[no-any-return]

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array inside an array of bytes."""
        return self._ndarray(shape, dtype, memptr=arena.data + offset)

    def copy(self, target: Array, source: Array) -> None:
        """Copy dense arrays on the device, on the current stream."""
        if source.nbytes:
            target.data.copy_from_device_async(source.data, source.nbytes)

    def upload(self, target: Array, source: np.ndarray[Any, Any]) -> None:
        """Copy from the host."""
        target.set(np.ascontiguousarray(source, target.dtype).reshape(target.shape))

    def download(self, source: Array) -> np.ndarray[Any, Any]:
        """Copy to the host, after everything before it on the current stream."""
        return np.asarray(source.get())

    # ---- graphs ------------------------------------------------------------------------------

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` starts, as a graph that is not run yet."""
        import cupy

        own, before = self._thread, self.stream
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            own.replays_on = before
            try:
                work()
            except BaseException:
                _end_quietly(stream)
                raise
            finally:
                own.replays_on = None
            return stream.end_capture()

    def replay(self, graph: Any) -> None:
        """Run a captured graph on the current stream."""
        graph.launch()

    # ---- waiting -----------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self._current().synchronize()

    def raise_failed(self, everything: bool = False) -> None:
        """Raise the error of the first failed check of programs that ran on the current stream.

        everything: on any stream. Call it after waiting for what it asks about.
        """
        raise_failed(self, everything)

    def times(self, works: Sequence[Callable[[], None]], gated: bool) -> list[float]:
        """Seconds that the device takes for each of some works in a row.

        gated: the device begins when many are started, so that it never waits for the next launch.
        """
        found: list[float] = []
        for first in range(0, len(works), BEHIND_GATE):
            found += self._times(works[first : first + BEHIND_GATE], gated)
        return found

    def _times(self, works: Sequence[Callable[[], None]], gated: bool) -> list[float]:
        import cupy

        stream, gate = self._current(), threading.Event()
        marks = [cupy.cuda.Event() for _ in range(len(works) + 1)]
        if gated:
            stream.launch_host_func(lambda _: gate.wait(GATE), None)
        try:
            marks[0].record(stream)
            for work, mark in zip(works, marks[1:], strict=True):
                work()
                mark.record(stream)
        finally:
            gate.set()
        marks[-1].synchronize()
        return [cupy.cuda.get_elapsed_time(a, b) / 1e3 for a, b in pairwise(marks)]


class CupyBuffer:
    """Memory for results: an allocation of its own, so references to it tell whether it is held."""

    def __init__(self, ndarray: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._ndarray, self._dtype = ndarray, dtype
        self._pointer = ndarray(shape, dtype).data
        self.address = int(self._pointer.ptr)
        self._free = self._references()

    def _references(self) -> tuple[int, int]:
        # An array shares the pointer object, or has one of its own to the same memory.
        return sys.getrefcount(self._pointer), sys.getrefcount(self._pointer.mem)

    def lend(self, shape: tuple[int, ...]) -> Array:
        """An array of that memory for somebody else."""
        return self._ndarray(shape, self._dtype, self._pointer)

    def held(self) -> bool:
        """Whether somebody still has an array, or a view of an array, of that memory."""
        return self._references() != self._free


def _load(module: Any, code: bytes) -> None:
    """Load what NVRTC made; a driver that is too old for it says so in one error."""
    from cupy.cuda import driver, runtime

    try:
        module.load(code)
    except driver.CUDADriverError as error:
        if error.status not in NOT_LOADED:
            raise
        made, taken = nvrtc.version(), runtime.driverGetVersion()
        raise DeviceError(
            "machine code for the GPU",
            received=f"{error}; it was made by NVRTC {made[0]}.{made[1]}",
            expected=f"code that the driver takes: it is for CUDA {taken // 1000}."
            f"{taken % 1000 // 10}",
            fix="a newer driver, or the packages of its CUDA: graphnn[cuda13] or graphnn[cuda12]",
        ) from error


def _end_quietly(stream: Any) -> None:
    """Leave capture mode; an invalid capture raises, and the first error is the one to show."""
    try:
        stream.end_capture()
    except Exception:
        return
