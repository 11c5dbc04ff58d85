"""The IR: a graph of frozen nodes in SSA form.

A `Node` applies an op to other nodes. State is explicit: a graph's inputs hold the values of the
Variables it reads, and `updates` pairs such an input with the value it has after the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphnn.compiler.ir.sizes import symbols_of
from graphnn.compiler.ir.types import TensorType, TupleType, Type
from graphnn.runtime.errors import Loc

if TYPE_CHECKING:
    from graphnn.compiler.ops.base import Op


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an op; compared by identity. Never changed once made.

    device: where the user wants it, such as "/device:GPU:0"; empty: wherever the program runs.
    """

    op: Op
    inputs: tuple[Node, ...]
    type: Type
    loc: Loc | None = None
    device: str = ""

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of a node with one result."""
        return self.tensor.shape

    @property
    def dtype(self) -> Any:
        """Dtype of a node with one result."""
        return self.tensor.dtype

    @property
    def tensor(self) -> TensorType:
        """The type of a node that has one result."""
        if isinstance(self.type, TupleType):
            raise TypeError(f"{self.op.name} has {len(self.type.items)} results")
        return self.type

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.type}>"


@dataclass(frozen=True, eq=False)
class Graph:
    """Inputs, results and new values of Variables.

    name: of the traced function. inputs: nodes with the op `input`, in the order of the call.
    outputs: results. updates: (input, new value) for each Variable that the call assigns.
    effects: nodes that must run although nothing reads them (runtime checks).
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[tuple[Node, Node], ...] = ()
    effects: tuple[Node, ...] = ()

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that something needs, inputs first, each after the nodes it reads."""
        return tuple(topological(self.roots, self.inputs))

    @property
    def roots(self) -> tuple[Node, ...]:
        """What keeps nodes alive: results, new values, checks."""
        return (*self.outputs, *(value for _, value in self.updates), *self.effects)

    @cached_property
    def users(self) -> dict[Node, list[Node]]:
        """The nodes that read each node (once per use)."""
        users: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for node in self.nodes:
            for source in node.inputs:
                users[source].append(node)
        return users

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes, in sorted order."""
        return symbols_of(
            s for n in self.inputs if isinstance(n.type, TensorType) for s in n.type.shape
        )


def topological(roots: Iterable[Node], first: Iterable[Node] = ()) -> Iterator[Node]:
    """Nodes in an order in which each comes after its inputs; no recursion, so any depth works."""
    seen: set[Node] = set()
    for node in first:
        if node not in seen:
            seen.add(node)
            yield node
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, position = stack.pop()
            if node in seen:
                continue
            if position < len(node.inputs):
                stack.append((node, position + 1))
                stack.append((node.inputs[position], 0))
                continue
            seen.add(node)
            yield node


@dataclass
class Rewriter:
    """Rebuilds a graph node by node; `replace` maps old nodes to new ones."""

    replace: dict[Node, Node] = field(default_factory=dict)

    def __call__(self, node: Node) -> Node:
        return self.replace.get(node, node)

    def inputs(self, node: Node) -> tuple[Node, ...]:
        """The new nodes that stand for a node's inputs."""
        return tuple(self.replace.get(i, i) for i in node.inputs)

    def copy(self, node: Node) -> Node:
        """The node over its new inputs; the same object if none has changed."""
        inputs = self.inputs(node)
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            return node
        return Node(node.op, inputs, node.type, node.loc, node.device)

    def graph(self, graph: Graph, name: str | None = None) -> Graph:
        """The graph whose results are the replacements of the old ones."""
        return Graph(
            name or graph.name,
            tuple(self(i) for i in graph.inputs),
            tuple(self(o) for o in graph.outputs),
            tuple((self(i), self(v)) for i, v in graph.updates),
            tuple(self(e) for e in graph.effects),
        )


def rewrite(graph: Graph, change: Callable[[Node, tuple[Node, ...]], Node | None]) -> Graph:
    """Rebuild a graph: `change(node, new inputs)` gives the replacement, None keeps the node."""
    rewriter = Rewriter()
    for node in graph.nodes:
        new = change(node, rewriter.inputs(node))
        rewriter.replace[node] = rewriter.copy(node) if new is None else new
    return rewriter.graph(graph)
