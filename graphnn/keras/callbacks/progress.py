"""The progress display of a run, and the callbacks that each run has."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from graphnn.keras.callbacks.base import Callback, CallbackList, Logs, as_numbers
from graphnn.keras.callbacks.history import History


def _number_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{value:.4e}"
    return str(value)


def _logs_text(logs: Logs) -> str:
    return " - ".join(f"{name}: {_number_text(value)}" for name, value in logs.items())


class ProgbarLogger(Callback):
    """Shows progress: one bar per epoch in a terminal or notebook, one line per epoch elsewhere.

    verbose: 1 for bars, 2 for a line per epoch. file: where to write, standard output by default.
    """

    _takes_tensors = True
    _kept = ()
    INTERVAL = 0.1  # seconds between refreshes: reading a value waits for the device

    def __init__(self, verbose: int = 1, file: TextIO | None = None) -> None:
        super().__init__()
        self.verbose, self._file = verbose, file
        self._bar: Any = None
        self._seen, self._start, self._next = 0, 0.0, 0.0
        self._training = False

    @property
    def file(self) -> TextIO:
        """Where the text goes."""
        return self._file or sys.stdout

    def _as_bar(self) -> bool:
        in_notebook = "ipykernel" in sys.modules
        return self.verbose == 1 and (in_notebook or bool(getattr(self.file, "isatty", bool)()))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._training = False
        self._close()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        print(f"Epoch {epoch + 1}/{self.params.get('epochs', '?')}", file=self.file, flush=True)
        self._open()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._finish(logs or {})

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self._training:
            self._open()

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self._training:
            self._finish(logs or {})

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._open()

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._finish({})

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not self._training:
            self._step(batch, logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step(batch, None)

    def _open(self) -> None:
        self._close()
        self._seen, self._start = 0, time.perf_counter()
        self._next = self._start + self.INTERVAL
        if self._as_bar():
            from tqdm import tqdm  # text also in notebooks, which then need no widgets

            self._bar = tqdm(
                total=self.params.get("steps"),
                file=self.file,
                unit="step",
                dynamic_ncols=True,
                bar_format="{n_fmt}/{total_fmt} {bar:30} {elapsed}{postfix}",
                leave=False,
            )

    def _step(self, batch: int, logs: Logs | None) -> None:
        self._seen = batch + 1
        if self._bar is None or time.perf_counter() < self._next:
            return
        self._bar.set_postfix_str(_logs_text(as_numbers(logs)), refresh=False)
        self._bar.update(self._seen - self._bar.n)
        self._next = time.perf_counter() + self.INTERVAL

    def _finish(self, logs: Logs) -> None:
        self._close()
        seconds = time.perf_counter() - self._start
        steps = self.params.get("steps") or self._seen
        pace = _pace(seconds / self._seen) if self._seen else ""
        text = f"{self._seen}/{steps} - {seconds:.0f}s{pace}"
        known = _logs_text(as_numbers(logs))
        print(f"{text} - {known}" if known else text, file=self.file, flush=True)

    def _release(self) -> None:
        self._training = False
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _pace(seconds: float) -> str:
    if seconds >= 1:
        return f" - {seconds:.0f}s/step"
    if seconds >= 1e-3:
        return f" - {seconds * 1e3:.0f}ms/step"
    return f" - {seconds * 1e6:.0f}us/step"


def with_defaults(
    callbacks: Any, verbose: int, model: Any, params: dict[str, Any], history: bool
) -> CallbackList:
    """The callbacks of a run: the user's, with History and a progress display if they lack one."""
    if isinstance(callbacks, CallbackList):
        return callbacks
    given: Iterable[Any] = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    found = [c for c in given if c is not None]
    if verbose and not any(isinstance(c, ProgbarLogger) for c in found):
        found.append(ProgbarLogger(verbose))
    if history and not any(isinstance(c, History) for c in found):
        # Last, so that it sees what the user's callbacks put into the logs of an epoch.
        found.append(History())
    return CallbackList(found, model=model, params={**params, "verbose": verbose})
