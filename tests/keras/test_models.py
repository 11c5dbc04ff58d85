"""Model and Sequential: building, shapes, summary, configs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers
from graphnn.runtime.errors import ArgumentError, MissingMethodError


def test_sequential_is_built_at_once_with_an_input() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(2)])
    assert model.built and len(model.weights) == 4
    assert (model.input_shape, model.output_shape) == ((None, 6), (None, 2))
    model.add(layers.Dense(3))
    assert model.output_shape == (None, 3) and len(model.layers) == 3
    model.pop()
    assert len(model.weights) == 4 and model(tf.ones((5, 6))).shape == (5, 2)


def test_sequential_with_deferred_build() -> None:
    model = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    assert model.weights == [] and model.output_shape is None
    assert model(tf.ones((5, 6))).shape == (5, 2)
    assert model.output_shape == (None, 2)
    other = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    other.build((None, 6))
    assert len(other.weights) == 4 and other.output_shape == (None, 2)
    old = keras.Sequential([layers.Dense(4, input_shape=(6,))])
    assert len(old.weights) == 2


def test_integers_first() -> None:
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int64"),
            layers.Embedding(10, 4),
            layers.Dense(2, activation="relu"),
        ]
    )
    assert model.output_shape == (None, None, 2)
    assert model(np.zeros((3, 7), "int64")).shape == (3, 7, 2)


def test_sequential_errors() -> None:
    with pytest.raises(ArgumentError, match="a layer"):
        keras.Sequential([len])
    with pytest.raises(ArgumentError, match="second layer with the name"):
        keras.Sequential([layers.Dense(1, name="a"), layers.Dense(1, name="a")])
    with pytest.raises(ArgumentError, match="not the first"):
        keras.Sequential([layers.Dense(1), keras.Input((3,))])
    with pytest.raises(ArgumentError, match="no layers"):
        keras.Sequential().pop()
    with pytest.raises(ArgumentError, match="no shape"):
        keras.Input()


def test_sequential_config() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, activation="relu"), layers.Dropout(0.5)], name="net"
    )
    again = keras.Sequential.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())


class Net(keras.Model):
    """Two layers in attributes, one in a list."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.first = layers.Dense(4, name="first")
        self.rest = [layers.BatchNormalization(name="norm"), layers.Dense(2, name="last")]

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.first(inputs)
        for layer in self.rest:
            x = layer(x)
        return x


def test_subclass() -> None:
    model = Net()
    assert [layer.name for layer in model.layers] == ["first", "norm", "last"]
    assert model.get_layer("last") is model.rest[1] and model.get_layer(index=0) is model.first
    with pytest.raises(ArgumentError, match="first, norm, last"):
        model.get_layer("second")
    with pytest.raises(ArgumentError, match="no input shape"):
        model.build()
    model.build((None, 3))
    assert len(model.weights) == 8 and model.count_params() == 16 + 16 + 10


def test_summary() -> None:
    model = Net()
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert "0 (unbuilt)" in lines[0]
    model(tf.ones((2, 3)))
    model.summary(print_fn=lines.append)
    text = lines[1]
    assert text.startswith('Model: "net"')
    assert "first (Dense)" in text and "(None, 4)" in text
    assert "Total params: 42 (168.00 B)" in text
    assert "Non-trainable params: 8 (32.00 B)" in text
    assert len({len(line) for line in text.splitlines()[1:-3]}) == 1


def test_sequential_inside_a_layer() -> None:
    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.net = keras.Sequential([layers.Dense(3), layers.Dropout(0.5)])

        def call(self, x: Any) -> Any:
            return self.net(x)

    block = Block()
    x = tf.ones((10, 4))
    assert (block(x, training=True).numpy() == 0).any()
    assert len(block.trainable_weights) == 2


def test_a_model_without_call_says_what_to_define() -> None:
    class Empty(keras.Model):
        pass

    model = Empty()
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2)), np.ones((4, 1))
    for run in (
        lambda: model(x),
        lambda: model(keras.Input((2,))),
        lambda: model.fit(x, y, verbose=0),
        lambda: model.predict(x, verbose=0),
        lambda: model.build((None, 2)),
    ):
        with pytest.raises(MissingMethodError) as caught:
            run()
        text = str(caught.value)
        assert "Empty.call at test_models.py" in text
        assert "expected: def call(self, inputs) in the class" in text
        assert "Empty(inputs, outputs)" in text
    assert isinstance(caught.value, NotImplementedError)


@pytest.mark.parametrize(
    ("make", "use", "method"),
    [
        (layers.Layer, lambda o: o(1.0), "call"),
        (keras.losses.Loss, lambda o: o([1.0], [1.0]), "call"),
        (keras.metrics.Metric, lambda o: o.update_state([1.0], [1.0]), "update_state"),
        (keras.metrics.Metric, lambda o: o.result(), "result"),
        (keras.regularizers.Regularizer, lambda o: o(1.0), "__call__"),
        (keras.constraints.Constraint, lambda o: o(1.0), "__call__"),
        (keras.initializers.Initializer, lambda o: o((1,)), "__call__"),
        (keras.optimizers.schedules.LearningRateSchedule, lambda o: o(1), "__call__"),
        (keras.utils.PyDataset, len, "__len__"),
        (keras.utils.PyDataset, lambda o: o[0], "__getitem__"),
    ],
)
def test_base_classes_say_what_to_define(make: Any, use: Any, method: str) -> None:
    mine = type("Mine", (make,), {})
    with pytest.raises(MissingMethodError, match=rf"expected: def {method}\(self") as caught:
        use(mine())
    assert f"Mine.{method}" in str(caught.value)


def test_clear_session_counts_names_anew() -> None:
    layers.Dense(1)
    keras.backend.clear_session()
    assert [layers.Dense(1).name for _ in range(2)] == ["dense", "dense_1"]
    keras.utils.clear_session(free_memory=False)
    assert keras.Sequential().name == "sequential"
