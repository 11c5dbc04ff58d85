"""One run of fit, evaluate or predict, and small questions about it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.keras.callbacks.base import CallbackList, Logs
from graphnn.keras.models.batches import BatchSource
from graphnn.runtime.errors import ArgumentError


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


def check_counts(what: str, **counts: Any) -> None:
    """Raise ArgumentError for numbers of batches, examples or epochs that are no such numbers.

    None stands for a default; epochs may be 0.
    """
    for name, value in counts.items():
        least = int("epoch" not in name or "per" in name)
        if value is None or (hasattr(value, "__index__") and int(value) >= least):
            continue
        raise ArgumentError(
            what,
            received=f"{name}={value!r}",
            expected=f"an integer of at least {least}",
            fix="divide with //" if isinstance(value, float) else f"for example {name}=32",
        )


def level_of(verbose: Any, terminal: bool) -> int:
    """How much to show: 0, 1 or 2. Raises ArgumentError for anything else."""
    if verbose == "auto":
        return 1 if terminal else 2
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ArgumentError(
        "verbose",
        received=repr(verbose),
        expected='0 (silent), 1 (a bar), 2 (a line per epoch) or "auto"',
        fix="choose one of these",
    )


def is_validated(epoch: int, freq: int | Collection[int]) -> bool:
    """Whether an epoch, counted from 0, ends with a validation."""
    return (epoch + 1) % freq == 0 if isinstance(freq, int) else epoch + 1 in freq


def flat(logs: Logs) -> Any:
    """The one value, or all in order, the loss first."""
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def joined(parts: list[list[Any]], structure: Any) -> Any:
    """The leaves of several batches, each joined along the first axis, in a structure."""
    return tree.unflatten(structure, [np.concatenate(leaf) for leaf in zip(*parts, strict=True)])
