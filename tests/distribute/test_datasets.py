"""Global batches split over replicas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.distribute import InputContext, MirroredStrategy
from graphnn.errors import ArgumentError


def shapes(value: Any) -> list[tuple[int, ...]]:
    return [tuple(v.shape) for v in value.values]


def test_batches_are_split_in_order(strategy: MirroredStrategy) -> None:
    x, y = np.arange(22.0, dtype="float32").reshape(11, 2), np.arange(11)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    distributed = strategy.experimental_distribute_dataset(dataset)
    batches = list(distributed)
    assert [shapes(b[0]) for b in batches[:2]] == [[(3, 2), (2, 2)]] * 2
    assert tuple(batches[2][0].shape) == (1, 2)  # one example: one replica
    assert np.concatenate([np.array(v) for v in batches[0][1].values]).tolist() == [0, 1, 2, 3, 4]
    assert len(distributed) == 3 and int(distributed.cardinality()) == 3
    assert distributed.element_spec[0].shape[1] == 2
    assert len(next(iter(distributed))) == 2


def test_structures_scalars_and_text(strategy: MirroredStrategy) -> None:
    batch = {"x": np.ones((4, 2)), "n": np.float32(3), "t": np.array(["a", "b", "c", "d"])}
    (found,) = strategy.experimental_distribute_dataset([batch])
    assert shapes(found["x"]) == [(2, 2)] * 2
    assert [float(v) for v in found["n"].values] == [3.0, 3.0]
    assert shapes(found["t"]) == [(2,)] * 2


def test_a_batch_smaller_than_the_replicas(strategy: MirroredStrategy, golden: Any) -> None:
    distributed = strategy.experimental_distribute_dataset([np.ones((1, 2))])
    with pytest.raises(ArgumentError) as caught:
        next(iter(distributed))
    error = caught.value
    text = f"{error.subject}\nreceived: {error.received}\nexpected: {error.expected}"
    golden("../errors/distribute/small_batch.txt", f"{text}\nfix: {error.fix}")


def test_one_dataset_for_each_replica(strategy: MirroredStrategy) -> None:
    def make(context: InputContext) -> Any:
        size = context.get_per_replica_batch_size(8)
        return tf.data.Dataset.range(20).batch(size)

    distributed = strategy.distribute_datasets_from_function(make)
    batches = list(distributed)
    assert [len(b.values) for b in batches[:2]] == [2, 2] and len(distributed) == 3
    assert batches[1].values[0].numpy().tolist() == [8, 9, 10, 11]
    assert batches[2].numpy().tolist() == [16, 17, 18, 19]  # what is left: one replica
    with pytest.raises(ArgumentError, match="a multiple of 2"):
        InputContext(num_replicas_in_sync=2).get_per_replica_batch_size(7)


def test_iterating_again_and_stopping_early(strategy: MirroredStrategy) -> None:
    dataset = tf.data.Dataset.range(8).batch(2).prefetch(2)
    distributed = strategy.experimental_distribute_dataset(dataset)
    iterator = iter(distributed)
    next(iterator)
    iterator.close()
    assert len(list(distributed)) == len(list(distributed)) == 4
