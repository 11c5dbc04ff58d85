"""Runs the replicas of one step in turn, from one meeting point to the next.

Each replica's Python runs in a thread of its own, the first in the calling one, and only one of
them runs at any time: it goes on until it needs something of the others, hands over to the next,
and the first replica combines what all of them have brought. So the order of all operations is
fixed, and while tracing the work of all replicas lands in one graph.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from graphnn.compiler.trace import WISH
from graphnn.logical import on_backend
from graphnn.runtime.errors import ORIGIN, StateError
from graphnn.state import state

Combine = Callable[[list[Any]], Sequence[Any]]
_NOTHING = object()


class _Abandoned(BaseException):
    """Ends the replicas that wait while another one has failed."""


class Lockstep:
    """The replicas of one step.

    contexts: what `state.replica` is in each of them. trace, tapes: those around all of them.
    """

    def __init__(self, strategy: Any, contexts: Sequence[Any]) -> None:
        self.strategy, self.contexts, self.count = strategy, contexts, len(contexts)
        self.trace, self.tapes = state.trace, state.tapes
        self._turns = [threading.Semaphore(0) for _ in contexts]
        self._done = [False] * self.count
        self._brought: list[Any] = [_NOTHING] * self.count
        self._names: list[str] = [""] * self.count
        self._shared: Sequence[Any] = ()
        self._results: list[Any] = [None] * self.count
        self._failed: list[BaseException] = []
        self._abandoned = False
        self._threads: list[threading.Thread] = []

    def run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of one call per replica. Raises what the first failing one raises."""
        frame = sys._getframe(1)
        for rank in range(1, self.count):
            body = threading.Thread(target=self._body, args=(rank, calls[rank], frame), daemon=True)
            self._threads.append(body)
            body.start()
        try:
            with self._as_replica(0):
                self._results[0] = calls[0]()
            self._done[0] = True
            self._hand_over(0)
            self._check_ended()
        except BaseException:
            self._abandon()
            raise
        for thread in self._threads:
            thread.join()
        return self._results

    def meet(self, rank: int, name: str, value: Any, combine: Combine) -> Any:
        """Wait for all replicas; the part for this one of `combine([value of each replica])`.

        name: of the meeting point, which must be the same in all replicas. Raises StateError if the
        replicas do not meet, or inside of a nested `@function`.
        """
        if state.trace is not self.trace:
            raise _nested(name)
        self._brought[rank], self._names[rank] = value, name
        self._hand_over(rank)
        if rank == 0:
            self._check_met()
            brought, self._brought = self._brought, [_NOTHING] * self.count
            with self._across():
                self._shared = combine(brought)
        return self._shared[rank]

    # ---- turns ---------------------------------------------------------------------------

    def _body(self, rank: int, call: Callable[[], Any], frame: FrameType) -> None:
        self._turns[rank].acquire()
        if self._abandoned:
            return
        ORIGIN.frame = frame
        try:
            with self._as_replica(rank):
                self._results[rank] = call()
        except _Abandoned:
            pass
        except BaseException as error:  # raised again by the first replica
            self._failed.append(error)
        finally:
            self._done[rank] = True
            if not self._abandoned:
                self._turns[self._next(rank)].release()

    def _hand_over(self, rank: int) -> None:
        """Let the next replica run until this one's turn has come again."""
        following = self._next(rank)
        if following == rank:
            return
        self._turns[following].release()
        self._turns[rank].acquire()
        if rank and self._abandoned:
            raise _Abandoned
        if not rank and self._failed:
            raise self._failed[0]

    def _next(self, rank: int) -> int:
        if self._failed:
            return 0
        return next((r for r in range(rank + 1, self.count) if not self._done[r]), 0)

    def _abandon(self) -> None:
        self._abandoned = True
        for rank, thread in enumerate(self._threads, 1):
            self._turns[rank].release()
            thread.join()

    # ---- what each part of the step sees -------------------------------------------------

    @contextmanager
    def _as_replica(self, rank: int) -> Iterator[None]:
        with _mode(self.contexts[rank], self.strategy, self.trace, self.tapes):
            yield

    @contextmanager
    def _across(self) -> Iterator[None]:
        with _mode(None, self.strategy, self.trace, ()):
            yield

    # ---- checks --------------------------------------------------------------------------

    def _check_met(self) -> None:
        gone = [r for r in range(self.count) if self._brought[r] is _NOTHING]
        if gone:
            raise _missed(self._names[0], f"replica {gone[0]} ended without it")
        names = set(self._names)
        if len(names) > 1:
            raise _missed(self._names[0], "other replicas wait in " + ", ".join(names))

    def _check_ended(self) -> None:
        waiting = [r for r in range(1, self.count) if not self._done[r]]
        if waiting:
            raise _missed(self._names[waiting[0]], "replica 0 ended without it")


@contextmanager
def _mode(replica: Any, strategy: Any, trace: Any, tapes: Any) -> Iterator[None]:
    before = state.replica, state.strategy, state.trace, state.tapes
    state.replica, state.strategy = replica, strategy
    state.set(trace, tapes)
    try:
        with _on_gpu(replica, strategy):
            yield
    finally:
        state.replica, state.strategy = before[:2]
        state.set(*before[2:])


@contextmanager
def _on_gpu(replica: Any, strategy: Any) -> Iterator[None]:
    """A replica of a strategy on GPUs works on its own one; what is done for all of them eagerly,
    on the first; and in a trace, wherever it is needed."""
    if not strategy.backends:
        yield
        return
    number = 0 if replica is None else replica.replica_id_in_sync_group
    wish, single = WISH.device, len(strategy.devices) == 1
    with on_backend(strategy.backends[number]):
        WISH.device = "" if replica is None and not single else strategy.devices[number]
        try:
            yield
        finally:
            WISH.device = wish


def _missed(name: str, what: str) -> StateError:
    return StateError(
        f"{name} of a replica",
        received=f"a call that not all replicas make: {what}",
        expected="all replicas to make the same calls that bring them together, in one order",
        fix="do not let such calls depend on the replica or on its data",
    )


def _nested(name: str) -> StateError:
    return StateError(
        f"{name} of a replica",
        received="a call inside of a @function that this replica runs by itself",
        expected="the replicas to be able to meet, so no @function between them and run()",
        fix="put @graphnn.function on the function that calls strategy.run, or give the @function "
        "itself to run",
    )
