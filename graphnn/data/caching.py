"""A stage that computes its elements once and keeps them, in memory or in a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from graphnn.data.stage import Cursor, Stage, State
from graphnn.data.storage import pack, unpack
from graphnn.runtime.errors import StateError

_FRAME = 8  # bytes of the length before each element


class Cache(Stage):
    """The elements as the first whole pass found them.

    path: a file, or None for memory. A pass that ends early keeps nothing.
    """

    name = "cache"

    def __init__(self, child: Stage, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(child)
        self.child = child
        self.path = None if path is None else Path(path)
        self.kept: list[Any] | None = None
        self.start: State | None = None  # of the child, when the pass began that filled the cache

    def open(self) -> Cursor:
        return _CacheCursor(self)

    @property
    def is_full(self) -> bool:
        """Whether a whole pass has been kept."""
        return self.kept is not None if self.path is None else self.path.is_file()

    def reader(self) -> _Reader | None:
        """The kept elements from the first one on, or None if there are none yet."""
        if not self.is_full:
            return None
        return _ListReader(self.kept or []) if self.path is None else _FileReader(self.path)

    def writer(self) -> _Writer:
        """Where a pass puts its elements."""
        return _ListWriter(self) if self.path is None else _FileWriter(self.path)


class _CacheCursor(Cursor):
    """Reads what is kept, or reads the child and keeps it.

    A position holds no elements: going back there runs the child again from the beginning of the
    pass that fills the cache.
    """

    def __init__(self, stage: Cache) -> None:
        self.stage, self.child = stage, stage.child.open()
        super().__init__(self.child)
        self._begin()

    def _begin(self) -> None:
        self.at, self.reader = 0, self.stage.reader()
        self.writer: _Writer | None = None
        self.filled = self.reader is not None  # whether the whole pass is kept
        self.start = self.child.save() if self.reader is None else self.stage.start

    def next(self) -> Any:
        element = self.reader.read() if self.reader is not None else self._make()
        self.at += 1
        return element

    def _make(self) -> Any:
        if self.writer is None:
            self.writer = self.stage.writer()
        try:
            element = self.child.next()
        except StopIteration:
            self.filled = True
            if not self.stage.is_full:
                self.stage.start = self.start
                self.writer.finish()
            raise
        self.writer.write(element)
        return element

    def _end(self) -> None:
        for part in (self.reader, self.writer):
            if part is not None:
                part.close()
        self.reader = self.writer = None

    def restart(self) -> None:
        self._end()
        if not self.stage.is_full:
            super().restart()
        self._begin()

    def save(self) -> State:
        return {"at": self.at, "filled": self.filled, "start": self.start}

    def restore(self, state: State) -> None:
        self._end()
        self._begin()
        if self.reader is None:
            self._replay(state)
            return
        for _ in range(state["at"]):
            self.next()

    def _replay(self, state: State) -> None:
        if state["start"] is None:
            raise StateError(
                "Dataset.iterator",
                received=f"a position in a cache file that is gone: {self.stage.path}",
                expected="the file that was read when the position was saved",
                fix="start from the beginning",
            )
        self.child.restore(state["start"])
        self.start = state["start"]
        if state["filled"]:
            self._fill()
        for _ in range(state["at"]):
            self.next()

    def _fill(self) -> None:
        while not self.filled:
            try:
                self._make()
            except StopIteration:
                break
        self._end()
        self._begin()

    def close(self) -> None:
        self._end()
        super().close()


# ---- readers and writers ----------------------------------------------------------------------


class _Reader:
    def read(self) -> Any:
        """The next kept element."""

    def close(self) -> None:
        """Close the file."""


class _Writer:
    def write(self, element: Any) -> None:
        """Keep one more element."""

    def finish(self) -> None:
        """The pass is over: from now on the elements are read."""

    def close(self) -> None:
        """Drop what was kept, unless finished."""


class _ListReader(_Reader):
    def __init__(self, kept: list[Any]) -> None:
        self.rest = iter(kept)

    def read(self) -> Any:
        return next(self.rest)


class _ListWriter(_Writer):
    def __init__(self, stage: Cache) -> None:
        self.stage, self.kept = stage, list[Any]()

    def write(self, element: Any) -> None:
        self.kept.append(element)

    def finish(self) -> None:
        self.stage.kept = self.kept


class _FileReader(_Reader):
    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("rb")

    def read(self) -> Any:
        length = int.from_bytes(self._bytes(_FRAME), "little")
        if length == 0:
            self.file.seek(-_FRAME, os.SEEK_CUR)
            raise StopIteration
        return unpack(self._bytes(length))

    def _bytes(self, number: int) -> bytes:
        data = self.file.read(number)
        if len(data) < number:
            raise StateError(
                "Dataset.cache",
                received=f"the file {self.path}, which is cut off",
                expected="a file that one whole pass wrote",
                fix="delete it",
            )
        return data

    def close(self) -> None:
        self.file.close()


class _FileWriter(_Writer):
    """Writes beside the file and renames at the end, so that there is never half a cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, self.name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        self.file: BinaryIO = os.fdopen(handle, "wb")

    def write(self, element: Any) -> None:
        data = pack(element)
        self.file.write(len(data).to_bytes(_FRAME, "little"))
        self.file.write(data)

    def finish(self) -> None:
        self.file.write(bytes(_FRAME))
        self.file.close()
        os.replace(self.name, self.path)

    def close(self) -> None:
        if not self.file.closed:
            self.file.close()
            os.unlink(self.name)
