"""Values that differ from replica to replica, and structures that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphnn import tree
from graphnn.runtime.errors import ArgumentError
from graphnn.tensor import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class PerReplica:
    """One value for each replica; what `run` takes and returns where replicas differ.

    values: the values, in the order of the replicas.

    >>> graphnn.distribute.PerReplica((1, 2)).values
    (1, 2)
    """

    values: tuple[Any, ...]

    def __repr__(self) -> str:
        rows = "".join(f"  {i}: {value!r}\n" for i, value in enumerate(self.values))
        return f"PerReplica:{{\n{rows}}}"


def select(value: Any, replica: int) -> Any:
    """A structure as one replica sees it."""
    if isinstance(value, PerReplica):
        return value.values[replica]
    if tree.is_leaf(value):
        return value
    old = [child for _, child in tree.children(value)]
    new = [select(child, replica) for child in old]
    same = all(a is b for a, b in zip(old, new, strict=True))
    return value if same else tree.rebuild(value, new)


def replicas_of(value: Any, limit: int, subject: str) -> int:
    """How many replicas a structure has values for, `limit` if it holds none that differ.

    Raises ArgumentError if that is unclear or too many.
    """
    counts = {len(v.values) for v in _per_replica(value)}
    if not counts:
        return limit
    if len(counts) == 1 and 1 <= (count := counts.pop()) <= limit:
        return count
    raise ArgumentError(
        subject,
        received=f"values for {' and '.join(map(str, sorted(counts))) or count} replicas",
        expected=f"one value for each of {limit} replicas",
        fix="take the arguments from one batch of a dataset that this strategy distributes",
    )


def _per_replica(value: Any) -> list[PerReplica]:
    if isinstance(value, PerReplica):
        return [value]
    if tree.is_leaf(value):
        return []
    return [found for _, child in tree.children(value) for found in _per_replica(child)]


def regroup(results: Sequence[Any]) -> Any:
    """What the replicas returned, as one structure with a PerReplica at each tensor or number.

    Other objects (None, text, Variables) that are the same on all replicas stay as they are.
    """
    first = results[0]
    if len(results) == 1:
        return first
    if isinstance(first, PerReplica | Tensor | bool | int | float):
        return PerReplica(tuple(results))
    if all(r is first for r in results):
        return first
    alike = all(type(r) is type(first) for r in results)
    if tree.is_leaf(first) or not alike:
        same = alike and isinstance(first, str) and all(r == first for r in results)
        return first if same else PerReplica(tuple(results))
    rows = [tree.children(r) for r in results]
    if any([k for k, _ in row] != [k for k, _ in rows[0]] for row in rows):
        return PerReplica(tuple(results))
    columns = zip(*([child for _, child in row] for row in rows), strict=True)
    return tree.rebuild(first, [regroup(column) for column in columns])
