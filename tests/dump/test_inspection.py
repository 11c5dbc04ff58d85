"""`fn.dump()`, and what GRAPHNN_DUMP writes."""

from pathlib import Path

import pytest

import graphnn as tf
from graphnn.build import compile_graph
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.errors import ArgumentError, StateError
from tests.dump.example import trained_layer


@tf.function
def scaled(x: tf.Tensor) -> tf.Tensor:
    return tf.exp(x) * 2.0


@pytest.fixture
def called() -> None:
    scaled(tf.ones((4, 3)))


@pytest.mark.usefixtures("called")
def test_summary_is_the_default() -> None:
    assert scaled.dump() == scaled.dump("summary")
    assert scaled.dump().startswith('scaled(f32[4,3] "x") -> f32[4,3]')


@pytest.mark.usefixtures("called")
def test_every_stage_has_a_text() -> None:
    stages = scaled.dump().split("stages: ")[1].strip().split(", ")
    for stage in stages:
        assert scaled.dump(stage).endswith("\n")
    assert "test_inspection.py:18" in scaled.dump("trace")


@pytest.mark.usefixtures("called")
def test_against_and_kernel() -> None:
    assert scaled.dump("recompute", against="simplify").endswith("unchanged\n")
    assert "test_inspection.py:18" in scaled.dump(kernel="k0")
    assert "define void" in scaled.dump("llvm", kernel="k0")


@pytest.mark.usefixtures("called")
def test_unknown_format() -> None:
    with pytest.raises(ArgumentError, match="format 'pdf'"):
        scaled.dump(format="pdf")


def test_before_the_first_call() -> None:
    @tf.function
    def never(x: tf.Tensor) -> tf.Tensor:
        return x

    with pytest.raises(StateError, match="not been called"):
        never.dump()


def test_concrete_functions_dump_their_own_trace() -> None:
    @tf.function
    def same(x: tf.Tensor) -> tf.Tensor:
        return x + 1.0

    first = same.get_concrete_function(tf.TensorSpec([2], tf.float32))
    same.get_concrete_function(tf.TensorSpec([2, 2], tf.float32))
    assert "f32[2] " in first.dump("trace")
    assert "f32[2,2]" in same.dump("trace")


def test_symbolic_sizes_are_those_of_the_call() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def total(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.exp(x))

    total.get_concrete_function()
    assert "assumed" in total.dump()
    total(tf.ones((7,)))
    assert "with n=7" in total.dump("memory")


# ---- GRAPHNN_DUMP ---------------------------------------------------------------------------


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNN_DUMP", str(tmp_path / "out"))
    for _ in range(2):
        compile_graph(trained_layer(), target=Target(1, True))
    first, second = sorted((tmp_path / "out").iterdir())
    assert (first.name, second.name) == ("000-step", "001-step")
    names = [file.name for file in sorted(first.iterdir())]
    assert names == [
        "00-trace.txt",
        "01-decompose.txt",
        "02-simplify.txt",
        "03-gradient.txt",
        "04-decompose.txt",
        "05-simplify.txt",
        "06-recompute.txt",
        "07-fuse.txt",
        "08-memory.txt",
        "09-loops.txt",
        "10-program.txt",
        "11-llvm.txt",
        "12-optimized.txt",
        "13-asm.txt",
        "summary.txt",
    ]
    assert "example.py" in (first / "07-fuse.txt").read_text(encoding="utf-8")


class Failing:
    name = "failing"

    def run(self, graph: Graph) -> Graph:
        raise RuntimeError("no")


def test_a_pass_that_fails_leaves_the_stages_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHNN_DUMP", str(tmp_path))
    pipeline = Pipeline((*Pipeline().passes[:2], Failing()))
    with pytest.raises(RuntimeError):
        compile_graph(trained_layer(), pipeline)
    (folder,) = tmp_path.iterdir()
    assert [f.name for f in sorted(folder.iterdir())][-1] == "02-simplify.txt"


def test_a_callback_of_the_caller_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNN_DUMP", str(tmp_path))
    seen: list[str] = []
    pipeline = Pipeline(callback=lambda name, before, after: seen.append(name))
    compile_graph(trained_layer(), pipeline)
    assert seen == [step.name for step in pipeline.passes]


def test_odd_names_make_plain_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNN_DUMP", str(tmp_path))
    graph = trained_layer()
    compile_graph(Graph("<lambda> a/b", graph.inputs, graph.outputs))
    assert [f.name for f in tmp_path.iterdir()] == ["000-_lambda_a_b"]


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("GRAPHNN_DUMP", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="nothing is written"):
        compile_graph(trained_layer())


def test_nothing_is_written_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHNN_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    compile_graph(trained_layer())
    assert list(tmp_path.iterdir()) == []
