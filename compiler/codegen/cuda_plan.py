"""How a row kernel uses a block: lanes of a row, width of packs, and what stays on the chip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from graphnn.compiler.codegen.cuda_printer import power_of_two
from graphnn.compiler.codegen.cuda_span import (
    Place,
    Resident,
    Residents,
    Widths,
    choose_width,
    hangs_on,
    is_neighbour,
    places,
    unguarded_loads,
)
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
from graphnn.compiler.codegen.scalar import Buffer, Scalar, expressions
from graphnn.compiler.ir.sizes import Var

THREADS = 256
WARP = 32
SUM_THREADS = 512  # of kernels with sums of columns: their blocks are few
MOST_LANES = 512
PACKS_A_LANE = 2  # of rows that are too long for a warp
MOST_PACKS = 8  # of a warp's lane
CROWDED = 32  # elements in registers above which sums of columns go to shared memory
CHUNK_PACKS = 4  # packs a lane takes of a row that is split over blocks


@dataclass(frozen=True)
class Options:
    """What schedules depend on.

    parts: blocks of a kernel with results over all rows. shared: bytes of shared memory that a
    block may have. registers: elements of rows that one thread keeps in registers. packs_from:
    elements of a loop from which on packs of 16 bytes pay. sorted_from: updates of a scatter from
    which on they are sorted by place. most_bins: places up to which each has a counter of its own.
    long_from: columns from which on several blocks share a row, if rows are few.
    """

    parts: int = 264
    shared: int = 226 << 10
    registers: int = 64
    packs_from: int = 2
    sorted_from: int = 4096
    most_bins: int = 1 << 17
    long_from: int = 1 << 16


@dataclass
class Plan:
    """How the rows of a kernel are worked on.

    lanes: of a row's team. threads: of a block. chunked: whether blocks share a row. registers:
    whether what stays on the chip is in registers. crowded: whether that is so much that only one
    block fits a multiprocessor. piece: columns of a block, if several share a row. shared: bytes
    of dynamic shared memory.
    """

    kernel: Kernel
    var: Var
    cols: Any
    widths: Widths
    lanes: int
    threads: int
    chunked: bool = False
    registers: bool = False
    crowded: bool = False
    piece: int = 0
    shared: int = 0
    residents: Residents = field(default_factory=Residents)

    @property
    def head(self) -> bool:
        """Whether rows begin with single elements."""
        return bool(self.widths.residue)

    @property
    def teams(self) -> int:
        """Rows that a block works on at a time."""
        return self.threads // self.lanes

    @property
    def packs(self) -> int:
        """Packs of each lane, if rows are in registers."""
        return int(-(-self.cols // (self.widths.width * self.lanes)))

    @property
    def chunk(self) -> int:
        """Columns of a chunk."""
        return self.piece or self.lanes * self.widths.width * CHUNK_PACKS


def make_plan(kernel: Kernel, scratch: set[Buffer], options: Options) -> Plan:
    """The plan of a kernel with loops over columns; its `kernel` may compute values again."""
    loops = [s for s in kernel.body if isinstance(s, Loop)]
    kept = kept_rows(loops, scratch)
    if not isinstance(loops[0].var.extent, int):  # its rows may be too long to keep
        return frame(recompute(kernel, set(kept)), loops, scratch, 0)
    plan = frame(kernel, loops, scratch, options.registers)
    if _is_map(kernel):
        return plan
    staged = _read_again(kernel, scratch)
    _choose_residents(plan, kept, staged, options)
    if len(plan.residents.sums) < len(combines(kernel)) and plan.teams > 1:
        # Sums in global memory: no two teams of a block may add to them.
        plan = replace(plan, lanes=THREADS, threads=THREADS, residents=Residents(), shared=0)
        _choose_residents(plan, kept, staged, options)
    plan.kernel = recompute(kernel, set(kept) - set(plan.residents.kept))
    return plan


def frame(kernel: Kernel, loops: list[Loop], scratch: set[Buffer], registers: int) -> Plan:
    """Teams and packs, by the length of the rows and by what lies beside each other."""
    var = loops[0].var
    cols, simple = var.extent, _is_map(kernel)
    found = [p for loop in loops for p in places(loop.body, var) if p[0] not in scratch]
    widths = choose_width(found, var, aligned_only=False)
    if isinstance(cols, int) and not _worth_packing(cols, widths):
        widths = Widths(1)
    arrays = (
        len(kept_rows(loops, scratch)) + len(_read_again(kernel, scratch)) + len(combines(kernel))
    )
    lanes = _lanes(cols, widths.width, simple, arrays, registers)
    threads = max(lanes, SUM_THREADS if combines(kernel) else THREADS)
    one_go = isinstance(cols, int) and cols <= lanes * widths.width * 2 * CHUNK_PACKS
    return Plan(kernel, var, cols, widths, lanes, threads, chunked=simple and not one_go)


def _worth_packing(cols: int, widths: Widths) -> bool:
    if not widths.residue and cols % widths.width == 0:
        return True
    return cols >= 8 * widths.width


def kept_rows(loops: list[Loop], scratch: set[Buffer]) -> list[Buffer]:
    """Scratch rows that sweeps store."""
    stored = [s.buffer for loop in loops for s in loop.body if isinstance(s, Store)]
    return [b for b in dict.fromkeys(stored) if b in scratch]


def _is_map(kernel: Kernel) -> bool:
    """Whether no value depends on other columns or rows."""
    changes = any(isinstance(s, Update | Combine) for s in walk(kernel.body))
    return not (changes or kernel.enter)


def _lanes(cols: Any, width: int, simple: bool, arrays: int, registers: int) -> int:
    """Threads of a row: part of a warp if that can keep its arrays in registers, else more."""
    if not isinstance(cols, int):
        return THREADS
    packs = max(1, -(-cols // width))
    if simple:
        return min(THREADS, power_of_two(packs))
    own = -(-packs // WARP)
    if own <= MOST_PACKS and own * width * arrays <= registers:
        return min(WARP, power_of_two(packs))
    return min(MOST_LANES, max(2 * WARP, power_of_two(-(-packs // PACKS_A_LANE))))


def _read_again(kernel: Kernel, scratch: set[Buffer]) -> list[Place]:
    """Rows that more than one sweep reads."""
    count: dict[Place, int] = {}
    row = kernel.row
    for loop in (s for s in kernel.body if isinstance(s, Loop)):
        own = [x.attrs for s in loop.body for x in unguarded_loads(scalars(s))]
        for buffer, linear in dict.fromkeys(own):
            varies = row is None or hangs_on(linear, row)
            if buffer not in scratch and varies and is_neighbour(linear, loop.var):
                count[buffer, linear] = count.get((buffer, linear), 0) + 1
    return [place for place, times in count.items() if times > 1]


def _choose_residents(
    plan: Plan, kept: list[Buffer], staged: list[Place], options: Options
) -> None:
    """Sums first, then rows that would be read again, then values that would be computed again."""
    found, sums = plan.residents, combines(plan.kernel)
    rows = len(kept) + len(staged) + len(sums)
    aligned = not plan.head and plan.cols % plan.widths.width == 0
    few = rows * plan.packs * plan.widths.width <= options.registers
    through_shared = plan.teams * sum(row_length(plan, s.value.dtype) * 8 for s in sums)
    plan.registers = bool(rows) and aligned and few and through_shared <= options.shared
    wanted: list[tuple[dict[Any, Resident], Any, Any, str]] = []
    wanted += [(found.sums, s.buffer, s.value.dtype, f"s{k}") for k, s in enumerate(sums)]
    same_residue = [p for p in staged if plan.widths.width == 1 or plan.widths.fits(p[1], plan.var)]
    wanted += [(found.staged, p, p[0].dtype, f"r{k}") for k, p in enumerate(same_residue)]
    wanted += [(found.kept, b, b.dtype, b.name) for b in kept]
    pad = "pad" if plan.head else ""
    elements = rows * plan.packs * plan.widths.width
    plan.crowded = plan.registers and elements > CROWDED
    for table, key, dtype, name in wanted:
        is_sum = table is found.sums
        nbytes = plan.teams * row_length(plan, dtype) * dtype.itemsize
        moved = is_sum and plan.crowded and plan.shared + nbytes <= options.shared
        if plan.registers and not moved:
            table[key] = Resident(name, dtype, True)
            plan.shared += nbytes if is_sum and plan.teams > 1 else 0
        elif plan.shared + nbytes <= options.shared:
            plan.shared += nbytes
            table[key] = Resident(name, dtype, False, "" if is_sum else pad)


def row_length(plan: Plan, dtype: Any) -> int:
    """Elements of a row in shared memory, so that each row starts at a multiple of 16 bytes."""
    unit = max(plan.widths.width, 16 // dtype.itemsize)
    cols = plan.cols + (plan.widths.width if plan.head else 0)
    return int(-(-cols // unit) * unit)


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


def _with_value(s: Statement, change: Callable[[Scalar], Scalar]) -> Statement:
    if isinstance(s, Store | Combine | Update):
        return replace(s, value=change(s.value))
    return s


def combines(kernel: Kernel) -> list[Combine]:
    """Sums of columns over rows."""
    return [s for s in walk(kernel.body) if isinstance(s, Combine)]
