"""Finds where a value is multiplied by the derivative of an activation, whatever the activation.

The activation's own gradient rule is applied to the value; the graph is then searched for the
expression that this gives. So there is no pattern to keep in step with the ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import same
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.base import Op
from graphnn.compiler.ops.core import Input
from graphnn.compiler.passes.access import is_alias
from graphnn.compiler.passes.rewrite import Builder, mergeable
from graphnn.compiler.passes.simplify import RULES

DEPTH = 24  # nodes between a value and the activation that it is a slope of


class Slopes:
    """Numbers the expressions of a graph, so that equal ones have one number."""

    def __init__(self, graph: Graph) -> None:
        self.numbers: dict[Node, int] = {}
        self.known: dict[Any, int] = {}
        self.activations: dict[int, list[Node]] = {}  # by the number of their value
        self.builder = _Expander(RULES)
        for node in graph.nodes:
            self.number(node)
            if node.op.epilogue in ("relu", "gelu"):
                for value in (node.inputs[0], node):
                    self.activations.setdefault(self.number(_value(value)), []).append(node)

    def number(self, node: Node) -> int:
        """The number of the expression that a node is."""
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self.numbers:
                stack.pop()
                continue
            missing = [i for i in current.inputs if i not in self.numbers]
            if missing:
                stack += missing
                continue
            stack.pop()
            if current.op.apart:  # the value itself
                self.numbers[current] = self.numbers[current.inputs[0]]
                continue
            self.numbers[current] = self.known.setdefault(self._key(current), len(self.known))
        return self.numbers[node]

    def _key(self, node: Node) -> Any:
        if isinstance(node.op, Input) or not mergeable(node.op):
            return node
        inputs = tuple(self.numbers[i] for i in node.inputs)
        return node.op, tuple(sorted(inputs)) if node.op.commutative else inputs

    def find(self, value: Node, reader: Node) -> Node | None:
        """The activation whose slope times the value is what the value's one reader computes."""
        places = [value, *(i for i in reader.inputs if _value(i) is _value(value))]
        for activation in self._near(reader):
            for place in places:
                if place.shape != activation.shape or place.dtype != activation.dtype:
                    continue
                (slope,) = activation.op.grad(
                    self.builder.ops, activation.inputs[0], out=activation, g=place
                )
                if self.number(slope) == self.numbers[reader]:
                    return activation
        return None

    def _near(self, reader: Node) -> Iterable[Node]:
        """Activations of values that are read on the way to a node."""
        seen: dict[Node, None] = {}
        found: dict[Node, None] = {}
        stack = [reader] if isinstance(reader.type, TensorType) else []
        while stack and len(seen) < DEPTH:
            node = stack.pop()
            if node in seen:
                continue
            seen[node] = None
            found.update(dict.fromkeys(self.activations.get(self.number(_value(node)), ())))
            if node is reader or node.op.fusion in ("map", "view"):
                stack += [
                    i
                    for i in node.inputs
                    if isinstance(i.type, TensorType) and same(i.type.size, reader.tensor.size)
                ]
        return found


class _Expander(Builder):
    """Simplifies as the pipeline does, and takes composites apart."""

    def apply(self, op: Op, inputs: Sequence[Node]) -> Any:
        if op.has("decompose"):
            return op.decompose(self.ops, *inputs)
        return super().apply(op, inputs)


def _value(node: Node) -> Node:
    while is_alias(node):
        node = node.inputs[0]
    return node
