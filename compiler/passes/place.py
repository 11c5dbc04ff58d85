"""Placement: the device of each node, and each copy between devices with its reason.

With one device everything is on it. With several, what the user placed and what only the host can
do is fixed; the rest goes where the estimated time of computing and copying is least, which is a
minimum cut between the two devices (Stone, "Multiprocessor scheduling with the aid of network flow
algorithms", 1977), found by networkx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.base import Opaque
from graphnn.runtime.errors import ArgumentError

UNKNOWN_SIZE = 1 << 20  # bytes assumed for a tensor with symbolic sizes


@dataclass(frozen=True)
class Machine:
    """What placement knows of a device.

    name: "cpu:0", "gpu:0". bandwidth: bytes per second of its memory. launch: seconds per step.
    is_host: whether ops that only the host can do run there.
    """

    name: str
    bandwidth: float = 2e10
    launch: float = 1e-7
    is_host: bool = True


@dataclass(frozen=True)
class Transfer:
    """A copy of a node's value to another device, and why."""

    node: Node
    source: str
    target: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """The device of each node, and the copies that follow."""

    devices: Mapping[Node, str]
    transfers: tuple[Transfer, ...]


def place(
    graph: Graph,
    machines: Sequence[Machine] = (Machine("cpu:0"),),
    wanted: Mapping[Node, str] | None = None,
    link: float = 1e10,
) -> Placement:
    """Choose devices.

    wanted: devices the user asked for. link: bytes per second between devices.
    Raises ArgumentError for a device that does not exist.
    """
    wanted = wanted or {}
    names = [m.name for m in machines]
    for name in wanted.values():
        if name not in names:
            raise ArgumentError(
                "device",
                received=repr(name),
                expected="one of " + ", ".join(names),
                fix="ask graphnn.config.list_physical_devices() for what is there",
            )
    if len(machines) == 1:
        return Placement(dict.fromkeys(graph.nodes, names[0]), ())
    fixed = {n: wanted[n] for n in graph.nodes if n in wanted}
    host = next(m for m in machines if m.is_host)
    fixed |= {n: host.name for n in graph.nodes if isinstance(n.op, Opaque)}
    devices = _cut(graph, machines, fixed, link)
    return Placement(devices, tuple(_transfers(graph, devices, fixed, wanted)))


def _cut(
    graph: Graph, machines: Sequence[Machine], fixed: Mapping[Node, str], link: float
) -> dict[Node, str]:
    """The cheapest assignment to the first two machines."""
    import networkx as nx

    first, second = machines[:2]
    network = nx.DiGraph()
    for node in graph.nodes:
        # The edge that is cut is the price of being on the other side.
        on_first, on_second = _time(node, first), _time(node, second)
        if node in fixed:
            on_first = 0.0 if fixed[node] == first.name else float("inf")
            on_second = 0.0 if fixed[node] == second.name else float("inf")
        network.add_edge("first", node, capacity=on_second)
        network.add_edge(node, "second", capacity=on_first)
        copy = _bytes(node) / link
        for reader in set(graph.users[node]):
            network.add_edge(node, reader, capacity=copy)
            network.add_edge(reader, node, capacity=copy)
    _, (side, _) = nx.minimum_cut(network, "first", "second")
    return {n: first.name if n in side else second.name for n in graph.nodes}


def _bytes(node: Node) -> int:
    if not isinstance(node.type, TensorType):
        return 0
    size: Any = node.type.nbytes
    return size if isinstance(size, int) else UNKNOWN_SIZE


def _time(node: Node, machine: Machine) -> float:
    moved = _bytes(node) + sum(map(_bytes, node.inputs))
    return machine.launch + moved / machine.bandwidth


def _transfers(
    graph: Graph,
    devices: Mapping[Node, str],
    fixed: Mapping[Node, str],
    wanted: Mapping[Node, str],
) -> list[Transfer]:
    found: dict[tuple[Node, str], Transfer] = {}
    for reader in graph.nodes:
        for node in reader.inputs:
            source, target = devices[node], devices[reader]
            if source == target or (node, target) in found:
                continue
            if reader in wanted:
                reason = f"{reader.op.name} was placed on {target}"
            elif reader in fixed:
                reason = f"{reader.op.name} runs only on the host"
            else:
                reason = f"{reader.op.name} is faster on {target}, the copy included"
            found[node, target] = Transfer(node, source, target, reason)
    return list(found.values())
