"""Strategies over several GPUs, on the emulated ones: what holds on CPUs holds there, and more."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.distribute import MirroredStrategy, PerReplica
from graphnn.errors import ArgumentError, OutOfRangeError
from graphnn.runtime import collectives
from graphnn.runtime.cuda import nccl
from tests import house
from tests.cuda import stand_in
from tests.distribute import (
    test_datasets,
    test_gradients,
    test_strategy,
    test_training,
    test_variables,
)
from tests.distribute.test_training import BATCH, assert_same, compiled, data, in_scope, network

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason="needs a compiler")
ON_CPUS = {
    "test_devices_and_defaults",
    "test_a_step_is_one_program_with_one_reduction_of_gradients",
}
# All tests of strategies, with the fixtures of this module: two GPUs instead of two CPUs.
for _module in (test_datasets, test_gradients, test_strategy, test_training, test_variables):
    for _name in dir(_module):
        if _name.startswith("test_") and _name not in ON_CPUS:
            globals()[_name] = getattr(_module, _name)
NAMES = ["GPU:0", "GPU:1", "GPU:2"]
LAZILY = pytest.mark.parametrize("devices", [False, True], indirect=True, ids=["plain", "lazy"])


@pytest.fixture(autouse=True)
def devices(request: pytest.FixtureRequest) -> Iterator[stand_in.Machine]:
    lazy = bool(getattr(request, "param", False))
    with stand_in.emulated(devices=3, lazy=lazy) as gpu:
        tf.random.set_seed(0)
        yield gpu


@pytest.fixture
def strategy() -> MirroredStrategy:
    return MirroredStrategy(["GPU:0", "GPU:1"])


def sums(gpu: Any) -> list[str]:
    """The grouped sums that were started."""
    return [name for name in gpu.launches if name.startswith("nccl")]


def assert_copies_equal(model: Any, count: int) -> None:
    """Each weight and slot has the same bits on all GPUs."""
    for variable in (*model.weights, *model.optimizer.variables):
        if hasattr(variable, "copies"):
            buffers = list(variable._places().values())
            assert len(buffers) == count
            assert [b.device.id for b in buffers] == list(range(count))
            for buffer in buffers:
                np.testing.assert_array_equal(buffer.get(), variable.numpy())


# ---- devices --------------------------------------------------------------------------------


def test_devices() -> None:
    everything = MirroredStrategy()
    assert everything.devices == ("/device:GPU:0", "/device:GPU:1", "/device:GPU:2")
    assert everything.num_replicas_in_sync == 3
    assert [v.device for v in everything.run(lambda: tf.zeros(2)).values] == list(
        everything.devices
    )
    with pytest.raises(ArgumentError, match="devices of one kind"):
        MirroredStrategy(["CPU:0", "GPU:0"])


def test_where_variables_are(strategy: MirroredStrategy) -> None:
    with strategy.scope():
        weight = tf.Variable([1.0, 2.0])
        local = tf.Variable(3.0, synchronization="on_read", aggregation="sum")
    assert list(weight._places()) == ["/device:GPU:0", "/device:GPU:1"]
    assert weight.device == "/device:GPU:0"
    tf.debugging.forget_copies()
    read = strategy.run(lambda: (weight.value(), local + 1.0))
    assert [v.device for v in read[0].values] == list(strategy.devices)
    assert [v.device for v in read[1].values] == list(strategy.devices)
    assert not tf.debugging.copies()  # each replica has read its own copy
    weight.assign([5.0, 6.0])
    weight.assign_add([1.0, 1.0])
    before = strategy.run(lambda: weight.value()).values
    weight.assign([0.0, 0.0])
    for value in before:
        assert value.numpy().tolist() == [6.0, 7.0]  # what was read keeps its values
    for value in strategy.run(lambda: weight.value()).values:
        assert value.numpy().tolist() == [0.0, 0.0]
    assert float(local) == 3.0


def test_a_strategy_over_one_gpu(devices: Any) -> None:
    one = in_scope(MirroredStrategy(["CPU:0"]), lambda: compiled("adam"))
    x, y = data(4 * BATCH + 3)
    one.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    for make in (MirroredStrategy, tf.distribute.OneDeviceStrategy):
        two = in_scope(make("GPU:1"), lambda: compiled("adam"))
        two.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        assert {v.device for v in two.weights} == {"/device:GPU:1"}
        assert_same(one, two)
    assert not sums(devices)


# ---- training -------------------------------------------------------------------------------


def trained(names: list[str] | None, optimizer: str = "adam", steps: int = 20, **more: Any) -> Any:
    """A model after some steps, and its history. names: of devices; None: no strategy."""
    x, y = data(steps * BATCH)
    strategy = MirroredStrategy(names or ["CPU:0"])
    model = in_scope(strategy, lambda: compiled(optimizer, **more))
    found = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    return model, found.history


@LAZILY
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_parts_of_batches_train_as_whole_ones(devices: Any, optimizer: str) -> None:
    cpu, expected = trained(None, optimizer)
    one, _ = trained(["GPU:0"], optimizer)
    assert_same(cpu, one)
    for count in (2, 3):
        devices.launches.clear()
        many, found = trained(NAMES[:count], optimizer)
        assert_same(cpu, many)
        assert_same(one, many)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=1e-6)
        assert_copies_equal(many, count)
        assert len(sums(devices)) == 20  # one in each step
        again, _ = trained(NAMES[:count], optimizer)
        for a, b in zip(many.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_missing_order_between_gpus_would_be_seen(
    devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lazy mode finds that one GPU reads what another has not written yet."""
    values, expected = _sent_lazily()
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    monkeypatch.setattr(collectives.Links, "follow", lambda *_: None)
    values, expected = _sent_lazily()
    assert not np.allclose(values, expected)


def _sent_lazily() -> tuple[Any, Any]:
    with stand_in.emulated(devices=2, lazy=True):
        strategy = MirroredStrategy(["GPU:0", "GPU:1"])

        @tf.function
        def step(x: Any) -> Any:
            def part(x: Any) -> Any:
                return tf.exp(x)

            return strategy.gather(strategy.run(part, args=(x,)), axis=0)

        x = np.arange(4, dtype="float32")
        parts = PerReplica((tf.constant(x[:2]), tf.constant(x[2:])))
        return step(parts).numpy(), np.concatenate([np.exp(x[:2]), np.exp(x[2:])])


def test_a_step_in_programs(devices: Any, strategy: MirroredStrategy) -> None:
    model = in_scope(strategy, lambda: compiled("adam"))
    x, y = data(8 * BATCH)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    (concrete,) = next(iter(model._stepper("train")._runs)).concretes
    text = concrete.dump()
    assert "sum      4 tensors of float32 over /device:GPU:0, /device:GPU:1" in text
    found = re.findall(r"^stage (\d)  (\S+):", text, re.MULTILINE)
    assert found == [(stage, name) for stage in "01" for name in strategy.devices]
    devices.launches.clear()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    launches = devices.launches
    assert len(sums(devices)) == 8
    # Each GPU computes its part by one graph, and updates all weights by one kernel or graph.
    assert sum(bool(re.match("graph|.*_many", name)) for name in launches) <= 8 * 4
    between = launches.index(sums(devices)[0])
    assert all(name.startswith("graph") for name in launches[between - 2 : between])  # no copies


@LAZILY
def test_an_epoch_does_not_wait(devices: Any, strategy: MirroredStrategy) -> None:
    """But for the logs at its end, and for batches that were copied long ago."""
    model = in_scope(strategy, lambda: compiled("adam"))
    x, y = data(10 * BATCH)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    devices.waits.clear()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    others = [why for why in devices.waits if why != "Event.synchronize"]
    assert len(others) <= 2 * 3, others  # the loss and two metrics


@LAZILY
@pytest.mark.parametrize("rest", [1, 2, 5])
def test_a_last_batch_of_three_replicas(devices: Any, rest: int) -> None:
    one = compiled("sgd")
    three = in_scope(MirroredStrategy(NAMES), lambda: compiled("sgd"))
    x, y = data(2 * BATCH + rest)
    given = dict(batch_size=BATCH, shuffle=False, verbose=0, epochs=2)
    a, b = (m.fit(x, y, **given).history for m in (one, three))
    for name, values in a.items():
        np.testing.assert_allclose(b[name], values, rtol=2e-6, atol=1e-6)
    assert_same(one, three)
    assert_copies_equal(three, 3)
    assert three.predict(x, batch_size=BATCH, verbose=0).shape == (2 * BATCH + rest, 3)


@LAZILY
def test_batch_normalization(devices: Any) -> None:
    def make() -> Any:
        model = network(keras.layers.BatchNormalization(momentum=0.9))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    stand_in_cpus = tf.config.LogicalDeviceConfiguration()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [stand_in_cpus] * 2)
    try:
        one = in_scope(MirroredStrategy(["CPU:0", "CPU:1"]), make)
    finally:
        tf.config.set_logical_device_configuration(cpu, None)
    two = in_scope(MirroredStrategy(NAMES[:2]), make)
    x, y = data(6 * BATCH + 5)
    for model in (one, two):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert_same(one, two, 2e-6)
    a, b = (m.evaluate(x, y, verbose=0) for m in (one, two))
    np.testing.assert_allclose(b, a, rtol=2e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(devices: Any, policy: str) -> None:
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        models = [in_scope(MirroredStrategy(n), lambda: compiled("adam")) for n in (
            ["CPU:0"], NAMES[:2], NAMES[:2])]  # fmt: skip
    finally:
        keras.mixed_precision.set_global_policy(before)
    x, y = data(8 * BATCH)
    for model in models:
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    one, two, again = models
    assert_same(one, two, 2e-2)
    assert_copies_equal(two, 2)
    for a, b in zip(two.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all("float32" in name for name in sums(devices))


def test_without_nccl(devices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are made on the first GPU, in the order of the replicas; two give the same bits."""
    with_nccl, _ = trained(NAMES[:2], steps=4)
    monkeypatch.setattr(nccl, "why_not", lambda indices=(): "not here")
    devices.launches.clear()
    without, _ = trained(NAMES[:2], steps=4)
    assert not sums(devices)
    for a, b in zip(with_nccl.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    three, _ = trained(NAMES, steps=4)
    assert_copies_equal(three, 3)


def test_two_logical_gpus_of_one(devices: Any) -> None:
    gpu = tf.config.list_physical_devices("GPU")[0]
    part = tf.config.LogicalDeviceConfiguration(memory_limit=512)
    tf.config.set_logical_device_configuration(gpu, [part] * 2)
    one, _ = trained(["CPU:0"], steps=4)
    two, _ = trained(["GPU:0", "GPU:1"], steps=4)
    assert_same(one, two)
    assert not sums(devices)  # NCCL needs GPUs of their own


def test_gpus_that_were_numbered_anew(devices: Any) -> None:
    before = devices.allocated[0]
    tf.config.set_visible_devices(tf.config.list_physical_devices("GPU")[1:], "GPU")
    one, _ = trained(["CPU:0"], steps=4)
    two, _ = trained(["GPU:0", "GPU:1"], steps=4)
    assert_same(one, two)
    assert [b.device.id for b in two.weights[0]._places().values()] == [1, 2]
    with tf.device("/GPU:0"):
        found = tf.function(lambda x: x + 1.0)(tf.zeros(3))
    assert found._value.device.id == 1
    assert devices.allocated[0] == before


# ---- data, saving, failures -----------------------------------------------------------------


@LAZILY
def test_parts_go_straight_to_their_gpus(devices: Any, strategy: MirroredStrategy) -> None:
    tf.debugging.forget_copies()
    x = np.arange(24, dtype="float32").reshape(8, 3)
    batches = tf.data.Dataset.from_tensor_slices(x).batch(4)
    for number, batch in enumerate(strategy.experimental_distribute_dataset(batches)):
        assert [v.device for v in batch.values] == list(strategy.devices)
        for i, value in enumerate(batch.values):
            rows = x[4 * number + 2 * i :][:2]
            np.testing.assert_array_equal(value.numpy(), rows)
    assert not tf.debugging.copies()
    model = in_scope(strategy, lambda: compiled("sgd"))
    a, b = data(4 * BATCH)
    model.fit(a, b, batch_size=BATCH, verbose=0)
    assert not tf.debugging.copies()


def test_one_copy_is_saved(strategy: MirroredStrategy, tmp_path: Any) -> None:
    model = in_scope(strategy, lambda: compiled("adam"))
    x, y = data(2 * BATCH)
    model.fit(x, y, batch_size=BATCH, verbose=0)
    model.save(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    alone = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(alone.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    other = in_scope(strategy, lambda: compiled("adam"))
    with strategy.scope():
        other.load_weights(tmp_path / "model.keras")
    assert_same(model, other, 0.0)
    assert_copies_equal(other, 2)
    np.testing.assert_array_equal(other.predict(x, verbose=0), expected)


def test_a_replica_that_fails_while_it_is_traced(strategy: MirroredStrategy) -> None:
    with strategy.scope():
        weight = tf.Variable([1.0, 2.0], aggregation="sum")

    def part() -> None:
        if tf.distribute.get_replica_context().replica_id_in_sync_group == 1:
            raise KeyError("the second one")
        weight.assign_add([1.0, 1.0])

    for call in (lambda: strategy.run(part), tf.function(lambda: strategy.run(part))):
        with pytest.raises(KeyError, match="the second one"):
            call()
        for value in weight._places().values():
            assert value.get().tolist() == [1.0, 2.0]


@LAZILY
def test_a_check_that_fails_on_the_second_gpu(devices: Any, strategy: MirroredStrategy) -> None:
    @tf.function
    def step(index: Any) -> Any:
        def part(index: Any) -> Any:
            return tf.gather(tf.constant([1.0, 2.0, 3.0]), index)

        return strategy.reduce("sum", strategy.run(part, args=(index,)))

    good = PerReplica((tf.constant([0]), tf.constant([1])))
    bad = PerReplica((tf.constant([0]), tf.constant([7])))
    assert step(good).numpy().tolist() == [3.0]
    result = step(bad)
    with pytest.raises(OutOfRangeError, match="7"):
        result.numpy()
    assert step(good).numpy().tolist() == [3.0]


@pytest.mark.parametrize("dtype", ["int16", "int32", "float16", "bfloat16", "float64"])
def test_sums_of_dtypes(devices: Any, strategy: MirroredStrategy, dtype: str) -> None:
    """What NCCL cannot add is sent and added."""

    @tf.function
    def step(x: Any) -> Any:
        def part(x: Any) -> Any:
            return tf.distribute.get_replica_context().all_reduce("sum", x) * x

        return strategy.gather(strategy.run(part, args=(x,)), axis=0)

    parts = PerReplica(tuple(tf.cast(tf.constant(v), dtype) for v in ([1, 2, 3], [4, 5, 6])))
    assert tf.cast(step(parts), "float32").numpy().tolist() == [5, 14, 27, 20, 35, 54]
    assert len(sums(devices)) == (dtype != "int16")


def test_a_gpu_program_outside_of_strategies() -> None:
    """Nodes that the user places on two GPUs."""

    @tf.function
    def mixed(x: Any) -> Any:
        with tf.device("/GPU:0"):
            a = tf.exp(x)
        with tf.device("/GPU:1"):
            b = tf.reduce_sum(a * 2.0)
        return a + b

    x = np.arange(3, dtype="float32")
    expected = np.exp(x) + np.sum(np.exp(x) * 2.0)
    np.testing.assert_allclose(mixed(x).numpy(), expected, rtol=1e-6)
    assert mixed(x).device == "/device:GPU:0"


def test_the_page(devices: Any) -> None:
    """All blocks of docs/distribute.md, the one that needs GPUs as well, in order."""
    text = (house.ROOT / "docs" / "distribute.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py(?:thon)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks):
        name = f"<distribute.md block {number}>"
        linecache.cache[name] = (len(block), None, block.splitlines(True), name)
        exec(compile(block, name, "exec"), names)
    assert names["model"].weights[0].device == "/device:GPU:0" and sums(devices)
