"""BackupAndRestore: training that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
import random as python_random
import time
from pathlib import Path
from typing import Any

import numpy as np

from graphnn import random
from graphnn.data.storage import pack, unpack, write_atomically
from graphnn.keras.callbacks.base import Logs, as_numbers
from graphnn.keras.callbacks.periodic import PeriodicCallback
from graphnn.keras.layers.tracking import unique
from graphnn.keras.optimizers import Optimizer
from graphnn.runtime.errors import ArgumentError, StateError

_FORMAT = 1


def variables_of(model: Any) -> list[Any]:
    """All state of training: weights, layers' random generators, metrics, optimizers."""
    optimizers = [model.optimizer] if model.optimizer is not None else []
    for layer in model._walk():
        for value in layer.__dict__.values():
            if isinstance(value, Optimizer):
                optimizers.append(value)
    slots = (v for optimizer in unique(optimizers) for v in optimizer.variables)
    metrics = (v for metric in model.metrics for v in metric.variables)
    return unique([*model.variables, *slots, *metrics])


def generators() -> dict[str, Any]:
    """The states of the random numbers of graphnn, NumPy and Python."""
    seeded = {str(seed): np.array(g.state.numpy()) for seed, g in random._SEEDED.items()}
    return {
        "global": np.array(random.get_global_generator().state.numpy()),
        "seeded": seeded,
        "numpy": np.random.get_state(),
        "python": python_random.getstate(),
    }


def set_generators(states: dict[str, Any]) -> None:
    """Go on from what `generators` gave."""
    random.get_global_generator().state.assign(states["global"])
    for seed, words in states["seeded"].items():
        number = int(seed)
        if number not in random._SEEDED:
            random._SEEDED[number] = random.Generator(number)
        random._SEEDED[number].state.assign(words)
    np.random.set_state(states["numpy"])
    python_random.setstate(states["python"])


class BackupAndRestore(PeriodicCallback):
    """Keep a backup of the whole state of `fit`, and go on from it after a crash.

    Start the same program again with the same backup_dir: `fit` goes on after the last backup, and
    ends with the same weights, bit for bit, as without the crash. The backup holds the weights, the
    optimizers, the metrics, all random numbers (also NumPy's and Python's), the states of the
    callbacks (see `Callback.get_state`), and the position in the data and its order: exact for
    arrays and Datasets; a generator is run up to the position again, so it must yield the same.

    backup_dir: a folder for this run alone. save_freq: "epoch", or a number of batches.
    delete_checkpoint: whether the backup is deleted when training comes to its end.
    double_checkpoint: keep the backup before the last one too, as a second file. Its hooks come
    after those of all other callbacks. Raises StateError if the backup is damaged or belongs to
    another model.
    """

    _takes_tensors = True
    _runs_last = True
    _kept = ("_batches", "_last_batch")

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        save_before_preemption: bool = False,
    ) -> None:
        super().__init__()
        if not os.fspath(backup_dir):
            raise ArgumentError(
                "BackupAndRestore", received="an empty backup_dir", expected="the path of a folder"
            )
        self._set_frequency(save_freq)
        self.backup_dir = os.fspath(backup_dir)
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint

    @property
    def path(self) -> Path:
        """The file of the backup."""
        return Path(self.backup_dir) / "latest.backup"

    @property
    def _previous(self) -> Path:
        return self.path.with_name("previous.backup")

    # ---- saving -------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget_halves()

    def _forget_halves(self) -> None:
        """Delete what was being written when a process was killed."""
        for path in Path(self.backup_dir).glob(f".{self.path.name}.*"):
            path.unlink(missing_ok=True)

    def _save_at(self, epoch: int, batch: int | None, logs: Logs | None) -> None:
        if batch is None:
            self._save(epoch + 1, 0, logs)
        else:
            self._save(epoch, batch + 1, logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if not self.delete_checkpoint:
            return
        self._forget_halves()
        for path in (self.path, self._previous):
            path.unlink(missing_ok=True)
        try:
            Path(self.backup_dir).rmdir()
        except OSError:
            pass  # somebody else keeps files there

    def _save(self, epoch: int, batch: int, logs: Logs | None) -> None:
        """Write the state before batch `batch` of an epoch."""
        model, run = self.model, self.model._run
        state = {
            "format": _FORMAT,
            "epoch": epoch,
            "batch": batch,
            "logs": as_numbers(logs),
            "stop": bool(model.stop_training),
            "variables": [np.array(v.numpy()) for v in variables_of(model)],
            "random": generators(),
            "data": run.source.state(batch),
            "callbacks": run.callbacks.get_state(),
            "seconds": time.time(),
        }
        if self.double_checkpoint and self.path.is_file():
            os.replace(self.path, self._previous)
        write_atomically(self.path, pack(state))

    # ---- restoring: the trainer asks ----------------------------------------------------

    def _has_backup(self) -> bool:
        return self.path.is_file() or self._previous.is_file()

    def _load(self) -> dict[str, Any]:
        """The backup. Raises StateError if it is damaged, and says which file."""
        path = self.path if self.path.is_file() else self._previous
        try:
            state = unpack(path.read_bytes())
        except StateError as error:
            raise self._damaged(path, error.received) from None
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise self._damaged(path, "the format of another version")
        return state

    def _damaged(self, path: Path, what: str) -> StateError:
        return StateError(
            f"the backup {path}",
            received=what,
            expected="a backup written by this version of BackupAndRestore",
            fix="delete the file to train from the beginning",
        )

    def _apply(self, state: dict[str, Any]) -> None:
        """Put the state back; weights, optimizer slots and metrics must exist by now."""
        variables, arrays = variables_of(self.model), state["variables"]
        new = [(a.shape, a.dtype) for a in arrays]
        own = [(tuple(v.shape), np.dtype(v.dtype)) for v in variables]
        if new != own:
            raise StateError(
                f"the backup in {self.backup_dir}",
                received=f"{len(new)} arrays: {_first_difference(new, own)}",
                expected=f"the state of {self.model.name}, {len(own)} Variables",
                fix="build the model as it was, or delete the backup",
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        self.model._run.source.restore(state["data"])
        self.model._run.callbacks.set_state(state["callbacks"])
        set_generators(state["random"])
        self.model.stop_training = state["stop"]


def _first_difference(new: list[Any], own: list[Any]) -> str:
    for position, (one, two) in enumerate(zip(new, own, strict=False)):
        if one != two:
            return f"array {position} is {one[1]}{one[0]} where the model has {two[1]}{two[0]}"
    return "the first ones fit"
