"""The driver for real GPUs: CuPy's memory pool, modules, streams and graphs.

Work is put on CuPy's current stream, so it is ordered with the user's own CuPy code. A capture runs
on a stream of its own and is ended whatever happens in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn.runtime.cuda import nvrtc
from graphnn.runtime.cuda.cublaslt import Products
from graphnn.runtime.cuda.device import facts
from graphnn.runtime.device import ProductRun

Array = Any
DEFAULT_SHARED = 48 << 10  # bytes of shared memory that need no permission


class CupyDriver:
    """A `Driver` (see `execute`) for one GPU. tf32: whether float32 products may use TF32."""

    def __init__(self, index: int = 0, tf32: bool = False) -> None:
        self.facts = facts(index)  # raises without a GPU
        self.index = index
        self.products = Products(self.facts, tf32, self._timed)
        self._allowed: dict[int, int] = {}  # function -> bytes of shared memory granted
        self._capturing: Any = None  # the stream of the capture under way

    # ---- code --------------------------------------------------------------------------------

    def compile(self, text: str, entries: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions with these names, from CUDA C. wide: with 64-bit indices."""
        import cupy

        defines = ["GNN_WIDE"] if wide else []
        module = cupy.cuda.Module()
        module.load(nvrtc.compile_cubin(text, self.facts.architecture, defines))
        return {name: module.get_function(name) for name in entries}

    def launch(
        self, function: Any, blocks: int, threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Start a kernel on the current stream."""
        if shared > DEFAULT_SHARED:
            self._allow(function, shared)
        given = tuple(map(_numpy_scalar, arguments))
        function((blocks, 1, 1), (threads, 1, 1), given, shared)

    def _allow(self, function: Any, shared: int) -> None:
        from cupy.cuda import driver

        if self._allowed.get(function.ptr, 0) < shared:
            which = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.funcSetAttribute(function.ptr, which, shared)
            self._allowed[function.ptr] = shared

    def product(self, run: ProductRun, dtype: np.dtype[Any], addresses: Sequence[int]) -> None:
        """Multiply matrices on the current stream."""
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        if run.k == 0:
            self._clear(run, dtype, addresses[2], stream)
        if 0 in (run.m, run.n, run.k):
            return
        self.products.run(run, dtype, addresses, stream, tune=self._capturing is None)

    def _clear(self, run: ProductRun, dtype: np.dtype[Any], address: int, stream: int) -> None:
        """A sum over nothing."""
        import cupy

        nbytes = run.m * run.n * dtype.itemsize
        for _, _, offset in run.offsets if nbytes else ():
            place = address + offset * dtype.itemsize
            cupy.cuda.runtime.memsetAsync(place, 0, nbytes, stream)

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
        import cupy

        return cupy.empty(shape, dtype)

    def address(self, array: Array) -> int:
        """Where an array's first element is."""
        return int(array.data.ptr)

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array inside an array of bytes."""
        import cupy

        return cupy.ndarray(shape, dtype, memptr=arena.data + offset)

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

        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            self._capturing = stream
            try:
                work()
            except BaseException:
                _end_quietly(stream)
                raise
            finally:
                self._capturing = None
            return stream.end_capture()

    def replay(self, graph: Any) -> None:
        """Run a captured graph on the current stream."""
        graph.launch()

    def synchronize(self) -> None:
        """Wait for the current stream."""
        import cupy

        cupy.cuda.get_current_stream().synchronize()


def _end_quietly(stream: Any) -> None:
    """Leave capture mode; an invalid capture raises, and the first error is the one to show."""
    try:
        stream.end_capture()
    except Exception:
        return


def _numpy_scalar(value: Any) -> Any:
    """A ctypes argument as the NumPy scalar of its width, which is what CuPy passes on."""
    if isinstance(value, ctypes.c_void_p):
        return np.uint64(value.value or 0)
    return np.int64(value.value) if isinstance(value, ctypes.c_int64) else np.int32(value.value)
