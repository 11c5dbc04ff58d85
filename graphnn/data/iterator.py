"""The object that iterates: it gives elements, its position can be saved, it ends its threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphnn.data.calls import in_users_code
from graphnn.data.elements import map_leaves, wrap
from graphnn.data.stage import Cursor, Stage
from graphnn.data.storage import pack, unpack, write_atomically
from graphnn.runtime.errors import ArgumentError, StateError, hide_own_frames

Position = Mapping[str, Any]


class DatasetIterator:
    """Gives the elements of a Dataset; made by `iter(dataset)` and `dataset.iterator()`.

    Threads and files are released at the end, at the first error, by `close()`, on leaving a `with`
    block, and when nobody holds the iterator any more. Threads may share one iterator.

    >>> it = iter(graphnn.data.Dataset.range(3))
    >>> int(next(it)), it.position
    (0, 1)
    """

    def __init__(
        self,
        stage: Stage,
        position: Position | None = None,
        leaf: Callable[[Any], Any] = wrap,
        reuse: bool = False,
    ) -> None:
        self._stage, self._leaf = stage, leaf
        self._lock = threading.RLock()
        self._at, self._ended = 0, False
        self._cursor: Cursor | None = stage.open()
        # Also runs at interpreter exit, before threads are torn down.
        self._finalizer = weakref.finalize(self, self._cursor.close)
        self._reuse = reuse
        self._seen = self._given = None  # the element whose arrays come again, and its tensors
        if reuse:
            self._cursor.lend()
        if position is not None:
            self._restore(position)

    def __iter__(self) -> DatasetIterator:
        return self

    def __next__(self) -> Any:
        with self._lock:
            if self._ended or self._cursor is None:
                raise StopIteration
            try:
                element = self._cursor.next()
            except StopIteration:
                self._ended = True
                self._finalizer()
                raise
            except BaseException as error:
                self._cursor = None
                self._finalizer()
                in_users_code(error)
                hide_own_frames(error)
                raise
            self._at += 1
            if element is not self._seen:
                given = map_leaves(self._leaf, element)
                if not self._reuse:
                    return given
                self._seen, self._given = element, given
            return self._given

    def get_next(self) -> Any:
        """The next element. Raises StopIteration at the end."""
        return next(self)

    @property
    def position(self) -> int:
        """Number of elements given so far."""
        return self._at

    @property
    def element_spec(self) -> Any:
        """Structure, shapes and dtypes of the elements."""
        return self._stage.spec()

    def state(self) -> dict[str, Any]:
        """The exact position, buffers of shuffle included, as plain data.

        `dataset.iterator(state)` goes on from there, also in another process where an equal
        pipeline was built. Raises StateError if the iterator was closed early.

        >>> dataset = graphnn.data.Dataset.range(100).shuffle(10)
        >>> it = iter(dataset)
        >>> first = next(it)
        >>> again = dataset.iterator(it.state())
        >>> bool(next(again) == next(it))
        True
        """
        with self._lock:
            if self._cursor is None or not (self._ended or self._finalizer.alive):
                raise StateError(
                    "DatasetIterator.state",
                    received="an iterator that was closed, or ended by an error",
                    expected="an iterator that is still in use, or came to its end",
                    fix="take the state before closing",
                )
            return {
                "pipeline": str(self._stage),
                "position": self._at,
                "ended": self._ended,
                "cursor": self._cursor.save(),
            }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the position to a file, all of it or nothing.

        Raises ArgumentError if a buffer holds dataclasses or named tuples.
        """
        write_atomically(path, pack(self.state()))

    def _restore(self, position: Position) -> None:
        expected = str(self._stage)
        if position.get("pipeline") != expected:
            self.close()
            raise StateError(
                "Dataset.iterator",
                received=f"a position in the dataset {position.get('pipeline')}",
                expected=f"one in {expected}",
                fix="build the dataset as it was when the position was saved",
            )
        cursor = self._cursor
        if cursor is None:
            return
        try:
            cursor.restore(position["cursor"])
        except BaseException:
            self.close()
            raise
        self._at, self._ended = position["position"], position["ended"]
        if self._ended:
            self._finalizer()

    def close(self) -> None:
        """End threads and close files; no more elements come. May be called twice.

        Waits for an element that another thread is getting.
        """
        with self._lock:
            self._cursor = None
            self._finalizer()

    def __enter__(self) -> DatasetIterator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DatasetIterator({self._stage}, position={self._at})"


def read_position(source: Any) -> Position | None:
    """A position given as such or as the path of a file. Raises StateError for a damaged file."""
    if source is None or isinstance(source, Mapping):
        return source
    if isinstance(source, str | os.PathLike):
        position = unpack(Path(source).read_bytes())
        if isinstance(position, Mapping):
            return position
    raise ArgumentError(
        "Dataset.iterator",
        received=f"a {type(source).__name__}",
        expected="what `iterator.state()` gave, or the path that `iterator.save` wrote",
    )
