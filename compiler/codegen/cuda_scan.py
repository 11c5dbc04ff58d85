"""Running combinations: a block scans a row in tiles, or one thread a row where rows are many."""

from __future__ import annotations

from graphnn.compiler.codegen.cuda_printer import (
    Printer,
    Rule,
    Scheduled,
    ceil_div,
    entry,
    parameters,
)
from graphnn.compiler.codegen.cuda_scalar import literal, monoid, value_type
from graphnn.compiler.codegen.loops import Kernel, Loop, Reset, Store, Update
from graphnn.compiler.ir.sizes import Var

THREADS = 256
SERIAL_STEPS = 32  # rows not longer than this go to one thread each
SERIAL_ROWS = 16384  # so do this many rows


def scan_kernel(kernel: Kernel) -> Scheduled:
    """A running combination along an axis."""
    row = kernel.row or Var("i", 1)
    match kernel.body:
        case (Reset(), Loop(step, _)):
            pass
        case _:
            raise TypeError(f"no CUDA for the scan {kernel.stem}")
    many = isinstance(row.extent, int) and row.extent >= SERIAL_ROWS
    short = isinstance(step.extent, int) and step.extent <= SERIAL_STEPS
    printer = Printer(kernel)
    serial = many or short
    if serial:
        head = f"for (idx i = blockIdx.x * {THREADS} + threadIdx.x; i < rows; "
        with printer.block(f"{head}i += gridDim.x * {THREADS})"):
            printer.vars[row] = "i"
            printer.statements(kernel.body)
    else:
        with printer.block("for (idx i = blockIdx.x; i < rows; i += gridDim.x)"):
            printer.vars[row] = "i"
            _tiles(printer, kernel)
    blocks = ceil_div(row.extent, THREADS) if serial else row.extent
    text = entry("@K@", parameters(kernel, kernel.buffers), THREADS, printer.lines)
    return Scheduled(text, (Rule("", blocks, THREADS),), kernel.buffers, kernel.inplace)


def _tiles(printer: Printer, kernel: Kernel) -> None:
    """One row: a tile of as many steps as threads at a time; `carry` is what came before."""
    reset, loop = kernel.body
    if not (isinstance(reset, Reset) and isinstance(loop, Loop)):
        raise TypeError(f"no CUDA for the scan {kernel.stem}")
    a, step = reset.accumulator, loop.var
    update = next(s for s in loop.body if isinstance(s, Update))
    store = next(s for s in loop.body if isinstance(s, Store))
    exclusive = loop.body[0] is store
    kind, name = value_type(a.dtype), monoid(a.monoid, a.dtype)
    start, end = literal(a.initial, a.dtype), printer.index(step.extent)
    printer.line(f"{kind} carry = {start};")
    with printer.block(f"for (idx tile = 0; tile < {end}; tile += {THREADS})"):
        printer.line("const idx s = tile + threadIdx.x;")
        printer.vars[step] = "s"
        printer.line(f"{kind} own = {start};")
        with printer.block(f"if (s < {end})"):
            printer.line(f"own = {printer.value(update.value)};", a.loc)
        printer.line(f"{kind} before, total;")
        scanned = f"block_scan<{name}, {THREADS}>(own, ({kind}){start}, before, total)"
        printer.line(f"const {kind} run = {scanned};")
        chosen = "before" if exclusive else "run"
        printer.line(f"const {kind} {a.name} = {name}::of(carry, {chosen});")
        with printer.block(f"if (s < {end})"):
            printer.store(store)
        printer.line(f"carry = {name}::of(carry, total);")
