"""Digits with `fit` and callbacks: checkpoints, early stopping, learning rate, logs, an own one.

Run: python examples/fit_callbacks.py. TensorBoard's logs are written if it is there:
pip install 'graphnn[tensorboard]'. "best.keras" would be a file of Keras' kind and need h5py.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphnn import keras

EPOCHS = 40


class BestEpoch(keras.callbacks.Callback):
    """An own callback: remembers the epoch with the best accuracy on the digits held out."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.epoch, self.accuracy = 0, 0.0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs["val_accuracy"] > self.accuracy:
            self.epoch, self.accuracy = epoch + 1, logs["val_accuracy"]


def make_model() -> keras.Sequential:
    """Two dense layers, compiled."""
    model = keras.Sequential(
        [
            keras.Input(shape=(8, 8)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Flatten(),
            keras.layers.Dense(96, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    rate = keras.optimizers.Adam(learning_rate=5e-3)
    model.compile(optimizer=rate, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_callbacks(folder: Path) -> list[keras.callbacks.Callback]:
    """What `fit` calls at the beginning and end of each epoch and batch."""
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            folder / "best", monitor="val_accuracy", save_best_only=True
        ),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=6),
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2),
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.TerminateOnNaN(),
    ]
    if find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(log_dir=folder / "logs"))
    return callbacks


def main() -> None:
    """Train, then load the best model from its file."""
    keras.utils.set_random_seed(1)
    (x_train, y_train), (x_test, y_test) = keras.datasets.digits.load_data()
    with tempfile.TemporaryDirectory() as name:
        folder, best = Path(name), BestEpoch()
        model = make_model()
        history = model.fit(
            x_train,
            y_train,
            epochs=EPOCHS,
            validation_split=0.2,
            callbacks=[*make_callbacks(folder), best],
            verbose=0,
        )
        rates = history.history["learning_rate"]
        print(f"stopped after {len(history.epoch)} of {EPOCHS} epochs")
        print(f"learning rate from {rates[0]:.1e} to {rates[-1]:.1e}")
        print(f"best epoch: {best.epoch}, {best.accuracy:.1%} of the digits held out")
        print(f"log.csv: {len((folder / 'log.csv').read_text().splitlines())} lines")
        print(f"event files: {len(list(folder.glob('logs/**/*tfevents*')))}")

        loaded = keras.models.load_model(folder / "best")
        _, accuracy = loaded.evaluate(x_test, y_test, verbose=0)
        print(f"the model saved in that epoch reads {accuracy:.1%} of the test digits")


if __name__ == "__main__":
    main()
