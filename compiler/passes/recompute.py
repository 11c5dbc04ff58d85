"""Which values to keep for later and which to compute a second time, as a minimum cut.

At the moment of the greatest memory the values that are alive are kept for what comes after. Some
of them are cheap to compute again from others. Each early value is a pipe whose width is its size
in bytes; what is wide and cheap is cut nearer to the inputs, where less has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.core import Barrier, Input
from graphnn.compiler.passes.access import nbytes
from graphnn.compiler.passes.again import compute_again

CHEAP = ("map", "view")  # loop forms that may be run twice


@dataclass(frozen=True)
class Recompute:
    """Computes cheap values again instead of keeping them: where that moves fewer bytes, and if
    memory is short.

    memory_budget: bytes of intermediate values up to which memory is not short; None: it never is.
    most_weight: scalar operations up to which a value is computed again to save traffic; 0: never.
    Values marked by `recompute_grad` are computed again in any case, by their barriers.
    """

    name: ClassVar[str] = "recompute"
    memory_budget: int | None = None
    most_weight: int = 0

    def run(self, graph: Graph) -> Graph:
        """The graph, with some values computed a second time."""
        if self.most_weight:
            graph = compute_again(graph, self.most_weight)
        if self.memory_budget is None:
            return graph
        peak, position = peak_memory(graph)
        if peak <= self.memory_budget:
            return graph
        kept, again = choose(graph, position)
        new = repeat(graph, position, kept, again) if again else graph
        return new if peak_memory(new)[0] < peak else graph


def peak_memory(graph: Graph) -> tuple[int, int]:
    """(bytes, index): the greatest sum of living intermediate values, and after which node."""
    order = graph.nodes
    last = {source: i for i, node in enumerate(order) for source in node.inputs}
    last |= dict.fromkeys(graph.roots, len(order))
    alive, best = 0, (0, 0)
    ending: dict[int, int] = {}
    for i, node in enumerate(order):
        size = 0 if isinstance(node.op, Input) else nbytes(node)
        alive += size
        if alive > best[0]:
            best = alive, i
        ending[last.get(node, i)] = ending.get(last.get(node, i), 0) + size
        alive -= ending.pop(i, 0)
    return best


def choose(graph: Graph, position: int) -> tuple[set[Node], set[Node]]:
    """Early values to keep, and those that late nodes read and that are to be computed again.

    position: index of the last early node.
    """
    early = set(graph.nodes[: position + 1])
    wanted = _crossing(graph, early)
    kept = minimum_cut(early, wanted)
    return kept, {n for n in wanted if n not in kept and not isinstance(n.op, Input)}


def _crossing(graph: Graph, early: set[Node]) -> set[Node]:
    read = {s for n in graph.nodes if n not in early for s in n.inputs}
    return {n for n in read if n in early and isinstance(n.type, TensorType)}


def minimum_cut(early: set[Node], wanted: Iterable[Node]) -> set[Node]:
    """The values to keep: the fewest bytes from which all wanted ones can be computed cheaply."""
    import networkx

    flow = networkx.DiGraph()
    source, sink = "source", "sink"
    flow.add_nodes_from((source, sink))
    for node in early:
        free = isinstance(node.op, Input)  # inputs stay alive in any case
        flow.add_edge((node, 0), (node, 1), capacity=0 if free else nbytes(node))
        if free or not is_cheap(node):
            flow.add_edge(source, (node, 0))  # has to be there: no way to compute it again
        for producer in node.inputs:
            flow.add_edge((producer, 1), (node, 0))
    for node in wanted:
        flow.add_edge((node, 1), sink)
    _, (left, right) = networkx.minimum_cut(flow, source, sink)
    return {n for n in early if (n, 0) in left and (n, 1) in right}


def is_cheap(node: Node) -> bool:
    """Whether a value may be computed twice."""
    return node.op.fusion in CHEAP and not node.op.effect and isinstance(node.type, TensorType)


def repeat(graph: Graph, position: int, kept: set[Node], again: set[Node]) -> Graph:
    """The graph in which late nodes read second copies of some early values.

    The copies start from barriers on what is kept, so that they are not merged with the first ones.
    """
    copies: dict[Node, Node] = {}
    for node in graph.nodes[: position + 1]:
        if node in kept or isinstance(node.op, Input):
            copies[node] = Node(Barrier(key=position), (node,), node.type, node.loc, node.device)
        elif not node.inputs:
            copies[node] = node
        elif is_cheap(node) and all(i in copies for i in node.inputs):
            inputs = tuple(copies[i] for i in node.inputs)
            copies[node] = Node(node.op, inputs, node.type, node.loc, node.device)
    rewriter = Rewriter()
    for i, node in enumerate(graph.nodes):
        rewriter.replace[node] = node if i <= position else _late(rewriter, node, again, copies)
    return rewriter.graph(graph)


def _late(rewriter: Rewriter, node: Node, again: set[Node], copies: dict[Node, Node]) -> Node:
    inputs = tuple(
        copies[s] if s in again else new
        for s, new in zip(node.inputs, rewriter.inputs(node), strict=True)
    )
    if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return node
    return Node(node.op, inputs, node.type, node.loc, node.device)
