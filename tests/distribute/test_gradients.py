"""Gradients through all_reduce: replicas with parts of a batch are one replica with all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.distribute import MirroredStrategy, PerReplica, get_replica_context
from graphnn.errors import StateError

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(12, 4)).astype("float32")
Y = RANDOM.normal(size=(12, 3)).astype("float32")
WRAPS = pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "compiled"])


def per_replica(array: Any, *sizes: int) -> PerReplica:
    stops = np.cumsum(sizes)
    return PerReplica(tuple(tf.constant(p) for p in np.split(array, stops)))


def normalized(h: Any, over: Callable[[Any], Any]) -> Any:
    """Normalised by the moments of the whole batch. over: the mean over all replicas."""
    mean = over(tf.reduce_mean(h, axis=0))
    square = over(tf.reduce_mean(h * h, axis=0))
    return (h - mean) / tf.sqrt(square - mean * mean + 1e-3)


@WRAPS
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_batch_statistics_of_all_replicas(strategy: MirroredStrategy, wrap: Any, kind: str) -> None:
    start = RANDOM.normal(size=(4, 3)).astype("float32")
    with strategy.scope():
        weight = tf.Variable(start)

    def over(value: Any) -> Any:
        total = get_replica_context().all_reduce(kind, value)
        return total / 2 if kind == "sum" else total

    def part(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum((normalized(x @ weight, over) - y) ** 2)
        of_weight, of_x = tape.gradient(loss, [weight, x])
        return get_replica_context().all_reduce("sum", of_weight), of_x

    step = wrap(lambda x, y: strategy.run(part, args=(x, y)))
    of_weight, of_x = step(per_replica(X, 6), per_replica(Y, 6))

    x, own = tf.constant(X), tf.Variable(start)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum((normalized(x @ own, lambda v: v) - Y) ** 2)
    wanted = tape.gradient(loss, [own, x])
    for replica in range(2):
        np.testing.assert_allclose(of_weight.values[replica], wanted[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            of_x.values[replica], wanted[1][6 * replica : 6 * replica + 6], rtol=1e-4, atol=1e-5
        )


@WRAPS
def test_closed_form_of_a_structure(strategy: MirroredStrategy, wrap: Any) -> None:
    def part(x: Any, factor: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            own = get_replica_context()
            found = own.all_reduce("sum", {"x": x * x, "count": tf.constant(2), "twice": [2.0 * x]})
            loss = factor * found["x"] * tf.cast(found["count"], "float32") + found["twice"][0]
        return tape.gradient(loss, x), found["count"]

    step = wrap(lambda x, f: strategy.run(part, args=(x, f)))
    x, factor = PerReplica((tf.constant(3.0), tf.constant(5.0))), PerReplica((1.0, 10.0))
    gradient, count = step(x, factor)
    # The losses add up to 4 * 11 * (x0^2 + x1^2) + 2 * 2 * (x0 + x1).
    assert [float(g) for g in gradient.values] == [4 * 11 * 2 * 3.0 + 4, 4 * 11 * 2 * 5.0 + 4]
    assert [int(c) for c in count.values] == [4, 4]


@WRAPS
def test_a_tape_around_all_replicas(strategy: MirroredStrategy, wrap: Any) -> None:
    def part(x: Any, factor: Any) -> Any:
        return factor * get_replica_context().all_reduce("mean", x * x)

    def step(a: Any, b: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            out = strategy.run(part, args=(PerReplica((a, b)), PerReplica((1.0, 10.0))))
            loss = out.values[0] + out.values[1]
        return tape.gradient(loss, [a, b])

    found = wrap(step)(tf.constant(3.0), tf.constant(5.0))
    assert [float(g) for g in found] == [11 * 3.0, 11 * 5.0]


@WRAPS
def test_second_derivatives(strategy: MirroredStrategy, wrap: Any) -> None:
    def part(x: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = get_replica_context().all_reduce("sum", x**3)
            first = inner.gradient(y, x)
        return first, outer.gradient(first, x)

    step = wrap(lambda x: strategy.run(part, args=(x,)))
    first, second = step(PerReplica((tf.constant(2.0), tf.constant(3.0))))
    # dy0 + dy1 = 2 * 3 x^2, and the sum of that of both replicas again.
    assert [float(v) for v in first.values] == [24.0, 54.0]
    assert [float(v) for v in second.values] == [24.0, 36.0]


class Normalizing(keras.layers.Layer):  # type: ignore[misc]
    """Subtracts the mean of the whole batch, each replica's by its number of examples."""

    def call(self, x: Any) -> Any:
        own = tf.reduce_sum(x, axis=0)
        count = tf.cast(tf.shape(x)[0], "float32")
        context = get_replica_context()
        if context is not None:
            own, count = context.all_reduce("sum", [own, count])
        return tf.tanh(x - own / count)


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("count", [12, 9], ids=["equal shares", "unequal shares"])
def test_fit_is_that_of_one_replica(strategy: MirroredStrategy, eager: bool, count: int) -> None:
    def trained(make: Callable[[Callable[[], Any]], Any]) -> Any:
        def build() -> Any:
            tf.random.set_seed(2)
            model = keras.Sequential(
                [
                    keras.layers.Input((4,)),
                    keras.layers.Dense(5, activation="tanh"),
                    Normalizing(),
                    keras.layers.Dense(3),
                ]
            )
            model.compile(keras.optimizers.SGD(0.2), "mse", run_eagerly=eager)
            return model

        model = make(build)
        model.fit(X[:count], Y[:count], batch_size=count, epochs=10, shuffle=False, verbose=0)
        return model.get_weights()

    def in_scope(build: Callable[[], Any]) -> Any:
        with strategy.scope():
            return build()

    for one, two in zip(trained(lambda build: build()), trained(in_scope), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_only_one_replica_asks_for(strategy: MirroredStrategy) -> None:
    def part(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = get_replica_context().all_reduce("sum", x)
        if get_replica_context().replica_id_in_sync_group == 0:
            return tape.gradient(y, x)
        return x

    with pytest.raises(StateError, match="all replicas"):
        strategy.run(part, args=(PerReplica((tf.constant(1.0), tf.constant(2.0))),))
