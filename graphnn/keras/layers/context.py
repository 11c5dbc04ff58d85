"""What is being called on this thread: the path of layers and their training flag."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphnn.runtime.errors import set_layer_path
from graphnn.state import state


class CallContext(threading.local):
    """layers: those being called, outermost first. names: their names. training: the flag in force
    (None: nobody has said)."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.names: list[str] = []
        self.training: bool | None = None

    def path(self) -> str:
        """The names joined, as errors and dumps show them: "net/dense_2"."""
        return "/".join(self.names)


CONTEXT = CallContext()
set_layer_path(CONTEXT.path)


class OwnList:
    """A list of which each replica of a strategy has its own, and so has the code outside."""

    def __init__(self) -> None:
        self._lists: dict[int | None, list[Any]] = {None: []}

    def _own(self) -> list[Any]:
        replica = state.replica
        if replica is None:
            return self._lists[None]
        return self._lists.setdefault(replica.replica_id_in_sync_group, [])

    def append(self, item: Any) -> None:
        """Add an item at the end."""
        self._own().append(item)

    def clear(self) -> None:
        """Drop all items."""
        self._own().clear()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._own())

    def __len__(self) -> int:
        return len(self._own())


@contextmanager
def entered(layer: Any, training: bool | None) -> Iterator[None]:
    """A layer is being called (or built) with a training flag; restored also after an error."""
    before = CONTEXT.training
    CONTEXT.layers.append(layer)
    CONTEXT.names.append(layer.name)
    CONTEXT.training = training
    try:
        yield
    finally:
        CONTEXT.layers.pop()
        CONTEXT.names.pop()
        CONTEXT.training = before


@contextmanager
def outside() -> Iterator[None]:
    """As if no layer were being called, for a while."""
    before = CONTEXT.layers, CONTEXT.names, CONTEXT.training
    CONTEXT.layers, CONTEXT.names, CONTEXT.training = [], [], None
    try:
        yield
    finally:
        CONTEXT.layers, CONTEXT.names, CONTEXT.training = before
