"""Random numbers in functions that pipelines call: fixed by seed, pass and element alone."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.data import AUTOTUNE, Dataset
from graphnn.data.storage import pack, unpack
from tests.data.conftest import plain, values

OWN = tf.random.Generator.from_seed(3)
LAYER = tf.random.SeedGenerator(5)


def wait_a_little(x: Any) -> None:
    time.sleep((int(x) * 7 % 5) / 2000)  # so that threads end out of order


@tf.function
def compiled(x: Any) -> Any:
    return tf.cast(x, "float32") + tf.random.uniform(()) + LAYER.uniform(())


def under_a_tape(x: Any) -> Any:
    weight = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = compiled(x) * weight
    return tape.gradient(y, weight)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "global": lambda x: tf.random.normal((2,)),
    "twice": lambda x: tf.random.uniform(()) - tf.random.uniform(()),
    "seed": lambda x: tf.random.uniform((2,), seed=11),
    "generator": lambda x: OWN.normal((2,)),
    "seed generator": lambda x: tf.random.uniform((), seed=LAYER),
    "made inside": lambda x: tf.random.SeedGenerator().uniform(()),
    "compiled": compiled,
    "compiled under a tape": under_a_tape,
    "integers": lambda x: tf.random.randint((), 0, 1 << 30),
}


def dataset(function: Callable[[Any], Any], workers: int | None, ahead: int = 0) -> Dataset:
    def call(x: Any) -> Any:
        wait_a_little(x)
        return function(x)

    tf.random.set_seed(2)
    made = Dataset.range(12).map(call, num_parallel_calls=workers)
    return made.prefetch(ahead) if ahead else made


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_whatever_the_parallelism(name: str) -> None:
    first, second = (values(dataset(FUNCTIONS[name], None).repeat(2)) for _ in range(2))
    assert first == second
    assert len({str(v) for v in first}) == 24  # each element and each pass has its own numbers
    for workers, ahead in ((1, 0), (4, 2), (AUTOTUNE, 1)):
        assert values(dataset(FUNCTIONS[name], workers, ahead).repeat(2)) == first


def test_new_iterators_are_new_passes() -> None:
    made = dataset(FUNCTIONS["global"], 3)
    one, two = values(made), values(made)
    assert one != two
    assert values(dataset(FUNCTIONS["global"], None).repeat(2)) == one + two


def test_other_seeds_give_other_numbers() -> None:
    tf.random.set_seed(1)
    one = values(Dataset.range(3).map(FUNCTIONS["global"]))
    assert values(Dataset.range(3).map(FUNCTIONS["global"])) != one  # a map of its own
    tf.random.set_seed(1)
    assert values(Dataset.range(3).map(FUNCTIONS["global"])) == one


def test_generators_stay_as_they_are() -> None:
    states = [g.state for g in (OWN, LAYER, tf.random.get_global_generator())]
    made = [dataset(FUNCTIONS[name], 3) for name in FUNCTIONS]
    before = [s.numpy().copy() for s in states]
    for one in made:
        values(one)
    assert all((s.numpy() == b).all() for s, b in zip(states, before, strict=True))
    generator = tf.random.Generator(9)
    want = (float(generator.uniform(())), float(generator.uniform(())))
    generator.reset_from_seed(9)
    assert float(generator.uniform(())) == want[0]
    values(Dataset.range(3).map(lambda x: generator.uniform(())))
    assert float(generator.uniform(())) == want[1]


def test_generators_made_for_one_element_are_their_own() -> None:
    made = Dataset.range(4).map(lambda x: tf.random.Generator.from_seed(4).uniform(()), 2)
    assert set(values(made)) == {float(tf.random.Generator.from_seed(4).uniform(()))}


def test_generators_of_one_seed_stay_in_step() -> None:
    image, mask = tf.random.Generator(6), tf.random.Generator(6)
    made = Dataset.range(9).map(lambda x: (image.uniform(()), mask.uniform(())), 3)
    assert all(a == b for a, b in values(made))


def test_numbers_are_spread_evenly() -> None:
    made = Dataset.range(4000).map(lambda x: tf.random.uniform(()))
    counts = np.histogram(values(made), 10, (0, 1))[0]
    assert abs(counts - 400).max() < 90


OTHERS: dict[str, Callable[[int | None], Dataset]] = {
    "filter": lambda n: (
        Dataset.range(30).filter(lambda x: tf.random.uniform(()) < 0.5).prefetch(n or 1)
    ),
    "flat_map": lambda n: Dataset.range(8).flat_map(
        lambda x: Dataset.range(x).shuffle(8).map(lambda y: tf.random.uniform(()), n)
    ),
    "interleave": lambda n: Dataset.range(8).interleave(
        lambda x: Dataset.from_tensors(tf.random.uniform(())).repeat(3), 3, num_parallel_calls=n
    ),
    "generator": lambda n: Dataset.from_generator(
        lambda: (tf.random.uniform(()) for _ in range(9))
    ).prefetch(n or 1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_stages_do_not_depend_on_threads_either(name: str) -> None:
    found = []
    for workers in (None, 4):
        tf.random.set_seed(3)
        made = OTHERS[name](workers).repeat(2)
        iterator = iter(made)
        rows = []
        for element in iterator:
            rows.append(plain(element))
            tf.random.uniform(())  # what the loop draws has no influence
        found.append(rows)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["global", "compiled", "filter", "interleave", "generator"])
@pytest.mark.parametrize("workers", [None, 3])
def test_restored_positions_go_on_with_the_same_numbers(name: str, workers: int | None) -> None:
    def make() -> Dataset:
        if name in OTHERS:
            return OTHERS[name](workers).repeat(2)
        return Dataset.range(7).map(FUNCTIONS[name], workers).repeat(2)

    tf.random.set_seed(4)
    source = iter(make())
    for _ in range(5):
        next(source)
    state = unpack(pack(source.state()))
    rest = [plain(e) for e in source]
    tf.random.set_seed(5)  # the seeds are part of the position
    with make().iterator(state) as restored:
        assert [plain(e) for e in restored] == rest


def test_two_readers_of_one_stage_never_share_a_pass() -> None:
    drawn = Dataset.range(3).map(lambda i: tf.random.uniform(()))
    rows = [tuple(map(float, pair)) for pair in Dataset.zip((drawn, drawn)).repeat(3)]
    numbers = [number for pair in rows for number in pair]
    assert len(set(numbers)) == len(numbers) == 18
