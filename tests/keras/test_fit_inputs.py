"""What fit, evaluate and predict take: arrays, Datasets, generators, sequences; how runs end."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.data import Dataset
from graphnn.keras import callbacks, layers
from graphnn.runtime.errors import ArgumentError, StateError

RNG = np.random.default_rng(1)
X = RNG.normal(size=(70, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 3))).argmax(-1)


def make_model(seed: int = 0, **compiled: Any) -> Any:
    tf.random.set_seed(seed)
    model = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(3)])
    settings = {
        "optimizer": keras.optimizers.Adam(0.01),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }
    model.compile(**(settings | compiled))
    return model


def steps(model: Any) -> int:
    return int(model.optimizer.iterations)


def history_of(*data: Any, **settings: Any) -> Any:
    settings = {"verbose": 0, "epochs": 2, "shuffle": False} | settings
    return make_model().fit(*data, **settings).history


def test_datasets_generators_and_arrays_are_equal() -> None:
    wanted = history_of(X, Y)
    pairs = Dataset.from_tensor_slices((X, Y)).batch(32)
    assert history_of(pairs) == wanted
    assert history_of(pairs.repeat(2), steps_per_epoch=3) == wanted
    assert history_of(pairs.repeat(), steps_per_epoch=3) == wanted
    assert history_of(iter(pairs.repeat()), steps_per_epoch=3) == wanted

    def endless() -> Iterator[Any]:
        for start in itertools.cycle((0, 32, 64)):
            yield X[start : start + 32], Y[start : start + 32]

    assert history_of(endless(), steps_per_epoch=3) == wanted
    assert history_of(tf.constant(X), tf.constant(Y)) == wanted
    assert history_of(X.tolist(), Y.tolist()) == wanted
    assert history_of(X.astype("float64"), Y) == wanted


def test_a_dataset_runs_compiled_in_one_trace() -> None:
    model = make_model()
    model.fit(Dataset.from_tensor_slices((X, Y)).shuffle(70).batch(32), epochs=3, verbose=0)
    assert steps(model) == 9
    assert sum(run.trace_count for _, run in model._stepper("train")._runs.values()) == 1


def test_steps_of_datasets_go_on_in_the_next_epoch() -> None:
    seen: list[int] = []

    class Watch(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, x: Any) -> Any:
            seen.append(int(x[0, 0]))
            return self.dense(x)

    model = Watch()
    model.compile("sgd", "mse", run_eagerly=True)
    numbers = np.arange(6, dtype="float32")[:, None]
    dataset = Dataset.from_tensor_slices((numbers, numbers)).batch(1)
    model.fit(dataset, steps_per_epoch=2, epochs=4, verbose=0)
    assert seen == [0, 1, 2, 3, 4, 5, 0, 1]
    with pytest.warns(UserWarning, match="ended after 2 of 4 steps"):
        model.fit(dataset, steps_per_epoch=4, epochs=2, verbose=0)


def test_predict_and_evaluate_take_datasets_and_generators() -> None:
    model = make_model()
    wanted = model.predict(X, verbose=0)
    pairs = Dataset.from_tensor_slices((X, Y)).batch(16)
    for data in (pairs, pairs.map(lambda x, y: (x,)), pairs.map(lambda x, y: x), iter(pairs)):
        np.testing.assert_allclose(model.predict(data, verbose=0), wanted, rtol=1e-5, atol=1e-6)
    assert model.predict(pairs, steps=2, verbose=0).shape == (32, 3)
    assert model.evaluate(pairs, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0))
    with pytest.raises(ArgumentError, match="without a batch"):
        model.evaluate(iter([]), verbose=0)


class Numbered:
    """Batches by number, as a PyDataset."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.epochs = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> Any:
        self.asked.append(number)
        rows = slice(32 * number, 32 * number + 32)
        return X[rows], Y[rows]

    def on_epoch_end(self) -> None:
        self.epochs += 1


def test_batches_by_number() -> None:
    data = Numbered()
    assert history_of(data) == history_of(X, Y)
    assert data.asked[1:] == [0, 1, 2] * 2 and data.epochs == 2
    data.asked.clear()
    history_of(data, shuffle=True, epochs=6)
    passes = [data.asked[1 + 3 * e : 4 + 3 * e] for e in range(6)]
    assert all(sorted(p) == [0, 1, 2] for p in passes) and len({*map(tuple, passes)}) > 1


def test_weights_of_classes_in_streams() -> None:
    weights = {0: 2.0, 2: 0.5}
    table = np.array([2.0, 1.0, 0.5], "float32")[Y]
    wanted = history_of(X, Y, sample_weight=table)
    assert history_of(X, Y, class_weight=weights) == wanted
    pairs = Dataset.from_tensor_slices((X, Y)).batch(32)
    assert history_of(pairs, class_weight=weights) == wanted
    assert history_of(Dataset.from_tensor_slices((X, Y, table)).batch(32)) == wanted
    both = Dataset.from_tensor_slices((X, Y, table)).batch(32)
    squared = history_of(X, Y, sample_weight=table * table)
    assert history_of(both, class_weight=weights) == squared
    one_hot = np.eye(3, dtype="float32")[Y]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = make_model(loss=loss)
    found = model.fit(X, one_hot, class_weight=weights, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(found.history["loss"], wanted["loss"], rtol=1e-5)
    with pytest.raises(ArgumentError, match="class_weight with several targets"):
        make_model().fit(X, {"a": Y, "b": Y}, class_weight=weights, verbose=0)


def test_dicts_of_inputs_in_a_dataset() -> None:
    class Both(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = layers.Dense(3), layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            return self.one(inputs["a"]) + self.two(inputs["b"])

    found = []
    data = {"a": X, "b": X[:, :2]}
    for source in ((data, Y), (Dataset.from_tensor_slices((data, Y)).batch(32),)):
        tf.random.set_seed(0)
        model = Both()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        found.append(model.fit(*source, epochs=2, shuffle=False, verbose=0).history)
    assert found[0] == found[1]


def test_validation_of_all_kinds() -> None:
    pairs = Dataset.from_tensor_slices((X, Y)).batch(32)
    wanted = history_of(X, Y, validation_data=(X, Y))
    for checks in (pairs, [X, Y], (X, Y, np.ones(70, "float32"))):
        assert history_of(X, Y, validation_data=checks) == wanted
    # With validation_steps each validation begins anew.
    first = history_of(X, Y, validation_data=(X[:32], Y[:32]))
    assert history_of(X, Y, validation_data=pairs, validation_steps=1) == first
    assert history_of(X, Y, validation_data=pairs.repeat(), validation_steps=3) == wanted
    some = history_of(X, Y, validation_data=(X, Y), validation_freq=[1, 4], epochs=4)
    assert len(some["val_loss"]) == 2 and len(some["loss"]) == 4
    with pytest.raises(ArgumentError, match="validation_split"):
        make_model().fit(pairs, validation_split=0.5, verbose=0)
    split = history_of({"a": X}["a"], Y, sample_weight=np.ones(70), validation_split=0.2)
    assert split == history_of(X[:56], Y[:56], validation_data=(X[56:], Y[56:]))


def test_ctrl_c_keeps_history_and_weights() -> None:
    class Interrupt(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if len(self.model.history.epoch) == 2 and batch == 1:
                os.kill(os.getpid(), signal.SIGINT)

        def on_train_end(self, logs: Any = None) -> None:
            raise AssertionError("training did not come to its end")

    model = make_model()
    pairs = Dataset.from_tensor_slices((X, Y)).batch(32).prefetch(2)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        model.fit(pairs, epochs=9, verbose=0, callbacks=[Interrupt()])
    assert threading.active_count() == threads
    assert model.history.epoch == [0, 1] and len(model.history.history["loss"]) == 2
    assert steps(model) == 8
    other = make_model()
    other.fit(pairs, epochs=2, verbose=0)
    other.fit(pairs, steps_per_epoch=2, verbose=0)
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    model.fit(pairs, verbose=0)
    assert steps(model) == 11


def test_stopping_in_a_batch_does_not_cut_the_validation() -> None:
    seen = []

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = True

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    model = make_model()
    history = model.fit(X, Y, epochs=3, validation_data=(X, Y), callbacks=[Stop()], verbose=0)
    assert seen == [0, 1, 2] and steps(model) == 1 and history.epoch == [0]


def test_what_is_no_data() -> None:
    model = make_model()
    with pytest.raises(ArgumentError, match="x of type function"):
        model.fit(lambda: iter([]), verbose=0)
    with pytest.raises(ArgumentError, match="together with y"):
        model.fit(Dataset.range(3), Y, verbose=0)
    with pytest.raises(ArgumentError, match="length 0"):
        model.fit(Empty(), verbose=0)


class Empty(Numbered):
    """No batches."""

    def __len__(self) -> int:
        return 0


def test_logs_of_batches_are_read_only_when_asked_for() -> None:
    kept: list[Any] = []

    class Keep(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            assert type(dict.__getitem__(logs, "loss")) is not float
            kept.append(logs)

    make_model().fit(X, Y, verbose=0, callbacks=[Keep()])
    one = kept[0]
    assert set(one) == {"loss", "accuracy"} and len(one) == 2
    assert type(one["loss"]) is float and type(one.get("accuracy")) is float
    assert one.get("other") is None and one == dict(one)
    assert all(type(v) is float for v in [*one.values(), *{**one}.values(), *(one | {}).values()])
    assert one.copy() == dict(one.items()) and repr(one) == repr(dict(one))
    loss = one["loss"]
    assert one.pop("loss") == loss and list(one) == ["accuracy"]


def test_pydatasets_know_of_their_epochs() -> None:
    class Data(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=2)
            self.notes: list[Any] = []

        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> Any:
            self.notes.append(number)
            return X[:8], Y[:8]

        def on_epoch_begin(self) -> None:
            self.notes.append("begin")

        def on_epoch_end(self) -> None:
            self.notes.append("end")

    data = Data()
    make_model().fit(data, epochs=2, shuffle=False, verbose=0)
    assert data.notes == [0, *["begin", 0, 1, "end"] * 2] and data.num_batches == 2
    data.notes.clear()
    assert make_model().predict(data, verbose=0).shape == (16, 3)


class Alone(keras.Model):
    """A train step that takes x alone, and calls a layer instead of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(5)
        self.seen = keras.metrics.Mean(name="seen")

    def train_step(self, data: Any) -> dict[str, Any]:
        parts = data if isinstance(data, tuple) else (data,)
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_mean((self.dense(x) - x) ** 2) for x in parts)
        weights = self.dense.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.seen.update_state(float(not isinstance(data, tuple)))
        return {"seen": self.seen.result()}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("data", [X, tf.constant(X), Dataset.from_tensor_slices(X).batch(32)])
def test_x_alone_is_not_wrapped(data: Any, eager: bool) -> None:
    model = Alone()
    model.compile("adam", run_eagerly=eager)
    assert model.fit(data, verbose=0).history["seen"] == [1.0]


def test_inputs_of_several_parts_alone_are_wrapped() -> None:
    assert keras.utils.pack_x_y_sample_weight([X, X]) == ([X, X],)
    assert keras.utils.pack_x_y_sample_weight(X) is X


def test_weights_of_a_model_that_is_never_called(tmp_path: Any) -> None:
    model = Alone()
    model.compile("adam")
    with pytest.raises(StateError, match="no weights yet"):
        model.save_weights(tmp_path / "w.safetensors")
    model.fit(X, verbose=0)
    model.save_weights(tmp_path / "w.safetensors")
    other = Alone()
    other.dense(X)
    other.load_weights(tmp_path / "w.safetensors")
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
