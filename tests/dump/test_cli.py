"""`graphnn dump` and `graphnn doctor`, run in this process on a small file of a user."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphnn.cli import main
from tests import house

USER_FILE = """
import graphnn as tf

w = tf.Variable([[1.0], [2.0]], name="w")


@tf.function
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(x @ w))
    w.assign_sub(0.1 * tape.gradient(loss, w))
    return loss


@tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
def known(x):
    return tf.exp(x) + 1.0


@tf.function
def called(x):
    return x * 2.0


called(tf.constant([1.0, 2.0]))
called(tf.constant([[1.0, 2.0]]))


class Model:
    @tf.function
    def run(self, x):
        return x + w


model = Model()
number = 3


def train():
    @tf.function
    def inner_step(x):
        return tf.exp(x)

    inner_step(tf.ones((5,)))
    return inner_step

if __name__ == "__main__":
    raise SystemExit("the main part must not run")
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """`run(target, *options)` in the folder of the user's file: (status, output, errors)."""
    (tmp_path / "user.py").write_text(USER_FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    yield call
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_input_signature_is_enough(run: Run) -> None:
    status, out, err = run("dump", "user.py:known")
    assert (status, err) == (0, "")
    assert out.startswith('known(f32[n,3] "x") -> f32[n,3]')
    assert "user.py:17" in out and "stages: summary, trace" in out


def test_traces_made_by_the_import_are_enough(run: Run) -> None:
    latest = run("dump", "user.py:called", "--stage", "trace")[1]
    assert "f32[1,2]" in latest
    assert "f32[2]" in run("dump", "user.py:called", "--stage", "trace", "--trace", "1")[1]


def test_trace_that_does_not_exist(run: Run) -> None:
    status, _, err = run("dump", "user.py:called", "--trace", "3")
    assert status == 2 and "called has the traces 1 to 2" in err


def test_explain(run: Run) -> None:
    assert "2 traces" in run("dump", "user.py:called", "--explain")[1]


def test_example_call(run: Run) -> None:
    status, out, _ = run("dump", "user.py:step", "--call", "step(tf.ones((4, 2)))")
    assert status == 0
    assert "1 Variable assigned, 1 in place" in out


def test_function_inside_a_function(run: Run) -> None:
    status, out, _ = run("dump", "user.py:inner_step", "--call", "train()")
    assert status == 0 and out.startswith('inner_step(f32[5] "x")')
    status, _, err = run("dump", "user.py:outer_step", "--call", "train()")
    assert status == 2 and "user.py has no outer_step" in err


def test_method(run: Run) -> None:
    status, out, _ = run("dump", "user.py:model.run", "--call", "model.run(tf.ones((2, 1)))")
    assert status == 0 and out.startswith("run(")


def test_without_arguments_says_how_to_give_them(run: Run) -> None:
    status, out, err = run("dump", "user.py:step")
    assert (status, out) == (2, "")
    assert '--call "step(x=tf.zeros(...))"' in err
    err = run("dump", "user.py:model.run")[2]
    assert '--call "model.run(x=tf.zeros(...))"' in err


def test_several_stages_and_a_diff(run: Run) -> None:
    out = run("dump", "user.py:known", "--stage", "fuse", "--stage", "program")[1]
    assert out.startswith("fusion of known") and "\nprogram known: " in out
    assert run("dump", "user.py:known", "--diff", "simplify.1", "recompute")[1] == (
        "simplify.1 -> recompute: unchanged\n"
    )


def test_kernels_in_each_form(run: Run) -> None:
    target = ("dump", "user.py:known", "--kernel", "k0")
    assert "# k0: add" in run(*target)[1] or "# k0: exp" in run(*target)[1]
    assert "define void @" in run(*target, "--llvm")[1]
    both = run(*target, "--optimized", "--asm")[1]
    assert "source_filename" in both and ".text" in both.replace("__text", ".text")
    assert "define void @" in run("dump", "user.py:known", "--llvm")[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("user.py:known", "--stage", "fuze"), "did you mean 'fuse'"),
        (("user.py:known", "--kernel", "k7"), "kernel 'k7'"),
        (("user.py:nothing",), "user.py has no nothing"),
        (("user.py:number",), "number is a int, not a @function"),
        (("user.py",), "@functions of user.py: step, known, called"),
        (("absent.py:f",), "there is no file absent.py"),
        ((), "give FILE.py:FUNCTION"),
        (("user.py:step", "--call", "step("), "is no Python expression"),
        (("user.py:step", "--call", "1 + 1"), "did not call step"),
    ],
)
def test_wrong_command_lines(run: Run, arguments: tuple[str, ...], text: str) -> None:
    status, out, err = run("dump", *arguments)
    assert (status, out) == (2, "")
    assert text in err
    assert "Traceback" not in err


def test_call_that_raises_shows_the_users_frames_only(run: Run) -> None:
    status, _, err = run("dump", "user.py:step", "--call", "step(tf.ones((4, 7)))")
    assert status == 1
    assert "user.py" in err and "ShapeError in matmul" in err
    assert "cli.py" not in err and "traces.py" not in err


def test_import_that_raises(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = 1 / 0\n", encoding="utf-8")
    status, _, err = run("dump", "broken.py:f")
    assert status == 1
    assert "importing broken.py raised ZeroDivisionError" in err and "x = 1 / 0" in err


def test_file_with_the_name_of_another_module(run: Run, tmp_path: Path) -> None:
    source = (tmp_path / "user.py").read_text(encoding="utf-8")
    (tmp_path / "json.py").write_text(source, encoding="utf-8")
    assert run("dump", "json.py:known")[0] == 0
    assert sys.modules["json"].__file__ != str(tmp_path / "json.py")


def test_ops(run: Run) -> None:
    out = run("dump", "--ops")[1]
    assert out.startswith("op ") and "\nmatmul " in out


def test_doctor(run: Run) -> None:
    assert run("doctor")[1].startswith("graphnn ")


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "graphnn", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=house.ROOT)
    assert "dump" in done.stdout and "doctor" in done.stdout
