"""Placement: the device of each node, and each copy between devices with its reason.

With one device everything is on it. With two, what the user placed, what only the host can do and
what is given from outside is fixed; the rest goes where the estimated time of computing and copying
is least, which is a minimum cut between the two devices (Stone, "Multiprocessor scheduling with the
aid of network flow algorithms", 1977), found by networkx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size, atoms, substitute
from graphnn.compiler.ir.types import TupleType
from graphnn.compiler.ops.base import Opaque
from graphnn.compiler.ops.core import Input, Item
from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import ArgumentError, Loc

FUSED = 0.25  # steps that an elementwise op costs, since most share one
USUAL_SIZE = 256  # what a symbolic size is taken for
HOST = "/device:CPU:0"
KIND = "/device:CPU"
HostOnly = Callable[[Node], str]
"""Why a node can run only on the host, or the empty string."""


@dataclass(frozen=True)
class Machine:
    """What placement knows of a device.

    name: such as "/device:GPU:0". bandwidth: bytes per second of its memory. launch: seconds per
    step. flops: multiplications and additions per second in matrix products. is_host: whether ops
    that only the host can do run there.
    """

    name: str
    bandwidth: float = 2e10
    launch: float = 1e-7
    is_host: bool = True
    flops: float = 1e11


@dataclass(frozen=True)
class Link:
    """The way between two devices. bandwidth: bytes per second. latency: seconds for any copy,
    which includes that one device waits for the other."""

    bandwidth: float = 2.5e10
    latency: float = 1e-5


def gpu_machine(name: str, facts: DeviceFacts) -> Machine:
    """What placement knows of a GPU.

    >>> gpu_machine("/device:GPU:0", DeviceFacts()).is_host
    False
    """
    return Machine(name, facts.bandwidth, facts.launch, is_host=False, flops=facts.flops)


@dataclass(frozen=True)
class Transfer:
    """A copy of a node's value to another device, and why.

    nbytes: a number or a symbolic size. loc: the user's line that wants it there.
    """

    node: Node
    source: str
    target: str
    reason: str
    nbytes: Any = 0
    loc: Loc | None = None


@dataclass(frozen=True)
class Placement:
    """The device of each node, and the copies that follow.

    ends: the device of each output, then of each new value of a Variable, then of each effect.
    """

    devices: Mapping[Node, str]
    transfers: tuple[Transfer, ...]
    ends: tuple[str, ...] = ()


@dataclass
class _Fixed:
    """Devices that are no choice: device and reason of each such node."""

    device: dict[Node, str] = field(default_factory=dict)
    reason: dict[Node, str] = field(default_factory=dict)

    def set(self, node: Node, device: str, reason: str) -> None:
        if node not in self.device:
            self.device[node], self.reason[node] = device, reason


def place(
    graph: Graph,
    machines: Sequence[Machine] = (Machine(HOST),),
    wanted: Mapping[Node, str] | None = None,
    link: Link | None = None,
    home: str = "",
    host_only: HostOnly = lambda node: _default_host_only(node),
) -> Placement:
    """Choose devices.

    machines: one, or the host and one other. wanted: devices asked for, besides the nodes' own
    wishes. home: where inputs are and outputs go unless they wish otherwise; empty: wherever it is
    best. Raises ArgumentError for a device that does not exist.
    """
    names = [m.name for m in machines]
    if len(machines) == 1:
        _check(names, (wanted or {}).values())
        return Placement(dict.fromkeys(graph.nodes, names[0]), ())
    host = next(m for m in machines if m.is_host).name
    wishes = {n: _own(n.device, host) for n in graph.nodes if n.device}
    wishes |= wanted or {}
    _check(names, wishes.values())
    fixed = _fixed(graph, wishes, host, home, host_only)
    ends = _ends(graph, wishes, fixed, home)
    if home and all(device == home for device in (*fixed.device.values(), *ends)):
        return Placement(dict.fromkeys(graph.nodes, home), (), ends)
    devices = _Cut(graph, machines, fixed, ends, link or Link(), home).devices()
    return Placement(devices, tuple(_transfers(graph, devices, fixed, ends)), ends)


def _own(wish: str, host: str) -> str:
    """All devices of the CPU are one machine."""
    return host if wish.startswith(KIND) else wish


def _check(names: Sequence[str], wanted: Iterable[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ArgumentError(
                "device",
                received=repr(name),
                expected="one of " + ", ".join(names) + " (a program uses the host and one GPU)",
                fix="ask graphnn.config.list_physical_devices() for what is there",
            )


def _default_host_only(node: Node) -> str:
    return f"{node.op.name} runs only on the host" if isinstance(node.op, Opaque) else ""


def is_anywhere(node: Node) -> bool:
    """Whether a node is made from nothing, so that each device makes its own."""
    return not node.inputs and not isinstance(node.op, Input) and not node.op.effect


def _fixed(
    graph: Graph, wishes: Mapping[Node, str], host: str, home: str, host_only: HostOnly
) -> _Fixed:
    fixed = _Fixed()
    for node in graph.nodes:
        producer = node.inputs[0] if isinstance(node.op, Item) else None
        if producer in fixed.device:
            fixed.set(node, fixed.device[producer], fixed.reason[producer])
        elif is_anywhere(node):
            continue
        elif isinstance(node.op, Input):
            if node in wishes or home:
                fixed.set(node, wishes.get(node, home), "it is given there")
        elif reason := host_only(node):
            fixed.set(node, host, reason)
        elif node in wishes:
            fixed.set(node, wishes[node], f"{node.op.name} was placed on {wishes[node]}")
    return fixed


def _ends(graph: Graph, wishes: Mapping[Node, str], fixed: _Fixed, home: str) -> tuple[str, ...]:
    """Where results and new values have to be; "" where that does not matter."""
    outputs = [fixed.device[o] if isinstance(o.op, Input) and o in fixed.device else
               wishes.get(o, home) for o in graph.outputs]  # fmt: skip
    updates = [fixed.device.get(i, home) for i, _ in graph.updates]
    return (*outputs, *updates, *(fixed.device.get(e, home) for e in graph.effects))


# ---- the cut ------------------------------------------------------------------------------------


class _Cut:
    """The cheapest assignment to two machines."""

    def __init__(
        self,
        graph: Graph,
        machines: Sequence[Machine],
        fixed: _Fixed,
        ends: tuple[str, ...],
        link: Link,
        home: str,
    ) -> None:
        self.graph, self.fixed, self.ends, self.link = graph, fixed, ends, link
        self.first, self.second = machines[:2]
        self.main = max((self.first, self.second), key=lambda m: (m.name == home, m.bandwidth))
        self.ready = dict(fixed.device)

    def devices(self) -> dict[Node, str]:
        """The device of each node."""
        free = [n for n in self.graph.nodes if n not in self.ready and not is_anywhere(n)]
        free = self._undecided(free)
        chosen = self._minimum(free) if free else {}
        found = self.ready | chosen
        return {n: found.get(n, self.main.name) for n in self.graph.nodes}

    def _undecided(self, free: Sequence[Node]) -> list[Node]:
        """Nodes that may be better off away from the main device; the others are settled there.

        Each loses less by going than could be gained if none had to stay, and touches, through
        nodes of its kind, what is away or faster there.
        """
        main = self.main.name
        away = [n for n, device in self.ready.items() if device != main]
        ends = zip(self.graph.roots, self.ends, strict=True)
        away += [root for root, end in ends if end not in ("", main)]
        copied = dict.fromkeys([*away, *(i for n in away for i in n.inputs)])
        other = self.second if self.main is self.first else self.first
        loss = {n: _time(n, other) - _time(n, self.main) for n in free}
        faster = [n for n in free if loss[n] < 0]
        most = sum(map(self._copy, copied)) - sum(loss[n] for n in faster)
        seen: set[Node] = set()
        stack = [*away, *faster]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                near = (*node.inputs, *self.graph.users[node])
                stack += [n for n in near if n in loss and loss[n] <= most]
        found = [n for n in free if n in seen and loss[n] <= most]
        self.ready |= dict.fromkeys(loss.keys() - set(found), main)
        return found

    def _copy(self, node: Node) -> float:
        if is_anywhere(node):
            return 0.0
        return self.link.latency + nbytes(node) / self.link.bandwidth

    def _minimum(self, free: Sequence[Node]) -> dict[Node, str]:
        import networkx as nx

        network = nx.DiGraph()
        network.add_nodes_from(("first", "second"))
        for node in free:
            # The edge that is cut is the price of being on the other side.
            network.add_edge("first", node, capacity=_time(node, self.second))
            network.add_edge(node, "second", capacity=_time(node, self.first))
        own = set(free)
        for node, readers in self._edges():
            if node in own or any(r in own for r in readers):
                self._connect(network, node, readers)
        _, (side, _) = nx.minimum_cut(network, "first", "second")
        return {n: self.first.name if n in side else self.second.name for n in free}

    def _edges(self) -> Iterator[tuple[Node, list[Any]]]:
        """Each value with what reads it: nodes, or the names of devices where it has to end."""
        ends: dict[Node, list[Any]] = {}
        for root, device in zip(self.graph.roots, self.ends, strict=True):
            if device:
                ends.setdefault(root, []).append(device)
        for node in self.graph.nodes:
            if not is_anywhere(node):
                yield node, [*dict.fromkeys(self.graph.users[node]), *ends.get(node, ())]

    def _connect(self, network: Any, node: Node, readers: Sequence[Any]) -> None:
        """One copy serves all readers on the other side."""
        together = isinstance(node.type, TupleType)
        price = {} if together else {"capacity": self._copy(node)}
        source = self._point(node)
        network.add_edge(source, ("down", node), **price)
        network.add_edge(("up", node), source, **price)
        for reader in readers:
            network.add_edge(("down", node), self._point(reader))
            network.add_edge(self._point(reader), ("up", node))

    def _point(self, which: Any) -> Any:
        """A node of the network: that of a free node, or the end that stands for a device."""
        device = self.ready.get(which) if isinstance(which, Node) else which
        if device is None:
            return which
        return "first" if device == self.first.name else "second"


def nbytes(node: Node) -> int:
    """Bytes of a value; symbolic sizes are taken for a usual one."""
    if isinstance(node.type, TupleType):
        return 0  # its items are counted
    return int(_number(node.type.nbytes))


def _number(size: Any) -> Any:
    if not isinstance(size, Size):
        return size
    return substitute(size, dict.fromkeys(atoms(size), USUAL_SIZE))


def _time(node: Node, machine: Machine) -> float:
    if isinstance(node.op, Item) or node.op.fusion == "view" or is_anywhere(node):
        return 0.0
    moved = nbytes(node) + sum(map(nbytes, node.inputs))
    launch = machine.launch * (FUSED if node.op.fusion == "map" else 1.0)
    return launch + moved / machine.bandwidth + _flops(node) / machine.flops


def _flops(node: Node) -> float:
    """Of a matrix product: from m x k, k x n and m x n in each of some matrices."""
    if node.op.fusion != "library" or len(node.inputs) < 2:
        return 0.0
    items = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    types = (node.inputs[0].tensor, node.inputs[1].tensor, items[0])
    count = math.prod(_number(s) for s in items[0].shape[:-2])
    return 2.0 * math.sqrt(math.prod(float(_number(t.size)) for t in types) / max(1, count))


# ---- the copies ---------------------------------------------------------------------------------


def _transfers(
    graph: Graph, devices: Mapping[Node, str], fixed: _Fixed, ends: Sequence[str]
) -> Iterator[Transfer]:
    seen: set[tuple[Node, str]] = set()

    def needed(node: Node, target: str, reason: str, loc: Loc | None) -> Iterator[Transfer]:
        if is_anywhere(node) or devices[node] == target or (node, target) in seen:
            return
        seen.add((node, target))
        size = 0 if isinstance(node.type, TupleType) else node.type.nbytes
        yield Transfer(node, devices[node], target, reason, size, loc or node.loc)

    for reader in graph.nodes:
        target = devices[reader]
        free = f"{reader.op.name} is faster on {target}, the copy included"
        for node in reader.inputs:
            yield from needed(node, target, fixed.reason.get(reader, free), reader.loc)
    labels = ["it is a result of the program"] * len(graph.outputs)
    labels += [f"{_label(i)} is there" for i, _ in graph.updates]
    for node, end, label in zip(graph.roots, ends, labels, strict=False):
        if end:
            yield from needed(node, end, label, node.loc)


def _label(node: Node) -> str:
    label = node.op.label if isinstance(node.op, Input) else node.op.name
    return f"the Variable {label!r}"
