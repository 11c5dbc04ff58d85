"""Initializers, regularizers, constraints, activations, utils: values and configs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.keras import activations, constraints, initializers, regularizers, utils
from graphnn.runtime.errors import ArgumentError, ShapeError

SHAPE = (200, 300)
SPREADS = {
    "random_normal": 0.05,
    "random_uniform": 0.05 / np.sqrt(3),
    "truncated_normal": 0.05 * 0.8796,
    "glorot_uniform": np.sqrt(2 / 500),
    "glorot_normal": np.sqrt(2 / 500),
    "he_uniform": np.sqrt(2 / 200),
    "he_normal": np.sqrt(2 / 200),
    "lecun_uniform": np.sqrt(1 / 200),
    "lecun_normal": np.sqrt(1 / 200),
}


@pytest.mark.parametrize("name", SPREADS)
def test_random_initializers(name: str) -> None:
    make = initializers.get(name)
    values = make(SHAPE).numpy()
    assert values.dtype == "float32" and values.shape == SHAPE
    assert abs(values.mean()) < 0.02 * SPREADS[name] + 1e-4
    np.testing.assert_allclose(values.std(), SPREADS[name], rtol=0.02)
    np.testing.assert_array_equal(make(SHAPE).numpy(), values)
    assert (initializers.get(name)(SHAPE).numpy() != values).any()
    again = initializers.deserialize(initializers.serialize(make))
    assert again.get_config() == make.get_config()


def test_seeds() -> None:
    tf.random.set_seed(3)
    first = initializers.GlorotUniform()((4, 4)).numpy()
    tf.random.set_seed(3)
    np.testing.assert_array_equal(initializers.GlorotUniform()((4, 4)).numpy(), first)
    one, two = (initializers.HeNormal(seed=1)((4, 4)).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert initializers.HeNormal(seed=1)((4,), dtype="float64").dtype == "float64"


def test_fixed_initializers() -> None:
    assert initializers.get("zeros")((2,)).numpy().tolist() == [0, 0]
    assert initializers.get("ones")((2,), "int32").numpy().tolist() == [1, 1]
    assert initializers.get(0.5)((2,)).numpy().tolist() == [0.5, 0.5]
    assert initializers.Constant([1, 2])((2, 2)).numpy().tolist() == [[1, 2], [1, 2]]
    assert initializers.Identity(2.0)((2, 2)).numpy().tolist() == [[2, 0], [0, 2]]
    q = initializers.Orthogonal(seed=1)((3, 5)).numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(3), atol=1e-6)
    assert initializers.compute_fans((3, 3, 8, 16)) == (72, 144)


def test_initializer_errors() -> None:
    with pytest.raises(ArgumentError, match="mode='fan'"):
        initializers.VarianceScaling(mode="fan")
    with pytest.raises(ShapeError, match="two axes"):
        initializers.Identity()((3,))
    with pytest.raises(ArgumentError, match="glorot_uniform"):
        initializers.get("glorot_unifrm")


def test_regularizers() -> None:
    x = tf.constant([1.0, -2.0])
    found = [
        float(make(x))
        for make in (
            regularizers.L1(0.1),
            regularizers.L2(0.1),
            regularizers.L1L2(0.1, 0.2),
            regularizers.L1L2(),
        )
    ]
    np.testing.assert_allclose(found, [0.3, 0.5, 1.3, 0.0], rtol=1e-6)
    assert regularizers.get("l2").l2 == 0.01
    again = regularizers.deserialize(regularizers.serialize(regularizers.L1L2(0.1, 0.2)))
    assert again.get_config() == {"l1": 0.1, "l2": 0.2}
    with pytest.raises(ArgumentError, match="l1=-1"):
        regularizers.L1(-1)


def test_constraints() -> None:
    w = tf.constant([[3.0, -0.3], [4.0, 0.4]])
    close = np.testing.assert_allclose
    close(constraints.MaxNorm(1.0)(w).numpy(), [[0.6, -0.3], [0.8, 0.4]], rtol=1e-5)
    close(constraints.UnitNorm()(w).numpy(), [[0.6, -0.6], [0.8, 0.8]], rtol=1e-5)
    close(constraints.get("non_neg")(w).numpy(), [[3.0, 0.0], [4.0, 0.4]])
    again = constraints.deserialize(constraints.serialize(constraints.MaxNorm(3.0, axis=(0, 1))))
    assert again.get_config() == {"max_value": 3.0, "axis": (0, 1)}


X = np.linspace(-4, 4, 33).astype("float32")
EXPECTED = {
    "linear": X,
    "relu": np.maximum(X, 0),
    "relu6": np.clip(X * 2, 0, 6),
    "leaky_relu": np.where(X > 0, X, 0.2 * X),
    "sigmoid": 1 / (1 + np.exp(-X)),
    "hard_sigmoid": np.clip(X / 6 + 0.5, 0, 1),
    "tanh": np.tanh(X),
    "softplus": np.log1p(np.exp(X)),
    "softsign": X / (1 + np.abs(X)),
    "silu": X / (1 + np.exp(-X)),
    "swish": X / (1 + np.exp(-X)),
    "mish": X * np.tanh(np.log1p(np.exp(X))),
    "elu": np.where(X > 0, X, np.expm1(X)),
    "selu": 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X)),
    "exponential": np.exp(X),
    "softmax": np.exp(X) / np.exp(X).sum(),
    "log_softmax": X - np.log(np.exp(X).sum()),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_activations(name: str) -> None:
    function = activations.get(name)
    x = tf.constant(X * 2 if name == "relu6" else X)
    np.testing.assert_allclose(function(x).numpy(), EXPECTED[name], rtol=3e-6, atol=1e-6)
    assert activations.get(activations.serialize(function)) is function


def test_activation_settings() -> None:
    x = tf.constant([-4.0, 0.5, 3.0])
    found = activations.relu(x, negative_slope=0.5, max_value=2.0, threshold=1.0)
    assert found.numpy().tolist() == [-2.5, -0.25, 2.0]
    assert activations.get(None)(x) is x
    own = lambda x: x * 2  # noqa: E731
    assert activations.get(own) is own
    gelu = activations.get("gelu")(tf.constant([1.0])).numpy()
    np.testing.assert_allclose(gelu, [0.8413447], rtol=1e-6)
    with pytest.raises(ArgumentError, match=r"keras\.activations"):
        activations.get("reluu")


def test_to_categorical() -> None:
    assert utils.to_categorical([[1], [0]], 3).tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(IndexError):
        utils.to_categorical([3], 3)


def test_unpack() -> None:
    data: list[Any] = [(1,), (1, 2), (1, 2, 3), [1, 2], {"a": 1}]
    found = [utils.unpack_x_y_sample_weight(d) for d in data]
    assert found == [(1, None, None), (1, 2, None), (1, 2, 3), (1, 2, None), ({"a": 1}, None, None)]
    with pytest.raises(ArgumentError, match="a tuple of 4"):
        utils.unpack_x_y_sample_weight((1, 2, 3, 4))
