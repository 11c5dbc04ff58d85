"""Recording a graph while Python runs: arguments, captured tensors, Variables' new values."""

from __future__ import annotations

import threading
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


class Wish(threading.local):
    """Where this thread wants the ops that it traces: a device's full name, or empty."""

    device: str = ""


WISH = Wish()


class GraphHandler(BaseHandler):
    """Applying an op makes a node. `loc` and `device` are set by passes; tracing asks the Python
    stack and the thread's wish."""

    def __init__(self) -> None:
        self.loc: Loc | None = None
        self.device = ""

    def at(self, node: Node) -> None:
        """What is made from now on stands for this node."""
        self.loc, self.device = node.loc, node.device

    def place(self) -> Loc | None:
        """Source position of the next node."""
        return self.loc

    def wish(self) -> str:
        """Device of the next node."""
        return self.device

    def apply(self, op: Op, inputs: Sequence[Node]) -> Any:
        """A node; for an op with several results a tuple of item nodes."""
        type = op.infer(*(n.type for n in inputs))  # type: ignore[arg-type]
        loc, device = self.place(), self.wish()
        if isinstance(type, tuple):
            node = Node(op, tuple(inputs), TupleType(type), loc, device)
            return tuple(Node(Item(index=i), (node,), t, loc, device) for i, t in enumerate(type))
        return Node(op, tuple(inputs), type, loc, device)

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

    def wish(self) -> str:
        return self.device or WISH.device

    def argument(self, label: str, type: TensorType, device: str = "") -> Node:
        """A new argument. device: where its array will be, if not where the program runs."""
        node = Node(Input(label=label), (), type, self.place(), device)
        self.arguments.append(node)
        return node

    def capture(self, source: Any, value: Any, device: str = "") -> Node:
        """The node of an eager tensor used in the trace: an input by reference.

        source: the tensor object, kept alive. value: its array, for the type. device: as
        in `argument`.
        """
        known = self.captures.get(id(source))
        if known is None:
            type = TensorType(tuple(value.shape), value.dtype)
            op = Input(label=f"capture{len(self.captures)}", kind="capture")
            node = Node(op, (), type, None, device)
            known = self.captures[id(source)] = Captured(source, node)
        return known.node

    def read(self, variable: Any, label: str, type: TensorType, device: str = "") -> Node:
        """The value of a Variable at this point of the trace. device: as in `argument`."""
        if id(variable) not in self.current:
            node = Node(Input(label=label, kind="variable"), (), type, self.place(), device)
            self.variables[id(variable)] = Captured(variable, node)
            self.current[id(variable)] = node
        return self.current[id(variable)]

    def assign(
        self, variable: Any, label: str, type: TensorType, value: Node, device: str = ""
    ) -> None:
        """From here on the Variable has this value. device: as in `argument`."""
        self.read(variable, label, type, device)
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
