"""One GPU as eager code and programs see it: arrays of CuPy's pool, copies, memory numbers."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from graphnn.runtime.cuda import device as cuda_device
from graphnn.runtime.cuda import memory as cuda_memory
from graphnn.runtime.cuda.driver import CupyDriver

Array = Any


class Gpu:
    """A `devices.Backend` for one GPU. index: its physical number. name: its logical one."""

    kind = "GPU"

    def __init__(self, index: int, name: str) -> None:
        import cupy

        self.index, self.name = index, name
        self.xp: Any = cupy
        self._many = cuda_device.count() > 1
        self._driver: CupyDriver | None = None
        self._peak = 0
        self._growth = True
        self._exhausted = cupy.cuda.memory.OutOfMemoryError

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which CuPy makes arrays on this GPU."""
        return self.xp.cuda.Device(self.index) if self._many else nullcontext()

    @property
    def driver(self) -> CupyDriver:
        """What programs run with; made at first use."""
        if self._driver is None:
            self._driver = CupyDriver(self.index)
        return self._driver

    # ---- arrays ------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array. Raises DeviceMemoryError."""
        return self.retried(f"{dtype.name}{list(shape)}", self._empty, shape, dtype)

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        with self.scope():
            return self.xp.empty(shape, dtype)

    def upload(self, values: np.ndarray[Any, Any]) -> Array:
        """A NumPy array on this GPU. It may be changed as soon as the call has returned."""
        array = self.empty(values.shape, values.dtype)
        array.set(values)
        return array

    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """The values on the host, in memory of their own; waits for everything before it."""
        if array.dtype.kind == "V" and not array.flags.c_contiguous:
            array = self.duplicate(array)
        with self.scope():
            values = array.get()
        self._raise_failed()
        return np.asarray(values)

    def receive(self, array: Array, source: Gpu) -> Array:
        """A copy of an array of another GPU. Nobody waits but the current streams of both."""
        made = self.empty(tuple(array.shape), array.dtype)
        with source.scope():
            dense = array if array.flags.c_contiguous else source.duplicate(array)
            ready = self.xp.cuda.get_current_stream().record()
        with self.scope():
            here = self.xp.cuda.get_current_stream()
            here.wait_event(ready)
            if made.nbytes:
                made.data.copy_from_device_async(dense.data, made.nbytes)
            done = here.record()
        with source.scope():
            self.xp.cuda.get_current_stream().wait_event(done)  # before the memory is used again
        return made

    def copy(self, target: Array, source: Array) -> None:
        """Overwrite an array of this GPU with one of the host or of this GPU."""
        if isinstance(source, np.ndarray):
            if target.flags.c_contiguous:
                target.set(np.ascontiguousarray(source, target.dtype).reshape(target.shape))
                return
            source = self.upload(source)
        with self.scope():
            self._copy(target, source)

    def _copy(self, target: Array, source: Array) -> None:
        dense = target.flags.c_contiguous and source.flags.c_contiguous
        if dense and target.dtype == source.dtype and target.shape == source.shape:
            if target.nbytes:
                target.data.copy_from_device_async(source.data, target.nbytes)
        elif target.dtype == source.dtype and target.dtype.kind == "V":
            bits = np.dtype(f"u{target.dtype.itemsize}")  # for CuPy, bfloat16 is only two bytes
            target.view(bits)[...] = source.view(bits)
        else:
            target[...] = source

    def duplicate(self, array: Array) -> Array:
        """A dense copy."""
        made = self.empty(tuple(array.shape), array.dtype)
        with self.scope():
            self._copy(made, array)
        return made

    def address(self, array: Array) -> int:
        """Where the first element is."""
        return int(array.data.ptr)

    def synchronize(self) -> None:
        """Wait for all work on this GPU. Raises the error of a check that failed in it."""
        self.xp.cuda.Device(self.index).synchronize()
        self._raise_failed(everything=True)

    def _raise_failed(self, everything: bool = False) -> None:
        driver = self._driver
        if driver is not None and driver.pending:
            driver.raise_failed(everything)

    # ---- memory ------------------------------------------------------------------------------

    def retried(self, what: str, function: Any, *arguments: Any) -> Any:
        """The result of something that can be done twice: unused blocks are given back between.

        what: what it allocates, for the error. Raises DeviceMemoryError.
        """
        try:
            return function(*arguments)
        except self._exhausted:
            self.trim()
        try:
            return function(*arguments)
        except self._exhausted as error:
            raise cuda_memory.exhausted(self, error, what) from None

    def is_exhausted(self, error: BaseException) -> bool:
        """Whether an exception says that this GPU's memory is used up."""
        return isinstance(error, self._exhausted)

    @property
    def pool(self) -> Any:
        """CuPy's memory pool."""
        return self.xp.get_default_memory_pool()

    def trim(self) -> int:
        """Give unused blocks of the pool back to the GPU; returns their bytes."""
        gc.collect()
        with self.scope():
            pool = self.pool
            before = int(pool.total_bytes())
            self._peak = max(self._peak, before)
            pool.free_all_blocks()
            return before - int(pool.total_bytes())

    def memory_info(self) -> dict[str, int]:
        """Bytes in use (`current`), the most that the pool has taken from the GPU (`peak`), and
        what it holds now (`reserved`)."""
        with self.scope():
            held, use = int(self.pool.total_bytes()), int(self.pool.used_bytes())
        self._peak = max(self._peak, held)
        return {"current": use, "peak": self._peak, "reserved": held}

    def reset_memory_stats(self) -> None:
        """Let `peak` begin at what is in use now: unused blocks are given back."""
        self.trim()
        self._peak = 0

    def memory_limit(self) -> int:
        """The most bytes that the pool may take."""
        with self.scope():
            return int(self.pool.get_limit()) or cuda_device.facts(self.index).memory_bytes

    def set_memory_limit(self, nbytes: int) -> None:
        """Let the pool take so many bytes at most; 0 for no limit of its own."""
        with self.scope():
            self.pool.set_limit(size=nbytes)

    @property
    def memory_growth(self) -> bool:
        """Whether memory is taken from the GPU as it is needed, and not at once."""
        return self._growth

    def set_memory_growth(self, growth: bool) -> None:
        """False takes all memory up to the limit at once, and keeps it for this process."""
        self._growth = growth
        if growth:
            return
        with self.scope():
            free = int(self.xp.cuda.runtime.memGetInfo()[0])
            wanted = min(free, self.memory_limit() - int(self.pool.total_bytes()))
            if wanted > 0:
                self.pool.malloc(int(wanted * 0.95))  # freed at once, and kept by the pool
