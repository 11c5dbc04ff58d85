"""What the benchmarks' kernels ask of an H100, read from NVRTC's machine code: registers, spills,
shared memory, how many blocks run side by side, the width of memory accesses, launches."""

from __future__ import annotations

import re
from functools import cache

import pytest

from graphnn.compiler.codegen.cuda_program import DeviceBuilt
from graphnn.runtime.cuda import nvrtc
from graphnn.runtime.cuda.cubin import Resources, blocks_at_a_time, resources
from graphnn.runtime.device import KernelRun, Launch
from tests.cuda.programs import PROGRAMS, Model, adam, blocks

needs_nvrtc = pytest.mark.skipif(bool(nvrtc.why_not()), reason=nvrtc.why_not())


@cache
def program(name: str) -> DeviceBuilt:
    return PROGRAMS[name]()


def launches(made: DeviceBuilt) -> list[Launch]:
    """Kernels that one call starts."""
    runs = made.device.plan(()).steps
    return [launch for run in runs if isinstance(run, KernelRun) for launch in run.launches]


@cache
def asked(name: str) -> dict[str, Resources]:
    """What the kernels of a program ask for."""
    codes = nvrtc.compile_cubins(program(name).device.texts, "sm_90")
    return {n: r for _, code in codes for n, r in resources(code).items()}


@cache
def ptx(name: str) -> str:
    return nvrtc.compile_ptx(program(name).device.text, "compute_90")


def main(name: str) -> tuple[Launch, Resources]:
    """The kernel with the most threads, which is the one that matters."""
    launch = max(launches(program(name)), key=lambda k: k.blocks * k.threads * (k.shared + 1))
    return launch, asked(name)[launch.entry]


def side_by_side(name: str) -> int:
    """Threads of the main kernel that a multiprocessor has at a time."""
    launch, found = main(name)
    return blocks_at_a_time(found, launch.threads, launch.shared) * launch.threads


def body(made: DeviceBuilt, entry: str) -> str:
    """The text of one entry."""
    text = made.device.text
    start = text.index(f" {entry}(")
    return text[start : text.index("\n}\n", start)]


@needs_nvrtc
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_spilled(name: str) -> None:
    found = asked(name)
    assert {launch.entry for launch in launches(program(name))} <= set(found)
    assert not {n: r.local for n, r in found.items() if r.local}


@needs_nvrtc
@pytest.mark.parametrize(
    ("name", "threads"),
    [
        ("chain", 1024),
        ("gelu", 960),
        ("softmax_xent", 1024),  # two blocks of 512, each with a row of 100 kB
        ("cross_entropy_50304", 1024),
        ("layernorm", 512),
        ("bias_gradient", 1024),
        ("adam", 768),
        ("embedding", 1536),
    ],
)
def test_enough_threads_run_side_by_side(name: str, threads: int) -> None:
    assert side_by_side(name) >= threads


@needs_nvrtc
@pytest.mark.parametrize("name", ["chain", "gelu", "layernorm", "layernorm_f32", "bias_gradient"])
def test_accesses_have_16_bytes(name: str) -> None:
    text = ptx(name)
    wide = len(re.findall(r"ld\.global(?:\.nc)?\.v4", text))
    assert wide and re.search(r"st\.global\.v4", text)
    if name in ("chain", "gelu"):
        assert not re.search(r"(ld|st)\.global(\.nc)?\.[fbu](8|16|32|64)\b", text)


@needs_nvrtc
def test_arithmetic_has_no_divisions_in_long_loops() -> None:
    """`chain` may issue 78 instructions an element at copy speed; a division alone takes 13."""
    assert "div.rn" not in ptx("chain")
    assert len(re.findall(r"div\.rn\.f32", ptx("softmax_xent"))) <= 3  # once a row, once a call


def test_chain_has_several_loads_under_way() -> None:
    made = program("chain")
    (launch,) = launches(made)
    text = body(made, launch.entry)
    assert "Pack<float, 4> p0[4];" in text and text.count("load_pack<4>") == 3
    first_row = text.index("for (idx i0")
    assert text.index("c0 = load_pack") < first_row  # the bias is read once for many rows


def test_cross_entropy_reads_the_logits_once_and_writes_their_gradient_once() -> None:
    made = program("softmax_xent")
    launch = launches(made)[0]
    text = body(made, launch.entry)
    assert launch.shared > 100_000 and launch.threads == 512
    assert text.count("stage_pack<8>(") == 1 and text.count("store_pack<8>(b") == 1
    whole_rows = re.findall(r"load_pack<8>\((\w+)", text)
    assert set(whole_rows) == {"r0"}  # from the chip
    singles = [line for line in text.splitlines() if re.search(r"= .*\bb0\[", line)]
    assert len(singles) == 2  # elements before the first pack and after the last; the label's


def test_numbers_of_launches() -> None:
    counts = {name: len(launches(program(name))) for name in PROGRAMS}
    assert counts["chain"] == counts["gelu"] == 1
    assert counts["softmax_xent"] == 3  # rows, their sum, the mean
    assert counts["layernorm_f32"] == 2  # rows, sums of columns
    assert counts["bias_gradient"] == 2
    assert counts["embedding"] == 7  # the rows; six to sort and to add up
    assert counts["adam"] == 2  # the counter; all Variables with their copies


def test_one_launch_updates_all_variables_whatever_their_size() -> None:
    sizes = [(50304, 768), (2,), (768,), (768, 3072), (3,)]
    made = adam(sizes, narrow=True)
    run = next(r for r in made.device.plan(()).steps if isinstance(r, KernelRun) and r.firsts)
    (launch,) = run.launches
    assert sorted(run.rows) == sorted(map(_size, sizes))
    per_block = 256 * 8  # threads and packs: 16 bytes of bfloat16, 32 of float32
    assert launch.blocks == sum(-(-_size(s) // per_block) for s in sizes)
    assert run.firsts[-1] == launch.blocks


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def test_equal_layers_have_equal_kernels() -> None:
    """Twelve layers compile no more kernels than four."""
    few, many = blocks(4), blocks(12)
    assert {n for n, _ in many.device.program.modules} == {n for n, _ in few.device.program.modules}
    assert len(few.device.program.modules) < 20


def test_kernels_with_one_text_are_one_launch() -> None:
    b = Model()
    x, y, z = b.input(1000), b.input(200), b.input(3)
    both = b.ops.multiply(y, b.ops.multiply(y, 1.0))
    made = b.built(b.ops.square(x), both, b.ops.square(z))
    assert len(launches(made)) == len(made.device.program.modules) == 1


@needs_nvrtc
def test_resources_are_read_from_machine_code() -> None:
    text = """
extern "C" __global__ void __launch_bounds__(64) a(float* x) {
  __shared__ float s[500];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void b(float* x, int n) {
  float kept[200];
  for (int k = 0; k < 200; ++k) kept[k] = x[k * n];
  for (int k = 0; k < n; ++k) x[k] = kept[(k * 7) % 200];
}"""
    found = resources(nvrtc.compile_cubin(text, "sm_90"))
    assert found["a"].local == 0 and 2000 <= found["a"].shared < 4000
    assert found["b"].local >= 800 and found["b"].shared < 2000
    assert 4 < found["a"].registers < 40


def test_blocks_that_fit() -> None:
    assert blocks_at_a_time(Resources("k", 32, 0, 0), 1024) == 2
    assert blocks_at_a_time(Resources("k", 255, 0, 0), 256) == 1
    assert blocks_at_a_time(Resources("k", 16, 0, 0), 32) == 32
    assert blocks_at_a_time(Resources("k", 16, 0, 0), 32, capability=(8, 6)) == 16
    assert blocks_at_a_time(Resources("k", 16, 0, 0), 128, 120_000) == 1
    assert blocks_at_a_time(Resources("k", 16, 0, 0), 128, 240_000) == 0
    with pytest.raises(ValueError, match="7f 45 4c 46"):
        resources(b"PTX ")
