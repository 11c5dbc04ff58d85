"""One run of fit, evaluate or predict, and small questions about it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from graphnn.keras.callbacks.base import CallbackList, Logs
from graphnn.keras.models.batches import BatchSource


@dataclass
class Run:
    """What belongs to one call of `fit`."""

    source: BatchSource
    callbacks: CallbackList
    checks: BatchSource | None  # batches of the validation
    steps: int | None  # steps_per_epoch
    saved: Logs | None = None  # the backup to go on from


@contextlib.contextmanager
def released(run: CallbackList, source: BatchSource) -> Iterator[None]:
    """Close the data at the end, and what callbacks hold open if there was an exception."""
    try:
        yield
    except BaseException:
        run.release()
        raise
    finally:
        source.close()


def is_validated(epoch: int, freq: int | Collection[int]) -> bool:
    """Whether an epoch, counted from 0, ends with a validation."""
    return (epoch + 1) % freq == 0 if isinstance(freq, int) else epoch + 1 in freq


def flat(logs: Logs) -> Any:
    """The one value, or all in order, the loss first."""
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
