"""graphnn's own driver and executor on the emulated GPU: streams, captures, uploads and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.interpret import interpret
from graphnn.runtime.cuda.driver import CupyDriver
from graphnn.runtime.cuda.execute import DeviceExecutable
from tests.cuda import emulate, samples, stand_in
from tests.cuda.running import assert_close, built
from tests.cuda.test_gpu import run
from tests.cuda.workloads import WORKLOADS, data
from tests.graphs import Builder
from tests.ops import harness

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())
# The first workload of each family.
FEW = sorted({name.split("-")[0]: name for name in reversed(WORKLOADS)}.values())


def all_close(got: Sequence[Any], want: Any, call: harness.Call) -> None:
    wanted = want if isinstance(want, tuple) else (want,)
    for value, expected in zip(got, wanted, strict=True):
        harness.assert_close(value, expected, call)


def taken(case: harness.Case) -> list[harness.Call]:
    """The case in the dtypes that a GPU takes."""
    calls = samples.calls(case, True)
    if not case[0].__name__.startswith("Attention"):
        return calls
    return [c for c in calls if fits_cudnn(*(a.dtype for a in c.arrays))]


def fits_cudnn(*dtypes: np.dtype[Any]) -> bool:
    """Whether cuDNN's attention takes them: 16-bit floats, and statistics in float32."""
    return dtypes[0].itemsize == 2 and (len(dtypes) < 6 or dtypes[5] == np.float32)


def check(calls: Sequence[harness.Call]) -> None:
    programs = [samples.program(call) for call in calls]
    emulate.build_all([made.device for made in programs])
    for call, made in zip(calls, programs, strict=True):
        all_close(run(made, call.arrays), call.eager(), call)


def test_ops(emulated_gpu: stand_in.Machine) -> None:
    """Each op's first sample in its first dtype."""
    firsts = {case[0]: case for case in reversed(samples.CASES)}
    check([call for case in firsts.values() for call in taken(case)[:1]])


@pytest.mark.slow
@pytest.mark.parametrize("case", samples.CASES, ids=harness.label)
def test_op(case: harness.Case, emulated_gpu: stand_in.Machine) -> None:
    check(taken(case))


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in WORKLOADS]
)
def test_workload(name: str, emulated_gpu: stand_in.Machine) -> None:
    workload = WORKLOADS[name]
    made = built(workload.graph(), workload.options)
    want, _ = interpret(made.partition.graph, workload.arrays)
    for value, expected in zip(run(made, workload.arrays), want, strict=True):
        assert_close(value, expected, workload.rtol)


def softmax_of_products() -> Any:
    b = Builder()
    x, w = b.input(6, 5), b.input(5, 7)
    return built(b.graph(b.ops.softmax(b.ops.matmul(x, w), axis=-1)))


def test_runs_wait_for_nothing() -> None:
    """In the lazy mode everything is started without one wait, and run when a result is read."""
    made, arrays = softmax_of_products(), data((6, 5), (5, 7))
    want, _ = interpret(made.partition.graph, arrays)
    with stand_in.emulated(lazy=True) as gpu:
        import cupy

        executable = DeviceExecutable(made.device, CupyDriver())
        executable.run([cupy.asarray(a) for a in arrays])  # tunes, which waits
        with gpu.no_waits("only a download may wait"):
            results = [executable.run([cupy.asarray(a) for a in arrays]) for _ in range(4)]
        for (got,) in results:
            np.testing.assert_allclose(got.get(), want[0], rtol=1e-5)
        assert gpu.launches.count("graph of 2") >= 3


def test_a_program_runs_on_the_users_stream() -> None:
    made, arrays = softmax_of_products(), data((6, 5), (5, 7))
    want, _ = interpret(made.partition.graph, arrays)
    with stand_in.emulated(lazy=True):
        import cupy

        executable = DeviceExecutable(made.device, CupyDriver())
        for _ in range(3):
            with cupy.cuda.Stream(non_blocking=True) as stream:
                given = [cupy.asarray(a) for a in arrays]
                (got,) = executable.run(given)
                host = got.get()
            np.testing.assert_allclose(host, want[0], rtol=1e-5)
            assert stream.done


def test_a_program_on_the_second_gpu() -> None:
    made, arrays = softmax_of_products(), data((6, 5), (5, 7))
    want, _ = interpret(made.partition.graph, arrays)
    with stand_in.emulated(devices=2, lazy=True):
        import cupy

        with cupy.cuda.Device(1):
            executable = DeviceExecutable(made.device, CupyDriver(1))
            for _ in range(3):
                (got,) = executable.run([cupy.asarray(a) for a in arrays])
            np.testing.assert_allclose(got.get(), want[0], rtol=1e-5)
            assert got.device.id == 1


def test_kernels_are_compiled_once(emulated_gpu: stand_in.Machine) -> None:
    made = built(WORKLOADS["packs-5-float32"].graph())
    first = emulate.load(made.device.text)
    assert emulate.load(made.device.text + "\n") == first
