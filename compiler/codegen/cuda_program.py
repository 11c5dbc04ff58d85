"""A graph to a program for a GPU: groups lowered and printed as CUDA C, launches counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from graphnn.compiler.codegen.cuda import PRELUDE, CudaText, Options, print_cuda
from graphnn.compiler.codegen.library import library_call, lower_gemm
from graphnn.compiler.codegen.loops import Kernel, Product
from graphnn.compiler.codegen.lower import Lowered
from graphnn.compiler.codegen.program import LOWERINGS, Assembly, Target, Work, order_steps
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import substitute
from graphnn.compiler.ir.types import TensorType, bfloat16, float16, float32
from graphnn.compiler.passes.fuse import Group, Partition, fuse
from graphnn.runtime.device import (
    WIDE_ELEMENTS,
    DeviceFacts,
    DevicePlan,
    DeviceProgram,
    KernelRun,
    Launch,
    ProductRun,
    StepRun,
)

BLOCKS_A_PROCESSOR = 2  # of kernels with results over all rows
RESERVED_SHARED = 1 << 10  # bytes that the driver and small arrays take
GEMM = "gemm"
MANY = "_many"  # ending of the entry that runs several segments


@dataclass
class DeviceBuilt:
    """A program for a GPU with the stages that led to it, for the dump tool."""

    device: DeviceProgram
    partition: Partition
    steps: list[list[Work]] = field(default_factory=list)


def options_for(facts: DeviceFacts) -> Options:
    """What schedules may use on a device."""
    return Options(
        parts=BLOCKS_A_PROCESSOR * facts.multiprocessors,
        shared=facts.shared_bytes - RESERVED_SHARED,
    )


def build_device_program(
    graph: Graph, options: Options | None = None, enabled: bool = True
) -> DeviceBuilt:
    """Fuse, lower, order, plan and print a graph of primitive ops for a GPU.

    enabled: whether nodes are fused. Raises TypeError for a loop form that has no schedule.
    """
    options = options or Options()
    partition = fuse(graph, enabled)
    works = [_work(partition, g, options) for g in partition.groups]
    target = Target(threads=options.parts)
    assembly = Assembly(graph, partition, order_steps(graph, partition, works), target)
    program = assembly.built().program
    program = replace(program, modules=tuple(_modules(program.modules, assembly.steps)))
    plan = _Plans(assembly, program.symbols)
    return DeviceBuilt(DeviceProgram(program, PRELUDE, plan), partition, assembly.steps)


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


def _work(partition: Partition, group: Group, options: Options) -> Work:
    lowered, text = _lower(partition, group, options)
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
        return _lower_library(partition, group)
    lowered = LOWERINGS[group.kind](partition, group, options.parts)
    return print_cuda(lowered, group.kind, options)


def _lower_library(partition: Partition, group: Group) -> tuple[Lowered | None, CudaText | None]:
    (node,) = group.nodes
    call = library_call(_in_float32(node), "cuda")
    if call is None:
        return None, None
    return lower_gemm(partition, group, call), CudaText(GEMM, "", ())


def _in_float32(node: Node) -> Node:
    """The GPU's library multiplies 16-bit floats as it does float32: asked for as such."""
    short = (float16, bfloat16)
    inputs = tuple(
        replace(i, type=i.tensor.with_dtype(float32)) if i.dtype in short else i
        for i in node.inputs
    )
    return replace(node, inputs=inputs) if inputs != node.inputs else node


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
    if isinstance(kernel.body[0], Product):
        return _product_run(kernel, kernel.body[0], env)
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


def _product_run(kernel: Kernel, p: Product, env: Mapping[Any, Any]) -> ProductRun:
    m, n, k = (int(substitute(v, env)) for v in (p.m, p.n, p.k))
    count = 1 if p.split else int(substitute(kernel.rows, env))
    offsets = []
    for t in range(count):
        own = {**env, kernel.row: t} if kernel.row is not None else dict(env)
        a, b, c = (int(substitute(v, own)) for v in p.at)
        offsets.append((a, b, c))
    steps = {tuple(y - x for x, y in zip(a, b, strict=True)) for a, b in pairwise(offsets)}
    stride = steps.pop() if len(steps) == 1 else None
    return ProductRun(m, n, k, p.transpose, tuple(offsets), stride)  # type: ignore[arg-type]
