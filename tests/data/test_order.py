"""Orders: what shuffle, repeat, take, skip, shard and interleave give, and that seeds fix it."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.data import AUTOTUNE, Dataset
from graphnn.data.elements import wrap
from tests.data.conftest import values


def as_elements(dataset: Dataset) -> Dataset:
    """The same elements without the short way over row numbers."""
    return Dataset.from_generator(lambda: dataset.as_numpy_iterator())


@pytest.mark.parametrize("count", [0, 1, 5, 40, 1025, 2100])
@pytest.mark.parametrize("buffer", [1, 2, 7, 40, 5000])
def test_shuffle_is_a_permutation_and_equal_on_rows_and_elements(count: int, buffer: int) -> None:
    source = Dataset.range(count)
    rows = values(source.shuffle(buffer, seed=3))
    assert sorted(rows) == list(range(count))
    assert values(as_elements(source).shuffle(buffer, seed=3)) == rows
    blocks = [v for batch in values(source.shuffle(buffer, seed=3).batch(64)) for v in batch]
    assert blocks == rows


def test_shuffle_keeps_to_its_buffer() -> None:
    order = values(Dataset.range(500).shuffle(10, seed=0))
    assert all(value <= place + 9 for place, value in enumerate(order))
    assert order != sorted(order)


def test_full_shuffle_is_uniform() -> None:
    dataset = Dataset.range(3).shuffle(3, seed=1)
    counts = Counter(tuple(values(dataset)) for _ in range(1200))
    assert len(counts) == 6
    assert max(abs(n - 200) for n in counts.values()) < 70


def test_streamed_shuffle_spreads_evenly() -> None:
    first = Counter(values(Dataset.range(50).shuffle(4, seed=s))[0] for s in range(800))
    assert sorted(first) == [0, 1, 2, 3]
    assert max(abs(n - 200) for n in first.values()) < 70


def test_each_epoch_has_its_own_order_unless_told() -> None:
    dataset = Dataset.range(20).shuffle(20, seed=1)
    one, two = values(dataset), values(dataset)
    assert one != two
    again = Dataset.range(20).shuffle(20, seed=1)
    assert values(again.repeat(2)) == one + two
    fixed = Dataset.range(20).shuffle(20, seed=1, reshuffle_each_iteration=False)
    assert values(fixed) == values(fixed) == one
    assert values(fixed.repeat(2)) == one + one
    taken = Dataset.range(20).shuffle(20, seed=1)
    assert values(taken.take(5)) != values(taken.take(5))


def test_global_seed_fixes_shuffles_without_one() -> None:
    orders = []
    for _ in range(2):
        tf.random.set_seed(4)
        orders.append(
            (values(Dataset.range(30).shuffle(30)), values(Dataset.range(30).shuffle(30)))
        )
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]


def pipeline(workers: int | None, ahead: int) -> Dataset:
    dataset = Dataset.range(60).shuffle(16, seed=5)
    dataset = dataset.map(lambda x: x * 2, num_parallel_calls=workers).shuffle(8, seed=6)
    dataset = dataset.interleave(
        lambda x: Dataset.range(x, x + 3).shuffle(3, seed=7), 3, 2, num_parallel_calls=workers
    )
    dataset = dataset.batch(4).prefetch(ahead) if ahead else dataset.batch(4)
    return dataset.unbatch().map(lambda x: x + 1, num_parallel_calls=workers)


def test_order_does_not_depend_on_parallelism() -> None:
    first = values(pipeline(None, 0))
    assert len(first) == 180
    for workers, ahead in itertools.product((1, 4, AUTOTUNE), (0, 1, 5)):
        assert values(pipeline(workers, ahead)) == first


def test_interleave_takes_turns() -> None:
    # The worked example of TensorFlow's documentation.
    dataset = Dataset.range(1, 6).interleave(
        lambda x: Dataset.from_tensors(x).repeat(6), cycle_length=2, block_length=4
    )
    runs = [(k, len(list(g))) for k, g in itertools.groupby(values(dataset))]
    assert runs == [(1, 4), (2, 4), (1, 2), (2, 2), (3, 4), (4, 4), (3, 2), (4, 2), (5, 6)]


@pytest.mark.parametrize("workers", [None, 3])
def test_interleave_with_empty_and_unequal_parts(workers: int | None) -> None:
    lengths = [0, 3, 0, 0, 1, 2, 0]
    dataset = Dataset.from_tensor_slices((lengths, list(range(7)))).interleave(
        lambda n, i: Dataset.from_tensors(i).repeat(int(n)), 2, 1, num_parallel_calls=workers
    )
    got = values(dataset)
    assert sorted(got) == [1, 1, 1, 4, 5, 5]
    assert got == values(
        Dataset.from_tensor_slices((lengths, list(range(7)))).interleave(
            lambda n, i: Dataset.from_tensors(i).repeat(int(n)), 2, 1
        )
    )


def test_unordered_map_gives_all_elements() -> None:
    dataset = Dataset.range(50).map(lambda x: x + 1, 4, deterministic=False)
    assert sorted(values(dataset)) == list(range(1, 51))


CHAINS: dict[str, Any] = {
    "take": (lambda d: d.take(7), lambda v: v[:7]),
    "take all": (lambda d: d.take(-1), lambda v: v),
    "skip": (lambda d: d.skip(7), lambda v: v[7:]),
    "skip all": (lambda d: d.skip(99), lambda v: []),
    "shard": (lambda d: d.shard(3, 1), lambda v: v[1::3]),
    "repeat": (lambda d: d.repeat(3), lambda v: v * 3),
    "repeat 0": (lambda d: d.repeat(0), lambda v: []),
    "mixed": (lambda d: d.skip(2).shard(4, 3).repeat(2).take(9), lambda v: (v[2:][3::4] * 2)[:9]),
    "endless": (lambda d: d.repeat().skip(25).take(8), lambda v: (v * 3)[25:33]),
    "enumerate": (lambda d: d.enumerate(), lambda v: list(enumerate(v))),
    "twice": (lambda d: d.concatenate(d.take(2)), lambda v: v + v[:2]),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("batch", [None, 4])
def test_choosing_on_rows_and_on_elements(name: str, batch: int | None) -> None:
    change, expected = CHAINS[name]
    want = expected(list(range(20)))
    for source in (Dataset.range(20), as_elements(Dataset.range(20))):
        dataset = change(source)
        if batch is None:
            assert values(dataset) == want
            continue
        parts = values(dataset.batch(batch))
        flat = [v for p in parts for v in (zip(*p, strict=True) if isinstance(p, tuple) else p)]
        assert flat == want
        assert all(len(p) == batch for p in parts[:-1] if not isinstance(p, tuple))


def test_endless_repetition_of_nothing_ends() -> None:
    assert values(Dataset.range(0).repeat()) == []
    assert values(Dataset.range(5).filter(lambda x: x > 9).repeat()) == []


def test_rows_come_whole_and_in_order() -> None:
    x = np.random.default_rng(0).normal(size=(300, 5)).astype("float32")
    dataset = Dataset.from_tensor_slices((x, np.arange(300))).shuffle(50, seed=2).batch(32)
    for images, numbers in dataset:
        assert np.array_equal(images.numpy(), x[numbers.numpy()])
    straight = next(iter(Dataset.from_tensor_slices(x).batch(100)))
    assert np.shares_memory(np.asarray(straight), x)


def test_elements_that_users_hold_do_not_change() -> None:
    x = np.arange(12.0).reshape(6, 2)
    batches = list(Dataset.from_tensor_slices(x).shuffle(6, seed=0).batch(2))
    copies = [batch.numpy() for batch in batches]
    list(Dataset.from_tensor_slices(x).shuffle(6, seed=1).batch(2))
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(batches, copies, strict=True))
    assert wrap(x).dtype == tf.float64


def test_memory_is_bounded_by_the_buffers() -> None:
    made = 0

    def endless():
        nonlocal made
        while True:
            made += 1
            yield np.zeros(1000)

    dataset = Dataset.from_generator(endless).shuffle(10, seed=0)
    dataset = dataset.map(lambda x: x + 1, num_parallel_calls=2).batch(2).prefetch(3)
    with iter(dataset) as iterator:
        for _ in range(5):
            next(iterator)
        # 5 batches taken, 3 ahead and one in the making; 4 in map; 10 in the buffer.
        assert made <= 2 * (5 + 3 + 1) + 4 + 10 + 1
