"""Lines of text files as elements."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

from graphnn.data import arguments as check
from graphnn.data.calls import Call
from graphnn.data.dataset import Dataset
from graphnn.data.elements import STRING
from graphnn.data.paths import names, open_binary
from graphnn.data.sources import Arrays, Gather
from graphnn.data.stage import UNKNOWN, Cursor, Stage, State, example_or_zeros
from graphnn.data.weaving import Interleave
from graphnn.runtime.errors import ArgumentError
from graphnn.signature import TensorSpec


class Lines(Stage):
    """The lines of files, one file after the other, without their ends."""

    name = "text_lines"

    def __init__(self, paths: list[str], compression: str | None) -> None:
        super().__init__()
        self.paths, self.compression = paths, compression

    def open(self) -> Cursor:
        return _LinesCursor(self.paths, self.compression)

    def size(self) -> int:
        return UNKNOWN

    def spec(self) -> Any:
        return TensorSpec((), STRING)

    def example(self, rows: int) -> Any:
        return example_or_zeros(self)

    def settings(self) -> str:
        return ", ".join(os.path.basename(p) for p in self.paths)


class _LinesCursor(Cursor):
    """A position is a file, a line, and the byte where the line begins."""

    def __init__(self, paths: list[str], compression: str | None) -> None:
        super().__init__()
        self.paths, self.compression = paths, compression
        self.file: BinaryIO | None = None
        self.number = self.line = self.byte = 0

    def next(self) -> Any:
        while self.number < len(self.paths):
            line = self._open().readline()
            if line:
                self.line += 1
                self.byte += len(line)
                return self._text(line)
            self.close()
            self.number, self.line, self.byte = self.number + 1, 0, 0
        raise StopIteration

    def _open(self) -> BinaryIO:
        if self.file is None:
            self.file = open_binary(self.paths[self.number], self.compression)
            if self.byte:
                self.file.seek(self.byte)
        return self.file

    def _text(self, line: bytes) -> Any:
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            return np.array(line.decode(), STRING)
        except UnicodeDecodeError as error:
            raise ArgumentError(
                "reading lines of text",
                received=f"line {self.line} of {self.paths[self.number]}, {error.reason}",
                expected="text in UTF-8",
                fix="convert the file to UTF-8",
            ) from None

    def restart(self) -> None:
        self.close()
        self.number = self.line = self.byte = 0

    def save(self) -> State:
        return {"file": self.number, "line": self.line, "byte": self.byte}

    def restore(self, state: State) -> None:
        self.close()
        self.number, self.line, self.byte = state["file"], state["line"], state["byte"]

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            file.close()


class TextLineDataset(Dataset):
    """The lines of text files in UTF-8, as strings without their line ends.

    filenames: a path, several, or a Dataset of paths; local or through fsspec. compression_type:
    "GZIP", "BZ2", "XZ" or None. num_parallel_reads: files that are read at once by as many threads,
    line by line in turn; without it one file after the other. buffer_size is accepted and not
    needed. Files are opened when they are reached, one at a time.
    """

    def __init__(
        self,
        filenames: Any,
        compression_type: str | None = None,
        buffer_size: int | None = None,
        num_parallel_reads: int | None = None,
    ) -> None:
        subject = "TextLineDataset"
        workers = check.workers(num_parallel_reads, subject)
        if not isinstance(filenames, Dataset):
            paths = names(filenames, subject)
            if not workers:
                super().__init__(Lines(paths, compression_type))
                return
            filenames = Dataset(Gather(Arrays(paths)))

        def read(path: Any) -> Dataset:
            return Dataset(Lines(names(path, subject), compression_type))

        call = Call(read, subject)
        cycle = max(1, workers)
        super().__init__(Interleave(filenames._stage, call, cycle, 1, workers))
