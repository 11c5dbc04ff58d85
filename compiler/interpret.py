"""The reference interpreter: runs a graph node by node with each op's `eager` rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.core import Input
from graphnn.runtime.errors import ShapeError


def bind_sizes(graph: Graph, arrays: Sequence[Any]) -> dict[Any, int]:
    """Values of the symbolic sizes, read off the arrays; ShapeError where they disagree."""
    env: dict[Any, int] = {}
    for node, array in zip(graph.inputs, arrays, strict=True):
        for size, extent in zip(node.shape, array.shape, strict=True):
            if isinstance(size, Size) and env.setdefault(str(size), extent) != extent:
                raise ShapeError(
                    graph.name,
                    received=f"sizes {env[str(size)]} and {extent} for {size}",
                    expected="one size for one symbol",
                    fix="pass arguments whose shared axes agree",
                )
    return env


def interpret(
    graph: Graph,
    arrays: Sequence[Any],
    watch: Callable[[Node, Any], None] | None = None,
) -> tuple[list[Any], list[Any]]:
    """(outputs, new values of the updated inputs) for arrays given in the order of the inputs.

    watch(node, value) sees every value, for comparing two modes node by node.
    """
    env = bind_sizes(graph, arrays)
    values: dict[Node, Any] = dict(zip(graph.inputs, map(np.asarray, arrays), strict=True))
    for node in graph.nodes:
        if isinstance(node.op, Input):
            continue
        op = node.op.bind(env) if env else node.op
        value = op.eager(np, *(values[i] for i in node.inputs))
        if isinstance(node.type, TensorType):
            value = np.asarray(value, node.type.dtype)
        values[node] = value
        if watch is not None:
            watch(node, value)
    updates = [np.array(values[v]) for _, v in graph.updates]
    return [values[o] for o in graph.outputs], updates
