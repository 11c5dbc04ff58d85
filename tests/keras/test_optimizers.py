"""Optimizers: trajectories against float64 references written out here, and their machinery."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import optimizers
from graphnn.runtime.errors import ArgumentError, GradientError, StateError

Reference = Callable[[Any, Any, int, dict[str, Any]], Any]


def sgd(rate: float, momentum: float = 0.0, nesterov: bool = False) -> Reference:
    def update(w: Any, g: Any, t: int, s: dict[str, Any]) -> Any:
        s["v"] = momentum * s.get("v", 0.0) - rate * g
        return w + (momentum * s["v"] - rate * g if nesterov else s["v"])

    return update


def rmsprop(rate: float, rho: float, momentum: float = 0.0, centered: bool = False) -> Reference:
    def update(w: Any, g: Any, t: int, s: dict[str, Any]) -> Any:
        s["v"] = rho * s.get("v", 0.0) + (1 - rho) * g * g
        s["a"] = rho * s.get("a", 0.0) + (1 - rho) * g
        below = s["v"] - s["a"] ** 2 if centered else s["v"]
        s["m"] = momentum * s.get("m", 0.0) + rate * g / np.sqrt(below + 1e-7)
        return w - s["m"]

    return update


def adam(
    rate: float, b1: float = 0.9, b2: float = 0.999, amsgrad: bool = False, decay: float = 0.0
) -> Reference:
    def update(w: Any, g: Any, t: int, s: dict[str, Any]) -> Any:
        w = w - decay * rate * w
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
        s["h"] = np.maximum(s.get("h", 0.0), s["v"])
        below = s["h"] if amsgrad else s["v"]
        size = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        return w - size * s["m"] / (np.sqrt(below) + 1e-7)

    return update


CASES: dict[str, tuple[Callable[[], Any], Reference]] = {
    "sgd": (lambda: optimizers.SGD(0.1), sgd(0.1)),
    "momentum": (lambda: optimizers.SGD(0.1, momentum=0.9), sgd(0.1, 0.9)),
    "nesterov": (lambda: optimizers.SGD(0.1, 0.9, nesterov=True), sgd(0.1, 0.9, True)),
    "rmsprop": (lambda: optimizers.RMSprop(0.01), rmsprop(0.01, 0.9)),
    "rmsprop centered": (
        lambda: optimizers.RMSprop(0.01, 0.8, momentum=0.5, centered=True),
        rmsprop(0.01, 0.8, 0.5, True),
    ),
    "adam": (lambda: optimizers.Adam(0.05), adam(0.05)),
    "adam betas": (lambda: optimizers.Adam(0.05, 0.8, 0.95), adam(0.05, 0.8, 0.95)),
    "amsgrad": (lambda: optimizers.Adam(0.05, amsgrad=True), adam(0.05, amsgrad=True)),
    "adamw": (lambda: optimizers.AdamW(0.05, weight_decay=0.1), adam(0.05, decay=0.1)),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_trajectory(name: str, compiled: bool) -> None:
    make, reference = CASES[name]
    rng = np.random.default_rng(1)
    starts = [rng.normal(size=s) for s in ((3, 2), (4,), ())]
    weights = [tf.Variable(w.astype("float32")) for w in starts]
    optimizer = make()

    def step(*gradients: Any) -> None:
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    run = tf.function(step) if compiled else step
    states: list[dict[str, Any]] = [{} for _ in starts]
    for t in range(1, 21):
        gradients = [rng.normal(size=w.shape).astype("float32") for w in starts]
        run(*map(tf.constant, gradients))
        starts = [
            reference(w, g.astype("float64"), t, s)
            for w, g, s in zip(starts, gradients, states, strict=True)
        ]
        for found, expected in zip(weights, starts, strict=True):
            np.testing.assert_allclose(found.numpy(), expected, rtol=2e-4, atol=3e-6)
    assert int(optimizer.iterations) == 20
    if compiled:
        assert run.trace_count == 1


def test_weights_and_slots_lie_back_to_back() -> None:
    weights = [tf.Variable(np.full(s, k, "float32")) for k, s in enumerate([(3, 2), (5,), (2, 2)])]
    other = tf.Variable(np.ones(3, "float64"))
    optimizer = optimizers.Adam()
    optimizer.build([*weights, other])
    for group in (weights, optimizer._slots["momentum"][:3], optimizer._slots["velocity"][:3]):
        address = group[0]._buffer.ctypes.data
        for variable in group:
            assert variable._buffer.ctypes.data == address
            address += variable._buffer.nbytes
    for k, w in enumerate(weights):
        assert (w.numpy() == k).all()
    assert len(optimizer.variables) == 2 + 2 * 4
    assert optimizer._slots["momentum"][3].dtype == "float64"


def test_buffers_stay_where_they_are() -> None:
    w = tf.Variable([1.0, 2.0])
    optimizer = optimizers.SGD(0.5)
    optimizer.build([w])
    place = w._buffer.ctypes.data
    optimizer.apply([tf.constant([1.0, 1.0])])
    optimizer.build([w])
    assert w._buffer.ctypes.data == place
    assert w.numpy().tolist() == [0.5, 1.5]


def test_a_read_value_survives_the_update() -> None:
    w = tf.Variable([1.0])
    before = w.value()
    optimizers.SGD(0.5).apply_gradients([(tf.constant([1.0]), w)])
    assert before.numpy().tolist() == [1.0]
    assert w.numpy().tolist() == [0.5]


def _applied(optimizer: Any, *gradients: Any) -> list[Any]:
    weights = [tf.Variable(np.zeros_like(g)) for g in gradients]
    optimizer.apply_gradients(list(zip(map(tf.constant, gradients), weights, strict=True)))
    return [-w.numpy() for w in weights]


def test_clipping() -> None:
    a, b = np.array([3.0, 4.0], "float32"), np.array([0.6, 0.8], "float32")
    close = np.testing.assert_allclose
    one, two = _applied(optimizers.SGD(1.0, clipnorm=2.0), a, b)
    close(one, [1.2, 1.6], rtol=1e-6)
    close(two, b, rtol=1e-6)
    one, two = _applied(optimizers.SGD(1.0, global_clipnorm=1.0), a, b)
    norm = np.sqrt(26.0)
    close(one, a / norm, rtol=1e-6)
    close(two, b / norm, rtol=1e-6)
    one, two = _applied(optimizers.SGD(1.0, clipvalue=0.7), a, b)
    close(one, [0.7, 0.7], rtol=1e-6)
    close(two, [0.6, 0.7], rtol=1e-6)
    zero = np.zeros(2, "float32")
    assert _applied(optimizers.SGD(1.0, clipnorm=2.0), zero)[0].tolist() == [0.0, 0.0]
    with pytest.raises(ArgumentError, match="one way of clipping"):
        optimizers.SGD(clipnorm=1.0, clipvalue=1.0)


def test_learning_rate_can_be_set_also_for_a_compiled_step() -> None:
    w = tf.Variable(0.0)
    optimizer = optimizers.SGD(1.0)
    step = tf.function(lambda: optimizer.apply_gradients([(tf.constant(1.0), w)]))
    step()
    optimizer.learning_rate = 0.5
    step()
    optimizer.learning_rate.assign(0.25)
    step()
    assert float(w) == -1.75
    assert float(optimizer.learning_rate) == 0.25


def test_schedule() -> None:
    class Halving(optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return tf.math.pow(0.5, tf.cast(step, "float32"))

        def get_config(self) -> dict[str, Any]:
            return {}

    w = tf.Variable(0.0)
    optimizer = optimizers.SGD(Halving())
    step = tf.function(lambda: optimizer.apply_gradients([(tf.constant(1.0), w)]))
    for _ in range(3):
        step()
    assert float(w) == -1.75
    assert float(optimizer.learning_rate) == 0.125
    with pytest.raises(StateError, match="Halving"):
        optimizer.learning_rate = 0.1


def test_constraints_and_weight_decay() -> None:
    w = tf.Variable([1.0, 1.0], constraint=keras.constraints.NonNeg())
    optimizers.SGD(1.0).apply_gradients([(tf.constant([3.0, 0.5]), w)])
    assert w.numpy().tolist() == [0.0, 0.5]
    kept = tf.Variable([2.0], name="kept")
    optimizer = optimizers.SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([kept])
    decayed = tf.Variable([2.0])
    zero = tf.constant([0.0])
    optimizer.apply_gradients([(zero, kept), (zero, decayed)])
    assert (float(kept[0]), float(decayed[0])) == (2.0, 1.5)


def test_missing_gradients() -> None:
    a, b = tf.Variable([1.0], name="a"), tf.Variable([1.0], name="b")
    optimizer = optimizers.SGD(1.0)
    with pytest.warns(UserWarning, match="no gradient for b"):
        optimizer.apply_gradients([(tf.constant([1.0]), a), (None, b)])
    assert (float(a[0]), float(b[0])) == (0.0, 1.0)
    with pytest.raises(GradientError, match="a, b"):
        optimizer.apply_gradients([(None, a), (None, b)])
    with pytest.raises(ArgumentError, match="1 gradients for 2"):
        optimizer.apply([tf.constant([1.0])], [a, b])


def test_own_optimizer_in_the_style_of_keras_3() -> None:
    class Signed(optimizers.Optimizer):
        slots = ("steps",)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            self.slot("steps", variable).assign_add(tf.ones_like(gradient))
            variable.assign_sub(learning_rate * tf.sign(gradient))

    w = tf.Variable([1.0, 2.0])
    optimizer = Signed(0.5)
    step = tf.function(lambda g: optimizer.apply_gradients([(g, w)]))
    for _ in range(2):
        step(tf.constant([3.0, -4.0]))
    assert w.numpy().tolist() == [0.0, 3.0]
    assert optimizer.slot("steps", w).numpy().tolist() == [2.0, 2.0]


def test_half_precision_weights() -> None:
    w = tf.Variable(np.ones(3), dtype="bfloat16")
    optimizer = optimizers.Adam(0.5)
    optimizer.apply_gradients([(tf.cast(tf.ones(3), "bfloat16"), w)])
    assert w.dtype == "bfloat16" and abs(float(w[0]) - 0.5) < 0.01


def test_configs_and_copies() -> None:
    for make, _ in CASES.values():
        optimizer = make()
        again = optimizers.deserialize(optimizers.serialize(optimizer))
        assert again.get_config() == optimizer.get_config()
    assert isinstance(optimizers.get("adam"), optimizers.Adam)
    w = tf.Variable([1.0])
    optimizer = optimizers.SGD(0.5, momentum=0.5)
    optimizer.apply_gradients([(tf.constant([1.0]), w)])
    pair, same = copy.deepcopy((optimizer, w))
    pair.apply_gradients([(tf.constant([1.0]), same)])
    assert float(same[0]) == -0.25 and float(w[0]) == 0.5


def test_minimize() -> None:
    w = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        loss = w * w
    optimizers.SGD(0.5).minimize(loss, [w], tape=tape)
    assert float(w) == 0.0
    with pytest.raises(ArgumentError, match="no tape"):
        optimizers.SGD(0.5).minimize(loss, [w])
