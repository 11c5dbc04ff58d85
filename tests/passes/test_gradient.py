"""The gradient pass against closed forms, finite differences and itself."""

from typing import Any

import numpy as np
import pytest

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.verify import verifier, verify
from graphnn.compiler.ops.core import CustomGradient, Gradient
from graphnn.compiler.passes.gradient import ExpandGradients
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.errors import Loc
from tests.graphs import Builder, arrays_for, names, values


def gradient(b: Builder, target: Node, *sources: Node, constants: Any = ()) -> tuple[Node, ...]:
    op = Gradient(targets=1, sources=len(sources), constants=len(constants))
    return b.apply(op, target, *sources, *constants, b.ops.ones_like(target))  # type: ignore[no-any-return]


def run(graph: Graph, arrays: Any) -> list[Any]:
    expanded = ExpandGradients().run(graph)
    verify(expanded, level=2, expanded=True)
    whole = Pipeline(callback=verifier(2)).run(graph)
    for x, y in zip(values(expanded, arrays), values(whole, arrays), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    return values(whole, arrays)


def test_closed_form() -> None:
    b = Builder()
    x, y = b.input(3, 4), b.input(4)
    total = b.ops.sum(b.ops.multiply(b.ops.square(x), y), axes=(0, 1))
    graph = b.graph(*gradient(b, total, x, y))
    ax, ay = arrays_for(graph)
    gx, gy = run(graph, [ax, ay])
    np.testing.assert_allclose(gx, 2 * ax * ay, rtol=1e-6)
    np.testing.assert_allclose(gy, (ax**2).sum(0), rtol=1e-6)


def test_second_and_third_order() -> None:
    b = Builder()
    x = b.input(5)
    (first,) = gradient(b, b.ops.power(x, 4.0), x)
    (second,) = gradient(b, first, x)
    (third,) = gradient(b, second, x)
    a = np.linspace(0.5, 2, 5, dtype=np.float32)
    found = run(b.graph(first, second, third), [a])
    for got, want in zip(found, (4 * a**3, 12 * a**2, 24 * a), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4)


def test_several_targets_and_a_source_on_the_way() -> None:
    b = Builder()
    x = b.input(3)
    y = b.ops.multiply(x, 3.0)
    z = b.ops.square(y)
    op = Gradient(targets=2, sources=2)
    found = b.apply(op, z, y, x, y, b.ops.ones_like(z), b.constant([10.0] * 3))
    a = np.array([1.0, 2.0, 3.0], np.float32)
    gx, gy = run(b.graph(*found), [a])
    np.testing.assert_allclose(gy, 2 * 3 * a + 10)
    np.testing.assert_allclose(gx, 3 * (2 * 3 * a + 10))


def test_paths_end_at_constants() -> None:
    b = Builder()
    x = b.input(3)
    ended = b.ops.square(x)
    total = b.ops.sum(b.ops.multiply(x, ended), axes=(0,))
    graph = b.graph(*gradient(b, total, x, constants=(ended,)))
    a = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_allclose(run(graph, [a])[0], a**2)


def test_stop_gradient_and_no_path() -> None:
    b = Builder()
    x, y = b.input(3), b.input(3)
    total = b.ops.sum(b.ops.multiply(b.ops.stop_gradient(x), x), axes=(0,))
    gx, gy = run(b.graph(*gradient(b, total, x, y)), [np.ones(3, np.float32)] * 2)
    np.testing.assert_allclose(gx, np.ones(3))
    np.testing.assert_allclose(gy, np.zeros(3))


def test_custom_gradient_with_two_results() -> None:
    def rule(ops: Any, inputs: Any, outs: Any, gs: Any) -> Any:
        return (ops.add(ops.multiply(gs[0], 7.0), gs[1]),)

    b = Builder()
    x = b.input(3)
    first, second = b.apply(CustomGradient(count=1, rule=rule), x, b.ops.exp(x), b.ops.negative(x))
    graph = b.graph(first, second, *gradient(b, b.ops.add(first, second), x))
    a = np.array([1.0, 2.0, 3.0], np.float32)
    out = run(graph, [a])
    np.testing.assert_allclose(out[0], np.exp(a), rtol=1e-6)
    np.testing.assert_allclose(out[2], np.full(3, 8.0))
    only_first = b.graph(*gradient(b, first, x))
    np.testing.assert_allclose(run(only_first, [a])[0], np.full(3, 7.0))


def test_symbolic_sizes() -> None:
    b = Builder()
    x, w = b.input(symbol("n"), 3), b.input(3, 2)
    loss = b.ops.mean(b.ops.square(b.ops.matmul(x, w)), axes=(0, 1))
    graph = b.graph(*gradient(b, loss, w))
    ax, aw = arrays_for(graph, n=5)
    (g,) = run(graph, [ax, aw])
    np.testing.assert_allclose(g, ax.T @ (2 * (ax @ aw) / 10), rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_composites_keep_their_rule(name: str) -> None:
    b = Builder()
    x, y = b.input(4, 5, dtype="float64"), b.input(4, 5, dtype="float64")
    total = b.ops.sum(b.ops.multiply(getattr(b.ops, name)(x, axis=-1), y), axes=(0, 1))
    graph = b.graph(total, *gradient(b, total, x))
    arrays = arrays_for(graph)
    _, g = run(graph, arrays)
    eps = 1e-6
    for i, j in [(0, 0), (3, 4), (2, 1)]:
        moved = [arrays[0].copy(), arrays[1]]
        moved[0][i, j] += eps
        slope = (run(graph, moved)[0] - run(graph, arrays)[0]) / eps
        np.testing.assert_allclose(slope, g[i, j], rtol=1e-3, atol=1e-5)


def test_cross_entropy_and_its_gradient_share_one_exp() -> None:
    b = Builder()
    x, labels = b.input(4, 5), b.input(4, dtype="int32")
    loss = b.ops.mean(b.ops.sparse_softmax_cross_entropy(x, labels), axes=(0,))
    graph = Pipeline().run(b.graph(loss, *gradient(b, loss, x)))
    assert names(graph).count("exp") == 1
    assert names(graph).count("max") == 1


def test_backward_nodes_carry_the_place_of_their_forward_node() -> None:
    b = Builder()
    x = b.input(3)
    b.trace.place = lambda: Loc("model.py", 7)  # type: ignore[method-assign]
    y = b.ops.exp(x)
    b.trace.place = lambda: Loc("train.py", 9)  # type: ignore[method-assign]
    graph = ExpandGradients().run(b.graph(*gradient(b, y, x)))
    assert [str(n.loc) for n in graph.nodes if n.op.name == "multiply"] == ["model.py:7"]
