"""Few, very long rows: several blocks share each row.

Every sweep over the columns is a launch. A block combines its share of the row and stores it; the
blocks of the next sweep begin by combining the shares of their row, all in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from graphnn.compiler.codegen.cuda_plan import Options, Plan, combines, frame, kept_rows, recompute
from graphnn.compiler.codegen.cuda_printer import Rule, Scheduled, entry, parameters
from graphnn.compiler.codegen.cuda_rows import RowPrinter, touched
from graphnn.compiler.codegen.cuda_scalar import literal, monoid, value_type
from graphnn.compiler.codegen.loops import Kernel, Loop, Statement, Update
from graphnn.compiler.codegen.scalar import Accumulator, Buffer
from graphnn.compiler.ir.sizes import Var

LEAST_PACKS = 4  # of a thread


def long_kernel(kernel: Kernel, scratch: Iterable[Buffer], options: Options) -> Scheduled | None:
    """The schedule, or None where rows are many or short, or results need all of them."""
    loops = [s for s in kernel.body if isinstance(s, Loop)]
    special = kernel.enter or kernel.start or combines(kernel)
    updates = any(isinstance(s, Update) for loop in loops for s in loop.body)
    cols = loops[0].var.extent
    known = isinstance(kernel.rows, int) and isinstance(cols, int)
    if special or not updates or not known:
        return None
    if not 0 < kernel.rows * 4 <= options.parts or cols < options.long_from:
        return None
    rows = set(scratch)
    kernel = recompute(kernel, set(kept_rows(loops, rows)))
    plan = frame(kernel, [s for s in kernel.body if isinstance(s, Loop)], rows, 0)
    plan = replace(plan, lanes=plan.threads, chunked=True)
    return _scheduled(replace(plan, piece=_piece(plan, options)))


def _piece(plan: Plan, options: Options) -> int:
    """Columns of a block."""
    turn = plan.threads * plan.widths.width
    wanted = -(-plan.cols // max(1, options.parts // plan.kernel.rows))
    return int(max(LEAST_PACKS, -(-wanted // turn)) * turn)


def _scheduled(plan: Plan) -> Scheduled:
    kernel = plan.kernel
    pieces = -(-plan.cols // plan.piece)
    stages = _stages(kernel)
    shares = {a: Buffer(f"{a.name}_shares", a.dtype, kernel.rows * pieces) for a in _all(stages)}
    used = touched(kernel)
    scratch = tuple(shares.values())
    buffers = (*(b for b in kernel.buffers if b in used), *scratch)
    params = parameters(replace(kernel, writes=(*kernel.writes, *scratch)), buffers, scratch)
    text = ""
    rules: list[Rule] = []
    known: list[Accumulator] = []
    for k, stage in enumerate(stages):
        printer = LongPrinter(plan, shares, pieces)
        printer.stage(stage, known)
        known += _updated(stage)
        name = f"_{k}" if k else ""
        text += entry(f"@K@{name}", params, plan.threads, printer.lines)
        rules.append(Rule(name, kernel.rows * pieces, plan.threads))
    return Scheduled(text, tuple(rules), buffers, scratch=scratch)


def _stages(kernel: Kernel) -> list[tuple[Statement, ...]]:
    """The body cut after each loop."""
    found: list[tuple[Statement, ...]] = []
    begun: list[Statement] = []
    for s in kernel.body:
        begun.append(s)
        if isinstance(s, Loop):
            found.append(tuple(begun))
            begun = []
    return [*found, tuple(begun)] if begun else found


def _updated(stage: tuple[Statement, ...]) -> list[Accumulator]:
    inside = [s for loop in stage if isinstance(loop, Loop) for s in loop.body]
    return list(dict.fromkeys(s.accumulator for s in inside if isinstance(s, Update)))


def _all(stages: list[tuple[Statement, ...]]) -> list[Accumulator]:
    return [a for stage in stages for a in _updated(stage)]


class LongPrinter(RowPrinter):
    """Prints one sweep."""

    def __init__(self, plan: Plan, shares: dict[Accumulator, Buffer], pieces: int) -> None:
        super().__init__(plan)
        self.shares, self.pieces = shares, pieces

    def stage(self, statements: tuple[Statement, ...], known: list[Accumulator]) -> None:
        """The whole entry. known: accumulators of earlier sweeps."""
        plan, row = self.plan, self.kernel.row or Var("i", 1)
        self.vars[row] = row.name
        self.line("const int lane = threadIdx.x;")
        self.line(f"const idx {row.name} = blockIdx.x / {self.pieces};")
        self.line(f"const idx first = blockIdx.x % {self.pieces} * {plan.piece};")
        for a in known:
            self._combine_shares(a, row)
        self.row_head()
        for s in statements:
            if isinstance(s, Loop):
                self.columns(s)
            else:
                self.row_statement(s)
        updated = _updated(statements)
        if updated:
            with self.block("if (lane == 0)"):
                for a in updated:
                    self.line(f"{self.shares[a].name}[blockIdx.x] = {a.name};")

    def _combine_shares(self, a: Accumulator, row: Var) -> None:
        threads, kind = self.plan.threads, value_type(a.dtype)
        self.line(f"{kind} {a.name} = {literal(a.initial, a.dtype)};", a.loc)
        turn = f"for (idx s = lane; s < {self.pieces}; s += {threads})"
        share = f"{self.shares[a].name}[{row.name} * {self.pieces} + s]"
        self.line(f"{turn} {self.combined(a.name, a.monoid, a.dtype, share)}")
        reduce = f"team_reduce<{monoid(a.monoid, a.dtype)}, {threads}, {threads}>"
        self.line(f"{a.name} = {reduce}({a.name});")
