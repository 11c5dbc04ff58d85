"""NVIDIA's compiler takes every generated kernel; no GPU and no headers are needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from graphnn.compiler.codegen.cuda import PRELUDE, Options
from graphnn.runtime.cuda import nvrtc
from graphnn.runtime.cuda.cubin import resources
from tests.cuda import samples
from tests.cuda.running import built
from tests.cuda.workloads import WORKLOADS, cross_entropy, layer_norm
from tests.graphs import Builder

pytestmark = pytest.mark.skipif(bool(nvrtc.why_not()), reason=nvrtc.why_not())
BATCH = 20


def compile_all(kernels: dict[str, str], architecture: str) -> None:
    listed = list(kernels.values())
    batches = [listed[k : k + BATCH] for k in range(0, len(listed), BATCH)]
    texts = ["\n".join([PRELUDE, *batch]) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda t: nvrtc.compile_cubin(t, architecture), texts))
    assert all(code.startswith(b"\x7fELF") for code in codes)


def test_kernels_of_all_ops() -> None:
    compile_all(samples.kernels(False), "sm_90")


@pytest.mark.slow
def test_kernels_of_all_schedules() -> None:
    made = [built(w.graph(), w.options) for w in WORKLOADS.values()]
    compile_all({n: t for m in made for n, t in m.device.program.modules}, "sm_90")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_of_all_ops_in_every_dtype(architecture: str) -> None:
    compile_all(samples.kernels(True), architecture)


def test_an_error_shows_the_compilers_words() -> None:
    with pytest.raises(nvrtc.NvrtcError, match='identifier "x" is undefined'):
        nvrtc.compile_cubin("__global__ void k() { x = 1; }", "sm_90")


def test_wide_indices_compile() -> None:
    b = Builder()
    x = b.input(6, 50)
    text = built(b.graph(b.ops.softmax(x, axis=1), b.ops.sum(x, axes=(0,)))).device.text
    assert nvrtc.compile_cubin(text, "sm_90", ["GNN_WIDE"]) != nvrtc.compile_cubin(text, "sm_90")


def test_cross_entropy_stages_its_row_in_16_byte_copies() -> None:
    """A row of 100 kB of bfloat16 is read from global memory once, by asynchronous copies."""
    b = Builder()
    logits, labels = b.input(8192, 50257, dtype="bfloat16"), b.input(8192, dtype="int32")
    device = built(b.graph(*cross_entropy(b, logits, labels)), Options()).device
    launch = next(
        a
        for run in device.plan(()).steps
        for a in run.launches
        if a.shared  # type: ignore[union-attr]
    )
    assert launch.threads == 512 and 2 * launch.shared <= 226 << 10  # two blocks a processor
    ptx = nvrtc.compile_ptx(device.text, "compute_90")
    assert "cp.async.cg.shared.global" in ptx and "ld.shared.v4" in ptx and "st.global.v4" in ptx


def test_layer_norm_reads_and_writes_in_16_byte_packs() -> None:
    b = Builder()
    x, g = b.input(8192, 1024), b.input(8192, 1024)
    scale, offset = b.input(1024), b.input(1024)
    device = built(b.graph(*layer_norm(b, x, scale, offset, g)), Options()).device
    assert len(device.program.steps) == 1
    ptx = nvrtc.compile_ptx(device.text, "compute_90")
    assert "ld.global.v4" in ptx or "ld.global.nc.v4" in ptx
    assert "st.global.v4" in ptx


def test_kernels_are_compiled_in_pieces_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel is in one piece; pieces have about the same length and begin alike."""
    monkeypatch.setattr(nvrtc, "LEAST_PIECE", 100)
    monkeypatch.setattr(nvrtc, "_cores", lambda: 3)
    kernel = 'extern "C" __global__ void {}(float* x) {{ x[0] = scaled({}.0f); }}'
    kernels = [kernel.format(f"k{n}", n) for n in range(7)]
    first = "__device__ float scaled(float x) { return 2 * x; }"
    pieces = nvrtc.compile_cubins([first, *kernels], "sm_90")
    assert len(pieces) == 3 and all(text.startswith(first) for text, _ in pieces)
    found = [name for _, code in pieces for name in resources(code)]
    assert sorted(found) == [f"k{n}" for n in range(7)]
    sizes = [len(text) for text, _ in pieces]
    assert max(sizes) - min(sizes) <= len(kernels[0]) + 1
    (only,) = nvrtc.compile_cubins([first], "sm_90")
    assert only[0] == first


def test_a_gpu_that_the_compiler_does_not_know() -> None:
    known = nvrtc.architectures()
    assert 90 in known
    newer = max(known) // 10 * 10 + 20
    text = 'extern "C" __global__ void k(int* x) { x[0] = 1; }'
    assert nvrtc.compile_cubin(text, f"sm_{newer}").startswith(b"//")  # PTX
    assert nvrtc.compile_cubin(text, f"sm_{max(known)}").startswith(b"\x7fELF")
    with pytest.raises(nvrtc.NvrtcError, match=r"sm_35, which NVRTC .* does not know"):
        nvrtc.compile_cubin(text, "sm_35")


def test_the_newest_compiler_that_the_driver_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels of two CUDA versions may lie side by side."""
    versions = {"libnvrtc.so.13": 13, "libnvrtc.so.12": 12}

    class Library:
        def __init__(self, path: str) -> None:
            if path not in versions:
                raise OSError(path)
            self.version = versions[path]
            self.nvrtcGetErrorString = lambda code: b""

        def nvrtcVersion(self, major: Any, minor: Any) -> None:
            major._obj.value, minor._obj.value = self.version, 4

    own = nvrtc._library.__wrapped__
    monkeypatch.setattr(nvrtc.ctypes, "CDLL", Library)
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(("gone", *versions)))
    for driver, wanted in ((0, 13), (13, 13), (12, 12), (11, 13)):
        monkeypatch.setattr(nvrtc, "_driver_major", lambda driver=driver: driver)
        assert own().version == wanted
    paths = [Path(p) for p in ("z/cu12/libnvrtc.so.12", "a/cu13/libnvrtc.so.13", "b/libnvrtc.so")]
    assert [p.name for p in sorted(paths, key=nvrtc._numbers, reverse=True)] == [
        "libnvrtc.so.13",
        "libnvrtc.so.12",
        "libnvrtc.so",
    ]
