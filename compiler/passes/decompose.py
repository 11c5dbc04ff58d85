"""Replaces composite ops (softmax, cross-entropy, ...) by the ops they are said in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.types import TupleType
from graphnn.compiler.ops.base import Op, Ops
from graphnn.compiler.ops.core import Item
from graphnn.compiler.trace import GraphHandler


@dataclass(frozen=True)
class Decompose:
    """Runs `decompose` rules until only primitive ops remain.

    keep_rules: leave composites whole that state how (or that no) gradient flows through them,
    for their own rule is better than the one of their parts. libraries: leave whole what one of
    these does, by the op's own word (`library`).
    """

    name: ClassVar[str] = "decompose"
    keep_rules: bool = False
    libraries: tuple[str, ...] = ()

    def run(self, graph: Graph) -> Graph:
        """The graph with composites replaced."""
        if not any(self.splits(n.op, n.inputs) for n in graph.nodes):
            return graph
        handler = Splitter(self)
        rewriter = Rewriter()
        parts: dict[Node, Sequence[Node]] = {}  # results of split ops that have several
        for node in graph.nodes:
            if isinstance(node.op, Item) and node.inputs[0] in parts:
                rewriter.replace[node] = parts[node.inputs[0]][node.op.index]
            elif self.splits(node.op, node.inputs):
                handler.at(node)
                result = handler.split(node.op, rewriter.inputs(node))
                if isinstance(node.type, TupleType):
                    parts[node] = result
                else:
                    rewriter.replace[node] = result
            else:
                rewriter.replace[node] = rewriter.copy(node)
        return rewriter.graph(graph)

    def splits(self, op: Op, inputs: Sequence[Node]) -> bool:
        """Whether an op is replaced."""
        if not op.has("decompose"):
            return False
        rule = getattr(op, "library", None) if self.libraries else None
        if rule and any(rule(name, *(i.tensor for i in inputs)) for name in self.libraries):
            return False
        return not (self.keep_rules and (op.has("grad") or op.gradient is not None))


class Splitter(GraphHandler):
    """Makes nodes, decomposing on the way, so that composites within composites vanish too."""

    def __init__(self, options: Decompose) -> None:
        super().__init__()
        self.options = options
        self.ops = Ops(self)

    def apply(self, op: Op, inputs: Sequence[Node]) -> Any:
        if self.options.splits(op, inputs):
            return self.split(op, inputs)
        return super().apply(op, inputs)

    def split(self, op: Op, inputs: Sequence[Node]) -> Any:
        """What stands for the op: one node or a tuple of them."""
        return op.decompose(self.ops, *inputs)
