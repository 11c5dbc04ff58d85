"""Callbacks that follow one of the logs: MonitorCallback, EarlyStopping, ReduceLROnPlateau."""

from __future__ import annotations

import math
from typing import Any

from graphnn.keras.callbacks.base import Callback, Logs
from graphnn.runtime.errors import ArgumentError, warn_user

MODES = ("auto", "min", "max")
# Parts of names of metrics of which more is better; those metrics may also say so themselves.
_RISING = (
    *("acc", "auc", "precision", "recall", "fmeasure", "f1", "fbeta", "iou", "r2"),
    *("true_positives", "true_negatives", "specificity", "sensitivity", "cosine_similarity"),
)


class MonitorCallback(Callback):
    """Base of callbacks that follow one of the logs.

    monitor: its name, such as "val_loss". mode: "min" if less is better, "max" if more is, "auto"
    to conclude it from the metric, or its name where the model has none of this name. min_delta: a
    change smaller than this is none. Raises ArgumentError for another mode.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        best: float | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ArgumentError(
                type(self).__name__,
                received=f"mode={mode!r}",
                expected="one of " + ", ".join(MODES),
                fix='use "min" for losses and "max" for accuracies',
            )
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.best = best
        self._warned = False

    def _rising(self) -> bool:
        """Whether larger values are better."""
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        for metric in getattr(self.model, "metrics", ()):
            if metric.name == name and getattr(metric, "_direction", None) in ("up", "down"):
                return bool(metric._direction == "up")
        return any(part in name.lower() for part in _RISING)

    def _improves(self, value: float, reference: float | None) -> bool:
        """Whether a value is better than another one by more than min_delta."""
        if reference is None:
            return not math.isnan(value)
        if self._rising():
            return value - self.min_delta > reference
        return value + self.min_delta < reference

    def _value(self, logs: Logs | None) -> float | None:
        """The value that is followed, as a number; without it there is a warning, once."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            if not self._warned:
                known = ", ".join(logs or {}) or "nothing"
                warn_user(
                    f"{type(self).__name__} follows {self.monitor!r}, but the logs hold {known}"
                )
            self._warned = True
            return None
        return float(value)


class EarlyStopping(MonitorCallback):
    """Stop training when a value no longer gets better.

    monitor, mode, min_delta: see MonitorCallback. patience: epochs without improvement until then.
    verbose: 1 to say so. baseline: a value that must be passed for an improvement to count.
    restore_best_weights: whether the model ends with the weights of its best epoch.
    start_from_epoch: epochs before this one are ignored.

    >>> stopping = graphnn.keras.callbacks.EarlyStopping("loss", patience=2, min_delta=1e9)
    >>> model = graphnn.keras.Sequential([graphnn.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> data = np.ones((4, 2)), np.ones((4, 1))
    >>> model.fit(*data, epochs=99, verbose=0, callbacks=[stopping]).epoch
    [0, 1, 2]
    """

    _kept = ("best", "wait", "stopped_epoch", "best_epoch", "best_weights")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._reset()

    def _reset(self) -> None:
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best = None
        self.best_weights: list[Any] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = self._value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            # If nothing ever gets better, the first epoch was the best.
            self._remember(epoch)
        self.wait += 1
        if self._improves(current, self.best):
            self.best = current
            self._remember(epoch)
            if self.baseline is None or self._improves(current, self.baseline):
                self.wait = 0
                return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _remember(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = self.model.get_weights()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping", flush=True)
        if not self.restore_best_weights or self.best_weights is None:
            return
        if self.verbose > 0:
            print(f"Restoring the weights of the best epoch, {self.best_epoch + 1}", flush=True)
        self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(MonitorCallback):
    """Make the learning rate smaller when a value no longer gets better.

    monitor, mode, min_delta: see MonitorCallback. factor: new rate = rate * factor, below 1.
    patience: epochs without improvement until then. cooldown: epochs to wait after a change.
    min_lr: the smallest rate. verbose: 1 to say so. Adds "learning_rate" to the logs. Raises
    ArgumentError for a factor of 1 or more.
    """

    _kept = ("best", "wait", "cooldown_counter")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if not 0 <= factor < 1:
            raise ArgumentError(
                "ReduceLROnPlateau",
                received=f"factor={factor}",
                expected="a number from 0 to below 1, by which the rate is multiplied",
                fix="for example factor=0.1",
            )
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.wait, self.cooldown_counter = 0, 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best, self.wait, self.cooldown_counter = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        rate = float(optimizer.learning_rate)
        if logs is not None:
            logs["learning_rate"] = rate
        current = self._value(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._improves(current, self.best):
            self.best, self.wait = current, 0
            return
        if self.cooldown_counter > 0:
            return
        self.wait += 1
        if self.wait < self.patience or rate <= self.min_lr:
            return
        reduced = max(rate * self.factor, self.min_lr)
        optimizer.learning_rate = reduced
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: the learning rate is now {reduced:.4g}", flush=True)
        self.cooldown_counter, self.wait = self.cooldown, 0
