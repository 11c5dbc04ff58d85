"""History, and callbacks given as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn.keras.callbacks.base import HOOKS, SHORT_HOOKS, Callback, Logs


class History(Callback):
    """Keeps the logs of all epochs: `history` is a dict of lists, `epoch` the epochs' numbers."""

    _kept = ("history", "epoch")

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
            if name not in HOOKS and name not in SHORT_HOOKS:
                raise TypeError(
                    f"LambdaCallback: there is no hook {name}; hooks: {', '.join(HOOKS)}"
                )
            setattr(self, name, function)
