"""CategoryEncoding and Hashing: vectors and bins as Keras makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.data import Dataset
from graphnn.keras.layers import CategoryEncoding, Hashing
from graphnn.runtime.errors import ArgumentError, DTypeError, TraceError
from tests.preprocess.conftest import compiled

PAIRS = [[0, 1], [0, 0], [1, 2], [3, 1]]


@pytest.mark.parametrize(
    ("mode", "x", "expected"),
    [
        ("multi_hot", PAIRS, [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]),
        ("count", PAIRS, [[1, 1, 0, 0], [2, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]),
        ("one_hot", [3, 2, 0], [[0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]),
        ("one_hot", [[0], [3]], [[1, 0, 0, 0], [0, 0, 0, 1]]),
        ("one_hot", 2, [[0, 0, 1, 0]]),
        ("multi_hot", [3, 2, 0], [1, 0, 1, 1]),
        ("count", 2, [0, 0, 1, 0]),
        ("count", [[5, 1], [-1, 0]], [[0, 1, 0, 0], [1, 0, 0, 0]]),
        ("multi_hot", [[[0, 1], [2, 2]]], [[[1, 1, 0, 0], [0, 0, 1, 0]]]),
        ("count", [[[0, 1], [2, 2]]], [[[1, 1, 0, 0], [0, 0, 2, 0]]]),
        ("count", np.zeros((2, 0), int), [[0, 0, 0, 0], [0, 0, 0, 0]]),
        ("multi_hot", np.zeros((2, 0), int), [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_category_encoding(mode: str, x: Any, expected: Any) -> None:
    layer = CategoryEncoding(num_tokens=4, output_mode=mode)
    y = layer(x)
    assert y.numpy().tolist() == expected and y.dtype == "float32"
    assert compiled(layer, x).numpy().tolist() == expected
    if np.ndim(x):
        assert layer.compute_output_shape(np.shape(x)) == np.shape(expected)


def test_old_names_and_float_inputs() -> None:
    layer = CategoryEncoding(4, "binary")
    assert layer.output_mode == "multi_hot"
    assert layer(np.array([[0.0, 3.0]])).numpy().tolist() == [[1, 0, 0, 1]]
    half = CategoryEncoding(1000, "one_hot", dtype="mixed_bfloat16")
    assert int(tf.argmax(half([777]), axis=-1)) == 777


def test_count_weights() -> None:
    layer = CategoryEncoding(4, "count")
    weights = np.array([[0.1, 0.2], [0.1, 0.1], [0.2, 0.3], [0.4, 0.2]], "float32")
    expected = [[0.1, 0.2, 0, 0], [0.2, 0, 0, 0], [0, 0.2, 0.3, 0], [0, 0.2, 0, 0.4]]
    np.testing.assert_allclose(layer(PAIRS, count_weights=weights).numpy(), expected, rtol=1e-6)
    traced = tf.function(lambda x, w: layer(x, count_weights=w))
    np.testing.assert_allclose(traced(np.array(PAIRS), weights).numpy(), expected, rtol=1e-6)
    watched = tf.constant(weights)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        total = tf.reduce_sum(layer(PAIRS, count_weights=watched) * tf.range(4.0))
    assert tape.gradient(total, watched).numpy().tolist() == PAIRS
    with pytest.raises(ArgumentError, match="count"):
        CategoryEncoding(4)(PAIRS, count_weights=weights)


def test_in_a_model_and_in_map() -> None:
    layer = CategoryEncoding(num_tokens=4, output_mode="count")
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layer])
    x = np.array(PAIRS, "int32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), layer(x).numpy())
    dataset = Dataset.from_tensor_slices(x).batch(3).map(layer)
    found = np.concatenate(list(dataset.as_numpy_iterator()))
    np.testing.assert_array_equal(found, layer(x).numpy())


# ---- Hashing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "x", "expected"),
    [  # as in Keras 3
        ({}, [["A"], ["B"], [""], ["D"], ["E"]], [[1], [0], [2], [1], [2]]),
        ({"mask_value": ""}, [["A"], ["B"], [""], ["D"], ["E"]], [[1], [1], [0], [2], [1]]),
        ({"salt": [133, 137]}, [["A"], ["B"], [""], ["D"], ["E"]], [[1], [2], [2], [0], [2]]),
        ({"salt": 133}, [["A"], ["B"], [""], ["D"], ["E"]], [[0], [0], [2], [1], [0]]),
        ({"num_bins": 5}, [1, -7, 1000000, 0], [4, 2, 3, 0]),
        ({"num_bins": 5, "mask_value": 0}, [1, -7, 1000000, 0], [2, 3, 1, 0]),
        ({"num_bins": 5}, [1.7, 2.0], [4, 4]),
        ({"num_bins": 1, "mask_value": "a"}, ["a", "b"], [0, 0]),
        ({"output_mode": "one_hot"}, [["A"], ["B"]], [[0, 1, 0], [1, 0, 0]]),
        ({"output_mode": "multi_hot"}, [["A", "B"], ["B", "C"]], [[1, 1, 0], [1, 1, 0]]),
        ({"output_mode": "count"}, [["A", "A"], ["B", "C"]], [[0, 2, 0], [1, 1, 0]]),
    ],
)
def test_hashing(settings: dict[str, Any], x: Any, expected: Any) -> None:
    layer = Hashing(**{"num_bins": 3, **settings})
    y = layer(x)
    assert y.numpy().tolist() == expected
    assert y.dtype == ("int64" if layer.output_mode == "int" else "float32")
    assert layer.compute_output_shape(np.shape(x)) == np.shape(expected)
    other = Hashing.from_config(layer.get_config())
    assert other.get_config() == layer.get_config()
    assert other(tf.constant(x)).numpy().tolist() == expected


def test_hashing_settings() -> None:
    assert Hashing(3, dtype="int32")(["A"]).dtype == "int32"
    for wrong in (
        {"num_bins": 0},
        {"num_bins": 3, "dtype": "float32"},
        {"num_bins": 3, "output_mode": "tf_idf"},
        {"num_bins": 3, "salt": [1, 2, 3]},
        {"num_bins": 3, "salt": -1},
        {"num_bins": 3, "sparse": True},
    ):
        with pytest.raises(ArgumentError):
            Hashing(**wrong)
    with pytest.raises(DTypeError):
        Hashing(3)(np.array([1j]))


def test_hashing_stays_on_the_host() -> None:
    layer = Hashing(3)
    with pytest.raises(TraceError, match=r"dataset\.map"):
        tf.function(lambda x: layer(x))(np.array([1, 2]))
    dataset = Dataset.from_tensor_slices(np.array(["A", "B", "E"])).map(layer)
    assert [int(e) for e in dataset] == [1, 0, 2]
