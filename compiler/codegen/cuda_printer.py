"""Statements of the loop form as CUDA C: what all schedules share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.codegen.cuda_scalar import (
    ScalarPrinter,
    literal,
    monoid,
    operands,
    stored_type,
    value_type,
)
from graphnn.compiler.codegen.loops import (
    Combine,
    Kernel,
    Loop,
    Reset,
    Statement,
    Store,
    Update,
    scalars,
    walk,
)
from graphnn.compiler.codegen.scalar import Accumulator, Buffer, Scalar, expressions
from graphnn.compiler.ir.sizes import Var
from graphnn.compiler.ir.types import DType, bfloat16, float16, float32, is_float
from graphnn.runtime.errors import Loc

COMMENT_COLUMN = 72
SHORT = (float16, bfloat16)


@dataclass(frozen=True)
class Rule:
    """How one entry of a kernel's text is launched.

    blocks: their number, a size; 0 blocks means no launch. threads: of a block. shared: bytes of
    dynamic shared memory.
    """

    entry: str
    blocks: Any
    threads: int
    shared: Any = 0


@dataclass(frozen=True)
class Scheduled:
    """Functions of a kernel before it has its name (`@K@` stands for it), and their launches.

    buffers: the kernel's arguments, without what stays on the chip, with what the schedule adds.
    inplace: pairs that may be one memory under this schedule. scratch: buffers added. many:
    the entry that runs equal kernels over several pieces of memory, "" if that cannot be.
    """

    text: str
    rules: tuple[Rule, ...]
    buffers: tuple[Buffer, ...]
    inplace: tuple[tuple[Buffer, Buffer], ...] = ()
    scratch: tuple[Buffer, ...] = ()
    many: str = ""


def symbol_name(name: str) -> str:
    """The argument that holds a symbolic size."""
    return f"n_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def parameters(kernel: Kernel, buffers: Sequence[Buffer], shared: Iterable[Any] = ()) -> list[str]:
    """Parameters of an entry: memory, rows, symbolic sizes, the status of checks.

    Buffers that may overlap others (pairs that may be one memory) promise nothing about aliases.
    """
    may_overlap = {b for pair in kernel.inplace for b in pair} | set(shared)
    written = written_buffers(kernel)
    found = []
    for b in buffers:
        const = "" if b in written else "const "
        restrict = "" if b in may_overlap else " __restrict__"
        found.append(f"{const}{stored_type(b.dtype)}*{restrict} {b.name}")
    found.append("const idx rows")
    found += [f"const idx {symbol_name(s)}" for s in kernel.symbols]
    return [*found, "i64* status"] if kernel.checks else found


def arguments(kernel: Kernel, buffers: Sequence[Buffer]) -> list[str]:
    """The same names, to pass them on."""
    names = [b.name for b in buffers] + ["rows"] + [symbol_name(s) for s in kernel.symbols]
    return [*names, "status"] if kernel.checks else names


def entry(name: str, params: Sequence[str], threads: int, lines: Sequence[str]) -> str:
    """The text of a kernel."""
    head = f'extern "C" __global__ void __launch_bounds__({threads}) {name}('
    return head + ", ".join(params) + ") {\n" + "\n".join(lines) + "\n}\n"


def written_buffers(kernel: Kernel) -> set[Buffer]:
    """Buffers that some statement writes."""
    every = (*kernel.start, *kernel.enter, *kernel.body, *kernel.leave, *kernel.finish)
    return {s.buffer for s in walk(every) if isinstance(s, Store | Combine)} | set(kernel.writes)


class Printer(ScalarPrinter):
    """Prints statements top to bottom; values are remembered by the scope they were computed in."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0
        self.scopes: list[dict[int, str]] = [{}]
        self.divisors: list[dict[int, str]] = [{}]  # scopes of numbers that many are divided by
        self.vars: dict[Any, str] = {s: symbol_name(s) for s in kernel.symbols}
        self.placed: dict[tuple[Buffer, Any], str] = {}  # elements that are at hand already
        self.last_loc: Loc | None = None

    # ---- text ------------------------------------------------------------------------------

    def line(self, text: str, loc: Loc | None = None) -> None:
        """One line; the user's line as a comment where it has changed."""
        text = "  " * self.depth + text
        if loc is not None and loc != self.last_loc:
            text = f"{text:<{COMMENT_COLUMN}}  // {loc}"
            self.last_loc = loc
        self.lines.append(text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """`head {` ... `}` with a scope of its own."""
        self.line(f"{head} {{" if head else "{")
        self.depth += 1
        self.scopes.append({})
        self.divisors.append({})
        yield
        self.scopes.pop()
        self.divisors.pop()
        self.depth -= 1
        self.line("}")

    def fresh(self, stem: str = "v") -> str:
        """A new name."""
        self.count += 1
        return f"{stem}{self.count}"

    # ---- values ----------------------------------------------------------------------------

    def value(self, scalar: Scalar) -> str:
        """The operand that holds a scalar, computed in the current scope if not known."""
        found = self._known(scalar)
        if found is None:
            for inner in self._unknown_inside(scalar):
                self._define(inner)
            found = self._known(scalar)
        return found or ""

    def _known(self, s: Scalar) -> str | None:
        if s.op == "constant":
            return literal(s.attrs[0].value, s.dtype)
        if s.op == "read":
            return str(s.attrs[0].name)
        return next((scope[id(s)] for scope in reversed(self.scopes) if id(s) in scope), None)

    def _unknown_inside(self, root: Scalar) -> Iterator[Scalar]:
        """Sub-expressions to compute, arguments first; not those behind a guard."""
        stack = [(root, False)]
        while stack:
            value, ready = stack.pop()
            if self._known(value) is not None:
                continue
            if ready:
                yield value
                continue
            stack.append((value, True))
            needed = operands(value)
            if value.op == "guarded":
                needed = (value.args[0], value.args[2])
            elif value.op == "load" and value.attrs in self.placed:
                needed = ()
            stack += [(a, False) for a in reversed(needed)]

    def _define(self, s: Scalar) -> None:
        kind = value_type(s.dtype)
        if s.op == "guarded":
            name = self._guarded(s, kind)
        elif s.op == "check":
            name = self._check(s, kind)
        else:
            text = self.expression(s)
            name = self.fresh()
            self.line(f"const {kind} {name} = {text};", s.loc)
        self.scopes[-1][id(s)] = name

    def _guarded(self, s: Scalar, kind: str) -> str:
        test, inner, other = s.args
        name = self.fresh()
        self.line(f"{kind} {name} = {self.value(other)};", s.loc)
        with self.block(f"if ({self.value(test)})"):
            self.line(f"{name} = {self.value(inner)};")
        return name

    def _check(self, s: Scalar, kind: str) -> str:
        ok, value, other = map(self.value, s.args)
        number = self.kernel.checks.index(s.attrs[0]) + 1
        self.line(f"if (!{ok}) fail(status, {number}, {self.as_word(s.args[1], value)});", s.loc)
        name = self.fresh()
        self.line(f"const {kind} {name} = {ok} ? {value} : {other};")
        return name

    def _load(self, s: Scalar) -> str:
        buffer, linear = s.attrs
        text = self.placed.get(s.attrs) or f"{buffer.name}[{self.index(linear)}]"
        return f"wide({text})" if buffer.dtype in SHORT else text

    def hoist(self, body: Iterable[Statement], var: Var | None) -> None:
        """Compute before a loop what does not change in it."""
        inside = list(walk(body))
        changing: set[Any] = {s.accumulator for s in inside if isinstance(s, Update | Reset)}
        changing |= {s.var for s in inside if isinstance(s, Loop)} | {var}
        written = {s.buffer for s in inside if isinstance(s, Store | Combine)}
        seen: set[int] = set()
        for s in inside:
            for root in scalars(s):
                self._hoist_value(root, changing, written, seen)

    def _hoist_value(
        self, value: Scalar, changing: set[Any], written: set[Buffer], seen: set[int]
    ) -> None:
        stack = [value]
        while stack:
            v = stack.pop()
            if id(v) in seen or v.op == "constant":
                continue
            seen.add(id(v))
            if v.op == "load" and v.attrs in self.placed:
                continue  # what it was read by is not asked for again
            if not v.needs & changing and not touches(v, written):
                self.value(v)
                continue
            if v.op == "div" and v.dtype == float32:
                self._hoist_divisor(v.args[1], changing, written)
            stack += v.args[:1] if v.op == "guarded" else v.args

    def _hoist_divisor(self, by: Scalar, changing: set[Any], written: set[Buffer]) -> None:
        """Many divisions by one number share its inverse."""
        if by.needs & changing or touches(by, written) or self._divisor(by) or _is_two_power(by):
            return
        operand, name = self.value(by), self.fresh("d")
        self.line(f"const Divisor {name}({operand});", by.loc)
        self.divisors[-1][id(by)] = name

    def _divisor(self, by: Scalar) -> str:
        return next((scope[id(by)] for scope in self.divisors if id(by) in scope), "")

    def _div(self, s: Scalar) -> str:
        a, by = s.args
        divisor = self._divisor(by)
        if divisor:
            return f"over({self.value(a)}, {divisor})"
        return f"{self.value(a)} / {self.value(by)}"

    # ---- statements ------------------------------------------------------------------------

    def statements(self, statements: Iterable[Statement]) -> None:
        """Statements in order; loops run one iteration after the other."""
        for s in statements:
            match s:
                case Reset(accumulator):
                    self.reset(accumulator)
                case Update(accumulator, value):
                    self.update(accumulator, self.value(value), accumulator.loc)
                case Store():
                    self.store(s)
                case Combine():
                    self.combine(s)
                case Loop():
                    self.serial(s)
                case _:
                    raise TypeError(f"no CUDA for {s}")

    def serial(self, loop: Loop) -> None:
        """A loop that one thread runs."""
        extent = loop.var.extent if loop.extent is None else loop.extent
        if extent == 0:
            return
        self.hoist(loop.body, loop.var)
        name = self.vars[loop.var] = loop.var.name
        with self.block(f"for (idx {name} = 0; {name} < {self.index(extent)}; ++{name})"):
            self.statements(loop.body)

    def reset(self, a: Accumulator) -> None:
        """The accumulator's declaration."""
        self.line(f"{value_type(a.dtype)} {a.name} = {literal(a.initial, a.dtype)};", a.loc)

    def update(self, a: Accumulator, operand: str, loc: Loc | None = None) -> None:
        """accumulator = accumulator (monoid) operand."""
        self.line(self.combined(a.name, a.monoid, a.dtype, operand), loc)

    @staticmethod
    def combined(place: str, name: str, dtype: DType, operand: str) -> str:
        """place = place (monoid) operand, as a statement."""
        if is_float(dtype) and name in ("add", "mul"):
            return f"{place} {'+' if name == 'add' else '*'}= {operand};"
        return f"{place} = {monoid(name, dtype)}::of({place}, {operand});"

    def store(self, s: Store) -> None:
        """buffer[linear] = value."""
        text = self.stored(s.buffer.dtype, s.value)
        self.line(f"{s.buffer.name}[{self.index(s.linear)}] = {text};", s.value.loc)

    def stored(self, dtype: DType, value: Scalar) -> str:
        """A value as it is stored; one that was rounded to this type is not rounded twice."""
        if value.op == "round" and value.attrs[0] == dtype.name:
            (value,) = value.args
        return self.narrowed(dtype, self.value(value))

    @staticmethod
    def narrowed(dtype: DType, operand: str) -> str:
        """An operand as it is stored."""
        return f"As<{stored_type(dtype)}>::of({operand})" if dtype in SHORT else operand

    def combine(self, s: Combine) -> None:
        """buffer[linear] = buffer[linear] (monoid) value."""
        value, at = self.value(s.value), self.index(s.linear)
        place = f"{s.buffer.name}[{at}]"
        if s.buffer.dtype not in SHORT:
            self.line(self.combined(place, s.monoid, s.value.dtype, value), s.value.loc)
            return
        both = f"{monoid(s.monoid, s.value.dtype)}::of(wide({place}), {value})"
        self.line(f"{place} = {self.narrowed(s.buffer.dtype, both)};", s.value.loc)


def _is_two_power(value: Scalar) -> bool:
    """Whether a number is a constant by which dividing is multiplying."""
    if value.op != "constant":
        return False
    return abs(math.frexp(float(value.attrs[0].value))[0]) == 0.5


def touches(value: Scalar, written: set[Buffer]) -> bool:
    """Whether a value reads memory that is written."""
    return any(e.op == "load" and e.attrs[0] in written for e in expressions((value,)))


def ceil_div(a: Any, b: int) -> Any:
    """Number of groups of b that a elements need."""
    return (a + (b - 1)) // b


def power_of_two(at_least: int) -> int:
    """The least power of two that is not below a number.

    >>> power_of_two(5), power_of_two(1)
    (8, 1)
    """
    return 1 << max(0, at_least - 1).bit_length()
