"""Attention through cuDNN, on a stand-in that computes it in NumPy; the graphs also with the real
frontend where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphnn
from graphnn.compiler.codegen.cuda_program import build_device_program
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.types import TensorType, as_dtype
from graphnn.compiler.ops.attention import Attention
from graphnn.compiler.passes.pipeline import Pipeline, default_passes
from graphnn.runtime.cuda.cudnn import Cudnn, graph_of, is_available
from graphnn.runtime.device import AttentionRun, DeviceFacts, StridedTensor
from graphnn.runtime.settings import settings
from tests.codegen.traced import Tracer, trace
from tests.cuda import library_calls, stand_in
from tests.cuda.running import SMALL, assert_close, check

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())
BF16 = ml_dtypes.bfloat16
B, T, H, D = 2, 6, 3, 8


@pytest.fixture
def machine() -> Iterator[Any]:
    with stand_in.emulated() as gpu:
        yield gpu


# ---- runs -------------------------------------------------------------------------------------


def runs(kind: str = "bfloat16", heads: int = H) -> tuple[AttentionRun, AttentionRun]:
    """Forward and backward from one packed tensor, whose gradient is packed too."""
    row = H * D
    packed, dense = (3 * T * row, D, 3 * row, 1), (T * row, D, row, 1)

    def tensor(name: str, strides: Any, offset: int = 0) -> StridedTensor:
        return StridedTensor(name, kind, (B, H, T, D), strides, offset)

    inputs = [tensor(n, packed, k * row) for k, n in enumerate("qkv")]
    stats = StridedTensor("stats", "float32", (B, H, T, 1), (H * T, T, 1, 1))
    out = tensor("out", dense)
    results = [tensor(n, packed, k * row) for k, n in enumerate(("dq", "dk", "dv"))]
    forward = AttentionRun((*inputs, out, stats), 0.3, True, False, (0, 0, 0, 1, 2))
    own = (*inputs, out, stats, tensor("g", dense), *results)
    return forward, AttentionRun(own, 0.3, True, True, (0, 0, 0, 1, 2, 3, 4, 4, 4))


def test_packed_tensors_are_read_and_written_where_they_lie(machine: Any) -> None:
    import cupy

    rng = np.random.default_rng(0)
    shapes = ((B, T, 3 * H * D), (B, T, H * D), (B, H, T, 1), (B, T, H * D), (B, T, 3 * H * D))
    kinds = (BF16, BF16, np.float32, BF16, BF16)
    host = [rng.normal(size=s).astype(d) for s, d in zip(shapes, kinds, strict=True)]
    device = [cupy.asarray(a) for a in host]
    own = Cudnn(DeviceFacts())
    for run in runs():
        own.run(run, [device[k].data.ptr for k in run.operands], 0)
        library_calls.run_library(run, [host[k].ctypes.data for k in run.operands])
    for ours, want in zip(device, host, strict=True):
        assert_close(ours.get(), want, 1e-3)


def test_a_plan_is_built_once_and_workspaces_belong_to_streams(machine: Any) -> None:
    import cupy

    forward, _ = runs()
    shapes = ((B, T, 3 * H * D), (B, T, H * D), (B, H, T, 1))
    arrays = [cupy.zeros(s, k) for s, k in zip(shapes, (BF16, BF16, np.float32), strict=True)]
    own = Cudnn(DeviceFacts())
    for owner in (0, 0, 7):
        own.run(forward, [arrays[k].data.ptr for k in forward.operands], 0, owner)
    assert len(own._plans) == 1
    first, second, other = own._workspace(1, 0), own._workspace(1 << 22, 0), own._workspace(1, 7)
    assert len({first, second, other}) == 3
    assert len(own._memory[0]) == 2  # captured graphs still hold the smaller one


def test_the_stand_in_is_strict(machine: Any) -> None:
    cudnn = importlib.import_module("cudnn")
    forward, _ = runs("float32")
    with pytest.raises(cudnn.cudnnGraphNotSupportedError, match="FLOAT"):
        graph_of(cudnn, forward).validate()
    graph = graph_of(cudnn, runs()[0])
    with pytest.raises(RuntimeError, match="validate is due"):
        graph.build_plans()


def test_a_problem_without_a_plan_is_named(machine: Any) -> None:
    run, _ = runs("float32")
    with pytest.raises(RuntimeError, match=r"no plan for .*settings\.cudnn = False"):
        Cudnn(DeviceFacts()).run(run, [16] * len(run.tensors), 0)


def test_the_library_can_be_switched_off(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "cudnn", False)
    attend = graphnn.function(graphnn.nn.dot_product_attention)
    with graphnn.device("/GPU:0"):
        q = graphnn.constant(np.ones((1, T, H, D)), "bfloat16")
        assert attend(q, q, q).numpy().astype("f4").max() == 1
    assert "cudnn.attention" not in machine.launches


# ---- which attention --------------------------------------------------------------------------


def types(dtype: str, depth: Any = D, queries: Any = T, keys: Any = T) -> list[TensorType]:
    kind = as_dtype(dtype)
    q, k = (TensorType((B, n, H, depth), kind) for n in (queries, keys))
    return [q, k, k]


def test_the_op_says_what_the_library_does() -> None:
    plain, causal = Attention(scale=1.0), Attention(scale=1.0, causal=True)
    assert plain.library("cudnn", *types("bfloat16")) and plain.library("cudnn", *types("float16"))
    assert plain.library("cudnn", *types("float16", keys=9))
    for refused in (
        plain.library("cpu", *types("bfloat16")),
        plain.library("cudnn", *types("float32")),
        plain.library("cudnn", *types("float16", depth=12)),
        plain.library("cudnn", *types("float16", depth=256)),
        plain.library("cudnn", *types("float16", queries=0, keys=0)),
        causal.library("cudnn", *types("float16", keys=9)),
        Attention(scale=1.0, bias=True).library("cudnn", *types("float16")),
    ):
        assert not refused


def transformer(t: Tracer, x: Any, w: Any, b: Any, p: Any) -> Any:
    """Attention of a block with a packed product, a residual, a loss and all gradients."""
    ops = t.ops
    packed = ops.reshape(ops.add(ops.matmul(x, w), b), shape=(B, T, 3, H, D))
    parts = [
        ops.reshape(
            ops.slice(packed, starts=(0, 0, k, 0, 0), steps=(1,) * 5, shape=(B, T, 1, H, D)),
            shape=(B, T, H, D),
        )
        for k in range(3)
    ]
    mixed = ops.reshape(ops.attention(*parts, scale=0.3, causal=True), shape=(B, T, H * D))
    out = ops.add(x, ops.matmul(mixed, p))
    loss = ops.mean(ops.square(out), axes=(0, 1, 2))
    return (loss, out, *t.gradient(loss, x, w, b, p))


@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32])
def test_a_block_reads_its_packed_product_without_copies(dtype: Any) -> None:
    shapes = ((B, T, H * D), (H * D, 3 * H * D), (3 * H * D,), (H * D, H * D))
    rng = np.random.default_rng(0)
    arrays = [(0.5 * rng.normal(size=s)).astype(dtype) for s in shapes]
    traced, _ = trace(transformer, *shapes, dtype=dtype)
    made = build_device_program(Pipeline(default_passes("cuda")).run(traced), SMALL)
    names = [s[0].group.nodes[0].op.name for s in made.steps]
    if dtype != np.float32:
        assert names.count("attention_call") == names.count("attention_gradient_call") == 1
        assert not {"slice", "pad", "concat", "permute_dims"} & set(names)
        words = [getattr(s[0].group.nodes[0].op, "words", "") for s in made.steps]
        assert any("sums of b" in w for w in words)
    check(made, arrays, 1e-4)
    with np.errstate(all="ignore"):
        got, _ = interpret(made.partition.graph, arrays)
        want, _ = interpret(Pipeline().run(traced), arrays)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, 1e-4)


def test_a_gradient_without_its_forward_pass_computes_the_statistics() -> None:
    def function(t: Tracer, q: Any, out: Any, g: Any) -> Any:
        return t.ops.attention_gradient(q, q, q, out, g, scale=0.3)

    shapes = ((B, T, H, D),) * 3
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(BF16) for s in shapes]
    traced, _ = trace(function, *shapes, dtype=BF16)
    made = build_device_program(Pipeline(default_passes("cuda")).run(traced), SMALL)
    check(made, arrays)


# ---- the whole way ----------------------------------------------------------------------------


def test_training_on_the_emulated_gpu_equals_the_cpu(machine: Any) -> None:
    @graphnn.function
    def step(x: Any, w: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(w)
            qkv = graphnn.reshape(x @ w, (B, T, 3, H, D))
            parts = (qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
            out = graphnn.nn.dot_product_attention(*parts, is_causal=True)
            loss = graphnn.reduce_mean(graphnn.square(out))
        return loss, tape.gradient(loss, w)

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) * 0.5 for s in ((B, T, H * D), (H * D, 3 * H * D))]
    want = step(*[graphnn.constant(a, "float32") for a in arrays])
    with graphnn.device("/GPU:0"):
        given = [graphnn.constant(a, "bfloat16") for a in arrays]
        for _ in range(3):  # the last runs replay a captured graph
            got = step(*given)
    assert machine.launches.count("cudnn.attention") > 0
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.numpy().astype("f4"), b.numpy(), rtol=0.1, atol=0.02)


REAL = """
import cudnn
from graphnn.runtime.cuda.cudnn import graph_of
from tests.cuda.test_cudnn import runs
for run in runs():
    graph_of(cudnn, run, sm_version=90, sm_count=132).validate()
"""


def is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(
    not (is_installed("cudnn") and is_installed("nvidia.cudnn")),
    reason="nvidia-cudnn-frontend and cuDNN are not installed",
)
def test_the_real_frontend_accepts_the_graphs() -> None:
    """Its checks need no GPU where the architecture is said."""
    done = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("version", "capability", "found"),
    [
        (90900, (9, 0), False),
        (91000, (9, 0), True),
        (91700, (10, 0), False),
        (91800, (10, 3), True),
    ],
)
def test_versions_that_are_taken(
    version: int, capability: tuple[int, int], found: bool, machine: Any, monkeypatch: Any
) -> None:
    cudnn = importlib.import_module("cudnn")
    monkeypatch.setattr(cudnn, "backend_version", lambda: version)
    assert is_available(capability) is found


def test_a_frontend_without_its_library_is_none(machine: Any, monkeypatch: Any) -> None:
    def missing() -> int:
        raise RuntimeError("Unable to find symbol cudnnGetVersion")

    monkeypatch.setattr(importlib.import_module("cudnn"), "backend_version", missing)
    assert not is_available()


def test_a_gradient_that_an_old_library_pads_is_refused(machine: Any, monkeypatch: Any) -> None:
    """Its lengths would be read from memory that is gone when the captured graph is replayed."""
    monkeypatch.setattr(importlib.import_module("cudnn"), "backend_version", lambda: 91500)
    shape = (B, H, T, D)
    names = ("q", "k", "v", "out", "stats", "g", "dq", "dk", "dv")
    tensors = tuple(StridedTensor(n, "bfloat16", shape, (H * T * D, T * D, D, 1)) for n in names)
    run = AttentionRun(tensors, 1.0, False, True, tuple(range(len(names))))
    with pytest.raises(RuntimeError, match=r"with 6 keys, no multiple of 128"):
        Cudnn(DeviceFacts()).run(run, [0] * len(names), 0)
