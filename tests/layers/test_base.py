"""Layer: tracking, building, training flag, losses, names, dtypes, errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers
from graphnn.runtime.errors import ArgumentError, ShapeError, StateError


class Holder(layers.Layer):
    """Keeps its layers and weights in every kind of place."""

    def __init__(self) -> None:
        super().__init__()
        self.one = layers.Dense(2)
        self.several = [layers.Dense(2)]
        self.named = {"a": layers.Dense(2), "b": [layers.Dense(2)]}
        self.pair = (layers.Dense(2), 7)
        self.scale = tf.Variable(1.0)
        self.count = tf.Variable(0.0, trainable=False)
        self.again = self.one
        self.several.append(layers.Dense(2))

    def call(self, x: Any) -> Any:
        for layer in self.every():
            x = layer(x)
        return x * self.scale

    def every(self) -> list[Any]:
        return [self.one, *self.several, self.named["a"], *self.named["b"], self.pair[0]]


def test_tracking_in_attributes_and_containers() -> None:
    layer = Holder()
    assert [w.name for w in layer.weights] == ["Variable", "Variable"]
    layer(tf.ones((3, 2)))
    assert len(layer.weights) == 14
    assert len(layer.trainable_weights) == 13
    assert layer.non_trainable_weights == [layer.count]
    assert layer.weights[0] is layer.scale and layer.weights[1] is layer.count
    assert layer.trainable_variables == layer.trainable_weights
    layer.several.append(layers.Dense(2))
    layer.several[-1](tf.ones((3, 2)))
    assert len(layer.weights) == 16
    del layer.named
    assert len(layer.weights) == 12


def test_a_layer_may_know_its_parent() -> None:
    parent, child = Holder(), layers.Dense(1)
    child.parent = parent
    parent.child = child
    child(tf.ones((1, 2)))
    assert len(parent.weights) == 4
    assert len(child.weights) == 4


def test_freezing_is_recursive_and_keeps_the_order() -> None:
    net = Holder()
    net(tf.ones((3, 2)))
    before = [id(w) for w in net.weights]
    net.trainable = False
    assert net.trainable_weights == [] and not net.pair[0].trainable
    assert not any(w.trainable for w in net.weights)
    assert [id(w) for w in net.weights] == before
    with tf.GradientTape() as tape:
        y = net(tf.ones((3, 2)))
    assert tape.gradient(y, net.scale) is None
    net.trainable = True
    assert len(net.trainable_weights) == 13 and not net.count.trainable
    net.one.trainable = False
    assert len(net.trainable_weights) == 11


def test_frozen_before_it_is_built() -> None:
    layer = layers.Dense(2, trainable=False)
    layer(tf.ones((1, 2)))
    assert layer.trainable_weights == [] and len(layer.weights) == 2
    layer.trainable = True
    assert len(layer.trainable_weights) == 2


class Flagged(layers.Layer):
    """Writes down the training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def call(self, x: Any, training: Any = None) -> Any:
        self.seen.append(training)
        return x


class Outer(layers.Layer):
    """Passes no flag on by itself."""

    def __init__(self, explicit: Any = None) -> None:
        super().__init__()
        self.inner = Flagged()
        self.explicit = explicit

    def call(self, x: Any) -> Any:
        return self.inner(x, training=self.explicit)


@pytest.mark.parametrize(
    ("given", "explicit", "expected"),
    [(None, None, False), (True, None, True), (False, None, False), (True, False, False)],
)
def test_training_flag_goes_down(given: Any, explicit: Any, expected: bool) -> None:
    layer = Outer(explicit)
    keywords = {} if given is None else {"training": given}
    layer(tf.ones((1, 1)), **keywords)
    assert layer.inner.seen == [expected]


def test_training_flag_by_position() -> None:
    layer = Flagged()
    layer(tf.ones((1, 1)), True)
    layer(tf.ones((1, 1)), None)
    assert layer.seen == [True, False]


class Penalised(layers.Layer):
    """Adds the sum of its inputs to the losses."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2, kernel_regularizer="l2")

    def call(self, x: Any) -> Any:
        self.add_loss(tf.reduce_sum(x))
        return self.dense(x)


def test_losses_are_those_of_the_last_call() -> None:
    layer = Penalised()
    assert layer.losses == []
    for _ in range(2):
        layer(tf.ones((2, 3)))
        assert len(layer.losses) == 2
    assert float(layer.losses[0]) == 6.0
    kernel = layer.dense.kernel.numpy()
    np.testing.assert_allclose(float(layer.losses[1]), 0.01 * (kernel**2).sum(), rtol=1e-5)


def test_losses_in_a_compiled_step() -> None:
    layer = Penalised()

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(y) + sum(layer.losses)
        return loss, tape.gradient(loss, layer.trainable_weights)

    x = tf.ones((2, 3))
    loss, gradients = step(x)
    with tf.GradientTape() as tape:
        expected = tf.reduce_sum(layer(x)) + sum(layer.losses)
    np.testing.assert_allclose(float(loss), float(expected), rtol=1e-5)
    for a, b in zip(gradients, tape.gradient(expected, layer.trainable_weights), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


def test_activity_regularizer() -> None:
    layer = layers.Dense(
        2, kernel_initializer="ones", activity_regularizer=keras.regularizers.L1(1)
    )
    layer(tf.ones((1, 3)))
    assert [float(loss) for loss in layer.losses] == [6.0]


def test_names_and_paths() -> None:
    class Net(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.head = layers.Dense(2, name="head")

        def call(self, x: Any) -> Any:
            return self.head(x)

    net = Net()
    net(tf.ones((1, 2)))
    assert [w.name for w in net.weights] == ["net/head/kernel", "net/head/bias"]
    first, second = layers.Dense(1).name, layers.Dense(1).name
    assert first.startswith("dense") and first != second


def test_error_names_the_layer() -> None:
    class Net(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.head = layers.Dense(2, name="head")

        def call(self, x: Any) -> Any:
            return self.head(x)

    net = Net()
    net(tf.ones((1, 2)))
    with pytest.raises(ShapeError, match="layer net/head"):
        net(tf.ones((1, 3)))


def test_forgotten_init() -> None:
    class Bad(layers.Layer):
        def __init__(self) -> None:
            self.w = tf.Variable(1.0)

        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(StateError, match=r"super\(\).__init__"):
        Bad()(tf.ones(1))


def test_unknown_argument() -> None:
    with pytest.raises(ArgumentError, match="unit_s"):
        layers.Dense(2, unit_s=3)


def test_weight_of_unknown_size() -> None:
    layer = layers.Dense(2)
    with pytest.raises(ArgumentError, match="known sizes"):
        layer.build((None, None))


def test_set_weights_checks_first() -> None:
    layer = layers.Dense(2)
    layer(tf.ones((1, 3)))
    before = layer.get_weights()
    with pytest.raises(ArgumentError, match="2 arrays"):
        layer.set_weights(before[:1])
    with pytest.raises(ShapeError, match="kernel"):
        layer.set_weights([np.zeros((2, 2)), np.zeros(2)])
    with pytest.raises(ShapeError, match="bias"):
        layer.set_weights([np.zeros((3, 2)), np.zeros(3)])
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])


def test_building_in_the_middle_of_a_trace() -> None:
    tf.random.set_seed(4)
    eager = layers.Dense(2)
    tf.random.set_seed(4)
    traced = layers.Dense(2)
    x = tf.ones((2, 3))
    call = tf.function(lambda x: traced(x))
    np.testing.assert_allclose(call(x).numpy(), eager(x).numpy(), rtol=1e-6)
    assert call.trace_count == 1
    np.testing.assert_array_equal(traced.kernel.numpy(), eager.kernel.numpy())


def test_a_second_layer_may_be_built_in_a_later_trace() -> None:
    table = {2: layers.Dense(1), 3: layers.Dense(1)}
    call = tf.function(lambda x, key: table[key](x))
    assert call(tf.ones((2, 2)), 2).shape == (2, 1)
    assert call(tf.ones((2, 2)), 3).shape == (2, 1)


def test_failed_build_is_tried_again() -> None:
    class Picky(layers.Layer):
        allowed = False

        def build(self, input_shape: Any) -> None:
            if not self.allowed:
                raise RuntimeError("not yet")
            self.w = self.add_weight(shape=(), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.w

    layer = Picky()
    with pytest.raises(RuntimeError, match="not yet"):
        layer(tf.ones(2))
    assert not layer.built
    layer.allowed = True
    assert layer(tf.ones(2)).numpy().tolist() == [1.0, 1.0]


def test_integer_and_structured_inputs() -> None:
    class Add(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.shapes = input_shape

        def call(self, inputs: Any) -> Any:
            return inputs["a"] + inputs["b"]

    layer = Add()
    y = layer({"a": np.ones((2, 3)), "b": tf.ones((2, 3))})
    assert y.dtype == "float32" and layer.shapes == {"a": (2, 3), "b": (2, 3)}
    assert Flagged()(np.arange(3)).dtype == "int64"


def test_build_with_several_shapes() -> None:
    class Attend(layers.Layer):
        def build(self, query_shape: Any, value_shape: Any) -> None:
            self.shapes = (query_shape, value_shape)

        def call(self, query: Any, value: Any) -> Any:
            return tf.matmul(query, value)

    layer = Attend()
    layer(tf.ones((2, 3)), value=tf.ones((3, 4)))
    assert layer.shapes == ((2, 3), (3, 4))


def test_automatic_config() -> None:
    class Scale(layers.Layer):
        def __init__(self, factor: float, shift: float = 0.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.factor, self.shift = factor, shift

        def call(self, x: Any) -> Any:
            return x * self.factor + self.shift

    class Wrapped(layers.Layer):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

    layer = Scale(2.0, shift=1.0, name="scale")
    again = Scale.from_config(layer.get_config())
    assert (again.factor, again.shift, again.name) == (2.0, 1.0, "scale")
    with pytest.raises(StateError, match="inner"):
        Wrapped(layers.Dense(1)).get_config()


def test_copies_are_independent() -> None:
    layer = layers.Dense(2)
    x = tf.ones((1, 3))
    y = layer(x).numpy()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(other(x).numpy(), y)
        assert len(other.trainable_weights) == 2
        other.kernel.assign(tf.zeros((3, 2)))
    np.testing.assert_array_equal(layer(x).numpy(), y)


def test_dtype_policies() -> None:
    assert layers.Dense(2).dtype == "float32"
    half = layers.Dense(2, dtype="mixed_float16")
    assert (half.compute_dtype, half.variable_dtype) == ("float16", "float32")
    assert half(np.ones((1, 2))).dtype == "float16"
    keras.mixed_precision.set_global_policy("float64")
    try:
        assert layers.Dense(2)(np.ones((1, 2), "float32")).dtype == "float64"
    finally:
        keras.mixed_precision.set_global_policy("float32")
    with pytest.raises(ArgumentError, match="mixed_float12"):
        layers.Dense(2, dtype="mixed_float12")


def test_metrics_and_seeds_are_found() -> None:
    layer = Holder()
    layer.metric = keras.metrics.Mean()
    layer.drop = layers.Dropout(0.5)
    assert layer.metrics == [layer.metric]
    names = len(layer.variables)
    assert names == len(layer.weights) + 1 + 2


def test_compute_output_shape_of_own_layers() -> None:
    assert Outer().compute_output_shape((None, 5)) == (None, 5)
    assert Holder().compute_output_shape((None, 5)) == (None, 2)
