"""The loop form: statements over index expressions and scalars, the same for every emitter.

A `Kernel` runs `body` for each `row` in a range it is given, with `enter` before and `leave` after
the range. When rows are split into parts, each part does so; `start` runs once before all parts
and `finish` once after, to clear and to combine partial results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.codegen.scalar import (
    Accumulator,
    Buffer,
    Scalar,
    expressions,
    index_scalars,
)
from graphnn.compiler.ir.sizes import Dynamic, Size, Symbol, Var, atoms
from graphnn.runtime.errors import Loc
from graphnn.runtime.program import CheckSite

COMMENT_COLUMN = 40  # of the loop form as text
PART = Var("part", 1 << 20)  # number of the part that runs; in `finish` the number of parts


@dataclass(frozen=True)
class Store:
    """buffer[linear] = value."""

    buffer: Buffer
    linear: Any
    value: Scalar


@dataclass(frozen=True)
class Combine:
    """buffer[linear] = buffer[linear] (monoid) value."""

    buffer: Buffer
    linear: Any
    value: Scalar
    monoid: str


@dataclass(frozen=True)
class Reset:
    """accumulator = its initial value."""

    accumulator: Accumulator


@dataclass(frozen=True)
class Update:
    """accumulator = accumulator (monoid) value."""

    accumulator: Accumulator
    value: Scalar


@dataclass(frozen=True)
class Loop:
    """body for var from 0 to its extent. independent: no iteration reads what another writes."""

    var: Var
    body: tuple[Statement, ...]
    independent: bool = True
    extent: Any = None


@dataclass(frozen=True)
class Product:
    """c[at_c] = op(a[at_a]) @ op(b[at_b]) by the BLAS library, over the rows that are asked for.

    split: "m" or "n", the axis of the result that the kernel's rows are; "" for a whole product
    per row (a batch). m, n, k: sizes of the whole product.
    """

    a: Buffer
    b: Buffer
    c: Buffer
    at: tuple[Any, Any, Any]
    m: Any
    n: Any
    k: Any
    transpose: tuple[bool, bool]
    split: str


@dataclass(frozen=True)
class Call:
    """A library call on whole buffers, for targets that have the library.

    op: says what is computed and how the buffers lie. inputs, outputs: one for each of the op's.
    """

    op: Any
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]


Statement = Store | Combine | Reset | Update | Loop | Product | Call


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel in loop form.

    stem: a readable name. buffers: what it touches, in argument order. row: the variable that is
    split over threads, None for a kernel that runs once. cost: estimated operations per row.
    inplace: (written, read) buffer pairs that may be one memory. writes: the buffers it stores to.
    """

    stem: str
    buffers: tuple[Buffer, ...]
    row: Var | None
    body: tuple[Statement, ...]
    start: tuple[Statement, ...] = ()
    enter: tuple[Statement, ...] = ()
    leave: tuple[Statement, ...] = ()
    finish: tuple[Statement, ...] = ()
    cost: Any = 1
    writes: tuple[Buffer, ...] = ()
    inplace: tuple[tuple[Buffer, Buffer], ...] = ()
    checks: tuple[Any, ...] = ()
    locs: tuple[Loc, ...] = ()
    flat: bool = False
    parts: bool = field(default=False)

    @property
    def rows(self) -> Any:
        """Number of rows."""
        return 1 if self.row is None else self.row.extent

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbolic sizes that the code reads, sorted."""
        found = {a.name for v in self.sizes() for a in atoms(v) if isinstance(a, Symbol)}
        return tuple(sorted(found))

    def sizes(self) -> Iterator[Any]:
        """All index expressions and extents in the kernel."""
        yield self.rows
        for statement in (*self.start, *self.enter, *self.body, *self.leave, *self.finish):
            yield from _sizes(statement)


def walk(statements: Iterable[Statement]) -> Iterator[Statement]:
    """All statements, those inside loops too."""
    for statement in statements:
        yield statement
        if isinstance(statement, Loop):
            yield from walk(statement.body)


def scalars(statement: Statement) -> tuple[Scalar, ...]:
    """The values a statement needs itself (not those inside a loop's body)."""
    match statement:
        case Store(_, linear, value) | Combine(_, linear, value):
            return (*index_scalars(linear), value)
        case Update(_, value):
            return (value,)
    return ()


def _sizes(statement: Statement) -> Iterator[Any]:
    if isinstance(statement, Loop):
        yield statement.var.extent if statement.extent is None else statement.extent
        for inner in statement.body:
            yield from _sizes(inner)
        return
    if isinstance(statement, Product):
        yield from (*statement.at, statement.m, statement.n, statement.k)
        return
    if isinstance(statement, Call):
        yield from _sizes_within(tuple(statement.op.settings().values()))
        return
    if isinstance(statement, Store | Combine):
        yield statement.linear
    for value in expressions(scalars(statement)):
        for attribute in value.attrs:
            if isinstance(attribute, Size):
                yield attribute


def _sizes_within(value: Any) -> Iterator[Any]:
    if isinstance(value, Size):
        yield value
    elif isinstance(value, tuple):
        for v in value:
            yield from _sizes_within(v)


Note = Callable[[Statement | Scalar], str]


def render(kernel: Kernel, note: Note | None = None) -> str:
    """The loop form as text, for the dump tool and golden tests.

    note: the comment of a statement or of a value that gets a line of its own, "" for none.
    """
    buffers = ", ".join(f"{b.name}: {b.dtype.name}[{b.size}]" for b in kernel.buffers)
    lines = [f"kernel {kernel.stem}({buffers})"]
    printer = _Printer(note or (lambda item: ""))
    sections = ("start", "enter", "body", "leave", "finish")
    for title in sections:
        part = getattr(kernel, title)
        if not part:
            continue
        if title != "body":
            lines.append(f"  {title}:")
        elif kernel.row is not None:
            lines.append(f"  for {kernel.row} < {kernel.row.extent}, in parallel:")
        lines += printer.block(part, 2)
    return "\n".join(lines)


class _Printer:
    def __init__(self, note: Note) -> None:
        self.note = note
        self.values: dict[int, str] = {}

    def block(self, statements: Iterable[Statement], depth: int) -> list[str]:
        lines: list[str] = []
        pad = "  " * depth
        for s in statements:
            if isinstance(s, Loop):
                lines.append(f"{pad}for {s.var} < {s.extent or s.var.extent}:")
                lines += self.block(s.body, depth + 1)
                continue
            for value in scalars(s):
                lines += [self.noted(pad + line, v) for v, line in self.assignments(value)]
            lines.append(self.noted(pad + self.statement(s), s))
        return lines

    def noted(self, line: str, item: Statement | Scalar) -> str:
        comment = self.note(item)
        return f"{line:<{COMMENT_COLUMN}}  # {comment}" if comment else line

    def statement(self, s: Statement) -> str:
        match s:
            case Store(buffer, linear, value):
                return f"{buffer.name}[{self.size(linear)}] = {self.name(value)}"
            case Combine(buffer, linear, value, monoid):
                return f"{buffer.name}[{self.size(linear)}] {monoid}= {self.name(value)}"
            case Reset(a):
                return f"{a.name} = {a.initial}"
            case Update(a, value):
                return f"{a.name} {a.monoid}= {self.name(value)}"
            case Product(a, b, c):
                ta, tb = (".T" if t else "" for t in s.transpose)
                sizes = f"{s.m}x{s.k} @ {s.k}x{s.n}"
                return f"{c.name} = {a.name}{ta} @ {b.name}{tb}  ({sizes})"
            case Call(op, inputs, outputs):
                left, right = (", ".join(b.name for b in part) for part in (outputs, inputs))
                return f"{left} = {op.name}({right})  ({op.words})"
        raise TypeError(s)

    def assignments(self, value: Scalar) -> Iterator[tuple[Scalar, str]]:
        for v in expressions((value,)):
            if id(v) in self.values or v.op in ("constant", "read"):
                continue
            self.values[id(v)] = f"v{len(self.values)}"
            args = ", ".join([*map(self.attribute, v.attrs), *map(self.name, v.args)])
            if v.op == "load":
                buffer, linear = v.attrs
                text = f"{buffer.name}[{self.size(linear)}]"
            else:
                text = f"{v.op}({args})"
            yield v, f"{self.values[id(v)]} = {text}"

    def name(self, value: Scalar) -> str:
        if value.op == "constant":
            return str(value.attrs[0])
        if value.op == "read":
            return str(value.attrs[0].name)
        return self.values[id(value)]

    def attribute(self, value: Any) -> str:
        if isinstance(value, CheckSite):
            return str(value.check)
        return self.size(value) if isinstance(value, Size) else str(value)

    def size(self, value: Any) -> str:
        if not isinstance(value, Size):
            return str(value)
        inner = [a for a in atoms(value) if isinstance(a, Dynamic)]
        text = str(value)
        for a in inner:
            text = text.replace(str(a), f"[{self.name(a.value)}]")
        return text
