"""A compiled graph as one op: what a tape records when a `@function` is called under it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import TensorType, TupleType, is_float
from graphnn.compiler.ops.base import Op
from graphnn.compiler.ops.core import Gradient, Input, Item
from graphnn.runtime.errors import ShapeError


class Callee(Protocol):
    """A graph without updates that can be run, and whose gradient is another one."""

    graph: Graph

    def evaluate(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Arrays of the outputs, for arrays of the inputs."""

    def backward(self) -> Callee:
        """The callee of `backward_graph`."""

    def reached(self) -> Sequence[bool]:
        """For each float input, whether a gradient of the outputs reaches it."""


class Call(Op):
    """The outputs of a graph for other inputs; its gradient runs the graph's backward program.

    program: hashed by identity, since two graphs are not compared.
    """

    name = "call"
    program: Any

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        env = bind_types(self.program.graph, types)
        return tuple(o.tensor.bind(env) for o in self.program.graph.outputs)

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return self.program.evaluate(arrays)

    def grad(self, ops: Any, *inputs: Any, out: Any, g: Any) -> Any:
        graph = self.program.graph
        seeds = [gi for gi, o in zip(g, graph.outputs, strict=True) if is_float(o.dtype)]
        reached = self.program.reached()
        if not any(reached):
            return (None,) * len(inputs)
        found = ops.call(*inputs, *seeds, program=self.program.backward())
        known = iter([v if some else None for v, some in zip(found, reached, strict=True)])
        return tuple(next(known) if is_float(i.dtype) else None for i in graph.inputs)

    def decompose(self, ops: Any, *inputs: Any) -> Any:
        graph = self.program.graph
        env = bind_types(graph, [ops.type(i) for i in inputs])
        values: dict[Node, Any] = dict(zip(graph.inputs, inputs, strict=True))
        for node in graph.nodes:
            if node not in values:
                op = node.op.bind(env)
                values[node] = getattr(ops, op.name)(
                    *(values[i] for i in node.inputs), **op.settings()
                )
        return tuple(values[o] for o in graph.outputs)


def bind_types(graph: Graph, types: Sequence[TensorType]) -> dict[Any, Any]:
    """Values of a graph's symbols for inputs of some types. Raises ShapeError."""
    env: dict[Any, Any] = {}
    for node, type in zip(graph.inputs, types, strict=True):
        for size, extent in zip(node.shape, type.shape, strict=True):
            known = env.setdefault(str(size), extent) if isinstance(size, Size) else size
            if known != extent:
                raise ShapeError(
                    graph.name,
                    received=f"{type} for an input of type {node.type}",
                    expected="sizes that fit the traced ones",
                    fix="pass arguments whose shapes fit those of the trace",
                )
    return env


def backward_graph(graph: Graph) -> Graph:
    """The graph of the gradients of the float inputs, with one seed for each float output."""
    targets = [o for o in graph.outputs if is_float(o.dtype)]
    sources = [i for i in graph.inputs if is_float(i.dtype)]
    seeds = [Node(Input(label=f"seed{k}"), (), t.type, t.loc) for k, t in enumerate(targets)]
    op = Gradient(targets=len(targets), sources=len(sources))
    types = tuple(s.tensor for s in sources)
    node = Node(op, (*targets, *sources, *seeds), TupleType(types))
    outputs = tuple(Node(Item(index=k), (node,), t) for k, t in enumerate(types))
    return Graph(f"{graph.name}_gradient", (*graph.inputs, *seeds), outputs)
