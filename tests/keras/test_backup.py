"""BackupAndRestore: killed and started again, training ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.keras import callbacks, layers
from graphnn.runtime.errors import ArgumentError, StateError
from tests.house import ROOT
from tests.keras import resumable
from tests.keras.resumable import BATCHES, EPOCHS, train


def command(kind: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.keras.resumable", kind, str(folder)]


def kill_after(batches: int, kind: str, folder: Path) -> None:
    """Run the program and kill it with -9 when it has told of some batches."""
    environment = {**os.environ, "GRAPHNN_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(kind, folder), cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(batches):
            assert child.stdout.readline().startswith("batch"), "it ended too early"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def finish(kind: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "GRAPHNN_NUM_THREADS": "1"}
    subprocess.run(
        command(kind, folder), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    with np.load(folder / "result.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(
    "kind",
    [
        "arrays",
        "dataset",
        pytest.param("generator", marks=pytest.mark.slow),
        pytest.param("eager", marks=pytest.mark.slow),
    ],
)
def test_killed_twice_and_resumed(kind: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    wanted = finish(kind, whole)
    total = EPOCHS * BATCHES
    rng = random.Random()
    first = rng.randrange(1, total // 2)
    second = rng.randrange(1, total // 2 - 4)
    print(f"killed after {first} batches, then after {second} more")
    kill_after(first, kind, killed)
    kill_after(second, kind, killed)
    found = finish(kind, killed)
    assert found.keys() == wanted.keys() and int(found["batches"]) == total
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert (killed / "log.csv").read_text() == (whole / "log.csv").read_text()
    assert not (killed / "backup").exists()


class Crash(callbacks.Callback):
    """Fails in one batch of one epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self._at, self._epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == self._at:
            raise RuntimeError("crash")


@pytest.mark.parametrize("save_freq", ["epoch", 5])
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_backups_now_and_then(kind: str, save_freq: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    wanted, counter, history = train(kind, tmp_path / "a", save_freq=save_freq)
    (tmp_path / "b").mkdir()
    with pytest.raises(RuntimeError, match="crash"):
        train(kind, tmp_path / "b", Crash(2, 7), save_freq=save_freq)
    found, again, logs = train(kind, tmp_path / "b", save_freq=save_freq)
    for one, two in zip(wanted.variables, found.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    assert again.losses == counter.losses and logs.history == history.history
    assert logs.epoch == [0, 1, 2, 3]


def test_a_backup_after_the_last_batch_of_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    wanted, _, history = train("arrays", tmp_path / "a")

    class InValidation(callbacks.Callback):
        def on_test_begin(self, logs: Any = None) -> None:
            raise RuntimeError("crash")

    (tmp_path / "b").mkdir()
    with pytest.raises(RuntimeError, match="crash"):
        train("arrays", tmp_path / "b", InValidation())
    found, _, logs = train("arrays", tmp_path / "b")
    assert logs.history == history.history
    for one, two in zip(wanted.variables, found.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_nothing_is_left_and_a_kept_backup_ends_at_once(tmp_path: Path) -> None:
    model = resumable.build("arrays")
    folder = tmp_path / "backup"
    keep = callbacks.BackupAndRestore(folder, delete_checkpoint=False, double_checkpoint=True)
    model.fit(resumable.X, resumable.Y, epochs=2, verbose=0, callbacks=[keep])
    assert sorted(p.name for p in folder.iterdir()) == ["latest.backup", "previous.backup"]
    again = resumable.build("arrays")
    other = callbacks.BackupAndRestore(folder)
    history = again.fit(resumable.X, resumable.Y, epochs=2, verbose=0, callbacks=[other])
    assert len(history.history["loss"]) == 2 and int(again.optimizer.iterations) == 6
    assert not folder.exists()


def test_backups_that_do_not_fit(tmp_path: Path) -> None:
    data = {"epochs": 1, "verbose": 0}
    folder = tmp_path / "backup"

    def backup() -> Any:
        return callbacks.BackupAndRestore(folder, delete_checkpoint=False)

    resumable.build("arrays").fit(resumable.X, resumable.Y, callbacks=[backup()], **data)
    model = keras.Sequential([layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(StateError, match="Variables"):
        model.fit(resumable.X, resumable.X[:, :3], callbacks=[backup()], **data)
    with pytest.raises(StateError, match="in batches of 16"):
        resumable.build("arrays").fit(
            resumable.X, resumable.Y, batch_size=16, callbacks=[backup()], **data
        )
    path = folder / "latest.backup"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StateError, match=r"latest\.backup"):
        resumable.build("arrays").fit(resumable.X, resumable.Y, callbacks=[backup()], **data)
    for wrong in (0, "batch", 1.5):
        with pytest.raises(ArgumentError, match="save_freq"):
            callbacks.BackupAndRestore(folder, save_freq=wrong)
    with pytest.raises(ArgumentError, match="backup_dir"):
        callbacks.BackupAndRestore("")
