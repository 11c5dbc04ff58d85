"""The guide's callbacks, its words with only the imports and the data changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras

X = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
Y = X.sum(1, keepdims=True)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make() -> tuple[Any, Any]:
    tf.random.set_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model, tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(32).batch(8)


def test_model_checkpoint() -> None:
    model, dataset = make()
    kept = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda e, logs: kept.append(model.predict(X, verbose=0))
    )

    callbacks = [
        keras.callbacks.ModelCheckpoint(filepath="path/to/my/model_{epoch}", save_freq="epoch")
    ]
    model.fit(dataset, epochs=2, callbacks=[*callbacks, keep], verbose=0)

    for epoch in (1, 2):
        again = keras.models.load_model(f"path/to/my/model_{epoch}")
        np.testing.assert_array_equal(again.predict(X, verbose=0), kept[epoch - 1])
    again.fit(dataset, verbose=0)
    assert int(again.optimizer.iterations) == 12


@pytest.mark.parametrize("path", ["best_{epoch:02d}.keras", "best.weights.h5", "best"])
def test_checkpoints_of_other_kinds(path: str) -> None:
    pytest.importorskip("h5py")
    model, dataset = make()
    checkpoint = keras.callbacks.ModelCheckpoint(
        path, monitor="loss", save_best_only=True, save_weights_only="weights" in path
    )
    model.fit(dataset, epochs=3, callbacks=[checkpoint], verbose=0)
    other, _ = make()
    if "weights" in path:
        other.load_weights(path)
    else:
        other = keras.models.load_model(path.format(epoch=3))
    np.testing.assert_array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))


def test_tensorboard(place: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, dataset = make()

    callbacks = [keras.callbacks.TensorBoard(log_dir="./logs")]
    model.fit(dataset, epochs=2, callbacks=callbacks, verbose=0)

    run = EventAccumulator(str(place / "logs" / "train")).Reload()
    assert {"epoch_loss", "epoch_mae"} <= set(run.Tags()["tensors"])
    assert run.Tags()["graph"] and len(run.Tensors("epoch_loss")) == 2


def test_callbacks_are_called_at_the_beginning_and_end_of_batches_and_epochs() -> None:
    order = []

    class Order(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            order.append(f"epoch {epoch} begins")

        def on_batch_begin(self, batch, logs=None):
            order.append(f"batch {batch} begins")

        def on_batch_end(self, batch, logs=None):
            order.append(f"batch {batch} ends")

        def on_epoch_end(self, epoch, logs=None):
            order.append(f"epoch {epoch} ends")

    model, dataset = make()
    model.fit(dataset.take(2), epochs=2, callbacks=[Order()], verbose=0)
    one = ["batch 0 begins", "batch 0 ends", "batch 1 begins", "batch 1 ends"]
    assert order == [
        line for e in (0, 1) for line in (f"epoch {e} begins", *one, f"epoch {e} ends")
    ]
