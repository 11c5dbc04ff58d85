"""fit, evaluate, predict: exact means, one compilation, eager = compiled, callbacks, data."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import callbacks, layers
from graphnn.runtime.errors import ArgumentError, ShapeError, StateError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 3))).argmax(-1)


def make_model(seed: int = 0, **compiled: Any) -> Any:
    tf.random.set_seed(seed)
    model = keras.Sequential(
        [layers.Dense(8, activation="relu"), layers.Dropout(0.2), layers.Dense(3)]
    )
    settings = {
        "optimizer": keras.optimizers.Adam(0.01),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }
    model.compile(**(settings | compiled))
    return model


def traces(model: Any, kind: str = "train") -> int:
    runs = model._stepper(kind)._runs.values()
    return sum(run.trace_count for _, run in runs)


def test_fit_learns_with_one_trace() -> None:
    model = make_model()
    history = model.fit(X, Y, epochs=20, verbose=0)
    assert list(history.history) == ["loss", "accuracy"]
    assert history.epoch == list(range(20))
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
    assert traces(model) == 1
    assert history is model.history
    model.fit(X[:33], Y[:33], batch_size=16, epochs=1, verbose=0)
    assert traces(model) == 2  # a batch of one example has a trace of its own


def test_eager_and_compiled_fit_are_equal() -> None:
    eager = make_model(run_eagerly=True)
    first = eager.fit(X, Y, batch_size=7, epochs=20, verbose=0).history
    compiled = make_model()
    second = compiled.fit(X, Y, batch_size=7, epochs=20, verbose=0).history
    assert int(compiled.optimizer.iterations) == 200
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(second[name], first[name], rtol=1e-5)
    for a, b in zip(eager.weights, compiled.weights, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-3, atol=1e-5)


def test_last_smaller_batch_counts_by_its_size() -> None:
    model = make_model()
    found = model.evaluate(X, Y, batch_size=32, verbose=0, return_dict=True)
    logits = model.predict(X, batch_size=11, verbose=0)
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(70), Y]
    np.testing.assert_allclose(found["loss"], each.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], (logits.argmax(-1) == Y).mean(), rtol=1e-6)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx([found["loss"], found["accuracy"]])
    assert traces(model, "test") == 1 and traces(model, "predict") == 1


def test_fit_is_reproducible() -> None:
    one, two = (make_model(3).fit(X, Y, epochs=3, verbose=0).history for _ in range(2))
    assert one == two


def test_sample_and_class_weights() -> None:
    weights = np.linspace(0, 2, 70).astype("float32")
    model = make_model(weighted_metrics=["accuracy"], metrics=None)
    found = model.evaluate(X, Y, sample_weight=weights, verbose=0, return_dict=True)
    logits = model.predict(X, verbose=0)
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(70), Y]
    hits = logits.argmax(-1) == Y
    np.testing.assert_allclose(found["loss"], (each * weights).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], (hits * weights).sum() / weights.sum(), rtol=1e-5)
    one = make_model()
    first = one.fit(X, Y, class_weight={0: 2.0, 2: 0.5}, epochs=2, verbose=0).history
    table = np.array([2.0, 1.0, 0.5], "float32")[Y]
    two = make_model()
    assert two.fit(X, Y, sample_weight=table, epochs=2, verbose=0).history == first


def test_validation() -> None:
    model = make_model()
    history = model.fit(X, Y, epochs=4, validation_split=0.2, validation_freq=2, verbose=0)
    assert len(history.history["loss"]) == 4 and len(history.history["val_loss"]) == 2
    again = model.evaluate(X[56:], Y[56:], verbose=0)
    np.testing.assert_allclose(history.history["val_loss"][-1], again[0], rtol=1e-6)
    other = make_model().fit(X, Y, validation_data=(X, Y), verbose=0)
    assert list(other.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    with pytest.raises(ArgumentError, match=r"validation_split=0\.999"):
        model.fit(X, Y, validation_split=0.999, verbose=0)


def test_epochs_and_steps() -> None:
    model = make_model()
    history = model.fit(X, Y, initial_epoch=3, epochs=5, steps_per_epoch=2, verbose=0)
    assert history.epoch == [3, 4]
    assert int(model.optimizer.iterations) == 4


def batches(count: int) -> Iterator[tuple[Any, Any]]:
    for k in range(count):
        rows = slice(7 * (k % 10), 7 * (k % 10) + 7)
        yield X[rows], Y[rows]


def test_generators_and_iterables() -> None:
    model = make_model()
    model.fit(batches(20), steps_per_epoch=10, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 20 and traces(model) == 1


class Reader:
    """Gives its batches anew in each pass."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return batches(10)


def test_iterables() -> None:
    model = make_model()
    model.fit(Reader(), epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 20
    found = make_model().evaluate(Reader(), verbose=0)
    assert found == pytest.approx(make_model().evaluate(X, Y, verbose=0), rel=1e-5)
    with pytest.warns(UserWarning, match="the data ended before epoch 2"):
        history = make_model().fit(batches(10), steps_per_epoch=10, epochs=2, verbose=0)
    assert history.epoch == [0]
    with pytest.raises(ArgumentError, match="without a batch"):
        model.fit(batches(0), verbose=0)
    with pytest.raises(ArgumentError, match="together with y"):
        model.fit(batches(3), Y, verbose=0)


def test_other_sizes_get_symbolic() -> None:
    model = keras.Sequential([layers.Dense(1, kernel_initializer="ones")])
    for length in (3, 4, 6):
        x = np.ones((2, length, 5), "float32")
        assert model.predict(x, verbose=0).shape == (2, length, 1)
    # The first program knew the length 3; the second one serves every length.
    ((specs, run),) = model._stepper("predict")._runs.values()
    assert specs[0].shape == (None, None, 5) and run.trace_count == 1


def test_dicts_of_inputs_and_outputs() -> None:
    class Both(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = layers.Dense(1), layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return {"p": self.one(inputs["a"]), "q": self.two(inputs["b"])}

    tf.random.set_seed(0)
    model = Both()
    model.compile("sgd", loss={"p": "mse", "q": "mae"}, metrics={"p": ["mae"]})
    data = {"a": X, "b": X[:, :2]}
    targets = {"p": X[:, :1], "q": X[:, 1:2]}
    logs = model.fit(data, targets, epochs=2, verbose=0).history
    assert list(logs) == ["loss", "p_loss", "q_loss", "p_mae"]
    np.testing.assert_allclose(logs["loss"], np.add(logs["p_loss"], logs["q_loss"]), rtol=1e-5)
    outputs = model.predict(data, verbose=0)
    np.testing.assert_allclose(
        model.evaluate(data, targets, verbose=0, return_dict=True)["p_loss"],
        ((outputs["p"] - targets["p"]) ** 2).mean(),
        rtol=1e-5,
    )


def test_lists_of_inputs_and_outputs() -> None:
    class Both(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = layers.Dense(1), layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            return self.one(inputs[0]), self.two(inputs[1])

    model = Both()
    cross = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", ["mse", cross], loss_weights=[1.0, 0.5], metrics=[["mae"], ["accuracy"]])
    logs = model.fit([X, X[:, :2]], [X[:, :1], Y], verbose=0).history
    assert list(logs) == [
        "loss",
        "output_1_loss",
        "output_2_loss",
        "output_1_mae",
        "output_2_accuracy",
    ]
    np.testing.assert_allclose(
        logs["loss"][0], logs["output_1_loss"][0] + 0.5 * logs["output_2_loss"][0], rtol=1e-5
    )
    outputs = model.predict([X, X[:, :2]], verbose=0)
    assert type(outputs) is tuple and outputs[1].shape == (70, 3)
    with pytest.raises(ArgumentError, match="one for 1"):
        model.fit([X, X[:, :2]], [X[:, :1]], verbose=0)


def test_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make_model()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    history = model.fit(X, Y, epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    assert all(w.dtype == "float32" for w in model.weights)
    assert model.predict(X, verbose=0).dtype.name == "bfloat16"


@pytest.mark.parametrize("eagerly", [False, True])
def test_own_train_step_of_keras_2(eagerly: bool) -> None:
    class Custom(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, kernel_regularizer="l2")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compiled_loss(y, y_pred, regularization_losses=self.losses)
            variables = self.trainable_variables
            gradients = tape.gradient(loss, variables)
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            self.compiled_metrics.update_state(y, y_pred)
            return {m.name: m.result() for m in self.metrics}

    tf.random.set_seed(0)
    model = Custom()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=eagerly)
    mine = model.fit(X, Y, epochs=3, verbose=0).history
    assert list(mine) == ["loss", "accuracy"]
    tf.random.set_seed(0)
    plain = keras.Sequential([layers.Dense(3, kernel_regularizer="l2")])
    plain.compile("adam", loss, metrics=["accuracy"])
    np.testing.assert_allclose(
        plain.fit(X, Y, epochs=3, verbose=0).history["loss"], mine["loss"], rtol=1e-5
    )


def test_own_train_step_of_keras_3() -> None:
    class Custom(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)
            self.seen = keras.metrics.Mean(name="seen")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            weights = self.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            self.seen.update_state(loss)
            return {"seen": self.seen.result()}

        @property
        def metrics(self) -> list[Any]:
            return [self.seen]

    model = Custom()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    history = model.fit(X, Y, epochs=5, verbose=0).history
    assert list(history) == ["seen"] and history["seen"][-1] < history["seen"][0]


def test_single_batches() -> None:
    model = make_model()
    first = model.train_on_batch(X, Y, return_dict=True)
    assert set(first) == {"loss", "accuracy"}
    for _ in range(30):
        found = model.train_on_batch(X, Y, reset_metrics=True)
    assert found[0] < first["loss"]
    assert model.test_on_batch(X, Y, reset_metrics=True)[0] > 0
    np.testing.assert_allclose(
        model.predict_on_batch(X), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_callback_order_and_logs() -> None:
    order: list[str] = []

    class Spy(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            order.append("train begin")
            assert self.model is model and self.params["epochs"] == 2

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            order.append(f"epoch {epoch} begin")

        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            order.append(f"batch {batch}")
            assert type(logs["loss"]) is float

        def on_test_begin(self, logs: Any = None) -> None:
            order.append("test begin")

        def on_test_end(self, logs: Any = None) -> None:
            order.append("test end")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            order.append(f"epoch {epoch} end")
            assert set(logs) == {"loss", "accuracy", "val_loss", "val_accuracy"}
            logs["extra"] = epoch

        def on_train_end(self, logs: Any = None) -> None:
            order.append("train end")

    model = make_model()
    history = model.fit(
        X, Y, batch_size=35, epochs=2, validation_data=(X, Y), callbacks=[Spy()], verbose=0
    )
    one = ["begin", "batch 0", "batch 1", "test begin", "test end", "end"]
    epochs = [f"epoch {e} {t}" if t in ("begin", "end") else t for e in range(2) for t in one]
    assert order == ["train begin", *epochs, "train end"]
    assert history.history["extra"] == [0, 1]


def test_stopping_early_and_lambda_callbacks() -> None:
    model = make_model()

    def stop(epoch: int, logs: Any) -> None:
        model.stop_training = epoch == 1

    history = model.fit(
        X, Y, epochs=9, verbose=0, callbacks=callbacks.LambdaCallback(on_epoch_end=stop)
    )
    assert history.epoch == [0, 1]
    with pytest.raises(TypeError, match="on_epoc_end"):
        callbacks.LambdaCallback(on_epoc_end=stop)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_file_and_in_a_terminal() -> None:
    model = make_model()
    log, screen = io.StringIO(), Terminal()
    model.fit(X, Y, epochs=2, callbacks=[callbacks.ProgbarLogger(file=log)])
    lines = log.getvalue().splitlines()
    assert lines[0] == "Epoch 1/2" and lines[2] == "Epoch 2/2" and len(lines) == 4
    assert lines[1].startswith("3/3 - 0s") and "accuracy: " in lines[3]
    model.fit(X, Y, epochs=1, callbacks=[callbacks.ProgbarLogger(file=screen)])
    text = screen.getvalue()
    assert "0/3" in text and text.splitlines()[-1].lstrip("\r ").startswith("3/3")


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    model.fit(X, Y, verbose=0)
    assert capsys.readouterr().out == ""
    model.evaluate(X, Y, verbose=2)
    assert "loss: " in capsys.readouterr().out


def test_errors() -> None:
    with pytest.raises(StateError, match="was not compiled"):
        keras.Sequential([layers.Dense(1)]).fit(X, Y)
    with pytest.raises(ShapeError, match="number of examples"):
        make_model().fit(X, Y[:3], verbose=0)
    with pytest.raises(ArgumentError, match="no loss"):
        model = make_model(loss=None)
        model.fit(X, Y, verbose=0)


def test_failing_step_leaves_the_model_usable() -> None:
    model = make_model()
    model.fit(X, Y, verbose=0)
    before = model.get_weights()
    with pytest.raises(ShapeError):
        model.fit(X[:, :3], Y, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(X, Y, verbose=0)


def test_frozen_layers_stay() -> None:
    model = make_model()
    model(X)
    model.layers[0].trainable = False
    before = model.layers[0].kernel.numpy()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), before)


def test_copy_of_a_trained_model() -> None:
    model = make_model()
    model.fit(X, Y, verbose=0)
    other = copy.deepcopy(model)
    np.testing.assert_array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))
    other.fit(X, Y, verbose=0)
    assert int(other.optimizer.iterations) == 2 * int(model.optimizer.iterations)


def test_loss_of_a_long_epoch_is_exact() -> None:
    model = keras.Sequential([layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = RNG.normal(size=(1001, 1)).astype("float32")
    logs = model.fit(np.ones((1001, 2)), y, batch_size=2, verbose=0).history
    np.testing.assert_allclose(logs["loss"][0], (y.astype("float64") ** 2).mean(), rtol=1e-5)
