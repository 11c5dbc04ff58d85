"""Narrow copies of Variables: the same numbers call after call, and no cast of the old value."""

from typing import Any

import ml_dtypes
import numpy as np

from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.verify import verify
from graphnn.compiler.passes.narrow import keep_narrow_copies
from graphnn.compiler.passes.pipeline import Pipeline
from tests.graphs import Builder


def assign(b: Builder, owner: Any, node: Any, value: Any) -> None:
    b.trace.assign(owner, "v", node.tensor, value)


def run(graph: Graph, arrays: list[Any], times: int) -> list[Any]:
    """Outputs of each of some calls; Variables keep what they were given."""
    positions = [graph.inputs.index(node) for node, _ in graph.updates]
    found = []
    for _ in range(times):
        outputs, updates = interpret(graph, arrays)
        found.append(outputs)
        for position, value in zip(positions, updates, strict=True):
            arrays[position] = value
    return found


def step(b: Builder) -> Graph:
    """Two layers of bfloat16 products, one weight used twice, plain descent."""
    x = b.input(4, 3)
    owners = [b.variable(3, 5, label="w"), b.variable(5, 3, label="u")]
    h = b.ops.cast(x, dtype="bfloat16")
    for _, weight in owners:
        h = b.ops.tanh(b.ops.matmul(h, b.ops.cast(weight, dtype="bfloat16")))
    again = b.ops.sum(b.ops.cast(owners[0][1], dtype="bfloat16"), axes=(0, 1))
    loss = b.ops.add(b.ops.sum(h, axes=(0, 1)), again)
    for owner, weight in owners:
        shrunk = b.ops.multiply(weight, 0.75)
        assign(b, owner, weight, shrunk)
    return Pipeline().run(b.graph(loss))


def test_the_same_numbers_over_several_calls() -> None:
    graph = step(Builder())
    kept, copies = keep_narrow_copies(graph)
    verify(kept, level=2, expanded=True)
    assert [(c.position, c.source, c.dtype.name) for c in copies] == [
        (3, 1, "bfloat16"),
        (4, 2, "bfloat16"),
    ]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=n.shape).astype(n.dtype) for n in graph.inputs]
    narrow = [arrays[c.source].astype(ml_dtypes.bfloat16) for c in copies]
    want, got = run(graph, list(arrays), 3), run(kept, [*arrays, *narrow], 3)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_only_new_values_are_cast() -> None:
    kept, copies = keep_narrow_copies(step(Builder()))
    casts = [n for n in kept.nodes if n.op.name == "cast" and n.dtype == ml_dtypes.bfloat16]
    old = {kept.inputs[c.source] for c in copies}
    assert casts and not any(n.inputs[0] in old for n in casts)


def test_nothing_to_keep() -> None:
    b = Builder()
    owner, fixed = b.variable(3, label="fixed")
    _, wide = b.variable(3, label="wide")
    x = b.ops.cast(b.input(3), dtype="float16")  # an argument
    y = b.ops.add(x, b.ops.cast(wide, dtype="float16"))  # a Variable that keeps its value
    z = b.ops.cast(fixed, dtype="float64")  # one that is widened
    assign(b, owner, fixed, b.ops.multiply(fixed, 2.0))
    graph = b.graph(y, z)
    assert keep_narrow_copies(graph) == (graph, ())


def test_variables_that_change_places() -> None:
    b = Builder()
    (one, v), (two, w) = b.variable(3, label="v"), b.variable(3, label="w")
    read = b.ops.cast(v, dtype="float16")
    assign(b, one, v, w)
    assign(b, two, w, v)
    graph = b.graph(read)
    kept, (copy,) = keep_narrow_copies(graph)
    arrays = [np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)]
    want = run(graph, list(arrays), 4)
    got = run(kept, [*arrays, arrays[copy.source].astype(np.float16)], 4)
    np.testing.assert_array_equal(want, got)
