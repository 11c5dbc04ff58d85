"""Eager ops on the emulated GPU: the op harness gives what it gives on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn import placement
from graphnn.apply import apply
from graphnn.runtime import devices
from graphnn.tensor import Tensor
from tests.ops import harness

# What runs as a compiled program is tried in a few dtypes here, in all of them by the slow test.
OFTEN = ("float32", "bfloat16", "int32")
# Modules of ops that eager code never meets: library calls with the types that the library has.
MADE_BY_PASSES = (".gemm", ".attention_call")


def _calls(everything: bool) -> list[harness.Call]:
    found = []
    for case in harness.cases():
        if case[0].__module__.endswith(MADE_BY_PASSES):
            continue
        for call in harness.calls_of(case):
            by_program = placement._is_for_programs(call.op, call.arrays)
            often = not call.arrays or (str(call.arrays[0].dtype) in OFTEN and not case[1])
            if everything or often or not by_program:
                found.append(call)
    return found


def _check(call: harness.Call) -> None:
    try:
        with np.errstate(all="ignore"):
            want = call.eager()
    except Exception:
        return  # eager code refuses it
    backend = devices.gpu(0)
    inputs = [Tensor(backend.upload(np.asarray(a))) for a in call.arrays]
    with graphnn.device("/GPU:0"):
        out = apply(call.op, *inputs)
    results = out if isinstance(out, tuple) else (out,)
    wanted = want if isinstance(want, tuple) else (want,)
    for result, expected in zip(results, wanted, strict=True):
        assert result.device == "/device:GPU:0", call.op
        harness.assert_close(result.numpy(), expected, call)


def test_ops_give_what_they_give_on_the_cpu(emulated_gpu: Any) -> None:
    for call in _calls(False):
        _check(call)


def test_products_are_those_of_compiled_functions(emulated_gpu: Any) -> None:
    rng = np.random.default_rng(0)
    with graphnn.device("/GPU:0"):
        a, b = (graphnn.constant(rng.normal(size=(8, 8)).astype("float32")) for _ in range(2))
        before = len(emulated_gpu.launches)
        eager = (a @ b).numpy()
        assert "cublasLt.matmul" in list(emulated_gpu.launches[before:])
        compiled = graphnn.function(lambda x, y: x @ y)(a, b).numpy()
    np.testing.assert_array_equal(eager, compiled)


@pytest.mark.slow
def test_all_ops_in_all_dtypes(emulated_gpu: Any) -> None:
    for call in _calls(True):
        _check(call)


def test_few_ops_need_a_program_of_their_own(emulated_gpu: Any) -> None:
    for call in _calls(False):
        if not any(a.dtype.name == "bfloat16" for a in call.arrays):
            _check(call)
    refused = {key[0].name for key in placement._only_compiled}
    assert refused <= {"full", "cast", "gemm", "eye", "attention"}, refused


def test_gradients_are_those_of_the_cpu(emulated_gpu: Any) -> None:
    values = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)

    def gradients(device: str) -> list[Any]:
        with graphnn.device(device):
            x = graphnn.constant(values)
            w = graphnn.Variable(values.T)
            with graphnn.GradientTape() as outer:
                outer.watch(x)
                with graphnn.GradientTape() as tape:
                    tape.watch(x)
                    y = graphnn.nn.softmax(graphnn.tanh(x @ w))
                    loss = graphnn.sum(y * y) + graphnn.mean(graphnn.exp(x)[1:])
                first = tape.gradient(loss, [x, w])
                again = graphnn.sum(first[0] * first[0])
            return [*first, outer.gradient(again, x)]

    for on_gpu, on_cpu in zip(gradients("/GPU:0"), gradients("/CPU:0"), strict=True):
        assert on_gpu.device == "/device:GPU:0"
        np.testing.assert_allclose(on_gpu.numpy(), on_cpu.numpy(), rtol=1e-5, atol=1e-6)


def test_random_numbers_are_those_of_the_cpu(emulated_gpu: Any) -> None:
    def numbers(device: str) -> list[Any]:
        graphnn.random.set_seed(5)
        generator = graphnn.random.Generator(7)
        with graphnn.device(device):
            found = [graphnn.random.uniform((5,)), graphnn.random.randint((6,), 0, 9)]
            found += [generator.normal((4,)), generator.truncated_normal((3,), dtype="bfloat16")]
            found += [graphnn.random.shuffle(graphnn.arange(9)), graphnn.random.bernoulli((8,))]
        assert all(t.device == f"/device:{device[1:]}" for t in found)
        return [t.numpy().astype(np.float64) for t in found]

    for on_gpu, on_cpu in zip(numbers("/GPU:0"), numbers("/CPU:0"), strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-6)


def test_a_state_that_moved_to_the_gpu_goes_on(emulated_gpu: Any) -> None:
    def draws(device: str) -> list[Any]:
        generator = graphnn.random.Generator(3)
        draw = graphnn.function(lambda: generator.uniform((2,)))
        with graphnn.device(device):
            found = [generator.uniform((2,)), draw(), draw(), generator.uniform((2,))]
        return [*(t.tolist() for t in found), generator.state.numpy().tolist()]

    assert draws("/GPU:0") == draws("/CPU:0")


def test_out_of_range_fails_at_the_line(emulated_gpu: Any) -> None:
    with graphnn.device("/GPU:0"):
        for dtype in ("float32", "bfloat16"):
            x = graphnn.cast(graphnn.constant([1.0, 2.0, 3.0]), dtype)
            with pytest.raises(IndexError, match=r"test_eager\.py"):
                graphnn.gather(x, graphnn.constant([0, 7]))


def test_user_errors_are_the_same(emulated_gpu: Any) -> None:
    texts = []
    for device in ("/CPU:0", "/GPU:0"):
        with graphnn.device(device), pytest.raises(graphnn.errors.ShapeError) as caught:
            graphnn.zeros((2, 3)) + graphnn.zeros((4, 5))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
