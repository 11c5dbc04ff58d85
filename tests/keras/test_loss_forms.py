"""Each loss against its formula in float64: values, reductions, weights, masks, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import losses as L
from graphnn.keras.masks import mask_of, set_mask
from graphnn.runtime.errors import ArgumentError

RNG = np.random.default_rng(3)
A = RNG.normal(size=(5, 4)) * 2
B = RNG.normal(size=(5, 4)) * 2
P = np.exp(A) / np.exp(A).sum(-1, keepdims=True)
Q = np.exp(B) / np.exp(B).sum(-1, keepdims=True)
BITS = (B > 0).astype("float64")
SIGNS = 2 * BITS - 1
LABELS = np.array([0, 3, 1, 2, 3])
HOT = np.eye(4)[LABELS]
SIG = 1 / (1 + np.exp(-A))
COUNTS = np.floor(np.abs(B))
WEIGHTS = np.array([1.0, 0.0, 2.0, 1.0, 0.5])


def binary(y: Any, p: Any) -> Any:
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def huber(e: Any, delta: float) -> Any:
    return np.where(np.abs(e) <= delta, e**2 / 2, delta * np.abs(e) - delta**2 / 2).mean(-1)


def cosine(a: Any, b: Any, axis: int = -1) -> Any:
    return -(a * b).sum(axis) / np.linalg.norm(a, axis=axis) / np.linalg.norm(b, axis=axis)


RIGHT = BITS * SIG + (1 - BITS) * (1 - SIG)
BALANCE = BITS * 0.25 + (1 - BITS) * 0.75
SMOOTH_BITS = BITS * 0.8 + 0.1
SMOOTH_HOT = HOT * 0.8 + 0.05

CASES: tuple[tuple[Any, Any, Any, Any], ...] = (
    (L.MeanSquaredError(), B, A, ((A - B) ** 2).mean(-1)),
    (L.MeanAbsoluteError(), B, A, np.abs(A - B).mean(-1)),
    (L.MeanAbsolutePercentageError(), B, A, 100 * np.abs((A - B) / B).mean(-1)),
    (L.MeanSquaredLogarithmicError(), Q, P, ((np.log1p(Q) - np.log1p(P)) ** 2).mean(-1)),
    (L.Huber(), B, A, huber(A - B, 1.0)),
    (L.Huber(delta=0.3), B, A, huber(A - B, 0.3)),
    (L.LogCosh(), B, A, np.log(np.cosh(A - B)).mean(-1)),
    (L.LogCosh(), B * 100, A, (np.logaddexp(A - B * 100, B * 100 - A) - np.log(2)).mean(-1)),
    (L.CosineSimilarity(), B, A, cosine(A, B)),
    (L.Hinge(), SIGNS, A, np.maximum(1 - SIGNS * A, 0).mean(-1)),
    (L.Hinge(), BITS, A, np.maximum(1 - SIGNS * A, 0).mean(-1)),
    (L.SquaredHinge(), SIGNS, A, (np.maximum(1 - SIGNS * A, 0) ** 2).mean(-1)),
    (
        L.CategoricalHinge(),
        HOT,
        A,
        np.maximum(((1 - HOT) * A).max(-1) - (HOT * A).sum(-1) + 1, 0),
    ),
    (L.KLDivergence(), Q, P, (Q * np.log(Q / P)).sum(-1)),
    (L.Poisson(), COUNTS, P * 3, (P * 3 - COUNTS * np.log(P * 3 + 1e-7)).mean(-1)),
    (L.CategoricalCrossentropy(), Q, P, -(Q * np.log(P)).sum(-1)),
    (L.CategoricalCrossentropy(from_logits=True), Q, A, -(Q * np.log(P)).sum(-1)),
    (L.CategoricalCrossentropy(label_smoothing=0.2), HOT, P * 7, -(SMOOTH_HOT * np.log(P)).sum(-1)),
    (L.SparseCategoricalCrossentropy(), LABELS, P * 7, -(HOT * np.log(P)).sum(-1)),
    (L.SparseCategoricalCrossentropy(from_logits=True), LABELS, A, -(HOT * np.log(P)).sum(-1)),
    (
        L.CategoricalFocalCrossentropy(alpha=0.5, gamma=3.0),
        HOT,
        P,
        -(0.5 * (1 - P) ** 3 * HOT * np.log(P)).sum(-1),
    ),
    (
        L.CategoricalFocalCrossentropy(from_logits=True, label_smoothing=0.2),
        HOT,
        A,
        -(0.25 * (1 - P) ** 2 * SMOOTH_HOT * np.log(P)).sum(-1),
    ),
    (L.BinaryCrossentropy(), BITS, SIG, binary(BITS, SIG).mean(-1)),
    (
        L.BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
        BITS,
        A,
        binary(SMOOTH_BITS, SIG).mean(-1),
    ),
    (L.BinaryFocalCrossentropy(), BITS, SIG, ((1 - RIGHT) ** 2 * binary(BITS, SIG)).mean(-1)),
    (
        L.BinaryFocalCrossentropy(apply_class_balancing=True, gamma=1.0, from_logits=True),
        BITS,
        A,
        (BALANCE * (1 - RIGHT) * binary(BITS, SIG)).mean(-1),
    ),
    (
        L.CategoricalGeneralizedCrossEntropy(q=0.3),
        LABELS,
        P,
        (1 - P[np.arange(5), LABELS] ** 0.3) / 0.3,
    ),
    (
        L.Dice(axis=-1),
        BITS,
        SIG,
        1 - 2 * (BITS * SIG).sum(-1) / (BITS.sum(-1) + SIG.sum(-1) + 1e-7),
    ),
    (
        L.Tversky(0.3, 0.7, axis=-1),
        BITS,
        SIG,
        1
        - (BITS * SIG).sum(-1)
        / (
            (BITS * SIG).sum(-1)
            + 0.3 * (BITS * (1 - SIG)).sum(-1)
            + 0.7 * ((1 - BITS) * SIG).sum(-1)
            + 1e-7
        ),
    ),
)


def name_of(case: Any) -> str:
    return f"{type(case[0]).__name__}-{next(i for i, c in enumerate(CASES) if c is case)}"


def single(array: Any) -> Any:
    return tf.constant(array if array.dtype.kind == "i" else array.astype("float32"))


@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_values(case: Any, compiled: bool) -> None:
    loss, y, p, each = case
    call = tf.function(lambda *a: loss(*a)) if compiled else loss
    plain = float(call(single(y), single(p)))
    np.testing.assert_allclose(plain, each.mean(), rtol=3e-5, atol=1e-6)
    weighted = float(call(single(y), single(p), single(WEIGHTS)))
    np.testing.assert_allclose(weighted, (each * WEIGHTS).mean(), rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_float64_reductions_and_configs(case: Any) -> None:
    loss, y, p, each = case
    config = L.serialize(loss)
    assert config["module"] == "keras.losses" and config["class_name"] == type(loss).__name__
    assert L.deserialize(config).get_config() == loss.get_config()
    for reduction, expected in (
        ("none", each),
        ("sum", each.sum()),
        ("mean_with_sample_weight", each.mean()),
    ):
        again = type(loss).from_config(loss.get_config() | {"reduction": reduction})
        found = again(tf.constant(y), tf.constant(p)).numpy()
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    again = type(loss).from_config(loss.get_config() | {"reduction": "mean_with_sample_weight"})
    found = again(tf.constant(y), tf.constant(p), tf.constant(WEIGHTS)).numpy()
    np.testing.assert_allclose(found, (each * WEIGHTS).sum() / WEIGHTS.sum(), rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_masks(case: Any) -> None:
    loss, y, p, each = case
    kept = np.array([True, False, True, True, False])
    p = single(p)
    set_mask(p, tf.constant(kept))
    np.testing.assert_allclose(float(loss(single(y), p)), each[kept].mean(), rtol=3e-5, atol=1e-6)
    summed = type(loss).from_config(loss.get_config() | {"reduction": "sum"})
    np.testing.assert_allclose(float(summed(single(y), p)), each[kept].sum(), rtol=3e-5, atol=1e-6)
    weighted = (each * WEIGHTS)[kept].sum() / 3
    np.testing.assert_allclose(float(loss(single(y), p, single(WEIGHTS))), weighted, rtol=3e-5)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_gradients_against_differences(case: Any) -> None:
    loss, y, p, _ = case
    w, y = tf.Variable(p, dtype="float64"), tf.constant(y)
    with tf.GradientTape() as tape:
        value = loss(y, w)
    gradient = tape.gradient(value, w).numpy()
    way = np.random.default_rng(0).normal(size=p.shape)
    h = 1e-6
    slope = (
        float(loss(y, tf.constant(p + h * way))) - float(loss(y, tf.constant(p - h * way)))
    ) / (2 * h)
    np.testing.assert_allclose((gradient * way).sum(), slope, rtol=1e-5, atol=1e-8)


def test_class_axis() -> None:
    a = RNG.normal(size=(2, 4, 3)).astype("float32")
    p = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    labels = RNG.integers(0, 4, size=(2, 3))
    hot = np.moveaxis(np.eye(4)[labels], -1, 1).astype("float32")
    expected = -(hot * np.log(p)).sum(1)
    close = np.testing.assert_allclose
    for logits, values in ((True, a), (False, p)):
        sparse = L.sparse_categorical_crossentropy(labels, values, logits, axis=1).numpy()
        close(sparse, expected, rtol=1e-5)
        with_axis = L.sparse_categorical_crossentropy(labels[:, None], values, logits, axis=1)
        close(with_axis.numpy(), expected, rtol=1e-5)
        close(L.categorical_crossentropy(hot, values, logits, axis=1), expected, rtol=1e-5)
    smooth = -((hot * 0.6 + 0.1) * np.log(p)).sum(1)
    found = L.categorical_crossentropy(hot, p, label_smoothing=0.4, axis=1)
    close(found.numpy(), smooth, rtol=1e-5)
    focal = -(0.25 * (1 - p) ** 2 * hot * np.log(p)).sum(1)
    close(L.categorical_focal_crossentropy(hot, p, axis=1).numpy(), focal, rtol=1e-5)
    close(L.cosine_similarity(hot, a, axis=1).numpy(), cosine(hot, a, 1), rtol=1e-5)


def test_a_mean_leaves_ignored_classes_out() -> None:
    labels = np.array([0, -1, 1, 2, -1])
    loss = L.SparseCategoricalCrossentropy(ignore_class=-1)
    kept = labels >= 0
    each = -np.log(P[np.arange(5), labels])
    np.testing.assert_allclose(float(loss(labels, P)), each[kept].mean(), rtol=1e-6)


def test_vectors_beside_columns() -> None:
    y, p = np.arange(4.0), np.arange(4.0)[:, None] + 1
    for a, b in ((y, p), (p, y)):
        assert L.mean_squared_error(a, b).shape == (4,)
        assert float(L.MeanSquaredError()(a, b)) == 1.0


def test_half_precision_is_summed_in_float32() -> None:
    p = tf.cast(tf.ones((4096, 1)), "float16")
    assert float(L.MeanSquaredError(reduction="sum")(tf.zeros((4096, 1)), p)) == 4096.0
    assert L.MeanSquaredError(dtype="float64")([[0.0]], [[1.0]]).dtype == "float64"


def test_zero_weights_and_zero_vectors() -> None:
    loss = L.MeanSquaredError(reduction="mean_with_sample_weight")
    assert float(loss(A, B, np.zeros(5))) == 0.0
    x = tf.Variable(np.zeros((1, 3), "float32"))
    with tf.GradientTape() as tape:
        value = L.CosineSimilarity()([[1.0, 0.0, 0.0]], x)
    assert np.isfinite(tape.gradient(value, x).numpy()).all() and float(value) == 0.0


def test_names() -> None:
    for name, function in (
        ("mse", L.mean_squared_error),
        ("MAPE", L.mean_absolute_percentage_error),
        ("msle", L.mean_squared_logarithmic_error),
        ("kld", L.kl_divergence),
        ("bce", L.binary_crossentropy),
        ("categorical_crossentropy", L.categorical_crossentropy),
        ("log_cosh", L.log_cosh),
        ("huber", L.huber),
    ):
        assert L.get(name) is function
        assert L.get(L.serialize(function)) is function
    assert isinstance(L.get("Huber"), L.Huber)
    written = {"module": "builtins", "class_name": "function", "config": "poisson"}
    assert L.deserialize(written) is L.poisson
    wrapped = L.LossFunctionWrapper(L.huber, delta=2.0)
    again = L.LossFunctionWrapper.from_config(wrapped.get_config())
    assert float(again(A, B)) == float(wrapped(A, B))
    with pytest.raises(ArgumentError, match="q=2"):
        L.CategoricalGeneralizedCrossEntropy(q=2)


def test_masks_go_with_their_tensors() -> None:
    x = tf.ones(3)
    set_mask(x, tf.constant([True, False, True]))
    assert mask_of(x) is not None and mask_of(tf.ones(3)) is None
    set_mask(x, None)
    assert mask_of(x) is None


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize(
    "loss", ["huber", "log_cosh", "hinge", "kl_divergence", "cosine_similarity", "poisson", "msle"]
)
def test_in_fit(loss: str, run_eagerly: bool) -> None:
    x = RNG.normal(size=(40, 3)).astype("float32")
    y = np.abs(x[:, :2])
    model = keras.Sequential([keras.layers.Dense(2, activation="softplus")])
    model.compile("adam", loss, run_eagerly=run_eagerly)
    history = model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    expected = float(np.mean(L.get(loss)(y, model(x)).numpy()))
    np.testing.assert_allclose(model.evaluate(x, y, batch_size=16, verbose=0), expected, rtol=1e-4)
