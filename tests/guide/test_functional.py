"""The guide's functional models and its custom train_step, with only imports and data changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers


def small_dataset() -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 32)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, x[:, :1] * 2)).batch(16)


def test_images_of_any_size() -> None:
    # Let's say we expect our inputs to be RGB images of arbitrary size
    inputs = keras.Input(shape=(None, None, 3))

    assert tuple(inputs.shape) == (None, None, None, 3)
    model = keras.Model(inputs, tf.reduce_mean(inputs / 255.0, axis=(1, 2)))
    for size in ((5, 7), (1, 2)):
        x = np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype("float32")
        np.testing.assert_allclose(model(x).numpy(), x.mean((1, 2)) / 255, rtol=1e-5)


def custom_model() -> Any:
    class CustomModel(keras.Model):
        def train_step(self, data):
            # Unpack the data. Its structure depends on your model and
            # on what you pass to `fit()`.
            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)  # Forward pass
                # Compute the loss value
                # (the loss function is configured in `compile()`)
                loss = self.compiled_loss(y, y_pred, regularization_losses=self.losses)
            # Compute gradients
            trainable_vars = self.trainable_variables
            gradients = tape.gradient(loss, trainable_vars)
            # Update weights
            self.optimizer.apply_gradients(zip(gradients, trainable_vars))  # noqa: B905
            # Update metrics (includes the metric that tracks the loss)
            self.compiled_metrics.update_state(y, y_pred)
            # Return a dict mapping metric names to current value
            return {m.name: m.result() for m in self.metrics}

    # Construct and compile an instance of CustomModel
    inputs = keras.Input(shape=(32,))
    outputs = keras.layers.Dense(1)(inputs)
    model = CustomModel(inputs, outputs)
    assert type(model) is CustomModel
    return model


@pytest.mark.parametrize("eager", [False, True])
def test_custom_train_step(eager: bool) -> None:
    dataset = small_dataset()
    tf.random.set_seed(0)
    model = custom_model()
    model.compile(optimizer="adam", loss="mse", metrics=["mae"], run_eagerly=eager)

    # Just use `fit` as usual
    history = model.fit(dataset, epochs=3, verbose=0).history
    assert list(history) == ["loss", "mae"] and len(history["loss"]) == 3
    assert history["loss"][-1] < history["loss"][0]

    tf.random.set_seed(0)
    x, y = keras.Input(shape=(32,)), None
    y = keras.layers.Dense(1)(x)
    plain = keras.Model(x, y)
    plain.compile(optimizer="adam", loss="mse", metrics=["mae"])
    want = plain.fit(small_dataset(), epochs=3, verbose=0).history
    for name in want:
        np.testing.assert_allclose(history[name], want[name], rtol=1e-5)


def test_custom_train_step_adds_regularization_losses() -> None:
    model = custom_model()
    model.layers[1].add_loss(lambda: 100.0 + 0.0 * tf.reduce_sum(model.layers[1].kernel))
    model.compile(optimizer="adam", loss="mse")
    assert model.fit(small_dataset(), verbose=0).history["loss"][0] > 100


def test_model_of_sequences_of_integers() -> None:
    samples = np.array([[2, 3, 4, 5, 0], [6, 7, 8, 2, 3]])
    labels = np.array([[0], [1]], "float32")
    dataset = tf.data.Dataset.from_tensor_slices((samples, labels)).batch(2)
    dataset = dataset.prefetch(2)

    # Our model should expect sequences of integers as inputs
    inputs = keras.Input(shape=(None,), dtype="int64")
    x = layers.Embedding(input_dim=10, output_dim=32)(inputs)
    outputs = layers.Dense(1)(x)
    model = keras.Model(inputs, outputs)

    model.compile(optimizer="adam", loss="mse", run_eagerly=True)
    assert model.fit(dataset, verbose=0).history["loss"][0] > 0
    assert model.output_shape == (None, None, 1)
    assert model(samples[:, :2]).shape == (2, 2, 1)
