"""CSVLogger: the logs of each epoch as a line of a file."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from graphnn.keras.callbacks.base import Callback, Logs, State, as_number


def _cell(value: Any) -> Any:
    value = as_number(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return '"[' + ", ".join(map(str, value)) + ']"'
    return value


class CSVLogger(Callback):
    """Write the logs of each epoch to a CSV file: "epoch", then the logs sorted by name.

    filename: where to write. separator: between cells. append: whether to go on with a file that is
    there; its header is then kept. A validation that comes in some epochs only leaves "NA" cells.
    The file is closed also when training ends by an exception.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename, self.sep, self.append = os.fspath(filename), separator, append
        self.keys: list[str] | None = None
        self._file: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._release()
        path = Path(self.filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        keep = (self.append or bool(self.params.get("resumed"))) and path.is_file()
        self.keys = _header(path, self.sep) if keep else None
        self._file = open(path, "a" if keep else "w", newline="", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        if self.keys is None:
            self.keys = self._all_keys(logs)
            self._write(["epoch", *self.keys])
        self._write([epoch, *(_cell(logs.get(key, "NA")) for key in self.keys)])

    def _all_keys(self, logs: Logs) -> list[str]:
        """The names of the logs; those of the validation too if it comes in later epochs only."""
        keys = sorted(logs)
        later = self.params.get("validates") and not any(k.startswith("val_") for k in keys)
        return keys + [f"val_{k}" for k in keys if k != "learning_rate"] if later else keys

    def _write(self, cells: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter=self.sep, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue())
        self._file.flush()

    def get_state(self) -> State:
        return {"length": self._file.tell() if self._file else None, "keys": self.keys}

    def set_state(self, state: State) -> None:
        self.keys = state["keys"]
        if state["length"] is None or not self._file:
            return
        # Lines written after the backup belong to epochs that come again.
        self._file.truncate(min(state["length"], os.fstat(self._file.fileno()).st_size))
        self._file.seek(0, os.SEEK_END)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._release()

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _header(path: Path, separator: str) -> list[str] | None:
    """The names in the first line of a file, without "epoch"; None for an empty file."""
    with open(path, newline="", encoding="utf-8") as file:
        first = next(csv.reader(file, delimiter=separator), None)
    return first[1:] if first else None
