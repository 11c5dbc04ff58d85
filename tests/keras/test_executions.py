"""steps_per_execution: callbacks hear once of several batches, and nothing else changes.

The first numbers are those of Keras 3.15. At the end of the data it names a batch that does not
exist, and with steps_per_epoch it trains on more batches than that; here, as in Keras 2, the last
number is that of the last batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.data import Dataset

X = np.arange(40, dtype="float32").reshape(20, 2) / 40
Y = X[:, :1]


class Heard(keras.callbacks.Callback):
    """Writes the batch hooks down."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: dict[str, list[int]] = {"train": [], "test": [], "predict": []}
        self.ends: dict[str, list[int]] = {"train": [], "test": [], "predict": []}
        self.outputs: list[Any] = []
        self.losses: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begins["train"].append(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends["train"].append(batch)
        self.losses.append(float(logs["loss"]))

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begins["test"].append(batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends["test"].append(batch)

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begins["predict"].append(batch)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends["predict"].append(batch)
        self.outputs.append(np.asarray(logs["outputs"]))


def make(every: int) -> Any:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
    model.compile("sgd", "mse", steps_per_execution=every)
    return model


def batches() -> Iterator[Any]:
    for start in range(0, 20, 3):
        yield X[start : start + 3], Y[start : start + 3]


# Of seven batches, the last one with two examples.
NUMBERS = {
    1: (list(range(7)), list(range(7))),
    2: ([0, 2, 4, 6], [1, 3, 5, 6]),
    3: ([0, 3, 6], [2, 5, 6]),
    10: ([0], [6]),
}
SOURCES: dict[str, Any] = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 3, "shuffle": False},
    "dataset": lambda: {"x": Dataset.from_tensor_slices((X, Y)).batch(3)},
    "generator": lambda: {"x": batches()},
}


@pytest.mark.parametrize("every", NUMBERS)
@pytest.mark.parametrize("source", SOURCES)
def test_hooks_of_training(every: int, source: str) -> None:
    heard, plain = Heard(), Heard()
    history = make(every).fit(**SOURCES[source](), verbose=0, callbacks=[heard]).history
    expected = make(1).fit(**SOURCES[source](), verbose=0, callbacks=[plain]).history
    assert (heard.begins["train"], heard.ends["train"]) == NUMBERS[every]
    assert history == expected
    assert heard.losses == [plain.losses[end] for end in NUMBERS[every][1]]


@pytest.mark.parametrize("every", NUMBERS)
def test_hooks_of_evaluation_and_prediction(every: int) -> None:
    heard, model = Heard(), make(every)
    loss = model.evaluate(X, Y, batch_size=3, verbose=0, callbacks=[heard])
    assert loss == make(1).evaluate(X, Y, batch_size=3, verbose=0)
    outputs = model.predict(X, batch_size=3, verbose=0, callbacks=[heard])
    for run in ("test", "predict"):
        assert (heard.begins[run], heard.ends[run]) == NUMBERS[every]
    np.testing.assert_array_equal(outputs, make(1).predict(X, batch_size=3, verbose=0))
    rows = [min(3 * every, 20 - 3 * begin) for begin in NUMBERS[every][0]]
    assert [len(o) for o in heard.outputs] == rows
    np.testing.assert_array_equal(np.concatenate(heard.outputs), outputs)


def test_an_epoch_has_exactly_its_steps() -> None:
    heard, model = Heard(), make(2)
    endless = Dataset.from_tensor_slices((X, Y)).batch(3).repeat()
    model.fit(endless, epochs=2, steps_per_epoch=5, verbose=0, callbacks=[heard])
    assert heard.ends["train"] == [1, 3, 4] * 2
    assert int(model.optimizer.iterations) == 10


def test_outputs_of_several_kinds() -> None:
    heard = Heard()
    heard.on_predict_batch_end = lambda batch, logs=None: heard.outputs.append(logs["outputs"])
    inputs = keras.Input((2,))
    model = keras.Model(inputs, {"a": inputs * 2, "b": [inputs[:, :1]]})
    model.compile(steps_per_execution=4)
    outputs = model.predict(X, batch_size=3, verbose=0, callbacks=[heard])
    first, second = heard.outputs
    np.testing.assert_array_equal(np.concatenate([first["a"], second["a"]]), outputs["a"])
    np.testing.assert_array_equal(np.concatenate([first["b"][0], second["b"][0]]), outputs["b"][0])


def test_training_stops_at_the_end_of_an_execution() -> None:
    class Stopping(Heard):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch, logs)
            self.model.stop_training = True

    heard, model = Stopping(), make(3)
    model.fit(X, Y, batch_size=3, epochs=2, verbose=0, callbacks=[heard])
    assert heard.ends["train"] == [2]
    assert int(tf.constant(model.optimizer.iterations)) == 3
