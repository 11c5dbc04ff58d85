"""A graph for several GPUs, cut into graphs for one GPU each and what is exchanged in between.

What a replica of a strategy has recorded names its GPU and runs there. What stands outside of the
replicas (the rules of optimizers, logs) names none: its elementwise ops run on every GPU that needs
their result, which gives the same bits everywhere; all else of it runs once, on the first GPU, and
is sent to the others. So the copies of a mirrored Variable stay equal without being compared.

Stages and exchanges alternate. An exchange sends values from GPU to GPU, and adds up what stands in
`all_reduce` nodes: if each replica's part is on a GPU of its own and several GPUs want the sum. All
that an exchange waits for is computed as late as possible, so that few values wait in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.sizes import Size, symbol, symbols_of
from graphnn.compiler.ir.types import TensorType, TupleType
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.collective import AllReduce
from graphnn.compiler.ops.core import Input, Item
from graphnn.compiler.passes.place import is_anywhere
from graphnn.compiler.passes.regions import sizes_in
from graphnn.compiler.trace import GraphHandler

GPU = "/device:GPU:"
Value = tuple[Node, str]  # a node's value on a device
# Dtypes that the library for collectives adds; others are sent and added like any other values.
ADDED = frozenset("int8 uint8 int32 uint32 int64 uint64 float16 bfloat16 float32 float64".split())


@dataclass(frozen=True)
class Transfer:
    """A copy to another device. source, target: keys of the value there and here.

    constant: whether the value is the same in all runs.
    """

    source: int
    target: int
    device: str
    constant: bool = False


@dataclass(frozen=True)
class Reduction:
    """Sums over devices. inputs, outputs: for each device the keys of its tensors, in one order."""

    devices: tuple[str, ...]
    dtype: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Exchange:
    """What goes from device to device between two stages: sums first, then copies."""

    reductions: tuple[Reduction, ...]
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True)
class Part:
    """The graph of one device in one stage.

    inputs: a key for each input of the graph but the last ones; None for a Variable, whose position
    among the inputs of the whole graph stands in `variables`, by position here. sizes: symbols that
    no input tells; for each there is an empty input at the end. outputs: keys of the results.
    """

    device: str
    graph: Graph
    inputs: tuple[int | None, ...]
    variables: Mapping[int, int]
    sizes: tuple[Size, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Spread:
    """A graph for several devices, the first of which has the results.

    given: for each input the devices and keys where its array is to be. stages: the parts of each.
    exchanges: one before each stage. outputs: keys. count: of all keys.
    """

    devices: tuple[str, ...]
    given: tuple[Mapping[str, int], ...]
    stages: tuple[tuple[Part, ...], ...]
    exchanges: tuple[Exchange, ...]
    outputs: tuple[int, ...]
    count: int


def spread(graph: Graph, home: str, homes: Mapping[int, tuple[str, ...]]) -> Spread:
    """Cut a graph whose gradients are written out.

    home: the device of the results. homes: devices of inputs by position; other inputs are wanted
    where they are read, or at home if that is in several places.
    """
    graph = _without_means(graph)
    plan = _Plan(graph, home, homes)
    plan.demand()
    plan.early_stages()
    plan.stages()
    return _Cutter(plan).run()


def _without_means(graph: Graph) -> Graph:
    """Means over replicas as sums that are divided, where they are needed."""
    if not any(isinstance(n.op, AllReduce) and n.op.kind == "mean" for n in graph.nodes):
        return graph
    rewriter, handler = Rewriter(), GraphHandler()
    ops = Ops(handler)
    for node in graph.nodes:
        new = rewriter.copy(node)
        if isinstance(node.op, AllReduce) and node.op.kind == "mean":
            new = replace(new, op=replace(node.op, kind="sum"))
        producer = node.inputs[0].op if isinstance(node.op, Item) else None
        if isinstance(producer, AllReduce) and producer.kind == "mean":
            handler.at(node)
            new = ops.divide(new, producer.replicas)
        rewriter.replace[node] = new
    return rewriter.graph(graph)


def _is_repeatable(node: Node) -> bool:
    """Whether a node gives the same bits on every GPU, whatever it is computed together with."""
    if isinstance(node.op, AllReduce):
        return True  # additions
    single = not isinstance(node.type, TupleType) and not node.op.effect
    return single and node.op.fusion in ("map", "view")


@dataclass
class _Sum:
    """An `all_reduce` that several devices do together. at: the exchange."""

    node: Node
    devices: tuple[str, ...]
    at: int = 0

    def rows(self) -> Iterator[tuple[str, tuple[Node, ...]]]:
        """Each device and its tensors."""
        count = len(self.node.inputs) // len(self.devices)
        for place, device in enumerate(self.devices):
            yield device, self.node.inputs[place * count : (place + 1) * count]


@dataclass
class _Plan:
    """Where and in which stage each value is computed.

    native: the devices on which a value is there without being sent: given, computed or summed.
    early: the first stage in which it can be used there, if it is given or summed, or computed.
    stage: in which it is computed.
    """

    graph: Graph
    home: str
    homes: Mapping[int, tuple[str, ...]]
    need: dict[Node, dict[str, None]] = field(default_factory=dict)
    native: dict[Node, tuple[str, ...]] = field(default_factory=dict)
    sums: dict[Node, _Sum] = field(default_factory=dict)
    summands: dict[Node, str] = field(default_factory=dict)  # inputs that are summed themselves
    early: dict[Value, int] = field(default_factory=dict)
    stage: dict[Value, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = self.graph.nodes
        self.position = {node: i for i, node in enumerate(self.graph.inputs)}
        self.need = {n: {} for n in self.nodes}
        found = {n.device for n in self.nodes if n.device.startswith(GPU)}
        found |= {d for devices in self.homes.values() for d in devices}
        self.devices = (self.home, *sorted(found - {self.home}, key=lambda d: (len(d), d)))

    # ---- where ---------------------------------------------------------------------------------

    def fixed(self, node: Node) -> str | None:
        """The only device of a node; None if it is computed wherever it is needed."""
        if isinstance(node.op, Item):
            return self.fixed(node.inputs[0])
        if node.device.startswith(GPU):
            return node.device
        return None if not node.device and _is_repeatable(node) else self.home

    def given(self, node: Node) -> tuple[str, ...]:
        """The devices of an input."""
        known = self.homes.get(self.position[node])
        if known or node in self.summands:
            return known or (self.summands[node],)
        if node.device.startswith(GPU):
            return (node.device,)
        wanted = tuple(self.need[node])
        return wanted if len(wanted) == 1 else (self.home,)

    def demand(self) -> None:
        """Find out on which devices each value is needed, and so where it is computed."""
        need = self.need
        for root in self.graph.outputs:
            need[root][self.home] = None
        for variable, value in self.graph.updates:
            need[value] |= dict.fromkeys(self.given(variable))
        for effect in self.graph.effects:
            need[effect][self.fixed(effect) or self.home] = None
        for node in reversed(self.nodes):
            if isinstance(node.op, Input):
                self.native[node] = self.given(node)
            elif isinstance(node.op, Item):
                need[node.inputs[0]] |= need[node]
            elif not is_anywhere(node):
                self._compute(node)
        for node in self.nodes:
            if isinstance(node.op, Item):
                self.native[node] = self.native[node.inputs[0]]

    def _compute(self, node: Node) -> None:
        together = self._together(node)
        if together is not None:
            self.sums[node] = together
            self.native[node] = together.devices
            for device, row in together.rows():
                for source in row:
                    self.need[source][device] = None
                    if isinstance(source.op, Input):
                        self.summands[source] = device
            return
        only = self.fixed(node)
        where = tuple(self.need[node]) if only is None else (only,)
        self.native[node] = where
        for source in node.inputs:
            self.need[source] |= dict.fromkeys(where)

    def _together(self, node: Node) -> _Sum | None:
        """The sum that devices do together, if that is possible and of use."""
        if not isinstance(node.op, AllReduce) or len(self.need[node]) < 2:
            return None
        count = len(node.inputs) // node.op.replicas
        devices = []
        for place in range(node.op.replicas):
            row = node.inputs[place * count : (place + 1) * count]
            found = {self._side(n) for n in row if not is_anywhere(n)}
            if len(found) != 1 or None in found:
                return None
            devices.append(str(found.pop()))
        added = all(n.dtype.name in ADDED for n in node.inputs)
        distinct = len(set(devices)) == len(devices) > 1
        return _Sum(node, tuple(devices)) if added and distinct else None

    def _side(self, node: Node) -> str | None:
        """The only device of a value, if there is one."""
        if not isinstance(node.op, Input):
            return self.fixed(node)
        known = self.homes.get(self.position[node], ())
        if known or node.device:
            return known[0] if len(known) == 1 else node.device or None
        if node in self.summands:
            return self.summands[node]
        users = [u for u in self.graph.users[node] if not isinstance(u.op, AllReduce)]
        found = {self.fixed(u) for u in users}
        return found.pop() if len(found) == 1 else None

    # ---- when ----------------------------------------------------------------------------------

    def is_passive(self, node: Node) -> bool:
        """Whether a value is there without being computed in a stage."""
        return isinstance(node.op, Input) or self.summed(node) is not None

    def summed(self, node: Node) -> _Sum | None:
        """The sum over devices that a value is an item of."""
        return self.sums.get(node.inputs[0]) if isinstance(node.op, Item) else None

    def source(self, node: Node) -> str:
        """The device from which a value is sent."""
        return self.native[node][0]

    def sent_at(self, node: Node) -> int:
        """The exchange in which a value is sent: number k comes before stage k."""
        early = self.early[node, self.source(node)]
        return early if self.is_passive(node) else early + 1

    def arrives(self, node: Node, device: str) -> int:
        """The first stage that can use a value on a device."""
        if is_anywhere(node):
            return 0
        if device in self.native[node]:
            known = self.stage.get((node, device))
            return self.early[node, device] if known is None else known
        return self.sent_at(node)

    def early_stages(self) -> None:
        """The first stage in which each value can be had."""
        for node in self.nodes:
            if is_anywhere(node):
                continue
            if isinstance(node.op, Input):
                self.early |= {(node, d): 0 for d in self.native[node]}
            elif node in self.sums:
                known = self.sums[node]
                known.at = max(self._ready(n, d) for d, row in known.rows() for n in row)
                self.early |= {(node, d): known.at for d in known.devices}
            elif (whole := self.summed(node)) is not None:
                self.early |= {(node, d): whole.at for d in whole.devices}
            else:
                for device in self.native[node]:
                    stages = [self.arrives(i, device) for i in node.inputs]
                    self.early[node, device] = max(stages, default=0)

    def _ready(self, node: Node, device: str) -> int:
        """The exchange that can take a value from a device."""
        if is_anywhere(node):
            return 1
        return self.early[node, device] + (not isinstance(node.op, Input))

    def stages(self) -> None:
        """The stage in which each value is computed: what an exchange waits for, in the last one
        before it; all else as soon as it can be."""
        late: dict[Value, int] = {}

        def before(node: Node, device: str, stage: int) -> None:
            late[node, device] = min(stage, late.get((node, device), stage))

        for known in self.sums.values():
            for device, row in known.rows():
                for node in row:
                    before(node, device, known.at - 1)
        for node in reversed(self.nodes):
            if is_anywhere(node) or self.is_passive(node) or node in self.sums:
                continue
            away = [d for d in self.need[node] if d not in self.native[node]]
            if away and not isinstance(node.type, TupleType):
                before(node, self.source(node), self.sent_at(node) - 1)
            for device in self.native[node]:
                if (node, device) in late:
                    for source in node.inputs:
                        before(source, device, late[node, device])
        for node in self.nodes:
            if is_anywhere(node) or self.is_passive(node) or node in self.sums:
                continue
            for device in self.native[node]:
                soon = max((self.arrives(i, device) for i in node.inputs), default=0)
                chosen = late.get((node, device), soon)
                if isinstance(node.op, Item):
                    chosen = self.stage[node.inputs[0], device]
                self.stage[node, device] = chosen


class _Cutter:
    """Makes the graphs of a plan, and the exchanges between them."""

    def __init__(self, plan: _Plan) -> None:
        self.plan, self.graph = plan, plan.graph
        self.keys: dict[Value, int] = {}
        self.inside: dict[tuple[int, str], dict[Node, None]] = {}
        self.wanted: dict[tuple[int, str], dict[Node, None]] = {}
        self.last = dict.fromkeys(plan.devices, -1)
        self.updates: dict[tuple[int, str], list[tuple[Node, Node]]] = {}
        self.reductions: dict[int, dict[Any, list[_Sum]]] = {}
        self.transfers: dict[int, dict[tuple[Node, str], None]] = {}

    def key(self, node: Node, device: str) -> int:
        """The number of a value."""
        return self.keys.setdefault((node, device), len(self.keys))

    def run(self) -> Spread:
        plan, graph = self.plan, self.graph
        for (node, device), stage in plan.stage.items():
            self.inside.setdefault((stage, device), {})[node] = None
            self.last[device] = max(self.last[device], stage)
        for variable, value in graph.updates:
            for device in plan.native[variable]:
                self._not_before(value, device)
        outputs = [n for n in graph.outputs if not self._is_made(n)]
        for node in outputs:
            self._not_before(node, plan.home)
        self._place_updates(outputs)
        self._find_wanted(outputs)
        count = max([*self.last.values(), *self.transfers, *self.reductions, 0]) + 1
        given = tuple({d: self.key(n, d) for d in plan.native[n]} for n in graph.inputs)
        stages = tuple(tuple(self._parts(stage)) for stage in range(count))
        exchanges = tuple(self._exchange(k) for k in range(count))
        keys = tuple(self.key(n, plan.home) for n in graph.outputs)
        # A value of the last stage that is passed on has a key of its own: see `_part`.
        keys = tuple(self.passed.get(n, k) for n, k in zip(graph.outputs, keys, strict=True))
        return Spread(plan.devices, given, stages, exchanges, keys, len(self.keys))

    passed: dict[Node, int]

    def _is_made(self, node: Node) -> bool:
        """Whether a result is computed on the first device; else the last stage passes it on."""
        return (node, self.plan.home) in self.plan.stage

    def _not_before(self, node: Node, device: str) -> None:
        arrival = self.plan.arrives(node, device)
        self.last[device] = max(self.last[device], arrival, 0)

    def _place_updates(self, outputs: list[Node]) -> None:
        """Assign each Variable where its value is made, unless it is read later: then, as with what
        is not computed here, in the last stage, which may read all old values."""
        plan, read = self.plan, dict[Value, int]()
        for (node, device), stage in plan.stage.items():
            for source in node.inputs:
                read[source, device] = max(stage, read.get((source, device), 0))
        home = plan.home
        read |= {(node, home): self.last[home] for node in outputs}
        pairs = [(i, v, d) for i, v in self.graph.updates for d in plan.native[i]]
        for _, value, device in pairs:
            if isinstance(value.op, Input):
                read[value, device] = self.last[device]
        for variable, value, device in pairs:
            made = plan.stage.get((value, device), -1)
            early = made >= 0 and read.get((variable, device), 0) <= made
            stage = made if early else self.last[device]
            self.updates.setdefault((stage, device), []).append((variable, value))

    def _find_wanted(self, outputs: list[Node]) -> None:
        """What each part gives to others: later stages of its device, exchanges, the caller."""
        plan = self.plan
        self.passed = {}
        for (stage, device), nodes in list(self.inside.items()):
            for node in nodes:
                for source in node.inputs:
                    self._uses(source, device, stage)
        for (stage, device), pairs in self.updates.items():
            for _, value in pairs:
                self._uses(value, device, stage)
        for node in self.graph.outputs:
            if self._is_made(node):
                self._give(node, plan.home)
        for node in outputs:
            self._uses(node, plan.home, self.last[plan.home])
            self.wanted.setdefault((self.last[plan.home], plan.home), {})[node] = None
        for known in plan.sums.values():
            for device, row in known.rows():
                for node in row:
                    if is_anywhere(node):
                        self.wanted.setdefault((known.at - 1, device), {})[node] = None
                    else:
                        self._give(node, device)
            dtypes = dict.fromkeys(n.dtype.name for n in known.node.inputs)
            for dtype in dtypes:
                groups = self.reductions.setdefault(known.at, {})
                groups.setdefault((known.devices, dtype), []).append(known)

    def _give(self, node: Node, device: str) -> None:
        stage = self.plan.stage.get((node, device))
        if stage is not None:
            self.wanted.setdefault((stage, device), {})[node] = None

    def _uses(self, node: Node, device: str, stage: int) -> None:
        """A part reads a value."""
        plan = self.plan
        if is_anywhere(node):
            return
        if device not in plan.native[node]:
            source = plan.source(node)
            self.transfers.setdefault(plan.sent_at(node), {})[node, device] = None
            self._give(node, source)
        elif plan.stage.get((node, device), stage) < stage:
            self._give(node, device)

    # ---- exchanges -----------------------------------------------------------------------------

    def _exchange(self, number: int) -> Exchange:
        reductions = []
        for (devices, dtype), sums in self.reductions.get(number, {}).items():
            inputs: list[list[int]] = [[] for _ in devices]
            outputs: list[list[int]] = [[] for _ in devices]
            for known in sums:
                items = self._items(known.node)
                for place, (device, row) in enumerate(known.rows()):
                    for index, node in enumerate(row):
                        if node.dtype.name == dtype:
                            inputs[place].append(self.key(node, device))
                            outputs[place].append(self._item_key(items, index, device))
            reductions.append(
                Reduction(devices, dtype, tuple(map(tuple, inputs)), tuple(map(tuple, outputs)))
            )
        transfers = []
        for node, device in self.transfers.get(number, {}):
            source = self.key(node, self.plan.source(node))
            constant = isinstance(node.op, Input) and node.op.kind == "capture"
            transfers.append(Transfer(source, self.key(node, device), device, constant))
        return Exchange(tuple(reductions), tuple(transfers))

    def _items(self, node: Node) -> dict[int, Node]:
        users = self.graph.users[node]
        return {n.op.index: n for n in users if isinstance(n.op, Item)}

    def _item_key(self, items: dict[int, Node], index: int, device: str) -> int:
        node = items.get(index)
        if node is not None:
            return self.key(node, device)
        self.keys[Node(Item(index=index), (), TupleType(())), device] = len(self.keys)
        return len(self.keys) - 1  # a sum that nobody reads

    # ---- parts ---------------------------------------------------------------------------------

    def _parts(self, stage: int) -> Iterator[Part]:
        for device in self.plan.devices:
            updates = self.updates.get((stage, device), [])
            wanted = self.wanted.get((stage, device), {})
            inside = self.inside.get((stage, device), {})
            if wanted or updates or any(n.op.effect for n in inside):
                yield self._part(stage, device, updates)

    def _part(self, stage: int, device: str, updates: list[tuple[Node, Node]]) -> Part:
        inside = self.inside.get((stage, device), {})
        wanted = list(self.wanted.get((stage, device), {}))
        builder = _Builder(self, device, inside)
        outputs = tuple(map(builder.value, wanted))
        pairs = tuple((builder.value(a), builder.value(b)) for a, b in updates)
        effects = tuple(builder.value(e) for e in self.graph.effects if e in inside)
        keys = []
        for node in wanted:
            if node in inside or is_anywhere(node):
                keys.append(self.key(node, device))
            else:  # passed on in memory of its own
                self.keys[node, f"{device} passed"] = self.passed[node] = len(self.keys)
                keys.append(self.passed[node])
        name = f"{self.graph.name}.{stage}{device.rpartition(':')[2]}"
        graph, sizes = closed(name, tuple(builder.inputs), outputs, pairs, effects)
        return Part(device, graph, tuple(builder.keys), builder.variables, sizes, tuple(keys))


class _Builder:
    """The nodes of one part, made when they are asked for."""

    def __init__(self, cutter: _Cutter, device: str, inside: Iterable[Node]) -> None:
        self.cutter, self.device = cutter, device
        self.inputs: list[Node] = []
        self.keys: list[int | None] = []
        self.variables: dict[int, int] = {}
        self._made: dict[Node, Node] = {}
        for node in inside:
            inputs = tuple(map(self.value, node.inputs))
            wish = "" if node.device.startswith(GPU) else node.device
            self._made[node] = Node(node.op, inputs, node.type, node.loc, wish)

    def value(self, node: Node) -> Node:
        """The node in this part."""
        known = self._made.get(node)
        if known is None:
            known = self._made[node] = replace(node, device="") if is_anywhere(node) else (
                self._input(node))  # fmt: skip
        return known

    def _input(self, node: Node) -> Node:
        plan, place = self.cutter.plan, len(self.inputs)
        native = isinstance(node.op, Input) and self.device in plan.native[node]
        if native and isinstance(node.op, Input) and node.op.kind == "variable":
            self.variables[place] = plan.position[node]
            self.keys.append(None)
            op = node.op
        else:
            label = node.op.label if isinstance(node.op, Input) else node.op.name
            op = Input(label=label)
            self.keys.append(self.cutter.key(node, self.device))
        made = Node(op, (), node.type, node.loc)
        self.inputs.append(made)
        return made


def closed(
    name: str,
    inputs: tuple[Node, ...],
    outputs: tuple[Node, ...],
    updates: tuple[tuple[Node, Node], ...],
    effects: tuple[Node, ...],
) -> tuple[Graph, tuple[Size, ...]]:
    """A graph with an empty input for each symbolic size that the others do not tell."""
    graph = Graph(name, inputs, outputs, updates, effects)
    told = {str(s) for i in inputs for s in i.shape}
    used = symbols_of(s for n in graph.nodes for s in sizes_in(n))
    sizes = tuple(symbol(s) for s in used if s not in told)
    empty = tuple(
        Node(Input(label=f"size {s}"), (), TensorType((s, 0), np.dtype(np.bool_))) for s in sizes
    )
    return Graph(name, (*inputs, *empty), outputs, updates, effects), sizes
