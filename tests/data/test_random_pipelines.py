"""Random chains of stages: threads change nothing, and any position can be restored."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphnn.data import Dataset
from graphnn.data.storage import pack, unpack
from tests.data.conftest import plain, values

Step = Callable[[Dataset, bool], Dataset]


def workers(threads: bool) -> int | None:
    return 2 if threads else None


def steps(rng: np.random.Generator) -> dict[str, Step]:
    a, b, seed = int(rng.integers(1, 9)), int(rng.integers(1, 4)), int(rng.integers(99))
    again = bool(rng.integers(2))
    return {
        "map": lambda d, t: d.map(lambda x: x * 3 + b, workers(t)),
        "filter": lambda d, t: d.filter(lambda x: x % (b + 1) != 0),
        "shuffle": lambda d, t: d.shuffle(a, seed, again),
        "repeat": lambda d, t: d.repeat(b),
        "take": lambda d, t: d.take(9 * a),
        "skip": lambda d, t: d.skip(b),
        "shard": lambda d, t: d.shard(b, b - 1),
        "batches": lambda d, t: d.batch(a).prefetch(b).unbatch() if t else d.batch(a).unbatch(),
        "prefetch": lambda d, t: d.prefetch(a) if t else d,
        "cache": lambda d, t: d.cache(),
        "flat": lambda d, t: d.take(12).flat_map(lambda x: Dataset.range(x % 4)),
        "weave": lambda d, t: d.take(12).interleave(
            lambda x: Dataset.range(x, x + b).shuffle(2, seed), b, a, workers(t)
        ),
        "concatenate": lambda d, t: d.concatenate(Dataset.range(a)),
        "zip": lambda d, t: Dataset.zip((d, Dataset.range(50).prefetch(a))).map(
            lambda x, y: x + y, workers(t)
        ),
    }


def build(seed: int, threads: bool) -> Dataset:
    rng = np.random.default_rng(seed)
    dataset = Dataset.range(int(rng.integers(5, 40)))
    for _ in range(rng.integers(2, 7)):
        table = steps(rng)
        dataset = table[str(rng.choice(sorted(table)))](dataset, threads)
        dataset = dataset.take(200)
    return dataset


@pytest.mark.parametrize("seed", range(60))
def test_chain(seed: int) -> None:
    first = build(seed, threads=False)
    epochs = [values(first), values(first)]
    threaded = build(seed, threads=True)
    assert [values(threaded), values(threaded)] == epochs, str(threaded)

    source = build(seed, threads=True)
    iterator = iter(source)
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(0, len(epochs[0]) + 1)):
        next(iterator)
    state: Any = unpack(pack(iterator.state()))
    fresh = build(seed, threads=True)
    restored = [plain(e) for e in fresh.iterator(state)]
    assert restored == epochs[0][iterator.position :], str(fresh)
    assert values(fresh) == epochs[1]
    assert [plain(e) for e in iterator] == restored
