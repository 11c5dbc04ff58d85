"""Texts of a program for a GPU: launches, library calls, least times, measured times, memory.

The floor of a step is the larger of its bytes over the copy rate and its arithmetic over the matrix
rate of the device; what a step of several launches passes through memory on the way counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, TypeVar

from graphnn.compiler.codegen.program import Work
from graphnn.compiler.dump_program import (
    View,
    byte_text,
    counted,
    host_reason,
    layers_text,
    place_text,
    table,
)
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Dynamic, atoms
from graphnn.compiler.ops.base import Elementwise
from graphnn.compiler.passes.access import accesses, flat_index, nbytes
from graphnn.runtime.device import (
    AttentionRun,
    DeviceFacts,
    DevicePlan,
    DeviceProgram,
    KernelRun,
    LibraryRun,
    ProductRun,
    StepRun,
)
from graphnn.runtime.errors import ArgumentError

K = TypeVar("K")
COPY_SHARE = 0.9  # of a memory's bandwidth that a copy reaches
MOST_ALIVE = 12  # values named at the peak of memory
TIMELINE = 60  # characters


@dataclass(frozen=True)
class Rates:
    """Arithmetic of matrix products per second, for float32, float32 cut to TF32, and 16 bits."""

    full: float
    tf32: float
    half: float


# Architecture: facts of a usual card with it, and rates of its products. Those of the H100 are
# measured on 8192 x 8192 matrices, the others 80% of the data sheets.
TARGETS: dict[str, tuple[DeviceFacts, Rates]] = {
    "sm_75": (
        DeviceFacts("NVIDIA T4", (7, 5), 40, 64 << 10, 16 << 30, 3.2e11),
        Rates(6.5e12, 6.5e12, 5.2e13),
    ),
    "sm_80": (
        DeviceFacts("NVIDIA A100", (8, 0), 108, 163 << 10, 80 << 30, 2.04e12),
        Rates(1.56e13, 1.25e14, 2.5e14),
    ),
    "sm_86": (
        DeviceFacts("NVIDIA RTX 3090", (8, 6), 82, 99 << 10, 24 << 30, 9.36e11),
        Rates(2.8e13, 2.8e13, 5.7e13),
    ),
    "sm_89": (
        DeviceFacts("NVIDIA RTX 4090", (8, 9), 128, 99 << 10, 24 << 30, 1.01e12),
        Rates(6.6e13, 6.6e13, 1.32e14),
    ),
    "sm_90": (DeviceFacts(), Rates(5.15e13, 3.61e14, 7.76e14)),
    "sm_100": (
        DeviceFacts("NVIDIA B200", (10, 0), 148, 227 << 10, 180 << 30, 8e12),
        Rates(6.4e13, 9e14, 1.8e15),
    ),
    "sm_120": (
        DeviceFacts("NVIDIA RTX 5090", (12, 0), 170, 99 << 10, 32 << 30, 1.79e12),
        Rates(8.4e13, 8.4e13, 1.68e14),
    ),
}


def target_facts(text: str) -> DeviceFacts:
    """The device that a text such as "cuda" or "cuda:sm_80" stands for; no device is needed.

    Raises ArgumentError for an unknown one.

    >>> target_facts("cuda").architecture, target_facts("cuda:sm_80").name
    ('sm_90', 'NVIDIA A100')
    """
    kind, _, architecture = text.partition(":")
    known = TARGETS.get(architecture or "sm_90")
    if kind == "cuda" and known is not None:
        return known[0]
    raise ArgumentError(
        "a device to compile for",
        received=repr(text),
        expected='"cuda" or one of ' + ", ".join(f'"cuda:{name}"' for name in TARGETS),
        fix='write device="cuda"',
    )


def rates_of(facts: DeviceFacts) -> Rates:
    """Rates of a device, by its architecture; those of the nearest older one if it is unknown."""
    known = sorted(TARGETS.values(), key=lambda pair: pair[0].capability)
    older = [r for f, r in known if f.capability <= facts.capability]
    return older[-1] if older else known[0][1]


@dataclass(frozen=True)
class Cost:
    """What a step costs at least. seconds: measured, None where nothing was."""

    nbytes: int
    flops: int
    floor: float
    nodes: int
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class DeviceView(View):
    """A program for a GPU with the numbers of one call.

    facts: of the device. times: measured seconds of steps by their number.
    """

    facts: DeviceFacts = field(default_factory=DeviceFacts)
    times: Mapping[int, float] = field(default_factory=dict)

    @property
    def device(self) -> DeviceProgram:
        """Texts and launches."""
        return self.built.device  # type: ignore[attr-defined,no-any-return]

    @cached_property
    def plan(self) -> DevicePlan:
        """Launches and library calls of the call."""
        return self.device.plan(self.layout.sizes)

    @cached_property
    def costs(self) -> list[Cost]:
        """Of each step."""
        return [self._cost(k, run) for k, run in enumerate(self.plan.steps)]

    def _cost(self, k: int, run: StepRun) -> Cost:
        moved = self._moved(k)
        flops, rate = _arithmetic(run, rates_of(self.facts))
        floor = 0.0
        if run is not None:
            floor = max(moved / (COPY_SHARE * self.facts.bandwidth), flops / rate)
        return Cost(moved, flops, floor, nodes_of(run), self.times.get(k))

    def _moved(self, k: int) -> int:
        step = self.program.steps[k]
        total = self.nbytes(dict.fromkeys(step.outputs))
        readers = self._computed(k)
        for slot, node in _once(step.inputs, (n for w in self.built.steps[k] for n in w.reads)):
            picked = picked_bytes(node, readers)
            whole = self.nbytes([slot])
            total += whole if picked is None else min(whole, picked)
        return total

    def _computed(self, k: int) -> list[Node]:
        """The nodes of a step, and those that are computed inside them."""
        found: dict[Node, None] = {}
        stack = [n for w in self.built.steps[k] for n in w.group.nodes]
        while stack:
            node = stack.pop()
            if node not in found:
                found[node] = None
                stack += [i for i in node.inputs if i in self.built.partition.inlined]
        return list(found)

    @property
    def pieces(self) -> list[int]:
        """Nodes of what is started together; steps on the host stand between."""
        counts = [0]
        for cost, run in zip(self.costs, self.plan.steps, strict=True):
            if run is None:
                counts.append(0)
            else:
                counts[-1] += cost.nodes
        counts[-1] += len(self.program.copies)
        return [n for n in counts if n]


def _once(slots: Sequence[int], nodes: Iterable[Node]) -> Iterator[tuple[int, Node]]:
    return iter(dict(zip(slots, nodes, strict=False)).items())


def picked_bytes(source: Node, readers: Sequence[Node]) -> int | None:
    """Bytes read of a value if all its readers pick computed places of it, else None."""
    found = 0
    for reader in readers:
        for k, node in enumerate(reader.inputs):
            if node is not source:
                continue
            if not _picks(reader, k):
                return None
            found += nbytes(reader)
    return found or None


def _picks(reader: Node, position: int) -> bool:
    if isinstance(reader.op, Elementwise) or reader.op.fusion not in ("map", "view"):
        return False
    places = [at for k, at in accesses(reader, flat_index(reader.tensor.size)) if k == position]
    return bool(places) and all(
        any(isinstance(a, Dynamic) for a in atoms(at)) for at in places if not isinstance(at, int)
    )


def nodes_of(run: StepRun) -> int:
    """Nodes of a CUDA graph that a step makes, if a library call is one kernel."""
    if isinstance(run, KernelRun):
        return len(run.launches)
    return len(run.offsets) if isinstance(run, ProductRun) else int(run is not None)


def _arithmetic(run: StepRun, rates: Rates) -> tuple[int, float]:
    """(operations, operations per second) of a library call."""
    if isinstance(run, ProductRun):
        count = 2 * run.m * run.n * run.k * run.batch * len(run.offsets)
        if run.dtype != "float32":
            return count, rates.half
        return count, rates.tf32 if run.tf32 else rates.full
    if isinstance(run, AttentionRun):
        query, key = run.tensors[0].shape, run.tensors[1].shape
        products = 5 if run.backward else 2
        count = 2 * products * prod(query) * key[2]
        return count // 2 if run.causal else count, rates.half
    return 0, 1.0


# ---- words ----------------------------------------------------------------------------------


def time_text(seconds: float) -> str:
    """A time in three digits.

    >>> time_text(1.234e-5), time_text(0.031), time_text(2e-8)
    ('12.3 us', '31 ms', '0.02 us')
    """
    if seconds < 1e-6:
        return f"{seconds * 1e6:.2f} us"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def flop_text(count: float) -> str:
    """A number of operations in four digits.

    >>> flop_text(1536), flop_text(1.4e13)
    ('1.536 kFLOP', '14 TFLOP')
    """
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000 or unit == "T":
            break
        count /= 1000
    return f"{count:.4g} {unit}FLOP"


def library_text(run: LibraryRun) -> str:
    """A library call in few words.

    >>> library_text(ProductRun(8, 4, 2, (False, True), (2, 2, 4)))
    'product 8x4x2 float32'
    """
    if isinstance(run, AttentionRun):
        b, heads, time, depth = run.tensors[0].shape
        words = [
            "attention backward" if run.backward else "attention",
            f"{b}x{heads}x{time}x{depth}",
        ]
        words += [run.tensors[0].dtype, *(["causal"] if run.causal else [])]
        return " ".join(words)
    count = run.batch * len(run.offsets)
    shape = f"{run.m}x{run.n}x{run.k}"
    words = ["product", shape if count == 1 else f"{count} x {shape}", run.dtype]
    words += ["tf32"] if run.tf32 and run.dtype == "float32" else []
    words += [f"-> {run.result}"] if run.result not in (run.dtype, "") else []
    return " ".join(words)


def epilogue_text(run: LibraryRun) -> str:
    """What a product does besides multiplying; a hyphen for nothing."""
    if isinstance(run, AttentionRun):
        return "-"
    e = run.epilogue
    words = ["bias"] if e.bias else []
    words += ["residual"] if e.residual else []
    words += [e.activation] if e.activation else []
    words += ["keeps its input"] if e.keeps else []
    words += [f"slope of {e.slope}"] if e.slope else []
    words += [f"sums of {e.sums}"] if e.sums else []
    return ", ".join(words) or "-"


# ---- summary --------------------------------------------------------------------------------


def headline(view: DeviceView) -> list[str]:
    """What the program consists of, and the least time of a call."""
    kernels = [k for k, run in enumerate(view.plan.steps) if isinstance(run, KernelRun)]
    libraries = [r for r in view.plan.steps if isinstance(r, ProductRun | AttentionRun)]
    hosts = [s for s, r in zip(view.program.steps, view.plan.steps, strict=True) if r is None]
    launched = sum(view.costs[k].nodes for k in kernels)
    nodes = sum(c.nodes for c in view.costs) + len(view.program.copies)
    names = len({view.program.steps[k].kernel for k in kernels})
    parts = [
        f"{counted(names, 'kernel')} in {launched} {'launch' if launched == 1 else 'launches'}",
        counted(len(libraries), "library call"),
        counted(len(hosts), "host step"),
    ]
    parts += [f"{len(view.program.copies)} copies"] if view.program.copies else []
    graphs = [n for n in view.pieces if n > 1]
    singles = view.pieces.count(1)
    words = []
    if graphs:
        count = "one CUDA graph" if len(graphs) == 1 else f"{len(graphs)} CUDA graphs"
        words.append(f"{count} of {sum(graphs)} nodes")
    if singles:  # a graph of one node gains nothing
        words.append("one launch" if singles == 1 else f"{singles} launches")
    lines = [f"program  {' and '.join(words) or 'nothing'}: {', '.join(parts)}{view.assumption()}"]
    lines += [f"         not captured: {s.title}, {_host_word(view, s)}" for s in hosts]
    return lines + _floor_lines(view, nodes)


def _host_word(view: DeviceView, step: object) -> str:
    for own, works in zip(view.program.steps, view.built.steps, strict=True):
        if own is step and works[0].group.nodes[0].op.name != "host_region":
            return host_reason(works[0])
    return "runs on the host"


def _floor_lines(view: DeviceView, nodes: int) -> list[str]:
    facts, rates = view.facts, rates_of(view.facts)
    work, launches = sum(c.floor for c in view.costs), nodes * facts.launch
    lines = [
        f"floor    {time_text(work + launches)} on {facts.name}: {time_text(work)} of work "
        f"(copies {COPY_SHARE * facts.bandwidth / 1e12:.2f} TB/s, 16-bit products "
        f"{rates.half / 1e12:.0f} TFLOP/s), {time_text(launches)} of launches"
    ]
    times = [c.seconds for c in view.costs if c.seconds is not None]
    if times:
        total = sum(times)
        lines.append(
            f"measured {time_text(total)} in {counted(len(times), 'step')}, run one by one; "
            f"the floor of their work is {work / total:.0%} of that"
        )
    return lines


def kernels_table(view: DeviceView) -> list[str]:
    """Each distinct kernel: runs, the first launch, bytes and least time of all runs."""
    head = ["kernel", "runs", "launches", "blocks", "threads", "shared", "bytes", "floor"]
    rows = []
    for name, steps in _by(view, lambda k, run: view.program.steps[k].kernel, KernelRun).items():
        run = view.plan.steps[steps[0]]
        launch = run.launches[0] if isinstance(run, KernelRun) and run.launches else None
        shape = (
            [str(launch.blocks), str(launch.threads), byte_text(launch.shared)] if launch else []
        )
        rows.append([name, *_shared_words(view, steps), *(shape or ["-"] * 3), *_ends(view, steps)])
    return _measured_table(view, head, rows, 1)


def libraries_table(view: DeviceView) -> list[str]:
    """Each distinct library call with its epilogue."""
    head = ["library call", "epilogue", "runs", "arithmetic", "bytes", "floor"]
    rows = []
    kinds = ProductRun | AttentionRun
    calls = _by(view, lambda k, run: (library_text(run), epilogue_text(run)), kinds)
    for (what, epilogue), steps in calls.items():
        flops = sum(view.costs[k].flops for k in steps)
        ends = _ends(view, steps)
        rows.append([what, epilogue, str(len(steps)), flop_text(flops), *ends])
    return _measured_table(view, head, rows, 2)


def _by(view: DeviceView, key: Callable[[int, Any], K], kind: Any) -> dict[K, list[int]]:
    """Numbers of steps with the same key, the costliest first."""
    found: dict[K, list[int]] = {}
    for k, run in enumerate(view.plan.steps):
        if isinstance(run, kind):
            found.setdefault(key(k, run), []).append(k)
    return dict(sorted(found.items(), key=lambda e: -sum(view.costs[k].floor for k in e[1])))


def _shared_words(view: DeviceView, steps: Sequence[int]) -> list[str]:
    return [str(len(steps)), str(sum(view.costs[k].nodes for k in steps))]


def _ends(view: DeviceView, steps: Sequence[int]) -> list[str]:
    """Bytes, floor, and where they were measured time and share of the floor."""
    costs = [view.costs[k] for k in steps]
    floor = sum(c.floor for c in costs)
    words = [byte_text(sum(c.nbytes for c in costs)), time_text(floor)]
    times = [c.seconds for c in costs if c.seconds is not None]
    if not view.times:
        return words
    seconds = sum(times)
    return [*words, time_text(seconds), f"{floor / seconds:.0%}" if seconds else "-"]


def _measured_table(
    view: DeviceView, head: list[str], rows: list[list[str]], first: int
) -> list[str]:
    if not rows:
        return []
    head = [*head, "time", "share"] if view.times else head
    return ["", *table([head, *rows], right=range(first, len(head)))]


# ---- program --------------------------------------------------------------------------------


def device_steps(view: DeviceView) -> list[str]:
    """One line a step."""
    head = ["step", "runs", "kind", "nodes", "reads", "writes", "floor"]
    head += ["time", "share"] if view.times else []
    rows = [[*head, "computes", "lines"]]
    for k, (step, works, run) in enumerate(
        zip(view.program.steps, view.built.steps, view.plan.steps, strict=True)
    ):
        runs = view.number(works[0]) + (f" +{len(works) - 1}" if len(works) > 1 else "")
        words = [str(k), runs, _kind(works[0], run), str(view.costs[k].nodes)]
        words += [byte_text(view.nbytes(step.inputs)), byte_text(view.nbytes(step.outputs))]
        words += _ends(view, [k])[1:]
        places = place_text(step.locs) + layers_text(step.locs, most=2)
        rows.append([*words, computes(step.title, run), places])
    return table(rows, right=(0, *range(3, len(head))))


def _kind(work: Work, run: StepRun) -> str:
    if run is None:
        return "host"
    return work.group.kind if isinstance(run, KernelRun) else "library"


def computes(title: str, run: StepRun, most: int = 60) -> str:
    """What a step computes."""
    text = title
    if isinstance(run, ProductRun | AttentionRun):
        epilogue = epilogue_text(run)
        text = library_text(run) + (f" + {epilogue}" if epilogue != "-" else "")
    return text if len(text) <= most else text[: most - 3] + "..."


def device_program_text(view: DeviceView) -> str:
    """All steps of the program in order."""
    lines = [f"program {view.program.name} for {view.facts.architecture}", *headline(view)]
    return "\n".join([*lines, "", *device_steps(view)]) + "\n"


# ---- memory ---------------------------------------------------------------------------------


def timeline(view: DeviceView) -> list[str]:
    """How many bytes of the arena are alive in each step, and what is alive at the peak."""
    alive = _alive(view)
    totals = [view.nbytes(slots) for slots in alive]
    peak = max(totals, default=0)
    if not peak:
        return []
    at = totals.index(peak)
    lines = ["", f"alive in the arena: {byte_text(peak)} at most, in step {at}"]
    stride = max(1, -(-len(totals) // TIMELINE))
    for first in range(0, len(totals), stride):
        most = max(totals[first : first + stride])
        label = f"{first}" if stride == 1 else f"{first}..{min(first + stride, len(totals)) - 1}"
        lines.append(
            f"    {label:>9}  {byte_text(most):>8}  {'#' * round(40 * most / peak)}".rstrip()
        )
    lines += ["", f"largest values alive in step {at}"]
    largest = sorted(alive[at], key=lambda s: -view.nbytes([s]))
    rows = []
    for slot in largest[:MOST_ALIVE]:
        held = view.program.slots[slot]
        shape = "x".join(map(str, view.layout.shapes[slot])) or "scalar"
        rows.append(
            [f"    {slot}", byte_text(view.nbytes([slot])), held.label, shape, str(held.loc or "")]
        )
    lines += table(rows, right=(1,))
    if len(largest) > MOST_ALIVE:
        rest = view.nbytes(largest[MOST_ALIVE:])
        lines.append(f"    ... and {byte_text(rest)} in {len(largest) - MOST_ALIVE} others")
    return lines


def _alive(view: DeviceView) -> list[set[int]]:
    """Slots of the arena that hold something in each step."""
    program, layout = view.program, view.layout
    shares = getattr(program.layout, "shares", {})
    spans: dict[int, tuple[int, int]] = {}
    for k, step in enumerate(program.steps):
        touched = {s for g in step.segments for s in g.slots} | {*step.inputs, *step.outputs}
        for slot in touched:
            if layout.offsets[slot] >= 0:
                first, _ = spans.get(slot, (k, k))
                spans[slot] = (first, k)
    for slot, old in shares.items():  # one memory: the new value begins after the old one's end
        if slot in spans and old in spans:
            spans[slot] = (spans[slot][0] + 1, max(spans[slot][1], spans[slot][0] + 1))
    found: list[set[int]] = [set() for _ in program.steps]
    for slot, (first, last) in spans.items():
        for k in range(first, min(last, len(found) - 1) + 1):
            found[k].add(slot)
    return found
