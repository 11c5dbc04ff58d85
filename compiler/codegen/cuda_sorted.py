"""Scatters with many updates: they are sorted by place first, then each place is worked on alone.

Updates are counted by bin, the counts become ends of the bins, and each update gets its rank among
those of its bin: the order within a bin is that of the updates, whatever threads did. A bin is a
place; where there are too many places to count, some share a bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.codegen.cuda_printer import (
    Printer,
    Rule,
    ceil_div,
    entry,
    power_of_two,
)
from graphnn.compiler.codegen.cuda_scalar import literal, stored_type, value_type
from graphnn.compiler.codegen.cuda_span import (
    Resident,
    Residents,
    Span,
    SpanPrinter,
    Widths,
    choose_width,
    places,
)
from graphnn.compiler.codegen.loops import Combine, Kernel, Loop, Statement, Store
from graphnn.compiler.ir.sizes import Var, atom, product, substitute, unravel
from graphnn.compiler.ir.types import DType
from graphnn.compiler.ops.base import neutral

THREADS = 256
WARP = 32
SCAN_THREADS, SCAN_ITEMS = 1024, 8
CROWD = 64  # updates of a place from which on a whole block works on it
LONG_BIN = 512  # updates of a bin from which on counting smaller ones takes too long
SEARCHERS = 64  # blocks that look for such bins


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

    @property
    def start(self) -> Any:
        """Where an update begins."""
        return substitute(self.write.linear, dict.fromkeys(self.inner, 0))


@dataclass(frozen=True)
class Bins:
    """Places are multiples of `unit`; `number` bins. hashed: whether places share bins."""

    unit: int
    number: int
    hashed: bool

    def of(self, place: str) -> str:
        """The bin of a place, as text."""
        if self.hashed:
            return f"(idx)({place} / {self.unit} & {self.number - 1})"
        return f"(idx)({place} / {self.unit})"


def make_bins(unit: int, number: Any, most: int) -> Bins:
    """A bin for each place if there are at most so many."""
    hashed = not isinstance(number, int) or number > most
    return Bins(unit, power_of_two(most) // 2 if hashed else number, hashed)


def unravelled(p: Printer, vars: Sequence[Var], name: str) -> None:
    """Loop variables from the number of an update, or of an element of one."""
    number = Var(name, product(v.extent for v in vars))
    p.vars[number] = name
    index = unravel(atom(number), tuple(v.extent for v in vars))
    for var, at in zip(vars, index, strict=True):
        p.vars[var] = var.name
        p.line(f"const idx {var.name} = {p.index(at)};")


def sorting_entries(
    kernel: Kernel, parts: Parts, params: Sequence[str], bins: Bins
) -> list[tuple[str, Rule]]:
    """`counts` become the ends of the bins; `order` holds updates by bin, `ranked` in order too."""
    end = Printer(kernel).index(parts.updates)
    blocks = ceil_div(parts.updates, THREADS)
    loop = f"  for (idx u = blockIdx.x * {THREADS} + threadIdx.x; u < {end}; "
    loop += f"u += gridDim.x * {THREADS}) {{"
    bin = bins.of("places[u]")
    order = f"""{loop}
    order[atomicAdd(&counts[{bin}], 1)] = u;
  }}"""
    texts = (
        ("_offsets", _offsets(bins), SCAN_THREADS, 1),
        ("_order", order, THREADS, blocks),
        ("_rank", _rank(bins, end), THREADS, blocks + SEARCHERS),
    )
    return [
        (entry(f"@K@{name}", params, threads, [body.lstrip("\n")]), Rule(name, number, threads))
        for name, body, threads, number in texts
    ]


def _offsets(bins: Bins) -> str:
    step = SCAN_THREADS * SCAN_ITEMS
    return f"""
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


def _rank(bins: Bins, end: str) -> str:
    """The last blocks look for long bins and collect the updates of each in order."""
    return f"""
  const idx blocks = gridDim.x - {SEARCHERS};
  if (blockIdx.x < blocks) {{
    const idx u = blockIdx.x * {THREADS} + threadIdx.x;
    if (u >= {end}) return;
    const idx g = {bins.of("places[u]")}, start = g ? counts[g - 1] : 0, last = counts[g];
    if (last - start > {LONG_BIN}) return;
    idx rank = start;  // the order within a bin came from atomics: number it by u again
    for (idx k = start; k < last; ++k) rank += order[k] < u;
    ranked[rank] = u;
    return;
  }}
  for (idx g = blockIdx.x - blocks; g < {bins.number}; g += {SEARCHERS}) {{
    const idx last = counts[g];
    int at = g ? counts[g - 1] : 0, before, total;
    if (last - at <= {LONG_BIN}) continue;
    for (idx base = 0; base < {end}; base += {THREADS}) {{
      const idx u = base + threadIdx.x;
      const int mine = u < {end} && {bins.of("places[u]")} == g;
      block_scan<Add, {THREADS}>(mine, 0, before, total);
      if (mine) ranked[at + before] = u;
      at += total;
    }}
  }}"""


# ---- places one after the other in a bin -------------------------------------------------------


def shared_bins_entry(
    kernel: Kernel, parts: Parts, params: Sequence[str], bins: Bins
) -> tuple[str, Rule]:
    """A warp has a bin and applies its updates to the copy, in order."""
    p = Printer(kernel)
    teams = THREADS // WARP
    p.line(f"const int lane = threadIdx.x % {WARP};")
    p.line(f"const idx g = blockIdx.x * {teams} + threadIdx.x / {WARP};")
    p.line(f"if (g >= {bins.number}) return;")
    with p.block("for (idx k = g ? counts[g - 1] : 0; k < counts[g]; ++k)"):
        p.line("const idx now = ranked[k];")
        p.line("const i64 place = places[now];")
        unravelled(p, parts.outer, "now")
        one_update(p, parts)
    text = entry("@K@_apply", params, THREADS, p.lines)
    return text, Rule("_apply", ceil_div(bins.number, teams), THREADS)


def one_update(p: Printer, parts: Parts) -> None:
    """The elements of one update, shared among the lanes; each lane owns the same ones always."""
    write = parts.write
    with p.block(f"for (idx d = lane; d < {p.index(parts.size)}; d += {WARP})"):
        unravelled(p, parts.inner, "d")
        moved = write.linear - parts.start
        at = f"place + {p.index(moved)}" if moved != 0 else "place"
        number = Var("at", 1 << 62)
        p.vars[number] = f"({at})"
        if isinstance(write, Store):
            p.store(Store(write.buffer, atom(number), write.value))
        else:
            p.combine(Combine(write.buffer, atom(number), write.value, write.monoid))


# ---- a place alone in its bin ------------------------------------------------------------------


def is_direct(parts: Parts, bins: Bins) -> bool:
    """Whether an update is all of a place: then each element is computed whole and stored once."""
    size, number = parts.size, Var("d", parts.size)
    if bins.hashed or not isinstance(size, int) or size != bins.unit:
        return False
    if parts.write.buffer.size != bins.number * bins.unit:
        return False
    index = unravel(atom(number), tuple(v.extent for v in parts.inner))
    moved = parts.write.linear - parts.start
    return bool(substitute(moved, dict(zip(parts.inner, index, strict=True))) == atom(number))


def direct_entry(
    kernel: Kernel, parts: Parts, params: Sequence[str], bins: Bins
) -> tuple[str, Rule]:
    """A team of lanes has a piece of a place: the old value, its updates, one store."""
    p = PlacePrinter(kernel, parts, bins)
    p.all()
    text = entry("@K@_apply", params, THREADS, p.lines)
    return text, Rule("_apply", ceil_div(bins.number * p.chunks, p.teams), THREADS)


class PlacePrinter(SpanPrinter):
    """Prints `direct_entry`."""

    def __init__(self, kernel: Kernel, parts: Parts, bins: Bins) -> None:
        write = parts.write
        self.parts, self.bins = parts, bins
        self.var = parts.inner[0] if len(parts.inner) == 1 else Var("d", parts.size)
        self.dtype: DType = write.value.dtype
        self.monoid = write.monoid if isinstance(write, Combine) else "set"
        self.turn = Combine(write.buffer, atom(self.var), write.value, self.monoid)
        found = [*places((self.turn,), self.var), (write.buffer, atom(self.var))]
        widths = choose_width(found, self.var, aligned_only=True)
        if len(parts.inner) != 1 or parts.size % widths.width:
            widths = Widths(1)
        packs = parts.size // widths.width
        self.lanes = min(WARP, power_of_two(packs))
        self.chunks = -(-packs // self.lanes)
        self.teams = THREADS // self.lanes
        sums = {write.buffer: Resident("acc", self.dtype, True)}
        super().__init__(kernel, widths, Residents(sums=sums))

    def all(self) -> None:
        """The whole entry."""
        width, teams, crowds = self.widths.width, self.teams, self.monoid != "set"
        self.line(
            f"const int lane = threadIdx.x % {self.lanes}, team = threadIdx.x / {self.lanes};"
        )
        if crowds:
            self.line(f"__shared__ {value_type(self.dtype)} shares[{THREADS * width}];")
            self.line("__shared__ int crowd;")
            self.line("if (threadIdx.x == 0) crowd = 0;")
            self.line("__syncthreads();")
        with self.block(""):
            self._unit("team")
            with self.block(f"if (g < {self.bins.number} && d0 < {self.parts.size})"):
                if crowds:
                    self.line(f"if (last - start > {CROWD}) crowd = 1;")
                    with self.block("else"):
                        self._alone()
                else:
                    self._last_one()
        if crowds:
            self.line("__syncthreads();")
            self.line("if (!crowd) return;")
            with self.block(f"for (int t = 0; t < {teams}; ++t)"):
                self._crowd()

    def _unit(self, team: str) -> None:
        """Which piece of which place, and its updates."""
        width, chunks = self.widths.width, self.chunks
        self.line(f"const idx unit = blockIdx.x * {self.teams} + {team};")
        place = f"unit / {chunks}" if chunks > 1 else "unit"
        piece = f"(unit % {chunks} * {self.lanes} + lane)" if chunks > 1 else "lane"
        self.line(f"const idx g = {place}, d0 = {piece}{f' * {width}' if width > 1 else ''};")
        inside = f"g < {self.bins.number}"
        self.line(f"const idx start = g && {inside} ? counts[g - 1] : 0;")
        self.line(f"const idx last = {inside} ? counts[g] : 0;")

    def _alone(self) -> None:
        self._begin()
        with self.block("for (idx k = start; k < last; ++k)"):
            self._update("k")
        self._store()

    def _last_one(self) -> None:
        """Of updates that replace each other only the last one counts."""
        self._begin()
        with self.block("if (last > start)"):
            self._update("last - 1")
        self._store()

    def _crowd(self) -> None:
        """The whole block on one piece: each team takes some updates, combined in one order."""
        width = self.widths.width
        self._unit("t")
        self.line(f"if (last - start <= {CROWD}) continue;")
        start = literal(neutral(self.monoid, self.dtype), self.dtype)
        kind = value_type(self.dtype)
        self.line(f"{kind} acc[{width}];")
        self._each(f"acc[e] = {start};")
        with self.block(f"if (d0 < {self.parts.size})"):
            with self.block(f"for (idx k = start + team; k < last; k += {self.teams})"):
                self._update("k")
        self._each(f"shares[threadIdx.x * {width} + e] = acc[e];")
        self.line("__syncthreads();")
        with self.block(f"if (team == 0 && d0 < {self.parts.size})"):
            self._begin()
            with self.block(f"for (int s = 0; s < {self.teams}; ++s)"):
                share = f"shares[(s * {self.lanes} + lane) * {width} + e]"
                self._each(self.combined("acc[e]", self.monoid, self.dtype, share))
            self._store()
        self.line("__syncthreads();")

    def _each(self, statement: str) -> None:  # type: ignore[override]
        self.line("#pragma unroll")
        self.line(f"for (int e = 0; e < {self.widths.width}; ++e) {statement}")

    # ---- one piece -----------------------------------------------------------------------------

    def _begin(self) -> None:
        """The old value."""
        (store,) = self.parts.copy.body
        if not isinstance(store, Store):
            raise TypeError(f"no CUDA for the scatter {self.kernel.stem}")
        self.line(f"{value_type(self.dtype)} acc[{self.widths.width}];")
        self.line(f"const idx at = g * {self.bins.unit} + d0;")
        old = Combine(store.buffer, store.linear, store.value, "set")
        self._elements(old, self.parts.copy.var, "at")

    def _update(self, number: str) -> None:
        self.line(f"const idx now = ranked[{number}];")
        unravelled(self, self.parts.outer, "now")
        if len(self.parts.inner) != 1:
            unravelled(self, self.parts.inner, "d0")
        self._elements(self.turn, self.var, "d0")

    def _elements(self, turn: Statement, var: Var, name: str) -> None:
        self.hoist((turn,), var)
        span = Span(var, "", "", "", self.widths.width)
        with self.block(""):
            if self.widths.width > 1:
                self.pack(span, (turn,), name)
                return
            self.vars[var] = name
            self.element(span, (turn,), {})

    def _store(self) -> None:
        buffer, width = self.parts.write.buffer, self.widths.width
        text = self.narrowed(buffer.dtype, "acc[e]")
        self.line(f"Pack<{stored_type(buffer.dtype)}, {width}> out;")
        self._each(f"out.at[e] = {text};")
        self.line(f"store_pack<{width}>({buffer.name} + at, out);")

    def _single(self, row: Resident, span: Span) -> str:
        return "acc[e]" if self.widths.width > 1 else "acc[0]"

    def _place_singles(self, span: Span) -> None:
        """Nothing is staged here."""

    @staticmethod
    def combined(place: str, name: str, dtype: DType, operand: str) -> str:
        """place = place (monoid) operand; an update may also replace what was there."""
        if name == "set":
            return f"{place} = {operand};"
        return Printer.combined(place, name, dtype, operand)
