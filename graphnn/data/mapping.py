"""Stages that call users' functions on each element: map, filter, and errors that are passed by."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import numpy as np

from graphnn.data.calls import Call
from graphnn.data.specs import common, is_fixed, spec_of
from graphnn.data.stage import UNKNOWN, CountingCursor, Cursor, Stage, State, failed_ahead
from graphnn.data.threads import Pool
from graphnn.runtime.errors import ArgumentError, warn_user
from graphnn.tensor import Operand


class Map(Stage):
    """A function of each element, called by `workers` threads (0: by the thread that iterates)."""

    name = "map"

    def __init__(self, child: Stage, call: Call, workers: int = 0, ordered: bool = True) -> None:
        super().__init__(child)
        self.child, self.call, self.workers, self.ordered = child, call, workers, ordered
        self._spec: Any = None

    def open(self) -> Cursor:
        if self.workers:
            return _ParallelMapCursor(self)
        return _MapCursor(self.child.open(), self.call)

    def spec(self) -> Any:
        """Found by calling the function on the first element; batches are tried in two sizes, which
        tells the sizes that change from those that do not."""
        if self._spec is None:
            tries = (2,) if is_fixed(self.child.spec()) else (2, 3)
            self._spec = common(*(spec_of(self.example(rows)) for rows in tries))
        return self._spec

    def example(self, rows: int) -> Any:
        return self.call.element(self.child.example(rows), 0)


class _MapCursor(CountingCursor):
    at: int

    def __init__(self, child: Cursor, call: Call) -> None:
        super().__init__(child, at=0)
        self.child, self.call, self.run = child, call, call.begin()

    def next(self) -> Any:
        element = self.child.next()
        self.at += 1
        return self.call.element(element, self.at - 1, self.run.place)

    def restart(self) -> None:
        super().restart()
        self.run.restart()

    def save(self) -> State:
        return {**self.run.save(), **super().save()}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.run.restore(state)


_NO_INPUT = object()


class _Task:
    """An element on its way through the function."""

    __slots__ = ("element", "future", "index")

    def __init__(self, index: int, element: Any, future: Future[Any]) -> None:
        self.index, self.element, self.future = index, element, future


class _ParallelMapCursor(Cursor):
    """Keeps twice as many elements under way as there are threads, so that a slow one does not
    stop the others. A position holds their inputs, for which the function is called again."""

    def __init__(self, stage: Map) -> None:
        self.child = stage.child.open()
        super().__init__(self.child)
        self.call, self.ordered = stage.call.element, stage.ordered
        self.run = stage.call.begin()
        self.most = 2 * stage.workers
        self.pool = Pool(stage.workers, "map")
        self.tasks: deque[_Task] = deque()
        self.at, self.ended = 0, False

    def next(self) -> Any:
        self._refill()
        if not self.tasks:
            raise StopIteration
        task = self.tasks.popleft() if self.ordered else self._first_done()
        result = task.future.result()
        self._refill()  # so that the threads work while the element is used
        return result

    def _first_done(self) -> _Task:
        wait([task.future for task in self.tasks], return_when=FIRST_COMPLETED)
        done = next(task for task in self.tasks if task.future.done())
        self.tasks.remove(done)
        return done

    def _refill(self) -> None:
        while not self.ended and len(self.tasks) < self.most:
            try:
                element = self.child.next()
            except StopIteration:
                self.ended = True
                return
            except Exception as error:  # is raised when its turn comes
                failed: Future[Any] = Future()
                failed.set_exception(error)
                self.tasks.append(_Task(self.at, _NO_INPUT, failed))
                return
            self._start(self.at, element)
            self.at += 1

    def _start(self, index: int, element: Any) -> None:
        future = self.pool.submit(self.call, element, index, self.run.place)
        self.tasks.append(_Task(index, element, future))

    def restart(self) -> None:
        self._drop()
        super().restart()
        self.run.restart()
        self.at, self.ended = 0, False

    def _drop(self) -> None:
        wait([task.future for task in self.tasks if not task.future.cancel()])
        self.tasks.clear()

    def save(self) -> State:
        for task in self.tasks:
            if task.element is _NO_INPUT:
                raise failed_ahead(task.future.exception())
        waiting = [(task.index, task.element) for task in self.tasks]
        own = {"at": self.at, "ended": self.ended, "waiting": waiting, **self.run.save()}
        return {**own, **super().save()}

    def restore(self, state: State) -> None:
        self._drop()
        super().restore(state)
        self.run.restore(state)
        self.at, self.ended = state["at"], state["ended"]
        for index, element in state["waiting"]:
            self._start(index, element)

    def close(self) -> None:
        self.pool.close([task.future for task in self.tasks])
        super().close()


class Filter(Stage):
    """The elements for which a function says yes."""

    name = "filter"

    def __init__(self, child: Stage, call: Call) -> None:
        super().__init__(child)
        self.child, self.call = child, call

    def open(self) -> Cursor:
        return _FilterCursor(self.child.open(), self.call)

    def size(self) -> int:
        return 0 if self.child.size() == 0 else UNKNOWN


class _FilterCursor(_MapCursor):
    def next(self) -> Any:
        while True:
            element = self.child.next()
            self.at += 1
            if _truth(self.call(element, self.at - 1, self.run.place)):
                return element


def _truth(answer: Any) -> bool:
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    array = np.asarray(answer) if isinstance(answer, Operand | np.ndarray) else None
    if array is None or array.dtype != np.bool_ or array.size != 1:
        raise ArgumentError(
            "Dataset.filter",
            received=f"an answer of type {type(answer).__name__}: {answer!r}",
            expected="True or False, or a boolean tensor with one element",
            fix="compare, or reduce with graphnn.all or graphnn.any",
        )
    return bool(array.item())


class IgnoreErrors(Stage):
    """All elements but those whose computation raises."""

    name = "ignore_errors"

    def __init__(self, child: Stage, log: bool) -> None:
        super().__init__(child)
        self.child, self.log = child, log

    def open(self) -> Cursor:
        return _IgnoreErrorsCursor(self.child.open(), self.log)

    def size(self) -> int:
        return 0 if self.child.size() == 0 else UNKNOWN


class _IgnoreErrorsCursor(Cursor):
    def __init__(self, child: Cursor, log: bool) -> None:
        super().__init__(child)
        self.child, self.log = child, log

    def next(self) -> Any:
        while True:
            try:
                return self.child.next()
            except StopIteration:
                raise
            except Exception as error:
                if self.log:
                    notes = "; ".join(getattr(error, "__notes__", ()))
                    text = f"Dataset.ignore_errors: {type(error).__name__}: {error} {notes}"
                    warn_user(text, RuntimeWarning)
