"""The guide's sections on layers: its words, with only the imports changed."""

# ruff: noqa: UP008 (the guide's own words)

from __future__ import annotations

from typing import Any

import numpy as np

import graphnn as tf
from graphnn import keras


class Linear(keras.layers.Layer):
    """y = w.x + b"""

    def __init__(self, units=32):
        super(Linear, self).__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer="random_normal",
            trainable=True,
        )
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal", trainable=True)

    def call(self, inputs):
        return tf.matmul(inputs, self.w) + self.b


class ComputeSum(keras.layers.Layer):
    """Returns the sum of the inputs."""

    def __init__(self, input_dim):
        super(ComputeSum, self).__init__()
        # Create a non-trainable weight.
        self.total = tf.Variable(initial_value=tf.zeros((input_dim,)), trainable=False)

    def call(self, inputs):
        self.total.assign_add(tf.reduce_sum(inputs, axis=0))
        return self.total


class MLP(keras.layers.Layer):
    """Simple stack of Linear layers."""

    def __init__(self):
        super(MLP, self).__init__()
        self.linear_1 = Linear(32)
        self.linear_2 = Linear(32)
        self.linear_3 = Linear(10)

    def call(self, inputs):
        x = self.linear_1(inputs)
        x = tf.nn.relu(x)
        x = self.linear_2(x)
        x = tf.nn.relu(x)
        return self.linear_3(x)


class ActivityRegularization(keras.layers.Layer):
    """Layer that creates an activity sparsity regularization loss."""

    def __init__(self, rate=1e-2):
        super(ActivityRegularization, self).__init__()
        self.rate = rate

    def call(self, inputs):
        # We use `add_loss` to create a regularization loss
        # that depends on the inputs.
        self.add_loss(self.rate * tf.reduce_sum(inputs))
        return inputs


class SparseMLP(keras.layers.Layer):
    """Stack of Linear layers with a sparsity regularization loss."""

    def __init__(self):
        super(SparseMLP, self).__init__()
        self.linear_1 = Linear(32)
        self.regularization = ActivityRegularization(1e-2)
        self.linear_3 = Linear(10)

    def call(self, inputs):
        x = self.linear_1(inputs)
        x = tf.nn.relu(x)
        x = self.regularization(x)
        return self.linear_3(x)


class Dropout(keras.layers.Layer):
    def __init__(self, rate):
        super(Dropout, self).__init__()
        self.rate = rate

    def call(self, inputs, training=None):
        if training:
            return tf.nn.dropout(inputs, rate=self.rate)
        return inputs


class MLPWithDropout(keras.layers.Layer):
    def __init__(self):
        super(MLPWithDropout, self).__init__()
        self.linear_1 = Linear(32)
        self.dropout = Dropout(0.5)
        self.linear_3 = Linear(10)

    def call(self, inputs, training=None):
        x = self.linear_1(inputs)
        x = tf.nn.relu(x)
        x = self.dropout(x, training=training)
        return self.linear_3(x)


def test_linear() -> None:
    # Instantiate our lazy layer.
    linear_layer = Linear(4)

    # This will also call `build(input_shape)` and create the weights.
    y = linear_layer(tf.ones((2, 2)))

    assert y.shape == (2, 4)
    assert [tuple(w.shape) for w in linear_layer.weights] == [(2, 4), (4,)]
    assert linear_layer.weights[0] is linear_layer.w
    expected = np.ones((2, 2)) @ linear_layer.w.numpy() + linear_layer.b.numpy()
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_compute_sum() -> None:
    my_sum = ComputeSum(2)
    x = tf.ones((2, 2))
    assert my_sum(x).numpy().tolist() == [2.0, 2.0]
    assert my_sum(x).numpy().tolist() == [4.0, 4.0]
    assert my_sum.weights == my_sum.non_trainable_weights == [my_sum.total]
    assert my_sum.trainable_weights == []
    compiled = tf.function(lambda x: tf.identity(my_sum(x)))
    assert compiled(x).numpy().tolist() == [6.0, 6.0]
    assert my_sum.total.numpy().tolist() == [6.0, 6.0]


def test_nested_layers() -> None:
    mlp = MLP()

    # The first call to the `mlp` object will create the weights.
    y = mlp(tf.ones(shape=(3, 64)))

    # Weights are recursively tracked.
    assert len(mlp.weights) == 6
    assert y.shape == (3, 10)


def test_add_loss(capsys: Any) -> None:
    mlp = SparseMLP()
    mlp(tf.ones((10, 10)))

    print(mlp.losses)  # List containing one float32 scalar
    assert "dtype=float32" in capsys.readouterr().out

    # Losses correspond to the *last* forward pass.
    mlp = SparseMLP()
    mlp(tf.ones((10, 10)))
    assert len(mlp.losses) == 1
    mlp(tf.ones((10, 10)))
    assert len(mlp.losses) == 1  # No accumulation.
    hidden = np.maximum(np.ones((10, 10)) @ mlp.linear_1.w.numpy() + mlp.linear_1.b.numpy(), 0)
    np.testing.assert_allclose(float(mlp.losses[0]), 0.01 * hidden.sum(), rtol=1e-5)


def test_dropout() -> None:
    mlp = MLPWithDropout()
    y_train = mlp(tf.ones((2, 2)), training=True)
    y_test = mlp(tf.ones((2, 2)), training=False)

    hidden = np.maximum(np.ones((2, 2)) @ mlp.linear_1.w.numpy() + mlp.linear_1.b.numpy(), 0)
    expected = hidden @ mlp.linear_3.w.numpy() + mlp.linear_3.b.numpy()
    np.testing.assert_allclose(y_test.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert (y_train.numpy() != y_test.numpy()).any()
    np.testing.assert_array_equal(mlp(tf.ones((2, 2))).numpy(), y_test.numpy())


def test_dropout_masks_are_equal_eagerly_and_compiled() -> None:
    mlp = MLPWithDropout()
    x = tf.ones((4, 2))
    mlp(x)
    compiled = tf.function(lambda x: mlp(x, training=True))
    results = []
    for call in (lambda x: mlp(x, training=True), compiled):
        tf.random.set_seed(7)
        results.append([call(x).numpy() for _ in range(3)])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert (results[0][0] != results[0][1]).any()
