"""Loops over neighbouring elements in packs of 16 bytes, with single elements before and after.

Threads take packs of `width` elements in turn. A pack is loaded and stored whole; between the two
the scalar body runs once for each of its elements. Rows whose start is not a multiple of the width
begin with a few single elements (`head`), so that the packs are aligned all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.codegen.cuda_printer import SHORT, Printer
from graphnn.compiler.codegen.cuda_scalar import monoid, stored_type
from graphnn.compiler.codegen.loops import (
    Combine,
    Kernel,
    Statement,
    Store,
    Update,
    scalars,
    walk,
)
from graphnn.compiler.codegen.scalar import Buffer, Scalar, expressions
from graphnn.compiler.ir.sizes import Dynamic, Var, atom, atoms, terms_of

MAX_WIDTH = 8
PACK_BYTES = 16
UNDER_WAY = 64  # bytes that a thread should be waiting for
LONG_BODY = 24  # operations on an element
_ELEMENT = ".at[e]"  # of a pack
Place = tuple[Buffer, Any]
Residue = frozenset[tuple[Any, int]]


def unguarded_loads(values: Iterable[Scalar]) -> Iterator[Scalar]:
    """Loads that happen in every iteration."""
    stack, seen = list(values), set()
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.op == "load":
            yield value
        stack += (value.args[0], value.args[2]) if value.op == "guarded" else value.args


def is_neighbour(linear: Any, var: Var) -> bool:
    """Whether an index is var + (something without var, computed indices too)."""
    rest = terms_of(linear)
    if rest.pop((var,), 0) != 1:
        return False
    inside = {a for m in rest for part in m for a in atoms(atom(part))}
    computed = (a.value.needs for a in inside if isinstance(a, Dynamic))
    return var not in inside and not any(var in needs for needs in computed)


def hangs_on(linear: Any, var: Var) -> bool:
    """Whether an index changes with a variable, computed indices in it too."""
    inside = atoms(linear)
    return any(a == var or (isinstance(a, Dynamic) and var in a.value.needs) for a in inside)


def places(body: Iterable[Statement], var: Var) -> Iterator[Place]:
    """Elements that a loop reads or writes one beside the other, with repetitions."""
    for s in walk(body):
        if isinstance(s, Store) and is_neighbour(s.linear, var):
            yield s.buffer, s.linear
        for load in unguarded_loads(scalars(s)):
            if is_neighbour(load.attrs[1], var):
                yield load.attrs


def residue(linear: Any, var: Var, width: int) -> Residue:
    """What of the start of a run of elements is no multiple of the width."""
    terms = terms_of(linear - atom(var))
    return frozenset((m, c % width) for m, c in terms.items() if c % width)


@dataclass(frozen=True)
class Widths:
    """Pack width of a loop nest, and the residue of the rows that are accessed in packs."""

    width: int
    residue: Residue = frozenset()

    def fits(self, linear: Any, var: Var) -> bool:
        """Whether a place may be accessed in packs."""
        if self.width == 1 or not is_neighbour(linear, var):
            return False
        return residue(linear, var, self.width) == self.residue


def choose_width(found: Iterable[Place], var: Var, aligned_only: bool) -> Widths:
    """The widest packs for most of the places; width 1 if there is nothing to pack."""
    wanted = list(found)
    if not wanted:
        return Widths(1)
    width = min(MAX_WIDTH, max(1, PACK_BYTES // min(b.dtype.itemsize for b, _ in wanted)))
    votes = Counter(residue(linear, var, width) for _, linear in wanted)
    if aligned_only:
        return Widths(width) if frozenset() in votes else Widths(1)
    best = max(votes, key=lambda r: (votes[r], bool(r)))
    return Widths(width, best)


def packs_under_way(body: Iterable[Statement], var: Var, widths: Widths, row: Var) -> int:
    """How many packs a thread should have under way: enough bytes to hide the memory's latency,
    but long bodies are not repeated often."""
    body = tuple(body)
    loads = {x.attrs for s in body for x in unguarded_loads(scalars(s))}
    loads = {p for p in loads if hangs_on(p[1], row)}
    wide = [b.dtype.itemsize * widths.width for b, linear in loads if widths.fits(linear, var)]
    bytes_each = sum(wide) or PACK_BYTES
    most = 2 if len(list(expressions(x for s in body for x in scalars(s)))) > LONG_BODY else 4
    return max(1, min(most, UNDER_WAY // bytes_each))


@dataclass
class Span:
    """One loop over a variable, split among lanes.

    lane, lanes: number of this thread and of all. end: extent as text. head: name of the number
    of single elements before the first pack, "" for none. exact: no single elements at all.
    first, limit: the packs of this thread's chunk, "" for all. unrolled: packs of each thread if
    rows are kept in registers, else 0. full: every thread has that many. under_way: packs that a
    thread reads before it works on them. once: no thread has more than that.
    """

    var: Var
    end: str
    lane: str
    lanes: str
    width: int
    head: str = ""
    exact: bool = False
    first: str = ""
    limit: str = ""
    unrolled: int = 0
    full: bool = False
    under_way: int = 1
    once: bool = False


@dataclass
class Resident:
    """A row that stays on the chip: its array, and where element j of it is."""

    array: str
    dtype: Any
    registers: bool
    pad: str = ""

    def at(self, name: str) -> str:
        """Index of element `name`, or of the pack that starts there, in shared memory."""
        return f"{self.pad} + {name}" if self.pad else name


@dataclass
class Residents:
    """All rows that stay on the chip: kept between sweeps, read once, and sums over rows."""

    kept: dict[Buffer, Resident] = field(default_factory=dict)
    staged: dict[Place, Resident] = field(default_factory=dict)
    sums: dict[Buffer, Resident] = field(default_factory=dict)


class SpanPrinter(Printer):
    """Prints loops over neighbouring elements."""

    def __init__(self, kernel: Kernel, widths: Widths, residents: Residents | None = None) -> None:
        super().__init__(kernel)
        self.widths = widths
        self.residents = residents or Residents()
        self.sum_packs: dict[str, str] = {}  # elements of sums that are in packs at the moment

    def span(self, span: Span, body: tuple[Statement, ...]) -> None:
        """All of a loop: packs, then single elements."""
        self.hoist(body, span.var)
        name = span.var.name
        if span.unrolled:
            self._unrolled(span, body)
            return
        if span.width == 1:
            start = f"{span.first} + {span.lane}" if span.first else span.lane
            with self._each(name, start, span.limit or span.end, span.lanes, span):
                self.vars[span.var] = name
                self.element(span, body)
            return
        self._packs(span, body)
        if not span.exact:
            self._edges(span, body)

    def _packs(self, span: Span, body: tuple[Statement, ...]) -> None:
        width, many = span.width, span.under_way > 1
        start = f"{span.first} + {span.lane} * {width}" if span.first else f"{span.lane} * {width}"
        end, name = span.limit or "packed", "q0" if many else "q"
        step = f"{span.lanes} * {width}"
        with self._each(name, start, end, f"{step} * {span.under_way}" if many else step, span):
            if many:
                self._several(span, body, end, step)
            else:
                self._pack_at(span, body)

    @contextmanager
    def _each(self, name: str, start: str, end: str, step: str, span: Span) -> Iterator[None]:
        """A loop, or a single test where no thread has more than one turn."""
        turn = f"for (idx {name} = {start}; {name} < {end}; {name} += {step})"
        only = f"if (const idx {name} = {start}; {name} < {end})"
        with self.block(only if span.once else turn):
            yield

    def _pack_at(self, span: Span, body: tuple[Statement, ...]) -> None:
        name = f"{span.var.name}0"
        self.line(f"const idx {name} = {f'{span.head} + ' if span.head else ''}q;")
        self.pack(span, body, name)

    def _several(self, span: Span, body: tuple[Statement, ...], end: str, step: str) -> None:
        """Packs of one turn: what is read comes first."""
        outer, count = dict(self.placed), span.under_way
        ahead = self.packs_ahead(body, span.var, count)
        for kind in ("ahead", "work") if ahead else ("work",):
            self.line("#pragma unroll")
            with self.block(f"for (int u = 0; u < {count}; ++u)"):
                self.line(f"const idx q = q0 + u * {step};")
                with self.block(f"if (q < {end})"):
                    if kind == "work":
                        self._pack_at(span, body)
                        continue
                    for target, buffer, linear in ahead:
                        self.vars[span.var] = f"({span.head} + q)" if span.head else "q"
                        pointer = f"{buffer.name} + {self.index(linear)}"
                        self.line(f"{target}[u] = load_pack<{span.width}>({pointer});")
        self.placed = outer

    def packs_ahead(
        self, body: tuple[Statement, ...], var: Var, count: int
    ) -> list[tuple[str, Buffer, Any]]:
        """Arrays for the packs of several turns `u`: (name, buffer, place)."""
        found = []
        for k, (buffer, linear) in enumerate(dict.fromkeys(self._packed_loads(body, var))):
            if (buffer, linear) not in self.placed:
                kind = stored_type(buffer.dtype)
                self.line(f"Pack<{kind}, {self.widths.width}> p{k}[{count}];")
                self.placed[buffer, linear] = f"p{k}[u]{_ELEMENT}"
                found.append((f"p{k}", buffer, linear))
        return found

    def _unrolled(self, span: Span, body: tuple[Statement, ...]) -> None:
        self.line("#pragma unroll")
        with self.block(f"for (int k = 0; k < {span.unrolled}; ++k)"):
            name = f"{span.var.name}0"
            factor = f" * {span.width}" if span.width > 1 else ""
            self.line(f"const idx {name} = ({span.lane} + k * {span.lanes}){factor};")
            if span.full:
                self.pack(span, body, name)
                return
            with self.block(f"if ({name} < {span.end})"):
                self.pack(span, body, name)

    def pack(self, span: Span, body: tuple[Statement, ...], name: str) -> None:
        """One pack: load, run the body for each element, store."""
        outer = dict(self.placed)
        width, count, var = span.width, 0, span.var
        stores: list[tuple[str, str]] = []
        for buffer, linear in dict.fromkeys(self._packed_loads(body, var)):
            if (buffer, linear) in self.placed:
                continue
            pointer = self._pointer(buffer, linear, var, name)
            if pointer:
                self.line(f"const auto p{count} = load_pack<{width}>({pointer});")
                self.placed[buffer, linear] = f"p{count}{_ELEMENT}"
                count += 1
        self._place_registers(width)
        targets: dict[Place, str] = {}
        for buffer, linear in self._packed_stores(body, var):
            if buffer in self.residents.kept and self.residents.kept[buffer].registers:
                continue
            kind = stored_type(buffer.dtype)
            self.line(f"Pack<{kind}, {width}> o{len(stores)};")
            targets[buffer, linear] = f"o{len(stores)}{_ELEMENT}"
            pointer = self._pointer(buffer, linear, var, name)
            stores.append((pointer or "", f"o{len(stores)}"))
        outer_sums = dict(self.sum_packs)
        stores += self._sums_in_packs(span, body, name)
        rest = tuple(s for s in body if width == 1 or not self._whole(s))
        if rest:
            self.line("#pragma unroll")
            with self.block(f"for (int e = 0; e < {width}; ++e)"):
                self.line(f"const idx {var.name} = {name} + e;")
                self.vars[var] = var.name
                self.element(span, rest, targets)
        for pointer, pack in stores:
            self.line(f"store_pack<{width}>({pointer}, {pack});")
        self.placed, self.sum_packs = outer, outer_sums

    def _sums_in_packs(
        self, span: Span, body: tuple[Statement, ...], name: str
    ) -> list[tuple[str, str]]:
        """Sums over rows that live in shared memory: (where, pack)."""
        found: list[tuple[str, str]] = []
        combined = [s.buffer for s in body if isinstance(s, Combine)]
        for row in (self.residents.sums.get(b) for b in combined):
            if row is None or row.registers or span.head:
                continue
            pack = f"m{len(found)}"
            self.line(f"auto {pack} = load_pack<{span.width}>({row.array} + {name});")
            self.sum_packs[row.array] = f"{pack}{_ELEMENT}"
            found.append((f"{row.array} + {name}", pack))
        return found

    def _whole(self, s: Statement) -> bool:
        """The greatest or smallest of 16-bit floats: two at a time, before they are widened."""
        match s:
            case Update(a, value) if a.monoid in ("max", "min") and value.op == "load":
                text = self.placed.get(value.attrs, "")
                if value.attrs[0].dtype in SHORT and text.endswith(_ELEMENT):
                    pack, name = text.removesuffix(_ELEMENT), monoid(a.monoid, a.dtype)
                    self.line(f"{a.name} = {name}::of({a.name}, across<{name}>({pack}));", a.loc)
                    return True
        return False

    def _edges(self, span: Span, body: tuple[Statement, ...]) -> None:
        """Elements before the first pack and after the last one."""
        name, single = span.var.name, f"{span.end} - packed"
        end = single if not span.first else f"({span.first} == 0 ? {single} : 0)"
        with self._each("q", span.lane, end, span.lanes, span):
            head = span.head
            where = f"q < {head} ? q : q + packed" if head else "q + packed"
            self.line(f"const idx {name} = {where};")
            self.vars[span.var] = name
            self.element(span, body)

    def _packed_loads(self, body: tuple[Statement, ...], var: Var) -> Iterator[Place]:
        for s in walk(body):
            for load in unguarded_loads(scalars(s)):
                buffer, linear = load.attrs
                shared = buffer in self.residents.kept or (buffer, linear) in self.residents.staged
                if shared or self.widths.fits(linear, var):
                    yield buffer, linear

    def _packed_stores(self, body: tuple[Statement, ...], var: Var) -> list[Place]:
        stores = [s for s in body if isinstance(s, Store)]
        times = Counter(s.buffer for s in stores)
        fits = [
            (s.buffer, s.linear)
            for s in stores
            if s.buffer in self.residents.kept or self.widths.fits(s.linear, var)
        ]
        return [p for p in fits if times[p[0]] == 1]

    def _pointer(self, buffer: Buffer, linear: Any, var: Var, name: str) -> str | None:
        """Where a pack starts; None if its elements are in registers."""
        resident = self.residents.kept.get(buffer) or self.residents.staged.get((buffer, linear))
        if resident is None:
            self.vars[var] = name
            return f"{buffer.name} + {self.index(linear)}"
        return None if resident.registers else f"{resident.array} + {resident.at(name)}"

    def _place_registers(self, width: int) -> None:
        for place, resident in self.residents.staged.items():
            if resident.registers:
                self.placed[place] = f"{resident.array}[k]{_ELEMENT}"

    # ---- one element -----------------------------------------------------------------------

    def element(
        self, span: Span, body: tuple[Statement, ...], targets: dict[Place, str] | None = None
    ) -> None:
        """The body for one element; `targets` are packs that take what is stored."""
        outer = dict(self.placed)
        if targets is None:
            self._place_singles(span)
        for s in body:
            match s:
                case Store(buffer, linear, value) if targets and (buffer, linear) in targets:
                    text = self.stored(buffer.dtype, value)
                    self.line(f"{targets[buffer, linear]} = {text};", value.loc)
                case Store(buffer, _, value) if buffer in self.residents.kept:
                    row = self.residents.kept[buffer]
                    self.line(f"{self._single(row, span)} = {self.value(value)};", value.loc)
                case Combine(buffer, _, value, name) if buffer in self.residents.sums:
                    row = self.residents.sums[buffer]
                    operand = self.value(value)
                    place = self._single(row, span)
                    self.line(self.combined(place, name, value.dtype, operand), value.loc)
                case _:
                    self.statements((s,))
        self.placed = outer

    def _single(self, row: Resident, span: Span) -> str:
        if row.array in self.sum_packs:
            return self.sum_packs[row.array]
        if row.registers:
            return f"{row.array}[k * {span.width} + e]" if span.width > 1 else f"{row.array}[k]"
        return f"{row.array}[{row.at(span.var.name)}]"

    def _place_singles(self, span: Span) -> None:
        for place, row in self.residents.staged.items():
            self.placed[place] = f"{row.array}[{row.at(span.var.name)}]"

    def _load(self, s: Scalar) -> str:
        kept = self.residents.kept.get(s.attrs[0])
        if kept is None or s.attrs in self.placed:
            return super()._load(s)
        return kept_text(kept, self.widths.width)


def kept_text(row: Resident, width: int) -> str:
    """An element of a kept row inside an element loop over `j`."""
    if row.registers:
        return f"{row.array}[k * {width} + e]" if width > 1 else f"{row.array}[k]"
    return f"{row.array}[{row.at('j')}]"
