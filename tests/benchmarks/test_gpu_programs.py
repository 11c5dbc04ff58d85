"""What the workloads become on an H100, counted without one: nodes, epilogues, bytes, memory."""

import pytest

import graphnn as tf
from benchmarks import gpu_data, gpu_gpt2, gpu_works
from graphnn.compiler.dump import Dump
from graphnn.compiler.dump_device import DeviceView, epilogue_text
from graphnn.inspection import inspect_for
from graphnn.runtime.device import AttentionRun, KernelRun, ProductRun

GIB = 2**30


def view_of(dump: Dump) -> DeviceView:
    view = dump.view
    assert isinstance(view, DeviceView)
    return view


def gpt2(shapes: gpu_data.Shapes) -> DeviceView:
    """The program of GPT-2's train step."""
    step = gpu_gpt2.train_step(gpu_gpt2.build(shapes))
    spec = tf.TensorSpec([shapes["batch"], shapes["time"]], tf.int32)
    return view_of(inspect_for(step.get_concrete_function(spec, spec).graph, "cuda"))


def mlp(name: str, full: bool = False) -> DeviceView:
    work = gpu_works.mlp((gpu_data.FULL if full else gpu_data.TINY)[name])
    return view_of(inspect_for(work.function.get_concrete_function(*work.arguments).graph, "cuda"))


def nodes(view: DeviceView) -> int:
    return sum(c.nodes for c in view.costs) + len(view.program.copies)


def kernels(view: DeviceView) -> int:
    return sum(isinstance(run, KernelRun) for run in view.plan.steps)


def test_a_layer_of_gpt2() -> None:
    """Two kernels forward, two backward; all else are library calls."""
    one, two = (gpt2(gpu_data.TINY["gpt2_124m"] | {"layers": n}) for n in (1, 2))
    assert kernels(two) - kernels(one) == 4
    products = [r for r in two.plan.steps if isinstance(r, ProductRun)]
    assert sum(isinstance(r, AttentionRun) for r in two.plan.steps) == 2 * 2
    assert len(products) == 3 + 2 * 12
    taken = [epilogue_text(r) for r in products]
    assert taken.count("bias, gelu, keeps its input") == 2
    assert taken.count("slope of gelu, sums of c") == 2
    assert not any(run is None for run in two.plan.steps)


def test_no_wide_copies_of_logits() -> None:
    shapes = gpu_data.TINY["gpt2_124m"] | {"vocab": 1000, "batch": 3}
    view = gpt2(shapes)
    logits = shapes["batch"] * shapes["time"] * shapes["vocab"]
    wide = [s for k, s in enumerate(view.program.slots) if view.nbytes([k]) == 4 * logits]
    assert not wide, "float32 logits are stored"


@pytest.mark.parametrize("name", ["mlp_tiny", "mlp_b64"])
def test_nodes_of_small_networks(name: str) -> None:
    view = mlp(name, full=True)
    assert nodes(view) <= 11
    assert sum("sqrt" in s.title for s in view.program.steps) == 1, "the update is one launch"


def test_equal_layers_are_compiled_once() -> None:
    shapes = gpu_data.TINY["gpt2_124m"]
    three, four = (gpt2(shapes | {"layers": n}) for n in (3, 4))
    assert len(three.program.modules) == len(four.program.modules)


@pytest.mark.slow
def test_the_whole_gpt2() -> None:
    view = gpt2(gpu_data.FULL["gpt2_124m"])
    held = view.nbytes(set(view.program.inputs)) + view.layout.arena
    assert held < 8.5 * GIB
    assert nodes(view) <= 270
    assert sum(c.floor for c in view.costs) < 23e-3
