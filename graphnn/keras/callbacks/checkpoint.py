"""ModelCheckpoint: save the model while it trains."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from graphnn.keras.callbacks.base import Logs, as_number
from graphnn.keras.callbacks.monitor import MonitorCallback
from graphnn.keras.callbacks.periodic import PeriodicCallback
from graphnn.keras.saving import api
from graphnn.keras.saving.methods import Saving
from graphnn.runtime.errors import ArgumentError


class ModelCheckpoint(PeriodicCallback, MonitorCallback):
    """Save the model, or its weights, after epochs or after a number of batches.

    filepath: where to; may name the epoch (from 1), the batch (from 1) and logs:
    "model_{epoch:02d}_{val_loss:.3f}.keras". What `model.save` and `model.save_weights` say about
    suffixes holds. monitor, mode: see MonitorCallback, for save_best_only. save_best_only: save
    only when the value is better than at all savings before. save_weights_only: call
    `save_weights` in place of `save`. save_freq: "epoch", or the number of batches between two
    savings, counted over epochs; `monitor` is then looked for in the logs of the batch.
    initial_value_threshold: a value that must be passed at first. verbose: 1 to say what happens.
    Raises ArgumentError for another save_freq or a name in the path that the logs do not hold;
    when training begins, what `save` and `save_weights` raise for a suffix, or without h5py.
    """

    _takes_tensors = True
    _kept = ("best", "_batches", "_last_batch")

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self._set_frequency(save_freq)
        self.filepath, self.verbose = os.fspath(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # What no saving could do is said now, not after an epoch; a model may save in its own way.
        model = type(self.model)
        if self.save_weights_only and model.save_weights is Saving.save_weights:
            api.check_weights_path(self.filepath)
        if not self.save_weights_only and model.save is Saving.save:
            api.check_model_path(self.filepath)

    def _save_at(self, epoch: int, batch: int | None, logs: Logs | None) -> None:
        if self.save_best_only and not self._is_best(epoch, logs):
            return
        path = self._path(epoch, batch, logs)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: saving the model to {path}", flush=True)
        save: Callable[..., Any] = (
            self.model.save_weights if self.save_weights_only else self.model.save
        )
        folder = os.path.dirname(path)
        try:
            if folder:
                os.makedirs(folder, exist_ok=True)
            save(path, overwrite=True)
        except OSError as error:
            error.add_note(
                f"in ModelCheckpoint, epoch {epoch + 1}: {path} cannot be written; give a filepath "
                "in a folder that you may write to (the model in memory is trained so far)"
            )
            raise

    def _is_best(self, epoch: int, logs: Logs | None) -> bool:
        current = self._value(logs)
        if current is None:
            return False
        better = self._improves(current, self.best)
        if better:
            self.best = current
        elif self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: {self.monitor} did not get better", flush=True)
        return better

    def _path(self, epoch: int, batch: int | None, logs: Logs | None) -> str:
        names = {k: as_number(v) for k, v in (logs or {}).items()}
        names["epoch"] = epoch + 1
        if batch is not None:
            names["batch"] = batch + 1
        try:
            return self.filepath.format(**names)
        except (KeyError, IndexError) as error:
            raise ArgumentError(
                "ModelCheckpoint",
                received=f"filepath {self.filepath!r}, of which {error} is not known",
                expected="names among " + ", ".join(names),
                fix="the logs of the validation are known at the end of an epoch only",
            ) from None
