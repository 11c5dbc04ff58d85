"""A thread that works ahead of the one that iterates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from graphnn.data.ordering import Keeping
from graphnn.data.stage import Cursor, Stage, State, failed_ahead
from graphnn.data.threads import Ahead


class Prefetch(Keeping):
    """At most `ahead` elements are made before they are asked for, by one thread."""

    name = "prefetch"

    def __init__(self, child: Stage, ahead: int) -> None:
        super().__init__(child)
        self.columnar, self.ahead = False, ahead

    def open(self) -> Cursor:
        return _PrefetchCursor(self.child.open(), self.ahead)


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
    last result is there. The thread closes the child, which it may be in the middle of."""

    def __init__(self, child: Cursor, ahead: int) -> None:
        super().__init__(child)
        self.child, self.most = child, ahead
        self.thread = Ahead(_caught(child.next), child.close, "prefetch")
        self.ready: deque[Any] = deque()  # taken from the thread to save a position
        self.ended = False

    def next(self) -> Any:
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
        self.ended = state["ended"]

    def close(self) -> None:
        self.thread.close()
