"""Expands each `gradient` node into the backward graph, with the ops' own gradient rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graphnn.compiler.gradients import Step, backpropagate
from graphnn.compiler.ir.graph import Graph, Node, Rewriter, topological
from graphnn.compiler.ir.types import TupleType
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.core import Gradient, Identity, Input, Item
from graphnn.compiler.passes.decompose import Decompose, Splitter
from graphnn.runtime.errors import Loc

WITH_RULES = Decompose(keep_rules=True)  # after it every op says how gradients flow through it


@dataclass(frozen=True)
class ExpandGradients:
    """Writes out gradients, first to last, so that one of another finds that one expanded."""

    name: ClassVar[str] = "gradient"

    def run(self, graph: Graph) -> Graph:
        """The graph without `gradient` nodes; backward nodes carry their forward node's place."""
        if not any(isinstance(n.op, Gradient) for n in graph.nodes):
            return graph
        return written_out(graph.nodes).graph(graph)


def written_out(nodes: Iterable[Node]) -> Rewriter:
    """Replacements of nodes, given in order: gradients expanded, composites without rule split."""
    rewriter = Rewriter()
    handler = Splitter(WITH_RULES)
    parts: dict[Node, Sequence[Node]] = {}
    for node in nodes:
        if isinstance(node.op, Gradient):
            parts[node] = expand(node.op, rewriter.inputs(node), node.loc, node.device)
        elif isinstance(node.op, Item) and node.inputs[0] in parts:
            rewriter.replace[node] = parts[node.inputs[0]][node.op.index]
        elif WITH_RULES.splits(node.op, node.inputs):
            handler.at(node)
            result = handler.split(node.op, rewriter.inputs(node))
            if isinstance(node.type, TupleType):
                parts[node] = result
            else:
                rewriter.replace[node] = result
        else:
            rewriter.replace[node] = rewriter.copy(node)
    return rewriter


def expand(
    op: Gradient, inputs: Sequence[Node], loc: Loc | None = None, device: str = ""
) -> list[Node]:
    """The gradients of a `gradient` node over the given inputs, one for each source."""
    first, second = op.targets, op.targets + op.sources
    targets, sources, ends = inputs[:first], inputs[first:second], inputs[second:]
    order = ancestors(targets, set(ends[: op.constants]))
    handler = Splitter(WITH_RULES)  # a rule's own composites may be differentiated once more
    found = _backward(op, inputs, order, handler)
    handler.loc, handler.device = loc, device
    # A path that simplification has cut leaves nothing: the gradient is zero.
    zeros = Ops(handler).zeros_like
    results = [zeros(s) if g is None else g for s, g in zip(sources, found, strict=True)]
    # A custom rule may have used a tape, which leaves a gradient of its own.
    new = ancestors(results, {*order, *inputs})
    if not any(isinstance(n.op, Gradient) for n in new):
        return results
    return list(map(written_out(new), results))


def _backward(
    op: Gradient, inputs: Sequence[Node], order: Sequence[Node], handler: Splitter
) -> list[Node | None]:
    """The gradient of each source by the rules of the nodes in `order`; None without a path."""
    first, second = op.targets, op.targets + op.sources

    def at(step: Step) -> None:
        handler.loc, handler.device = step.loc, step.device

    pairs = zip(inputs[:first], inputs[second + op.constants :], strict=True)
    sources = inputs[first:second]
    found = backpropagate(Ops(handler), steps_of(order), pairs, sources, at)
    return [found.get(id(s)) for s in sources]


def connected(op: Gradient, inputs: Sequence[Node]) -> list[bool]:
    """Whether a gradient reaches each source of a `gradient` node over some inputs.

    Gradients among what the targets need are written out for it, as the pass will do: so the answer
    is that of the rules in eager mode, also for a gradient of a gradient.
    """
    rewriter = written_out(topological(inputs))
    new = [rewriter(i) for i in inputs]
    second = op.targets + op.sources
    order = ancestors(new[: op.targets], set(new[second : second + op.constants]))
    return [g is not None for g in _backward(op, new, order, Splitter(WITH_RULES))]


def steps_of(order: Sequence[Node]) -> list[Step]:
    """The applications that some nodes are, in order."""
    items: dict[Node, dict[int, Node]] = {}
    aliases: list[tuple[Node, Node]] = []
    for node in order:
        if isinstance(node.op, Item) and node.inputs:
            known = items.setdefault(node.inputs[0], {}).setdefault(node.op.index, node)
            if known is not node:
                aliases.append((known, node))
    steps: list[Step] = []
    copies = {new: Step(Identity(), (old,), new, new.loc, new.device) for old, new in aliases}
    for node in order:
        if isinstance(node.op, Item):
            steps += [copies[node]] if node in copies else []
            continue
        out: Any = node
        if isinstance(node.type, TupleType):
            known_items = items.get(node, {})
            out = tuple(  # a rule needs all results, also those that nothing has read
                known_items.get(i) or Node(Item(index=i), (node,), t, node.loc, node.device)
                for i, t in enumerate(node.type.items)
            )
        steps.append(Step(node.op, node.inputs, out, node.loc, node.device))
    return steps


def ancestors(targets: Sequence[Node], ends: set[Node]) -> list[Node]:
    """Nodes that a target needs, each after its inputs; inputs of the graph and ends left out."""
    seen: set[Node] = set(ends)
    order: list[Node] = []
    stack: list[tuple[Node, int]] = [(t, 0) for t in reversed(targets)]
    while stack:
        node, position = stack.pop()
        if node in seen:
            continue
        if position < len(node.inputs):
            stack += [(node, position + 1), (node.inputs[position], 0)]
            continue
        seen.add(node)
        if not isinstance(node.op, Input):
            order.append(node)
    return order
