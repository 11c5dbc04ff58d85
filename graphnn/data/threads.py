"""Worker threads of one cursor, which are gone when the cursor is closed."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import Any

AUTOTUNE = -1
_MOST = 16
_PATIENCE = 5.0  # seconds that closing waits for a call of the user's code


def cores() -> int:
    """Cores that this process may use, at most 16: what AUTOTUNE means for parallel calls."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST)
    return min(os.cpu_count() or 1, _MOST)


class Pool:
    """Threads that are started with the first task. They hold no reference to the cursor, so that
    an iterator that nobody holds any more is closed by its finaliser."""

    def __init__(self, workers: int, name: str) -> None:
        self.workers, self.name = workers, name
        self._executor: ThreadPoolExecutor | None = None
        self._own: set[int] = set()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a call in a worker."""
        if self._executor is None:
            own = self._own
            self._executor = ThreadPoolExecutor(
                self.workers,
                thread_name_prefix=f"graphnn-data-{self.name}",
                initializer=lambda: own.add(threading.get_ident()),
            )
        return self._executor.submit(function, *args)

    def close(self, running: Iterable[Future[Any]]) -> bool:
        """Cancel waiting tasks and wait for the running ones; returns whether they have ended.

        A call that does not return within seconds is left behind: its thread ends with it.
        """
        executor, self._executor = self._executor, None
        if executor is None:
            return True
        tasks = [task for task in running if not task.cancel()]
        if threading.get_ident() in self._own:  # a finaliser that runs in one of the workers
            executor.shutdown(wait=False, cancel_futures=True)
            return False
        ended = not wait(tasks, _PATIENCE).not_done
        executor.shutdown(wait=ended, cancel_futures=True)
        return ended


_numbers = itertools.count()


class Ahead:
    """One thread that makes results when it is given tickets, in turn.

    Lighter than a pool: two queues, both in C. The thread holds `make` and `end`, and nothing of
    who uses it; it calls `end` as the last thing it does.
    """

    def __init__(self, make: Callable[[], Any], end: Callable[[], None], name: str) -> None:
        self._end = end
        self._thread: threading.Thread | None = None
        self._tickets: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: SimpleQueue[Any] = SimpleQueue()
        self._make, self._name = make, name
        self.asked = 0

    def ask(self) -> None:
        """Have one more result made."""
        if self._thread is None:
            self._thread = self._started()
        self.asked += 1
        self._tickets.put(None)

    def _started(self) -> threading.Thread:
        name = f"graphnn-data-{self._name}_{next(_numbers)}"
        queues = (self._make, self._tickets, self._results)
        thread = threading.Thread(target=_work, args=queues, name=name, daemon=True)
        thread.start()
        return thread

    def get(self) -> Any:
        """The oldest result that was asked for and not yet taken."""
        self.asked -= 1
        return self._results.get()

    def withdraw(self) -> None:
        """Take back what the thread has not begun; `asked` results are still to be taken."""
        while True:
            try:
                self._tickets.get_nowait()
            except Empty:
                return
            self.asked -= 1

    def close(self) -> None:
        """Let the thread call `end` and finish; waits for it, but only so long."""
        self.withdraw()
        thread, self._thread = self._thread, None
        if thread is None:
            self._end()
            return
        self._tickets.put(self._end)
        if thread is not threading.current_thread():
            thread.join(_PATIENCE)


def _work(
    make: Callable[[], Any],
    tickets: SimpleQueue[Callable[[], None] | None],
    results: SimpleQueue[Any],
) -> None:
    while (end := tickets.get()) is None:
        results.put(make())
    end()
