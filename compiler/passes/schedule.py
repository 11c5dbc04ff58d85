"""The order of steps: what gives memory back runs as soon as it can.

The order of the graph follows each result from its inputs, so that all gradients of weights come
after the whole backward pass, and everything they read stays alive until then. A step that frees
more than it needs is moved to where its inputs are ready; all others stay in order.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ops.core import Input
from graphnn.compiler.passes.access import nbytes


class Step(Protocol):
    """What is asked of a step: the values in memory that it reads and writes."""

    reads: list[Node]
    writes: list[Node]

    @property
    def lowered(self) -> Any:
        """None for a call back to the host: those keep their order."""


S = TypeVar("S", bound=Step)


def order_for_memory(works: Sequence[S], kept: set[Node]) -> list[S]:
    """The steps in an order that needs less memory.

    works: in a valid order. kept: values that stay in memory to the end, whoever reads them.
    """
    return _Order(works, kept).run()


class _Order:
    def __init__(self, works: Sequence[Any], kept: set[Node]) -> None:
        self.works, self.kept = works, kept
        writer = {n: k for k, w in enumerate(works) for n in w.writes}
        self.needs = [
            {writer[n] for n in w.reads if n in writer} - {k} for k, w in enumerate(works)
        ]
        calls = [k for k, w in enumerate(works) if w.lowered is None]
        for before, after in pairwise(calls):
            self.needs[after].add(before)
        self.followers: list[list[int]] = [[] for _ in works]
        for k, needs in enumerate(self.needs):
            for other in needs:
                self.followers[other].append(k)
        self.readers: dict[Node, set[int]] = {}
        for k, work in enumerate(works):
            for node in work.reads:
                self.readers.setdefault(node, set()).add(k)
        self.done: set[int] = set()
        self.missing = [len(needs) for needs in self.needs]

    def run(self) -> list[Any]:
        """Freeing steps first, else the first one that is ready."""
        ready = [k for k, count in enumerate(self.missing) if not count]
        heapq.heapify(ready)
        waiting: set[int] = set(ready)
        freeing: set[int] = {k for k in ready if self.gain(k) > 0}
        result = []
        while waiting:
            if freeing:
                k = max(freeing, key=lambda k: (self.gain(k), -k))
            else:
                k = heapq.heappop(ready)
                if k not in waiting:
                    continue
            waiting.discard(k)
            freeing.discard(k)
            self.done.add(k)
            result.append(self.works[k])
            for node in self.works[k].reads:
                self.readers[node].discard(k)
                freeing |= {r for r in self.readers[node] & waiting if self.gain(r) > 0}
            for follower in self.followers[k]:
                self.missing[follower] -= 1
                if not self.missing[follower]:
                    heapq.heappush(ready, follower)
                    waiting.add(follower)
                    if self.gain(follower) > 0:
                        freeing.add(follower)
        return result

    def gain(self, k: int) -> int:
        """Bytes that a step gives back, less those that it takes."""
        work = self.works[k]
        freed = sum(
            nbytes(n)
            for n in dict.fromkeys(work.reads)
            if self.readers[n] == {k} and n not in self.kept and not isinstance(n.op, Input)
        )
        return freed - sum(nbytes(n) for n in work.writes if n not in self.kept)
