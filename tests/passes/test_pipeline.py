"""The order of passes, its text form, the callback, decomposition, and recomputation."""

import itertools

import numpy as np
import pytest

from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.text import print_graph
from graphnn.compiler.ir.verify import verifier, verify
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.passes.decompose import Decompose
from graphnn.compiler.passes.pipeline import Pipeline, default_passes, parse_pipeline
from graphnn.compiler.passes.recompute import Recompute, peak_memory
from graphnn.runtime.errors import ParseError
from tests.graphs import Builder, arrays_for, assert_same, names, values

ORDER = "decompose{keep_rules=True},simplify,gradient,decompose,simplify,recompute"


def step() -> Graph:
    """Three layers with a loss and the gradients of the weights."""
    b = Builder()
    x, weights = b.input(100, 16), [b.input(16, 16, label=f"w{i}") for i in range(3)]
    h = x
    for w in weights:
        h = b.ops.sigmoid(b.ops.exp(b.ops.tanh(b.ops.matmul(h, w))))
    loss = b.ops.mean(h, axes=(0, 1))
    op = Gradient(targets=1, sources=3)
    return b.graph(loss, *b.apply(op, loss, *weights, b.ops.ones_like(loss)))


def test_text_form() -> None:
    assert str(Pipeline()) == ORDER
    assert parse_pipeline(ORDER).passes == default_passes()
    assert str(parse_pipeline(" decompose , simplify{merge=False}")) == (
        "decompose,simplify{merge=False}"
    )
    assert parse_pipeline("").passes == ()


@pytest.mark.parametrize(
    "text", ["simplfy", "simplify{", "simplify{merge}", "simplify{nothing=1}", "simplify simplify"]
)
def test_bad_text(text: str) -> None:
    with pytest.raises(ParseError):
        parse_pipeline(text)


def test_callback_sees_each_pass() -> None:
    seen: list[tuple[str, int, int]] = []
    graph = step()
    Pipeline(callback=lambda n, a, b: seen.append((n, len(a.nodes), len(b.nodes)))).run(graph)
    assert [name for name, *_ in seen] == [p.name for p in default_passes()]
    assert seen[0][1] == len(graph.nodes)
    assert all(first[2] == second[1] for first, second in itertools.pairwise(seen))


def test_stages() -> None:
    stages = Pipeline().stages(step())
    assert [name for name, _ in stages] == ["trace", *(p.name for p in default_passes())]
    assert "gradient" in names(stages[0][1])
    assert "gradient" not in names(stages[-1][1])


def test_the_input_is_never_changed() -> None:
    graph = step()
    text = print_graph(graph)
    Pipeline(callback=verifier(2)).run(graph)
    assert print_graph(graph) == text


@pytest.mark.parametrize("name", ["simplify", "recompute"])
def test_results_stay_without_a_pass(name: str) -> None:
    graph = step()
    whole, without = Pipeline().run(graph), Pipeline().without(name).run(graph)
    assert_same(whole, without, arrays_for(graph), rtol=1e-5)


# ---- decompose ----------------------------------------------------------------------------


def test_first_composites_with_a_rule_stay_whole() -> None:
    b = Builder()
    x = b.input(4, 5)
    graph = b.graph(b.ops.softmax(x, axis=-1), b.ops.mean(x, axes=(0,)))
    kept = names(Decompose(keep_rules=True).run(graph))
    split = Decompose().run(graph)
    assert "softmax" in kept
    assert not {"softmax", "mean"} & set(names(split))
    verify(split, level=2)
    assert_same(graph, split, arrays_for(graph))


def test_nothing_to_decompose_is_the_same_object() -> None:
    b = Builder()
    graph = b.graph(b.ops.exp(b.input(2)))
    assert Decompose().run(graph) is graph


# ---- recompute ----------------------------------------------------------------------------


def test_off_by_default_and_below_the_budget() -> None:
    graph = Pipeline().run(step())
    assert Recompute().run(graph) is graph
    assert Recompute(memory_budget=peak_memory(graph)[0]).run(graph) is graph


def test_cheap_values_are_computed_again() -> None:
    pytest.importorskip("networkx")
    graph = Pipeline().run(step())
    peak, _ = peak_memory(graph)
    new = Recompute(memory_budget=peak - 1).run(graph)
    verify(new, level=2, expanded=True)
    assert peak_memory(new)[0] < 0.9 * peak
    assert names(new).count("exp") > names(graph).count("exp")
    # Products are never done twice.
    assert names(new).count("matmul") == names(graph).count("matmul")
    arrays = arrays_for(graph)
    for old, again in zip(values(graph, arrays), values(new, arrays), strict=True):
        np.testing.assert_array_equal(old, again)
