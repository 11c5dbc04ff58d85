"""What the host does inside a program for a GPU: nodes placed there, grouped into few regions.

Regions and the GPU's work alternate: region 0, work 0, region 1, work 1 and so on. A node's number
is the least that its inputs allow, so no region waits for itself. Each region becomes one node,
`host_region`, which holds a graph of its own; constants are made anew on each side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size, symbol, symbols_of
from graphnn.compiler.ir.types import TensorType, TupleType
from graphnn.compiler.ops.base import NoGradient, Opaque
from graphnn.compiler.ops.core import Input, Item
from graphnn.compiler.passes.place import HOST, Placement, is_anywhere


class HostRegion(Opaque):
    """A graph that the host runs in the middle of a program for a GPU.

    graph: its inputs are those of the node, then an empty one for each of `sizes`, the symbolic
    sizes that no input tells.
    """

    name, effect = "host_region", True
    gradient = NoGradient("regions are made after gradients")
    graph: Graph
    sizes: tuple[Any, ...] = ()

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return tuple(o.tensor for o in self.graph.outputs)

    def arrays(self, given: Iterable[Any]) -> list[Any]:
        """The graph's inputs for those of the node, once sizes are numbers."""
        return [*given, *(np.empty((int(s), 0), np.bool_) for s in self.sizes)]

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return tuple(interpret(self.graph, self.arrays(arrays))[0])

    def text_settings(self) -> dict[str, Any]:
        return {"nodes": len(self.graph.nodes) - len(self.graph.inputs)}


def split(graph: Graph, placement: Placement) -> Graph:
    """The graph with a `host_region` for each group of nodes on the host.

    Inputs and results of the new graph that are in the host's memory have its name as `device`.
    """
    return _Split(graph, placement).run()


class _Split:
    def __init__(self, graph: Graph, placement: Placement) -> None:
        self.graph, self.ends = graph, placement.ends
        self.host = {n for n in graph.nodes if placement.devices[n] == HOST and not is_anywhere(n)}
        self.stage = self._stages()
        self.on_device: dict[Node, Node] = {}
        self.on_host: dict[Node, Node] = {}
        self.wanted_there, self.wanted_here = self._wanted()

    def _stages(self) -> dict[Node, int]:
        stage: dict[Node, int] = {}
        for node in self.graph.nodes:
            if is_anywhere(node):
                continue
            if isinstance(node.op, Input):
                stage[node] = 0 if node in self.host else -1
                continue
            here = node in self.host
            before = [stage[i] + (here and i not in self.host) for i in node.inputs if i in stage]
            stage[node] = max((0, *before))
        return stage

    def _wanted(self) -> tuple[dict[Node, None], dict[Node, int]]:
        """Values that the device needs from the host, and the region after which the host has what
        it needs of others: values of earlier regions, results, new values of its Variables."""
        there: dict[Node, None] = {}
        here: dict[Node, int] = {}
        for node in self.graph.nodes:
            for source in node.inputs:
                if source not in self.host:
                    continue
                if node not in self.host:
                    there[source] = None
                elif self.stage[node] > self.stage[source]:
                    here[source] = self.stage[source]
        for root, end in zip(self.graph.roots, self.ends, strict=True):
            if root in self.host and end not in ("", HOST):
                there[root] = None
            elif end == HOST:
                late = root not in self.host
                here[root] = self.stage.get(root, -1) + late
            elif root in self.host:
                here[root] = self.stage[root]  # an effect
        return there, here

    # ---- the new graph -------------------------------------------------------------------------

    def run(self) -> Graph:
        for node in self.graph.inputs:
            here = node in self.host
            own = replace(node, device=HOST if here else "")
            (self.on_host if here else self.on_device)[node] = own
        last = max([*self.stage.values(), *self.wanted_here.values(), 0])
        for number in range(last + 1):
            self._region(number)
            for node in self.graph.nodes:
                due = self.stage.get(node) == number and node not in self.host
                if due and not isinstance(node.op, Input):
                    inputs = tuple(self._there(i) for i in node.inputs)
                    self.on_device[node] = Node(node.op, inputs, node.type, node.loc)
        graph = self.graph
        ends = iter(self.ends)
        outputs = tuple(self._end(o, next(ends)) for o in graph.outputs)
        updates = tuple((self._given(i), self._end(v, next(ends))) for i, v in graph.updates)
        effects = tuple(self._end(e, HOST if e in self.host else "") for e in graph.effects)
        inputs = tuple(map(self._given, graph.inputs))
        return Graph(graph.name, inputs, outputs, updates, effects)

    def _given(self, node: Node) -> Node:
        return (self.on_host if node in self.host else self.on_device)[node]

    def _there(self, node: Node) -> Node:
        return node if is_anywhere(node) else self.on_device[node]

    def _end(self, node: Node, end: str) -> Node:
        return self.on_host[node] if end == HOST else self._there(node)

    # ---- regions -------------------------------------------------------------------------------

    def _region(self, number: int) -> None:
        """Make the node of a region, and items for what others need of it."""
        nodes = [n for n in self.graph.nodes if n in self.host and self.stage[n] == number]
        sent = [n for n in self.wanted_there if self.stage[n] == number]
        kept = [n for n, k in self.wanted_here.items() if k == number and n not in self.on_host]
        if not sent and not kept:
            return
        inside = [n for n in nodes if not isinstance(n.op, Input)]
        given: dict[Node, Node] = {}
        made: dict[Node, Node] = {}
        for node in (*inside, *sent, *kept):
            for source in (node,) if node not in inside else node.inputs:
                if source not in inside and source not in given and not is_anywhere(source):
                    label = source.op.label if isinstance(source.op, Input) else source.op.name
                    given[source] = Node(Input(label=label), (), source.type, source.loc)
        made.update(given)
        for node in inside:
            inputs = tuple(made.get(i, i) for i in node.inputs)
            made[node] = Node(node.op, inputs, node.type, node.loc)
        outputs = tuple(made.get(n, n) for n in (*sent, *kept))
        effects = tuple(made[e] for e in self.graph.effects if e in inside)
        graph, sizes = self._closed(number, tuple(given.values()), outputs, effects)
        inputs = tuple(self.on_host.get(n) or self.on_device[n] for n in given)
        types = tuple(o.tensor for o in outputs)
        loc = next((n.loc for n in (*inside, *sent, *kept) if n.loc), None)
        region = Node(HostRegion(graph=graph, sizes=sizes), inputs, TupleType(types), loc, HOST)
        for position, node in enumerate((*sent, *kept)):
            target = self.on_device if position < len(sent) else self.on_host
            device = "" if position < len(sent) else HOST
            item = Item(index=position)
            target[node] = Node(item, (region,), node.type, node.loc, device)

    def _closed(
        self,
        number: int,
        inputs: tuple[Node, ...],
        outputs: tuple[Node, ...],
        effects: tuple[Node, ...],
    ) -> tuple[Graph, tuple[Size, ...]]:
        """The graph of a region, with an empty input for each size that its inputs do not tell."""
        name = f"{self.graph.name}.host{number}"
        graph = Graph(name, inputs, outputs, (), effects)
        told = {str(s) for i in inputs for s in i.shape}
        used = symbols_of(s for n in graph.nodes for s in sizes_in(n))
        sizes: list[Size] = [symbol(s) for s in used if s not in told]
        empty = TensorType
        extra = tuple(
            Node(Input(label=f"size {s}"), (), empty((s, 0), np.dtype(np.bool_))) for s in sizes
        )
        return Graph(name, (*inputs, *extra), outputs, (), effects), tuple(sizes)


def sizes_in(node: Node) -> Iterator[Any]:
    """All sizes in a node's type and settings."""
    types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    for type in types:
        yield from type.shape
    yield from _flat(node.op.settings().values())


def _flat(values: Iterable[Any]) -> Iterator[Size]:
    for value in values:
        if isinstance(value, Size):
            yield value
        elif isinstance(value, tuple):
            yield from _flat(value)
