"""Random numbers in functions that a pipeline calls: they depend on the element, not on threads.

While such a function works on an element, `state.draws` holds that element's `Draws`, and the
generators of `graphnn.random` take their numbers from there. Their own states stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.logical import on_backend
from graphnn.runtime import devices, memory
from graphnn.state import state
from graphnn.variable import Variable

_WORD = 0xFFFFFFFF
_WIDE = 0xFFFFFFFFFFFFFFFF


def _mixed(numbers: tuple[int, ...]) -> int:
    """A 64-bit hash: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014) after each number.

    >>> _mixed((1, 2)) == _mixed((2, 1))
    False
    """
    found = 0
    for number in numbers:
        found = (found + number + 0x9E3779B97F4A7C15) & _WIDE
        found = ((found ^ (found >> 30)) * 0xBF58476D1CE4E5B9) & _WIDE
        found = ((found ^ (found >> 27)) * 0x94D049BB133111EB) & _WIDE
        found ^= found >> 31
    return found


class RandomState(Variable):
    """The Variable with a generator's state, uint32[4]: two words of seed, two of count.

    born_in: the draws of the pipeline's call in which it was made, or None. is_global: whether the
    functions of this module draw from it.
    """

    is_global = False

    def __init__(self, words: Any) -> None:
        # One stream from which the replicas of a strategy draw in turn. It begins on the host and
        # moves to the device of the first program that draws from it.
        with on_backend(devices.host):
            super().__init__(words, False, name="random_state", synchronization="none")
        self.born_in = state.draws

    def identity(self) -> int:
        """What tells its stream from others in a pipeline: the seed; -1 for the global one, since
        seeds of pipelines are drawn from that."""
        if self.is_global:
            return -1
        words = devices.on_host(self._buffer)
        return int(words[0]) | int(words[1]) << 32

    def taken(self) -> Any:
        """The words for the next draw, on the GPU where the state is; nothing waits for them."""
        backend = devices.backend_of(self._buffer)
        words = backend.duplicate(self._buffer)
        self._detach_reads()
        with backend.scope():
            count = self._buffer[2:].view(np.uint64)  # little-endian, as every GPU's host
            count += 1
        return words

    def __deepcopy__(self, memo: dict[int, Any]) -> RandomState:
        memo[id(self)] = copy = RandomState(np.array(devices.on_host(self._buffer)))
        return copy

    def __reduce__(self) -> Any:
        return RandomState, (np.array(devices.on_host(self._buffer)),)


def following(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The state with its 64-bit count raised by one."""
    raised = words.copy()
    raised[2] = (int(words[2]) + 1) & _WORD
    raised[3] = (int(words[3]) + (raised[2] == 0)) & _WORD
    return raised


class Draws:
    """The draws of one call of a function: determined by the place of the call.

    seed: of the pipeline's stage. epoch: number of the pass. index: of the element in the pass.
    Each generator has a stream of its own there, which begins with its seed.
    """

    __slots__ = ("_counts", "_place")

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self._place = (seed, epoch, index)
        self._counts: dict[int, int] = {}

    def covers(self, random_state: RandomState) -> bool:
        """Whether draws from a generator's state come from here: not if it was made in this
        call, where what it gives is determined anyway."""
        return random_state.born_in is not self

    def words(self, random_state: RandomState) -> np.ndarray[Any, Any]:
        """The state for the next draw of a generator, uint32[4], in memory of its own."""
        words = memory.empty((4,), np.dtype(np.uint32))
        key = _mixed((*self._place, random_state.identity()))
        count = self._counts.get(id(random_state), 0)
        words[:] = key & _WORD, key >> 32, count & _WORD, count >> 32
        return words

    def goes_on(self, random_state: RandomState, words: np.ndarray[Any, Any]) -> None:
        """The next draw of a generator is the one for these words."""
        self._counts[id(random_state)] = int(words[2]) | int(words[3]) << 32
