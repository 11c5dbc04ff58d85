"""Every op with samples, compiled to machine code, against its eager rule."""

from __future__ import annotations

import pytest

from graphnn.compiler.ops.base import Opaque
from tests.ops import harness

# Eager only: their shapes depend on data, or they stand for the graph's structure.
CASES = [c for c in harness.cases() if not issubclass(c[0], Opaque) or c[0].has("eager")]


@pytest.mark.parametrize("case", CASES, ids=[harness.label(c) for c in CASES])
def test_compiled_gives_the_eager_value(case: harness.Case) -> None:
    for call in harness.calls_of(case):
        harness.check_compiled(call)
