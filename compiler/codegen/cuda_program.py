"""A graph to a program for a GPU: groups lowered and printed as CUDA C, launches counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphnn.compiler.codegen.cuda import PRELUDE, CudaText, Options, print_cuda
from graphnn.compiler.codegen.cuda_library import GEMM, has_library, library_run, lower_library
from graphnn.compiler.codegen.lower import Lowered
from graphnn.compiler.codegen.program import (
    LOWERINGS,
    Assembly,
    Built,
    Target,
    Work,
    build_program,
    order_steps,
    results_of,
)
from graphnn.compiler.codegen.reuse import Kernels
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import substitute
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.core import HostCall, Input, Item
from graphnn.compiler.passes.decompose import Decompose
from graphnn.compiler.passes.fuse import Group, Partition, fuse
from graphnn.compiler.passes.libraries import LibraryRules, library_form
from graphnn.compiler.passes.place import HOST, Placement
from graphnn.compiler.passes.regions import HostRegion
from graphnn.compiler.passes.schedule import order_for_memory
from graphnn.runtime.device import (
    WIDE_ELEMENTS,
    DeviceFacts,
    DevicePlan,
    DeviceProgram,
    KernelRun,
    Launch,
    StepRun,
)
from graphnn.runtime.program import Program, Step

BLOCKS_A_PROCESSOR = 2  # of kernels with results over all rows
RESERVED_SHARED = 1 << 10  # bytes that the driver and small arrays take
MANY = "_many"  # ending of the entry that runs several segments


@dataclass
class DeviceBuilt:
    """A program for a GPU with the stages that led to it, for the dump tool.

    regions: what was built for the host, by the number of the step that runs it.
    """

    device: DeviceProgram
    partition: Partition
    steps: list[list[Work]] = field(default_factory=list)
    placement: Placement | None = None
    regions: dict[int, Built] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        """Memory and steps."""
        return self.device.program


def options_for(facts: DeviceFacts) -> Options:
    """What schedules may use on a device."""
    return Options(
        parts=BLOCKS_A_PROCESSOR * facts.multiprocessors,
        shared=facts.shared_bytes - RESERVED_SHARED,
    )


def build_device_program(
    graph: Graph,
    options: Options | None = None,
    enabled: bool = True,
    host: Target | None = None,
    rules: LibraryRules | None = None,
) -> DeviceBuilt:
    """Fuse, lower, order, plan and print a graph of primitive ops for a GPU.

    enabled: whether nodes are fused. host: what host regions are compiled for. rules: what its
    libraries are asked for. Raises TypeError for a loop form that has no schedule.
    """
    options = options or Options()
    graph, refused = library_form(graph, rules or LibraryRules(epilogues=enabled))
    partition = fuse(graph, enabled)
    partition.reasons += refused
    kernels = Kernels(partition)
    works = [_work(kernels, g, options) for g in partition.groups]
    _share_texts(works)
    works = order_for_memory(works, {partition.aliases.get(r, r) for r in graph.roots})
    assembly = DeviceAssembly(graph, partition, order_steps(graph, partition, works), options, host)
    program = assembly.built().program
    program = replace(program, modules=tuple(_modules(program.modules, assembly.steps)))
    device = DeviceProgram(program, PRELUDE, _Plans(assembly, program.symbols))
    return DeviceBuilt(device, partition, assembly.steps, regions=assembly.regions)


def _share_texts(works: list[Work]) -> None:
    """Kernels with one text have one name, that of the first, whatever ops they were made of."""
    known: dict[str, CudaText] = {}
    for work in works:
        if isinstance(work.text, CudaText) and work.text.rules:
            first = known.setdefault(work.text.digest, work.text)
            work.text = replace(first, rules=work.text.rules)  # these count its own rows


def why_host(node: Node) -> str:
    """Why only the host can compute a node, or the empty string."""
    if isinstance(node.op, HostCall):
        return f"{node.op.name} calls Python"
    kind = node.op.fusion
    if kind == "library":
        missing = not has_library(node)
        return f"{node.op.name} of {node.inputs[0].dtype.name} has no GPU code" if missing else ""
    opaque = kind == "none" and not isinstance(node.op, Input | Item)
    return f"{node.op.name} has no GPU code" if opaque else ""


class DeviceAssembly(Assembly):
    """Slots, steps and layout of a program for a GPU; `regions`: by the number of their step."""

    def __init__(
        self,
        graph: Graph,
        partition: Partition,
        works: list[Work],
        options: Options,
        host: Target | None,
    ) -> None:
        self.options, self.host = options, host or Target()
        self.regions: dict[int, Built] = {}
        super().__init__(graph, partition, works, Target(threads=options.parts))

    def printed(self, lowered: Lowered) -> Any:
        """The kernel of a step that copies."""
        return print_cuda(lowered, "loop", self.options)[1]

    def _on_host(self, node: Node) -> bool:
        is_result = isinstance(node.op, Item) and isinstance(node.inputs[0].op, HostRegion)
        return node.device == HOST and (is_result or isinstance(node.op, Input))

    def _host_step(self, work: Work, title: str, locs: tuple[Any, ...]) -> Step:
        """A host region is a program of its own."""
        step = super()._host_step(work, title, locs)
        node = work.group.nodes[0]
        op = node.op
        if not isinstance(op, HostRegion):
            return step
        shapes = tuple(i.shape for i in node.inputs)

        def given(arrays: list[Any], sizes: dict[str, int]) -> list[Any]:
            own = [[substitute(s, sizes) for s in shape] for shape in shapes]
            inputs = (a.reshape(s) for a, s in zip(arrays, own, strict=True))
            return op.bind(sizes).arrays(inputs)  # type: ignore[attr-defined,no-any-return]

        outputs = tuple(op.graph.outputs[k] for k in results_of(work))
        graph = Decompose().run(replace(op.graph, outputs=outputs))  # what only a GPU has whole
        built = build_program(graph, self.host)
        number = next(k for k, s in enumerate(self.steps) if s[0] is work)
        self.regions[number] = built
        inside = [n.op.name for n in op.graph.nodes if not isinstance(n.op, Input | Item)]
        title = "host: " + " ".join(dict.fromkeys(inside))
        places = tuple(dict.fromkeys(n.loc for n in op.graph.nodes if n.loc)) or locs
        return replace(step, host=given, region=built.program, title=title, locs=places)


def _modules(
    modules: tuple[tuple[str, str], ...], steps: list[list[Work]]
) -> Iterator[tuple[str, str]]:
    """Texts of the kernels; those that run several segments have one more entry, and its name."""
    many = {_text(s[0]).name: _text(s[0]).many for s in steps if len(s) > 1}
    for name, text in modules:
        if name in many:
            yield f"{name}{MANY}", text + many[name]
        elif name != GEMM:
            yield name, text


def _work(kernels: Kernels, group: Group, options: Options) -> Work:
    partition = kernels.partition
    lowered, text = kernels.lowered(group, lambda g: _lower(partition, g, options))
    if lowered is None:
        node = group.nodes[0]
        reads = [partition.aliases.get(i, i) for i in node.inputs]
        return Work(group, None, None, reads, [n for n in group.nodes if _is_tensor(n)])
    nodes = [lowered.node_of[b] for b in lowered.kernel.buffers if b in lowered.node_of]
    written = {lowered.node_of[b] for b in lowered.kernel.writes}
    reads = [n for n in nodes if n not in written]
    return Work(group, lowered, text, reads, [n for n in nodes if n in written])  # type: ignore[arg-type]


def _is_tensor(node: Node) -> bool:
    return isinstance(node.type, TensorType)


def _lower(
    partition: Partition, group: Group, options: Options
) -> tuple[Lowered | None, CudaText | None]:
    if group.kind == "host":
        return None, None
    if group.kind == "library":
        return lower_library(partition, group)
    lowered = LOWERINGS[group.kind](partition, group, options.parts)
    return print_cuda(lowered, group.kind, options)


class _Plans:
    """Computes the launches of a call from its symbolic sizes; remembers them."""

    def __init__(self, assembly: Assembly, symbols: tuple[str, ...]) -> None:
        self.steps, self.symbols = assembly.steps, symbols
        self.slots = tuple(assembly.slots)
        self.known: dict[tuple[int, ...], DevicePlan] = {}

    def __call__(self, sizes: tuple[int, ...]) -> DevicePlan:
        if sizes not in self.known:
            env = dict(zip(self.symbols, sizes, strict=True))
            runs = tuple(_run(step, env) for step in self.steps)
            self.known[sizes] = DevicePlan(runs, self._is_wide(env))
        return self.known[sizes]

    def _is_wide(self, env: Mapping[Any, Any]) -> bool:
        for slot in self.slots:
            count = 1
            for size in slot.shape:
                count *= int(substitute(size, env))
            if count >= WIDE_ELEMENTS:
                return True
        return False


def _run(step: list[Work], env: Mapping[Any, Any]) -> StepRun:
    first = step[0]
    if first.lowered is None or first.text is None:
        return None
    kernel = first.lowered.kernel
    run = library_run(kernel, env)
    if run is not None:
        return run
    sizes = tuple(int(env[s]) for s in kernel.symbols)
    rows = tuple(int(substitute(w.lowered.kernel.rows, env)) for w in step if w.lowered)
    if len(step) == 1:
        return KernelRun(_launches(first, env), rows, sizes)
    firsts, total = [], 0
    for work in step:
        firsts.append(total)
        total += sum(launch.blocks for launch in _launches(work, env))
    rule = _text(first).rules[0]
    name = f"{first.text.name}{MANY}"
    launch = Launch(name, total, rule.threads, int(substitute(rule.shared, env)))
    return KernelRun((launch,), rows, sizes, (*firsts, total))


def _text(work: Work) -> CudaText:
    if not isinstance(work.text, CudaText):
        raise TypeError("this step was not printed for a GPU")
    return work.text


def _launches(work: Work, env: Mapping[Any, Any]) -> tuple[Launch, ...]:
    text = _text(work)
    found = []
    for rule in text.rules:
        blocks, shared = int(substitute(rule.blocks, env)), int(substitute(rule.shared, env))
        if blocks:
            found.append(Launch(text.name + rule.entry, blocks, rule.threads, shared))
    return tuple(found)
