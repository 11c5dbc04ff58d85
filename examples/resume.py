"""Training that is killed and started again ends with the same weights, bit for bit.

Run: python examples/resume.py. It starts itself three times: once without interruption, once until
it kills itself in the middle of an epoch, and once more to go on from the backup.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import graphnn as tf
from graphnn import keras
from graphnn.keras.layers import Dense, Dropout

EPOCHS = 5
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has one way only


def train(folder: Path, die_at: int | None) -> None:
    """Train with a backup every 10 batches; die at a batch if told to."""
    keras.utils.set_random_seed(3)
    (x, y), _ = keras.datasets.digits.load_data()
    pixels = x.reshape(-1, 64).astype("float32") / 16
    batches = tf.data.Dataset.from_tensor_slices((pixels, y)).shuffle(500).batch(32)
    model = keras.Sequential([Dense(64, activation="relu"), Dropout(0.3), Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    done = 0

    def count(batch: int, logs: Any) -> None:
        nonlocal done
        done += 1
        if done == die_at:
            os.kill(os.getpid(), KILL)

    backup = keras.callbacks.BackupAndRestore(folder / "backup", save_freq=10)
    counter = keras.callbacks.LambdaCallback(on_train_batch_end=count)
    history = model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=[backup, counter])
    accuracy = history.history["accuracy"][-1]
    print(f"  trained {done} batches in this process, accuracy {accuracy:.1%}")
    np.savez(folder / "weights.npz", *model.get_weights())


def start(folder: Path, *more: str) -> int:
    """Run this file in a process of its own; its exit status."""
    return subprocess.run([sys.executable, __file__, str(folder), *more]).returncode


def main() -> None:
    """Three runs, and a comparison of the weights."""
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        whole.mkdir()
        killed.mkdir()
        print("without interruption:", flush=True)
        start(whole)
        print("killed:", flush=True)
        status = start(killed, "123")
        print(f"  exit status {status}, files left: {[p.name for p in killed.rglob('*.backup')]}")
        print("started again:", flush=True)
        start(killed)
        with np.load(whole / "weights.npz") as one, np.load(killed / "weights.npz") as two:
            same = all(np.array_equal(one[key], two[key]) for key in one)
    print("the weights are", "equal, bit for bit" if same else "DIFFERENT")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
    else:
        main()
