"""The op harness's calls as programs for a GPU, all built and compiled together."""

from __future__ import annotations

from functools import cache

from graphnn.compiler.codegen.cuda_program import DeviceBuilt
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.base import Opaque
from graphnn.compiler.trace import Trace
from tests.cuda import emulate
from tests.cuda.running import built
from tests.ops import harness

CASES = [c for c in harness.cases() if not issubclass(c[0], Opaque) or c[0].has("eager")]
Sampled = tuple[harness.Call, DeviceBuilt]


def calls(case: harness.Case, every_dtype: bool) -> list[harness.Call]:
    """The case in its first dtypes, or in all of them."""
    found = harness.calls_of(case)
    return list(found) if every_dtype else [next(found)]


def program(call: harness.Call) -> DeviceBuilt:
    """The call as a program."""
    trace = Trace(call.op.name)
    types = [TensorType(a.shape, a.dtype) for a in call.arrays]
    inputs = [trace.argument(f"x{k}", t) for k, t in enumerate(types)]
    out = trace.apply(call.op, inputs)
    return built(trace.finish(out if isinstance(out, tuple) else (out,)))


@cache
def programs(every_dtype: bool) -> dict[str, list[Sampled]]:
    """The programs of every case, by its label."""
    return {
        harness.label(c): [(call, program(call)) for call in calls(c, every_dtype)] for c in CASES
    }


@cache
def compiled(every_dtype: bool) -> dict[str, list[Sampled]]:
    """The same, ready to run on the emulated device."""
    found = programs(every_dtype)
    emulate.build_all([made.device for sampled in found.values() for _, made in sampled])
    return found


def kernels(every_dtype: bool) -> dict[str, str]:
    """Texts of all distinct kernels by name."""
    found = programs(every_dtype).values()
    return {n: t for sampled in found for _, m in sampled for n, t in m.device.program.modules}
