"""The text form prints, reads back, and says where it is wrong."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.text import print_graph, read_graph, same_graph
from graphnn.compiler.ops.core import Constant, CustomGradient, Gradient
from graphnn.runtime.errors import Loc, ParseError
from tests.graphs import Builder

TEXT = """\
graph step(%0: f32[n,3] "x", %1: f32[3] variable "dense/kernel") {
  %2: f32[n,3] = multiply(%0, %1)
  %3: f32[2*n,3] = concat(%0, %2)
  %4: f32[3] = sum(%2, axes=(0,))
  update %1 <- %4
  return %2, %3
}
"""


def test_reads_and_prints() -> None:
    graph = read_graph(TEXT)
    assert print_graph(graph) == TEXT
    assert graph.inputs[1].op.settings() == {"label": "dense/kernel", "kind": "variable"}
    assert graph.nodes[3].shape == (2 * symbol("n"), 3)


def test_places_are_comments_that_read_back() -> None:
    b = Builder()
    b.trace.place = lambda: Loc("/home/me/model.py", 14, layer="net/dense")  # type: ignore[method-assign]
    text = print_graph(b.graph(b.ops.exp(b.input(2, 3))))
    assert "  %1: f32[2,3] = exp(%0)                    # model.py:14 net/dense\n" in text
    assert print_graph(read_graph(text)) == text
    assert "#" not in print_graph(read_graph(text), places=False)


def test_results_of_several_and_gradient() -> None:
    b = Builder()
    x, y = b.input(2), b.input(2)
    total = b.ops.sum(b.ops.multiply(x, y), axes=(0,))
    gradients = b.apply(Gradient(targets=1, sources=2), total, x, y, b.constant(1.0))
    text = print_graph(b.graph(*gradients))
    assert "(f32[2], f32[2]) = gradient(%3, %0, %1, %4, targets=1, sources=2)" in text
    assert "= item(" in text
    assert same_graph(read_graph(text), b.graph(*gradients))


@pytest.mark.parametrize(
    "value",
    [0.1, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, [1.5, -2.5], [[1.0], [2.0]], []],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_constants_keep_their_bits(value: Any, dtype: str) -> None:
    b = Builder()
    graph = b.graph(b.apply(Constant.of(np.asarray(value), b.constant(0, dtype).dtype)))
    (node,) = read_graph(print_graph(graph)).outputs
    assert node.op == graph.outputs[0].op


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "int32"])
def test_integer_constants(dtype: str) -> None:
    b = Builder()
    graph = b.graph(b.apply(Constant.of(np.array([[0, 1]]), np.dtype(dtype))))
    assert print_graph(read_graph(print_graph(graph))) == print_graph(graph)


def test_large_constant_is_stated_and_does_not_read_back() -> None:
    b = Builder()
    text = print_graph(b.graph(b.apply(Constant.of(np.zeros((100,), np.float32)))))
    assert 'bits=unprintable("400 bytes")' in text
    with pytest.raises(ParseError, match="the printer left out 400 bytes"):
        read_graph(text)


def test_callable_setting_is_stated() -> None:
    def rule(ops: Any, inputs: Any, outs: Any, gs: Any) -> Any:
        return gs

    b = Builder()
    x = b.input(2)
    (out,) = b.apply(CustomGradient(count=1, rule=rule), x, b.ops.exp(x))
    text = print_graph(b.graph(out))
    assert 'rule=unprintable("function test_callable_setting_is_stated.<locals>.rule")' in text
    with pytest.raises(ParseError, match="setting rule"):
        read_graph(text)


def test_names_with_odd_characters() -> None:
    b = Builder("a b#c")
    graph = b.graph(b.ops.exp(b.input(2, label='w "1" # %0')))
    text = print_graph(graph)
    assert print_graph(read_graph(text)) == text
    assert read_graph(text).name == "a b#c"


BAD = {
    "f(": ("line 1, column 1", "graph NAME"),
    'graph f(%0: f99[2] "x") {': ("line 1, column 13", "a dtype from"),
    "graph f(%0: f32[2]) {": ("line 1, column 19", "a label"),
    'graph f(%0: f32[2] "x")': ("line 1, column 24", "{"),
    'graph f(%0: f32[2] "x") {\n  %1: f32[2] = ex(%0)': ("line 2, column 16", "exp"),
    'graph f(%0: f32[2] "x") {\n  %1: f32[3] = exp(%0)': (
        "line 2, column 7",
        "which the op infers",
    ),
    'graph f(%0: f32[2] "x") {\n  %1: f32[2] = exp(%0, 3)': (
        "line 2, column 24",
        "settings by name",
    ),
    'graph f(%0: f32[2] "x") {\n  %1: f32[2] = exp(%7)': ("line 2, column 20", "defined above"),
    'graph f(%0: f32[2] "x") {\n  %0: f32[2] = exp(%0)': ("line 2, column 4", "defined once"),
    'graph f(%0: f32[2] "x") {\n  %1: f32[2] = exp(%0': ("line 2", "setting=1"),
    'graph f(%0: i32[2] "x") {\n  %1: f32[2] = exp(%0)': ("line 2, column 16", "what the op takes"),
    'graph f(%0: f32[2] "x") {\n  nonsense': ("line 2, column 3", "effect, return"),
    'graph f(%0: f32[2] "x") {\n  return %0': ("line 2, column 1", "}"),
    'graph f(%0: f32[2] "x") {\n  return %0\n}\n  return %0': ("line 4, column 3", "the end"),
}


@pytest.mark.parametrize("text", BAD)
def test_errors_give_line_and_column(text: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_graph(text)
    for part in BAD[text]:
        assert part in str(caught.value)


@given(st.data())
def test_round_trip_of_random_graphs(data: Any) -> None:
    b = Builder()
    pool = [b.input(2, symbol("n")), b.input(2, 1), b.input(1, symbol("n"))]
    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["exp", "tanh", "add", "multiply", "sum", "where"]))
        x, y = (data.draw(st.sampled_from(pool)) for _ in range(2))
        if kind in ("exp", "tanh"):
            pool.append(getattr(b.ops, kind)(x))
        elif kind == "sum":
            pool.append(b.ops.sum(x, axes=(1,), keepdims=True))
        elif kind == "where":
            pool.append(b.ops.where(b.ops.less(x, 0.5), x, data.draw(st.floats(width=32))))
        else:
            pool.append(getattr(b.ops, kind)(x, y))
    graph = b.graph(*pool[-2:])
    text = print_graph(graph)
    assert print_graph(read_graph(text)) == text
