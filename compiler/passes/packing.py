"""Gradients of attention that the graph joins into one tensor: the gradient of a packed q, k and v.

Where q, k and v are slices of one tensor, its gradient is the sum of three padded tensors. The
library can write the three beside each other at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Var, atom, ravel, unravel
from graphnn.compiler.ops.attention import AttentionGradient
from graphnn.compiler.ops.attention_call import Place
from graphnn.compiler.ops.core import Item
from graphnn.compiler.ops.math import Add
from graphnn.compiler.ops.move import Pad
from graphnn.compiler.passes.access import is_alias
from graphnn.compiler.passes.affine import coefficients

PARTS = 3


@dataclass(frozen=True)
class Packed:
    """A gradient of attention and where its three results lie in one tensor."""

    source: Node
    places: tuple[Place, ...]


class Packing:
    """packed: tensors that are the three results of a gradient side by side, and nothing else.
    sources: the gradients that they replace."""

    def __init__(self, graph: Graph) -> None:
        self.packed: dict[Node, Packed] = {}
        self.sources: set[Node] = set()
        items = {
            n for n in graph.nodes
            if isinstance(n.op, Item) and isinstance(n.inputs[0].op, AttentionGradient)
        }  # fmt: skip
        if not items:
            return
        self.users = graph.users
        for node in graph.nodes:
            if isinstance(node.op, Add) and not self._is_inner(node):
                found = _joined(node)
                if found is not None and self._only_here(found.source, node):
                    self.packed[node] = found
                    self.sources.add(found.source)

    def _is_inner(self, node: Node) -> bool:
        """Whether the sum is itself a part of a sum of the same size."""
        return any(isinstance(u.op, Add) and u.shape == node.shape for u in self.users[node])

    def _only_here(self, source: Node, target: Node) -> bool:
        """Whether nothing else needs the three results."""
        seen: set[Node] = set()
        stack = list(self.users[source])
        while stack:
            node = stack.pop()
            if node is target or node in seen:
                continue
            seen.add(node)
            users = self.users[node]
            if not users:
                return False
            stack += users
            if not (isinstance(node.op, Item | Pad | Add) or is_alias(node)):
                return False
        return True


def _joined(node: Node) -> Packed | None:
    """The gradient whose results a sum of padded tensors joins without overlap."""
    leaves = list(_leaves(node))
    if len(leaves) != PARTS:
        return None
    found = [_placed(leaf, node.shape) for leaf in leaves]
    parts = {f[0]: f[1] for f in found if f is not None}
    sources = {item.inputs[0] for item in parts}
    if len(parts) != PARTS or len(sources) != 1:
        return None
    (source,) = sources
    by_index = {i.op.index: (i, place) for i, place in parts.items()}  # type: ignore[attr-defined]
    if set(by_index) != set(range(PARTS)):
        return None
    places = tuple(by_index[k][1] for k in range(PARTS))
    shapes = [by_index[k][0].shape for k in range(PARTS)]
    fits = shapes.count(shapes[0]) == PARTS and _tiles(places, shapes[0], node)
    return Packed(source, places) if fits else None


def _leaves(node: Node) -> Any:
    if isinstance(node.op, Add) and len({i.shape for i in node.inputs}) == 1:
        for i in node.inputs:
            yield from _leaves(i)
    else:
        yield node


def _placed(node: Node, shape: tuple[Any, ...]) -> tuple[Node, Place] | None:
    """(item, place) of a result that padding and reshaping have put into a larger tensor."""
    chain: list[Node] = []
    while isinstance(node.op, Pad) or is_alias(node):
        if isinstance(node.op, Pad) and (any(node.op.interior) or node.op.value != 0):
            return None
        chain.append(node)
        node = node.inputs[0]
    if not isinstance(node.op, Item) or not isinstance(node.inputs[0].op, AttentionGradient):
        return None
    index = [Var(f"x{k}", size) for k, size in enumerate(node.shape)]
    linear = ravel(tuple(map(atom, index)), node.shape)
    for step in reversed(chain):
        if isinstance(step.op, Pad):
            inner = unravel(linear, step.inputs[0].shape)
            moved = tuple(i + low for i, low in zip(inner, step.op.low, strict=True))
            linear = ravel(moved, step.shape)
    found = coefficients(linear, index)
    return None if found is None else (node, (found[0], tuple(found[1])))


def _tiles(places: tuple[Place, ...], shape: tuple[Any, ...], node: Node) -> bool:
    """Whether three tensors of a shape (batch, time, heads, depth) fill rows of a tensor."""
    _, time, heads, depth = shape
    row = heads * depth
    offsets = sorted(p[0] for p in places) if all(isinstance(p[0], int) for p in places) else []
    if offsets != [0, row, 2 * row]:
        return False
    wanted = (time * PARTS * row, PARTS * row, depth, 1)
    same_strides = all(
        s == w or n == 1 for p in places for s, w, n in zip(p[1], wanted, shape, strict=True)
    )
    return bool(same_strides and node.tensor.size == shape[0] * time * PARTS * row)
