"""The guide's MirroredStrategy snippet, its words with only the open names filled in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from tests.distribute.conftest import split_cpu

X = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
Y = X @ np.arange(1.0, 5.0, dtype="float32")[:, None]


@pytest.fixture(params=[1, 2], autouse=True)
def replicas(request: pytest.FixtureRequest) -> Iterator[int]:
    split_cpu(request.param)
    yield request.param
    split_cpu(None)


class Model(keras.Model):
    """Left open by the guide."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.head = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.head(self.hidden(inputs))


def get_dataset() -> tuple[Any, Any, Any]:
    whole = tf.data.Dataset.from_tensor_slices((X, Y))
    return whole.take(40).shuffle(40, seed=1).batch(8), whole.skip(40).batch(8), whole.batch(8)


def test_mirrored_strategy(replicas: int) -> None:
    # Create a MirroredStrategy.
    strategy = tf.distribute.MirroredStrategy()
    assert strategy.num_replicas_in_sync == replicas

    # Open a strategy scope.
    with strategy.scope():
        # Everything that creates variables should be under the strategy scope.
        # In general this is only model construction & `compile()`.
        model = Model()
        model.compile(optimizer="adam", loss="mse", metrics=["mae"])

    # Train the model on all available devices.
    train_dataset, val_dataset, test_dataset = get_dataset()
    history = model.fit(train_dataset, epochs=2, validation_data=val_dataset, verbose=0)

    # Test the model on all available devices.
    loss, mae = model.evaluate(test_dataset, verbose=0)

    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
    assert history.history["loss"][1] < history.history["loss"][0]
    difference = model.predict(X, verbose=0) - Y
    assert loss == pytest.approx(np.mean(difference**2), rel=1e-5)
    assert mae == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert all(w.strategy is strategy for w in model.weights)
