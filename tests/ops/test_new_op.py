"""An op defined here, outside of the package, works in every stage without another change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graphnn.build import compile_graph
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir import text
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.types import FLOATS, TensorType, float32
from graphnn.compiler.ops.base import REGISTRY, Elementwise, Op, Ops, Sample
from graphnn.compiler.trace import Trace
from tests.ops import harness


@pytest.fixture
def cauchy() -> Iterator[type[Op]]:
    class Cauchy(Elementwise):
        """scale / (1 + x * x) of each element."""

        name, accepts, promotes = "cauchy", FLOATS, "float"
        samples = (Sample((("f", (3, 4)),)), Sample((("f", ()),), {"scale": 2.0}))
        scale: float = 1.0

        def eager(self, xp: Any, x: Any) -> Any:
            wide = x.astype(float32) if x.dtype.itemsize == 2 else x
            return np.asarray(self.scale / (1 + wide * wide)).astype(x.dtype)

        def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
            slope = ops.multiply(ops.multiply(out, out), ops.multiply(x, -2.0 / self.scale))
            return (ops.multiply(g, slope),)

        def scalar(self, emit: Any, x: Any) -> Any:
            return self.scale / (1.0 + x * x)

    yield Cauchy
    del REGISTRY["cauchy"]


def test_generic_harness(cauchy: type[Op]) -> None:
    for case in harness.cases({"cauchy": cauchy}):
        harness.check_wrong_dtype(case)
        for call in harness.calls_of(case):
            harness.check_eager(call)
            harness.check_symbolic(call)
            harness.check_element(call)
            harness.check_compiled(call)
        call = harness.gradient_call(case)
        assert call is not None
        harness.check_gradient(call, order=0)
        harness.check_gradient(call, order=1)


def program(x: Any) -> Graph:
    trace = Trace("f")
    node = trace.argument("x", TensorType(x.shape, x.dtype))
    ops = Ops(trace)
    return trace.finish((ops.sum(ops.exp(ops.cauchy(node, scale=3.0)), axes=(0,)),))


def test_traced_interpreted_and_compiled(cauchy: type[Op]) -> None:
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    graph = program(x)
    expected = np.exp(3 / (1 + x * x)).sum(0)
    np.testing.assert_allclose(interpret(graph, [x])[0][0], expected, rtol=1e-6)
    np.testing.assert_allclose(compile_graph(graph).run([x])[0], expected, rtol=1e-6)


def test_text_reads_back(cauchy: type[Op]) -> None:
    graph = program(np.zeros((3, 4), np.float32))
    printed = text.print_graph(graph)
    assert "cauchy(%0, scale=3.0)" in printed
    assert text.print_graph(text.read_graph(printed)) == printed


def test_the_harness_sees_a_wrong_rule(cauchy: type[Op]) -> None:
    class Wrong(cauchy):  # type: ignore[misc, valid-type]
        """As the op above, with a sign lost in the gradient and in the scalar code."""

        name = "wrong_cauchy"

        def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
            return (ops.multiply(g, ops.multiply(out, x)),)

        def scalar(self, emit: Any, x: Any) -> Any:
            return self.scale / (1.0 - x * x)

    try:
        case = harness.cases({"wrong_cauchy": Wrong})[0]
        call = harness.gradient_call(case)
        assert call is not None
        with pytest.raises(AssertionError, match="differences"):
            harness.check_gradient(call, order=0)
        with pytest.raises(AssertionError):
            harness.check_element(call)
        with pytest.raises(AssertionError):
            harness.check_compiled(call)
    finally:
        del REGISTRY["wrong_cauchy"]


def test_the_name_is_taken(cauchy: type[Op]) -> None:
    with pytest.raises(ValueError, match="two ops are named cauchy"):

        class Other(Elementwise):
            """Another op of that name."""

            name = "cauchy"
