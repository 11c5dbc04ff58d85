"""The smoke test: a net learns, eagerly and compiled, in a second or two."""

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras


def digits():
    (x, y), _ = keras.datasets.digits.load_data()
    return x[:256].reshape(-1, 64).astype("float32") / 16, y[:256]


def train(step_decorator, steps=30):
    keras.utils.set_random_seed(7)
    x, y = digits()
    model = keras.Sequential(
        [
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(10),
        ]
    )
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(1e-2)

    @step_decorator
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return loss

    return [float(step(x[k % 4 :: 4], y[k % 4 :: 4])) for k in range(steps)], step


def test_eager_and_compiled_learn_the_same():
    eager, _ = train(lambda f: f)
    compiled, step = train(tf.function)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    assert compiled[-1] < 0.5 * compiled[0]
    assert step.trace_count == 1


def test_fit_learns():
    keras.utils.set_random_seed(7)
    x, y = digits()
    model = keras.Sequential([keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss, metrics=["accuracy"])
    history = model.fit(x, y, epochs=8, verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    assert model.predict(x[:3], verbose=0).shape == (3, 10)


def test_a_mistake_names_the_line():
    @tf.function
    def product(a, b):
        return a @ b

    with pytest.raises(tf.errors.ShapeError, match=r"return a @ b"):
        product(tf.zeros((2, 3)), tf.zeros((2, 3)))
