"""Scatters: a copy, the place of every update, then all updates of one place in their order.

Updates are numbered by the loop variables that decide a computed place; the others run inside an
update and never collide. Each place sees its updates in one order, the CPU's. Of few updates, the
first one of a place applies all of that place; finding them compares all pairs, 32 at a time. Many
updates are sorted by place: counted, numbered, and ranked among those of their place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    substitute,
    terms_of,
    unravel,
)
from graphnn.compiler.ir.types import int32, int64

THREADS = 256
WARP = 32
SCAN_THREADS, SCAN_ITEMS = 1024, 8
MOST_BINS = 1 << 24
_ATOMIC_TYPES = {"int32": "int", "uint32": "unsigned", "int64": "u64", "uint64": "u64"}


@dataclass(frozen=True)
class Parts:
    """A scatter taken apart.

    outer: variables that decide a place. inner: those inside an update.
    """

    copy: Loop
    write: Store | Combine
    outer: tuple[Var, ...]
    inner: tuple[Var, ...]

    @property
    def updates(self) -> Any:
        """Number of updates."""
        return product(v.extent for v in self.outer)

    @property
    def size(self) -> Any:
        """Elements of one update."""
        return product(v.extent for v in self.inner)


def scatter_kernel(kernel: Kernel, options: Options) -> Scheduled:
    """Copy, places, updates: three launches; two where atomic integer sums do; six with sorting."""
    parts = _parts(kernel)
    if _is_atomic(parts.write):
        copy, copy_rule = _copy_entry(kernel, parts, options, kernel.buffers)
        text, rule = _atomic_entry(kernel, parts)
        return Scheduled(copy + text, (copy_rule, rule), kernel.buffers)
    keys = Buffer("places", int64, parts.updates)
    scratch: tuple[Buffer, ...] = (keys,)
    bins = Bins(*_grouping(parts)) if _is_sorted(parts, options) else None
    if bins:
        sizes = {"counts": bins.number, "order": parts.updates, "ranked": parts.updates}
        scratch += tuple(Buffer(name, int32, size) for name, size in sizes.items())
    buffers = (*kernel.buffers, *scratch)
    entries = [_copy_entry(kernel, parts, options, buffers, bins)]
    entries.append(_places_entry(kernel, parts, buffers, bins))
    if bins:
        entries += _sorting_entries(kernel, parts, buffers, bins)
        entries.append(_sorted_apply_entry(kernel, parts, buffers, bins))
    else:
        entries.append(_apply_entry(kernel, parts, buffers))
    text = "".join(t for t, _ in entries)
    return Scheduled(text, tuple(r for _, r in entries), buffers, scratch=scratch)


@dataclass(frozen=True)
class Bins:
    """Places are multiples of `unit`; `number` of them."""

    unit: int
    number: Any


def _grouping(parts: Parts) -> tuple[int, Any]:
    start = substitute(parts.write.linear, dict.fromkeys(parts.inner, 0))
    unit = math.gcd(*terms_of(start).values()) or 1
    return unit, ceil_div(parts.write.buffer.size, unit)


def _is_sorted(parts: Parts, options: Options) -> bool:
    """Whether comparing all pairs would take longer; counting needs a bin for each place."""
    _, number = _grouping(parts)
    few = isinstance(parts.updates, int) and parts.updates < options.sorted_from
    return isinstance(number, int) and number <= MOST_BINS and not few


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


def _unravel(p: Printer, vars: Sequence[Var], name: str) -> None:
    number = Var(name, product(v.extent for v in vars))
    p.vars[number] = name
    index = unravel(atom(number), tuple(v.extent for v in vars))
    for var, at in zip(vars, index, strict=True):
        p.vars[var] = var.name
        p.line(f"const idx {var.name} = {p.index(at)};")


def _places_entry(
    kernel: Kernel, parts: Parts, buffers: Sequence[Buffer], bins: Bins | None
) -> tuple[str, Rule]:
    p = Printer(kernel)
    end = p.index(parts.updates)
    head = f"for (idx u = blockIdx.x * {THREADS} + threadIdx.x; u < {end}; "
    with p.block(f"{head}u += gridDim.x * {THREADS})"):
        _unravel(p, parts.outer, "u")
        start = substitute(parts.write.linear, dict.fromkeys(parts.inner, 0))
        _dynamic_values(p, parts.write)
        p.line(f"places[u] = {p.index(start)};")
        if bins:
            p.line(f"atomicAdd(&counts[places[u] / {bins.unit}], 1);")
    text = entry("@K@_places", _params(kernel, buffers), THREADS, p.lines)
    return text, Rule("_places", ceil_div(parts.updates, THREADS), THREADS)


def _dynamic_values(p: Printer, write: Statement) -> None:
    """Compute what the place hangs on, before the line that uses it."""
    linear = write.linear if isinstance(write, Store | Combine) else 0
    for a in sorted((a for a in atoms(linear) if isinstance(a, Dynamic)), key=str):
        p.value(a.value)


def _apply_entry(kernel: Kernel, parts: Parts, buffers: Sequence[Buffer]) -> tuple[str, Rule]:
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
                _unravel(p, parts.outer, "now")
                _one_update(p, parts)
    text = entry("@K@_apply", _params(kernel, buffers), THREADS, p.lines)
    return text, Rule("_apply", ceil_div(parts.updates, teams), THREADS)


def _sorting_entries(
    kernel: Kernel, parts: Parts, buffers: Sequence[Buffer], bins: Bins
) -> list[tuple[str, Rule]]:
    """`counts` become the ends of the bins; `order` holds updates by bin, `ranked` in order too."""
    params, end = _params(kernel, buffers), Printer(kernel).index(parts.updates)
    step = SCAN_THREADS * SCAN_ITEMS
    offsets = f"""
  int carry = 0;
  for (idx base = 0; base < {bins.number}; base += {step}) {{
    const idx first = base + threadIdx.x * {SCAN_ITEMS};
    int own = 0, before, total;
    for (idx g = first; g < first + {SCAN_ITEMS} && g < {bins.number}; ++g) own += counts[g];
    block_scan<Add, {SCAN_THREADS}>(own, 0, before, total);
    int start = carry + before;
    for (idx g = first; g < first + {SCAN_ITEMS} && g < {bins.number}; ++g) {{
      const int count = counts[g];
      counts[g] = start;
      start += count;
    }}
    carry += total;
  }}"""
    loop = f"  for (idx u = blockIdx.x * {THREADS} + threadIdx.x; u < {end}; "
    loop += f"u += gridDim.x * {THREADS}) {{"
    order = f"""{loop}
    order[atomicAdd(&counts[places[u] / {bins.unit}], 1)] = u;
  }}"""
    rank = f"""{loop}
    const idx g = (idx)(places[u] / {bins.unit}), start = g ? counts[g - 1] : 0;
    idx rank = start;  // the order within a bin came from atomics: number it by u again
    for (idx k = start; k < counts[g]; ++k) rank += order[k] < u;
    ranked[rank] = u;
  }}"""
    blocks = ceil_div(parts.updates, THREADS)
    texts = (
        ("_offsets", offsets, SCAN_THREADS, 1),
        ("_order", order, THREADS, blocks),
        ("_rank", rank, THREADS, blocks),
    )
    return [
        (entry(f"@K@{name}", params, threads, [body.lstrip("\n")]), Rule(name, number, threads))
        for name, body, threads, number in texts
    ]


def _sorted_apply_entry(
    kernel: Kernel, parts: Parts, buffers: Sequence[Buffer], bins: Bins
) -> tuple[str, Rule]:
    p = Printer(kernel)
    teams = THREADS // WARP
    p.line(f"const int lane = threadIdx.x % {WARP};")
    head = f"for (idx g = blockIdx.x * {teams} + threadIdx.x / {WARP}; g < {bins.number}; "
    with p.block(f"{head}g += gridDim.x * {teams})"):
        p.line(f"const i64 place = (i64)g * {bins.unit};")
        with p.block("for (idx k = g ? counts[g - 1] : 0; k < counts[g]; ++k)"):
            p.line("const idx now = ranked[k];")
            _unravel(p, parts.outer, "now")
            _one_update(p, parts)
    text = entry("@K@_apply", _params(kernel, buffers), THREADS, p.lines)
    return text, Rule("_apply", ceil_div(bins.number, teams), THREADS)


def _one_update(p: Printer, parts: Parts) -> None:
    """The elements of one update, shared among the lanes; each lane owns the same ones always."""
    write = parts.write
    size = p.index(parts.size)
    with p.block(f"for (idx d = lane; d < {size}; d += {WARP})"):
        _unravel(p, parts.inner, "d")
        start = substitute(write.linear, dict.fromkeys(parts.inner, 0))
        moved = write.linear - start
        at = f"place + {p.index(moved)}" if moved != 0 else "place"
        _write(p, write, at)


def _write(p: Printer, write: Store | Combine, at: str) -> None:
    number = Var("at", 1 << 62)
    p.vars[number] = f"({at})"
    if isinstance(write, Store):
        p.store(Store(write.buffer, atom(number), write.value))
    else:
        p.combine(Combine(write.buffer, atom(number), write.value, write.monoid))


def _atomic_entry(kernel: Kernel, parts: Parts) -> tuple[str, Rule]:
    """Integer sums are the same in any order."""
    p = Printer(kernel)
    write, vars = parts.write, (*parts.outer, *parts.inner)
    total = product(v.extent for v in vars)
    kind = _ATOMIC_TYPES[write.buffer.dtype.name]
    head = f"for (idx u = blockIdx.x * {THREADS} + threadIdx.x; u < {p.index(total)}; "
    with p.block(f"{head}u += gridDim.x * {THREADS})"):
        _unravel(p, vars, "u")
        _dynamic_values(p, write)
        value = p.value(write.value)
        target = f"reinterpret_cast<{kind}*>({write.buffer.name} + {p.factor(write.linear)})"
        p.line(f"atomicAdd({target}, ({kind}){value});")
    text = entry("@K@_apply", parameters(kernel, kernel.buffers), THREADS, p.lines)
    return text, Rule("_apply", ceil_div(total, THREADS), THREADS)
