"""A program that trains with BackupAndRestore and may be killed; test_backup.py runs it.

python -m tests.keras.resumable KIND FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphnn import keras
from graphnn.data import Dataset
from graphnn.keras import callbacks, layers

EPOCHS, BATCHES = 4, 12
RNG = np.random.default_rng(5)
X = RNG.normal(size=(90, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, 3))).argmax(-1)


class Counter(callbacks.Callback):
    """A user's callback, whose attributes are kept without further ado."""

    def __init__(self) -> None:
        super().__init__()
        self.batches, self.losses = 0, []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        self.losses.append(logs["loss"])


class Say(callbacks.Callback):
    """Tells each batch to whoever wants to kill the process."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        print("batch", batch, flush=True)


def generator() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    while True:
        rows = rng.integers(0, 90, 8)
        yield X[rows], Y[rows]


def data_of(kind: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What fit gets."""
    if kind in ("arrays", "eager"):
        return (X, Y), {"batch_size": 8}
    if kind == "generator":
        return (generator(),), {"steps_per_epoch": BATCHES}
    pairs = Dataset.from_tensor_slices((X, Y)).shuffle(50)
    noisy = pairs.map(lambda x, y: (x + np.random.normal(size=6).astype("float32") * 0.1, y))
    return (noisy.batch(8),), {}


def build(kind: str) -> Any:
    """The compiled model, from a fixed seed."""
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            layers.Dense(16, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.Adam(0.01)
    model.compile(rate, loss, metrics=["accuracy"], run_eagerly=kind == "eager")
    return model


def train(kind: str, folder: Path, *more: Any, save_freq: Any = 1, **changed: Any) -> Any:
    """Train, or go on; gives the model, the counter and the history."""
    model = build(kind)
    data, settings = data_of(kind)
    counter = Counter()
    used = [
        callbacks.BackupAndRestore(folder / "backup", save_freq=save_freq),
        callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.2),
        callbacks.EarlyStopping("val_loss", patience=50, restore_best_weights=True),
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        callbacks.CSVLogger(folder / "log.csv"),
        counter,
        *more,
    ]
    settings = {"epochs": EPOCHS, "validation_data": (X, Y), "verbose": 0} | settings | changed
    history = model.fit(*data, callbacks=used, **settings)
    return model, counter, history


if __name__ == "__main__":
    name, place = sys.argv[1], Path(sys.argv[2])
    trained, count, logs = train(name, place, Say())
    arrays = [np.array(v.numpy()) for v in [*trained.variables, *trained.optimizer.variables]]
    np.savez(
        place / "result.npz",
        *arrays,
        losses=count.losses,
        batches=count.batches,
        loss=logs.history["loss"],
        val_loss=logs.history["val_loss"],
        epoch=logs.epoch,
    )
