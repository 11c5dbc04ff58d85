"""MirroredStrategy without models: run, reduce, replica contexts, meeting points and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.distribute import MirroredStrategy, PerReplica, ReduceOp
from graphnn.errors import ArgumentError, ShapeError, StateError
from tests.conftest import Golden

ERRORS = "../errors/distribute"
Wrap = Callable[[Any], Any]
EAGER_AND_COMPILED = pytest.mark.parametrize(
    "wrap", [lambda f: f, tf.function], ids=["eager", "compiled"]
)


def context() -> Any:
    return tf.distribute.get_replica_context()


def test_devices_and_defaults() -> None:
    assert MirroredStrategy().devices == ("/device:CPU:0", "/device:CPU:1")
    assert MirroredStrategy().num_replicas_in_sync == 2
    assert MirroredStrategy(["CPU:1"]).devices == ("/device:CPU:1",)
    with pytest.raises(ArgumentError, match="each once"):
        MirroredStrategy(["CPU:0", "/CPU:0"])
    with pytest.raises(ArgumentError, match="'GPU:0'"):
        MirroredStrategy(["GPU:0"])


def test_which_strategy_is_in_force(strategy: MirroredStrategy) -> None:
    assert tf.distribute.get_strategy().num_replicas_in_sync == 1
    assert not tf.distribute.has_strategy()
    assert context().all_reduce("sum", tf.constant(3.0)).numpy() == 3.0
    with strategy.scope() as same:
        assert same is strategy is tf.distribute.get_strategy()
        assert tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()
        assert context() is None
    seen = strategy.run(lambda: (tf.distribute.get_strategy() is strategy, context().devices))
    assert seen[0].values == (True, True)
    assert not tf.distribute.has_strategy()


@EAGER_AND_COMPILED
def test_run_gives_each_replica_its_part(strategy: MirroredStrategy, wrap: Wrap) -> None:
    def part(x: Any, scale: Any, *, shift: Any) -> Any:
        number = context().replica_id_in_sync_group
        return {"x": x * scale + shift, "n": number, "same": "text", "none": None}

    @wrap
    def step(x: Any, shift: Any) -> Any:
        return strategy.run(part, args=(x, 10.0), kwargs={"shift": shift})

    x = PerReplica((tf.constant([1.0, 2.0]), tf.constant([3.0])))
    out = step(x, tf.constant(0.5))
    assert [v.numpy().tolist() for v in out["x"].values] == [[10.5, 20.5], [30.5]]
    assert [int(n) for n in out["n"].values] == [0, 1]
    assert out["same"] == "text" and out["none"] is None
    assert strategy.experimental_local_results(out["x"]) == out["x"].values
    assert strategy.experimental_local_results(3) == (3,)


@EAGER_AND_COMPILED
def test_reduce(strategy: MirroredStrategy, wrap: Wrap) -> None:
    x = PerReplica((tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[8.0, 9.0]])))

    @wrap
    def reduced(x: Any) -> Any:
        sums = strategy.run(lambda x: tf.reduce_sum(x), args=(x,))
        return (
            strategy.reduce(ReduceOp.SUM, sums, axis=None),
            strategy.reduce("MEAN", sums),
            strategy.reduce(ReduceOp.MEAN, x, axis=0),
            strategy.reduce("sum", x, axis=0),
            strategy.gather(x, axis=0),
        )

    total, mean, rows, summed, gathered = reduced(x)
    assert (float(total), float(mean)) == (27.0, 13.5)
    np.testing.assert_allclose(rows, [4.0, 5.0])
    np.testing.assert_allclose(summed, [12.0, 15.0])
    assert gathered.shape == (3, 2)


@EAGER_AND_COMPILED
def test_replicas_meet(strategy: MirroredStrategy, wrap: Wrap) -> None:
    def part(x: Any) -> Any:
        own = context()
        total = own.all_reduce(ReduceOp.SUM, {"a": x, "b": x * 2.0})
        mean = own.all_reduce("mean", total["a"] + x)
        both = own.all_gather(tf.reshape(x, (1,)), axis=0)
        shifted = own.merge_call(lambda where, v: PerReplica(tuple(reversed(v.values))), args=(x,))
        return total["b"], mean, both, shifted

    step = wrap(lambda x: strategy.run(part, args=(x,)))
    doubled, mean, both, shifted = step(PerReplica((tf.constant(1.0), tf.constant(5.0))))
    assert [float(v) for v in doubled.values] == [12.0, 12.0]
    assert [float(v) for v in mean.values] == [9.0, 9.0]
    assert both.values[1].numpy().tolist() == [1.0, 5.0]
    assert [float(v) for v in shifted.values] == [5.0, 1.0]


def test_replicas_take_turns_in_a_fixed_order(strategy: MirroredStrategy) -> None:
    seen: list[Any] = []

    def part() -> None:
        for stage in range(3):
            seen.append((context().replica_id_in_sync_group, stage))
            context().all_reduce("sum", tf.constant(1.0))

    strategy.run(part)
    assert seen == [(r, s) for s in range(3) for r in range(2)]


@EAGER_AND_COMPILED
def test_random_numbers_differ_and_are_reproducible(strategy: MirroredStrategy, wrap: Wrap) -> None:
    with strategy.scope():
        generator = tf.random.Generator(5)
    step = wrap(lambda: strategy.run(lambda: generator.normal((3,))))
    first, second = step().values
    plain = tf.random.Generator(5)
    np.testing.assert_array_equal(first, plain.normal((3,)))
    np.testing.assert_array_equal(second, plain.normal((3,)))


def test_a_function_is_compiled_for_all_replicas_together(strategy: MirroredStrategy) -> None:
    @tf.function
    def part(x: Any) -> Any:
        return context().all_reduce("sum", x) + x

    out = [strategy.run(part, args=(PerReplica((tf.constant(i), tf.constant(3))),)) for i in (1, 2)]
    assert [int(v) for v in out[1].values] == [7, 8]
    assert part.trace_count == 0  # alone it never ran


def test_a_method_that_is_a_function(strategy: MirroredStrategy) -> None:
    class Step:
        @tf.function
        def part(self, x: Any) -> Any:
            return context().all_reduce("sum", x)

    x = PerReplica((tf.constant(1), tf.constant(2)))
    assert int(strategy.run(Step().part, args=(x,)).values[1]) == 3


def test_fewer_values_than_replicas(strategy: MirroredStrategy) -> None:
    out = strategy.run(lambda x: context().all_reduce("sum", x), args=(PerReplica((1.0,)),))
    assert float(out) == 1.0


def test_values_from_a_function(strategy: MirroredStrategy) -> None:
    values = strategy.experimental_distribute_values_from_function(
        lambda own: tf.constant(own.replica_id_in_sync_group * 10)
    )
    assert [int(v) for v in values.values] == [0, 10]
    assert "0: Tensor(0" in repr(values)


def test_outer_tapes_see_the_replicas(strategy: MirroredStrategy) -> None:
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        parts = strategy.run(lambda: x * x * (context().replica_id_in_sync_group + 1.0))
        total = parts.values[0] + parts.values[1]
    assert float(tape.gradient(total, x)) == 18.0


# ---- errors -------------------------------------------------------------------------------------


def test_an_error_of_a_replica_comes_out_and_ends_the_others(strategy: MirroredStrategy) -> None:
    ended = []

    def part() -> None:
        try:
            context().all_reduce("sum", tf.constant(1.0))
            if context().replica_id_in_sync_group == 1:
                raise ValueError("mine")
            context().all_reduce("sum", tf.constant(1.0))
        finally:
            ended.append(tf.distribute.get_replica_context())

    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"):
        strategy.run(part)
    assert len(ended) == 2 and threading.active_count() == before
    assert context() is not None and not tf.distribute.has_strategy()
    assert len(strategy.run(lambda: tf.constant(1)).values) == 2


@EAGER_AND_COMPILED
def test_replicas_that_do_not_meet(strategy: MirroredStrategy, wrap: Wrap, golden: Golden) -> None:
    def first_only() -> None:
        if context().replica_id_in_sync_group == 0:
            context().all_reduce("sum", tf.constant(1.0))

    def second_only() -> None:
        if context().replica_id_in_sync_group == 1:
            context().all_reduce("sum", tf.constant(1.0))

    def different() -> None:
        if context().replica_id_in_sync_group == 1:
            context().all_reduce("sum", tf.constant(1.0))
        else:
            context().all_gather(tf.ones((1,)), axis=0)

    with pytest.raises(StateError) as caught:
        wrap(lambda: strategy.run(first_only))()
    golden(f"{ERRORS}/replicas_do_not_meet.txt", _without_place(caught))
    with pytest.raises(StateError, match="replica 0 ended without it"):
        wrap(lambda: strategy.run(second_only))()
    with pytest.raises(StateError, match="other replicas wait in"):
        wrap(lambda: strategy.run(different))()


def _without_place(caught: Any) -> str:
    error = caught.value
    parts = (f"received: {error.received}", f"expected: {error.expected}", f"fix: {error.fix}")
    return "\n".join((f"{type(error).__name__} in {error.subject}", *parts))


def test_meeting_inside_a_function_of_one_replica(
    strategy: MirroredStrategy, golden: Golden
) -> None:
    inner = tf.function(lambda x: context().all_reduce("sum", x))
    with pytest.raises(StateError) as caught:
        strategy.run(lambda: inner(tf.constant(1.0)))
    golden(f"{ERRORS}/nested_function.txt", _without_place(caught))


def test_functions_of_one_replica_are_traced_apart(strategy: MirroredStrategy) -> None:
    with strategy.scope():
        seen = tf.Variable(0.0, synchronization="on_read", aggregation="sum")

    @tf.function
    def add(x: Any) -> Any:
        seen.assign_add(x)
        return seen.value()

    for _ in range(2):
        out = strategy.run(
            lambda x: add(x), args=(PerReplica((tf.constant(1.0), tf.constant(10.0))),)
        )
    assert [float(v) for v in out.values] == [2.0, 20.0]
    assert float(seen) == 22.0 and add.trace_count == 2


def test_calls_in_the_wrong_place(strategy: MirroredStrategy, golden: Golden) -> None:
    with pytest.raises(StateError) as caught:
        strategy.run(lambda: strategy.run(lambda: 1))
    golden(f"{ERRORS}/run_in_a_replica.txt", _without_place(caught))
    with pytest.raises(StateError, match="inside of a replica"):
        strategy.run(lambda: strategy.reduce("sum", 1.0))
    kept: list[Any] = []
    strategy.run(lambda: kept.append(context()))
    with pytest.raises(StateError, match="outside of its replica"):
        kept[0].all_reduce("sum", 1.0)
    with MirroredStrategy(["CPU:0"]).scope(), pytest.raises(StateError, match="another strategy"):
        strategy.run(lambda: 1)


def test_values_that_do_not_fit(strategy: MirroredStrategy) -> None:
    with pytest.raises(ArgumentError, match="one value for each of 2 replicas"):
        strategy.run(lambda x: x, args=(PerReplica((1, 2, 3)),))
    with pytest.raises(ArgumentError, match="values for 1 and 2 replicas"):
        strategy.run(lambda x, y: x, args=(PerReplica((1, 2)), PerReplica((1,))))
    with pytest.raises(ShapeError, match="from replica 0"):
        strategy.reduce("sum", PerReplica((tf.ones(2), tf.ones(3))))
    with pytest.raises(ArgumentError, match="one of SUM, MEAN"):
        strategy.reduce("most", PerReplica((1.0, 2.0)))
    with pytest.raises(ArgumentError, match="an axis that the values have"):
        strategy.reduce("sum", PerReplica((1.0, 2.0)), axis=0)
