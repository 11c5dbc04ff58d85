"""Training from a Dataset whose batches share memory gives the numbers of separate batches."""

from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.data import AUTOTUNE, Dataset
from graphnn.keras.models.data import make_source

RNG = np.random.default_rng(4)
X = RNG.normal(size=(70, 6)).astype("float32")
Y = RNG.integers(0, 3, 70)


def model(eager: bool = False) -> Any:
    keras.utils.set_random_seed(5)
    made = keras.Sequential([keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("adam", loss, metrics=["accuracy"], run_eagerly=eager)
    return made


def pairs() -> Dataset:
    return Dataset.from_tensor_slices((X, Y)).shuffle(20, seed=3).batch(16)


ORDERS = {
    "guide": lambda: pairs().prefetch(AUTOTUNE),
    "plain": pairs,
    "thread": lambda: pairs().prefetch(3),
    "mapped": lambda: pairs().map(lambda x, y: (x, y)).prefetch(AUTOTUNE),
    "mixed sizes": lambda: pairs().repeat(2).concatenate(pairs()),
    "lists": lambda: pairs().map(lambda x, y: {"x": x, "y": y}).map(lambda d: (d["x"], d["y"])),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("weights", [None, {0: 1.0, 1: 2.0, 2: 0.5}])
def test_fit_of_a_dataset_is_fit_of_its_batches(name: str, weights: Any) -> None:
    apart = list(ORDERS[name]())
    wanted = model().fit(iter(apart), class_weight=weights, verbose=0).history
    assert model().fit(ORDERS[name](), class_weight=weights, verbose=0).history == wanted


def test_evaluate_and_predict_of_shuffled_batches() -> None:
    made = model()
    made.fit(pairs(), verbose=0)
    apart = list(pairs())
    assert made.evaluate(pairs(), verbose=0) == made.evaluate(iter(apart), verbose=0)
    assert np.array_equal(made.predict(pairs(), verbose=0), made.predict(iter(apart), verbose=0))


def test_eager_steps_may_keep_their_batches() -> None:
    kept: list[Any] = []

    class Keeping(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            kept.append(data[0])
            return super().train_step(data)

    made = Keeping([keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("sgd", loss, run_eagerly=True)
    made.fit(pairs(), verbose=0)
    rows = np.concatenate([x.numpy() for x in kept])
    assert np.array_equal(np.sort(rows, axis=0), np.sort(X, axis=0))


def test_compiled_steps_get_the_same_tensors_again() -> None:
    source = make_source(pairs())
    assert source.ready()
    *full, last = [(id(leaves), len(leaves[0])) for leaves in source.epoch()]
    source.close()
    assert full == [full[0]] * 4 and full[0][1] == 16
    assert last[1] == 6
