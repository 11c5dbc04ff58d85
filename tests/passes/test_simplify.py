"""Algebra, folding, merging: what goes, what must stay, and that values are the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.verify import verify
from graphnn.compiler.ops.core import Barrier, Constant, Gradient, HostCall
from graphnn.compiler.passes.rewrite import Application
from graphnn.compiler.passes.rewrite import Builder as Rewriting
from graphnn.compiler.passes.simplify import Simplify
from graphnn.runtime.errors import GraphError
from tests.graphs import Builder, arrays_for, assert_same, names, values

Make = Callable[[Builder, Any, Any], Node]


def simplified(make: Make, dtype: str = "float32") -> list[str]:
    """Names of the ops that are left; checks that the values stay the same."""
    b = Builder()
    x, y = b.input(3, 4, dtype=dtype), b.input(3, 4, dtype=dtype)
    graph = b.graph(make(b, x, y))
    new = Simplify().run(graph)
    verify(new, level=2)
    assert new.outputs[0].type == graph.outputs[0].type
    assert_same(graph, new, arrays_for(graph))
    return names(new)


GONE: dict[str, Make] = {
    "x * 1": lambda b, x, y: b.ops.multiply(x, 1.0),
    "1 * x": lambda b, x, y: b.ops.multiply(b.constant(np.ones((3, 1))), x),
    "x - 0": lambda b, x, y: b.ops.subtract(x, 0.0),
    "x + -0": lambda b, x, y: b.ops.add(x, -0.0),
    "x / 1": lambda b, x, y: b.ops.divide(x, 1.0),
    "x ** 1": lambda b, x, y: b.ops.power(x, 1.0),
    "--x": lambda b, x, y: b.ops.negative(b.ops.negative(x)),
    "identity": lambda b, x, y: b.ops.identity(x),
    "stop_gradient": lambda b, x, y: b.ops.stop_gradient(x),
    "cast to itself": lambda b, x, y: b.ops.cast(x, dtype="float32"),
    "there and back": lambda b, x, y: b.ops.cast(b.ops.cast(x, dtype="float64"), dtype="float32"),
    "transposed twice": lambda b, x, y: b.ops.permute_dims(
        b.ops.permute_dims(x, axes=(1, 0)), axes=(1, 0)
    ),
    "reshaped back": lambda b, x, y: b.ops.reshape(b.ops.reshape(x, shape=(12,)), shape=(3, 4)),
    "broadcast to its shape": lambda b, x, y: b.ops.broadcast_to(x, shape=(3, 4)),
    "where true": lambda b, x, y: b.ops.where(b.constant(True, "bool"), x, y),
    "where false": lambda b, x, y: b.ops.where(b.constant(np.zeros((3, 1)), "bool"), y, x),
    "where same": lambda b, x, y: b.ops.where(b.ops.less(x, y), x, x),
    "sum over nothing": lambda b, x, y: b.ops.sum(x, axes=()),
    "maximum of itself": lambda b, x, y: b.ops.maximum(x, x),
}


@pytest.mark.parametrize("case", GONE)
def test_nothing_is_left(case: str) -> None:
    assert simplified(GONE[case]) == []


LEFT: dict[str, tuple[Make, list[str]]] = {
    "x + 0 keeps the sign of zero": (lambda b, x, y: b.ops.add(x, 0.0), ["constant", "add"]),
    "x * 0 keeps nan": (lambda b, x, y: b.ops.multiply(x, 0.0), ["constant", "multiply"]),
    "x - x keeps nan": (lambda b, x, y: b.ops.subtract(x, x), ["subtract"]),
    "x + -y": (lambda b, x, y: b.ops.add(x, b.ops.negative(y)), ["subtract"]),
    "x - -y": (lambda b, x, y: b.ops.subtract(x, b.ops.negative(y)), ["add"]),
    "x ** 2": (lambda b, x, y: b.ops.power(x, 2.0), ["square"]),
    "x * -1": (lambda b, x, y: b.ops.multiply(x, -1.0), ["negative"]),
    "equal expressions": (
        lambda b, x, y: b.ops.exp(b.ops.add(b.ops.multiply(x, y), b.ops.multiply(y, x))),
        ["multiply", "add", "exp"],
    ),
    "x - y is not y - x": (
        lambda b, x, y: b.ops.multiply(b.ops.subtract(x, y), b.ops.subtract(y, x)),
        ["subtract", "subtract", "multiply"],
    ),
    "constants": (
        lambda b, x, y: b.ops.multiply(x, b.ops.exp(b.ops.add(b.constant(1.0), b.constant(2.0)))),
        ["constant", "multiply"],
    ),
    "broadcast operand": (
        lambda b, x, y: b.ops.add(x, b.ops.broadcast_to(b.ops.max(y, axes=(0,)), shape=(3, 4))),
        ["max", "add"],
    ),
    "uniform operand": (
        lambda b, x, y: b.ops.multiply(
            x, b.ops.expand_dims(b.ops.full(shape=(4,), dtype="float32", value=0.5), axes=(0,))
        ),
        ["constant", "multiply"],
    ),
    "transposed operand": (
        lambda b, x, y: b.ops.matmul(x, b.ops.permute_dims(y, axes=(1, 0))),
        ["matmul"],
    ),
    "narrow cast stays": (
        lambda b, x, y: b.ops.cast(b.ops.cast(x, dtype="float16"), dtype="float32"),
        ["cast", "cast"],
    ),
    "reduction over size 1": (
        lambda b, x, y: b.ops.sum(b.ops.expand_dims(x, axes=(1,)), axes=(1,)),
        [],
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left(case: str) -> None:
    make, expected = LEFT[case]
    assert simplified(make) == expected


def test_integers_may_lose_zeros() -> None:
    assert simplified(lambda b, x, y: b.ops.add(x, 0), "int32") == []
    assert simplified(lambda b, x, y: b.ops.multiply(x, 0), "int32") == ["constant"]


@pytest.mark.parametrize("value", [-0.0, np.nan, np.inf, -np.inf])
def test_special_values_stay(value: float) -> None:
    b = Builder()
    x = b.input(2)
    outs = [
        b.ops.divide(1.0, b.ops.add(x, 0.0)),
        b.ops.multiply(x, 0.0),
        b.ops.subtract(x, x),
        b.ops.negative(b.ops.subtract(x, 1.0)),
        b.ops.multiply(b.ops.negative(x), b.ops.negative(x)),
    ]
    graph = b.graph(*outs)
    arrays = [np.full((2,), value, np.float32)]
    for old, new in zip(values(graph, arrays), values(Simplify().run(graph), arrays), strict=True):
        np.testing.assert_array_equal(old, new)
        if not np.isnan(value):  # the sign of NaN means nothing
            np.testing.assert_array_equal(np.signbit(old), np.signbit(new))


def test_zeros_of_two_signs_are_two_constants() -> None:
    b = Builder()
    x = b.input(2)
    graph = b.graph(b.ops.maximum(x, 0.0), b.ops.maximum(x, -0.0))
    assert names(Simplify().run(graph)).count("constant") == 2
    full = [b.ops.full(shape=(2, 9), dtype="float32", value=v) for v in (0.0, -0.0)]
    assert names(Simplify().run(b.graph(*full))) == ["full", "full"]


def test_barriers_effects_and_inputs_are_kept_apart() -> None:
    b = Builder()
    x = b.input(2)
    first, second, again = (b.apply(Barrier(key=k), x) for k in (1, 2, 1))
    assert names(Simplify().run(b.graph(first, second, again))) == ["barrier", "barrier"]

    calls = [b.apply(HostCall(function=np.exp, types=(x.tensor,)), x)[0] for _ in range(2)]
    assert names(Simplify().run(b.graph(*calls))).count("host_call") == 2

    _, v = b.variable(2)
    _, w = b.variable(2)
    assert len(Simplify().run(b.graph(b.ops.add(v, w))).inputs) == 3


def test_unread_nodes_go_and_inputs_stay() -> None:
    b = Builder()
    x, y = b.input(2), b.input(2)
    b.ops.exp(y)
    graph = Simplify().run(b.graph(b.ops.multiply(b.ops.exp(x), 1.0)))
    assert names(graph) == ["exp"]
    assert len(graph.inputs) == 2


def test_symbolic_sizes() -> None:
    b = Builder()
    n = symbol("n")
    x = b.input(n, 4)
    wide = b.ops.broadcast_to(b.ops.reshape(x, shape=(n, 1, 4)), shape=(n, 3, 4))
    new = Simplify().run(b.graph(b.ops.multiply(wide, b.input(n, 3, 4))))
    assert names(new) == ["reshape", "multiply"] or names(new) == ["expand_dims", "multiply"]
    verify(new, level=2)


def test_before_gradients_sources_stay_apart() -> None:
    # y is computed twice from x; only one of both is differentiated.
    b = Builder()
    x = b.input(3)
    y, z = b.ops.multiply(x, 2.0), b.ops.multiply(x, 2.0)
    total = b.ops.sum(b.ops.multiply(y, z), axes=(0,))
    (g,) = b.apply(Gradient(targets=1, sources=1), total, y, b.constant(1.0))
    graph = b.graph(g)
    assert Simplify().run(graph) is graph


def test_unchanged_graph_is_the_same_object() -> None:
    b = Builder()
    graph = b.graph(b.ops.exp(b.input(2)))
    assert Simplify().run(graph) is graph


def test_first_place_is_kept() -> None:
    b = Builder()
    x = b.input(2)
    graph = b.graph(b.ops.exp(x), b.ops.exp(x))
    new = Simplify().run(graph)
    assert new.outputs[0] is new.outputs[1] is graph.outputs[0]


def test_looping_rule_is_named() -> None:
    def turn_round(builder: Rewriting, new: Application) -> Node | None:
        if new.op.name != "add":
            return None
        return builder.apply(new.op, new.inputs[::-1])  # type: ignore[no-any-return]

    b = Builder()
    x, y = b.input(2), b.input(2)
    builder = Rewriting((turn_round,))
    with pytest.raises(GraphError, match=r"turn_round on add[^$]*64 rewrites"):
        builder.apply(b.ops.add(x, y).op, (x, y))


def test_rule_that_changes_the_type_is_named() -> None:
    def wrong(builder: Rewriting, new: Application) -> Node | None:
        return builder.apply(Constant.of(1, np.dtype("int8")), ()) if new.inputs else None

    b = Builder()
    x = b.input(2)
    with pytest.raises(GraphError, match="wrong on exp"):
        Rewriting((wrong,)).apply(b.ops.exp(x).op, (x,))


def test_a_thousand_nodes_take_a_moment() -> None:
    import time

    b = Builder()
    x = b.input(2)
    for _ in range(1000):
        x = b.ops.exp(b.ops.multiply(x, 0.5))
    graph: Graph = b.graph(x)
    start = time.perf_counter()
    Simplify().run(graph)
    assert time.perf_counter() - start < 0.5
