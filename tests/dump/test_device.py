"""Dumps of programs for a GPU, made without one; golden for a small train step."""

import re
from pathlib import Path

import pytest

import graphnn as tf
from graphnn.cli import main
from graphnn.compiler.dump import Dump
from graphnn.compiler.dump_device import TARGETS, DeviceView, rates_of, target_facts
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.types import TensorType, TupleType, float32
from graphnn.compiler.ops.core import HostCall, Input, Item
from graphnn.compiler.ops.functions import Exp
from graphnn.compiler.ops.linalg import MatMul
from graphnn.inspection import inspect_for, inspect_program
from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import ArgumentError
from tests.conftest import Golden
from tests.dump.example import trained_layer
from tests.dump.test_stages import steady
from tests.graphs import Builder

GOLDEN = ("summary", "program", "memory")


@pytest.fixture(scope="module")
def step() -> Dump:
    return inspect_for(trained_layer(64), "cuda")


def view_of(dump: Dump) -> DeviceView:
    view = dump.view
    assert isinstance(view, DeviceView)
    return view


@pytest.mark.parametrize("stage", GOLDEN)
def test_stage(stage: str, step: Dump, golden: Golden) -> None:
    golden(f"golden/device_{stage}.txt", steady(step.text(stage)))


def test_summary_with_measured_times(step: Dump, golden: Golden) -> None:
    times = {k: 2 * c.floor + 1e-6 for k, c in enumerate(view_of(step).costs)}
    found = Dump(step.graphs, step.built, {}, None, step.facts, times)
    golden("golden/device_times.txt", steady(found.text() + found.text("program")))


def test_every_stage_has_a_text(step: Dump) -> None:
    assert step.stages[-1] == "cuda"
    for stage in step.stages:
        assert step.text(stage).endswith("\n")
    assert "==== cuda ====" not in step.text("all")


def test_kernels_as_cuda(step: Dump) -> None:
    text = step.kernel("divide", "cuda")
    assert "__global__" in text and "// example.py:" in text
    with pytest.raises(ArgumentError, match="one of loops, cuda"):
        step.kernel("divide", "llvm")


def test_numbers_add_up(step: Dump) -> None:
    view = view_of(step)
    head = step.text()
    assert f"of {sum(c.nodes for c in view.costs)} nodes" in head
    launched = re.search(r"(\d+) kernels? in (\d+) launches, (\d+) library call", head)
    assert launched is not None
    assert int(launched[2]) + int(launched[3]) == sum(c.nodes for c in view.costs)


def test_symbolic_sizes() -> None:
    found = inspect_for(trained_layer("n"), "cuda")
    assert "with n=64 (assumed: no call yet)" in found.text()
    assert "with n=5" in inspect_for(trained_layer("n"), "cuda", {"n": 5}).text()


def test_steps_on_the_host_say_why_there_is_more_than_one_graph() -> None:
    x = Node(Input(label="x"), (), TensorType((512, 512), float32))

    def squared(node: Node) -> Node:
        return Node(MatMul(), (Node(Exp(), (node,), x.type), node), x.type)

    twice = HostCall(function=lambda a: (2 * a,), types=(x.tensor,))
    call = Node(twice, (squared(squared(x)),), TupleType((x.tensor,)))
    item = Node(Item(index=0), (call,), x.type)
    text = inspect_for(Graph("outside", (x,), (squared(item),)), "cuda").text()
    assert "program  2 CUDA graphs of 6 nodes: " in text and "1 host step" in text
    assert "not captured: host: host_call, " in text
    assert text.count("copied: ") == 2
    assert "from /device:GPU:0 to /device:CPU:0, 1.05 MB: " in text


def test_only_the_rows_that_are_taken_count() -> None:
    b = Builder()
    table, rows = b.input(1000, 64), b.input(10, dtype="int32")
    graph = b.graph(b.ops.exp(b.ops.take(table, rows, axis=0)))
    (cost,) = view_of(inspect_for(graph, "cuda")).costs
    assert cost.nbytes == 2 * 10 * 64 * 4 + 10 * 4


def test_a_product_is_bound_by_arithmetic_or_by_bytes() -> None:
    rates = rates_of(DeviceFacts())
    for size, bound in ((4096, "flops"), (16, "bytes")):
        b = Builder()
        x, y = (b.input(size, size, dtype="bfloat16") for _ in range(2))
        (cost,) = view_of(inspect_for(b.graph(b.ops.matmul(x, y)), "cuda")).costs
        assert cost.flops == 2 * size**3
        assert (cost.floor == cost.flops / rates.half) == (bound == "flops")


def test_the_peak_of_memory_is_no_more_than_the_arena(step: Dump) -> None:
    text = step.text("memory")
    assert "alive in the arena: " in text and "largest values alive in step" in text


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str) -> None:
    facts = target_facts(f"cuda:{name}")
    assert facts.architecture == name
    assert f"for {name}\n" in inspect_for(trained_layer(), f"cuda:{name}").text("program")


@pytest.mark.parametrize("device", ["gpu", "cuda:sm_1", "cpu", ""])
def test_unknown_target(device: str) -> None:
    with pytest.raises(ArgumentError, match="cuda:sm_90"):
        target_facts(device)


def test_rates_of_an_unknown_card_are_those_of_an_older_one() -> None:
    assert rates_of(DeviceFacts(capability=(9, 9))) == rates_of(DeviceFacts())


# ---- for users ------------------------------------------------------------------------------


def test_dump_of_a_function_for_a_gpu() -> None:
    @tf.function
    def scaled(x: tf.Tensor) -> tf.Tensor:
        return tf.exp(x) * 2.0

    scaled(tf.ones((4, 3)))
    assert "one launch: 1 kernel in 1 launch" in scaled.dump(device="cuda")
    assert "__global__" in scaled.dump("cuda", device="cuda:sm_80")
    assert "one native call" in scaled.dump()


def test_a_trace_that_has_not_run_is_not_compiled_for_the_cpu() -> None:
    @tf.function
    def scaled(x: tf.Tensor) -> tf.Tensor:
        return tf.exp(x) * 2.0

    concrete = scaled.get_concrete_function(tf.TensorSpec([4, 3], tf.float32))
    assert "one launch" in concrete.dump(device="cuda")
    assert concrete._executable is None


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.py"
    file.write_text(
        "import graphnn as tf\n"
        "@tf.function(input_signature=[tf.TensorSpec([8], tf.float32)])\n"
        "def step(x):\n"
        "    return tf.exp(x) * 2.0\n",
        encoding="utf-8",
    )
    assert main(["dump", f"{file}:step", "--device", "cuda"]) == 0
    assert "one launch" in capsys.readouterr().out
    assert main(["dump", f"{file}:step", "--device", "cuda:sm_80", "--cuda"]) == 0
    assert "__global__" in capsys.readouterr().out
    assert main(["dump", f"{file}:step", "--device", "tpu"]) == 2
    assert '"cuda"' in capsys.readouterr().err


def test_what_runs_on_the_emulated_gpu(emulated_gpu: object) -> None:
    with tf.device("/GPU:0"):

        @tf.function
        def shares(x: tf.Tensor) -> tf.Tensor:
            return tf.nn.softmax(x @ x)

        x = tf.ones((8, 8))
        for _ in range(3):
            shares(x)
        concrete = shares.get_concrete_function(x)
    program = concrete.compiled
    found = program.times([x._value])
    text = inspect_program(program, found).text()
    assert "one CUDA graph of 2 nodes" in shares.dump()
    assert "measured " in text and "share" in text
