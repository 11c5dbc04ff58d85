"""Checks that a graph is one: after each pass, so that a defect is found where it was made.

Level 1 looks at the structure and is cheap. Level 2 also infers every type anew and reads the text
form back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.text import Printer, print_graph, read_graph
from graphnn.compiler.ir.types import TensorType, TupleType
from graphnn.compiler.ops.core import Gradient, Input, Item
from graphnn.runtime.errors import GraphError, GraphnnError, ParseError

_DEVICE = re.compile(r"/device:[A-Z]+:\d+")
Problem = tuple[Node | None, str, str]
"""(node, what was found, what was expected)"""


def verify(graph: Graph, after: str = "", level: int = 1, expanded: bool = False) -> None:
    """Raise GraphError for the first thing that is wrong.

    after: the pass to name. level: 1 or 2. expanded: whether gradients must be gone.
    """
    for node, received, expected in _problems(graph, level, expanded):
        where = f"graph {graph.name}" + (f" after pass {after}" if after else "")
        raise GraphError(
            where,
            received=received + (f"\n{neighbours(graph, node)}" if node is not None else ""),
            expected=expected,
            fix="mend the pass: this is a defect of graphnn, not of your code",
            loc=node.loc if node is not None else None,
        )


def _problems(graph: Graph, level: int, expanded: bool) -> Iterator[Problem]:
    yield from _inputs(graph)
    yield from _updates(graph)
    for node in graph.nodes:
        yield from _structure(node)
        if expanded and isinstance(node.op, Gradient):
            yield node, "a gradient node", "none after the gradient pass"
    for node in graph.roots:
        if isinstance(node.type, TupleType):
            yield node, "a result that is a tuple", "one tensor; take its items"
    if level < 2:
        return
    for node in graph.nodes:
        yield from _type(node)
    yield from _text(graph)


def _inputs(graph: Graph) -> Iterator[Problem]:
    listed = set(graph.inputs)
    if len(listed) != len(graph.inputs):
        yield None, "an input listed twice", "each input once"
    for node in graph.inputs:
        if not isinstance(node.op, Input):
            yield node, f"{node.op.name} among the inputs", "the op input"
    for node in graph.nodes:
        if isinstance(node.op, Input) and node not in listed:
            yield node, f"input {node.op.label!r}, which the graph does not list", "a listed input"


def _updates(graph: Graph) -> Iterator[Problem]:
    seen: set[Node] = set()
    for target, value in graph.updates:
        if not isinstance(target.op, Input) or target not in graph.inputs:
            yield target, f"an update of {target.op.name}", "an update of an input"
        if target in seen:
            yield target, "a second update of one input", "one update of each"
        seen.add(target)
        if target.type != value.type:
            yield value, f"a new value of type {value.type}", f"type {target.type} of the input"


def _structure(node: Node) -> Iterator[Problem]:
    if node.device and not _DEVICE.fullmatch(node.device):
        yield node, f"the device {node.device!r}", 'a full name such as "/device:GPU:0"'
    if isinstance(node.op, Item):
        (source,) = node.inputs
        if not isinstance(source.type, TupleType):
            yield node, f"an item of {source.op.name}, which has one result", "an op with several"
        elif not 0 <= node.op.index < len(source.type.items):
            yield node, f"item {node.op.index}", f"an index below {len(source.type.items)}"
        elif source.type.items[node.op.index] != node.type:
            yield node, f"type {node.type}", f"type {source.type.items[node.op.index]} of the item"
        return
    for source in node.inputs:
        if isinstance(source.type, TupleType):
            yield node, f"an input that is a tuple, {source.type}", "its items"


def _type(node: Node) -> Iterator[Problem]:
    if isinstance(node.op, Input):
        return
    try:
        found = node.op.infer(*(n.type for n in node.inputs))  # type: ignore[arg-type]
    except GraphnnError as error:
        yield node, f"inputs that the op refuses: {error.received}", error.expected
        return
    type = TupleType(found) if isinstance(found, tuple) else found
    if type != node.type:
        yield node, f"type {node.type}", f"type {type}, which the op infers"


def _text(graph: Graph) -> Iterator[Problem]:
    text = print_graph(graph)
    if "unprintable(" in text:
        return
    try:
        again = print_graph(read_graph(text))
    except ParseError as error:
        yield None, f"text that does not read back: {error}", "text that reads back"
        return
    for old, new in zip(text.splitlines(), again.splitlines(), strict=False):
        if old != new:
            yield None, f"a line that reads back otherwise:\n    {old}\n    {new}", "one text"


def neighbours(graph: Graph, node: Node) -> str:
    """A node with what it reads and what reads it, in text form."""
    printer = Printer.of(graph)
    users = [n for n in graph.nodes if node in n.inputs]
    listed = [*dict.fromkeys(node.inputs), node, *users[:3]]
    lines = []
    for near in listed:
        mark = "-> " if near is node else "   "
        line = printer.line(near) if isinstance(near.type, TensorType | TupleType) else repr(near)
        lines.append(f"    {mark}{line}")
    if len(users) > 3:
        lines.append(f"       and {len(users) - 3} more that read it")
    return "\n".join(lines)


def verifier(level: int = 1) -> Callable[[str, Graph, Graph], None]:
    """A pipeline callback that checks each graph a pass gives."""

    def check(name: str, before: Graph, after: Graph) -> None:
        if after is before:
            return
        expanded = name == "gradient" or not any(isinstance(n.op, Gradient) for n in before.nodes)
        verify(after, name, level, expanded)

    return check
