"""Kernels over rows and columns whose rows do not depend on themselves: a thread has columns.

A thread keeps its pack of columns for many rows. What belongs to columns alone (a bias, a scale)
is read once, sums over rows stay in registers, and several rows are under way at a time. Sums of
few rows are finished by the block; of many, each block stores its part for `_finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.codegen.cuda_plan import Options, combines
from graphnn.compiler.codegen.cuda_printer import (
    Rule,
    Scheduled,
    ceil_div,
    entry,
    parameters,
    power_of_two,
)
from graphnn.compiler.codegen.cuda_scalar import literal, monoid, stored_type, value_type
from graphnn.compiler.codegen.cuda_span import (
    Place,
    Resident,
    Residents,
    Span,
    SpanPrinter,
    Widths,
    choose_width,
    hangs_on,
    packs_under_way,
    places,
    unguarded_loads,
)
from graphnn.compiler.codegen.cuda_split import finish_entry
from graphnn.compiler.codegen.loops import (
    PART,
    Combine,
    Kernel,
    Loop,
    Reset,
    Store,
    Update,
    scalars,
    walk,
)
from graphnn.compiler.codegen.scalar import Accumulator, Buffer
from graphnn.compiler.ir.sizes import Dynamic, Var, atoms
from graphnn.compiler.ops.base import neutral

THREADS = 256
MOST_ROWS = 8  # of one thread of a kernel without sums
BUSY = 264 * 8  # blocks from which on a thread may take more rows
NARROW = 8  # packs side by side that fill a line of the cache
DEEP = 64  # threads that share a column if its sum is finished by the block
FEW_ROWS = 8  # rows of a thread up to which the block finishes its sums


@dataclass(frozen=True)
class Grid:
    """How threads lie over rows and columns.

    x: packs side by side in a block. y: rows. chunks: blocks side by side. rows: that a thread
    has under way at a time. alone: whether the block finishes its sums.
    """

    kernel: Kernel
    row: Var
    loop: Loop
    widths: Widths
    x: int
    y: int
    chunks: int
    rows: int
    alone: bool

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.x * self.y


def grid_of(kernel: Kernel, scratch: set[Buffer]) -> Grid | None:
    """The grid of a kernel, or None where another schedule is needed."""
    if kernel.row is None or len(kernel.body) != 1 or kernel.enter:
        return None
    (loop,) = kernel.body
    if not isinstance(loop, Loop) or not isinstance(loop.var.extent, int) or not loop.var.extent:
        return None
    sums = combines(kernel)
    stored = {s.buffer for s in loop.body if isinstance(s, Store)}
    simple = all(isinstance(s, Store | Combine) for s in loop.body)
    partial = {s.buffer for s in sums}
    if not simple or stored & scratch or not _are_results(kernel, sums, partial):
        return None
    widths = choose_width(places(loop.body, loop.var), loop.var, aligned_only=True)
    if loop.var.extent % widths.width:
        if not sums:
            return None  # rows that begin anywhere: packs after single elements
        widths = Widths(1)
    return _sized(kernel, kernel.row, loop, widths)


def _are_results(kernel: Kernel, sums: list[Combine], partial: set[Buffer]) -> bool:
    """Whether nothing reads the sums but the second stage, which is of the known form."""
    read = {x.attrs[0] for s in walk(kernel.body) for x in unguarded_loads(scalars(s))}
    whole = len(partial) == len(sums) and not read & partial
    return whole and all(_finished(kernel, s) is not None for s in sums)


def _sized(kernel: Kernel, row: Var, loop: Loop, widths: Widths) -> Grid:
    packs, sums = loop.var.extent // widths.width, combines(kernel)
    chunks = ceil_div(packs, THREADS)
    x = ceil_div(packs, chunks)
    y = max(1, power_of_two(THREADS // x + 1) // 2)
    rows = packs_under_way(loop.body, loop.var, widths, row)
    known = isinstance(row.extent, int)
    if not sums:
        return Grid(kernel, row, loop, widths, x, y, chunks, rows, True)
    x_alone = min(NARROW, packs)
    y_alone = DEEP if not known else min(DEEP, power_of_two(ceil_div(row.extent, FEW_ROWS)))
    alone = not kernel.parts or (known and row.extent <= y_alone * FEW_ROWS)
    if alone:
        x, y, chunks = x_alone, y_alone, ceil_div(packs, x_alone)
    return Grid(kernel, row, loop, widths, x, y, chunks, rows, alone)


def grid_kernel(grid: Grid, options: Options) -> Scheduled:
    """The text and the launches."""
    kernel = grid.kernel
    printer = GridPrinter(grid)
    printer.all()
    sums = combines(kernel)
    gone = {s.buffer for s in sums} - set(kernel.writes) if grid.alone else set()
    buffers = tuple(b for b in kernel.buffers if b not in gone)
    text = entry("@K@", parameters(kernel, buffers), grid.threads, printer.lines)
    rules = [Rule("", _blocks(grid, options), grid.threads)]
    if sums and not grid.alone:
        finish, rule = finish_entry(kernel, buffers, options.parts)
        text += finish
        rules.append(rule)
    return Scheduled(text, tuple(rules), buffers, kernel.inplace)


def _blocks(grid: Grid, options: Options) -> Any:
    if combines(grid.kernel):
        return grid.chunks * (1 if grid.alone else options.parts)
    rows = grid.row.extent
    most = MOST_ROWS
    while isinstance(rows, int) and most > grid.rows:
        if grid.chunks * ceil_div(rows, grid.y * most) >= BUSY:
            break
        most //= 2
    return grid.chunks * ceil_div(rows, grid.y * max(most, grid.rows))


@dataclass(frozen=True)
class _Finish:
    """Where the sum of a column goes: `store` with the column `var` and the sum in `sum`."""

    store: Store
    var: Var | None
    sum: Accumulator | None


def _finished(kernel: Kernel, combine: Combine) -> _Finish | None:
    for s in kernel.finish:
        match s:
            case Loop(outer, (Reset(a), Loop(_, (Update(_, value),)), Store() as store)):
                if value.op == "load" and value.attrs[0] is combine.buffer:
                    return _Finish(store, outer, a)
    if combine.buffer in kernel.writes and not kernel.finish:
        return _Finish(Store(combine.buffer, combine.linear, combine.value), None, None)
    return None


class GridPrinter(SpanPrinter):
    """Prints a kernel over a grid."""

    def __init__(self, grid: Grid) -> None:
        sums = {
            s.buffer: Resident(f"s{k}", s.value.dtype, True)
            for k, s in enumerate(combines(grid.kernel))
        }
        super().__init__(grid.kernel, grid.widths, Residents(sums=sums))
        self.grid = grid
        self.var = grid.loop.var
        self.inside = ""  # whether a thread has columns, as text

    def all(self) -> None:
        """The whole entry."""
        grid, width = self.grid, self.widths.width
        self._lanes()
        for s in combines(self.kernel):
            array = self.residents.sums[s.buffer].array
            start = literal(neutral(s.monoid, s.value.dtype), s.value.dtype)
            self.line(f"{value_type(s.value.dtype)} {array}[{width}];")
            self.line("#pragma unroll")
            self.line(f"for (int e = 0; e < {width}; ++e) {array}[e] = {start};")
        self.hoist(self.kernel.body, grid.row)
        self._load_columns()
        step = grid.y * grid.rows
        first = f"part * {step} + y" if self._split() else "y"
        stride = f"parts * {step}" if self._split() else str(step)
        base = f"{grid.row.name}0" if grid.rows > 1 else grid.row.name
        with self.block(f"for (idx {base} = {first}; {base} < end; {base} += {stride})"):
            self._rows(base)
        self._store_sums()

    def _split(self) -> bool:
        """Whether blocks share the rows."""
        return not (self.grid.alone and combines(self.kernel))

    def _lanes(self) -> None:
        grid, width = self.grid, self.widths.width
        if grid.y > 1:
            self.line(f"const int x = threadIdx.x % {grid.x}, y = threadIdx.x / {grid.x};")
        else:
            self.line("const int x = threadIdx.x, y = 0;")
        chunk = "blockIdx.x"
        if self._split() and grid.chunks > 1:
            n = grid.chunks
            self.line(f"const idx part = blockIdx.x / {n}, parts = gridDim.x / {n};")
            chunk = f"blockIdx.x % {n}"
        elif self._split():
            self.line("const idx part = blockIdx.x, parts = gridDim.x;")
        self.vars[PART] = "part"
        own = f"({chunk} * {grid.x} + x)" if grid.chunks > 1 else "x"
        factor = f" * {width}" if width > 1 else ""
        name = self.vars[self.var] = self._first_column()
        self.line(f"const idx {name} = {own}{factor};")
        cols = self.index(self.var.extent)
        self.inside = "" if self._exact() else f"{name} < {cols}"
        self.line(f"const idx end = {f'{self.inside} ? rows : 0' if self.inside else 'rows'};")

    def _exact(self) -> bool:
        """Whether every thread has columns."""
        grid = self.grid
        return bool(grid.chunks * grid.x * self.widths.width == self.var.extent)

    def _first_column(self) -> str:
        return f"{self.var.name}0" if self.widths.width > 1 else self.var.name

    # ---- loads -------------------------------------------------------------------------------

    def _load_columns(self) -> None:
        """Packs that belong to columns alone."""
        width = self.widths.width
        if width == 1:
            self.hoist(self.kernel.body, self.grid.row)
            return
        found = [p for p in self._wide_places() if not hangs_on(p[1], self.grid.row)]
        for k, (buffer, linear) in enumerate(found):
            kind = stored_type(buffer.dtype)
            pointer = f"{buffer.name} + {self.index(linear)}"
            self.line(f"Pack<{kind}, {width}> c{k};")
            self.line(f"if (end > 0) c{k} = load_pack<{width}>({pointer});")
            self.placed[buffer, linear] = f"c{k}.at[e]"

    def _wide_places(self) -> Iterator[Place]:
        yield from dict.fromkeys(self._packed_loads(self.grid.loop.body, self.var))

    def _of_rows(self) -> Iterator[Place]:
        """Elements that belong to a row alone, at places known before."""
        row, col = self.grid.row, self.var
        loads = [x.attrs for s in self.grid.loop.body for x in unguarded_loads(scalars(s))]
        written = {s.buffer for s in walk(self.kernel.body) if isinstance(s, Store | Combine)}
        for buffer, linear in dict.fromkeys(loads):
            inside = atoms(linear)
            moves = any(isinstance(a, Dynamic) for a in inside)
            if row in inside and col not in inside and not moves and buffer not in written:
                yield buffer, linear

    def _rows(self, base: str) -> None:
        """All rows that are under way: what is read comes first."""
        grid = self.grid
        if grid.rows == 1:
            self.vars[grid.row] = base
            self._row()
            return
        outer = dict(self.placed)
        ahead = self._declare_ahead()
        name = grid.row.name
        step = f"u * {grid.y}" if grid.y > 1 else "u"
        if ahead:
            self.line("#pragma unroll")
            with self.block(f"for (int u = 0; u < {grid.rows}; ++u)"):
                self.line(f"const idx {name} = {base} + {step};")
                self.vars[grid.row] = name
                with self.block(f"if ({name} < end)"):
                    for target, source in ahead:
                        self.line(f"{target}[u] = {source()};")
        self.line("#pragma unroll")
        with self.block(f"for (int u = 0; u < {grid.rows}; ++u)"):
            self.line(f"const idx {name} = {base} + {step};")
            self.vars[grid.row] = name
            with self.block(f"if ({name} < end)"):
                self._row()
        self.placed = outer

    def _declare_ahead(self) -> list[tuple[str, Callable[[], str]]]:
        """Arrays for what several rows read: (name, how an element of it is read)."""
        found: list[tuple[str, Callable[[], str]]] = []
        for k, (buffer, linear) in enumerate(self._of_rows()):
            self.line(f"{stored_type(buffer.dtype)} r{k}[{self.grid.rows}];")
            self.placed[buffer, linear] = f"r{k}[u]"
            found.append((f"r{k}", self._element_at(buffer, linear)))
        if self.widths.width > 1:
            for name, buffer, linear in self.packs_ahead(
                self.grid.loop.body, self.var, self.grid.rows
            ):
                found.append((name, self._pack_of(buffer, linear)))
        return found

    def _pack_of(self, buffer: Buffer, linear: Any) -> Callable[[], str]:
        return lambda: f"load_pack<{self.widths.width}>({self._at(buffer, linear)})"

    def _at(self, buffer: Buffer, linear: Any) -> str:
        self.vars[self.var] = self._first_column()
        return f"{buffer.name} + {self.index(linear)}"

    def _element_at(self, buffer: Buffer, linear: Any) -> Callable[[], str]:
        return lambda: f"{buffer.name}[{self.index(linear)}]"

    def _row(self) -> None:
        """One row of this thread's columns."""
        body, width = self.grid.loop.body, self.widths.width
        span = Span(self.var, "", "", "", width)
        self.hoist(body, self.var)
        if width == 1:
            self.element(span, body, {})
        else:
            self.pack(span, body, self._first_column())

    def _single(self, row: Resident, span: Span) -> str:
        return f"{row.array}[e]" if span.width > 1 else f"{row.array}[0]"

    def _place_singles(self, span: Span) -> None:
        """Nothing is staged here."""

    # ---- sums --------------------------------------------------------------------------------

    def _store_sums(self) -> None:
        grid, width = self.grid, self.widths.width
        sums = combines(self.kernel)
        if not sums:
            return
        if grid.y > 1:
            self.line("#pragma unroll")
            with self.block(f"for (int e = 0; e < {width}; ++e)"):
                for s in sums:
                    place = f"{self.residents.sums[s.buffer].array}[e]"
                    reduce = f"split_reduce<{monoid(s.monoid, s.value.dtype)}, {grid.x}, {grid.y}>"
                    self.line(f"{place} = {reduce}({place});")
        tests = ["y == 0"] * (grid.y > 1) + [self.inside] * bool(self.inside)
        with self.block(f"if ({' && '.join(tests)})" if tests else ""):
            self.line("#pragma unroll")
            with self.block(f"for (int e = 0; e < {width}; ++e)"):
                if width > 1:
                    self.line(f"const idx {self.var.name} = {self._first_column()} + e;")
                self.vars[self.var] = self.var.name
                for s in sums:
                    self._store_sum(s, f"{self.residents.sums[s.buffer].array}[e]")

    def _store_sum(self, s: Combine, text: str) -> None:
        finish = _finished(self.kernel, s)
        if not self.grid.alone or finish is None or finish.sum is None or finish.var is None:
            self.line(f"{s.buffer.name}[{self.index(s.linear)}] = {self._narrow_sum(s, text)};")
            return
        kind = value_type(finish.sum.dtype)
        self.line(f"const {kind} {finish.sum.name} = {text};", finish.sum.loc)
        self.vars[finish.var] = self.var.name
        self.store(finish.store)

    def _narrow_sum(self, s: Combine, text: str) -> str:
        return self.narrowed(s.buffer.dtype, text)
