"""The verifier finds broken graphs and shows the place."""

import dataclasses

import pytest

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ir.verify import neighbours, verify
from graphnn.compiler.ops.core import Gradient, Input, Item
from graphnn.runtime.errors import GraphError, Loc
from tests.graphs import Builder


def good() -> Graph:
    b = Builder()
    x = b.input(2, 3)
    owner, w = b.variable(2, 3)
    y = b.ops.multiply(x, w)
    b.trace.assign(owner, "v", w.tensor, b.ops.add(w, y))
    return b.graph(b.ops.exp(y))


def test_good_graph() -> None:
    verify(good(), level=2, expanded=True)


def refuses(graph: Graph, text: str, level: int = 1, expanded: bool = False) -> None:
    with pytest.raises(GraphError, match=text):
        verify(graph, "fuse", level, expanded)


def test_unlisted_input() -> None:
    graph = good()
    refuses(dataclasses.replace(graph, inputs=graph.inputs[1:]), "which the graph does not list")


def test_input_listed_twice() -> None:
    graph = good()
    refuses(dataclasses.replace(graph, inputs=graph.inputs * 2), "listed twice")


def test_update_of_another_type() -> None:
    graph = good()
    small = Node(Input(label="s"), (), TensorType((1,), float32))
    inputs = (*graph.inputs, small)
    refuses(Graph("f", inputs, graph.outputs, ((small, graph.outputs[0]),)), "a new value of type")


def test_two_updates_of_one_input() -> None:
    graph = good()
    refuses(dataclasses.replace(graph, updates=graph.updates * 2), "a second update")


def test_item_of_one_result() -> None:
    graph = good()
    item = Node(Item(index=0), (graph.outputs[0],), graph.outputs[0].type)
    refuses(dataclasses.replace(graph, outputs=(item,)), "which has one result")


def test_gradient_left_over() -> None:
    b = Builder()
    x = b.input(2)
    total = b.ops.sum(x, axes=(0,))
    graph = b.graph(*b.apply(Gradient(targets=1, sources=1), total, x, b.constant(1.0)))
    verify(graph, level=2)
    refuses(graph, "none after the gradient pass", expanded=True)


def test_wrong_type_is_found_by_level_2() -> None:
    graph = good()
    (out,) = graph.outputs
    wrong = Node(out.op, out.inputs, TensorType((9,), float32), Loc("model.py", 7))
    broken = dataclasses.replace(graph, outputs=(wrong,))
    verify(broken)
    refuses(broken, "which the op infers", level=2)


def test_message_shows_neighbours_and_line() -> None:
    graph = good()
    product = graph.outputs[0].inputs[0]
    assert neighbours(graph, product).splitlines() == [
        '       %0: f32[2,3] "x0"',
        '       %1: f32[2,3] variable "v"',
        "    -> %2: f32[2,3] = multiply(%0, %1)",
        "       %3: f32[2,3] = exp(%2)",
        "       %4: f32[2,3] = add(%1, %2)",
    ]
    wrong = Node(product.op, product.inputs, TensorType((9,), float32), Loc("model.py", 7))
    with pytest.raises(GraphError) as caught:
        verify(dataclasses.replace(graph, outputs=(wrong,)), "fuse", level=2)
    assert "graph f after pass fuse at model.py:7" in str(caught.value)
