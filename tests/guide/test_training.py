"""The guide's training loops, its words with only the imports and the data changed."""

# ruff: noqa: UP031, B905, B007 (the guide's own words)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from tests.guide.stand_in import Batches, load_digits
from tests.guide.test_layers import Linear, SparseMLP


@pytest.fixture(scope="module")
def dataset() -> Batches:
    x_train, y_train = load_digits()
    return Batches(x_train, y_train, 64)


def mean_loss(model: Any, loss_fn: Any, dataset: Batches) -> float:
    return float(loss_fn(dataset.y, model(dataset.x)))


def test_linear_layer(dataset: Batches) -> None:
    # Instantiate our linear layer (defined above) with 10 units.
    linear_layer = Linear(10)

    # Instantiate a logistic loss function that expects integer targets.
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    # Instantiate an optimizer.
    optimizer = keras.optimizers.SGD(learning_rate=1e-3)

    losses = []
    # Iterate over the batches of the dataset.
    for step, (x, y) in enumerate(dataset):
        # Open a GradientTape.
        with tf.GradientTape() as tape:
            # Forward pass.
            logits = linear_layer(x)

            # Loss value for this batch.
            loss = loss_fn(y, logits)

        # Get gradients of the loss wrt the weights.
        gradients = tape.gradient(loss, linear_layer.trainable_weights)

        # Update the weights of our linear layer.
        optimizer.apply_gradients(zip(gradients, linear_layer.trainable_weights))

        # Logging.
        if step % 100 == 0:
            print("Step:", step, "Loss:", float(loss))
        losses.append(float(loss))
    assert mean_loss(linear_layer, loss_fn, dataset) < losses[0]


def test_losses_of_layers_in_a_loop(dataset: Batches) -> None:
    # A new MLP.
    mlp = SparseMLP()

    # Loss and optimizer.
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(learning_rate=1e-3)

    first = None
    for step, (x, y) in enumerate(dataset):
        with tf.GradientTape() as tape:
            # Forward pass.
            logits = mlp(x)

            # External loss value for this batch.
            loss = loss_fn(y, logits)

            # Add the losses created during the forward pass.
            loss += sum(mlp.losses)

            # Get gradients of the loss wrt the weights.
            gradients = tape.gradient(loss, mlp.trainable_weights)

        # Update the weights of our linear layer.
        optimizer.apply_gradients(zip(gradients, mlp.trainable_weights))

        # Logging.
        if step % 100 == 0:
            print("Step:", step, "Loss:", float(loss))
        first = float(loss) if first is None else first
    assert float(loss) < first


def test_metric_in_a_loop(dataset: Batches, capsys: Any) -> None:
    accuracy = keras.metrics.SparseCategoricalAccuracy()

    # Prepare our layer, loss, and optimizer.
    model = keras.Sequential(
        [
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(learning_rate=1e-3)

    reached = []
    for epoch in range(2):
        # Iterate over the batches of a dataset.
        for step, (x, y) in enumerate(dataset):
            with tf.GradientTape() as tape:
                logits = model(x)
                # Compute the loss value for this batch.
                loss_value = loss_fn(y, logits)

            # Update the state of the `accuracy` metric.
            accuracy.update_state(y, logits)

            # Update the weights of the model to minimize the loss value.
            gradients = tape.gradient(loss_value, model.trainable_weights)
            optimizer.apply_gradients(zip(gradients, model.trainable_weights))

            # Logging the current accuracy value so far.
            if step % 200 == 0:
                print("Epoch:", epoch, "Step:", step)
                print("Total running accuracy so far: %.3f" % accuracy.result())

        reached.append(float(accuracy.result()))
        # Reset the metric's state at the end of an epoch
        accuracy.reset_states()
    assert "Total running accuracy so far: 0." in capsys.readouterr().out
    assert reached[1] > reached[0] + 0.1
    assert float(accuracy.result()) == 0.0


def test_compiled_step(dataset: Batches) -> None:
    # Prepare our layer, loss, and optimizer.
    model = keras.Sequential(
        [
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(learning_rate=1e-3)

    # Create a training step function.

    @tf.function  # Make it fast.
    def train_on_batch(x, y):
        with tf.GradientTape() as tape:
            logits = model(x)
            loss = loss_fn(y, logits)
            gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights))
        return loss

    first = None
    for epoch in range(2):
        for step, (x, y) in enumerate(dataset):
            loss = train_on_batch(x, y)
            if step % 100 == 0:
                print("Step:", step, "Loss:", float(loss))
            first = float(loss) if first is None else first
    assert mean_loss(model, loss_fn, dataset) < 0.5 * first
    # The last batch is smaller: it made the size symbolic, with one more trace for all sizes.
    assert train_on_batch.trace_count == 2


def make_step(compiled: bool) -> tuple[Any, Any]:
    tf.random.set_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ]
    )
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(learning_rate=1e-3)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return loss

    return model, (tf.function(step) if compiled else step)


def test_200_steps_are_equal_eagerly_and_compiled() -> None:
    x_train, y_train = load_digits()
    losses = []
    for compiled in (False, True):
        _, step = make_step(compiled)
        data = Batches(x_train[:640], y_train[:640], 64)
        found = [step(x, y) for _ in range(20) for x, y in data]
        losses.append(np.array([float(v) for v in found]))
    assert len(losses[0]) == 200 and losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
