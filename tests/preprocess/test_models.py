"""Text inside models: layers on the host run before the compiled program, and files keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.data import Dataset
from graphnn.keras import layers
from graphnn.runtime.errors import DTypeError, TraceError

WORDS = np.array("good fine bad poor film plot the a".split())
RNG = np.random.default_rng(0)
TEXT = np.array([" ".join(RNG.choice(WORDS, RNG.integers(2, 9))) for _ in range(50)])
GOOD = np.array([float("good" in t) for t in TEXT], "float32")


def vectorizer(**settings: Any) -> Any:
    layer = layers.TextVectorization(**settings)
    layer.adapt(TEXT)
    return layer


def traces(model: Any, kind: str) -> list[int]:
    """How often the step of a model has been traced, for each form of its inputs."""
    plans = model._steps[kind, False]._text._plans.values()
    return [run.trace_count for plan in plans for _, run in plan.compiled._runs.values()]


def functional() -> Any:
    tf.random.set_seed(1)
    inputs = keras.Input((1,), dtype="string", name="text")
    x = vectorizer(output_sequence_length=8)(inputs)
    x = layers.Flatten()(layers.Embedding(12, 4)(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def sequential() -> Any:
    tf.random.set_seed(1)
    return keras.Sequential(
        [
            keras.Input((1,), dtype=tf.constant("").dtype),
            vectorizer(output_mode="multi_hot"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


class Subclass(keras.Model):
    """Calls the layer on a tensor that it has reshaped first."""

    def __init__(self) -> None:
        super().__init__()
        self.words = vectorizer()
        self.embedding, self.head = layers.Embedding(12, 4), layers.Dense(1, "sigmoid")

    def call(self, inputs: Any) -> Any:
        x = self.words(tf.expand_dims(inputs, -1))
        return self.head(tf.reduce_mean(self.embedding(x), axis=1))


@pytest.mark.parametrize("make", [functional, sequential, Subclass])
def test_compiled_is_eager(make: Any) -> None:
    losses, predictions = [], []
    for eager in (False, True):
        tf.random.set_seed(3)
        model = make()
        model.compile("adam", "binary_crossentropy", run_eagerly=eager)
        history = model.fit(TEXT, GOOD, epochs=3, batch_size=16, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
        predictions.append(model.predict(TEXT, verbose=0))
        if not eager:
            # The last, smaller batch costs no trace; nor do texts of another length.
            assert traces(model, "train") == [1] and traces(model, "predict") == [1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(predictions[0], predictions[1], rtol=1e-4, atol=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_text_from_datasets_and_tensors() -> None:
    model = functional()
    model.compile("sgd", "mse")
    expected = model(TEXT[:, None]).numpy()
    data = Dataset.from_tensor_slices((TEXT, GOOD)).batch(16)
    model.fit(data, verbose=0)
    after = model.predict(TEXT, verbose=0)
    assert np.abs(after - expected).max() > 0
    np.testing.assert_allclose(model.predict(tf.constant(TEXT), verbose=0), after)
    np.testing.assert_allclose(model.predict(data.map(lambda x, y: x), verbose=0), after, rtol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(TEXT), after, rtol=1e-5, atol=1e-6)


def test_text_beside_numbers() -> None:
    text, number = keras.Input((1,), dtype="string", name="t"), keras.Input((2,), name="n")
    words = layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")
    bins = layers.Hashing(4, output_mode="one_hot")
    x = layers.Concatenate()([tf.cast(words(text), "float32"), bins(text), number])
    model = keras.Model([text, number], layers.Dense(1)(x))
    data = {"t": np.array([["x"], ["y"], ["q"]]), "n": RNG.normal(size=(3, 2)).astype("float32")}
    np.testing.assert_allclose(model.predict(data, verbose=0), model(data).numpy(), rtol=1e-5)
    model.compile("sgd", "mse")
    first, second = (model.train_on_batch(data, np.ones((3, 1))) for _ in range(2))
    assert np.ravel(second)[0] < np.ravel(first)[0]
    assert model.output_shape == (None, 1)
    assert repr(text) == "<KerasTensor shape=(None, 1), dtype=string, name=t>"


def test_ops_on_text() -> None:
    class Is(keras.Model):
        def call(self, inputs: Any) -> Any:
            halves = tf.split(tf.reshape(inputs, (-1, 1)), 1, axis=1)[0]
            return tf.cast(halves == "a", "float32") * tf.ones((inputs.shape[0], 2))

    model = Is()
    x = np.array(["a", "b", "a", "a", "b"])
    expected = [[v, v] for v in (1.0, 0.0, 1.0, 1.0, 0.0)]
    assert model.predict(x, verbose=0, batch_size=2).tolist() == expected


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: tf.reduce_sum(x), DTypeError),
        (lambda x: tf.where(tf.cast(tf.ones(1), "bool"), x, "q"), TraceError),
        (lambda x: float(x), TraceError),
        (lambda x: layers.Dense(1)(x), DTypeError),
    ],
)
def test_what_text_in_a_model_cannot_do(call: Any, error: type[Exception]) -> None:
    class Wrong(keras.Model):
        def call(self, inputs: Any) -> Any:
            return call(inputs)

    with pytest.raises(error) as caught:
        Wrong().predict(np.array(["a", "b"]), verbose=0)
    assert "fix:" in str(caught.value)


def test_symbolic_calls_before_adapt() -> None:
    words = layers.TextVectorization(max_tokens=10, output_mode="count", pad_to_max_tokens=True)
    ids = layers.IntegerLookup(max_tokens=5)
    bins = layers.Discretization(num_bins=3, output_mode="one_hot")
    assert words(keras.Input((1,), dtype="string")).shape == (None, 10)
    assert ids(keras.Input((4,), dtype="int64")).shape == (None, 4)
    y = bins(keras.Input((4,)))
    assert y.shape == (None, 4, 3) and y.dtype == "float32"
    back = layers.StringLookup(vocabulary=["a"], invert=True)
    assert repr(back(keras.Input((4,), dtype="int64"))).endswith("dtype=string>")


def test_saved_with_the_vocabulary(tmp_path: Path) -> None:
    text, number = keras.Input((1,), dtype="string"), keras.Input((3,))
    ids = keras.Input((2,), dtype="int64")
    table = np.arange(12.0, dtype="float32").reshape(4, 3)
    keys = np.array([[5, 9], [1, 5], [7, 7], [1, 1]])
    scale, bins = layers.Normalization(), layers.Discretization(num_bins=3)
    lookup = layers.IntegerLookup(output_mode="multi_hot")
    for layer, data in ((scale, table), (bins, table), (lookup, keys)):
        layer.adapt(data)
    outputs = [
        vectorizer(output_sequence_length=4)(text),
        vectorizer(output_mode="tf_idf", ngrams=2)(text),
        layers.StringLookup(vocabulary=["good", "bad"], output_mode="one_hot")(text),
        layers.Hashing(5, salt=3)(text),
        scale(number),
        bins(number),
        lookup(ids),
    ]
    model = keras.Model([text, number, ids], outputs)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    data = [TEXT[:4, None], table, keys]
    for a, b in zip(model(data), again(data), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_half_of_a_pipeline_in_the_dataset() -> None:
    words = vectorizer(output_sequence_length=6)
    model = keras.Sequential([keras.Input((6,), dtype="int64"), layers.Embedding(12, 2)])
    data = Dataset.from_tensor_slices(TEXT).batch(16).map(words, num_parallel_calls=4)
    together = keras.Sequential([words, *model.layers])
    np.testing.assert_allclose(
        model.predict(data, verbose=0), together(TEXT).numpy(), rtol=1e-6, atol=1e-7
    )
