"""Batches on their way to a GPU: through pinned memory, on a stream of their own.

The host copies a batch into pinned memory and goes on; the copy engine brings it to the GPU while
the step before is computing. Memory is used again, but pinned memory only when its copy has ended,
and memory of the GPU only when nobody holds the batch any more and all that was started while
somebody held it has ended.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.runtime.cuda.backend import Gpu

DEPTH = 3  # batches of one kind that have memory: one arrives, one is computed, one was before
_ALIGN = 256


class Slot:
    """Memory for one batch on both sides.

    arrived: the event of the copy. left: an event after all that can have used the batch, or None.
    holders: how many references the arrays and their memory have when nobody else holds them.
    """

    def __init__(self, backend: Gpu, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self.starts, total = _layout(arrays)
        self.pinned = backend.xp.cuda.alloc_pinned_memory(total)
        self.arrays = [backend.empty(a.shape, a.dtype) for a in arrays]
        self.arrived: Any = None
        self.left: Any = None
        self.holders = self._references()

    def _references(self) -> list[int]:
        found = []
        for array in self.arrays:
            found += [sys.getrefcount(array), sys.getrefcount(array.data.mem)]
        return found

    def is_free(self) -> bool:
        """Whether nobody holds the batch."""
        return self._references() == self.holders

    def fill(self, arrays: Sequence[np.ndarray[Any, Any]], stream: Any) -> None:
        """Copy a batch to pinned memory, and from there, behind the host's back, to the GPU."""
        if self.arrived is not None:
            self.arrived.synchronize()
        if self.left is not None:
            stream.wait_event(self.left)
        for array, own, start in zip(arrays, self.arrays, self.starts, strict=True):
            if array.nbytes:
                view = _view(self.pinned, start, array)
                np.copyto(view, array)
                own.data.copy_from_host_async(view.ctypes.data, array.nbytes, stream)
        self.arrived, self.left = stream.record(), None


class Stager:
    """Sends batches to one GPU, one after the other."""

    def __init__(self, backend: Gpu) -> None:
        self.backend, self.cuda = backend, backend.xp.cuda
        with backend.scope():
            self.stream = self.cuda.Stream(non_blocking=True)
        self._slots: dict[Any, list[Slot]] = {}
        self._held: list[Slot] = []  # whose batch somebody had after the last one was sent

    def send(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
        """The arrays of a batch on the GPU: what is started from now on waits for them, the host
        does not. The given arrays may be overwritten when the call has returned."""
        with self.backend.scope():
            now = self.cuda.get_current_stream()
            until_now = now.record()
            for slot in self._held:
                slot.left = until_now
            slot = self._free_slot(arrays, until_now)
            slot.fill(arrays, self.stream)
            now.wait_event(slot.arrived)
        own = [s for slots in self._slots.values() for s in slots]
        self._held = [s for s in own if s is slot or not s.is_free()]
        return list(slot.arrays)

    def _free_slot(self, arrays: Sequence[np.ndarray[Any, Any]], until_now: Any) -> Slot:
        slots = self._slots.setdefault(tuple((a.shape, a.dtype) for a in arrays), [])
        free = [s for s in slots if s.is_free()]
        # The copy waits for all that used a slot: rather a new one than to wait for the last step.
        rested = [s for s in free if s.left is not until_now]
        for slot in rested or free[: len(slots) >= DEPTH]:
            slots.remove(slot)
            slots.append(slot)  # those used longest ago come first
            return slot
        slot = Slot(self.backend, arrays)
        slot.left = until_now  # the pool may have given memory that work under way still reads
        slots.append(slot)
        for old in slots[:-DEPTH]:
            if old.arrived is not None:
                old.arrived.synchronize()  # its pinned memory goes back to the pool
        del slots[:-DEPTH]  # a batch that somebody keeps is no slot any more
        return slot

    def close(self) -> None:
        """Wait for the copies, whose pinned memory is then given up."""
        for slots in self._slots.values():
            for slot in slots:
                if slot.arrived is not None:
                    slot.arrived.synchronize()
        self._slots.clear()
        self._held.clear()


def _layout(arrays: Sequence[np.ndarray[Any, Any]]) -> tuple[list[int], int]:
    """Where each array begins in the pinned memory, and the bytes of all."""
    starts, total = [], 0
    for array in arrays:
        starts.append(total)
        total += -(-array.nbytes // _ALIGN) * _ALIGN
    return starts, max(total, _ALIGN)


def _view(pinned: Any, start: int, array: np.ndarray[Any, Any]) -> Any:
    count = math.prod(array.shape)
    flat: np.ndarray[Any, Any] = np.frombuffer(
        pinned, np.uint8, count * array.dtype.itemsize, start
    )
    return flat.view(array.dtype).reshape(array.shape)
