"""Random programs as CUDA C on the host against the interpreter: values, gradients, any sizes.

The programs are drawn first and their kernels compiled together: one call of the compiler for each
would take most of the time.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from graphnn.compiler.interpret import interpret
from tests.cuda import emulate
from tests.cuda.running import DeviceBuilt, assert_close, built, run
from tests.random_programs.generate import Program, programs

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())
RTOL = 3e-5


def drawn(count: int, steps: int) -> list[Program]:
    """Some random programs, the same ones every time."""
    found: list[Program] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(steps))
    def draw(program: Program) -> None:
        found.append(program)

    draw()
    return found


def compare(program: Program, made: DeviceBuilt, batch: int) -> None:
    arrays = program.arrays(batch=batch)
    want, _ = interpret(made.partition.graph, arrays)
    first, second = run(made, arrays, 0), run(made, arrays, 1)
    for got, again, value in zip(first, second, want, strict=True):
        assert (got.shape, got.dtype) == (value.shape, value.dtype), program
        assert got.tobytes() == again.tobytes(), program
        assert_close(got, value, RTOL)


def check(
    count: int, steps: int, batches: tuple[int, ...], fused: bool = True, **how: bool
) -> None:
    found = drawn(count, steps)
    with np.errstate(all="ignore"):
        made = [built(p.graph(**how), fused=fused) for p in found]
        emulate.build_all([m.device for m in made])
        for program, own in zip(found, made, strict=True):
            for batch in batches:
                compare(program, own, batch)


def test_values() -> None:
    check(100, 14, (6,))


def test_gradients() -> None:
    check(60, 10, (6,), gradient=True)


def test_one_program_serves_all_sizes() -> None:
    check(30, 10, (6, 3, 17), symbolic=True)


def test_without_fusion() -> None:
    check(30, 10, (6,), fused=False)


@pytest.mark.slow
def test_many_programs() -> None:
    check(600, 20, (6,), gradient=True)
    check(300, 16, (2, 6, 29), symbolic=True)
