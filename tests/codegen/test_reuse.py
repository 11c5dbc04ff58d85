"""Equal groups are lowered once, and stay right with the nodes of each."""

import numpy as np

from benchmarks import gpu_data, gpu_works
from graphnn.compiler.codegen.cuda_program import build_device_program
from graphnn.compiler.codegen.reuse import Kernels, signature
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.passes.fuse import fuse
from graphnn.compiler.passes.pipeline import Pipeline, default_passes
from graphnn.inspection import cross_compile
from graphnn.runtime.device import DeviceFacts, KernelRun
from tests.cuda.running import SMALL, check
from tests.graphs import Builder


def softmaxes(rows: int = 2, scale: tuple[float, ...] = (2.0, 2.0, 2.0)) -> Graph:
    """One softmax after another, each with its columns summed and turned."""
    b = Builder()
    x = b.input(rows * 4, 6)
    outs: list[Node] = []
    for number in scale:
        y = b.ops.multiply(x, number)
        top = b.ops.exp(b.ops.subtract(y, b.ops.max(y, axes=(1,), keepdims=True)))
        share = b.ops.divide(top, b.ops.sum(top, axes=(1,), keepdims=True))
        outs.append(b.ops.sum(share, axes=(0,)))
        x = b.ops.flip(share, axes=(0,))
    return b.graph(x, *outs)


def lowered_groups(graph: Graph) -> int:
    """How many groups are lowered."""
    partition = fuse(graph)
    kernels, made = Kernels(partition), []

    def make(group):  # type: ignore[no-untyped-def]
        from graphnn.compiler.codegen.program import LOWERINGS

        made.append(group)
        return LOWERINGS[group.kind](partition, group, 3), None

    for group in partition.groups:
        kernels.lowered(group, make)
    return len(made)


def test_equal_groups_are_lowered_once() -> None:
    assert len(fuse(softmaxes()).groups) > lowered_groups(softmaxes(scale=(2.0, 2.0, 2.0, 2.0)))


def test_values_and_memory_of_each_stay_apart() -> None:
    rng = np.random.default_rng(0)
    for scale in ((2.0, 2.0, 2.0), (2.0, 3.0, 2.0)):
        graph = softmaxes(scale=scale)
        arrays = [rng.standard_normal(graph.inputs[0].shape).astype(np.float32)]
        check(build_device_program(graph, SMALL), arrays)


def test_constants_that_compare_equal_are_told_apart() -> None:
    b = Builder()
    x, y = b.input(4, 6), b.input(4, 6)
    # Two kernels, kept apart by reductions: the sign of zero is all that differs.
    first = b.ops.sum(b.ops.divide(x, 0.0), axes=(1,))
    second = b.ops.sum(b.ops.divide(y, -0.0), axes=(1,))
    partition = fuse(b.graph(first, second))
    keys = {signature(partition, group)[0] for group in partition.groups}
    assert len(keys) == len(partition.groups)


def test_one_input_read_twice_is_not_two_inputs() -> None:
    b = Builder()
    x, y = b.input(4, 6), b.input(4, 6)
    squared = b.ops.sum(b.ops.multiply(x, x), axes=(1,))
    product = b.ops.sum(b.ops.multiply(x, y), axes=(0,))
    again = b.ops.sum(b.ops.multiply(y, x), axes=(1,))
    partition = fuse(b.graph(squared, product, again), enabled=False)
    numbers = [signature(partition, g)[0] for g in partition.groups]
    assert numbers[0] != numbers[1]


def test_equal_code_has_one_name_whatever_the_order_of_its_ops() -> None:
    b = Builder()
    x, y, z = b.input(5, 7), b.input(5, 7), b.input(9, 11)
    total = b.ops.add(b.ops.exp(x), b.ops.sqrt(y))
    flipped = b.ops.flip(b.ops.flip(z, axes=(0,)), axes=(0,))
    first, second = b.ops.exp(total), b.ops.multiply(flipped, 2.0)
    made = build_device_program(b.graph(first, second), SMALL)
    names = [name for name, _ in made.program.modules]
    assert len({name.rpartition("_")[2] for name in names}) == len(names)


def test_the_update_of_all_variables_is_one_launch() -> None:
    work = gpu_works.mlp(gpu_data.TINY["mlp_b64"])
    graph = work.function.get_concrete_function(*work.arguments).graph
    made = cross_compile(Pipeline(default_passes("cuda")).run(graph), DeviceFacts())
    plan = made.device.plan(())
    updates = [k for k, s in enumerate(made.program.steps) if "sqrt" in s.title]
    assert len(updates) == 1
    (run,) = (plan.steps[k] for k in updates)
    assert isinstance(run, KernelRun) and len(run.launches) == 1
