"""LearningRateScheduler, and TerminateOnNaN."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from graphnn.keras.callbacks.base import Callback, Logs, as_number
from graphnn.runtime.errors import ArgumentError


def _takes_rate(schedule: Callable[..., Any]) -> bool:
    try:
        inspect.signature(schedule).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch; adds "learning_rate" to the logs.

    schedule: a function of the epoch, counted from 0, and the rate so far, or of the epoch alone,
    that gives the new rate. verbose: 1 to say so. Raises ArgumentError if it gives no number.

    >>> slower = graphnn.keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    >>> model = graphnn.keras.Sequential([graphnn.keras.layers.Dense(1)])
    >>> model.compile(graphnn.keras.optimizers.SGD(1.0), "mse")
    >>> data = np.ones((4, 2)), np.ones((4, 1))
    >>> model.fit(*data, epochs=2, verbose=0, callbacks=[slower]).history["learning_rate"]
    [0.5, 0.25]
    """

    _kept = ()

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0) -> None:
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        rate = float(optimizer.learning_rate)
        given = self.schedule(epoch, rate) if _takes_rate(self.schedule) else self.schedule(epoch)
        new = as_number(given)
        if isinstance(new, bool) or not isinstance(new, int | float):
            raise ArgumentError(
                "LearningRateScheduler",
                received=f"{given!r} from the schedule for epoch {epoch}",
                expected="a number",
                fix="return the learning rate from the function",
            )
        optimizer.learning_rate = float(new)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: the learning rate is now {new:.4g}", flush=True)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class TerminateOnNaN(Callback):
    """Stop training when the loss of a batch is NaN or infinite.

    The loss is read after each batch, which on a GPU waits for the batch to be done.
    """

    _kept = ()

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            print(f"Batch {batch}: the loss is {loss}, training ends", flush=True)
            self.model.stop_training = True
