"""Every op with samples as CUDA C, run on the host, against its eager rule."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cuda import emulate, samples
from tests.cuda.running import run
from tests.ops import harness

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())
LABELS = [harness.label(c) for c in samples.CASES]


def check(sampled: list[samples.Sampled]) -> None:
    for call, made in sampled:
        expected: Any = call.eager()
        for order in (0, 1):
            values = run(made, call.arrays, order, times=1)
            wanted = expected if isinstance(expected, tuple) else (expected,)
            for value, want in zip(values, wanted, strict=True):
                harness.assert_close(value, want, call)


@pytest.mark.parametrize("label", LABELS)
def test_op(label: str) -> None:
    check(samples.compiled(False)[label])


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_op_in_every_dtype(label: str) -> None:
    check(samples.compiled(True)[label])


def test_few_ops_run_on_the_host() -> None:
    """Products of integers and ops without a loop form; anything else is a gap of the emitter."""
    hosts = {
        call.op.name
        for sampled in samples.programs(False).values()
        for call, made in sampled
        if any(s.host for s in made.device.program.steps)
    }
    assert hosts <= {"matmul", "shuffle", "permutation"}
