"""Permuted copies: tiles of 32 x 32 elements go through shared memory, so that both what is read
and what is written are neighbours in memory."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.codegen.cuda_printer import (
    Printer,
    Rule,
    Scheduled,
    ceil_div,
    entry,
    parameters,
)
from graphnn.compiler.codegen.cuda_scalar import stored_type
from graphnn.compiler.codegen.cuda_span import Place, unguarded_loads
from graphnn.compiler.codegen.loops import Kernel, Loop, Store, scalars
from graphnn.compiler.ir.sizes import Dynamic, Var, atom, atoms, terms_of

TILE = 32
THREADS = 256
ROWS = THREADS // TILE
MIN_SIDE = 8
MAX_BYTES = 40 << 10  # of tiles; a block has 48 KiB without asking


def crossed_loads(kernel: Kernel) -> list[Place]:
    """Loads of a kernel without reductions whose neighbours in memory are neighbours in rows."""
    if kernel.row is None or kernel.enter or kernel.start or len(kernel.body) != 1:
        return []
    (loop,) = kernel.body
    if not isinstance(loop, Loop) or not all(isinstance(s, Store) for s in loop.body):
        return []
    sides = (kernel.row.extent, loop.var.extent)
    if any(isinstance(side, int) and side < MIN_SIDE for side in sides):
        return []
    loads = [x.attrs for s in loop.body for x in unguarded_loads(scalars(s))]
    found = [p for p in dict.fromkeys(loads) if _is_crossed(p[1], kernel.row, loop.var)]
    nbytes = sum(TILE * (TILE + 1) * buffer.dtype.itemsize for buffer, _ in found)
    return found if nbytes <= MAX_BYTES else []


def _is_crossed(linear: Any, row: Var, col: Var) -> bool:
    terms = terms_of(linear)
    if terms.get((row,), 0) != 1 or terms.get((col,), 0) in (1, -1):
        return False
    inside = {a for m in terms for part in m for a in atoms(atom(part))}
    return col in inside and not any(isinstance(a, Dynamic) for a in inside)


def tile_kernel(kernel: Kernel, crossed: list[Place]) -> Scheduled:
    """The kernel over tiles; the crossed loads are staged in shared memory."""
    (loop,) = kernel.body
    row = kernel.row
    if row is None or not isinstance(loop, Loop):
        raise TypeError(f"no tiles in {kernel.stem}")
    p = Printer(kernel)
    cols = p.index(loop.var.extent)
    for k, (buffer, _) in enumerate(crossed):
        p.line(f"__shared__ {stored_type(buffer.dtype)} tile{k}[{TILE}][{TILE + 1}];")
    p.line(f"const idx across = {p.index(ceil_div(loop.var.extent, TILE))};")
    p.line(f"const idx tiles = (rows + {TILE - 1}) / {TILE} * across;")
    p.line(f"const int x = threadIdx.x % {TILE}, y = threadIdx.x / {TILE};")
    with p.block("for (idx t = blockIdx.x; t < tiles; t += gridDim.x)"):
        p.line(f"const idx i0 = t / across * {TILE}, j0 = t % across * {TILE};")
        p.vars[row], p.vars[loop.var] = "i", "j"
        with p.block(f"for (int k = y; k < {TILE}; k += {ROWS})"):
            p.line("const idx i = i0 + x, j = j0 + k;")
            with p.block(f"if (i < rows && j < {cols})"):
                for k, (buffer, linear) in enumerate(crossed):
                    p.line(f"tile{k}[k][x] = {buffer.name}[{p.index(linear)}];")
        p.line("__syncthreads();")
        p.placed = {place: f"tile{k}[x][k]" for k, place in enumerate(crossed)}
        with p.block(f"for (int k = y; k < {TILE}; k += {ROWS})"):
            p.line("const idx i = i0 + k, j = j0 + x;")
            with p.block(f"if (i < rows && j < {cols})"):
                p.statements(loop.body)
        p.line("__syncthreads();")
    text = entry("@K@", parameters(kernel, kernel.buffers), THREADS, p.lines)
    blocks = ceil_div(row.extent, TILE) * ceil_div(loop.var.extent, TILE)
    return Scheduled(text, (Rule("", blocks, THREADS),), kernel.buffers, kernel.inplace)
