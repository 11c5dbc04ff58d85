"""The text of each stage, golden for a small train step."""

import re

import pytest

from graphnn.build import Compiled, compile_graph
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.dump import Dump, Machine, difference, ops_text, plain
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.text import read_graph
from graphnn.compiler.ir.types import TensorType, TupleType, float32
from graphnn.compiler.ops.base import REGISTRY
from graphnn.compiler.ops.core import HostCall, Input, Item
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.inspection import inspect_program
from graphnn.runtime.errors import ArgumentError
from tests.conftest import Golden
from tests.dump.example import summed_rows, trained_layer

GOLDEN = ("summary", "trace", "gradient", "recompute", "fuse", "memory", "loops", "program")


def compiled(graph: Graph, threads: int = 1, blas: bool = True, fuse: bool = True) -> Compiled:
    return compile_graph(graph, target=Target(threads, blas, fuse))


def dumped(graph: Graph, **target: bool) -> Dump:
    return inspect_program(compiled(graph, **target))


def steady(text: str) -> str:
    """Kernel names without their hash, which changes with every change of the code generator."""
    return re.sub(r"_[0-9a-f]{12}\b", "_HASH", text)


@pytest.fixture(scope="module")
def step() -> Dump:
    return dumped(trained_layer())


@pytest.mark.parametrize("stage", GOLDEN)
def test_stage(stage: str, step: Dump, golden: Golden) -> None:
    golden(f"golden/{stage}.txt", steady(step.text(stage)))


def test_diff(step: Dump, golden: Golden) -> None:
    golden("golden/diff.txt", step.diff("simplify.1", "gradient"))


def test_graph_stages_read_back(step: Dump) -> None:
    for stage in step.by_stage:
        assert read_graph(step.text(stage)).name == "step"


def test_every_node_of_a_stage_has_a_line(step: Dump) -> None:
    for stage in step.by_stage:
        body = [line for line in step.text(stage).splitlines() if " = " in line]
        assert all("# example.py:" in line for line in body)


def test_fuse_gives_both_lines_of_a_refusal(golden: Golden) -> None:
    text = dumped(summed_rows()).text("fuse")
    golden("golden/refused.txt", steady(text))
    assert "# example.py:38" in text.split("merges refused: ")[1]


def test_nothing_is_fused_when_asked(step: Dump) -> None:
    apart = dumped(trained_layer(), fuse=False)
    assert len(apart.view.works) > len(step.view.works)


def test_symbolic_sizes_are_named_and_take_the_numbers_of_the_latest_call() -> None:
    program = compiled(trained_layer("n"))
    text = inspect_program(program).text("memory")
    assert "f32[n,4]" in text
    assert "with n=64 (assumed: no call yet)" in text
    found = inspect_program(program)
    called = Dump(found.graphs, found.built, {"n": 5}).text("memory")
    assert "with n=5" in called and "assumed" not in called


def test_products_are_loops_without_a_library() -> None:
    text = dumped(trained_layer(), blas=False).text("program")
    assert "5 kernels in 6 runs, 0 library calls, 0 host calls" in text


def test_host_calls_say_why() -> None:
    x = Node(Input(label="x"), (), TensorType((3,), float32))
    twice = HostCall(function=lambda a: (2 * a,), types=(x.tensor,))
    call = Node(twice, (x,), TupleType((x.tensor,)))
    graph = Graph("outside", (x,), (Node(Item(index=0), (call,), x.type),))
    found = dumped(graph)
    assert "1 host call" in found.text("summary")
    assert "host call: host_call runs a Python function" in found.text("program")
    assert "k0 host: 2 nodes  host call: host_call runs" in found.text("fuse")


def test_kernels_by_number_and_name(step: Dump) -> None:
    by_number = step.kernel("k1")
    assert by_number == step.kernel("relu")
    assert "# example.py:20  h = ops.relu" in by_number
    assert by_number != step.kernel("k0")


def test_kernel_forms(step: Dump) -> None:
    assert "define void @" in step.kernel("k1", "llvm")
    assert "vector" in step.kernel("k1", "optimized") or "define" in step.kernel("k1", "optimized")
    name = step.view.works[1].text.name  # type: ignore[union-attr]
    assert f"{name}:" in step.kernel("k1", "asm")


@pytest.mark.parametrize("name", ["k99", "nothing", "m"])
def test_unknown_or_ambiguous_kernel(step: Dump, name: str) -> None:
    with pytest.raises(ArgumentError, match="k0"):
        step.kernel(name)


def test_unknown_form(step: Dump) -> None:
    with pytest.raises(ArgumentError, match="one of loops, llvm"):
        step.kernel("k0", "ptx")


def test_unknown_stage_names_the_nearest(step: Dump) -> None:
    with pytest.raises(ArgumentError, match="did you mean 'fuse'"):
        step.text("fues")


def test_bare_name_of_a_pass_is_its_last_run(step: Dump) -> None:
    assert step.resolve("simplify") == "simplify.2"
    assert step.text("simplify") == step.text("simplify.2")


def test_all_has_every_stage_but_machine_code(step: Dump) -> None:
    text = step.text("all")
    shown = re.findall(r"^==== (\S+) ====$", text, re.MULTILINE)
    assert shown == [s for s in step.stages if s not in ("llvm", "optimized", "asm")]


def test_without_a_program_only_graphs() -> None:
    found = Dump(Pipeline().stages(trained_layer()))
    assert found.stages[0] == "trace" and "fuse" not in found.stages
    with pytest.raises(ArgumentError, match="compile it"):
        _ = found.view


def test_machine_is_what_the_caller_gives(step: Dump) -> None:
    machine = Machine(lambda text: "optimized\n", lambda text: "assembled\n")
    found = Dump(step.graphs, step.built, {}, machine)
    assert found.kernel("k0", "asm").endswith("assembled\n")
    assert "optimized" not in Dump(step.graphs, step.built).stages


def test_difference_ignores_numbers() -> None:
    one = "  %3: f32[2] = exp(%1)   # a.py:1\n  %4: f32[2] = log(%3)\n"
    other = "  %7: f32[2] = exp(%1)     # a.py:1\n  %9: f32[2] = log(%7)\n"
    assert difference("a", one, "b", other) == "a -> b: unchanged\n"
    assert "1 line removed, 0 lines added" in difference("a", one, "b", one.splitlines()[0])


def test_plain_names_inputs_by_label() -> None:
    lines = plain('graph f(%0: f32[2] "x", %1: f32[2] variable "w") {\n  %2: f32[2] = add(%0, %1)')
    assert lines[0].startswith('graph f(%x: f32[2] "x"')
    assert lines[-1] == "%add: f32[2] = add(%x, %w)"


def test_op_table_has_every_op() -> None:
    lines = ops_text().splitlines()
    assert {line.split()[0] for line in lines[1:-2]} == set(REGISTRY)
    relu = next(line for line in lines if line.startswith("relu "))
    assert "scalar" in relu and "own rule" in relu
