"""Losses and metrics against closed forms, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import losses, metrics
from graphnn.runtime.errors import ArgumentError, OutOfRangeError, ShapeError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype("float32")
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
LABELS = np.array([0, 1, 2, 3, 1, 0])
ONE_HOT = np.eye(4, dtype="float32")[LABELS]
BITS = (LOGITS > 0.2).astype("float32")
SIGMOID = 1 / (1 + np.exp(-LOGITS))
WEIGHTS = np.array([1.0, 0.0, 2.0, 1.0, 1.0, 3.0], "float32")

CROSS = -np.log(PROBS[np.arange(6), LABELS])
BINARY = -(BITS * np.log(SIGMOID) + (1 - BITS) * np.log(1 - SIGMOID)).mean(-1)
SMOOTH = ONE_HOT * 0.8 + 0.2 / 4

CASES = (
    (losses.MeanSquaredError(), BITS, LOGITS, ((BITS - LOGITS) ** 2).mean(-1)),
    (losses.MeanAbsoluteError(), BITS, LOGITS, np.abs(BITS - LOGITS).mean(-1)),
    (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS, LOGITS, CROSS),
    (losses.SparseCategoricalCrossentropy(), LABELS, PROBS, CROSS),
    (losses.SparseCategoricalCrossentropy(), LABELS[:, None].astype("uint8"), PROBS, CROSS),
    (losses.SparseCategoricalCrossentropy(), LABELS.astype("float32"), PROBS, CROSS),
    (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, LOGITS, CROSS),
    (losses.CategoricalCrossentropy(), ONE_HOT, PROBS * 3, CROSS),
    (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
        ONE_HOT,
        LOGITS,
        -(SMOOTH * np.log(PROBS)).sum(-1),
    ),
    (losses.BinaryCrossentropy(from_logits=True), BITS, LOGITS, BINARY),
    (losses.BinaryCrossentropy(), BITS, SIGMOID, BINARY),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{type(c[0]).__name__}-{c[1].shape}")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_loss(case: Any, compiled: bool) -> None:
    loss, y, p, each = case
    call = tf.function(lambda *a: loss(*a)) if compiled else loss
    y, p, w = tf.constant(y), tf.constant(p), tf.constant(WEIGHTS)
    np.testing.assert_allclose(float(call(y, p)), each.mean(), rtol=2e-5)
    np.testing.assert_allclose(float(call(y, p, w)), (each * WEIGHTS).mean(), rtol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{type(c[0]).__name__}-{c[1].shape}")
def test_reductions(case: Any) -> None:
    loss, y, p, each = case
    expected = {
        "sum": (each * WEIGHTS).sum(),
        "none": each * WEIGHTS,
        None: each * WEIGHTS,
        "mean_with_sample_weight": (each * WEIGHTS).sum() / WEIGHTS.sum(),
        "auto": (each * WEIGHTS).mean(),
    }
    for reduction, value in expected.items():
        again = type(loss)(**(loss.get_config() | {"reduction": reduction}))
        np.testing.assert_allclose(again(y, p, WEIGHTS).numpy(), value, rtol=2e-5)
        np.testing.assert_allclose(again(y, p, WEIGHTS[:, None]).numpy(), value, rtol=2e-5)


def test_loss_gradient_is_softmax_minus_one_hot() -> None:
    x = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, x)
    np.testing.assert_allclose(
        tape.gradient(loss, x).numpy(), (PROBS - ONE_HOT) / 6, rtol=1e-4, atol=1e-7
    )


def test_ignored_class() -> None:
    y = np.array([0, -1, 2, 3, -1, 0])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction="none")
    np.testing.assert_allclose(loss(y, LOGITS).numpy(), np.where(y < 0, 0, _cross(y)), rtol=2e-5)


def _cross(y: Any) -> Any:
    return -np.log(PROBS[np.arange(6), y])


def test_losses_by_name() -> None:
    assert losses.get("mse") is losses.mean_squared_error
    assert losses.get("binary_crossentropy") is losses.binary_crossentropy
    assert isinstance(losses.get("BinaryCrossentropy"), losses.BinaryCrossentropy)
    loss = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    again = losses.deserialize(losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    with pytest.raises(ArgumentError, match="did you mean 'mean_squared_error'"):
        losses.get("mean_squared_eror")
    with pytest.raises(ArgumentError, match="reduction='all'"):
        losses.MeanSquaredError(reduction="all")


def test_loss_errors() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        losses.mean_squared_error(np.zeros((2, 3, 4)), np.zeros(3))
    with pytest.raises(OutOfRangeError):
        losses.SparseCategoricalCrossentropy(from_logits=True)([4], LOGITS[:1])


METRICS = (
    (metrics.Mean(), (np.array([1.0, 2.0, 6.0]),), 3.0),
    (metrics.Sum(), (np.array([1.0, 2.0, 6.0]),), 9.0),
    (metrics.SparseCategoricalAccuracy(), (LABELS, LOGITS), (LOGITS.argmax(-1) == LABELS).mean()),
    (metrics.CategoricalAccuracy(), (ONE_HOT, LOGITS), (LOGITS.argmax(-1) == LABELS).mean()),
    (metrics.BinaryAccuracy(), (BITS, SIGMOID), (BITS == (SIGMOID > 0.5)).mean()),
    (metrics.Accuracy(), (LABELS, np.array([0, 1, 0, 0, 1, 0])), 4 / 6),
    (metrics.MeanSquaredError(), (BITS, LOGITS), ((BITS - LOGITS) ** 2).mean()),
)


@pytest.mark.parametrize("case", METRICS, ids=lambda c: c[0].name)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_metric(case: Any, compiled: bool) -> None:
    metric, inputs, expected = case
    metric.reset_states()
    assert float(metric.result()) == 0.0
    tensors = [tf.constant(a) for a in inputs]
    update = tf.function(lambda *a: metric.update_state(*a)) if compiled else metric.update_state
    first, second = ([t[rows] for t in tensors] for rows in (slice(0, 2), slice(2, None)))
    update(*first)
    update(*second)
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)
    assert "%.3f" % metric.result() == f"{expected:.3f}"  # noqa: UP031
    metric.reset_state()
    assert float(metric.result()) == 0.0
    assert float(metric(*second)) == float(metric.result())


def test_weighted_mean() -> None:
    metric = metrics.Mean(name="m")
    metric.update_state([1.0, 2.0], sample_weight=[3.0, 1.0])
    metric.update_state([[4.0, 6.0]], sample_weight=[2.0])
    # Each example counts as the mean of its values.
    np.testing.assert_allclose(float(metric.result()), (3 + 2 + 10) / 6, rtol=1e-6)
    metric.update_state(1.0, sample_weight=0.0)
    assert metric.result().dtype == "float32"


def test_weighted_accuracy() -> None:
    metric = metrics.SparseCategoricalAccuracy()
    metric.update_state(LABELS, LOGITS, sample_weight=WEIGHTS)
    hits = LOGITS.argmax(-1) == LABELS
    np.testing.assert_allclose(
        float(metric.result()), (hits * WEIGHTS).sum() / WEIGHTS.sum(), rtol=1e-6
    )


def test_own_metric() -> None:
    class Largest(metrics.Metric):
        def __init__(self, name: str = "largest") -> None:
            super().__init__(name=name)
            self.best = self.add_weight(name="best", initializer="zeros")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.best.assign(tf.maximum(self.best, tf.reduce_max(y_pred)))

        def result(self) -> Any:
            return self.best

    metric = Largest()
    metric.update_state([0.0], [3.0])
    metric.update_state([0.0], [2.0])
    assert float(metric.result()) == 3.0
    metric.reset_state()
    assert float(metric.result()) == 0.0 and len(metric.variables) == 1


def test_metrics_by_name() -> None:
    assert isinstance(metrics.get("mse"), metrics.MeanSquaredError)
    assert isinstance(metrics.get("SparseCategoricalAccuracy"), metrics.SparseCategoricalAccuracy)
    metric = metrics.BinaryAccuracy(threshold=0.3)
    again = metrics.deserialize(metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert isinstance(keras.metrics.Mean(), metrics.Metric)
