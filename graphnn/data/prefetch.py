"""A thread that works ahead of the one that iterates."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any

from graphnn.data.ordering import Keeping
from graphnn.data.stage import Cursor, Stage, State, failed_ahead
from graphnn.data.threads import Pool

_END = object()


class Prefetch(Keeping):
    """At most `ahead` elements are made before they are asked for, by one thread."""

    name = "prefetch"

    def __init__(self, child: Stage, ahead: int) -> None:
        super().__init__(child)
        self.columnar, self.ahead = False, ahead

    def open(self) -> Cursor:
        return _PrefetchCursor(self.child.open(), self.ahead)


def _pull(child: Cursor) -> Any:
    try:
        return child.next()
    except StopIteration:
        return _END  # a future cannot carry it


class _PrefetchCursor(Cursor):
    """One thread does the tasks in turn: so the order is the same, and the child is at rest as soon
    as the last task has ended."""

    def __init__(self, child: Cursor, ahead: int) -> None:
        super().__init__(child)
        self.child, self.ahead = child, ahead
        self.pool = Pool(1, "prefetch")
        self.tasks: deque[Future[Any]] = deque()
        self.ready: deque[Any] = deque()  # elements of a restored position
        self.ended = False

    def next(self) -> Any:
        if not self.ended:
            self._refill()
        if self.ready:
            return self.ready.popleft()
        if self.ended:
            raise StopIteration
        element = self.tasks.popleft().result()
        if element is _END:
            self.ended = True
            self.tasks.clear()
            raise StopIteration
        self._refill()
        return element

    def _refill(self) -> None:
        while len(self.tasks) + len(self.ready) < self.ahead:
            self.tasks.append(self.pool.submit(_pull, self.child))

    def _settle(self) -> None:
        """Wait until the thread is at rest; what it has made is ready."""
        self.tasks = deque(task for task in self.tasks if not task.cancel())
        for task in self.tasks:
            error = task.exception()
            if error is not None:
                raise failed_ahead(error)
        made = [task.result() for task in self.tasks]
        self.ready.extend(element for element in made if element is not _END)
        self.ended = self.ended or (len(made) > 0 and made[-1] is _END)
        self.tasks.clear()

    def restart(self) -> None:
        self._quiet()
        super().restart()
        self.ended = False

    def _quiet(self) -> None:
        for task in self.tasks:
            if not task.cancel():
                task.exception()
        self.tasks.clear()
        self.ready.clear()

    def save(self) -> State:
        self._settle()
        return {"ready": list(self.ready), "ended": self.ended, **super().save()}

    def restore(self, state: State) -> None:
        self._quiet()
        super().restore(state)
        self.ready.extend(state["ready"])
        self.ended = state["ended"]

    def close(self) -> None:
        if self.pool.close(self.tasks):
            super().close()
            return
        # The thread is still inside the child: who comes last puts out the light.
        for task in [t for t in self.tasks if not t.cancelled()][-1:]:
            task.add_done_callback(lambda _: self.child.close())
