"""The user guide, block by block; only imports and the names it leaves open change.

The guide and 5,000 real MNIST digits lie beside the checkout while graphnn is developed; without
them these tests are skipped (the same ground is covered, in our words, by the other files here).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers

SHARED = Path(__file__).resolve().parents[3] / "shared"
GUIDE = SHARED / "guide.md"
DIGITS = SHARED / "data" / "mnist_5k.npz"

pytestmark = pytest.mark.skipif(
    not (GUIDE.is_file() and DIGITS.is_file()), reason="the guide is not beside the checkout"
)


def blocks() -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return [b for _, b in re.findall(r"```(\w*)\n(.*?)```", text, re.S)]


def starting(words: str) -> str:
    """The block that contains some words."""
    found = [b for b in blocks() if words in b]
    assert found, words
    return found[0].replace("from tensorflow.keras", "from graphnn.keras")


def mnist_like_the_real_one(path=None):
    """The 4,000 training digits, repeated to the 60,000 of the full set that the guide reshapes."""
    with np.load(DIGITS) as data:
        x, y = data["x_train"], data["y_train"]
        return (np.tile(x, (15, 1, 1)), np.tile(y, 15)), (data["x_test"], data["y_test"])


@pytest.fixture(scope="module")
def names():
    """One namespace for the whole guide, as in a notebook."""
    return {"np": np, "tf": tf, "keras": keras, "layers": layers}


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", mnist_like_the_real_one)


def run(names, words):
    exec(compile(starting(words), f"guide.md: {words}", "exec"), names)
    return names


def small_dataset():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 32)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, x[:, :1] * 2)).batch(16)


def test_normalization(names):
    data = run(names, "normalizer.adapt(training_data)")["normalized_data"].numpy()
    assert data.shape == (64, 200, 200, 3)
    np.testing.assert_allclose(data.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(data.std((0, 1, 2)), 1, atol=1e-3)


def test_input_of_any_size(names):
    assert tuple(run(names, "RGB images of arbitrary size")["inputs"].shape) == (None,) * 3 + (3,)


def test_checkpoints_of_each_epoch(names, tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    names.update(dataset=small_dataset(), model=model)
    run(names, "save_freq='epoch')")
    for epoch in (1, 2):
        path = tmp_path / "path" / "to" / "my" / f"model_{epoch}"
        assert path.exists()
    x = np.ones((2, 32), "float32")
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_event_files(names, tmp_path):
    pytest.importorskip("tensorboard")
    run(names, "keras.callbacks.TensorBoard(log_dir='./logs')")
    files = list((tmp_path / "logs").rglob("events.out.tfevents.*"))
    assert files
    assert all(f.stat().st_size > 0 for f in files)


def test_custom_train_step(names):
    names["dataset"] = small_dataset()
    source = starting("class CustomModel(keras.Model):")
    source = source.replace("metrics=[...]", "metrics=['mae']")
    source = source.replace("callbacks=...)", "callbacks=[history])")
    names["history"] = history = keras.callbacks.History()
    exec(compile(source, "guide.md: CustomModel", "exec"), names)
    assert len(history.history["loss"]) == 3
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert "mae" in history.history


def test_mirrored_strategy(names):
    def model_of(*args):
        return keras.Sequential([keras.layers.Dense(1)])

    source = starting("tf.distribute.MirroredStrategy()")
    source = source.replace("Model(...)", "Model()")
    source = source.replace("compile(...)", "compile(optimizer='sgd', loss='mse')")
    space = {"tf": tf, "keras": keras, "Model": model_of}
    space["get_dataset"] = lambda: (small_dataset(), small_dataset(), small_dataset())
    exec(compile(source, "guide.md: MirroredStrategy", "exec"), space)
    assert space["strategy"].num_replicas_in_sync >= 1
    assert space["model"].evaluate(small_dataset(), verbose=0) < 100


def test_text_in_the_pipeline(names):
    names["TextVectorization"] = layers.TextVectorization
    run(names, 'vectorizer = TextVectorization(output_mode="int")')
    (ids, labels), *_ = list(names["dataset"])
    assert ids.numpy().dtype == np.int64
    assert tuple(ids.shape) == (2, 5)
    assert tuple(labels.shape) == (2, 1)


def test_variables_and_first_derivatives(names):
    run(names, "initial_value = tf.random.normal(shape=(2, 2))")
    assert names["a"].shape == (2, 2)
    for words in ("tape.watch(a)  # Start recording", "a = tf.Variable(a)"):
        run(names, words)
        a, b = names["a"].numpy(), names["b"].numpy()
        np.testing.assert_allclose(names["dc_da"].numpy(), a / np.hypot(a, b), rtol=1e-5)


def test_second_derivatives(names):
    run(names, "as outer_tape:")
    a, b = names["a"].numpy(), names["b"].numpy()
    np.testing.assert_allclose(names["d2c_da2"].numpy(), b**2 / (a**2 + b**2) ** 1.5, rtol=2e-4)


def test_a_lazy_layer(names):
    run(names, "class Linear(keras.layers.Layer):")
    assert tuple(names["y"].shape) == (2, 4)
    assert len(names["linear_layer"].weights) == 2


def losses_printed(capsys) -> list[float]:
    return [float(v) for v in re.findall(r"Loss: ([\d.]+)", capsys.readouterr().out)]


def test_gradients_of_a_layer(names, capsys):
    run(names, "linear_layer = Linear(10)")
    losses = losses_printed(capsys)
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_trainable_and_other_weights(names):
    run(names, "class ComputeSum(keras.layers.Layer):")
    layer = names["ComputeSum"](2)
    assert layer(tf.ones((2, 2))).numpy().tolist() == [2.0, 2.0]
    assert layer(tf.ones((2, 2))).numpy().tolist() == [4.0, 4.0]
    assert (len(layer.weights), len(layer.trainable_weights)) == (1, 0)


def test_nested_layers(names):
    run(names, '"""Simple stack of Linear layers."""')


def test_losses_of_layers(names, capsys):
    run(names, "class ActivityRegularization(keras.layers.Layer):")
    run(names, '"""Stack of Linear layers with a sparsity regularization loss."""')
    (loss,) = names["mlp"].losses
    assert tuple(loss.shape) == ()
    capsys.readouterr()
    run(names, "# Losses correspond to the *last* forward pass.")
    losses = losses_printed(capsys)
    assert losses[-1] < losses[0]


def test_metric_in_a_loop(names, capsys):
    run(names, "accuracy = tf.keras.metrics.SparseCategoricalAccuracy()")
    running = re.findall(r"Total running accuracy so far: (\d\.\d{3})", capsys.readouterr().out)
    assert len(running) == 10
    assert float(running[-1]) > 0.85
    assert float(names["accuracy"].result()) == 0.0  # reset at the end of the epoch


def test_a_compiled_step(names, capsys):
    run(names, "@tf.function  # Make it fast.")
    losses = losses_printed(capsys)
    assert losses[-1] < 0.5 * losses[0]
    assert names["train_on_batch"].trace_count <= 2


def test_training_flag(names):
    run(names, "class MLPWithDropout(keras.layers.Layer):")
    mlp = names["mlp"]
    ones = tf.ones((2, 2))
    again = mlp(ones, training=False).numpy()
    np.testing.assert_array_equal(names["y_test"].numpy(), again)
    assert not np.array_equal(mlp(ones, training=True).numpy(), mlp(ones, training=True).numpy())
