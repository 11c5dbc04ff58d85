"""The harness over every layer, and that none is forgotten."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.keras import layers
from tests.layers.harness import Case, check_layer


def dense(x: Any, kernel: Any, bias: Any = 0.0) -> Any:
    return x @ kernel + bias


def layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


CASES = (
    Case(layers.Dense, {"units": 5}, (4, 3), output=(4, 5), weights=(2, 0), reference=dense),
    Case(
        layers.Dense,
        {"units": 5, "use_bias": False, "kernel_regularizer": "l2", "name": "net"},
        (4, 2, 3),
        output=(4, 2, 5),
        weights=(1, 0),
        reference=dense,
    ),
    Case(
        layers.Dense,
        {"units": 5, "activation": "tanh", "kernel_initializer": "he_normal"},
        (4, 3),
        output=(4, 5),
        weights=(2, 0),
        reference=lambda x, k, b: np.tanh(x @ k + b),
    ),
    Case(
        layers.Embedding,
        {"input_dim": 7, "output_dim": 3},
        (4, 5),
        integers=(0, 7),
        output=(4, 5, 3),
        weights=(1, 0),
        reference=lambda x, table: table[x],
    ),
    Case(layers.Activation, {"activation": "relu"}, reference=lambda x: np.maximum(x, 0)),
    Case(layers.Activation, {"activation": "gelu"}),
    Case(layers.ReLU, {"negative_slope": 0.1, "max_value": 0.5}),
    Case(layers.Softmax, {}, (4, 6), reference=softmax),
    Case(layers.Dropout, {"rate": 0.5, "seed": 3}, (4, 30), trains=True, reference=lambda x: x),
    Case(layers.Dropout, {"rate": 0.5, "noise_shape": (None, 1), "seed": 1}, (20, 3), trains=True),
    Case(layers.Flatten, {}, (4, 2, 3), output=(4, 6), reference=lambda x: x.reshape(-1, 6)),
    Case(
        layers.Reshape,
        {"target_shape": (3, -1)},
        (4, 6),
        output=(4, 3, 2),
        reference=lambda x: x.reshape(-1, 3, 2),
    ),
    Case(layers.Rescaling, {"scale": 0.5, "offset": 1.0}, reference=lambda x: x * 0.5 + 1.0),
    Case(layers.LayerNormalization, {}, (4, 6), weights=(2, 0), reference=layer_norm),
    Case(layers.LayerNormalization, {"axis": (1, 2), "scale": False}, (4, 2, 3), weights=(1, 0)),
    Case(
        layers.BatchNormalization,
        {},
        (6, 3),
        weights=(2, 2),
        reference=batch_norm,
        trains=True,
    ),
    Case(layers.BatchNormalization, {"axis": 1}, (6, 3, 2), weights=(2, 2), trains=True),
)


PAIR = {"shape": (4, 2, 3), "more": ((4, 2, 3),)}


def merged(function: Any) -> Any:
    return lambda x: functools.reduce(function, x)


CASES += (
    Case(layers.Add, {}, (4, 3), ((4, 3), (4, 1)), reference=merged(np.add)),
    Case(
        layers.Add,
        {},
        (4, 2, 3),
        ((4, 3),),
        reference=lambda x: x[0] + x[1][:, None],
    ),
    Case(layers.Subtract, **PAIR, reference=merged(np.subtract)),
    Case(layers.Multiply, **PAIR, reference=merged(np.multiply)),
    Case(layers.Average, **PAIR, reference=lambda x: (x[0] + x[1]) / 2),
    Case(layers.Maximum, **PAIR, reference=merged(np.maximum)),
    Case(layers.Minimum, **PAIR, reference=merged(np.minimum)),
    Case(
        layers.Concatenate,
        {"axis": 1},
        (4, 2, 3),
        ((4, 5, 3),),
        output=(4, 7, 3),
        reference=lambda x: np.concatenate(x, 1),
    ),
    Case(
        layers.Dot,
        {"axes": (1, 2)},
        (4, 3, 5),
        ((4, 10, 3),),
        output=(4, 5, 10),
        reference=lambda x: np.einsum("nki,njk->nij", *x),
    ),
    Case(
        layers.Dot,
        {"axes": -1, "normalize": True},
        (4, 3),
        ((4, 3),),
        output=(4, 1),
        reference=lambda x: np.einsum(
            "nk,nk->n", *(v / np.linalg.norm(v, axis=1)[:, None] for v in x)
        )[:, None],
    ),
    Case(
        layers.Permute,
        {"dims": (2, 1)},
        (4, 2, 3),
        output=(4, 3, 2),
        reference=lambda x: x.transpose(0, 2, 1),
    ),
    Case(
        layers.RepeatVector,
        {"n": 2},
        (4, 3),
        output=(4, 2, 3),
        reference=lambda x: np.stack([x, x], 1),
    ),
    Case(layers.Masking, {"mask_value": 0.5}, (4, 2, 3), reference=lambda x: x),
    Case(layers.Lambda, {"function": keras.activations.relu}, reference=lambda x: np.maximum(x, 0)),
)


def one_hot(places: Any, depth: int) -> Any:
    return np.eye(depth)[places]


CASES += (
    Case(
        layers.Normalization,
        {"mean": [1.0, 2.0, 3.0], "variance": [4.0, 1.0, 9.0]},
        reference=lambda x: (x - [1, 2, 3]) / [2, 1, 3],
    ),
    Case(
        layers.Normalization,
        {"axis": (1, 2), "invert": True},
        (4, 2, 3),
        weights=(0, 3),
        reference=lambda x, mean, variance, count: x * np.sqrt(variance) + mean,
        half=False,
    ),
    Case(
        layers.Discretization,
        {"bin_boundaries": [1.0, 2.5], "output_mode": "one_hot"},
        (4, 5),
        integers=(0, 4),
        output=(4, 5, 3),
        reference=lambda x: one_hot(np.digitize(x, [1.0, 2.5]), 3),
    ),
    Case(
        layers.CategoryEncoding,
        {"num_tokens": 6, "output_mode": "count"},
        (4, 5),
        integers=(0, 6),
        output=(4, 6),
        reference=lambda x: one_hot(x, 6).sum(1),
    ),
    Case(
        layers.IntegerLookup,
        {"vocabulary": [3, 1], "idf_weights": [1.0, 2.0], "output_mode": "tf_idf"},
        (4, 5),
        integers=(0, 4),
        output=(4, 3),
        reference=lambda x: one_hot(np.array([0, 2, 0, 1])[x], 3).sum(1) * [1.5, 1.0, 2.0],
    ),
    Case(layers.Resizing, {"height": 3, "width": 5}, (2, 4, 4, 3), output=(2, 3, 5, 3)),
    Case(
        layers.Resizing,
        {"height": 3, "width": 2, "interpolation": "bicubic", "antialias": True},
        (2, 4, 5, 1),
        output=(2, 3, 2, 1),
    ),
    Case(
        layers.CenterCrop,
        {"height": 2, "width": 3},
        (2, 4, 5, 3),
        output=(2, 2, 3, 3),
        reference=lambda x: x[:, 1:3, 1:4],
    ),
)
# They take text; tests/preprocess tests them.
ON_HOST = {layers.Hashing, layers.StringLookup, layers.TextVectorization}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_layer(case: Case) -> None:
    check_layer(case)


def test_no_layer_is_forgotten() -> None:
    tested = {case.layer for case in CASES}
    classes = {
        value
        for name in layers.__all__
        if inspect.isclass(value := getattr(layers, name)) and issubclass(value, keras.Layer)
    }
    assert classes - tested - ON_HOST == {keras.Layer, layers.InputLayer, layers.OpLayer}


def test_batch_norm_moves_its_statistics() -> None:
    layer = layers.BatchNormalization(momentum=0.9)
    x = np.array([[1.0], [3.0]], "float32")
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [0.2], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), [1.0], rtol=1e-6)
    layer.trainable = False
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [0.2], rtol=1e-6)


def test_dropout_keeps_the_mean_and_the_seed() -> None:
    x = np.ones((200, 100), "float32")
    one, two = (layers.Dropout(0.25, seed=5)(x, training=True).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert abs(one.mean() - 1.0) < 0.02
    assert set(np.unique(one).round(4)) == {0.0, np.float32(1.3333)}
