"""Mixed precision on the emulated GPU: the CPU's training, master weights and copies included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn import keras
from tests.cuda import stand_in

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 16)).astype("float32")
Y = (X[:, 0] * 2 > X[:, 1]).astype("int32")


def trained(device: str, policy: str, epochs: int = 3) -> tuple[Any, Any]:
    keras.utils.set_random_seed(3)
    with graphnn.device(device):
        layers = [keras.layers.Dense(24, "gelu", dtype=policy) for _ in range(2)]
        model = keras.Sequential([*layers, keras.layers.Dense(2, dtype="float32")])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss)
        # As Keras: under mixed_float16 `compile` looks at the model's own policy.
        if policy == "mixed_float16":
            inner = keras.optimizers.Adam(0.01)
            scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**10)
            model.compile(scaled, loss)
        history = model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"], model


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_training_is_that_of_the_cpu(policy: str) -> None:
    with stand_in.emulated():
        want, _ = trained("/CPU:0", policy)
        got, model = trained("/GPU:0", policy)
        weights = model.trainable_variables
        assert {w.dtype.name for w in weights} == {"float32"}
        assert {w.device for w in weights} == {"/device:GPU:0"}
    assert got[-1] < got[0]
    np.testing.assert_allclose(got, want, rtol=1e-2)


def test_two_runs_are_equal_bit_for_bit() -> None:
    with stand_in.emulated():
        (first, one), (second, two) = (trained("/GPU:0", "mixed_bfloat16", 2) for _ in range(2))
        assert first == second
        for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
