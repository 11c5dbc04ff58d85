"""Activation functions against their formulas, with gradients; by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.keras import activations as A

X = np.linspace(-3.3, 3.1, 24).reshape(4, 6)

FORMULAS: dict[str, Callable[[Any], Any]] = {
    "celu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "exponential": np.exp,
    "glu": lambda x: x[:, :3] / (1 + np.exp(-x[:, 3:])),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "log_sigmoid": lambda x: -np.log(1 + np.exp(-x)),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sparse_plus": lambda x: np.where(x <= -1, 0, np.where(x < 1, (x + 1) ** 2 / 4, x)),
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
    "tanh": np.tanh,
    "tanh_shrink": lambda x: x - np.tanh(x),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients(name: str) -> None:
    formula, function = FORMULAS[name], A.get(name)
    x = tf.Variable(X, dtype="float64")
    with tf.GradientTape() as tape:
        y = function(x)
        total = tf.reduce_sum(y * y)
    np.testing.assert_allclose(y.numpy(), formula(X), rtol=1e-9, atol=1e-12)
    way = np.random.default_rng(0).normal(size=X.shape)
    h = 1e-6
    slope = ((formula(X + h * way) ** 2).sum() - (formula(X - h * way) ** 2).sum()) / (2 * h)
    found = (tape.gradient(total, x).numpy() * way).sum()
    np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-7)
    compiled = tf.function(function)(tf.constant(X.astype("float32")))
    np.testing.assert_allclose(compiled.numpy(), formula(X), rtol=2e-5, atol=1e-6)


def test_settings() -> None:
    x = tf.constant([-2.0, 0.5, 2.0])
    assert A.threshold(x, 0.6, -1.0).numpy().tolist() == [-1.0, -1.0, 2.0]
    assert A.hard_shrink(x, 1.0).numpy().tolist() == [-2.0, 0.0, 2.0]
    np.testing.assert_allclose(A.celu(x, 2.0).numpy()[0], 2 * (np.exp(-1) - 1), rtol=1e-6)
    assert A.get("hard_swish") is A.hard_silu and A.get("swish") is A.silu
