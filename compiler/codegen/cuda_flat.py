"""Kernels without columns: each thread takes packs of rows; totals over all rows in two stages."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.codegen.cuda_plan import Options
from graphnn.compiler.codegen.cuda_printer import (
    Printer,
    Rule,
    Scheduled,
    arguments,
    ceil_div,
    entry,
    parameters,
)
from graphnn.compiler.codegen.cuda_scalar import monoid, stored_type
from graphnn.compiler.codegen.cuda_span import (
    Span,
    SpanPrinter,
    choose_width,
    packs_under_way,
    places,
)
from graphnn.compiler.codegen.cuda_split import finish_entry
from graphnn.compiler.codegen.loops import PART, Kernel, Loop, Reset, Store
from graphnn.compiler.codegen.scalar import Accumulator
from graphnn.compiler.ir.sizes import Var

THREADS = 256
TOTAL_THREADS = 512  # of kernels with totals: their blocks are few


def flat_kernel(kernel: Kernel, options: Options) -> Scheduled:
    """A kernel whose body has no loop."""
    var = kernel.row or Var("i", 1)
    known = isinstance(var.extent, int)
    packs = not known or var.extent >= options.packs_from
    widths = choose_width(places(kernel.body, var) if packs else (), var, aligned_only=True)
    printer = SpanPrinter(kernel, widths)
    totals = bool(kernel.enter)
    threads = TOTAL_THREADS if totals else THREADS
    joins = not (totals or kernel.start or kernel.checks)
    turns = packs_under_way(kernel.body, var, widths, var) if widths.width > 1 else 1
    if not joins:
        printer.line(f"const idx block = blockIdx.x{', blocks = gridDim.x' if totals else ''};")
    name_part(printer, bool(kernel.leave))
    _lanes(printer, threads, totals, turns)
    printer.statements(kernel.enter)
    if var.extent != 0:
        if widths.width > 1:
            printer.line(f"const idx packed = rows / {widths.width} * {widths.width};")
        lanes = f"blocks * {threads}" if totals else str(threads)
        span = Span(var, "rows", "thread", lanes, widths.width, under_way=turns, once=not totals)
        printer.span(span, kernel.body)
    totals_end(printer, kernel, threads)
    text, rules = _entries(printer, kernel, joins, threads, options.parts)
    many = _many(kernel) if joins else ""
    per_block = THREADS * widths.width * turns
    blocks = ceil_div(var.extent, per_block)
    if totals:
        blocks = options.parts if kernel.parts else 1
    rules = [Rule("", blocks, threads), *rules]
    inplace = kernel.inplace
    return Scheduled(text, tuple(rules), kernel.buffers, inplace, many=many)


def _lanes(printer: Printer, threads: int, totals: bool, turns: int) -> None:
    """The thread's number: its first pack, and its single element."""
    if totals or turns == 1:
        printer.line(f"const idx thread = block * {threads} + threadIdx.x;")
    else:  # a block has neighbouring packs
        printer.line(f"const idx thread = block * {threads * turns} + threadIdx.x;")


def _entries(
    printer: Printer, kernel: Kernel, joins: bool, threads: int, parts: int
) -> tuple[str, list[Rule]]:
    params = parameters(kernel, kernel.buffers)
    if not joins:
        text = entry("@K@", params, threads, printer.lines)
        return (text, []) if not kernel.parts else _with_finish(text, kernel, parts)
    body = ", ".join([*params, "idx block"])
    given = ", ".join(arguments(kernel, kernel.buffers))
    inside = "\n".join(printer.lines)
    text = f"static DEVICE void @K@_rows({body}) {{\n{inside}\n}}\n"
    call = f"  @K@_rows({given}, blockIdx.x);"
    return text + entry("@K@", params, THREADS, [call]), []


def _many(kernel: Kernel) -> str:
    """The entry that runs the kernel over several segments, each with memory of its own.

    table: for each segment its first block, its rows and the addresses of its buffers; after the
    last one the number of all blocks.
    """
    width = len(kernel.buffers) + 2
    words = [
        f"({stored_type(b.dtype)}*)own[{k + 2}]"  # const is added by the call
        for k, b in enumerate(kernel.buffers)
    ]
    sizes = arguments(kernel, ())[1:]
    given = ", ".join([*words, "(idx)own[1]", *sizes, "block - (idx)own[0]"])
    lines = [
        "  const idx block = blockIdx.x;",
        "  idx low = 0, high = segments - 1;  // the last segment that begins at or before block",
        "  while (low < high) {",
        "    const idx middle = (low + high + 1) / 2;",
        f"    if (table[middle * {width}] <= block) low = middle; else high = middle - 1;",
        "  }",
        f"  const i64* own = table + low * {width};",
        f"  @K@_rows({given});",
    ]
    symbols = parameters(kernel, ())[1:]
    params = ["const i64* __restrict__ table", "const idx segments", *symbols]
    return entry("@K@_many", params, THREADS, lines)


def _with_finish(text: str, kernel: Kernel, parts: int) -> tuple[str, list[Rule]]:
    finish, rule = finish_entry(kernel, kernel.buffers, parts)
    return text + finish, [rule]


def name_part(printer: Printer, used: bool) -> None:
    """The block's number, which is that of its part of the results."""
    if used:
        printer.line("const idx part = blockIdx.x;")
        printer.vars[PART] = "part"


def totals_end(printer: Printer, kernel: Kernel, threads: int) -> None:
    """Combine the threads' totals, store them as the block's part, and finish if it is alone."""
    for a in _totals(kernel):
        name = monoid(a.monoid, a.dtype)
        printer.line(f"{a.name} = team_reduce<{name}, {threads}, {threads}>({a.name});")
    if kernel.leave:
        with printer.block("if (threadIdx.x == 0)"):
            printer.statements(kernel.leave)
    if kernel.parts or not kernel.finish:
        return
    printer.line("__syncthreads();")
    for loop in kernel.finish:
        alone(printer, loop, threads)


def alone(printer: Printer, loop: Any, threads: int) -> None:
    """A loop of `finish` by the only block."""
    if not isinstance(loop, Loop):
        raise TypeError(f"no CUDA for {loop} after all rows")
    name = printer.vars[loop.var] = loop.var.name
    end = printer.index(loop.var.extent)
    with printer.block(f"for (idx {name} = threadIdx.x; {name} < {end}; {name} += {threads})"):
        printer.statements(loop.body)


def _totals(kernel: Kernel) -> list[Accumulator]:
    stored = [s for s in kernel.leave if isinstance(s, Store)]
    resets = [s.accumulator for s in kernel.enter if isinstance(s, Reset)]
    return resets if stored else []
