"""What callbacks share that save after epochs, or after a number of batches."""

from __future__ import annotations

from graphnn.keras.callbacks.base import Callback, Logs
from graphnn.runtime.errors import ArgumentError


class PeriodicCallback(Callback):
    """Base of callbacks that save at intervals; subclasses define `_save_at`.

    save_freq: "epoch", or the number of batches between two savings, counted over epochs.
    """

    save_freq: str | int
    _epoch = 0
    _batches = 0  # since the last saving
    _last_batch = 0

    def _set_frequency(self, save_freq: str | int) -> None:
        """Keep save_freq. Raises ArgumentError for what is none."""
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ArgumentError(
                type(self).__name__,
                received=f"save_freq={save_freq!r}",
                expected='"epoch", or a number of batches of 1 or more',
                fix='use save_freq="epoch"',
            )
        self.save_freq = save_freq

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch, self._last_batch = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            return
        # Counted by the batches' numbers: a step may run several batches at once.
        self._batches += batch + 1 - self._last_batch
        self._last_batch = batch + 1
        if self._batches >= int(self.save_freq):
            self._batches = 0
            self._save_at(self._epoch, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save_at(epoch, None, logs)

    def _save_at(self, epoch: int, batch: int | None, logs: Logs | None) -> None:
        """Save after a batch, or at the end of an epoch where `batch` is None."""
