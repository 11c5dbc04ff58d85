"""Copies of Variables in 16 bits, which compiled steps keep from call to call, are never stale."""

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.runtime import devices


def narrow_product(dtype: str = "bfloat16") -> tuple[Any, Any]:
    v = tf.Variable([1.0, 2.0, 3.0])

    @tf.function
    def step(x: Any, rate: Any) -> Any:
        out = tf.reduce_sum(tf.cast(v, dtype) * tf.cast(x, dtype))
        v.assign_sub(rate * x)
        return out

    return v, step


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_sees_its_own_updates(dtype: str) -> None:
    v, step = narrow_product(dtype)
    x, rate = tf.constant([1.0, 1.0, 1.0]), tf.constant(1.0)
    assert [float(step(x, rate)) for _ in range(3)] == [6.0, 3.0, 0.0]
    np.testing.assert_array_equal(v.numpy(), [-2.0, -1.0, 0.0])
    assert step.get_concrete_function(x, rate).compiled.narrow is not None


def test_a_step_sees_what_others_assign() -> None:
    v, step = narrow_product()
    x, zero = tf.ones(3), tf.constant(0.0)
    assert float(step(x, zero)) == 6.0
    v.assign([10.0, 0.0, 0.0])  # eagerly
    assert float(step(x, zero)) == 10.0
    held = v.value()  # a tensor that shares the buffer, and gets a copy before the next update
    assert float(step(x, tf.constant(1.0))) == 10.0
    assert float(step(x, zero)) == 7.0
    np.testing.assert_array_equal(held, [10.0, 0.0, 0.0])

    @tf.function
    def other() -> None:
        v.assign(v * 2.0)

    other()
    assert float(step(x, zero)) == 14.0
    v._rebind(np.empty(3, np.float32))  # the buffer moves, as when an optimizer collects them
    assert float(step(x, zero)) == 14.0


def test_a_step_that_failed_leaves_no_stale_copy() -> None:
    v = tf.Variable([1.0, 2.0])

    @tf.function
    def step(i: Any) -> Any:
        out = tf.reduce_sum(tf.cast(v, "bfloat16"))
        v.assign(v + 1.0)
        return out + tf.cast(tf.gather(v, i), "bfloat16")

    assert float(step(tf.constant(0))) == 5.0
    with pytest.raises(tf.errors.OutOfRangeError):
        float(step(tf.constant(5)))  # where checks are raised late, reading raises them
    before = v.numpy()
    assert float(step(tf.constant(0))) == before.sum() + before[0] + 1.0


def test_the_update_kernel_writes_the_copy() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(8, activation="relu", dtype="mixed_bfloat16")])
    model.build((None, 4))
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.cast(model(x, training=True), "float32") ** 2)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    x = tf.constant(np.random.default_rng(0).normal(size=(16, 4)).astype("float32"))
    losses = [float(step(x)) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    narrow = step.get_concrete_function(x).compiled.narrow
    assert narrow is not None and len(narrow.sources) == 2
    for copy in narrow._copies:
        kept = devices.on_host(narrow._own[copy.position])
        want = devices.on_host(narrow._bound[copy.source]).astype(copy.dtype)
        np.testing.assert_array_equal(kept.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fit_is_the_same_with_copies_and_eagerly(policy: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 6)).astype("float32")
    y = rng.integers(0, 3, 64)

    def trained(eagerly: bool) -> Any:
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Dense(16, activation="tanh", dtype=policy)]
        layers.append(keras.layers.Dense(3, dtype="float32"))
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=eagerly)
        history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        return history.history["loss"]

    np.testing.assert_allclose(trained(False), trained(True), rtol=5e-3)
