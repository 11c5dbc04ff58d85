"""Constant folding, algebra, merging of equal expressions, and dead code.

Rules about one op live with the op, as a method `fold(ops, *inputs) -> node or None` that must
keep every result to the last bit (NaN, infinities and signed zeros too) or to rounding; here are
only those that hold for whole families.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ops.algebra import uniform
from graphnn.compiler.ops.base import Elementwise, Opaque, Source
from graphnn.compiler.ops.core import Constant, Gradient, Input
from graphnn.compiler.passes.rewrite import Application, Builder, Rule, is_small
from graphnn.compiler.trace import SMALL
from graphnn.runtime.errors import GraphnnError


@dataclass(frozen=True)
class Simplify:
    """One sweep in order: rules, then merging of equal expressions; what nothing needs is gone."""

    name: ClassVar[str] = "simplify"
    merge: bool = True

    def run(self, graph: Graph) -> Graph:
        """The simplified graph; the same object if nothing has changed."""
        gradients = [n for n in graph.nodes if isinstance(n.op, Gradient)]
        if any(_has_inner_ends(n) for n in gradients):
            # A path that a gradient follows, and an equal one outside of it, must stay apart.
            return graph
        rules = BEFORE_GRADIENT if gradients else RULES
        builder = Builder(rules, self.merge)
        rewriter = Rewriter()
        for node in graph.nodes:
            rewriter.replace[node] = _rebuilt(builder, rewriter, node)
        if all(new is old for old, new in rewriter.replace.items()):
            return graph
        return rewriter.graph(graph)


def _has_inner_ends(node: Node) -> bool:
    op: Any = node.op
    first, second = op.targets, op.targets + op.sources
    sources, ends = node.inputs[first:second], node.inputs[second : second + op.constants]
    return not all(isinstance(n.op, Input) for n in sources) or any(n.inputs for n in ends)


def _rebuilt(builder: Builder, rewriter: Rewriter, node: Node) -> Node:
    if isinstance(node.op, Input):
        return node
    builder.at(node)
    return builder.make(Application(node.op, rewriter.inputs(node), node.type), node)


# ---- rules --------------------------------------------------------------------------------


def fold_constants(builder: Builder, new: Application) -> Node | None:
    """An op on constants alone is a constant, if it stays small."""
    op = new.op
    if not all(isinstance(n.op, Constant) for n in new.inputs):
        return None
    if isinstance(op, Constant | Opaque | Input) or op.effect or not is_small(new.type, SMALL):
        return None
    if not new.inputs and not isinstance(op, Source):
        return None
    if any(isinstance(s, Size) or has_size(s) for s in op.settings().values()):
        return None
    try:
        with np.errstate(all="ignore"):
            value = op.eager(np, *(n.op.value for n in new.inputs))  # type: ignore[attr-defined]
    except GraphnnError:  # e.g. an index out of range: the error belongs to the call
        return None
    constant = Constant.of(value, new.type.dtype)  # type: ignore[union-attr]
    return builder.apply(constant, ())  # type: ignore[no-any-return]


def has_size(value: Any) -> bool:
    """Whether a setting holds a symbolic size."""
    return isinstance(value, tuple) and any(isinstance(v, Size) or has_size(v) for v in value)


def fold_by_op(builder: Builder, new: Application) -> Node | None:
    """The algebra that the op itself states."""
    return new.op.fold(builder.ops, *new.inputs)  # type: ignore[no-any-return]


def drop_for_gradients(builder: Builder, new: Application) -> Node | None:
    """Once gradients are written out, nothing looks at where they stop."""
    return new.inputs[0] if new.op.for_gradients else None


def drop_broadcast(builder: Builder, new: Application) -> Node | None:
    """An elementwise op stretches its inputs itself: no broadcasts, no tensors of one number."""
    if not isinstance(new.op, Elementwise) or len(new.inputs) < 2:
        return None
    inputs = new.inputs
    for position, node in enumerate(inputs):
        smaller = _smaller(builder, node)
        if smaller is not None:
            shorter = (*inputs[:position], smaller, *inputs[position + 1 :])
            if _stretched(shorter) == new.type.shape:  # type: ignore[union-attr]
                inputs = shorter
    if inputs is new.inputs:
        return None
    return builder.apply(new.op, inputs)  # type: ignore[no-any-return]


def _smaller(builder: Builder, node: Node) -> Node | None:
    """A node that gives the same when it is stretched."""
    if node.op.stretches:
        return node.inputs[0]
    if isinstance(node.op, Constant) and not node.shape:
        return None
    value = uniform(node)
    if not isinstance(value, bool | int | float):
        return None
    return builder.apply(Constant.of(value, node.dtype), ())  # type: ignore[no-any-return]


def _stretched(nodes: Sequence[Node]) -> tuple[Any, ...]:
    ndim = max(len(n.shape) for n in nodes)
    shape: list[Any] = [1] * ndim
    for node in nodes:
        for axis, size in enumerate(node.shape, ndim - len(node.shape)):
            shape[axis] = size if size != 1 else shape[axis]
    return tuple(shape)


BEFORE_GRADIENT: tuple[Rule, ...] = (fold_constants, fold_by_op)
RULES: tuple[Rule, ...] = (fold_constants, fold_by_op, drop_for_gradients, drop_broadcast)
