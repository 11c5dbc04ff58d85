"""Callback, the base of all; CallbackList, several as one; the logs that batch hooks get."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphnn.runtime.errors import ArgumentError

_RUNS = ("train", "test", "predict")
BATCH_HOOKS = tuple(f"on_{run}_batch_{end}" for run in _RUNS for end in ("begin", "end"))
RUN_HOOKS = tuple(f"on_{run}_{end}" for run in _RUNS for end in ("begin", "end"))
EPOCH_HOOKS = ("on_epoch_begin", "on_epoch_end")
SHORT_HOOKS = ("on_batch_begin", "on_batch_end")  # reached through those of training
HOOKS = (*BATCH_HOOKS, *RUN_HOOKS, *EPOCH_HOOKS)
Logs = dict[str, Any]
State = dict[str, Any]


class Callback:
    """Base of callbacks: override the hooks that are wanted.

    model: the model being run. params: "epochs", "steps" (None if not known), "verbose", "resumed"
    (whether the run goes on from a backup). logs: dicts from names of metrics to numbers.

    >>> class Notes(graphnn.keras.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    >>> model = graphnn.keras.Sequential([graphnn.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Notes()])
    0 ['loss']
    """

    # Whether batch hooks take 0-d tensors as logs: reading a number waits for the device.
    _takes_tensors = False
    # Whether the hooks come after those of all others, whatever the order in the list.
    _runs_last = False
    # Attributes that a backup keeps; None for all that are plain data.
    _kept: tuple[str, ...] | None = None

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Called before a run with the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before a run with its settings."""
        self.params = params

    def get_state(self) -> State:
        """What `BackupAndRestore` keeps of this callback: its attributes that are numbers, text,
        arrays, or lists and dicts of them."""
        names = self._kept
        if names is None:
            names = tuple(k for k in self.__dict__ if k not in ("model", "params"))
        found = {k: self.__dict__[k] for k in names if k in self.__dict__}
        return {k: copy.deepcopy(v) for k, v in found.items() if is_plain(v)}

    def set_state(self, state: State) -> None:
        """Go on from what `get_state` gave in an earlier process; called after `on_train_begin`."""
        self.__dict__.update(state)

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
        """After training. Not called when training ends by an exception or Ctrl-C."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before evaluation, also that in the middle of training."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After evaluation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before prediction."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After prediction."""

    def _release(self) -> None:
        """Close files and displays after a run that an exception ended."""


def is_plain(value: Any) -> bool:
    """Whether a value is made of None, numbers, text, NumPy arrays, and dicts, lists and tuples."""
    if isinstance(value, dict):
        return type(value) is dict and all(is_plain(v) for kv in value.items() for v in kv)
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or type(value) in (bool, int, float, str)


def as_number(value: Any) -> Any:
    """A 0-d tensor, array or NumPy number as a Python number; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def as_numbers(logs: Logs | None) -> Logs:
    """Logs with Python numbers instead of 0-d tensors."""
    return {k: as_number(v) for k, v in dict.items(logs or {})}


class BatchLogs(dict[str, Any]):
    """Logs of a batch: a tensor becomes a number when somebody asks for it, and not before.

    Reading a tensor waits for the device; hooks that do not look at the logs must not.
    """

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        number = as_number(value)
        if number is not value:
            super().__setitem__(name, number)
        return number

    def __iter__(self) -> Iterator[str]:  # overridden, so that dict(logs) asks __getitem__
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        """The number, or the default."""
        return self[name] if name in self else default

    def pop(self, name: str, *default: Any) -> Any:
        """Take a number out."""
        return as_number(super().pop(name, *default))

    def items(self) -> Any:
        """Pairs of name and number."""
        return as_numbers(self).items()

    def values(self) -> Any:
        """The numbers."""
        return as_numbers(self).values()

    def copy(self) -> Logs:
        """A plain dict of numbers."""
        return as_numbers(self)

    def __eq__(self, other: object) -> bool:
        return as_numbers(self) == other

    def __or__(self, other: Any) -> Any:
        return as_numbers(self) | other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(as_numbers(self))


def _check(callback: Any) -> None:
    """Raise ArgumentError for what is no callback."""
    if not isinstance(callback, type) and hasattr(callback, "set_params"):
        return
    is_class = isinstance(callback, type)
    name = callback.__name__ if is_class else type(callback).__name__
    raise ArgumentError(
        "callbacks",
        received=f"the class {name}" if is_class else f"{callback!r:.60} of type {name}",
        expected="objects of keras.callbacks.Callback and its subclasses",
        fix=f"make an object: {name}(...)"
        if is_class
        else "wrap a function in keras.callbacks.LambdaCallback(on_epoch_end=...)",
    )


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
    """Several callbacks as one, run in their order. Hooks that nobody overrides cost nothing.

    callbacks: one or a list. model, params: told to each of them.
    """

    def __init__(
        self, callbacks: Any = None, model: Any = None, params: dict[str, Any] | None = None
    ) -> None:
        one = callbacks is not None and not isinstance(callbacks, list | tuple)
        self.callbacks: list[Any] = [callbacks] if one else list(callbacks or ())
        for callback in self.callbacks:
            _check(callback)
        self._hooks: dict[str, tuple[Callable[..., Any], ...]] = {}
        self._numbers: dict[str, bool] = {}
        self.params: dict[str, Any] = {}
        if params is not None:
            self.set_params(params)
        if model is not None:
            self.set_model(model)
        self._collect()

    def _collect(self) -> None:
        ordered = sorted(self.callbacks, key=lambda c: bool(getattr(c, "_runs_last", False)))
        for hook in HOOKS:
            users = [c for c in ordered if _overrides(c, hook)]
            self._hooks[hook] = tuple(getattr(c, hook) for c in users)
            self._numbers[hook] = any(not getattr(c, "_takes_tensors", False) for c in users)

    def append(self, callback: Any) -> None:
        """Add a callback at the end. Raises ArgumentError for what is none."""
        _check(callback)
        self.callbacks.append(callback)
        self._collect()

    def set_params(self, params: dict[str, Any]) -> None:
        """Tell all callbacks the settings of the run."""
        self.params = params
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
        """Run a hook of all callbacks, in order; they share one dict of logs."""
        users = self._hooks[hook]
        if not users:
            return
        given: Logs = {} if logs is None else logs
        if given and self._numbers[hook] and hook in BATCH_HOOKS:
            given = BatchLogs(given)
        for user in users:
            user(*args, given)

    def release(self) -> None:
        """Close what callbacks hold open, after an exception. `on_train_end` is not called: what it
        does (delete a backup, restore best weights) is for runs that came to their end."""
        for callback in self.callbacks:
            getattr(callback, "_release", lambda: None)()

    def backup(self) -> Any:
        """The callback that can resume a run and has something to resume from, or None."""
        for callback in self.callbacks:
            if getattr(callback, "_has_backup", lambda: False)():
                return callback
        return None

    def get_state(self) -> list[Any]:
        """Pairs of a key and the state of each callback. The key is its class and, for several of
        one class, their order, so that callbacks may be added or left out before a restart."""
        return [
            (key, callback.get_state())
            for key, callback in self._keyed()
            if hasattr(callback, "get_state")
        ]

    def set_state(self, states: list[Any]) -> None:
        """Give each callback the state it had; new ones stay as they are."""
        saved = {tuple(key): state for key, state in states}
        for key, callback in self._keyed():
            if key in saved:
                callback.set_state(saved[key])

    def _keyed(self) -> list[tuple[tuple[str, int], Any]]:
        seen: Counter[str] = Counter()
        found = []
        for callback in self.callbacks:
            name = type(callback).__qualname__
            found.append(((name, seen[name]), callback))
            seen[name] += 1
        return found

    def __getattr__(self, name: str) -> Any:
        if name not in HOOKS and name not in SHORT_HOOKS:
            raise AttributeError(f"CallbackList has no attribute {name}")
        hook = name.replace("on_batch", "on_train_batch")

        def run(*args: Any, logs: Logs | None = None) -> None:
            positional = 1 if "epoch" in name or "batch" in name else 0
            self.call(hook, *args[:positional], logs=logs or next(iter(args[positional:]), None))

        return run
