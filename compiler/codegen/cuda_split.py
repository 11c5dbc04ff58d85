"""Reductions of many results at once: the second stage of totals, and axes in the middle.

A block is X results wide and Y threads deep: neighbouring threads take neighbouring results, the
depth shares the elements of each, and the shares are combined in one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.codegen.cuda_printer import (
    Printer,
    Rule,
    Scheduled,
    ceil_div,
    entry,
    parameters,
    power_of_two,
)
from graphnn.compiler.codegen.cuda_scalar import monoid
from graphnn.compiler.codegen.loops import (
    Combine,
    Kernel,
    Loop,
    Reset,
    Statement,
    Store,
    Update,
    walk,
)
from graphnn.compiler.codegen.scalar import Accumulator, Buffer
from graphnn.compiler.ir.sizes import Var, atom, product, unravel

THREADS = 256
LANES = 32
MANY = 1 << 16  # results from which on one thread each keeps the device busy


@dataclass(frozen=True)
class Split:
    """Results numbered by `outer` (the last runs fastest), each a reduction over `inner`."""

    outer: tuple[Var, ...]
    inner: tuple[Var, ...]
    accumulators: tuple[Accumulator, ...]
    updates: tuple[Update, ...]
    stores: tuple[Statement, ...]
    whole: bool = False  # whether all threads of a block must be used
    terms: int = 0  # elements of each reduction that are there, 0 for all

    @property
    def results(self) -> Any:
        """Their number."""
        return product(v.extent for v in self.outer)

    @property
    def shape(self) -> tuple[int, int]:
        """(X, Y) of a block."""
        results, terms = self.results, product(v.extent for v in self.inner)
        x = LANES if not isinstance(results, int) else min(LANES, power_of_two(max(1, results)))
        y = THREADS // x
        if isinstance(results, int) and results >= MANY:
            return THREADS, 1
        if isinstance(terms, int) and not self.whole:
            y = min(y, power_of_two(max(1, terms)))
        return (x, max(y, LANES // x))


def print_split(printer: Printer, split: Split) -> None:
    """The code of one block; `block` is its number."""
    x, y = split.shape
    printer.line(f"const int x = threadIdx.x % {x}, y = threadIdx.x / {x};")
    printer.line(f"const idx out = block * {x} + x;")
    results = printer.index(split.results)
    _unravel(printer, split.outer, "out")
    for a in split.accumulators:
        printer.reset(a)
    total = split.terms or product(v.extent for v in split.inner)
    if total != 0:
        extent = printer.index(total)
        with printer.block(f"for (idx r = y; r < {extent} && out < {results}; r += {y})"):
            _unravel(printer, split.inner, "r")
            printer.statements(split.updates)
    if y > 1:
        for a in split.accumulators:
            name = monoid(a.monoid, a.dtype)
            printer.line(f"{a.name} = split_reduce<{name}, {x}, {y}>({a.name});")
    with printer.block(f"if (y == 0 && out < {results})"):
        printer.statements(split.stores)


def _unravel(printer: Printer, vars: Sequence[Var], name: str) -> None:
    """Loop variables from a linear number."""
    number = Var(name, product(v.extent for v in vars))
    printer.vars[number] = name
    index = unravel(atom(number), tuple(v.extent for v in vars))
    for var, at in zip(vars, index, strict=True):
        printer.vars[var] = var.name
        printer.line(f"const idx {var.name} = {printer.index(at)};")


def finish_entry(kernel: Kernel, buffers: tuple[Buffer, ...], parts: int) -> tuple[str, Rule]:
    """The second stage: parts are combined, each result by its threads. parts: those written."""
    printer = Printer(kernel)
    printer.line("idx block = blockIdx.x;")
    total: Any = 0
    previous = ""
    for number, loop in enumerate(kernel.finish):
        split = _of_finish(loop, parts)
        blocks = ceil_div(split.results, split.shape[0])
        total = total + blocks
        if len(kernel.finish) == 1:
            print_split(printer, split)
            break
        if number:
            printer.line(f"block -= {previous};")
        previous = printer.index(blocks)
        with printer.block(f"if (block >= 0 && block < {previous})"):
            print_split(printer, split)
    text = entry("@K@_finish", parameters(kernel, buffers), THREADS, printer.lines)
    return text, Rule("_finish", total, THREADS)


def _of_finish(loop: Statement, parts: int) -> Split:
    match loop:
        case Loop(outer, (Reset(a), Loop(inner, (Update() as update,)), Store() as store)):
            return Split((outer,), (inner,), (a,), (update,), (store,), True, parts)
    raise TypeError(f"no CUDA for {loop} after all rows")


def middle_kernel(kernel: Kernel) -> Scheduled:
    """A reduction whose axes are neither the first nor the last ones."""
    split = _of_middle(kernel)
    printer = Printer(kernel)
    printer.line("const idx block = blockIdx.x;")
    print_split(printer, split)
    x, y = split.shape
    used = _buffers(kernel, split)
    text = entry("@K@", parameters(kernel, used), x * y, printer.lines)
    return Scheduled(text, (Rule("", ceil_div(split.results, x), x * y),), used)


def _of_middle(kernel: Kernel) -> Split:
    row = kernel.row or Var("i", 1)
    match kernel.body:
        case (Reset(a), Loop() as nest, Store() as store):
            vars, update = _nest(nest)
            if isinstance(update, Update):
                return Split((row,), vars, (a,), (update,), (store,))
        case (Loop(_, (Store(_, _, start),)), Loop() as nest, *rest):
            vars, combine = _nest(nest)
            if isinstance(combine, Combine):
                return _columns(kernel, row, vars, combine, start, rest)
    raise TypeError(f"no CUDA for the middle reduction {kernel.stem}")


def _nest(loop: Loop) -> tuple[tuple[Var, ...], Statement]:
    vars: list[Var] = []
    statement: Statement = loop
    while isinstance(statement, Loop):
        vars.append(statement.var)
        (statement,) = statement.body
    return tuple(vars), statement


def _columns(
    kernel: Kernel, row: Var, vars: tuple[Var, ...], combine: Combine, start: Any, rest: Any
) -> Split:
    """Sums in place become accumulators."""
    *inner, col = vars
    value = combine.value
    a = Accumulator("a0", combine.monoid, value.dtype, start.attrs[0].value)
    out = kernel.writes[0] if rest else combine.buffer
    store = Store(out, combine.linear, value.emit.read(a))
    return Split((row, col), tuple(inner), (a,), (Update(a, value),), (store,))


def _buffers(kernel: Kernel, split: Split) -> tuple[Buffer, ...]:
    """Buffers that are still touched: scratch rows of sums are not."""
    gone = {s.buffer for s in walk(kernel.body) if isinstance(s, Store | Combine)}
    gone -= {s.buffer for s in split.stores if isinstance(s, Store)}
    return tuple(b for b in kernel.buffers if b not in gone)
