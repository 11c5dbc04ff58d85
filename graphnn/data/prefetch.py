"""A thread that works ahead of the one that iterates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

from graphnn.data.ordering import Keeping
from graphnn.data.stage import Cursor, Stage, State, failed_ahead
from graphnn.data.threads import Ahead

_QUICK = 2e-4  # seconds to make an element, below which a thread costs more than it gains
_MOST = 2e-3  # seconds that one element counts: another process may have had the core meanwhile
_DEBT = 5e-3  # seconds above the quick ones, over some elements, from which on a thread is used


class Prefetch(Keeping):
    """At most `ahead` elements are made before they are asked for, by one thread.

    tuned: make them when they are asked for as long as that is quick. slow: whether it was not.
    """

    name = "prefetch"

    def __init__(self, child: Stage, ahead: int, tuned: bool = False) -> None:
        super().__init__(child)
        self.columnar, self.ahead = False, ahead
        self.slow = not tuned

    def open(self) -> Cursor:
        return _PrefetchCursor(self, self.child.open())


def _caught(pull: Callable[[], Any]) -> Callable[[], tuple[Any, Exception | None]]:
    """The same, but an exception (StopIteration included) is part of the result."""

    def result() -> tuple[Any, Exception | None]:
        try:
            return pull(), None
        except Exception as error:
            return None, error

    return result


class _PrefetchCursor(Cursor):
    """The thread works in turn: so the order is the same, and the child is at rest as soon as the
    last result is there. The thread closes the child, which it may be in the middle of.

    here: whether elements are made by the caller instead. begun: whether one was. debt: by how much
    they were too slow for that. lent: whether they may be overwritten as soon as the next is asked
    for.
    """

    def __init__(self, stage: Prefetch, child: Cursor) -> None:
        super().__init__(child)
        self.stage, self.child, self.most = stage, child, stage.ahead
        self.here, self.begun, self.debt, self.lent = not stage.slow, False, 0.0, False
        self.thread = Ahead(_caught(child.next), child.close, "prefetch")
        self.ready: deque[Any] = deque()  # taken from the thread to save a position
        self.ended = False

    def next(self) -> Any:
        if self.here:
            return self._timed() if self.begun else self._first()
        if not self.ended:
            self._refill()
        if self.ready:
            return self.ready.popleft()
        if self.ended:
            raise StopIteration
        element, error = self.thread.get()
        if error is None:
            self.thread.ask()
            return element
        if isinstance(error, StopIteration):
            self.ended = True
            self._drop()
            raise StopIteration
        raise error

    def _first(self) -> Any:
        element = self.child.next()  # may fill buffers or compile: not timed
        self.begun = True
        return element

    def _timed(self) -> Any:
        start = perf_counter()
        element = self.child.next()
        seconds = min(perf_counter() - start, _MOST)
        self.debt = max(0.0, self.debt + seconds - _QUICK)
        if self.debt > _DEBT:
            self.stage.slow = True
            self._work_ahead()
        return element

    def _work_ahead(self) -> None:
        """Have the thread make the elements from now on."""
        self.here = False
        if self.lent:
            self.child.lend(False)

    def lend(self, lent: bool = True) -> None:
        self.lent = lent
        if self.here:
            self.child.lend(lent)

    def _refill(self) -> None:
        while self.thread.asked + len(self.ready) < self.most:
            self.thread.ask()

    def _drop(self) -> None:
        self.thread.withdraw()
        while self.thread.asked:
            self.thread.get()

    def restart(self) -> None:
        self._drop()
        self.ready.clear()
        super().restart()
        self.ended = False

    def save(self) -> State:
        self.thread.withdraw()
        while self.thread.asked:
            element, error = self.thread.get()
            if error is None:
                self.ready.append(element)
            elif isinstance(error, StopIteration):
                self.ended = True
            else:
                raise failed_ahead(error)
        return {"ready": list(self.ready), "ended": self.ended, **super().save()}

    def restore(self, state: State) -> None:
        self._drop()
        super().restore(state)
        self.ready = deque(state["ready"])
        if self.ready:
            self._work_ahead()
        self.ended = state["ended"]

    def close(self) -> None:
        self.thread.close()
