"""Fused groups to loop form.

A group with row reductions becomes sweeps over a row that stays in cache: sweep k computes the
reductions whose inputs are known after k sweeps, and stores what is known by then. Values that are
costly and needed in a later sweep are kept in a row of scratch memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.codegen.loops import (
    PART,
    Combine,
    Kernel,
    Loop,
    Reset,
    Statement,
    Store,
    Update,
    scalars,
    walk,
)
from graphnn.compiler.codegen.scalar import (
    Accumulator,
    Buffer,
    Emit,
    Scalar,
    compute_dtype,
    expressions,
    index_scalars,
    is_affine,
)
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Dynamic, Var, atom, product, ravel, terms_of, unravel
from graphnn.compiler.ir.types import DType, float32, float64
from graphnn.compiler.ops.base import Elementwise, Load, Reduce, neutral
from graphnn.compiler.passes.access import accesses
from graphnn.compiler.passes.fuse import Frame, Group, Partition

COSTLY = 12  # scalar operations above which a value is kept for a later sweep, not computed again
SHORT = 64  # rows or columns below which a loop over all elements beats one over rows
PARALLEL = 60_000  # estimated operations above which a kernel is split over threads


@dataclass
class Lowered:
    """A kernel with the nodes that its buffers hold; scratch buffers hold none."""

    kernel: Kernel
    node_of: dict[Buffer, Node]
    scratch: list[Buffer] = field(default_factory=list)


class Builder:
    """What all lowerings share: buffers of nodes, and values of nodes at an index."""

    def __init__(self, partition: Partition, group: Group) -> None:
        self.partition, self.group = partition, group
        self.emit = Emit()
        self.buffers: dict[Node, Buffer] = {}
        self.scratch: list[Buffer] = []
        self.written: list[Buffer] = []
        self.known: dict[tuple[Node, Any], Scalar] = {}

    def buffer(self, node: Node) -> Buffer:
        """The memory of a stored node (of the node it is an alias of)."""
        node = self.partition.aliases.get(node, node)
        if node not in self.buffers:
            name = f"b{len(self.buffers)}"
            self.buffers[node] = Buffer(name, node.dtype, node.tensor.size)
        return self.buffers[node]

    def output(self, node: Node) -> Buffer:
        """The memory of a node that this kernel computes."""
        buffer = self.buffer(node)
        if buffer not in self.written:
            self.written.append(buffer)
        return buffer

    def scratch_buffer(self, dtype: DType, size: Any) -> Buffer:
        """Memory for this kernel alone."""
        buffer = Buffer(f"t{len(self.scratch)}", dtype, size)
        self.scratch.append(buffer)
        return buffer

    def value(self, node: Node, linear: Any) -> Scalar:
        """The element of a node at a linear index: computed here if inlined, else loaded."""
        key = (node, linear)
        if key not in self.known:
            self.known[key] = self.compute(node, linear)
        return self.known[key]

    def compute(self, node: Node, linear: Any) -> Scalar:
        """The element, when it is asked for the first time."""
        if node in self.partition.inlined:
            return self.element(node, linear)
        return self.emit.load(self.buffer(node), linear)

    def element(self, node: Node, linear: Any) -> Scalar:
        """The op's own rule for one element."""
        op: Any = node.op
        outer, self.emit.loc = self.emit.loc, node.loc
        if isinstance(op, Elementwise):
            at = accesses(node, linear)
            value = op.scalar(self.emit, *(self.value(node.inputs[k], i) for k, i in at))
        else:
            loads = [self.loader(i) for i in node.inputs]
            value = op.element(self.emit, node.tensor, unravel(linear, node.shape), loads)
        self.emit.loc = outer
        return value  # type: ignore[no-any-return]

    def loader(self, node: Node) -> Load:
        """The element function of an input, as op rules want it."""

        def load(index: tuple[Any, ...]) -> Scalar:
            value = self.value(node, ravel(index, node.shape))
            return self._checked(value, index) if node in self.partition.inlined else value

        return Load(node.tensor, load)

    def _checked(self, value: Scalar, index: tuple[Any, ...]) -> Scalar:
        """A value with the range checks of its index, also where the index does not matter."""
        computed = [s for part in index for s in index_scalars(part)]
        if not computed:
            return value
        reached = {id(e) for e in expressions((value,))}
        for e in expressions(computed):
            if e.op == "check" and id(e) not in reached:  # a condition, so that it is computed
                always = self.emit.compare("eq", e, e)
                value = self.emit.make("guarded", (always, value, value), value.dtype)
        return value

    def kernel(self, row: Var | None, body: Iterable[Statement], **keywords: Any) -> Lowered:
        """The finished kernel."""
        body = tuple(body)
        buffers = (*self.buffers.values(), *self.scratch)
        around = [s for k in ("start", "enter", "leave", "finish") for s in keywords.get(k, ())]
        parts = (*around, *body)
        used = _buffers_used(parts)
        kernel = Kernel(
            stem="_".join(dict.fromkeys(n.op.name for n in self.group.nodes))[:48],
            buffers=tuple(b for b in buffers if b in used),
            row=row,
            body=body,
            cost=estimated_cost(body),
            writes=tuple(self.written),
            inplace=tuple(inplace_pairs(parts, self.written)),
            checks=tuple(_checks(parts)),
            locs=tuple(dict.fromkeys(n.loc for n in self.group.nodes if n.loc is not None)),
            **keywords,
        )
        nodes = {b: n for n, b in self.buffers.items()}
        return Lowered(kernel, nodes, [b for b in self.scratch if b in used])


class _Trial(Builder):
    """Computes a group's members in place of loading them, to see what they read in a frame."""

    def compute(self, node: Node, linear: Any) -> Scalar:
        if node in self.group.levels and not isinstance(node.op, Reduce):
            return self.element(node, linear)
        return super().compute(node, linear)


class _Rows(Builder):
    """Groups of kind "loop"."""

    def __init__(self, partition: Partition, group: Group, parts: int) -> None:
        super().__init__(partition, group)
        self.parts = parts
        self.frame = self._choose_frame()
        self.stages = self._find_stages()
        self.made: dict[Node, Accumulator] = {}
        self.accumulators: dict[Node, Accumulator] = {}  # those whose sweep is over
        self.kept: dict[Node, Buffer] = {}
        self.sweep = 0
        self.start: list[Statement] = []
        self.enter: list[Statement] = []
        self.leave: list[Statement] = []
        self.finish: list[Statement] = []

    # ---- values ------------------------------------------------------------------------

    def compute(self, node: Node, linear: Any) -> Scalar:
        level = self.group.levels.get(node)
        if level is None or self.frame.linear(level) != linear:
            return super().compute(node, linear)
        if node in self.accumulators:
            return self.emit.read(self.accumulators[node])
        if node in self.kept and self.sweep > self.stages[node]:
            return self.emit.load(self.kept[node], self._scratch_index())
        return self.element(node, linear)

    def _scratch_index(self) -> Any:
        return atom(PART) * self.frame.cols + self.frame.col

    def _source(self, node: Node) -> Scalar:
        """The element that a reduction takes in."""
        source = node.inputs[0]
        row_level = self._reduces_rows(node)
        value = self.value(source, self.frame.linear("row" if row_level else "full"))
        return self.emit.cast(value, self._accumulator_dtype(node))

    def _reduces_rows(self, node: Node) -> bool:
        """Whether a full reduction takes one value per row, not per element."""
        if self.group.levels[node] != "one" or self.frame.cols == 1:
            return False
        size = node.inputs[0].tensor.size
        return bool(size == self.frame.rows and size != self.frame.rows * self.frame.cols)

    def _accumulator_dtype(self, node: Node) -> DType:
        dtype = compute_dtype(node.dtype)
        wide = self.group.levels[node] == "one" and dtype == float32 and loop_monoid(node) == "add"
        return float64 if wide else dtype

    # ---- frame and stages --------------------------------------------------------------

    def _choose_frame(self) -> Frame:
        """For a group without reductions: rows such that every read is affine in the column, and
        where that leaves long rows every computed index too, so that nothing is divided there."""
        frame = self.group.frame
        if frame.fixed:
            return frame
        shapes = {n.shape for n, level in self.group.levels.items() if level == "full"}
        full = [s for s in shapes if product(s) == frame.rows]
        if len(full) == 0:
            full = [n.inputs[0].shape for n in self.group.nodes]
        shape = max(full, key=len)
        candidates = [frame]
        for k in range(1, len(shape)):
            cols = product(shape[k:])
            if cols != 1 and product(shape[:k]) != 1:
                candidates.append(Frame(product(shape[:k]), cols))
        for words in (("load", "index"), ("load",)):
            for candidate in candidates:
                is_short = len(words) > 1 and candidate is not frame and _is_short(candidate)
                if not is_short and self._is_affine(candidate, words):
                    return candidate
        return candidates[-1]

    def _is_affine(self, frame: Frame, words: tuple[str, ...]) -> bool:
        trial = _Trial(self.partition, Group("loop", frame, self.group.levels))
        inner = Var("j", frame.cols) if frame.cols != 1 else Var("i", frame.rows)
        for node, level in self.group.levels.items():
            reduces = isinstance(node.op, Reduce)
            if level != "full" and not reduces:
                continue
            value = trial.value(node.inputs[0] if reduces else node, frame.linear("full"))
            for e in expressions((value,)):
                if e.op in words and not is_affine(e.attrs[-1], inner):
                    return False
        return True

    def _find_stages(self) -> dict[Node, int]:
        """For each member the number of sweeps that must be over before it is known."""
        stages: dict[Node, int] = {}
        for node, level in self.group.levels.items():
            before = max((stages.get(s, 0) for s in self._sources(node)), default=0)
            reduces = isinstance(node.op, Reduce) and level == "row"
            stages[node] = before + 1 if reduces else before
        return stages

    def _sources(self, node: Node) -> Iterable[Node]:
        for source in node.inputs:
            if source in self.partition.inlined:
                yield from self._sources(source)
            else:
                yield source

    # ---- statements --------------------------------------------------------------------

    def build(self) -> Lowered:
        rows, cols = self.frame.rows, self.frame.cols
        flat = cols == 1 and not any(s for s in self.stages.values())
        self.has_parts = self._has_parts()
        body: list[Statement] = []
        last = max(self.stages.values(), default=0)
        self._choose_kept(last)
        for sweep in range(last + 1):
            self.sweep = sweep
            self.known.clear()
            body += self._sweep(sweep)
        row = Var("i", rows) if rows != 1 else None
        return self.kernel(
            row,
            body,
            start=tuple(self.start),
            enter=tuple(self.enter),
            leave=tuple(self.leave),
            finish=tuple(self.finish),
            flat=flat,
            parts=self.has_parts,
        )

    def _has_parts(self) -> bool:
        """Whether rows are split over threads although some result needs all rows."""
        if not self.group.barrier:
            return False
        work = self.frame.rows * self.frame.cols * max(1, len(self.group.levels))
        small = isinstance(work, int) and work < PARALLEL // 4
        return self.parts > 1 and not small

    def _stored(self, level: str, stage: int) -> list[Node]:
        return [
            n
            for n, own in self.group.levels.items()
            if own == level and self.stages[n] == stage and n in self.partition.stored
        ]

    def _sweep(self, sweep: int) -> list[Statement]:
        """Row values known so far, then the loop over columns, as far as it has work."""
        before: list[Statement] = [self._store(n) for n in self._stored("row", sweep)]
        inner: list[Statement] = []
        reads = [n for n in self.kept if self.stages[n] == sweep]
        for node in reads:
            value = self.value(node, self.frame.linear("full"))
            inner.append(Store(self.kept[node], self._scratch_index(), value))
        inner += [self._store(n) for n in self._stored("full", sweep)]
        for node, level in self.group.levels.items():
            if not isinstance(node.op, Reduce) or self._input_stage(node) != sweep:
                continue
            if level == "row":
                accumulator = self._accumulator(node)
                before.append(Reset(accumulator))
                inner.append(Update(accumulator, self._source(node)))
            elif level == "col":
                inner.append(self._combine_column(node))
            elif self._reduces_rows(node):
                before.append(self._update_total(node))
            else:
                inner.append(self._update_total(node))
        for node in self.group.levels:
            if isinstance(node.op, Reduce) and self._input_stage(node) == sweep:
                if self.group.levels[node] == "row":
                    self.accumulators[node] = self._accumulator(node)
        if not inner:
            return before
        if self.frame.cols == 1:
            return [*before, *inner]
        return [*before, Loop(Var("j", self.frame.cols), tuple(inner))]

    def _input_stage(self, node: Node) -> int:
        return max((self.stages.get(s, 0) for s in self._sources(node)), default=0)

    def _store(self, node: Node) -> Store:
        linear = self.frame.linear(self.group.levels[node])
        return Store(self.output(node), linear, self.value(node, linear))

    def _accumulator(self, node: Node) -> Accumulator:
        if node not in self.made:
            dtype, monoid = self._accumulator_dtype(node), loop_monoid(node)
            name = f"a{len(self.made)}"
            self.made[node] = Accumulator(name, monoid, dtype, neutral(monoid, dtype), node.loc)
        return self.made[node]

    # ---- results over all rows ---------------------------------------------------------

    def _combine_column(self, node: Node) -> Combine:
        """Add to a row of partial sums, which `finish` adds up."""
        cols, monoid = self.frame.cols, loop_monoid(node)
        out = self.output(node)
        value = self._source(node)
        direct = not self.has_parts and out.dtype == value.dtype
        target = out if direct else self._partial(value.dtype, cols)
        base = 0 if direct else atom(PART) * cols
        self._clear(target, cols, monoid)
        if not direct:
            self._finish(target, out, cols, monoid)
        return Combine(target, base + self.frame.col, value, monoid)

    def _update_total(self, node: Node) -> Update:
        accumulator = self._accumulator(node)
        self.enter.append(Reset(accumulator))
        value = self._source(node)
        partial = self._partial(accumulator.dtype, 1)
        self._clear(partial, 1, accumulator.monoid)
        self._finish(partial, self.output(node), 1, accumulator.monoid)
        self.leave.append(Store(partial, atom(PART), self.emit.read(accumulator)))
        return Update(accumulator, value)

    def _partial(self, dtype: DType, cols: Any) -> Buffer:
        parts = self.parts if self.has_parts else 1
        return self.scratch_buffer(dtype, cols * parts)

    def _clear(self, target: Buffer, cols: Any, monoid: str) -> None:
        """Neutral elements everywhere, for parts that get no rows."""
        var = Var("c", target.size)
        value = self.emit.constant(neutral(monoid, target.dtype), target.dtype)
        self.start.append(_loop(var, (Store(target, atom(var), value),)))

    def _finish(self, partial: Buffer, out: Buffer, cols: Any, monoid: str) -> None:
        var = Var("c", cols)
        dtype = partial.dtype
        accumulator = Accumulator(f"f{len(self.finish)}", monoid, dtype, neutral(monoid, dtype))
        parts = Var("p", self.parts if self.has_parts else 1)
        value = self.emit.load(partial, atom(parts) * cols + atom(var))
        total = self.emit.cast(self.emit.read(accumulator), compute_dtype(out.dtype))
        body = (
            Reset(accumulator),
            _loop(parts, (Update(accumulator, value),)),
            Store(out, atom(var), total),
        )
        self.finish.append(_loop(var, body))

    # ---- what is kept between sweeps ---------------------------------------------------

    def _choose_kept(self, last: int) -> None:
        if last == 0 or self.frame.cols == 1:
            return
        uses = [self._used_in(s) for s in range(last + 1)]
        for node, level in self.group.levels.items():
            if level != "full" or isinstance(node.op, Reduce):
                continue
            later = any(node in uses[s] for s in range(self.stages[node] + 1, last + 1))
            if later and self._is_costly(node):
                parts = self.parts
                dtype = compute_dtype(node.dtype)
                self.kept[node] = self.scratch_buffer(dtype, self.frame.cols * parts)

    def _used_in(self, sweep: int) -> set[Node]:
        """Full members evaluated in a sweep, if nothing were kept."""
        roots: list[Node] = self._stored("full", sweep)
        for node in self.group.levels:
            if isinstance(node.op, Reduce) and self._input_stage(node) == sweep:
                roots += self._sources(node)
        seen: set[Node] = set()
        while roots:
            node = roots.pop()
            if self.group.levels.get(node) != "full" or node in seen:
                continue
            seen.add(node)
            if not isinstance(node.op, Reduce):
                roots += self._sources(node)
        return seen

    def _is_costly(self, node: Node) -> bool:
        trial = Builder(self.partition, Group("loop", self.frame, {}))
        linear = self.frame.linear("full")
        inside = list(expressions((trial.element(node, linear),)))
        return any(e.op == "call" for e in inside) or len(inside) > COSTLY


def lower_rows(partition: Partition, group: Group, parts: int) -> Lowered:
    """The kernel of a group of kind "loop". parts: into how many a large one may be split."""
    return _Rows(partition, group, parts).build()


def _is_short(frame: Frame) -> bool:
    """Whether a frame has too few columns for vectors, or too few rows for threads."""
    return any(isinstance(n, int) and n < SHORT for n in (frame.rows, frame.cols))


def loop_monoid(node: Node) -> str:
    """The scalar operation that a reduction combines with."""
    op: Any = node.op
    return str(op.monoid)


def _loop(var: Var, body: tuple[Statement, ...]) -> Loop:
    return Loop(var, body)


def _buffers_used(statements: Iterable[Statement]) -> set[Buffer]:
    used: set[Buffer] = set()
    for s in walk(statements):
        if isinstance(s, Store | Combine):
            used.add(s.buffer)
        for e in expressions(scalars(s)):
            if e.op == "load":
                used.add(e.attrs[0])
    return used


def estimated_cost(body: Iterable[Statement]) -> Any:
    """Estimated operations per row: a function counts 8, everything else 1."""
    total: Any = 0
    for s in body:
        if isinstance(s, Loop):
            extent = s.var.extent if s.extent is None else s.extent
            total = total + estimated_cost(s.body) * extent
        else:
            words = [e.op for e in expressions(scalars(s))]
            total = total + 1 + sum(8 if w == "call" else 1 for w in words)
    return total


def _checks(statements: Iterable[Statement]) -> Iterable[Any]:
    codes = [
        e.attrs[0] for s in walk(statements) for e in expressions(scalars(s)) if e.op == "check"
    ]
    return dict.fromkeys(codes)


def inplace_pairs(
    statements: Iterable[Statement], written: Iterable[Buffer]
) -> Iterable[tuple[Buffer, Buffer]]:
    """Pairs (written, read) where each element is read only where and before it is overwritten.

    Single elements of a row may also be read at computed columns, before the row is stored.
    """
    order = _MemoryOrder(statements)
    for out in written:
        if len(order.stores.get(out, ())) != 1 or out in order.loads:
            continue
        for source, places in order.loads.items():
            alike = source.dtype == out.dtype and source.size == out.size
            if not alike or order.last[source] > order.first[out]:
                continue
            others = places - order.stores[out]
            if len(others) < len(places) and all(order.precedes(source, p, out) for p in others):
                yield out, source


class _MemoryOrder:
    """Where buffers are read and written, and in which statement first and last.

    A load is done once per loop body, at its first use; inside a guard at every use. loops: the
    loop of a buffer's first store. reads: when a place is read last. inside: places that loops
    read.
    """

    def __init__(self, statements: Iterable[Statement]) -> None:
        self.stores: dict[Buffer, set[Any]] = {}
        self.loads: dict[Buffer, set[Any]] = {}
        self.first: dict[Buffer, int] = {}
        self.last: dict[Buffer, int] = {}
        self.loops: dict[Buffer, Loop | None] = {}
        self.reads: dict[tuple[Buffer, Any], int] = {}
        self.inside: set[tuple[Buffer, Any]] = set()
        self.number = 0
        self._visit(statements, set(), None)

    def precedes(self, source: Buffer, place: Any, out: Buffer) -> bool:
        """Whether a place is a computed column of the row that is stored later."""
        loop = self.loops[out]
        late = self.reads[source, place] >= self.first[out]
        if loop is None or late or (source, place) in self.inside:
            return False
        (target,) = self.stores[out]
        column = place - (target - atom(loop.var))
        terms = terms_of(column)
        inner = [m[0] for m in terms if len(m) == 1]
        if len(terms) != 1 or not inner or terms[(inner[0],)] != 1:
            return False
        return isinstance(inner[0], Dynamic) and bool(inner[0].extent == loop.var.extent)

    def _visit(self, statements: Iterable[Statement], known: set[int], loop: Loop | None) -> None:
        for s in statements:
            if isinstance(s, Loop):
                self._visit(s.body, set(known), s)
                continue
            self.number += 1
            for value in scalars(s):
                self._load(value, known, loop)
            if isinstance(s, Store | Combine):
                self.stores.setdefault(s.buffer, set()).add(s.linear)
                self.first.setdefault(s.buffer, self.number)
                self.loops.setdefault(s.buffer, loop)

    def _load(self, root: Scalar, known: set[int], loop: Loop | None) -> None:
        stack = [root]
        while stack:
            value = stack.pop()
            if id(value) in known:
                continue
            if value.op == "guarded":
                self._load(value.args[1], set(known), loop)
                stack += [value.args[0], value.args[2]]
                continue
            known.add(id(value))
            stack += value.args
            if value.op == "load":
                buffer, linear = value.attrs
                self.loads.setdefault(buffer, set()).add(linear)
                self.last[buffer] = self.reads[buffer, linear] = self.number
                if loop is not None:
                    self.inside.add((buffer, linear))
