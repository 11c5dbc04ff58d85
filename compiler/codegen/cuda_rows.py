"""Row kernels: a team of lanes works on one row, which stays on the chip between its sweeps.

Short rows have a part of a warp, long ones a block. Every lane owns the same columns in all sweeps,
so what it keeps (rows read once, costly values, sums over rows) needs no synchronisation. It is kept
in registers if that is little, else in shared memory; what does not fit is computed or read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from graphnn.compiler.codegen.cuda_flat import Options, totals_end
from graphnn.compiler.codegen.cuda_printer import (
    Printer,
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
    is_neighbour,
    places,
    unguarded_loads,
)
from graphnn.compiler.codegen.cuda_split import finish_entry
from graphnn.compiler.codegen.loops import (
    PART,
    Combine,
    Kernel,
    Loop,
    Statement,
    Store,
    Update,
    expressions,
    scalars,
    walk,
)
from graphnn.compiler.codegen.scalar import Accumulator, Buffer, Scalar
from graphnn.compiler.ir.sizes import Var, atom, atoms, terms_of
from graphnn.compiler.ops.base import neutral

THREADS = 256
WARP = 32
PACKS_A_LANE = 4
CHUNK_PACKS = 4  # packs a lane takes of a row that is split over blocks


@dataclass
class Plan:
    """How the rows of a kernel are worked on.

    lanes: of a row's team. threads: of a block. chunked: whether blocks share a row.
    """

    kernel: Kernel
    var: Var
    cols: Any
    widths: Widths
    lanes: int
    threads: int
    head: bool
    chunked: bool
    registers: bool
    residents: Residents
    shared: int = 0

    @property
    def teams(self) -> int:
        """Rows that a block works on at a time."""
        return self.threads // self.lanes

    @property
    def packs(self) -> int:
        """Packs of each lane, if rows are in registers."""
        return -(-self.cols // (self.widths.width * self.lanes))

    @property
    def chunk(self) -> int:
        """Columns of a chunk."""
        return self.lanes * self.widths.width * CHUNK_PACKS


def row_kernel(kernel: Kernel, scratch: Iterable[Buffer], options: Options) -> Scheduled:
    """A kernel with loops over columns inside the loop over rows."""
    kernel, plan = make_plan(kernel, set(scratch), options)
    on_chip = set(plan.residents.kept)
    buffers = tuple(b for b in kernel.buffers if b not in on_chip and b in _touched(kernel))
    printer = RowPrinter(plan)
    printer.all(options)
    single = not kernel.parts and bool(kernel.enter or _combines(kernel))
    text = entry("@K@", parameters(kernel, buffers), plan.threads, printer.lines)
    units = kernel.rows * ceil_div(plan.cols, plan.chunk) if plan.chunked else kernel.rows
    blocks = ceil_div(units, plan.teams)
    if kernel.parts or single:
        blocks = options.parts if kernel.parts else 1
    rules = [Rule("", blocks, plan.threads, plan.shared)]
    if kernel.parts and kernel.finish:
        finish, rule = finish_entry(kernel, buffers)
        text += finish
        rules.append(rule)
    return Scheduled(text, tuple(rules), buffers, tuple(_safe_inplace(kernel, plan.var)))


def _touched(kernel: Kernel) -> set[Buffer]:
    """Buffers that statements other than `start` read or write."""
    found: set[Buffer] = set()
    for s in walk((*kernel.enter, *kernel.body, *kernel.leave, *kernel.finish)):
        if isinstance(s, Store | Combine):
            found.add(s.buffer)
        found |= {e.attrs[0] for e in expressions(scalars(s)) if e.op == "load"}
    return found


def _safe_inplace(kernel: Kernel, var: Var) -> Iterable[tuple[Buffer, Buffer]]:
    """Pairs that one thread reads and writes: elements of columns, not those of rows, which one
    lane writes while others may still read them."""
    for out, source in kernel.inplace:
        stores = [s for s in walk(kernel.body) if isinstance(s, Store) and s.buffer is out]
        if stores and all(_has(s.linear, var) for s in stores):
            yield out, source


def _has(linear: Any, var: Var) -> bool:
    return var in atoms(linear)


# ---- the plan ------------------------------------------------------------------------------------


def make_plan(kernel: Kernel, scratch: set[Buffer], options: Options) -> tuple[Kernel, Plan]:
    """The kernel, perhaps with values computed again that were to be kept, and its plan."""
    loops = [s for s in kernel.body if isinstance(s, Loop)]
    var = loops[0].var
    kept = _kept(loops, scratch)
    static = isinstance(var.extent, int)
    if not static:
        kernel = recompute(kernel, set(kept))
        kept = []
    found = [p for loop in loops for p in places(loop.body, var) if p[0] not in scratch]
    widths = choose_width(found, var, aligned_only=False)
    if static and widths.width > 1 and not _worth_packing(var.extent, widths):
        widths = Widths(1)
    head = bool(widths.residue)
    simple = _is_map(kernel)
    lanes = _lanes(var.extent, widths.width, simple)
    threads = lanes if lanes > WARP and not simple else THREADS
    chunked = simple and not (static and var.extent <= lanes * widths.width * 2 * CHUNK_PACKS)
    plan = Plan(
        kernel, var, var.extent, widths, lanes, threads, head, chunked, False, Residents()
    )
    if simple or not static:
        return kernel, plan
    staged = _read_again(kernel, scratch)
    sums = [s for s in walk(kernel.body) if isinstance(s, Combine)]
    rows = len(kept) + len(staged) + len(sums)
    aligned = not head and var.extent % widths.width == 0
    if rows and aligned and plan.packs * widths.width * rows <= options.registers:
        plan.registers = True
    _choose_residents(plan, kept, staged, sums, options)
    lost = set(kept) - set(plan.residents.kept)
    if lost:
        plan.kernel = recompute(kernel, lost)
    return plan.kernel, plan


def _worth_packing(cols: int, widths: Widths) -> bool:
    if not widths.residue and cols % widths.width == 0:
        return True
    return cols >= 8 * widths.width


def _kept(loops: list[Loop], scratch: set[Buffer]) -> list[Buffer]:
    stored = [s.buffer for loop in loops for s in loop.body if isinstance(s, Store)]
    return [b for b in dict.fromkeys(stored) if b in scratch]


def _is_map(kernel: Kernel) -> bool:
    """Whether no value depends on other columns or rows."""
    changes = any(isinstance(s, Update | Combine) for s in walk(kernel.body))
    return not (changes or kernel.enter)


def _lanes(cols: Any, width: int, simple: bool) -> int:
    if not isinstance(cols, int):
        return THREADS
    packs = max(1, -(-cols // width))
    if simple:
        return min(THREADS, power_of_two(packs))
    if packs <= WARP * PACKS_A_LANE:
        return min(WARP, power_of_two(packs))
    return min(512, max(64, power_of_two(-(-packs // PACKS_A_LANE))))


def _read_again(kernel: Kernel, scratch: set[Buffer]) -> list[Place]:
    """Rows that more than one sweep reads."""
    count: dict[Place, int] = {}
    row = kernel.row
    for loop in (s for s in kernel.body if isinstance(s, Loop)):
        own: set[Place] = set()
        for s in loop.body:
            own |= {load.attrs for load in unguarded_loads(scalars(s))}
        for buffer, linear in own:
            varies = row is None or row in atoms(linear)
            if buffer not in scratch and varies and is_neighbour(linear, loop.var):
                count[buffer, linear] = count.get((buffer, linear), 0) + 1
    return [place for place, times in count.items() if times > 1]


def _choose_residents(
    plan: Plan, kept: list[Buffer], staged: list[Place], sums: list[Combine], options: Options
) -> None:
    """Sums first, then rows that would be read again, then values that would be computed again."""
    found = plan.residents
    wanted: list[tuple[dict[Any, Resident], Any, Any, str]] = []
    wanted += [(found.sums, s.buffer, s.value.dtype, f"s{k}") for k, s in enumerate(sums)]
    same_residue = [p for p in staged if plan.widths.width == 1 or plan.widths.fits(p[1], plan.var)]
    wanted += [(found.staged, p, p[0].dtype, f"r{k}") for k, p in enumerate(same_residue)]
    wanted += [(found.kept, b, b.dtype, b.name) for b in kept]
    pad = "pad" if plan.head else ""
    for table, key, dtype, name in wanted:
        if plan.registers:
            table[key] = Resident(name, dtype, True)
            continue
        nbytes = plan.teams * row_length(plan, dtype) * dtype.itemsize
        if plan.shared + nbytes <= options.shared:
            plan.shared += nbytes
            own_pad = "" if table is found.sums else pad
            table[key] = Resident(name, dtype, False, own_pad)


def row_length(plan: Plan, dtype: Any) -> int:
    """Elements of a row in shared memory, so that each row starts at a multiple of 16 bytes."""
    unit = max(plan.widths.width, 16 // dtype.itemsize)
    cols = plan.cols + (plan.widths.width if plan.head else 0)
    return -(-cols // unit) * unit


def recompute(kernel: Kernel, lost: set[Buffer]) -> Kernel:
    """The kernel without some kept rows: each reader computes the value itself."""
    if not lost:
        return kernel
    known: dict[int, Scalar] = {}
    stored: dict[Buffer, Scalar] = {}

    def again(value: Scalar) -> Scalar:
        for e in expressions((value,)):
            if id(e) not in known:
                known[id(e)] = _rebuilt(e, known, stored, lost)
        return known[id(value)]

    body: list[Statement] = []
    for s in kernel.body:
        if not isinstance(s, Loop):
            body.append(_with_value(s, again))
            continue
        inner: list[Statement] = []
        for t in s.body:
            new = _with_value(t, again)
            if isinstance(new, Store) and new.buffer in lost:
                stored[new.buffer] = new.value
            else:
                inner.append(new)
        if inner:
            body.append(replace(s, body=tuple(inner)))
    return replace(kernel, body=tuple(body))


def _rebuilt(
    e: Scalar, known: dict[int, Scalar], stored: dict[Buffer, Scalar], lost: set[Buffer]
) -> Scalar:
    if e.op == "load" and e.attrs[0] in lost:
        return stored[e.attrs[0]]
    args = tuple(known[id(a)] for a in e.args)
    if all(a is b for a, b in zip(args, e.args, strict=True)):
        return e
    outer, e.emit.loc = e.emit.loc, e.loc
    new = e.emit.make(e.op, args, e.dtype, e.attrs, e.needs)
    e.emit.loc = outer
    return new


def _with_value(s: Statement, change: Any) -> Statement:
    if isinstance(s, Store | Combine | Update):
        return replace(s, value=change(s.value))
    return s


# ---- the text ------------------------------------------------------------------------------------


class RowPrinter(SpanPrinter):
    """Prints a row kernel."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.kernel, plan.widths, plan.residents)
        self.plan = plan

    def all(self, options: Options) -> None:
        """The whole entry."""
        plan, kernel = self.plan, self.kernel
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
            if plan.registers:
                self._registers(row, of_rows)
                continue
            kind, length = stored_type(row.dtype), row_length(plan, row.dtype)
            own = f" + team * {length}" if plan.teams > 1 else ""
            self.line(f"{kind}* {row.array} = ({kind}*)(chip + {offset}){own};")
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
            self.line(f"Pack<{stored_type(row.dtype)}, {width}> {row.array}[{plan.packs}];")
        else:
            self.line(f"{value_type(row.dtype)} {row.array}[{plan.packs * width}];")

    def _clear_sums(self) -> None:
        for s in _combines(self.kernel):
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
        if _combines(self.kernel) and not self.plan.registers:
            self.line("__syncthreads();")

    def _clear_global(self, s: Combine, start: str) -> None:
        self._name_part()
        place = f"{s.buffer.name}[{self._sum_index(s, 'j')}]"
        end = self.index(self.plan.cols)
        step = self.plan.threads
        self.line(f"for (idx j = threadIdx.x; j < {end}; j += {step}) {place} = {start};")

    def _sum_index(self, s: Combine, name: str) -> str:
        self.vars[self.plan.var] = name
        return self.index(s.linear)

    def _name_part(self) -> None:
        if PART not in self.vars:
            self.vars[PART] = "(idx)blockIdx.x"

    # ---- rows --------------------------------------------------------------------------------

    def _rows(self) -> None:
        plan, kernel = self.plan, self.kernel
        self._name_part()
        row = kernel.row or Var("i", 1)
        name = row.name
        if plan.chunked:
            self._chunks(row)
            return
        first = f"blockIdx.x * {plan.teams} + team" if plan.teams > 1 else "blockIdx.x"
        step = f"gridDim.x * {plan.teams}" if plan.teams > 1 else "gridDim.x"
        if plan.teams > 1 and not plan.registers and self._teams_share():
            self._rows_in_step(row)
            return
        with self.block(f"for (idx {name} = {first}; {name} < rows; {name} += {step})"):
            self.vars[row] = name
            self._row()

    def _teams_share(self) -> bool:
        """Whether teams of a block write to memory that is not their own."""
        return any(s.buffer not in self.residents.sums for s in _combines(self.kernel))

    def _rows_in_step(self, row: Var) -> None:
        """Sums in global memory: the teams of a block take turns."""
        plan, name = self.plan, row.name
        head = f"for (idx base = blockIdx.x * {plan.teams}; base < rows; "
        with self.block(head + f"base += gridDim.x * {plan.teams})"):
            with self.block(f"for (int turn = 0; turn < {plan.teams}; ++turn)"):
                self.line(f"const idx {name} = base + turn;")
                self.vars[row] = name
                with self.block(f"if (team == turn && {name} < rows)"):
                    self._row()
                self.line("__syncthreads();")

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
        self._head()
        self.hoist(
            [s for s in self.kernel.body if not isinstance(s, Loop)], None
        ) if False else None
        self._stage()
        for s in self.kernel.body:
            if isinstance(s, Loop):
                self._columns(s)
            else:
                self._row_statement(s)
        if plan.head and (self.residents.kept or self.residents.staged or self._has_sums()):
            self._team_sync()

    def _has_sums(self) -> bool:
        return bool(_combines(self.kernel))

    def _team_sync(self) -> None:
        plan = self.plan
        if plan.teams == 1:
            self.line("__syncthreads();  // columns have other owners in the next row")
        else:
            self.line(f"__syncwarp(team_mask<{plan.lanes}>());")

    def _head(self) -> None:
        """Where the packs of this row begin, and how many elements they hold."""
        plan, width = self.plan, self.widths.width
        cols = self.index(plan.cols)
        if plan.registers or width == 1:
            return
        if not plan.head:
            packed = self.index(plan.cols // width * width) if isinstance(plan.cols, int) else (
                f"{cols} / {width} * {width}"
            )
            self.line(f"const idx packed = {packed};")
        else:
            terms = dict(self.widths.residue)
            start = " + ".join(self._term(m, c) for m, c in terms.items())
            least = "head" if isinstance(plan.cols, int) else f"smaller(head_, {cols})"
            name = "head" if isinstance(plan.cols, int) else "head_"
            self.line(f"const idx {name} = -({start}) & {width - 1};  // elements to the next pack")
            if name != "head":
                self.line(f"const idx head = {least};")
            if self.residents.kept or self.residents.staged:
                self.line(f"const idx pad = ({width} - head) & {width - 1};")
            self.line(f"const idx packed = ({cols} - head) / {width} * {width};")
        if plan.chunked:
            self.line(f"const idx limit = smaller(first + {plan.chunk}, packed);")

    def _term(self, monomial: Any, factor: int) -> str:
        words = [self.atom(a) for a in monomial]
        return " * ".join([*words, str(factor)] if factor != 1 or not words else words)

    def _span(self) -> Span:
        plan, width = self.plan, self.widths.width
        static = isinstance(plan.cols, int)
        limit = "limit"
        if plan.chunked and width == 1:
            limit = f"smaller(first + {plan.chunk}, {self.factor(plan.cols)})"
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
            self._stage_registers()
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

    def _stage_registers(self) -> None:
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
                self.line(f"{test}{row.array}[k] = load_pack<{width}>({source});")

    def _columns(self, loop: Loop) -> None:
        if loop.var.extent != 0:
            self.span(self._span(), loop.body)
        updated = [s.accumulator for s in loop.body if isinstance(s, Update)]
        for a in dict.fromkeys(updated):
            if a not in self._totals():
                self._reduce(a)

    def _reduce(self, a: Accumulator) -> None:
        plan, name = self.plan, monoid(a.monoid, a.dtype)
        if plan.lanes > WARP:
            self.line(f"{a.name} = block_reduce<{name}, {plan.lanes}>({a.name});", a.loc)
        elif plan.lanes > 1:
            self.line(f"{a.name} = lanes_reduce<{name}, {plan.lanes}>({a.name});", a.loc)

    def _totals(self) -> set[Accumulator]:
        """Accumulators that run over all rows."""
        resets = {getattr(s, "accumulator", None) for s in self.kernel.enter}
        return {a for a in resets if a is not None}

    def _row_statement(self, s: Statement) -> None:
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
        combines = [s for s in _combines(self.kernel) if s.buffer in self.residents.sums]
        plan = self.plan
        if not combines:
            self._sync_global()
            return
        if plan.registers and plan.teams == 1:
            self._store_own(combines)
            self._sync_global()
            return
        if plan.registers:
            self._store_through_shared(combines)
            self._sync_global()
            return
        self.line("__syncthreads();")
        cols, threads = plan.cols, plan.threads
        with self.block(f"for (idx j = threadIdx.x; j < {cols}; j += {threads})"):
            for s in combines:
                row = self.residents.sums[s.buffer]
                length = row_length(plan, row.dtype)
                all_teams = f"({row.array} - team * {length})" if plan.teams > 1 else row.array
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
            pack = f"(lane + k / {width} * {plan.lanes}) * {width} + k % {width}"
            self.line(f"const idx j = {pack if width > 1 else f'lane + k * {plan.lanes}'};")
            with self.block(f"if (j < {plan.cols})"):
                for s in combines:
                    row = self.residents.sums[s.buffer]
                    at = self._sum_index(s, "j")
                    text = self.narrowed(s.buffer.dtype, f"{row.array}[k]")
                    self.line(f"{s.buffer.name}[{at}] = {text};")

    def _store_through_shared(self, combines: list[Combine]) -> None:
        """Teams put their registers side by side, then columns are added up in one order."""
        plan, width = self.plan, self.widths.width
        for s in combines:
            row, kind = self.residents.sums[s.buffer], value_type(s.value.dtype)
            name = f"{row.array}_all"
            self.line(f"__shared__ {kind} {name}[{plan.teams * plan.cols}];")
            self.line("#pragma unroll")
            with self.block(f"for (int k = 0; k < {plan.packs * width}; ++k)"):
                pack = f"(lane + k / {width} * {plan.lanes}) * {width} + k % {width}"
                self.line(f"const idx j = {pack if width > 1 else f'lane + k * {plan.lanes}'};")
                own = f"{name}[team * {plan.cols} + j] = {row.array}[k];"
                self.line(f"if (j < {plan.cols}) {own}")
        self.line("__syncthreads();")
        head = f"for (idx j = threadIdx.x; j < {plan.cols}; j += {plan.threads})"
        with self.block(head):
            for s in combines:
                row = self.residents.sums[s.buffer]
                self._sum_teams(s, f"{row.array}_all", plan.cols)

    def _sync_global(self) -> None:
        """What the block wrote to global memory is read by its other threads in `finish`."""
        if _combines(self.kernel) and self.kernel.finish and not self.kernel.parts:
            self.line("__syncthreads();")


def _combines(kernel: Kernel) -> list[Combine]:
    return [s for s in walk(kernel.body) if isinstance(s, Combine)]


def uses(printer: Printer) -> int:
    """Lines printed, for tests."""
    return len(printer.lines)


def starts_at(linear: Any, var: Var) -> Any:
    """Where a row begins."""
    return linear - atom(var) if terms_of(linear) else 0
