"""Variables made in a scope: mirrored ones, copies that are read together, and one for all."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.distribute import MirroredStrategy, PerReplica
from graphnn.errors import ArgumentError, StateError

Wrap = Callable[[Any], Any]
EAGER_AND_COMPILED = pytest.mark.parametrize(
    "wrap", [lambda f: f, tf.function], ids=["eager", "compiled"]
)
PARTS = PerReplica((tf.constant([1.0, 2.0]), tf.constant([5.0, 6.0])))


def made(strategy: MirroredStrategy, value: Any = (0.0, 0.0), **keywords: Any) -> tf.Variable:
    with strategy.scope():
        return tf.Variable(list(value), **keywords)


def test_kinds(strategy: MirroredStrategy) -> None:
    assert type(tf.Variable(1.0)) is tf.Variable
    mirrored, on_read = made(strategy), made(strategy, synchronization="on_read")
    assert mirrored.strategy is strategy and mirrored.trainable and not on_read.trainable
    assert mirrored.aggregation is tf.VariableAggregation.NONE
    assert on_read.synchronization is tf.VariableSynchronization.ON_READ
    assert type(made(strategy, synchronization=tf.VariableSynchronization.NONE)) is tf.Variable
    with pytest.raises(ArgumentError, match="one of AUTO, ON_WRITE, ON_READ, NONE"):
        made(strategy, synchronization="later")
    with pytest.raises(ArgumentError, match="one of NONE, SUM, MEAN"):
        made(strategy, aggregation="most")


def test_a_mirrored_variable_outside_of_replicas(strategy: MirroredStrategy) -> None:
    v = made(strategy)
    v.assign([1.0, 2.0]).assign_add([1.0, 1.0]).assign_sub([0.5, 0.5])
    np.testing.assert_allclose(v, [1.5, 2.5])
    assert type(copy.deepcopy(v)) is type(pickle.loads(pickle.dumps(v))) is tf.Variable


@EAGER_AND_COMPILED
@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sum", [7.0, 9.0]), ("mean", [4.0, 5.0]), ("only_first_replica", [2.0, 3.0])],
)
def test_assigning_in_replicas(
    strategy: MirroredStrategy, wrap: Wrap, aggregation: str, expected: list[float]
) -> None:
    v = made(strategy, (1.0, 1.0), aggregation=aggregation)

    def part(x: Any) -> Any:
        v.assign_add(x)
        return v.value()

    step = wrap(lambda x: strategy.run(part, args=(x,)))
    for value in step(PARTS).values:
        np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(v, expected)
    wrap(lambda x: strategy.run(lambda x: v.assign(x), args=(x,)))(PARTS)
    np.testing.assert_allclose(v, [e - 1.0 for e in expected])


@EAGER_AND_COMPILED
def test_rows_assigned_in_replicas(strategy: MirroredStrategy, wrap: Wrap) -> None:
    v = made(strategy, aggregation="mean")
    step = wrap(lambda x: strategy.run(lambda x: v.scatter_add([1], x[:1]), args=(x,)))
    step(PARTS)
    np.testing.assert_allclose(v, [0.0, 3.0])
    adding = made(strategy, aggregation="sum")
    with pytest.raises(StateError, match="aggregation MEAN"):
        strategy.run(lambda: adding.scatter_add([1], [1.0]))


def test_assigning_without_a_rule(strategy: MirroredStrategy, golden: Any) -> None:
    v = made(strategy, name="total")
    with pytest.raises(StateError) as caught:
        strategy.run(lambda: v.assign([1.0, 1.0]))
    error = caught.value
    text = f"{error.subject}\nreceived: {error.received}\nexpected: {error.expected}"
    golden("../errors/distribute/assign_without_rule.txt", f"{text}\nfix: {error.fix}")


@EAGER_AND_COMPILED
@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sum", [6.0, 8.0]), ("mean", [3.0, 4.0]), ("only_first_replica", [1.0, 2.0])],
)
def test_copies_read_together(
    strategy: MirroredStrategy, wrap: Wrap, aggregation: str, expected: list[float]
) -> None:
    v = made(strategy, synchronization="on_read", aggregation=aggregation)

    def part(x: Any) -> Any:
        v.assign_add(x * 2.0)
        v.assign_sub(x)
        return v.value() + 0.0

    def step(x: Any) -> Any:
        own = strategy.run(part, args=(x,))
        return own, v.value()

    own, together = wrap(step)(PARTS)
    np.testing.assert_allclose(own.values[1], [5.0, 6.0])
    np.testing.assert_allclose(together, expected)
    np.testing.assert_allclose(v.numpy(), expected)
    np.testing.assert_allclose(v + 1.0, np.add(expected, 1.0))


@EAGER_AND_COMPILED
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_copies_assigned_outside(strategy: MirroredStrategy, wrap: Wrap, aggregation: str) -> None:
    v = made(strategy, (1.0, 2.0), synchronization="on_read", aggregation=aggregation)
    np.testing.assert_allclose(v, [1.0, 2.0])
    wrap(lambda: v.assign([0.1, 0.3]))()
    np.testing.assert_array_equal(v, np.float32([0.1, 0.3]))  # exact: checkpoints restore so
    wrap(lambda: v.assign_add([1.0, 1.0]))()
    np.testing.assert_allclose(v, [1.1, 1.3])
    np.testing.assert_allclose(v.initial_value, [1.1, 1.3])


def test_rows_of_a_copy(strategy: MirroredStrategy) -> None:
    v = made(strategy, synchronization="on_read", aggregation="sum")
    strategy.run(lambda x: v.scatter_add([0], x[:1]), args=(PARTS,))
    np.testing.assert_allclose(v, [6.0, 0.0])
    with pytest.raises(StateError, match="outside of the replicas"):
        v.scatter_add([0], [1.0])


@EAGER_AND_COMPILED
def test_one_variable_for_all_replicas(strategy: MirroredStrategy, wrap: Wrap) -> None:
    v = tf.Variable([0.0, 0.0])  # made outside: the replicas assign it in turn
    wrap(lambda x: strategy.run(lambda x: v.assign_add(x), args=(x,)))(PARTS)
    np.testing.assert_allclose(v, [6.0, 8.0])


def test_variables_made_by_the_first_replica(strategy: MirroredStrategy) -> None:
    kept: list[Any] = []

    @tf.function
    def step(x: Any) -> Any:
        def part(x: Any) -> Any:
            if not kept:
                kept.append(tf.Variable([1.0, 1.0]))
            return kept[0] * x

        return strategy.run(part, args=(x,))

    np.testing.assert_allclose(step(PARTS).values[1], [5.0, 6.0])
    assert kept[0].strategy is strategy
