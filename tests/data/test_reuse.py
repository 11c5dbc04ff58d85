"""Arrays that are used again for the next batch, rows read ahead, a prefetch that tunes itself."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphnn.data import AUTOTUNE, Dataset
from tests.data.conftest import data_threads, plain, values
from tests.data.test_position import PIPELINES

X = np.arange(46, dtype="float32").reshape(23, 2)
NAMES = [f"name {i}" for i in range(23)]


def batches() -> Dataset:
    table = {"x": X, "name": NAMES, "both": (np.arange(23), X)}
    return Dataset.from_tensor_slices(table).shuffle(9, seed=2).batch(4)


CHAINS: dict[str, Callable[[], Dataset]] = {
    **PIPELINES,
    "table": batches,
    "whole batches": lambda: Dataset.from_tensor_slices(X).shuffle(9, seed=1).batch(4, True),
    "rows in order": lambda: Dataset.from_tensor_slices((X, NAMES)).batch(5),
    "repeated": lambda: batches().repeat(3),
    "chosen": lambda: batches().skip(1).take(4).shard(2, 1).concatenate(batches()),
    "tuned": lambda: batches().prefetch(AUTOTUNE),
    "prefetched": lambda: batches().prefetch(2),
    "mapped": lambda: batches().map(lambda d: (d["x"], d["both"])).prefetch(AUTOTUNE),
    "batches of batches": lambda: Dataset.range(23).shuffle(9, seed=1).batch(2, True).batch(3),
    "shuffled batches": lambda: batches().shuffle(3, seed=3),
    "cached batches": lambda: batches().cache().repeat(2),
    "zipped": lambda: (
        Dataset.zip(
            (Dataset.from_tensor_slices(X), Dataset.range(99)),
        )
        .shuffle(7, seed=3)
        .batch(4)
    ),
    "zipped batches": lambda: Dataset.zip((batches(), Dataset.range(99).batch(3))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_reused_arrays_hold_the_same_numbers(name: str) -> None:
    assert [plain(e) for e in CHAINS[name]().iterator(reuse=True)] == values(CHAINS[name]())


@pytest.mark.parametrize("name", CHAINS)
def test_a_position_is_the_same_with_reused_arrays(name: str) -> None:
    whole = values(CHAINS[name]())
    source = CHAINS[name]().iterator(reuse=True)
    for _ in range(2):
        next(source)
    with CHAINS[name]().iterator(source.state(), reuse=True) as restored:
        assert [plain(e) for e in restored] == whole[2:]
    assert [plain(e) for e in source] == whole[2:]


def test_batches_of_one_size_share_their_arrays_only_if_asked() -> None:
    dataset = Dataset.from_tensor_slices((X, np.arange(23))).shuffle(9, seed=1).batch(4)
    *full, last = list(dataset.iterator(reuse=True))
    assert all(batch is full[0] for batch in full)
    assert len(last[0]) == 3
    kept = [np.asarray(batch[0]) for batch in dataset]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(kept, 2))


def test_functions_may_keep_what_they_get() -> None:
    kept: list[Any] = []

    def keep(x: Any) -> Any:
        kept.append(x)
        return x

    dataset = Dataset.from_tensor_slices(X).shuffle(9, seed=1).batch(4).map(keep)
    given = [plain(x) for x in dataset.iterator(reuse=True)]
    assert [plain(x) for x in kept] == given


@pytest.mark.parametrize("batch", [None, 1, 64, 1000])
def test_reading_ahead_does_not_begin_the_next_epoch(batch: int | None) -> None:
    size = 2000
    orders = Dataset.range(size).shuffle(30, seed=1).repeat(3).batch(size)
    _, second, third = values(orders)
    dataset = Dataset.range(size).shuffle(30, seed=1)
    endless = dataset.repeat() if batch is None else dataset.repeat().batch(batch)
    taken = endless.take(size // (batch or 1))
    assert 1900 < sum(np.size(x) for x in values(taken)) <= size
    got = np.concatenate([values(dataset.batch(size))[0], values(dataset.batch(size))[0]])
    assert got.tolist() == second + third


def test_batches_of_many_short_passes() -> None:
    dataset = Dataset.range(2).shuffle(2, seed=1).repeat(3000).batch(4000)
    (first, second) = values(dataset)
    assert len(first) == 4000 and sorted(first + second) == [0] * 3000 + [1] * 3000


def test_a_new_pass_follows_those_of_repeat() -> None:
    dataset = Dataset.range(40).shuffle(40, seed=1)
    whole = values(Dataset.range(40).shuffle(40, seed=1).repeat(5))
    assert values(dataset.repeat(3)) + values(dataset) + values(dataset) == whole


def slow(x: Any) -> Any:
    time.sleep(0.004)
    return x + 1


def test_a_tuned_prefetch_takes_a_thread_once_elements_are_slow() -> None:
    dataset = Dataset.range(30).batch(2).prefetch(AUTOTUNE)
    with iter(dataset) as elements:
        next(elements)
        assert not data_threads()
    dataset = Dataset.range(30).batch(2).map(slow).prefetch(AUTOTUNE)
    for _ in range(2):
        with dataset.iterator(reuse=True) as elements:
            got = [plain(next(elements)) for _ in range(5)]
            assert len(data_threads()) == 1
            state = elements.state()
            got += [plain(e) for e in elements]
        assert got == [[i + 1, i + 2] for i in range(0, 30, 2)]
        with dataset.iterator(state) as restored:
            assert [plain(e) for e in restored] == got[5:]
    fresh = Dataset.range(30).batch(2).map(slow).prefetch(AUTOTUNE)
    assert [plain(e) for e in fresh.iterator(state)] == got[5:]


def test_a_tuned_prefetch_of_lent_batches_may_change_its_mind() -> None:
    class Slow:
        """A table whose rows are late from the fourth time on."""

        def __init__(self, dataset: Dataset) -> None:
            self.table, self.count = dataset._stage.table, 23  # type: ignore[attr-defined]
            self.times = 0

        def lent(self) -> Any:
            rows = self.table.lent()

            def late(numbers: Any) -> Any:
                self.times += 1
                time.sleep(0.005 * (self.times > 3))
                return rows(numbers)

            return late

        def rows(self, numbers: Any) -> Any:
            return self.table.rows(numbers)

        def __str__(self) -> str:
            return "slow"

    dataset = Dataset.from_tensor_slices(X).shuffle(9, seed=1)
    want = values(Dataset.from_tensor_slices(X).shuffle(9, seed=1).batch(2))
    stage = dataset._stage
    stage.table = Slow(dataset)  # type: ignore[attr-defined]
    with Dataset(stage).batch(2).prefetch(AUTOTUNE).iterator(reuse=True) as elements:
        got = []
        for element in elements:
            time.sleep(0.002)  # the thread has time to make the next ones
            got.append(plain(element))
        assert stage.table.times == 6  # type: ignore[attr-defined]
    assert got == want
