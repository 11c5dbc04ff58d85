"""A partition to a `Program`: kernels printed, steps ordered, memory planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphnn.compiler.codegen.library import library_call, lower_gemm, lower_product, widened
from graphnn.compiler.codegen.llvm import KernelText, print_kernel
from graphnn.compiler.codegen.loops import Kernel, Product, Store
from graphnn.compiler.codegen.lower import PARALLEL, Lowered, lower_rows
from graphnn.compiler.codegen.lower_more import (
    lower_middle,
    lower_scan,
    lower_scan_across,
    lower_scatter,
)
from graphnn.compiler.codegen.scalar import Buffer, Emit
from graphnn.compiler.codegen.segments import segmented
from graphnn.compiler.codegen.unroll import unrolled
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size, Var, atom, substitute
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.core import Input, Item
from graphnn.compiler.ops.linalg import MatMul
from graphnn.compiler.passes.fuse import Frame, Group, Partition, fuse
from graphnn.compiler.passes.memory import plan_arena
from graphnn.compiler.passes.place import HOST, Machine, Placement, place
from graphnn.runtime.program import Layout, Program, Segment, Slot, Step, StepSizes

PARTS_PER_THREAD = 4
MIN_PART = 20_000  # estimated operations below which another thread does not pay


LOWERINGS = {
    "loop": lower_rows,
    "middle": lower_middle,
    "scan": lower_scan,
    "scatter": lower_scatter,
}


@dataclass(frozen=True)
class Target:
    """What the program is compiled for."""

    threads: int = 1
    blas: bool = True
    fuse: bool = True
    machines: tuple[Machine, ...] = (Machine(HOST),)

    @property
    def parts(self) -> int:
        """Into how many a large kernel is split: several per thread, so that a thread that another
        program holds up does not hold up the rest."""
        return 1 if self.threads == 1 else PARTS_PER_THREAD * self.threads


@dataclass
class Work:
    """One step while the program is built: a kernel, or a call back to the host."""

    group: Group
    lowered: Lowered | None
    text: KernelText | None
    reads: list[Node]
    writes: list[Node]


@dataclass
class Built:
    """A program with the stages that led to it, for the dump tool."""

    program: Program
    partition: Partition
    steps: list[list[Work]] = field(default_factory=list)
    placement: Placement | None = None


def build_program(graph: Graph, target: Target) -> Built:
    """Place, fuse, lower, order, plan and print a graph of primitive ops."""
    graph = widened(graph) if target.blas else graph
    placement = place(graph, target.machines)
    partition = fuse(graph, target.fuse)
    works = [_work(partition, g, target) for g in partition.groups]
    _share_texts(works)
    built = Assembly(graph, partition, order_steps(graph, partition, works), target).built()
    return replace(built, placement=placement)


def _share_texts(works: list[Work]) -> None:
    """Kernels with one code have one name, that of the first, whatever ops they were made of."""
    known: dict[str, KernelText] = {}
    for work in works:
        if work.text is not None:
            code = work.text.name.rpartition("_")[2]  # the hash of all but the name
            work.text = known.setdefault(code, work.text)


def _work(partition: Partition, group: Group, target: Target) -> Work:
    lowered = _lower(partition, group, target)
    if lowered is None:
        node = group.nodes[0]
        reads = [partition.aliases.get(i, i) for i in node.inputs]
        writes = [n for n in group.nodes if isinstance(n.type, TensorType)]
        return Work(group, None, None, reads, writes)
    text = print_kernel(lowered.kernel)
    nodes = [lowered.node_of[b] for b in lowered.kernel.buffers if b in lowered.node_of]
    written = {lowered.node_of[b] for b in lowered.kernel.writes}
    reads = [n for n in nodes if n not in written]
    return Work(group, lowered, text, reads, [n for n in nodes if n in written])


def _lower(partition: Partition, group: Group, target: Target) -> Lowered | None:
    if group.kind == "host":
        return None
    if group.kind == "library":
        if not isinstance(group.nodes[0].op, MatMul):
            return None  # a call of another device's library
        call = library_call(group.nodes[0], "cpu") if target.blas else None
        return lower_gemm(partition, group, call) if call else lower_product(partition, group)
    if group.kind == "scan":
        return lower_scan_across(partition, group, target.parts)
    lowered = LOWERINGS[group.kind](partition, group, target.parts)
    return segmented(unrolled(lowered)) if group.kind == "loop" else lowered


def order_steps(graph: Graph, partition: Partition, works: list[Work]) -> list[Work]:
    """Steps whose results nobody reads go last, equal kernels beside each other.

    That lets new values of Variables be written in place, after all checks and all readers.
    """
    used = {n for w in works for n in w.reads}
    outputs = {partition.aliases.get(o, o) for o in graph.outputs}
    updated = {partition.aliases.get(v, v) for _, v in graph.updates}
    last = [
        w
        for w in works
        if w.text is not None
        and not _may_fail(w)
        and all(n in updated and n not in used and n not in outputs for n in w.writes)
    ]
    last.sort(key=lambda w: not _has_checks(w))  # scatters, before what cannot fail
    names = list(dict.fromkeys(w.text.name for w in last if w.text))
    sinks = set(map(id, last))
    ordered = [w for w in works if id(w) not in sinks]
    return ordered + [w for n in names for w in last if w.text and w.text.name == n]


def _may_fail(work: Work) -> bool:
    """Whether a step can end the call. Scatters do not count for the table that they write: a copy
    of it all for a few rows would cost too much."""
    return _has_checks(work) and work.group.kind != "scatter"


def _has_checks(work: Work) -> bool:
    """Whether a step can end the call: by a runtime check, or by an exception on the host."""
    return work.lowered is None or bool(work.lowered.kernel.checks)


class Assembly:
    """Slots, steps and layout of one program."""

    printed: Callable[[Lowered], Any] = staticmethod(lambda lowered: print_kernel(lowered.kernel))

    def __init__(
        self, graph: Graph, partition: Partition, works: list[Work], target: Target
    ) -> None:
        self.graph, self.partition, self.target = graph, partition, target
        self.slots: list[Slot] = []
        self.slot_of: dict[Node, int] = {}
        self.scratch: dict[tuple[int, int], int] = {}  # ids of a kernel and its buffer -> slot
        self.copies: list[tuple[int, int]] = []
        self.steps = self._cluster(works)
        self._assign_slots()

    # ---- steps -------------------------------------------------------------------------

    def _cluster(self, works: list[Work]) -> list[list[Work]]:
        """Neighbouring steps with one kernel over rows of any number become one step."""
        steps: list[list[Work]] = []
        for work in works:
            if steps and self._joins(steps[-1], work):
                steps[-1].append(work)
            else:
                steps.append([work])
        return steps

    @staticmethod
    def _joins(step: list[Work], work: Work) -> bool:
        first = step[0]
        if work.text is None or first.text is None or work.lowered is None:
            return False
        kernel = work.lowered.kernel
        simple = kernel.flat and not (kernel.start or kernel.enter or kernel.checks)
        if not simple or work.lowered.scratch or isinstance(kernel.body[0], Product):
            return False
        written = {n for w in step for n in w.writes}
        return work.text.name == first.text.name and not written & set(work.reads)

    # ---- slots -------------------------------------------------------------------------

    def _new_slot(
        self, role: str, type: TensorType, label: str, loc: Any = None, host: bool = False
    ) -> int:
        slot = Slot(len(self.slots), role, type.dtype, type.shape, label, loc, host)
        self.slots.append(slot)
        return slot.index

    def _on_host(self, node: Node) -> bool:
        """Whether a value is in the host's memory although the program is for another device."""
        return False

    def _assign_slots(self) -> None:
        for node in self.graph.inputs:
            label = node.op.label if isinstance(node.op, Input) else "input"
            host = self._on_host(node)
            self.slot_of[node] = self._new_slot("input", node.tensor, label, node.loc, host)
        self._assign_updates()
        outputs = {self.partition.aliases.get(o, o) for o in self.graph.outputs}
        for step in self.steps:
            for work in step:
                for node in work.writes:
                    if node not in self.slot_of:
                        role = "output" if node in outputs else "temp"
                        role = "host" if self._on_host(node) else role
                        label = node.op.name
                        self.slot_of[node] = self._new_slot(role, node.tensor, label, node.loc)
                for buffer in work.lowered.scratch if work.lowered else ():
                    type = TensorType((buffer.size,), buffer.dtype)
                    key = id(work.lowered), id(buffer)
                    self.scratch[key] = self._new_slot("temp", type, "scratch")

    def _assign_updates(self) -> None:
        """New values of Variables straight into their memory, or by a copy at the end."""
        pending: list[tuple[Node, Node]] = []
        for variable, value in self.graph.updates:
            node = self.partition.aliases.get(value, value)
            if node in self.slot_of or not self._in_place(variable, node):
                pending.append((variable, node))
            else:
                self.slot_of[node] = self.slot_of[variable]
        # Old values that are given out, or become another Variable's value, are read after the
        # run: those copies are the runtime's.
        kept = {self.partition.aliases.get(o, o) for o in self.graph.outputs}
        kept |= {v for _, v in pending}
        self.pending = [(i, v) for i, v in pending if i in kept or self._is_outside(v)]
        late = set(self.pending)
        self.steps += [[self._copy_work(i, v)] for i, v in pending if (i, v) not in late]

    def _is_outside(self, value: Node) -> bool:
        return isinstance(value.op, Input) or self._on_host(value)

    def _in_place(self, variable: Node, value: Node) -> bool:
        """Whether every other step that reads the old value, or may fail, is over by then."""
        writers = [k for k, s in enumerate(self.steps) for w in s if value in w.writes]
        readers = [(k, w) for k, s in enumerate(self.steps) for w in s if variable in w.reads]
        if len(writers) != 1 or value.dtype != variable.dtype:
            return False
        if any(variable is self.partition.aliases.get(o, o) for o in self.graph.outputs):
            return False
        scatters = any(w.group.kind == "scatter" for w in self.steps[writers[0]])
        fails = _may_fail if scatters else _has_checks
        if any(fails(w) for s in self.steps[writers[0] :] for w in s):
            return False  # a failed call leaves Variables as they were
        for k, work in readers:
            if k > writers[0] or (k == writers[0] and not _same_element(work, variable, value)):
                return False
        aliases = self.partition.aliases
        return all(variable is not aliases.get(v, v) for _, v in self.graph.updates)

    def slots_of(self, work: Work) -> tuple[int, ...]:
        """Slots of a kernel's buffers, in argument order."""
        if work.lowered is None:
            return ()
        return tuple(self._buffer_slot(work.lowered, b) for b in work.lowered.kernel.buffers)

    def _buffer_slot(self, lowered: Lowered, buffer: Buffer) -> int:
        node = lowered.node_of.get(buffer)
        return self.scratch[id(lowered), id(buffer)] if node is None else self.slot_of[node]

    def _copy_work(self, variable: Node, value: Node) -> Work:
        """A step that copies a new value into its Variable's memory."""
        emit = Emit()
        out, source = (Buffer(n, value.dtype, value.tensor.size) for n in ("b0", "b1"))
        row = Var("i", value.tensor.size)
        store = Store(out, atom(row), emit.load(source, atom(row)))
        kernel = Kernel("copy", (out, source), row, (store,), writes=(out,), flat=True)
        lowered = Lowered(kernel, {out: variable, source: value})
        group = Group("loop", Frame(row.extent), {value: "full"})
        return Work(group, lowered, self.printed(lowered), [value], [])

    # ---- the program -------------------------------------------------------------------

    def built(self) -> Built:
        steps = tuple(self._step(step) for step in self.steps)
        modules = {w.text.name: w.text.text for s in self.steps for w in s if w.text}
        symbols = self.graph.symbols
        shares = self._share(steps)
        copies = tuple((self._slot(v), self.slot_of[i]) for i, v in self.pending)
        layout = _Layouts(self, steps, symbols, shares)
        program = Program(
            name=self.graph.name,
            modules=tuple(modules.items()),
            slots=tuple(self.slots),
            steps=steps,
            inputs=tuple(self.slot_of[i] for i in self.graph.inputs),
            outputs=tuple(self._slot(o) for o in self.graph.outputs),
            copies=copies,
            constants=(),
            symbols=symbols,
            symbol_sources=tuple(_source_of(self.graph, s) for s in symbols),
            layout=layout,
        )
        return Built(program, self.partition, self.steps)

    def _slot(self, node: Node) -> int:
        return self.slot_of[self.partition.aliases.get(node, node)]

    def _step(self, step: list[Work]) -> Step:
        first = step[0]
        title = " ".join(dict.fromkeys(n.op.name for n in first.group.nodes))
        locs = tuple(dict.fromkeys(n.loc for w in step for n in w.group.nodes if n.loc))
        if first.lowered is None or first.text is None:
            return self._host_step(first, title, locs)
        kernel = first.lowered.kernel
        return Step(
            kernel=first.text.name,
            segments=tuple(Segment(self.slots_of(w)) for w in step),
            starts=first.text.has_start,
            finishes=first.text.has_finish,
            symbols=kernel.symbols,
            checks=kernel.checks,
            inputs=tuple(self.slot_of[n] for w in step for n in w.reads),
            outputs=tuple(self.slot_of[n] for w in step for n in w.writes),
            title=title,
            locs=locs,
        )

    def _host_step(self, work: Work, title: str, locs: tuple[Any, ...]) -> Step:
        node = work.group.nodes[0]
        op: Any = node.op
        shapes = tuple(i.shape for i in node.inputs)  # an alias has another shape than its slot
        wanted = results_of(work)

        def host(arrays: list[Any], sizes: dict[str, int]) -> Any:
            bound = op.bind(sizes) if sizes else op
            own = [[substitute(s, sizes) for s in shape] for shape in shapes]
            found = bound.eager(np, *(a.reshape(s) for a, s in zip(arrays, own, strict=True)))
            return tuple(found[k] for k in wanted) if isinstance(found, tuple) else found

        return Step(
            kernel="",
            segments=(),
            host=host,
            inputs=tuple(self.slot_of[n] for n in work.reads),
            outputs=tuple(self.slot_of[n] for n in work.writes),
            title=title,
            locs=locs,
        )

    # ---- memory ------------------------------------------------------------------------

    def lifetimes(self, steps: tuple[Step, ...]) -> dict[int, tuple[int, int]]:
        """First and last step of each slot of the arena."""
        life: dict[int, tuple[int, int]] = {}
        for k, step in enumerate(steps):
            used = {s for segment in step.segments for s in segment.slots}
            for slot in used | set(step.inputs) | set(step.outputs):
                if self.slots[slot].role == "temp":
                    life[slot] = (life.get(slot, (k, k))[0], k)
        for source, _ in ((self._slot(v), i) for i, v in self.pending):
            if source in life:
                life[source] = (life[source][0], len(steps))
        return life

    def _share(self, steps: tuple[Step, ...]) -> dict[int, int]:
        """Slots of results written over an input that dies there: slot -> slot."""
        life = self.lifetimes(steps)
        shares: dict[int, int] = {}
        taken: set[int] = set()
        for k, step in enumerate(self.steps):
            if len(step) != 1 or step[0].lowered is None:
                continue
            lowered = step[0].lowered
            for out, source in lowered.kernel.inplace:
                a, b = (self._buffer_slot(lowered, x) for x in (out, source))
                fits = a in life and b in life and a != b and life[b][1] == k == life[a][0]
                if fits and a not in shares and b not in taken:
                    shares[a] = b
                    taken.add(b)
        return shares


def results_of(work: Work) -> tuple[int, ...]:
    """Which results of an op with several a step writes, in the order of its slots."""
    return tuple(n.op.index for n in work.writes if isinstance(n.op, Item))


def _same_element(work: Work, variable: Node, value: Node) -> bool:
    """Whether the kernel reads the old value only where and before it writes the new one."""
    if work.lowered is None:
        return False
    buffers = {n: b for b, n in work.lowered.node_of.items()}
    pair = (buffers.get(value), buffers.get(variable))
    return pair in work.lowered.kernel.inplace


def _source_of(graph: Graph, symbol: str) -> tuple[int, int]:
    """(input position, axis) whose size a symbol is."""
    for position, node in enumerate(graph.inputs):
        for axis, size in enumerate(node.shape):
            if isinstance(size, Size) and str(size) == symbol:
                return position, axis
    raise KeyError(symbol)


class _Layouts:
    """Computes the numbers of a call from its symbolic sizes; remembers them."""

    def __init__(
        self,
        assembly: Assembly,
        steps: tuple[Step, ...],
        symbols: tuple[str, ...],
        shares: dict[int, int],
    ) -> None:
        self.slots = tuple(assembly.slots)
        self.life = assembly.lifetimes(steps)
        self.shares, self.symbols = shares, symbols
        self.outputs = tuple(o.shape for o in assembly.graph.outputs)
        self.target = assembly.target
        self.kernels = [
            [w.lowered.kernel if w.lowered else None for w in step] for step in assembly.steps
        ]

    def __call__(self, sizes: tuple[int, ...]) -> Layout:
        env = dict(zip(self.symbols, sizes, strict=True))
        shapes = tuple(tuple(substitute(s, env) for s in slot.shape) for slot in self.slots)
        nbytes = {
            k: int(np.prod(shapes[k], dtype=np.int64)) * self.slots[k].dtype.itemsize
            for k in self.life
        }
        offsets, arena = plan_arena(nbytes, self.life, self.shares)
        steps = tuple(self._step(kernels, env) for kernels in self.kernels)
        table = tuple(offsets.get(k, -1) for k in range(len(self.slots)))
        outputs = tuple(tuple(substitute(s, env) for s in shape) for shape in self.outputs)
        return Layout(shapes, table, arena, steps, sizes, outputs)

    def _step(self, kernels: Iterable[Any], env: dict[Any, Any]) -> StepSizes:
        kernels = list(kernels)
        first = kernels[0]
        if first is None:
            return StepSizes((0,), 1)
        rows = tuple(int(substitute(k.rows, env)) for k in kernels)
        cost = int(substitute(first.cost, env)) * sum(rows)
        alone = bool(first.start or first.enter) and not first.parts
        # A matrix product cut finer than the threads would lose more than it gains.
        most = self.target.threads if isinstance(first.body[0], Product) else self.target.parts
        parts = 1 if alone or cost < PARALLEL else min(most, cost // MIN_PART)
        return StepSizes(rows, max(1, parts), 64 if first.flat else 1)
