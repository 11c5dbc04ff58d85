"""Memory for intermediate values, shared by all programs that run on one stream of a device.

Between two programs on a stream no intermediate value is alive, so one piece of memory, as large as
the largest program needs, serves all of them.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

UNIT = 1 << 20  # bytes; sizes are rounded up to a multiple


class Arena:
    """One piece of memory. generation: changes when the memory does; whoever remembers addresses
    compares it. lock: held while a program's work is put on the stream."""

    def __init__(self) -> None:
        self.memory: Any = None
        self.nbytes = self.generation = self.address = 0
        self.lock = threading.RLock()

    def fit(self, driver: Any, nbytes: int) -> None:
        """Have at least so many bytes. The old memory goes first, so that the peak is lower."""
        if nbytes <= self.nbytes:
            return
        self.memory, self.nbytes = None, 0
        self.generation += 1
        wanted = -(-nbytes // UNIT) * UNIT
        self.memory = driver.empty((wanted,), np.dtype(np.uint8))
        self.nbytes, self.address = wanted, driver.address(self.memory)


_ARENAS: weakref.WeakKeyDictionary[Any, weakref.WeakValueDictionary[int, Arena]] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def shared_arena(driver: Any, stream: int) -> Arena:
    """The arena of a stream; it lives as long as a program that uses it."""
    with _lock:
        known = _ARENAS.setdefault(driver, weakref.WeakValueDictionary())
        arena = known.get(stream)
        if arena is None:
            arena = known[stream] = Arena()
        return arena
