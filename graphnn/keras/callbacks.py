"""Callbacks: objects that a model calls at the beginning and end of epochs, batches and runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

__all__ = ["Callback", "CallbackList", "History", "LambdaCallback", "ProgbarLogger"]

_RUNS = ("train", "test", "predict")
BATCH_HOOKS = tuple(f"on_{run}_batch_{end}" for run in _RUNS for end in ("begin", "end"))
RUN_HOOKS = tuple(f"on_{run}_{end}" for run in _RUNS for end in ("begin", "end"))
HOOKS = (*BATCH_HOOKS, *RUN_HOOKS, "on_epoch_begin", "on_epoch_end")
Logs = dict[str, Any]


class Callback:
    """Base of callbacks: override the hooks that are wanted.

    model: the model being run. params: "epochs", "steps" (None if not known), "verbose".
    logs: dicts from names of metrics to numbers.
    """

    # Whether batch hooks take 0-d tensors as logs: reading a number waits for the device.
    _takes_tensors = False

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Called before a run with the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before a run with its settings."""
        self.params = params

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before an epoch of training, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch of training and its validation, whose logs begin with val_."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """The same as `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """The same as `on_train_batch_end`."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of training, counted from 0 in each epoch."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of training."""
        self.on_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of evaluation."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of prediction."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of prediction; logs["outputs"] holds the predictions."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before training."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After training."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before evaluation, also that in the middle of training."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After evaluation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before prediction."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After prediction."""


def as_numbers(logs: Logs | None) -> Logs:
    """Logs with Python numbers instead of 0-d tensors."""
    return {k: v.item() if getattr(v, "shape", None) == () else v for k, v in (logs or {}).items()}


def _overrides(callback: Any, hook: str) -> bool:
    if callback.__dict__.get(hook) is not None:
        return True
    own = getattr(type(callback), hook, None)
    if own is not getattr(Callback, hook):
        return own is not None
    # on_batch_end is reached through on_train_batch_end.
    short = hook.replace("_train_batch_", "_batch_")
    return short != hook and _overrides(callback, short)


class CallbackList:
    """Several callbacks as one. Batch hooks that nobody overrides cost nothing."""

    def __init__(
        self, callbacks: Any = None, model: Any = None, params: dict[str, Any] | None = None
    ) -> None:
        one = callbacks is not None and not isinstance(callbacks, list | tuple)
        self.callbacks: list[Any] = [callbacks] if one else list(callbacks or ())
        self._hooks: dict[str, tuple[Callable[..., Any], ...]] = {}
        self._numbers: dict[str, bool] = {}
        if params is not None:
            self.set_params(params)
        if model is not None:
            self.set_model(model)
        self._collect()

    def _collect(self) -> None:
        for hook in HOOKS:
            users = [c for c in self.callbacks if _overrides(c, hook)]
            self._hooks[hook] = tuple(getattr(c, hook) for c in users)
            self._numbers[hook] = any(not getattr(c, "_takes_tensors", False) for c in users)

    def append(self, callback: Any) -> None:
        """Add a callback at the end."""
        self.callbacks.append(callback)
        self._collect()

    def set_params(self, params: dict[str, Any]) -> None:
        """Tell all callbacks the settings of the run."""
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Tell all callbacks the model."""
        for callback in self.callbacks:
            callback.set_model(model)

    def wants(self, hook: str) -> bool:
        """Whether any callback overrides a hook."""
        return bool(self._hooks[hook])

    def call(self, hook: str, *args: Any, logs: Logs | None = None) -> None:
        """Run a hook of all callbacks, in order."""
        users = self._hooks[hook]
        if not users:
            return
        given = as_numbers(logs) if self._numbers[hook] else (logs or {})
        for user in users:
            user(*args, given)

    def __getattr__(self, name: str) -> Any:
        if name not in HOOKS:
            raise AttributeError(f"CallbackList has no attribute {name}")

        def run(*args: Any, logs: Logs | None = None) -> None:
            positional = 1 if "epoch" in name or "batch" in name else 0
            self.call(name, *args[:positional], logs=logs or next(iter(args[positional:]), None))

        return run


class History(Callback):
    """Keeps the logs of all epochs: `history` is a dict of lists, `epoch` the epochs' numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []
        self.model.history = self

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """Hooks given as functions: `LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`.

    Raises TypeError for a name that is not a hook.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        super().__init__()
        for name, function in hooks.items():
            if name not in HOOKS:
                raise TypeError(
                    f"LambdaCallback: there is no hook {name}; hooks: {', '.join(HOOKS)}"
                )
            setattr(self, name, function)


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
            from tqdm.auto import tqdm

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
