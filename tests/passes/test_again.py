"""Values that a later stretch of the graph computes again from what is in memory anyway."""

import numpy as np

from graphnn.build import compile_graph
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.passes.fuse import fuse
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.passes.recompute import Recompute
from tests.graphs import Builder

ROWS, WIDTH = 64, 32
ENOUGH = Recompute(most_weight=48)


def normed_layer() -> Graph:
    """A layer norm before a product, and its gradients."""
    b = Builder()
    x, weight = b.input(ROWS, WIDTH), b.input(WIDTH, WIDTH)
    gain, offset = b.input(WIDTH), b.input(WIDTH)
    y = b.ops.layer_norm(x, gain, offset, epsilon=1e-5)
    out = b.ops.matmul(y, weight)
    found = b.apply(Gradient(targets=1, sources=2), out, x, gain, out)
    return b.graph(out, *found)


def activated() -> Graph:
    """GELU between two products, and the gradient of the first."""
    b = Builder()
    x, first, second = b.input(ROWS, WIDTH), b.input(WIDTH, WIDTH), b.input(WIDTH, WIDTH)
    bias = b.input(WIDTH)
    hidden = b.ops.gelu(b.ops.add(b.ops.matmul(x, first), bias), approximate=True)
    out = b.ops.matmul(hidden, second)
    (found,) = b.apply(Gradient(targets=1, sources=1), out, first, out)
    return b.graph(out, found)


def stored(graph: Graph) -> list[str]:
    """Ops of the values of full size that go through memory."""
    full = ROWS * WIDTH
    found: set[Node] = fuse(graph).stored
    return sorted(n.op.name for n in graph.nodes if n in found and n.tensor.size == full)


def passed(graph: Graph) -> tuple[Graph, Graph]:
    """The graph before and after the pass."""
    before = Pipeline().run(graph)
    return before, ENOUGH.run(before)


def check_values(graph: Graph, other: Graph) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
    want, _ = interpret(graph, arrays)
    got, _ = interpret(other, arrays)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    compiled = compile_graph(other, Pipeline(passes=()))
    for a, b in zip(compiled.run(arrays), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_normalised_rows_are_not_stored() -> None:
    before, after = passed(normed_layer())
    assert len(stored(after)) == len(stored(before)) - 1
    check_values(before, after)


def test_derivative_of_an_activation_is_not_stored() -> None:
    before, after = passed(activated())
    assert len(stored(after)) == len(stored(before)) - 1
    check_values(before, after)


def test_what_costs_too_much_stays() -> None:
    before = Pipeline().run(normed_layer())  # a subtraction and a multiplication
    assert Recompute(most_weight=1).run(before) is before
    assert Recompute(most_weight=0).run(before) is before


def test_reading_more_than_the_value_is_no_gain() -> None:
    b = Builder()
    x, y, weight = b.input(ROWS, WIDTH), b.input(ROWS, WIDTH), b.input(WIDTH, WIDTH)
    total = b.ops.add(x, y)  # twice its bytes
    out = b.ops.matmul(b.ops.exp(total), weight)
    graph = b.graph(b.ops.multiply(out, total))
    assert ENOUGH.run(graph) is graph


def test_without_steps_between_nothing_changes() -> None:
    b = Builder()
    x = b.input(ROWS, WIDTH)
    y = b.ops.multiply(x, 2.0)
    graph = b.graph(b.ops.add(b.ops.exp(y), b.ops.sum(y, axes=(1,), keepdims=True)))
    assert ENOUGH.run(graph) is graph


def test_a_barrier_keeps_kernels_apart_without_a_copy() -> None:
    _, after = passed(normed_layer())
    partition = fuse(after)
    assert not any(n.op.apart for n in partition.stored)
    assert any("again later" in r.text for r in partition.reasons)


def test_a_wider_product_is_not_stored() -> None:
    b = Builder()
    x, weight = b.input(4, 8, 16, dtype="bfloat16"), b.input(16, WIDTH, dtype="bfloat16")
    flat = b.ops.matmul(b.ops.reshape(x, shape=(32, 16)), weight)
    wide = b.ops.cast(b.ops.reshape(flat, shape=(4, 8, WIDTH)), dtype="float32")
    largest = b.ops.max(wide, axes=(2,), keepdims=True)
    first = b.ops.take_along_axis(wide, b.input(4, 8, 1, dtype="int32"), axis=2)
    graph = b.graph(b.ops.subtract(first, largest))
    partition = fuse(graph)
    assert wide in partition.inlined
    assert len([g for g in partition.groups if g.kind == "loop"]) == 1
