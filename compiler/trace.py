"""Recording a graph while Python runs: arguments, captured tensors, Variables' new values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import DType, TensorType, TupleType
from graphnn.compiler.ops.base import BaseHandler, Op
from graphnn.compiler.ops.core import Constant, Input, Item, SizeOf
from graphnn.runtime.errors import Loc, user_loc

SMALL = 16  # elements up to which an array becomes a constant instead of an input


class GraphHandler(BaseHandler):
    """Applying an op makes a node. `loc` is set by passes; tracing asks the Python stack."""

    def __init__(self) -> None:
        self.loc: Loc | None = None

    def place(self) -> Loc | None:
        """Source position of the next node."""
        return self.loc

    def apply(self, op: Op, inputs: Sequence[Node]) -> Any:
        """A node; for an op with several results a tuple of item nodes."""
        type = op.infer(*(n.type for n in inputs))  # type: ignore[arg-type]
        loc = self.place()
        if isinstance(type, tuple):
            node = Node(op, tuple(inputs), TupleType(type), loc)
            return tuple(Node(Item(index=i), (node,), t, loc) for i, t in enumerate(type))
        return Node(op, tuple(inputs), type, loc)

    def type(self, value: Node) -> TensorType:
        return value.tensor

    def constant(self, value: Any, dtype: DType) -> Node:
        if isinstance(value, Size):
            return self.apply(SizeOf(size=value, dtype=dtype.name), ())  # type: ignore[no-any-return]
        return self.apply(Constant.of(value, dtype), ())  # type: ignore[no-any-return]


@dataclass
class Captured:
    """Something from outside that a graph reads: `source` is the tensor or Variable itself."""

    source: Any
    node: Node


@dataclass
class Trace(GraphHandler):
    """The graph under construction.

    arguments: input nodes of the call, in order. captures: eager tensors read, by id.
    variables: Variables read or assigned, by id. current: each Variable's value at this point.
    effects: checks, in order.
    """

    name: str
    arguments: list[Node] = field(default_factory=list)
    captures: dict[int, Captured] = field(default_factory=dict)
    variables: dict[int, Captured] = field(default_factory=dict)
    current: dict[int, Node] = field(default_factory=dict)
    effects: list[Node] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def place(self) -> Loc | None:
        return self.loc or user_loc()

    def argument(self, label: str, type: TensorType) -> Node:
        """A new argument."""
        node = Node(Input(label=label), (), type, self.place())
        self.arguments.append(node)
        return node

    def capture(self, source: Any, value: Any) -> Node:
        """The node of an eager tensor used in the trace: an input by reference.

        source: the tensor object, kept alive. value: its array; a very small one that nothing can
        change becomes a constant.
        """
        known = self.captures.get(id(source))
        if known is None:
            type = TensorType(tuple(value.shape), value.dtype)
            node = Node(Input(label=f"capture{len(self.captures)}", kind="capture"), (), type)
            known = self.captures[id(source)] = Captured(source, node)
        return known.node

    def read(self, variable: Any, label: str, type: TensorType) -> Node:
        """The value of a Variable at this point of the trace."""
        if id(variable) not in self.current:
            node = Node(Input(label=label, kind="variable"), (), type, self.place())
            self.variables[id(variable)] = Captured(variable, node)
            self.current[id(variable)] = node
        return self.current[id(variable)]

    def assign(self, variable: Any, label: str, type: TensorType, value: Node) -> None:
        """From here on the Variable has this value."""
        self.read(variable, label, type)
        self.current[id(variable)] = value

    def finish(self, outputs: Sequence[Node]) -> Graph:
        """The graph: inputs are arguments, then captures, then Variables."""
        self.closed = True
        captured = [*self.captures.values(), *self.variables.values()]
        updates = tuple(
            (c.node, self.current[key])
            for key, c in self.variables.items()
            if self.current[key] is not c.node
        )
        return Graph(
            self.name,
            (*self.arguments, *(c.node for c in captured)),
            tuple(outputs),
            updates,
            tuple(self.effects),
        )
