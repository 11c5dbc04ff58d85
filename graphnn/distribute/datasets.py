"""Batches split over replicas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.distribute.values import regroup
from graphnn.runtime.errors import ArgumentError
from graphnn.tensor import Operand, Tensor

Feed = Callable[[Sequence[Any]], list[Any]]
"""Sends the leaves of each replica to its device."""


@dataclass(frozen=True)
class InputContext:
    """What a function that makes a dataset knows of the replicas.

    >>> graphnn.distribute.InputContext(num_replicas_in_sync=2).get_per_replica_batch_size(8)
    4
    """

    num_input_pipelines: int = 1
    input_pipeline_id: int = 0
    num_replicas_in_sync: int = 1

    def get_per_replica_batch_size(self, global_batch_size: int) -> int:
        """The batch size of one replica. Raises ArgumentError if it is not a whole number."""
        size, rest = divmod(global_batch_size, self.num_replicas_in_sync)
        if rest:
            raise ArgumentError(
                "get_per_replica_batch_size",
                received=f"a global batch of {global_batch_size} examples",
                expected=f"a multiple of {self.num_replicas_in_sync}, the number of replicas",
                fix="choose another global batch size",
            )
        return size


def cut_points(count: int, replicas: int) -> list[int]:
    """Where the examples of each replica begin, and the end; the first ones get the rest."""
    active = max(1, min(count, replicas))
    size, rest = divmod(count, active)
    return [i * size + min(i, rest) for i in range(active + 1)]


def split_leaves(leaves: Sequence[Any], replicas: int) -> list[tuple[Any, ...]]:
    """The tensors of a batch for each replica that gets an example; scalars go to all.

    leaves: tensors or arrays with examples along the first axis.
    """
    counts = [len(x) for x in leaves if getattr(x, "shape", ())]
    cuts = cut_points(counts[0] if counts else replicas, replicas)
    return [tuple(_rows(x, *ends) for x in leaves) for ends in itertools.pairwise(cuts)]


def _rows(value: Any, first: int, end: int) -> Any:
    if not getattr(value, "shape", ()):
        return value
    if isinstance(value, Operand) and not isinstance(value, Tensor):
        value = value._tensor()
    if isinstance(value, Tensor) and not value.is_traced:
        return Tensor(value._value[first:end])  # a view
    return value[first:end]


def check_batch(leaves: Sequence[Any], replicas: int, subject: str) -> None:
    """Raise ArgumentError for a batch with fewer examples than replicas."""
    counts = [len(x) for x in leaves if getattr(x, "shape", ())]
    if counts and counts[0] < replicas:
        raise too_small(counts[0], replicas, subject)


def too_small(count: int, replicas: int, subject: str) -> ArgumentError:
    """The error for a batch that cannot be split."""
    return ArgumentError(
        subject,
        received=f"a batch of {count} for {replicas} replicas",
        expected="a global batch with at least one example for each replica",
        fix=f"use a batch size of {replicas} or more; it counts the examples of all replicas",
    )


class DistributedDataset:
    """What `Strategy.experimental_distribute_dataset` gives."""

    def __init__(self, dataset: Any, replicas: int, feed: Feed = list) -> None:
        self.dataset, self._replicas, self._feed = dataset, replicas, feed

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.dataset):
            leaves = tree.flatten(batch)
            if not number:
                check_batch(leaves, self._replicas, "a distributed dataset")
            parts = split_leaves(leaves, self._replicas)
            yield self._joined([tree.unflatten(batch, list(part)) for part in parts])

    def _joined(self, parts: list[Any]) -> Any:
        leaves = [tuple(map(_as_tensor, tree.flatten(part))) for part in parts]
        fed = zip(parts, self._feed(leaves), strict=True)
        return regroup([tree.unflatten(part, list(own)) for part, own in fed])

    def __len__(self) -> int:
        return len(self.dataset)

    def cardinality(self) -> Any:
        """Number of batches, as the dataset states it."""
        return self.dataset.cardinality()

    @property
    def element_spec(self) -> Any:
        """Specs of the global batches."""
        return self.dataset.element_spec


class DistributedFunctionDataset(DistributedDataset):
    """What `Strategy.distribute_datasets_from_function` gives: a batch for each replica in turn."""

    def __iter__(self) -> Iterator[Any]:
        parts: list[Any] = []
        for batch in self.dataset:
            parts.append(batch)
            if len(parts) == self._replicas:
                yield self._joined(parts)
                parts = []
        if parts:
            yield self._joined(parts)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self._replicas)

    def cardinality(self) -> Any:
        """Number of steps; negative for endless and unknown, as the dataset states it."""
        count = int(self.dataset.cardinality())
        return np.int64(count if count < 0 else -(-count // self._replicas))


def _as_tensor(leaf: Any) -> Any:
    known = isinstance(leaf, Operand) or leaf is None or isinstance(leaf, str)
    return leaf if known else Tensor(np.asarray(leaf))
