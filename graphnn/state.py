"""What each thread is doing: the trace it records into and the tapes that watch it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def _quiet_context() -> contextvars.Context:
    """A context in which NumPy keeps silent: log(0) is -inf and 1/0 is inf, without a warning."""
    context = contextvars.copy_context()
    context.run(np.seterr, all="ignore")
    return context


class State(threading.local):
    """One thread's mode.

    trace: the `Trace` under construction, or None in eager mode.
    tapes: the recording tapes, outermost first.
    busy: whether any of the two is in force, or a replica runs; the one thing that fast paths ask.
    quiet: runs a function with NumPy's floating-point warnings off (20 ns; errstate takes 700).
    strategy: the distribution strategy whose scope is open, or None.
    replica: the replica whose part of a distributed step runs, or None.
    draws: where random numbers come from in a function that a pipeline calls, or None.
    device: the backend of the innermost `device` context, or None.
    """

    trace: Any = None
    tapes: tuple[Any, ...] = ()
    busy: bool = False
    strategy: Any = None
    replica: Any = None
    draws: Any = None
    device: Any = None

    def __init__(self) -> None:
        self.quiet: Callable[..., Any] = _quiet_context().run

    def set(self, trace: Any, tapes: tuple[Any, ...]) -> None:
        """Change the mode."""
        self.trace, self.tapes = trace, tapes
        self.busy = trace is not None or bool(tapes) or self.replica is not None


state = State()

# Called with each Variable that is made while tracing; `@function` adds a function, which may
# raise.
on_create_variable: list[Callable[[Any], None]] = []


@contextmanager
def mode(trace: Any, tapes: tuple[Any, ...] = ()) -> Iterator[None]:
    """Work with another trace and other tapes for a while; restored also after an exception."""
    before = state.trace, state.tapes
    state.set(trace, tapes)
    try:
        yield
    finally:
        state.set(*before)


@contextmanager
def no_tapes() -> Iterator[None]:
    """Record nothing on any tape for a while."""
    with mode(state.trace):
        yield


@contextmanager
def init_scope() -> Iterator[None]:
    """Leave the trace and all tapes for a while: what runs inside is eager and is not recorded."""
    with mode(None):
        yield


def executing_eagerly() -> bool:
    """Whether operations run at once, which is the case outside of a trace.

    >>> graphnn.executing_eagerly()
    True
    """
    return state.trace is None
