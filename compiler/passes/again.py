"""Values that a later part of the graph computes again instead of reading them from memory.

Library calls cut a graph into stretches; what one stretch leaves for a later one goes through
memory: written once, read once. Where the later stretch can compute such a value from others that
are in memory in any case and are no larger, it reads those instead, and nothing is written. In a
train step these are, for example, the normalised rows of a layer norm, and the derivative of an
activation.
"""

from __future__ import annotations

from dataclasses import replace

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.base import Elementwise
from graphnn.compiler.ops.core import Barrier, Input, Item
from graphnn.compiler.passes.access import is_alias, nbytes, weight

SMALL = 16  # a value so many times smaller costs nothing to keep
AT_ONCE = ("map", "view", "reduce")  # ops that share kernels; the others are steps of their own


def compute_again(graph: Graph, most_weight: int) -> Graph:
    """The graph with second copies of cheap values where later stretches read them.

    most_weight: scalar operations that an element may cost, a function counts 8.
    """
    again = _Again(graph, most_weight)
    found: dict[Node, set[Node]] = {}
    for node in graph.nodes:
        leaves = again.leaves(node) if again.is_wanted(node) else None
        if leaves is not None:
            found[node] = leaves
    return again.rewritten(found) if found else graph


class _Again:
    def __init__(self, graph: Graph, most_weight: int) -> None:
        self.graph, self.most_weight = graph, most_weight
        self.first, self.times = _times(graph)
        self.kept: set[Node] = set(graph.roots) | set(graph.inputs)  # in memory whatever is done
        for node in graph.nodes:
            if isinstance(node.op, Item):
                self.kept.add(node)
            elif _is_cut(node):
                self.kept.update((node, *node.inputs))
        for node in reversed(graph.nodes):
            if node in self.kept and node.op.fusion == "view" and is_alias(node):
                self.kept.add(node.inputs[0])

    def later(self, node: Node) -> list[Node]:
        """Readers in later stretches."""
        time = self.times[node]
        return [r for r in self.graph.users[node] if self.times[r] > time]

    def is_wanted(self, node: Node) -> bool:
        """Whether a value is stored only because later stretches read it."""
        if node in self.kept or not _is_map(node) or not node.inputs:
            return False
        later = self.later(node)
        return bool(later) and len(later) < len(self.graph.users[node])

    def leaves(self, node: Node) -> set[Node] | None:
        """What a second copy is computed from; None where that is not cheaper than reading it.

        Called in the order of the graph: a value that is not computed again is kept from then on.
        """
        found: set[Node] = set()
        cost, stack, seen = 0, [node], {node}
        while stack:
            current = stack.pop()
            cost += weight(current) if current.op.fusion == "map" else 0
            if cost > self.most_weight:
                break
            for source in current.inputs:
                if source in seen:
                    continue
                seen.add(source)
                if source in self.kept or not source.inputs or _is_small(source, node):
                    found.add(source)
                elif _is_map(source) or is_alias(source):
                    stack.append(source)
                else:
                    cost = self.most_weight + 1
        read = sum(nbytes(leaf) for leaf in found if _is_read(leaf) and not _is_small(leaf, node))
        if cost > self.most_weight or read > nbytes(node):
            self.kept.add(node)
            return None
        return found

    def rewritten(self, leaves: dict[Node, set[Node]]) -> Graph:
        """The graph in which later readers of these values have copies of their own."""
        rewriter = Rewriter()
        copies: dict[tuple[Node, int], Node] = {}

        def copied(node: Node, ends: set[Node], time: int) -> Node:
            if not node.inputs:
                return rewriter.replace[node]
            if (node, time) not in copies:
                if node not in ends:
                    inputs = tuple(copied(i, ends, time) for i in node.inputs)
                    new = replace(node, inputs=inputs)
                elif _is_cut(node) or isinstance(node.op, Item):
                    new = rewriter.replace[node]
                else:  # else the copy would be computed together with the first one
                    new = replace(node, op=Barrier(key=time), inputs=(rewriter.replace[node],))
                copies[node, time] = new
            return copies[node, time]

        for node in self.graph.nodes:
            time, first = self.times[node], self.first[node]
            inputs = tuple(
                copied(i, leaves[i], first)  # kernels that run at the same time share a copy
                if i in leaves and self.times[i] < time
                else rewriter.replace[i]
                for i in node.inputs
            )
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            rewriter.replace[node] = node if same else replace(node, inputs=inputs)
        return rewriter.graph(self.graph)


def _times(graph: Graph) -> tuple[dict[Node, int], dict[Node, int]]:
    """(first, chosen): the stretch in which each node can be computed, and in which it will be.

    That is the last one before its readers, and the first one where only the end needs it.
    """
    cuts = {n: k for k, n in enumerate((n for n in graph.nodes if _is_cut(n)), 1)}
    end = len(cuts) + 1
    first: dict[Node, int] = {}
    for node in graph.nodes:
        first[node] = cuts.get(node) or max((first[i] for i in node.inputs), default=0)
    last: dict[Node, int] = {}
    for node in reversed(graph.nodes):
        readers = (cuts[r] - 1 if r in cuts else last[r] for r in graph.users[node])
        last[node] = cuts.get(node) or min(readers, default=end)
    return first, {n: last[n] if last[n] < end else first[n] for n in graph.nodes}


def _is_cut(node: Node) -> bool:
    """Whether a node is a step of its own."""
    return node.op.fusion not in AT_ONCE and not isinstance(node.op, Input | Item)


def _is_map(node: Node) -> bool:
    return isinstance(node.op, Elementwise) and not node.op.effect


def _is_read(node: Node) -> bool:
    """Whether a value comes from memory; constants and fills do not."""
    return bool(node.inputs) or isinstance(node.op, Input)


def _is_small(node: Node, other: Node) -> bool:
    return isinstance(node.type, TensorType) and nbytes(node) * SMALL <= nbytes(other)
