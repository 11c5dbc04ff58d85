"""Graphs on the emulated device, compared with the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphnn.compiler.codegen.cuda import Options
from graphnn.compiler.codegen.cuda_program import DeviceBuilt, build_device_program
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.types import is_float
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.cuda.execute import DeviceExecutable
from graphnn.runtime.device import DeviceProgram
from tests.cuda import emulate

# Few parts and packs from the first element on: small arrays reach every path of a kernel.
SMALL = Options(parts=3, shared=64 << 10, packs_from=4)


def built(graph: Graph, options: Options = SMALL, fused: bool = True) -> DeviceBuilt:
    """The program of a traced graph."""
    return build_device_program(Pipeline().run(graph), options, fused)


def run(
    made: DeviceBuilt,
    arrays: Sequence[Any],
    order: int = 0,
    times: int = 2,
    wide: bool = False,
) -> list[Any]:
    """Results of the last of some runs; the second one is a captured graph."""
    emulate.build_all([made.device], wide)
    driver = emulate.EmulatedDriver(order)
    device = with_wide_indices(made.device) if wide else made.device
    executable = DeviceExecutable(device, driver)
    results: list[Any] = []
    for _ in range(times):
        results = executable.run([driver.array(a) for a in arrays])
        executable.wait()
    return results


def with_wide_indices(device: DeviceProgram) -> DeviceProgram:
    """The program as if it had a buffer that needs them."""
    return replace(device, plan=lambda sizes: replace(device.plan(sizes), wide=True))


def check(made: DeviceBuilt, arrays: Sequence[Any], rtol: float = 2e-5, wide: bool = False) -> None:
    """Emulated values are those of the interpreter, in both orders of threads, bit for bit."""
    with np.errstate(all="ignore"):
        want, _ = interpret(made.partition.graph, arrays)
    first, second = run(made, arrays, 0, wide=wide), run(made, arrays, 1, wide=wide)
    for got, again, value in zip(first, second, want, strict=True):
        assert (got.shape, got.dtype) == (value.shape, value.dtype)
        assert got.tobytes() == again.tobytes(), "the order of threads changes the result"
        assert_close(got, value, rtol)


def assert_close(got: Any, want: Any, rtol: float) -> None:
    """Equal integers; floats within some of the dtype's precision."""
    if not is_float(want.dtype):
        np.testing.assert_array_equal(got, want)
        return
    rtol = {"bfloat16": 2e-2, "float16": 4e-3, "float64": 1e-10}.get(want.dtype.name, rtol)
    a, b = got.astype(np.float64), want.astype(np.float64)
    atol = rtol * max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
