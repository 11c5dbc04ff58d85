"""The text form of graphs: printing, and reading back to an equal graph.

    graph step(%0: f32[n,3] "x", %1: f32[3] variable "w") {
      %2: f32[n,3] = multiply(%0, %1)       # model.py:14 net/dense
      %3: f32[3] = sum(%2, axes=(0,))       # model.py:15
      update %1 <- %3
      return %2
    }

Names are numbers in order, settings are Python literals (left out at their default), symbolic
sizes are names, places in the user's code are comments. `on GPU:0` after a statement or an input
is the device that the user wants. The reader infers every type anew.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.text_values import BadValue, print_value, print_values, read_value
from graphnn.compiler.ir.types import BY_SHORT, TensorType, TupleType, Type
from graphnn.compiler.ops.base import REGISTRY, Op
from graphnn.compiler.ops.core import Input
from graphnn.runtime.errors import GraphnnError, Loc, ParseError

COMMENT_COLUMN = 42
DEVICE = "/device:"

# ---- printing -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Printer:
    """Numbers the nodes of a graph and prints lines of its text form."""

    graph: Graph
    numbers: dict[Node, int]
    places: bool = True

    @classmethod
    def of(cls, graph: Graph, places: bool = True) -> Printer:
        """A printer for one graph; places=False leaves the comments out."""
        return cls(graph, {node: i for i, node in enumerate(graph.nodes)}, places)

    def name(self, node: Node) -> str:
        """%number of a node."""
        return f"%{self.numbers[node]}" if node in self.numbers else "%?"

    def names(self, nodes: Iterable[Node]) -> str:
        """Several names, separated by commas."""
        return ", ".join(map(self.name, nodes))

    def line(self, node: Node) -> str:
        """The statement that makes a node, or the header entry of an input."""
        if isinstance(node.op, Input):
            kind = "" if node.op.kind == "argument" else f" {node.op.kind}"
            text = f"{self.name(node)}: {node.type}{kind} {_quoted(node.op.label)}"
            return text + _wish(node)
        settings = print_values(node.op.text_settings())
        inside = ", ".join(part for part in (self.names(node.inputs), settings) if part)
        text = f"{self.name(node)}: {node.type} = {node.op.name}({inside}){_wish(node)}"
        if not self.places or node.loc is None:
            return text
        return f"{text:<{COMMENT_COLUMN - 2}}  # {node.loc}"

    def text(self) -> str:
        """The whole graph."""
        graph = self.graph
        inputs = ", ".join(map(self.line, graph.inputs))
        lines = [f"graph {_name(graph.name)}({inputs}) {{"]
        own = set(graph.inputs)
        lines += [f"  {self.line(n)}" for n in graph.nodes if n not in own]
        lines += [f"  update {self.name(i)} <- {self.name(v)}" for i, v in graph.updates]
        lines += [f"  effect {self.name(e)}" for e in graph.effects]
        lines.append(f"  return {self.names(graph.outputs)}".rstrip())
        return "\n".join([*lines, "}"]) + "\n"


def print_graph(graph: Graph, places: bool = True) -> str:
    """The text form of a graph; places=False leaves out the comments with the user's lines."""
    return Printer.of(graph, places).text()


def same_graph(a: Graph, b: Graph) -> bool:
    """Whether two graphs have one text form, places aside."""
    return print_graph(a, places=False) == print_graph(b, places=False)


def _wish(node: Node) -> str:
    return f" on {node.device.removeprefix(DEVICE)}" if node.device else ""


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w.]*", name) else _quoted(name)


def _quoted(text: str) -> str:
    return print_value(text)


# ---- reading ------------------------------------------------------------------------------

_HEAD = re.compile(r"graph\s+(?P<name>[A-Za-z_][\w.]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')\s*\(")
_INPUT = re.compile(r"\s*%(?P<number>\d+)\s*:\s*")
_LABEL = re.compile(
    r"\s*(?:(?P<kind>[a-z]+)\s+)?(?P<label>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')\s*"
)
_STATEMENT = re.compile(r"\s*%(?P<number>\d+)\s*:\s*(?P<type>[^=]*?)\s*=\s*(?P<op>\w+)(?=\()")
_UPDATE = re.compile(r"\s*update\s+%(\d+)\s*<-\s*%(\d+)\s*$")
_EFFECT = re.compile(r"\s*effect\s+%(\d+)\s*$")
_RETURN = re.compile(r"\s*return\b(?P<names>[\s\d%,]*)$")
_WISH = re.compile(r"\s*\bon\s+(?P<kind>[A-Z]+):(?P<number>\d+)\s*")
_WISHED = re.compile(r"(?P<call>.*\))" + _WISH.pattern + "$")
_TYPE = re.compile(r"(?P<dtype>\w+)\[(?P<sizes>[^\]]*)\]")
_TOKEN = re.compile(r"(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')|(#)|%(?=\d)")
_PLACE = re.compile(r"#\s*(?P<file>.+?):(?P<line>\d+)(?: (?P<layer>.*))?$")


class Reader:
    """Reads one graph; errors carry the line and the column, both counted from 1."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.number = 0
        self.nodes: dict[int, Node] = {}
        self.inputs: list[Node] = []
        self.outputs: tuple[Node, ...] | None = None
        self.updates: list[tuple[Node, Node]] = []
        self.effects: list[Node] = []

    def read(self) -> Graph:
        """The graph of the whole text."""
        name = ""
        ended = False
        for number, line in enumerate(self.lines):
            self.number = number
            code, comment = split_comment(line)
            if not code.strip():
                continue
            if ended:
                raise self.error(_indent(code), "text after the closing brace", "the end")
            if not name:
                name = self.head(code)
            elif code.strip() == "}":
                ended = True
            else:
                self.statement(code, comment)
        if not ended or self.outputs is None:
            missing = "return and }" if self.outputs is None else "}"
            raise self.error(0, "the end of the text", missing)
        return Graph(
            name, tuple(self.inputs), self.outputs, tuple(self.updates), tuple(self.effects)
        )

    def head(self, line: str) -> str:
        """The first line: name and inputs."""
        match = _HEAD.match(line.strip() and line)
        if match is None:
            raise self.error(0, repr(line.strip()[:30]), 'graph NAME(%0: f32[2,3] "x", ...) {')
        position = match.end()
        while not line.startswith(")", position):
            position = self.input(line, position)
            position += 1 if line.startswith(",", position) else 0
        if line[position + 1 :].strip() != "{":
            raise self.error(position + 1, repr(line[position + 1 :]), "{")
        name = match["name"]
        return str(ast.literal_eval(name)) if name[0] in "\"'" else name

    def input(self, line: str, position: int) -> int:
        """One input of the head; returns the position after it."""
        match = _INPUT.match(line, position)
        if match is None:
            raise self.error(position, repr(line[position : position + 20]), "%NUMBER: TYPE")
        type, position = self.typed(line, match.end())
        label = _LABEL.match(line, position)
        if label is None:
            raise self.error(position, repr(line[position : position + 20]), 'a label such as "x"')
        op = Input(label=ast.literal_eval(label["label"]), kind=label["kind"] or "argument")
        wish = _WISH.match(line, label.end())
        node = Node(op, (), type, None, _device(wish))
        self.inputs.append(node)
        self.define(match["number"], node, match.start("number"))
        return wish.end() if wish else label.end()

    def define(self, number: str, node: Node, column: int) -> None:
        """Give a node its name."""
        if int(number) in self.nodes:
            raise self.error(column, f"%{number} a second time", "each name defined once")
        self.nodes[int(number)] = node

    def typed(self, text: str, position: int) -> tuple[Type, int]:
        """The type written at a position, and the position after it."""
        if text.startswith("(", position):
            items: list[TensorType] = []
            position += 1
            while not text.startswith(")", position):
                item, position = self.typed(text, position)
                items.append(item)  # type: ignore[arg-type]
                position += len(re.match(r",?\s*", text[position:])[0])  # type: ignore[index]
            return TupleType(tuple(items)), position + 1
        match = _TYPE.match(text, position)
        if match is None or match["dtype"] not in BY_SHORT:
            raise self.error(
                position,
                repr(text[position : position + 20]),
                "a type such as f32[2,n], with a dtype from " + ", ".join(BY_SHORT),
            )
        sizes = self.value(f"({match['sizes']},)" if match["sizes"] else "()", match.start("sizes"))
        if not all(isinstance(s, int | Size) for s in sizes):
            raise self.error(match.start("sizes"), match["sizes"], "integers or symbolic sizes")
        return TensorType(sizes, BY_SHORT[match["dtype"]]), match.end()

    def value(self, text: str, column: int) -> Any:
        """A literal."""
        try:
            return read_value(ast.parse(text, mode="eval").body)
        except (SyntaxError, BadValue) as error:
            raise self.error(column, repr(text), f"a literal ({error})") from None

    def statement(self, line: str, comment: str) -> None:
        """One line of the body."""
        if match := _UPDATE.match(line):
            pair = (self.node(match[1], match.start(1)), self.node(match[2], match.start(2)))
            self.updates.append(pair)
        elif match := _EFFECT.match(line):
            self.effects.append(self.node(match[1], match.start(1)))
        elif match := _RETURN.match(line):
            names = re.finditer(r"%(\d+)", line)
            self.outputs = tuple(self.node(n[1], n.start(1)) for n in names)
        elif match := _STATEMENT.match(line):
            self.application(line, match, comment)
        else:
            raise self.error(
                _indent(line),
                repr(line.strip()[:40]),
                "%NUMBER: TYPE = OP(...), update, effect, return or }",
            )

    def application(self, line: str, match: re.Match[str], comment: str) -> None:
        """A line that makes a node."""
        cls = REGISTRY.get(match["op"])
        if cls is None:
            near = difflib.get_close_matches(match["op"], REGISTRY, 3)
            hint = f"an op, e.g. {', '.join(near)}" if near else "the name of an op"
            raise self.error(match.start("op"), repr(match["op"]), hint)
        wish = _WISHED.match(line)
        call = wish["call"] if wish else line
        inputs, settings = self.arguments(call, match.start("op"))
        written, _ = self.typed(line, match.start("type"))
        node = self.apply(cls, inputs, settings, match.start("op"), comment)
        node = replace(node, device=_device(wish))
        if node.type != written:
            raise self.error(match.start("type"), str(written), f"{node.type}, which the op infers")
        self.define(match["number"], node, match.start("number"))

    def arguments(self, line: str, start: int) -> tuple[list[Node], dict[str, Any]]:
        """Inputs and settings of the call that starts at a column."""
        blank = _TOKEN.sub(lambda m: m[1] or "_", line[start:])  # %12 and _12 are equally long
        try:
            call: Any = ast.parse(blank.rstrip(), mode="eval").body
        except SyntaxError as error:
            raise self.error(
                start + (error.offset or 1) - 1, error.msg, "OP(%0, setting=1)"
            ) from None
        if not isinstance(call, ast.Call):
            raise self.error(start, line[start:].strip(), "one call OP(...)")
        inputs = []
        for argument in call.args:
            name = getattr(argument, "id", "")
            column = start + argument.col_offset
            if not re.fullmatch(r"_\d+", name):
                raise self.error(column, "a value that is no node", "%NUMBER; settings by name")
            inputs.append(self.node(name[1:], column))
        settings = {}
        for keyword in call.keywords:
            try:
                settings[str(keyword.arg)] = read_value(keyword.value)
            except BadValue as error:
                column = start + keyword.value.col_offset
                raise self.error(column, f"setting {keyword.arg}", str(error)) from None
        return inputs, settings

    def apply(
        self, cls: type[Op], inputs: list[Node], settings: dict[str, Any], column: int, comment: str
    ) -> Node:
        """The node of an op, its type inferred."""
        try:
            op = cls.from_text(settings)
            type = op.infer(*(n.type for n in inputs))  # type: ignore[arg-type]
        except (GraphnnError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            text = str(error).replace("\n", "; ")
            raise self.error(
                column, f"{cls.name} refused it: {text}", "what the op takes"
            ) from None
        place = _PLACE.match(comment)
        loc = place and Loc(place["file"], int(place["line"]), layer=place["layer"] or "")
        return Node(op, tuple(inputs), TupleType(type) if isinstance(type, tuple) else type, loc)

    def node(self, number: str, column: int) -> Node:
        """The node with a name."""
        if int(number) not in self.nodes:
            raise self.error(column, f"%{number}", "a name defined above")
        return self.nodes[int(number)]

    def error(self, column: int, received: str, expected: str) -> ParseError:
        """An error that points at a column (from 0) of the current line."""
        line = self.lines[self.number] if self.lines else ""
        return ParseError(
            f"graph text, line {self.number + 1}, column {column + 1},",
            received=f"{received}\n    {line}\n    {' ' * column}^",
            expected=expected,
            fix="correct the text; print_graph shows the form",
        )


def _device(wish: re.Match[str] | None) -> str:
    return f"{DEVICE}{wish['kind']}:{wish['number']}" if wish else ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def split_comment(line: str) -> tuple[str, str]:
    """Code and comment of a line; a # within quotes starts no comment."""
    for match in _TOKEN.finditer(line):
        if match[2]:
            return line[: match.start()], line[match.start() :]
    return line, ""


def read_graph(text: str) -> Graph:
    """The graph of a text form; raises ParseError with line and column.

    >>> text = 'graph f(%0: f32[3] "x") {\\n  %1: f32[3] = exp(%0)\\n  return %1\\n}'
    >>> print(print_graph(read_graph(text)).splitlines()[1])
      %1: f32[3] = exp(%0)
    """
    return Reader(text).read()
