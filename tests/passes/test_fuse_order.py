"""Merged groups never wait for one another in a circle."""

import numpy as np
import pytest

from graphnn.build import compile_graph
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.passes.fuse import fuse
from graphnn.compiler.passes.pipeline import Pipeline
from tests.graphs import Builder


def numbers_with_a_kernel_between() -> Graph:
    """Two numbers: the second needs a kernel that holds an early value and reads the first."""
    b = Builder()
    x = b.input(64)
    first = b.ops.log(b.ops.sum(x, axes=(0,)))
    early = b.ops.exp(x)
    late = b.ops.multiply(early, first)
    largest = b.ops.max(b.ops.subtract(b.ops.flip(early, axes=(0,)), x), axes=(0,))
    return b.graph(b.ops.log(largest), late, first, early)


@pytest.mark.parametrize("turned", [False, True])
def test_numbers_with_a_kernel_between(turned: bool) -> None:
    graph = numbers_with_a_kernel_between()
    if turned:
        graph = Graph(graph.name, graph.inputs, graph.outputs[::-1])
    x = np.linspace(0.1, 2.0, 64, dtype=np.float32)
    want, _ = interpret(graph, [x])
    got = compile_graph(graph, Pipeline(passes=())).run([x])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_numbers_of_their_own_share_a_kernel() -> None:
    b = Builder()
    x, step = b.input(64), b.input()
    mean = b.ops.divide(b.ops.sum(x, axes=(0,)), 64.0)
    graph = b.graph(mean, b.ops.add(step, 1.0))
    assert len(fuse(graph).groups) == 2
