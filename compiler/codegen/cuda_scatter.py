"""Scatters: a copy, the place of every update, then all updates of one place in their order.

Updates are numbered by the loop variables that decide a computed place; the others run inside an
update and never collide. Each place sees its updates in one order, the CPU's. Of few updates, the
first one of a place applies all of that place; finding them compares all pairs, 32 at a time. Many
updates are sorted by place (`cuda_sorted.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from graphnn.compiler.codegen.cuda_plan import Options
from graphnn.compiler.codegen.cuda_printer import (
    Printer,
    Rule,
    Scheduled,
    ceil_div,
    entry,
    parameters,
)
from graphnn.compiler.codegen.cuda_sorted import (
    Bins,
    Parts,
    direct_entry,
    is_direct,
    make_bins,
    one_update,
    shared_bins_entry,
    sorting_entries,
    unravelled,
)
from graphnn.compiler.codegen.cuda_span import Span, SpanPrinter, choose_width, places
from graphnn.compiler.codegen.loops import Combine, Kernel, Loop, Statement, Store
from graphnn.compiler.codegen.scalar import Buffer
from graphnn.compiler.ir.sizes import (
    Dynamic,
    Symbol,
    Var,
    atom,
    atoms,
    product,
    terms_of,
)
from graphnn.compiler.ir.types import int32, int64

THREADS = 256
WARP = 32
_ATOMIC_TYPES = {"int32": "int", "uint32": "unsigned", "int64": "u64", "uint64": "u64"}


def scatter_kernel(kernel: Kernel, options: Options) -> Scheduled:
    """Copy, places, updates: three launches; two where atomic integer sums do; six with sorting."""
    parts = _parts(kernel)
    if _is_atomic(parts.write):
        copy, copy_rule = _copy_entry(kernel, parts, options, kernel.buffers)
        text, rule = _atomic_entry(kernel, parts)
        return Scheduled(copy + text, (copy_rule, rule), kernel.buffers)
    sort = _is_sorted(parts, options)
    bins = make_bins(*_grouping(parts), options.most_bins) if sort else None
    scratch: tuple[Buffer, ...] = (Buffer("places", int64, parts.updates),)
    if bins:
        sizes = {"counts": bins.number, "order": parts.updates, "ranked": parts.updates}
        scratch += tuple(Buffer(name, int32, size) for name, size in sizes.items())
    buffers = (*kernel.buffers, *scratch)
    params = _params(kernel, buffers)
    entries = [_places_entry(kernel, parts, params, bins)]
    if bins is None:
        entries = [_copy_entry(kernel, parts, options, buffers), *entries]
        entries.append(_apply_entry(kernel, parts, params))
    elif is_direct(parts, bins):
        entries = [_clear_entry(params, bins), *entries]
        entries += sorting_entries(kernel, parts, params, bins)
        entries.append(direct_entry(kernel, parts, params, bins))
    else:
        entries = [_copy_entry(kernel, parts, options, buffers, bins), *entries]
        entries += sorting_entries(kernel, parts, params, bins)
        entries.append(shared_bins_entry(kernel, parts, params, bins))
    text = "".join(t for t, _ in entries)
    return Scheduled(text, tuple(r for _, r in entries), buffers, scratch=scratch)


def _grouping(parts: Parts) -> tuple[int, Any]:
    unit = math.gcd(*terms_of(parts.start).values()) or 1
    return unit, ceil_div(parts.write.buffer.size, unit)


def _is_sorted(parts: Parts, options: Options) -> bool:
    """Whether comparing all pairs would take longer."""
    return not (isinstance(parts.updates, int) and parts.updates < options.sorted_from)


def _clear_entry(params: list[str], bins: Bins) -> tuple[str, Rule]:
    line = f"  const idx g = blockIdx.x * {THREADS} + threadIdx.x;\n"
    line += f"  if (g < {bins.number}) counts[g] = 0;"
    return entry("@K@", params, THREADS, [line]), Rule("", ceil_div(bins.number, THREADS), THREADS)


def _parts(kernel: Kernel) -> Parts:
    copy, statement = kernel.body
    if not isinstance(copy, Loop):
        raise TypeError(f"no CUDA for the scatter {kernel.stem}")
    vars: list[Var] = []
    while isinstance(statement, Loop):
        vars.append(statement.var)
        (statement,) = statement.body
    if not isinstance(statement, Store | Combine):
        raise TypeError(f"no CUDA for the scatter {kernel.stem}")
    inner = [v for v in vars if _is_free(statement.linear, v)]
    outer = tuple(v for v in vars if v not in inner)
    return Parts(copy, statement, outer, tuple(inner))


def _is_free(linear: Any, var: Var) -> bool:
    """Whether a variable is an axis of the place by itself: a multiple, in no computed index."""
    if any(isinstance(a, Dynamic) and var in a.value.needs for a in atoms(linear)):
        return False
    own = [m for m in terms_of(linear) if any(var in atoms(atom(a)) for a in m)]
    return bool(own) and all(a == var or isinstance(a, Symbol) for m in own for a in m)


def _is_atomic(write: Store | Combine) -> bool:
    if not isinstance(write, Combine) or write.monoid != "add":
        return False
    return write.buffer.dtype.name in _ATOMIC_TYPES


def _params(kernel: Kernel, buffers: Sequence[Buffer]) -> list[str]:
    """Scratch memory is written by one entry and read by another."""
    own = {b.name for b in buffers} - {b.name for b in kernel.buffers}
    return [
        re.sub(r"const (\w+)\* __restrict__", r"\1*", p) if p.split()[-1] in own else p
        for p in parameters(kernel, buffers)
    ]


def _copy_entry(
    kernel: Kernel,
    parts: Parts,
    options: Options,
    buffers: Sequence[Buffer],
    bins: Bins | None = None,
) -> tuple[str, Rule]:
    var, body = parts.copy.var, parts.copy.body
    known = isinstance(var.extent, int)
    packs = not known or var.extent >= options.packs_from
    widths = choose_width(places(body, var) if packs else (), var, aligned_only=True)
    p = SpanPrinter(kernel, widths)
    p.line(f"const idx thread = blockIdx.x * {THREADS} + threadIdx.x;")
    end = p.index(var.extent)
    if widths.width > 1:
        p.line(f"const idx packed = {end} / {widths.width} * {widths.width};")
    if var.extent != 0:
        p.span(Span(var, end, "thread", f"gridDim.x * {THREADS}", widths.width), body)
    if bins:
        lanes = f"gridDim.x * {THREADS}"
        p.line(f"for (idx g = thread; g < {bins.number}; g += {lanes}) counts[g] = 0;")
    text = entry("@K@", _params(kernel, buffers), THREADS, p.lines)
    return text, Rule("", ceil_div(var.extent, THREADS * widths.width), THREADS)


def _places_entry(
    kernel: Kernel, parts: Parts, params: Sequence[str], bins: Bins | None
) -> tuple[str, Rule]:
    p = Printer(kernel)
    end = p.index(parts.updates)
    head = f"for (idx u = blockIdx.x * {THREADS} + threadIdx.x; u < {end}; "
    with p.block(f"{head}u += gridDim.x * {THREADS})"):
        unravelled(p, parts.outer, "u")
        _dynamic_values(p, parts.write)
        p.line(f"const i64 place = {p.index(parts.start)};")
        p.line("places[u] = place;")
        if bins:
            p.line(f"atomicAdd(&counts[{bins.of('place')}], 1);")
    text = entry("@K@_places", params, THREADS, p.lines)
    return text, Rule("_places", ceil_div(parts.updates, THREADS), THREADS)


def _dynamic_values(p: Printer, write: Statement) -> None:
    """Compute what the place hangs on, before the line that uses it."""
    linear = write.linear if isinstance(write, Store | Combine) else 0
    for a in sorted((a for a in atoms(linear) if isinstance(a, Dynamic)), key=str):
        p.value(a.value)


def _apply_entry(kernel: Kernel, parts: Parts, params: Sequence[str]) -> tuple[str, Rule]:
    p = Printer(kernel)
    teams = THREADS // WARP
    end = p.index(parts.updates)
    p.line(f"const int lane = threadIdx.x % {WARP};")
    head = f"for (idx u = blockIdx.x * {teams} + threadIdx.x / {WARP}; u < {end}; "
    with p.block(f"{head}u += gridDim.x * {teams})"):
        p.line("const i64 place = places[u];")
        p.line("bool first = true;  // whether no update before u goes to the same place")
        with p.block(f"for (idx w = 0; w < u && first; w += {WARP})"):
            p.line("const bool same = w + lane < u && places[w + lane] == place;")
            p.line("first = !__any_sync(0xffffffffu, same);")
        p.line("if (!first) continue;")
        with p.block(f"for (idx w = u; w < {end}; w += {WARP})"):
            p.line(f"const bool same = w + lane < {end} && places[w + lane] == place;")
            p.line("unsigned hits = __ballot_sync(0xffffffffu, same);")
            with p.block("for (; hits; hits &= hits - 1)"):
                p.line("const idx now = w + __ffs(hits) - 1;")
                unravelled(p, parts.outer, "now")
                one_update(p, parts)
    text = entry("@K@_apply", params, THREADS, p.lines)
    return text, Rule("_apply", ceil_div(parts.updates, teams), THREADS)


def _atomic_entry(kernel: Kernel, parts: Parts) -> tuple[str, Rule]:
    """Integer sums are the same in any order."""
    p = Printer(kernel)
    write, vars = parts.write, (*parts.outer, *parts.inner)
    total = product(v.extent for v in vars)
    kind = _ATOMIC_TYPES[write.buffer.dtype.name]
    head = f"for (idx u = blockIdx.x * {THREADS} + threadIdx.x; u < {p.index(total)}; "
    with p.block(f"{head}u += gridDim.x * {THREADS})"):
        unravelled(p, vars, "u")
        _dynamic_values(p, write)
        value = p.value(write.value)
        target = f"reinterpret_cast<{kind}*>({write.buffer.name} + {p.factor(write.linear)})"
        p.line(f"atomicAdd({target}, ({kind}){value});")
    text = entry("@K@_apply", parameters(kernel, kernel.buffers), THREADS, p.lines)
    return text, Rule("_apply", ceil_div(total, THREADS), THREADS)
