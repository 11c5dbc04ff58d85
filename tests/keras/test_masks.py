"""Masks: made by layers, carried to losses and metrics, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers
from graphnn.keras.masks import mask_of

IDS = np.array([[3, 1, 0], [2, 0, 0]])
KEPT = IDS != 0


def embed() -> Any:
    return layers.Embedding(5, 4, mask_zero=True)


def test_embedding_and_masking_make_masks() -> None:
    np.testing.assert_array_equal(mask_of(embed()(IDS)).numpy(), KEPT)
    assert mask_of(layers.Embedding(5, 4)(IDS)) is None
    x = np.array([[[1.0, 2.0], [9.0, 9.0]], [[9.0, 1.0], [9.0, 9.0]]], "float32")
    y = layers.Masking(9.0)(x)
    np.testing.assert_array_equal(mask_of(y).numpy(), [[True, False], [True, False]])
    np.testing.assert_array_equal(y.numpy()[:, 1], np.zeros((2, 2)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dense(3),
        lambda: layers.Activation("tanh"),
        lambda: layers.Dropout(0.5),
        lambda: layers.LayerNormalization(),
        lambda: layers.BatchNormalization(),
        lambda: layers.Lambda(lambda x: x * 2.0, mask=lambda x, mask: mask),
        lambda: keras.Sequential([layers.Dense(3), layers.Dense(2)]),
        lambda: layers.Dense(3, dtype="mixed_bfloat16"),
    ],
)
def test_layers_pass_masks_on(layer: Any) -> None:
    made = layer()
    for training in (False, True):
        np.testing.assert_array_equal(mask_of(made(embed()(IDS), training=training)).numpy(), KEPT)


def test_a_layer_that_does_not_warns() -> None:
    with pytest.warns(UserWarning, match="Flatten 'flat' got inputs with a mask"):
        assert mask_of(layers.Flatten(name="flat")(embed()(IDS))) is None


def test_merges_of_masks() -> None:
    one, two = embed()(np.array([[1, 0, 0]])), embed()(np.array([[0, 0, 2]]))
    plain = tf.ones((1, 3, 4))
    assert mask_of(layers.Add()([one, two])).numpy().tolist() == [[True, False, True]]
    assert mask_of(layers.Add()([one, plain])) is None
    joined = layers.Concatenate(axis=1)([one, plain])
    assert mask_of(joined).numpy().tolist() == [[True, False, False, True, True, True]]
    beside = layers.Concatenate()([one, two])
    assert mask_of(beside).numpy().tolist() == [[True, False, True]]


class MeanOfSteps(layers.Layer):
    """Takes the mask that its inputs have."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        kept = tf.cast(mask, inputs.dtype)[..., None]
        return tf.reduce_sum(inputs * kept, axis=1) / tf.reduce_sum(kept, axis=1)


def test_call_gets_the_mask() -> None:
    layer = embed()
    x = keras.Input((None,), dtype="int64")
    rows = layer(IDS).numpy()
    want = [rows[0, :2].mean(0), rows[1, :1].mean(0)]
    for model in (
        keras.Sequential([layer, MeanOfSteps()]),
        keras.Model(x, MeanOfSteps()(layer(x))),
    ):
        np.testing.assert_allclose(model(IDS).numpy(), want, rtol=1e-6)
        np.testing.assert_allclose(model.predict(IDS, verbose=0), want, rtol=1e-6)
    explicit = MeanOfSteps()(tf.constant(rows), mask=tf.constant(KEPT))
    np.testing.assert_allclose(explicit.numpy(), want, rtol=1e-6)
    given = keras.Input((3, 4))
    mask = keras.Input((3,), dtype="bool")
    by_hand = keras.Model([given, mask], MeanOfSteps()(given, mask=mask))
    np.testing.assert_allclose(by_hand([rows, KEPT]).numpy(), want, rtol=1e-6)


def test_batch_normalization_leaves_padding_out() -> None:
    layer = layers.BatchNormalization(momentum=0.0)
    x = embed()(IDS)
    y = layer(x, training=True).numpy()[KEPT]
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean.numpy(), x.numpy()[KEPT].mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), x.numpy()[KEPT].var(0), rtol=1e-5)


@pytest.mark.parametrize("eager", [False, True])
def test_losses_and_metrics_leave_padding_out(eager: bool) -> None:
    x = keras.Input((None,), dtype="int64")
    model = keras.Model(x, layers.Dense(1)(layers.LayerNormalization()(embed()(x))))
    model.compile(keras.optimizers.SGD(1e-3), "mse", metrics=["mae"], run_eagerly=eager)
    y = np.where(KEPT, 1.0, 1e6)[..., None].astype("float32")
    error = model.predict(IDS, verbose=0)[..., 0][KEPT] - 1
    loss, mae = model.evaluate(IDS, y, verbose=0)
    np.testing.assert_allclose(loss, (error**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(mae, abs(error).mean(), rtol=1e-5)
    model.fit(IDS, y, verbose=0, epochs=2)
    assert model.evaluate(IDS, y, verbose=0)[0] < loss


def test_a_lost_mask_is_warned_of_at_the_users_line() -> None:
    model = keras.Sequential([embed(), layers.Flatten(), layers.Dense(1)])
    with pytest.warns(UserWarning, match="mask") as found:
        model(IDS)
    assert [w.filename for w in found] == [__file__]
    with pytest.warns(UserWarning, match="mask") as found:
        layers.Flatten()(embed()(IDS))
    assert [w.filename for w in found] == [__file__]
