"""Equal groups are lowered and printed once: the layers of a deep network make the same kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from graphnn.compiler.codegen.cuda import CudaText
from graphnn.compiler.codegen.lower import Lowered
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ops.base import Op
from graphnn.compiler.passes.fuse import Group, Partition

Made = tuple[Lowered | None, CudaText | None]


class Kernels:
    """What has been made of groups, by what they compute."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.known: dict[Any, tuple[Lowered, CudaText | None, list[Node]]] = {}
        self.first: dict[str, CudaText] = {}

    def lowered(self, group: Group, make: Callable[[Group], Made]) -> Made:
        """make(group), or what it gave for an equal group, with this group's nodes.

        Kernels with runtime checks are made anew, since their errors name the user's line.
        """
        key, nodes = signature(self.partition, group)
        found = self.known.get(key)
        if found is None:
            lowered, text = make(group)
            text = text and self.named(text)
            if lowered is not None and not lowered.kernel.checks:
                self.known[key] = lowered, text, nodes
            return lowered, text
        lowered, text, others = found
        mine = dict(zip(others, nodes, strict=True))
        return replace(lowered, node_of={b: mine[n] for b, n in lowered.node_of.items()}), text

    def named(self, text: CudaText) -> CudaText:
        """A kernel's text under the name of the first with equal code.

        A name is a stem, which says in which order the ops came, and the hash of the code.
        """
        first = self.first.setdefault(text.name.rpartition("_")[2], text)
        if first.name == text.name:
            return text
        return replace(text, name=first.name, text=first.text, many=first.many)


def signature(partition: Partition, group: Group) -> tuple[Any, list[Node]]:
    """What a group computes, and its nodes in a fixed order: equal groups differ only in those."""
    number: dict[Node, int] = {}
    pending = list(reversed(group.nodes))
    while pending:
        node = pending.pop()
        if node in number:
            continue
        number[node] = len(number)
        base = partition.aliases.get(node)
        pending += [] if base is None else [base]
        if node in group.levels or node in partition.inlined:
            pending += reversed(node.inputs)
    parts = [_part(partition, group, node, number) for node in number]
    frame = group.frame
    return (group.kind, frame.rows, frame.cols, frame.fixed, *parts), list(number)


def _part(partition: Partition, group: Group, node: Node, number: dict[Node, int]) -> Any:
    inside = node in group.levels or node in partition.inlined
    base = partition.aliases.get(node)
    return (
        _settings(node.op) if inside else None,
        node.type,
        group.levels.get(node),
        node in partition.inlined,
        node in partition.stored,
        tuple(number[i] for i in node.inputs) if inside else (),
        -1 if base is None else number[base],
    )


def _settings(op: Op) -> Any:
    """An op as a key: floats by their text, for 0.0 and -0.0 are equal, and 1 and True are too."""
    return (type(op), *((k, type(v), _exact(v)) for k, v in op.settings().items()))


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, tuple):
        return tuple((type(v), _exact(v)) for v in value)
    return value
