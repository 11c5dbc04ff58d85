"""Row kernels: a team of lanes works on one row, which stays on the chip between its sweeps.

Short rows have a part of a warp, long ones up to a block. Every lane owns the same columns in all
sweeps, so what it keeps (rows read once, costly values, sums over rows) needs no synchronisation.
It is kept in registers if that is little, else in shared memory; what does not fit is computed or
read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphnn.compiler.codegen.cuda_flat import name_part, totals_end
from graphnn.compiler.codegen.cuda_plan import (
    Options,
    Plan,
    combines,
    make_plan,
    row_length,
)
from graphnn.compiler.codegen.cuda_printer import (
    Rule,
    Scheduled,
    ceil_div,
    entry,
    parameters,
)
from graphnn.compiler.codegen.cuda_scalar import literal, monoid, stored_type, value_type
from graphnn.compiler.codegen.cuda_span import Resident, Span, SpanPrinter
from graphnn.compiler.codegen.cuda_split import finish_entry
from graphnn.compiler.codegen.loops import (
    Combine,
    Kernel,
    Loop,
    Statement,
    Store,
    Update,
    scalars,
    walk,
)
from graphnn.compiler.codegen.lower import inplace_pairs
from graphnn.compiler.codegen.scalar import Accumulator, Buffer, expressions
from graphnn.compiler.ir.sizes import Var, atoms
from graphnn.compiler.ops.base import neutral


def row_kernel(kernel: Kernel, scratch: Iterable[Buffer], options: Options) -> Scheduled:
    """A kernel with loops over columns inside the loop over rows."""
    plan = make_plan(kernel, set(scratch), options)
    kernel = plan.kernel
    on_chip = set(plan.residents.kept)
    buffers = tuple(b for b in kernel.buffers if b not in on_chip and b in touched(kernel))
    printer = RowPrinter(plan)
    printer.all()
    single = not kernel.parts and bool(kernel.enter or combines(kernel))
    text = entry("@K@", parameters(kernel, buffers), plan.threads, printer.lines)
    units = kernel.rows * ceil_div(plan.cols, plan.chunk) if plan.chunked else kernel.rows
    blocks = ceil_div(units, plan.teams)
    parts = max(1, options.parts // 2) if plan.crowded else options.parts
    if kernel.parts or single:
        blocks = parts if kernel.parts else 1
    rules = [Rule("", blocks, plan.threads, plan.shared)]
    if kernel.parts and kernel.finish:
        finish, rule = finish_entry(kernel, buffers, parts)
        text += finish
        rules.append(rule)
    return Scheduled(text, tuple(rules), buffers, tuple(_safe_inplace(kernel, plan.var)))


def touched(kernel: Kernel) -> set[Buffer]:
    """Buffers that statements other than `start` read or write."""
    found: set[Buffer] = set()
    for s in walk((*kernel.enter, *kernel.body, *kernel.leave, *kernel.finish)):
        if isinstance(s, Store | Combine):
            found.add(s.buffer)
        found |= {e.attrs[0] for e in expressions(scalars(s)) if e.op == "load"}
    return found


def _safe_inplace(kernel: Kernel, var: Var) -> Iterable[tuple[Buffer, Buffer]]:
    """Pairs that one thread reads and writes: elements of columns, not those of rows, which one
    lane writes while others may still read them. Values that are computed again read late."""
    every = (*kernel.start, *kernel.enter, *kernel.body, *kernel.leave, *kernel.finish)
    still = set(inplace_pairs(every, kernel.writes))
    for out, source in kernel.inplace:
        stores = [s for s in walk(kernel.body) if isinstance(s, Store) and s.buffer is out]
        in_columns = bool(stores) and all(var in atoms(s.linear) for s in stores)
        if in_columns and (out, source) in still:
            yield out, source


def _read_across(kernel: Kernel) -> set[Buffer]:
    """Memory of which all lanes read single elements that another lane may overwrite."""
    rows = [s for s in kernel.body if not isinstance(s, Loop)]
    found = {e.attrs[0] for e in expressions(v for s in rows for v in scalars(s)) if e.op == "load"}
    return {out for out, source in kernel.inplace if source in found}


class RowPrinter(SpanPrinter):
    """Prints a row kernel."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.kernel, plan.widths, plan.residents)
        self.plan = plan

    def all(self) -> None:
        """The whole entry."""
        plan, kernel = self.plan, self.kernel
        name_part(self, bool(kernel.leave or combines(kernel)))
        self._arrays()
        self.statements(kernel.enter)
        if kernel.rows != 0:
            self.hoist(kernel.body, kernel.row)
            self._rows()
        self._store_sums()
        totals_end(self, kernel, plan.threads)

    # ---- memory on the chip ------------------------------------------------------------------

    def _arrays(self) -> None:
        plan = self.plan
        lanes = plan.lanes
        self.line(
            f"const int lane = threadIdx.x % {lanes}, team = threadIdx.x / {lanes};"
            if plan.teams > 1
            else "const int lane = threadIdx.x;"
        )
        if plan.shared:
            self.line("DYNAMIC_SHARED(chip);")
        offset = 0
        for row, of_rows in self._residents():
            if row.registers:
                self._registers(row, of_rows)
            if row.registers and (of_rows != "sums" or plan.teams == 1):
                continue
            kind, length = stored_type(row.dtype), row_length(plan, row.dtype)
            own = f" + team * {length}" if plan.teams > 1 else ""
            name = f"{row.array}_all" if row.registers else row.array
            self.line(f"{kind}* {name} = ({kind}*)(chip + {offset}){own};")
            offset += plan.teams * length * row.dtype.itemsize
        self._clear_sums()

    def _residents(self) -> Iterable[tuple[Resident, str]]:
        found = self.residents
        yield from ((row, "sums") for row in found.sums.values())
        yield from ((row, "staged") for row in found.staged.values())
        yield from ((row, "kept") for row in found.kept.values())

    def _registers(self, row: Resident, of_rows: str) -> None:
        plan, width = self.plan, self.widths.width
        if of_rows == "staged":
            names = [row.array, f"{row.array}_next"] if self._reads_ahead() else [row.array]
            arrays = ", ".join(f"{name}[{plan.packs}]" for name in names)
            self.line(f"Pack<{stored_type(row.dtype)}, {width}> {arrays};")
        else:
            self.line(f"{value_type(row.dtype)} {row.array}[{plan.packs * width}];")

    def _clear_sums(self) -> None:
        for s in combines(self.kernel):
            start = literal(neutral(s.monoid, s.value.dtype), s.value.dtype)
            row = self.residents.sums.get(s.buffer)
            if row is None:
                self._clear_global(s, start)
            elif row.registers:
                size = self.plan.packs * self.widths.width
                self.line("#pragma unroll")
                self.line(f"for (int k = 0; k < {size}; ++k) {row.array}[k] = {start};")
            else:
                step = self.plan.lanes
                end = self.index(self.plan.cols)
                self.line(f"for (idx j = lane; j < {end}; j += {step}) {row.array}[j] = {start};")
        own = sum(row.registers for row in self.residents.sums.values())
        if own < len(combines(self.kernel)):
            self.line("__syncthreads();")

    def _clear_global(self, s: Combine, start: str) -> None:
        place = f"{s.buffer.name}[{self._sum_index(s, 'j')}]"
        end = self.index(self.plan.cols)
        step = self.plan.threads
        self.line(f"for (idx j = threadIdx.x; j < {end}; j += {step}) {place} = {start};")

    def _sum_index(self, s: Combine, name: str) -> str:
        self.vars[self.plan.var] = name
        return self.index(s.linear)

    # ---- rows --------------------------------------------------------------------------------

    def _rows(self) -> None:
        plan, kernel = self.plan, self.kernel
        row = kernel.row or Var("i", 1)
        name = row.name
        if plan.chunked:
            self._chunks(row)
            return
        first = f"blockIdx.x * {plan.teams} + team" if plan.teams > 1 else "blockIdx.x"
        step = f"gridDim.x * {plan.teams}" if plan.teams > 1 else "gridDim.x"
        if self._reads_ahead():
            self.vars[row] = f"({first})"
            with self.block(f"if ({first} < rows)"):
                self._load_registers("_next")
        with self.block(f"for (idx {name} = {first}; {name} < rows; {name} += {step})"):
            self.vars[row] = name
            if self._reads_ahead():
                self._turn(row, step)
            self._row()

    def _reads_ahead(self) -> bool:
        """Whether a team reads its next row while it works on one: it has many."""
        return self.plan.registers and bool(self.residents.staged) and self.kernel.parts

    def _turn(self, row: Var, step: str) -> None:
        """The next row becomes this one, and the one after it is asked for."""
        self.line("#pragma unroll")
        with self.block(f"for (int k = 0; k < {self.plan.packs}; ++k)"):
            for r in self.residents.staged.values():
                self.line(f"{r.array}[k] = {r.array}_next[k];")
        name = self.vars[row]
        self.vars[row] = f"({name} + {step})"
        with self.block(f"if ({name} + {step} < rows)"):
            self._load_registers("_next")
        self.vars[row] = name

    def _chunks(self, row: Var) -> None:
        """Blocks share rows: a unit of work is a row's chunk."""
        plan, name = self.plan, row.name
        self.line(f"const idx chunks = {self.index(ceil_div(plan.cols, plan.chunk))};")
        first = f"blockIdx.x * {plan.teams} + team" if plan.teams > 1 else "blockIdx.x"
        step = f"gridDim.x * {plan.teams}" if plan.teams > 1 else "gridDim.x"
        with self.block(f"for (idx unit = {first}; unit < rows * chunks; unit += {step})"):
            self.line(f"const idx {name} = unit / chunks, first = unit % chunks * {plan.chunk};")
            self.vars[row] = name
            self._row()

    def _row(self) -> None:
        """One row by one team."""
        plan = self.plan
        self.row_head()
        self._stage()
        for s in self.kernel.body:
            if isinstance(s, Loop):
                self.columns(s)
            else:
                self.row_statement(s)
        if plan.head and (self.residents.kept or self.residents.staged or self._has_sums()):
            team = f"{plan.lanes}, {plan.threads}"
            self.line(f"team_sync<{team}>();  // columns have other owners in the next row")

    def _has_sums(self) -> bool:
        return bool(combines(self.kernel))

    def row_head(self) -> None:
        """Where the packs of this row begin, and how many elements they hold."""
        plan, width = self.plan, self.widths.width
        cols = self.index(plan.cols)
        if plan.registers or width == 1:
            return
        if not plan.head:
            packed = (
                self.index(plan.cols // width * width)
                if isinstance(plan.cols, int)
                else (f"{cols} / {width} * {width}")
            )
            self.line(f"const idx packed = {packed};")
        else:
            terms = (self._term(m, c) for m, c in self.widths.residue)
            start = " + ".join(sorted(terms))
            least = "head" if isinstance(plan.cols, int) else f"smaller<idx>(head_, {cols})"
            name = "head" if isinstance(plan.cols, int) else "head_"
            self.line(f"const idx {name} = -({start}) & {width - 1};  // elements to the next pack")
            if name != "head":
                self.line(f"const idx head = {least};")
            if self.residents.kept or self.residents.staged:
                self.line(f"const idx pad = ({width} - head) & {width - 1};")
            self.line(f"const idx packed = ({cols} - head) / {width} * {width};")
        if plan.chunked:
            self.line(f"const idx limit = smaller<idx>(first + {plan.chunk}, packed);")

    def _term(self, monomial: Any, factor: int) -> str:
        words = [self.atom(a) for a in monomial]
        return " * ".join([*words, str(factor)] if factor != 1 or not words else words)

    def _span(self) -> Span:
        plan, width = self.plan, self.widths.width
        static = isinstance(plan.cols, int)
        limit = "limit"
        if plan.chunked and width == 1:
            limit = f"smaller<idx>(first + {plan.chunk}, {self.index(plan.cols)})"
        return Span(
            var=plan.var,
            end=self.index(plan.cols),
            lane="lane",
            lanes=str(plan.lanes),
            width=width,
            head="head" if plan.head else "",
            exact=static and not plan.head and plan.cols % width == 0,
            first="first" if plan.chunked else "",
            limit=limit if plan.chunked else "",
            unrolled=plan.packs if plan.registers else 0,
            full=plan.registers and plan.cols == plan.packs * width * plan.lanes,
        )

    def _stage(self) -> None:
        """Bring rows that several sweeps read onto the chip."""
        staged = self.residents.staged
        if not staged:
            return
        plan, width, var = self.plan, self.widths.width, self.plan.var
        if plan.registers:
            if not self._reads_ahead():
                self._load_registers("")
            return
        if width == 1:
            with self.block(f"for (idx j = lane; j < {plan.cols}; j += {plan.lanes})"):
                self._stage_singles("j")
            return
        step = plan.lanes * width
        with self.block(f"for (idx q = lane * {width}; q < packed; q += {step})"):
            self.line(f"const idx j0 = {'head + ' if plan.head else ''}q;")
            self.vars[var] = "j0"
            for (buffer, linear), row in staged.items():
                source = f"{buffer.name} + {self.index(linear)}"
                self.line(f"stage_pack<{width}>({row.array} + {row.at('j0')}, {source});")
        if plan.head or plan.cols % width:
            head = f"for (idx q = lane; q < {plan.cols} - packed; q += {plan.lanes})"
            with self.block(head):
                where = "q < head ? q : q + packed" if plan.head else "q + packed"
                self.line(f"const idx j = {where};")
                self._stage_singles("j")
        self.line("stage_wait();")

    def _stage_singles(self, name: str) -> None:
        self.vars[self.plan.var] = name
        for (buffer, linear), row in self.residents.staged.items():
            source = f"{buffer.name}[{self.index(linear)}]"
            self.line(f"{row.array}[{row.at(name)}] = {source};")

    def _load_registers(self, suffix: str) -> None:
        plan, width = self.plan, self.widths.width
        factor = f" * {width}" if width > 1 else ""
        self.line("#pragma unroll")
        with self.block(f"for (int k = 0; k < {plan.packs}; ++k)"):
            self.line(f"const idx j0 = (lane + k * {plan.lanes}){factor};")
            full = plan.cols == plan.packs * width * plan.lanes
            test = "" if full else f"if (j0 < {plan.cols}) "
            self.vars[plan.var] = "j0"
            for (buffer, linear), row in self.residents.staged.items():
                source = f"{buffer.name} + {self.index(linear)}"
                self.line(f"{test}{row.array}{suffix}[k] = load_pack<{width}>({source});")

    def columns(self, loop: Loop) -> None:
        """A sweep over the columns, and what it sums up."""
        stored = {s.buffer for s in loop.body if isinstance(s, Store)}
        if stored & _read_across(self.kernel) and self.plan.lanes > 1:
            team = f"{self.plan.lanes}, {self.plan.threads}"
            self.line(f"team_sync<{team}>();  // all lanes have read what is overwritten now")
        if loop.var.extent != 0:
            self.span(self._span(), loop.body)
        updated = [s.accumulator for s in loop.body if isinstance(s, Update)]
        mine = [a for a in dict.fromkeys(updated) if a not in self._totals()]
        for k in range(0, len(mine), 2):
            self._reduce(mine[k : k + 2])

    def _reduce(self, found: list[Accumulator]) -> None:
        """One or two combinations over the team."""
        plan = self.plan
        if plan.lanes == 1:
            return
        names = [monoid(a.monoid, a.dtype) for a in found]
        team = f"{', '.join(names)}, {plan.lanes}, {plan.threads}"
        given = ", ".join(a.name for a in found)
        result = f"{given} = " if len(found) == 1 else ""
        self.line(f"{result}team_reduce<{team}>({given});", found[0].loc)

    def _totals(self) -> set[Accumulator]:
        """Accumulators that run over all rows."""
        resets = {getattr(s, "accumulator", None) for s in self.kernel.enter}
        return {a for a in resets if a is not None}

    def row_statement(self, s: Statement) -> None:
        """What happens once a row: every lane knows the values, the first one writes."""
        for value in scalars(s):
            self.value(value)
        own = isinstance(s, Store) or (isinstance(s, Update) and s.accumulator in self._totals())
        if not own:
            self.statements((s,))
            return
        first = "lane == 0 && first == 0" if self.plan.chunked else "lane == 0"
        with self.block(f"if ({first})"):
            self.statements((s,))

    # ---- after all rows ------------------------------------------------------------------------

    def _store_sums(self) -> None:
        """The block's sums of columns to its part of global memory."""
        found = [s for s in combines(self.kernel) if s.buffer in self.residents.sums]
        plan = self.plan
        if not found:
            self._sync_global()
            return
        own = [s for s in found if self.residents.sums[s.buffer].registers]
        if len(own) == len(found) and plan.teams == 1:
            self._store_own(found)
            self._sync_global()
            return
        for s in own:
            self._share_registers(s)
        self.line("__syncthreads();")
        cols, threads = plan.cols, plan.threads
        with self.block(f"for (idx j = threadIdx.x; j < {cols}; j += {threads})"):
            for s in found:
                row = self.residents.sums[s.buffer]
                length = row_length(plan, row.dtype)
                array = f"{row.array}_all" if row.registers else row.array
                all_teams = f"({array} - team * {length})" if plan.teams > 1 else array
                self._sum_teams(s, all_teams, length)
        self._sync_global()

    def _sum_teams(self, s: Combine, array: str, length: int) -> None:
        plan, kind, total = self.plan, value_type(s.value.dtype), self.fresh("total")
        self.line(f"{kind} {total} = {array}[j];")
        if plan.teams > 1:
            step = self.combined(total, s.monoid, s.value.dtype, f"{array}[t * {length} + j]")
            self.line(f"for (int t = 1; t < {plan.teams}; ++t) {step}")
        at = self._sum_index(s, "j")
        self.line(f"{s.buffer.name}[{at}] = {self.narrowed(s.buffer.dtype, total)};")

    def _store_own(self, combines: list[Combine]) -> None:
        plan, width = self.plan, self.widths.width
        self.line("#pragma unroll")
        with self.block(f"for (int k = 0; k < {plan.packs * width}; ++k)"):
            self.line(f"const idx j = {self._own_column()};")
            with self.block(f"if (j < {plan.cols})"):
                for s in combines:
                    row = self.residents.sums[s.buffer]
                    at = self._sum_index(s, "j")
                    text = self.narrowed(s.buffer.dtype, f"{row.array}[k]")
                    self.line(f"{s.buffer.name}[{at}] = {text};")

    def _share_registers(self, s: Combine) -> None:
        """A team puts its registers beside those of the others."""
        plan, row = self.plan, self.residents.sums[s.buffer]
        self.line("#pragma unroll")
        with self.block(f"for (int k = 0; k < {plan.packs * self.widths.width}; ++k)"):
            self.line(f"const idx j = {self._own_column()};")
            self.line(f"if (j < {plan.cols}) {row.array}_all[j] = {row.array}[k];")

    def _own_column(self) -> str:
        """The column of register k."""
        lanes, width = self.plan.lanes, self.widths.width
        if width == 1:
            return f"lane + k * {lanes}"
        return f"(lane + k / {width} * {lanes}) * {width} + k % {width}"

    def _sync_global(self) -> None:
        """What the block wrote to global memory is read by its other threads in `finish`."""
        if combines(self.kernel) and self.kernel.finish and not self.kernel.parts:
            self.line("__syncthreads();")
