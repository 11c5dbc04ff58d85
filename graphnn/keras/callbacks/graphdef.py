"""A graph of the compiler as the GraphDef that TensorBoard's graph tab shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.core import Constant, Input

_REST = "loss"  # scope of what stands in no layer and comes from no Variable


def graph_def(graph: Graph) -> Any:
    """A GraphDef with one node for each node of the graph.

    Layers' paths are name scopes. What lies outside of layers stands in the scope of the optimizer
    or metric whose Variables it comes from, or in "loss". Each node tells its shape, dtype,
    settings and the user's line. Results and new values of Variables are nodes too.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    names = _names(graph)
    result = GraphDef()
    for node in graph.nodes:
        added = result.node.add(name=names[node], op=_kind(node), device="/device:CPU:0")
        added.input.extend(names[source] for source in node.inputs)
        _describe(added, node)
    for number, node in enumerate(graph.outputs):
        added = result.node.add(name=f"outputs/output_{number}", op="Identity")
        added.input.append(names[node])
    for variable, value in graph.updates:
        added = result.node.add(name=f"{names[variable]}_assign", op="Assign")
        added.input.extend((names[variable], names[value]))
    return result


def _kind(node: Node) -> str:
    if isinstance(node.op, Input):
        return "Variable" if node.op.kind == "variable" else "Placeholder"
    return "Const" if isinstance(node.op, Constant) else type(node.op).__name__


def _names(graph: Graph) -> dict[Node, str]:
    """A unique name for each node: its scope, then the name of its op or Variable."""
    scopes: dict[Node, str] = {}
    names: dict[Node, str] = {}
    used: Counter[str] = Counter()
    for node in graph.nodes:
        scopes[node] = _scope(node, scopes)
        wanted = f"{scopes[node]}/{_own_name(node)}"
        number = used[wanted]
        used[wanted] += 1
        names[node] = f"{wanted}_{number}" if number else wanted
    return names


def _own_name(node: Node) -> str:
    label = str(getattr(node.op, "label", "")) if isinstance(node.op, Input) else ""
    own = label.rsplit("/", 1)[-1] or node.op.name
    return "".join(c if c.isalnum() or c in "_." else "_" for c in own)


def _scope(node: Node, scopes: dict[Node, str]) -> str:
    if node.loc is not None and node.loc.layer:
        return node.loc.layer
    if isinstance(node.op, Input):
        label = str(node.op.label)
        return label.split("/", 1)[0] if "/" in label else "inputs"
    # Of the layers' values the loss is made, and so it does not stand in one.
    found = (
        scopes[source]
        for source in node.inputs
        if (source.loc is None or not source.loc.layer) and scopes[source] != "inputs"
    )
    return next((scope for scope in found if scope != _REST), _REST)


def _describe(added: Any, node: Node) -> None:
    """Shape, dtype, settings and line of a node, as attributes."""
    if isinstance(node.type, TensorType):
        shape = added.attr["_output_shapes"].list.shape.add()
        for size in node.type.shape:
            shape.dim.add(size=-1 if isinstance(size, Size) else int(size))
    added.attr["type"].s = str(node.type).encode()
    if node.loc is not None:
        added.attr["line"].s = f"{node.loc.file}:{node.loc.line}".encode()
    if isinstance(node.op, Constant):
        return
    for setting in fields(node.op):
        added.attr[setting.name].s = str(getattr(node.op, setting.name)).encode()
