"""The blocks of the user guide that feed models, with a Dataset in place of full MNIST."""

from typing import Any

import numpy as np
import pytest

import graphnn as tf
import graphnn.data
from graphnn import keras
from tests.data.conftest import plain
from tests.guide.stand_in import MNIST


def mnist() -> tuple[Any, Any]:
    """Part of MNIST if it is here, else noise of the same form."""
    if MNIST.is_file():
        with np.load(MNIST) as arrays:
            return arrays["x_train"], arrays["y_train"]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (640, 28, 28), np.uint8), rng.integers(0, 10, 640, np.uint8)


def guide_dataset() -> Any:
    x_train, y_train = mnist()
    dataset = graphnn.data.Dataset.from_tensor_slices(
        (x_train.reshape(len(x_train), 784).astype("float32") / 255, y_train)
    )
    return dataset.shuffle(buffer_size=1024).batch(64)


def test_training_loop_over_a_dataset() -> None:
    tf.random.set_seed(0)
    dataset = guide_dataset()
    linear_layer = keras.layers.Dense(10)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(learning_rate=1e-1)
    losses = []
    for x, y in dataset:
        with tf.GradientTape() as tape:
            logits = linear_layer(x)
            loss = loss_fn(y, logits)
        gradients = tape.gradient(loss, linear_layer.trainable_weights)
        optimizer.apply_gradients(zip(gradients, linear_layer.trainable_weights, strict=True))
        losses.append(float(loss))
    assert len(losses) == len(dataset)
    if MNIST.is_file():
        assert np.mean(losses[-10:]) < 0.5 * losses[0]


def test_compiled_step_over_a_dataset_traces_once_more_at_most() -> None:
    traces = []

    @tf.function
    def total(x: Any, y: Any) -> Any:
        traces.append(x.shape)
        return tf.reduce_sum(x) + tf.reduce_sum(tf.cast(y, "float32"))

    x = np.arange(30, dtype="float32").reshape(10, 3)
    dataset = graphnn.data.Dataset.from_tensor_slices((x, np.ones(10, "int32"))).batch(4)
    sums = [float(total(*batch)) for batch in dataset.shuffle(3, seed=0)]
    assert sum(sums) == pytest.approx(x.sum() + 10)
    assert len(traces) <= 2


def test_fit_evaluate_and_predict_take_a_dataset() -> None:
    tf.random.set_seed(1)
    dataset = guide_dataset().prefetch(2)
    model = keras.Sequential([keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)])
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(dataset, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]
    assert np.isfinite(model.evaluate(dataset, verbose=0)).all()
    assert model.predict(dataset, verbose=0).shape == (len(mnist()[0]), 10)


def test_preprocessing_as_part_of_the_pipeline() -> None:
    # Example training data, of dtype `string`.
    samples = np.array([["This is the 1st sample."], ["And here's the 2nd sample."]])
    labels = [[0], [1]]
    words = {"sample": 2, "the": 3, "this": 4, "is": 5}

    def vectorizer(text: Any) -> Any:
        rows = [row[0].lower().strip(".").split() for row in text.tolist()]
        longest = max(map(len, rows))
        return np.array([[words.get(w, 1) for w in r] + [0] * (longest - len(r)) for r in rows])

    dataset = graphnn.data.Dataset.from_tensor_slices((samples, labels)).batch(2)
    dataset = dataset.map(lambda x, y: (vectorizer(x), y))
    dataset = dataset.prefetch(2)
    assert [plain(e) for e in dataset] == [([[4, 5, 3, 1, 2], [1, 1, 3, 1, 2]], [[0], [1]])]
    assert dataset.element_spec[1] == tf.TensorSpec((None, 1), "int32")
