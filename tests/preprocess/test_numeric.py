"""Normalization and Discretization against closed forms and the numbers of Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.data import Dataset
from graphnn.keras.layers import Discretization, Normalization
from graphnn.keras.layers.preprocess_numeric import Moments
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError, StateError
from tests.preprocess.conftest import compiled, sources

RNG = np.random.default_rng(0)
TABLE = RNG.normal(5.0, 3.0, (50, 4)).astype("float32")
NORMAL = np.random.default_rng(0).normal(size=(1050, 3)).astype("float32")


# ---- Normalization --------------------------------------------------------------------------


@pytest.mark.parametrize("source", sources(TABLE))
def test_adapt_takes_all_kinds_of_data(source: str) -> None:
    layer = Normalization()
    layer.adapt(sources(TABLE)[source]())
    mean, variance, count = layer.get_weights()
    np.testing.assert_allclose(mean, TABLE.mean(0, dtype="float64"), rtol=1e-6)
    np.testing.assert_allclose(variance, TABLE.var(0, dtype="float64"), rtol=1e-6)
    assert count == 50 and count.dtype == "int64"
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 3
    y = layer(TABLE).numpy()
    assert y.dtype == "float32"
    np.testing.assert_allclose(y.mean(0), np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(y.std(0), np.ones(4), rtol=1e-5)


@pytest.mark.parametrize(
    ("axis", "shape"),
    [(None, ()), (-1, (4,)), ((1, 2), (3, 4)), (1, (3,)), ((-1, 1), (3, 4)), (0, (5,))],
)
def test_axes(axis: Any, shape: tuple[int, ...]) -> None:
    x = RNG.normal(2.0, 3.0, (5, 3, 4)).astype("float32")
    layer = Normalization(axis=axis)
    layer.adapt(x)
    given = () if axis is None else (axis,) if isinstance(axis, int) else axis
    reduced = tuple(a for a in range(3) if a not in {g % 3 for g in given})
    mean, std = x.mean(reduced, keepdims=True), x.std(reduced, keepdims=True)
    assert layer.adapt_mean.shape == shape
    np.testing.assert_allclose(layer(x).numpy(), (x - mean) / std, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(compiled(layer, x).numpy(), layer(x).numpy())
    np.testing.assert_allclose(layer.mean.numpy(), mean, rtol=1e-5)


def test_examples_of_keras() -> None:
    layer = Normalization(axis=None)
    layer.adapt(np.array([1, 2, 3, 4, 5], "float32"))
    np.testing.assert_allclose(
        layer(np.array([1, 2, 3], "float32")).numpy(), [-np.sqrt(2), -np.sqrt(0.5), 0], rtol=1e-6
    )
    data = np.array([[0, 7, 4], [2, 9, 6], [0, 7, 4], [2, 9, 6]], "float32")
    layer = Normalization(axis=-1)
    layer.adapt(data)
    assert layer(data[:1]).numpy().tolist() == [[-1, -1, -1]]
    back = Normalization(axis=-1, invert=True)
    back.adapt(data)
    assert back(np.array([[1, 2, 3]], "float32")).numpy().tolist() == [[2, 10, 8]]
    given = Normalization(mean=3.0, variance=2.0)
    np.testing.assert_allclose(
        given(np.array([[1], [2], [3]])).numpy().ravel(), [-np.sqrt(2), -np.sqrt(0.5), 0], rtol=1e-6
    )
    assert given.weights == []


def test_given_statistics_broadcast_to_the_kept_axes() -> None:
    x = RNG.normal(size=(2, 3, 4)).astype("float32")
    mean, variance = np.arange(4.0), np.full(4, 4.0)
    layer = Normalization(axis=(1, 2), mean=mean, variance=variance)
    np.testing.assert_allclose(layer(x).numpy(), (x - np.arange(4)) / 2, rtol=1e-6)
    assert layer.get_config()["mean"] == mean.tolist()
    np.testing.assert_array_equal(compiled(layer, x).numpy(), layer(x).numpy())


def test_integers_lists_and_single_examples() -> None:
    layer = Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])
    assert layer(np.array([[1, 2], [3, 5]])).numpy().tolist() == [[0, 0], [1, 1]]
    assert layer([[3.0, 5.0]]).numpy().tolist() == [[1, 1]]
    one = layer(np.array([3, 5], "float32"))
    assert one.shape == (2,) and one.numpy().tolist() == [1, 1]
    constant = Normalization()
    constant.adapt(np.ones((3, 1)))
    assert constant(np.array([[1.0]])).numpy().tolist() == [[0]]  # no division by a variance of 0


def test_half_precision_keeps_the_difference_of_large_numbers() -> None:
    x = np.array([[1000.0], [1001.0], [1002.0], [1003.0]], "float32")
    layer = Normalization(dtype="mixed_bfloat16")
    layer.adapt(x)
    y = layer(x.astype("int32"))
    assert y.dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(y).astype("float32"), (x - x.mean()) / x.std(), rtol=1e-2)


def test_moments_of_a_long_stream_are_exact() -> None:
    moments = Moments((0,), ())
    rng = np.random.default_rng(1)
    data = 1e4 + rng.normal(size=3_000_000).astype("float32")
    for start in range(0, len(data), 999):
        moments.add(data[start : start + 999])
    assert moments.count == len(data)
    np.testing.assert_allclose(moments.mean, data.mean(dtype="float64"), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, data.astype("float64").var(), rtol=1e-9)


def test_large_arrays_are_read_in_parts(tmp_path: Any) -> None:
    path = tmp_path / "large.dat"
    large = np.memmap(path, "float32", "w+", shape=(300_000, 8))
    large[:] = np.arange(8, dtype="float32")
    large[::2] += 2.0
    layer = Normalization()
    layer.adapt(np.memmap(path, "float32", "r", shape=(300_000, 8)))
    np.testing.assert_allclose(layer.adapt_mean.numpy(), np.arange(8) + 1.0)
    np.testing.assert_allclose(layer.adapt_variance.numpy(), np.ones(8))


def test_datasets_of_single_examples_are_batched() -> None:
    layer = Normalization()
    layer.adapt(Dataset.from_tensor_slices(TABLE))
    np.testing.assert_allclose(layer.adapt_mean.numpy(), TABLE.mean(0), rtol=1e-5)
    assert layer.count.numpy() == 50


def test_batches_of_numbers_are_batches_already() -> None:
    x = np.arange(10, dtype="float32")
    layer = Normalization(axis=None)
    layer.adapt(Dataset.from_tensor_slices(x).batch(4))  # the last one is smaller
    assert int(layer.count) == 10
    assert float(layer.adapt_variance) == pytest.approx(x.var())


def test_adapt_again_forgets() -> None:
    layer = Normalization()
    layer.adapt(TABLE)
    traced = tf.function(lambda x: layer(x))
    traced(TABLE)
    layer.adapt(TABLE * 2.0)
    np.testing.assert_allclose(layer.adapt_mean.numpy(), 2 * TABLE.mean(0), rtol=1e-5)
    # The statistics are Variables: programs that were compiled before see the new ones.
    np.testing.assert_array_equal(traced(TABLE).numpy(), layer(TABLE).numpy())
    assert traced.trace_count == 1


def test_guide_snippet() -> None:
    training_data = np.random.randint(0, 256, size=(64, 20, 20, 3)).astype("float32")
    normalizer = Normalization(axis=-1)
    normalizer.adapt(training_data)
    normalized_data = normalizer(training_data)
    values = normalized_data.numpy().astype("float64")
    np.testing.assert_allclose(values.mean((0, 1, 2)), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(values.var((0, 1, 2)), np.ones(3), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Normalization(mean=1.0), ArgumentError),
        (lambda: Normalization(mean=[1.0], variance=[1.0, 2.0]), ArgumentError),
        (lambda: Normalization(axis=None, mean=[1.0], variance=[1.0]), ArgumentError),
        (lambda: Normalization(axis=3)(TABLE), ArgumentError),
        (lambda: Normalization().build((None, None)), ShapeError),
        (lambda: Normalization(mean=1.0, variance=1.0).adapt(TABLE), ArgumentError),
        (lambda: Normalization().adapt(iter([])), ArgumentError),
        (lambda: Normalization().adapt(5), ArgumentError),
        (lambda: Normalization().adapt(["a"]), DTypeError),
        (lambda: Normalization().adapt(iter([{"a": TABLE}])), ArgumentError),
        (lambda: Normalization().adapt([TABLE, TABLE[:, :2]]), ShapeError),
    ],
)
def test_errors_of_normalization(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        make()
    assert "fix:" in str(caught.value)


def test_config_and_weights() -> None:
    layer = Normalization(axis=(1,), name="n")
    layer.adapt(TABLE)
    config = layer.get_config()
    assert config["axis"] == (1,) and config["mean"] is None
    other = Normalization.from_config({**config, "axis": [1]})  # as JSON gives it
    other.build(TABLE.shape)
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(other(TABLE).numpy(), layer(TABLE).numpy())


def test_gradient_flows_through() -> None:
    layer = Normalization(mean=1.0, variance=4.0)
    x = tf.constant([[3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert tape.gradient(y, x).numpy().tolist() == [[0.5]]


def test_inside_a_model() -> None:
    layer = Normalization()
    layer.adapt(TABLE)
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    before = layer.get_weights()
    model.fit(TABLE, np.ones((50, 1)), verbose=0)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(
        model.predict(TABLE, verbose=0), model(TABLE).numpy(), rtol=1e-5, atol=1e-6
    )


# ---- Discretization -------------------------------------------------------------------------

VALUES = np.array([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, np.nan]], "float32")


def test_boundaries() -> None:
    layer = Discretization(bin_boundaries=[0.0, 1.0, 2.0])
    y = layer(VALUES)
    assert y.dtype == "int32"
    assert y.numpy().tolist() == [[0, 2, 3, 1], [1, 3, 2, 3]]
    np.testing.assert_array_equal(compiled(layer, VALUES).numpy(), y.numpy())
    assert layer([[-1, 0], [2, 3]]).numpy().tolist() == [[0, 1], [3, 3]]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 200])
def test_compiled_search_is_numpys(count: int) -> None:
    rng = np.random.default_rng(count)
    table = np.sort(rng.normal(size=count)).astype("float32")
    special = [np.inf, -np.inf, np.nan, 0.0, -0.0]
    x = np.concatenate([rng.normal(size=40), table, special]).astype("float32")
    layer = Discretization(bin_boundaries=table)
    expected = np.digitize(x, table)
    np.testing.assert_array_equal(layer(x).numpy(), expected)
    np.testing.assert_array_equal(compiled(layer, x, any_size=True).numpy(), expected)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("one_hot", [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]]),
        ("multi_hot", [[1, 1, 0], [0, 0, 1]]),
        ("count", [[1, 1, 0], [0, 0, 2]]),
    ],
)
def test_vectors(mode: str, expected: Any) -> None:
    x = np.array([[-1.0, 0.5], [2, 3]], "float32")
    layer = Discretization([0.0, 1.0], output_mode=mode)
    assert layer(x).numpy().tolist() == expected and layer(x).dtype == "float32"
    assert compiled(layer, x).numpy().tolist() == expected
    assert layer.compute_output_shape((None, 2)) == (None, *np.shape(expected)[1:])


@pytest.mark.parametrize(
    ("bins", "epsilon", "size", "expected"),
    [  # found by Keras 3 on the same data
        (10, 0.01, None, [-1.28479362, -0.88242978, -0.56949818, -0.31016746, -0.053914, 0.21778694,
                          0.48939526, 0.79938143, 1.26144326]),
        (7, 0.05, 100, [-1.03115404, -0.45798194, -0.08652504, 0.27919099, 0.66875041, 1.1855514]),
    ],
)  # fmt: skip
def test_adapt_finds_quantiles(bins: int, epsilon: float, size: Any, expected: Any) -> None:
    layer = Discretization(num_bins=bins, epsilon=epsilon)
    data = NORMAL if size is None else Dataset.from_tensor_slices(NORMAL).batch(size)
    layer.adapt(data)
    np.testing.assert_allclose(layer.bin_boundaries, expected, rtol=1e-6)
    shares = np.bincount(layer(NORMAL).numpy().ravel(), minlength=bins) / NORMAL.size
    np.testing.assert_allclose(shares, np.full(bins, 1 / bins), atol=max(2 * epsilon, 0.02))


def test_small_data_and_steps() -> None:
    layer = Discretization(num_bins=4)
    layer.adapt(np.array([[-1.5, 1, 3.4, 0.5], [0, 3, 1.3, 0]]))
    np.testing.assert_allclose(layer.bin_boundaries, [0.0, 0.5, 1.3], rtol=1e-6)
    layer.adapt([-1.0, 0.0, 1.0, 2.0])
    assert layer.bin_boundaries == [-1.0, 0.0, 1.0]
    endless = (np.arange(8.0) for _ in iter(int, 1))
    layer.adapt(endless, steps=3)
    np.testing.assert_allclose(layer.bin_boundaries, [1, 3, 5], atol=1.0)


def test_discretization_config() -> None:
    layer = Discretization(num_bins=3, name="bins")
    with pytest.raises(StateError, match="adapt"):
        layer(VALUES)
    layer.adapt(NORMAL)
    other = Discretization.from_config(layer.get_config())
    assert other.get_config() == layer.get_config()
    assert other.num_bins == 3 and other.bin_boundaries == layer.bin_boundaries
    other.adapt(NORMAL * 2.0)
    np.testing.assert_allclose(other.bin_boundaries, 2 * np.array(layer.bin_boundaries), rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Discretization(),
        lambda: Discretization([1.0], num_bins=3),
        lambda: Discretization([2.0, 1.0]),
        lambda: Discretization([1.0], output_mode="words"),
        lambda: Discretization([1.0], sparse=True),
        lambda: Discretization(num_bins=0),
        lambda: Discretization(num_bins=2, epsilon=0),
        lambda: Discretization([1.0]).adapt(NORMAL),
    ],
)
def test_errors_of_discretization(make: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert "fix:" in str(caught.value)
