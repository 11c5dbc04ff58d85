"""Seeds and passes of stages: what random order and users' random numbers depend on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from graphnn.random import get_global_generator
from graphnn.state import init_scope

Place = tuple[int, int]  # seed of a stage, number of a pass
EXAMPLE = -1  # the pass of a call that only looks what a function returns


def fresh_seed() -> int:
    """A seed from graphnn.random's stream, so that `set_seed` makes it reproducible."""
    with init_scope():
        words = np.asarray(get_global_generator().next()).tolist()
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


class Passes:
    """Numbers the passes of a stage; may be used by several threads. step: 0 counts none."""

    def __init__(self, step: int = 1) -> None:
        self._step, self._next = step, 0
        self._lock = threading.Lock()

    def take(self) -> int:
        """The number of a new pass."""
        with self._lock:
            number = self._next
            self._next += self._step
            return number

    def go_on_after(self, number: int) -> None:
        """The next new pass follows this one."""
        with self._lock:
            self._next = number + self._step


class Pass:
    """The pass that a cursor is in. seed: of the stage; a restored position has its own.

    place: (seed, number of the pass), on which the random numbers of a user's function depend.
    """

    def __init__(self, seed: int, passes: Passes) -> None:
        self._passes = passes
        self.place: Place = seed, passes.take()

    def restart(self) -> None:
        """Begin the next pass."""
        self.place = self.place[0], self._passes.take()

    def save(self) -> dict[str, Any]:
        """The position."""
        seed, number = self.place
        return {"seed": seed, "epoch": number}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.place = state["seed"], state["epoch"]
        self._passes.go_on_after(state["epoch"])
