"""Fusion: which nodes share one kernel.

Every node that has a loop form starts as a group of its own; groups are then merged along the
edges of the graph, and beside each other where they read the same memory. A merge is refused with
a `Reason`. Nothing here knows an op by name: the answers come from the ops' `fusion` class and from
the element rules, which say what is read where (`access.py`).

A group runs over a frame of `rows` x `cols`. Each member has a level in it: "full" (an element per
row and column), "row" (one per row: a reduction over the columns, or what follows from one), "col"
and "one" (a reduction over all rows: its value exists only after the loop).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Var, atom, product, same
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.base import Reduce, normalize_axis
from graphnn.compiler.ops.core import Input, Item
from graphnn.compiler.passes.access import accesses, is_alias, weight

MAX_MEMBERS = 400
CHEAP = 2  # scalar operations up to which a value is computed again by each of its readers


@dataclass(frozen=True)
class Reason:
    """Why two nodes do not share a kernel."""

    producer: Node
    consumer: Node
    text: str


@dataclass(frozen=True)
class Frame:
    """The loop of a group; `fixed` once a reduction has said what a row is."""

    rows: Any
    cols: Any = 1
    fixed: bool = False

    @cached_property
    def row(self) -> Any:
        """Index of the row."""
        return atom(Var("i", self.rows))

    @cached_property
    def col(self) -> Any:
        """Index of the column."""
        return atom(Var("j", self.cols))

    @cached_property
    def full(self) -> Any:
        """Linear index of an element."""
        return self.row * self.cols + self.col

    def linear(self, level: str) -> Any:
        """Linear index of a member's element."""
        if level == "full":
            return self.full
        return {"row": self.row, "col": self.col, "one": 0}[level]


@dataclass(eq=False)
class Group:
    """Nodes that one step of the program computes.

    kind: "loop", "middle", "scan", "scatter", "library" or "host".
    levels: each member's level; the order is topological.
    """

    kind: str
    frame: Frame
    levels: dict[Node, str] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        """Members in order."""
        return list(self.levels)

    @property
    def barrier(self) -> bool:
        """Whether some member's value exists only after all rows."""
        return any(level in ("col", "one") for level in self.levels.values())


@dataclass
class Partition:
    """The groups of a graph in a valid order, and what is computed inside its readers.

    inlined: views, constants, fills and single numbers; every reader computes them itself.
    stored: nodes whose values need memory. aliases: nodes that are another node's memory.
    """

    graph: Graph
    groups: list[Group]
    inlined: set[Node]
    stored: set[Node]
    aliases: dict[Node, Node]
    reasons: list[Reason]

    @property
    def group_of(self) -> dict[Node, Group]:
        """The group that computes each node."""
        return {n: g for g in self.groups for n in g.levels}


def fuse(graph: Graph, enabled: bool = True) -> Partition:
    """Group the nodes of a graph of primitive ops."""
    return _Fusion(graph, enabled).run()


def reduction_frame(node: Node) -> tuple[str, Frame, str]:
    """(kind, frame, level) of a reduction, from where its axes lie."""
    (source,) = node.inputs
    op: Any = node.op
    axes = {normalize_axis(a, source.tensor.ndim, op.name) for a in op.axes}
    kept = [k for k, s in enumerate(source.shape) if k not in axes and s != 1]
    gone = [k for k, s in enumerate(source.shape) if k in axes and s != 1]
    size = source.tensor.size
    if not kept:
        return "loop", Frame(size), "one"
    if not gone or max(kept) < min(gone):
        cols = product(source.shape[k] for k in gone)
        return "loop", Frame(product(source.shape[k] for k in kept), cols, True), "row"
    if max(gone) < min(kept):
        rows = product(source.shape[k] for k in gone)
        return "loop", Frame(rows, product(source.shape[k] for k in kept), True), "col"
    return "middle", Frame(product(source.shape[k] for k in kept), 1, True), "row"


class _Fusion:
    def __init__(self, graph: Graph, enabled: bool) -> None:
        self.graph, self.enabled = graph, enabled
        self.reasons: list[Reason] = []
        self.required = self._required()
        self.aliases: dict[Node, Node] = {}
        self.inlined = self._choose_inlined()
        self.order = {n: k for k, n in enumerate(graph.nodes)}
        self.group: dict[Node, Group] = {}
        for node in graph.nodes:
            if not isinstance(node.op, Input) and node not in self.inlined:
                self._start(node)
        self.sources = {
            n: tuple(dict.fromkeys(self._real_inputs(n))) for n in graph.nodes if n in self.group
        }
        self.apart = {
            (s, r)
            for n in graph.nodes
            if n.op.apart
            for s in self._real_inputs(n)
            for r in self._real_readers(n)
        }
        self.kept = list(dict.fromkeys(self.group.values()))  # so that an id stays one group's
        # The last node of a group, or of a group that it depends on, directly or not.
        self.last = {id(g): max(self.order[n] for n in g.levels) for g in self.kept}
        self.readers: dict[Node, list[Node]] = {n: [] for n in graph.nodes}
        for node, sources in self.sources.items():
            for source in sources:
                self.readers[source].append(node)

    # ---- what is stored and what is inlined ----------------------------------------------

    def _required(self) -> set[Node]:
        """Nodes that must be in memory whatever is fused."""
        needed = {r for r in self.graph.roots}
        for node in self.graph.nodes:
            is_step = node.op.fusion in ("none", "library") and not isinstance(node.op, Item)
            if is_step or node.op.apart:
                needed.update(node.inputs)
        return needed

    def _choose_inlined(self) -> set[Node]:
        inlined: set[Node] = set()
        for node in reversed(self.graph.nodes):
            if not self._can_inline(node):
                continue
            if node in self.required:
                if not is_alias(node):
                    continue
                self.required.add(node.inputs[0])
            inlined.add(node)
        for node in self.graph.nodes:
            if node in inlined and node in self.required:
                base = node.inputs[0]
                self.aliases[node] = self.aliases.get(base, base)
        return inlined

    @staticmethod
    def _can_inline(node: Node) -> bool:
        kind = node.op.fusion
        if kind == "view":
            return len(node.inputs) == 1
        if kind != "map":
            return False
        return not node.inputs or node.op.apart or node.tensor.size == 1 or _is_cheap_copy(node)

    def _real_inputs(self, node: Node) -> Iterator[Node]:
        for source in node.inputs:
            if source in self.inlined:
                yield from self._real_inputs(source)
            else:
                yield source

    def _real_readers(self, node: Node) -> Iterator[Node]:
        for reader in self.graph.users[node]:
            if reader in self.inlined:
                yield from self._real_readers(reader)
            else:
                yield reader

    def _start(self, node: Node) -> None:
        if isinstance(node.op, Item):
            group = self.group[node.inputs[0]]
            group.levels[node] = "full"
            self.group[node] = group
            return
        kind = node.op.fusion
        if kind in ("map", "view"):
            group = Group("loop", Frame(node.tensor.size), {node: "full"})
        elif isinstance(node.op, Reduce):
            name, frame, level = reduction_frame(node)
            group = Group(name, frame, {node: level})
        else:
            name = {"none": "host"}.get(kind, kind)
            group = Group(name, Frame(1), {node: "full"})
        self.group[node] = group

    # ---- merging -------------------------------------------------------------------------

    def run(self) -> Partition:
        if self.enabled:
            for node in self.graph.nodes:
                for source in self.sources.get(node, ()):
                    self._merge_edge(source, node)
            self._merge_siblings()
            self._merge_numbers()
        groups = self._ordered()
        stored = self._stored()
        return Partition(self.graph, groups, self.inlined, stored, self.aliases, list(self.reasons))

    def _merge_edge(self, producer: Node, consumer: Node) -> None:
        if producer not in self.group or self.group[producer] is self.group[consumer]:
            return
        text = self._try_merge(self.group[producer], self.group[consumer])
        if text:
            self.reasons.append(Reason(producer, consumer, text))

    def _merge_siblings(self) -> None:
        """Groups that read the same memory in the same frame share one sweep over it."""
        for node in self.graph.nodes:
            readers = [r for r in self.readers[node] if self.group[r].kind == "loop"]
            for a, b in pairwise(readers):
                ga, gb = self.group[a], self.group[b]
                if ga is gb or not same(node.tensor.size, ga.frame.rows * ga.frame.cols):
                    continue
                if self._reads_fully(a, node) and self._reads_fully(b, node):
                    self._try_merge(ga, gb)

    def _merge_numbers(self) -> None:
        """Kernels that compute one number each, such as a mean and a counter, become one."""
        groups = [g for g in self._groups() if g.kind == "loop" and same(g.frame.rows, 1)]
        small = [g for g in groups if not g.frame.fixed]
        for a, b in pairwise(small):
            first, second = self.group[a.nodes[0]], self.group[b.nodes[0]]
            if first is not second:
                self._try_merge(first, second)

    def _reads_fully(self, reader: Node, source: Node) -> bool:
        group = self.group[reader]
        return (source, group.frame.linear("full")) in set(self._requests(reader, group.frame))

    def _try_merge(self, a: Group, b: Group) -> str:
        """Merge b into a; the reason if that cannot be."""
        if a.kind != "loop" or b.kind != "loop":
            other = a if a.kind != "loop" else b
            return f"{other.nodes[0].op.name} is a {other.kind} step of its own"
        if len(a.levels) + len(b.levels) > MAX_MEMBERS:
            return f"the kernel would have more than {MAX_MEMBERS} nodes"
        frame = _unify(a.frame, b.frame)
        if frame is None:
            return f"different loops: {_show(a.frame)} and {_show(b.frame)}"
        levels = {**_relabel(a, frame), **_relabel(b, frame)}
        text = self._check_edges(a, b, frame, levels) or self._check_edges(b, a, frame, levels)
        if text:
            return text
        if self._path_outside(a, b) or self._path_outside(b, a):
            return "another step has to run between them"
        ordered = sorted(levels, key=self.order.__getitem__)
        merged = Group("loop", frame, {n: levels[n] for n in ordered})
        self.last[id(merged)] = max(self.last[id(a)], self.last[id(b)])
        self.kept.append(merged)
        for node in ordered:
            self.group[node] = merged
        self._put_off(merged)
        return ""

    def _put_off(self, changed: Group) -> None:
        """Let what depends on a group know how far it reaches now."""
        stack = [changed]
        while stack:
            group = stack.pop()
            last = self.last[id(group)]
            for reader in (r for n in group.levels for r in self.readers[n]):
                other = self.group[reader]
                if self.last[id(other)] < last:
                    self.last[id(other)] = last
                    stack.append(other)

    def _check_edges(self, a: Group, b: Group, frame: Frame, levels: dict[Node, str]) -> str:
        """Whether members of b read members of a at the element that is at hand."""
        members = a.levels
        for node in b.levels:
            if not any(s in members for s in self.sources[node]):
                continue
            for source, linear in self._requests(node, frame, levels[node]):
                if source not in members:
                    continue
                if (source, node) in self.apart:
                    return f"{node.op.name} reads {source.op.name} again later, from memory"
                level = levels[source]
                if level in ("col", "one"):
                    return f"{source.op.name} is complete only after all rows"
                if frame.linear(level) != linear:
                    return f"{node.op.name} reads {source.op.name} in another order"
        return ""

    def _requests(
        self, node: Node, frame: Frame, level: str | None = None
    ) -> Iterator[tuple[Node, Any]]:
        """(node read, linear index) for one element of a member."""
        level = level or self.group[node].levels[node]
        if isinstance(node.op, Reduce):
            source = node.inputs[0]
            row_sized = level == "one" and same(source.tensor.size, frame.rows)
            yield from self._resolve(source, frame.linear("row" if row_sized else "full"))
            return
        for position, linear in accesses(node, frame.linear(level)):
            yield from self._resolve(node.inputs[position], linear)

    def _resolve(self, node: Node, linear: Any) -> Iterator[tuple[Node, Any]]:
        if node not in self.inlined:
            yield node, linear
            return
        for position, at in accesses(node, linear):
            yield from self._resolve(node.inputs[position], at)

    def _path_outside(self, a: Group, b: Group) -> bool:
        """Whether b depends on a through a group that is neither."""
        first = min(self.order[n] for n in a.levels)
        seen = {id(a), id(b)}
        stack = [s for n in b.levels for s in self.sources[n]]
        while stack:
            group = self.group.get(stack.pop())
            # What ends before a begins, with all it depends on, cannot depend on a.
            if group is None or id(group) in seen or self.last[id(group)] < first:
                continue
            seen.add(id(group))
            inputs = [s for n in group.levels for s in self.sources[n]]
            if any(self.group.get(s) is a for s in inputs):
                return True
            stack += inputs
        return False

    # ---- results -------------------------------------------------------------------------

    def _groups(self) -> list[Group]:
        return list(dict.fromkeys(self.group[n] for n in self.graph.nodes if n in self.group))

    def _ordered(self) -> list[Group]:
        """Groups after what they read; among free ones the order of the graph."""
        done: set[int] = set()
        result: list[Group] = []
        for first in self._groups():
            stack: list[tuple[Group, Iterator[Group]]] = [(first, iter(self._needs(first)))]
            while stack:
                group, rest = stack[-1]
                following = next((g for g in rest if id(g) not in done), None)
                if following is not None and id(group) not in done:
                    stack.append((following, iter(self._needs(following))))
                    continue
                stack.pop()
                if id(group) not in done:
                    done.add(id(group))
                    result.append(group)
        return result

    def _needs(self, group: Group) -> list[Group]:
        found = (self.group.get(s) for n in group.levels for s in self.sources[n])
        return [g for g in dict.fromkeys(found) if g is not None and g is not group]

    def _stored(self) -> set[Node]:
        stored = {n for n in self.required if n in self.group}
        stored |= {self.aliases[n] for n in self.required if n in self.aliases}
        for node, group in self.group.items():
            if group.kind != "loop" or any(self.group[r] is not group for r in self.readers[node]):
                stored.add(node)
            if group.levels[node] in ("col", "one"):
                stored.add(node)
        return {n for n in stored if n in self.group and isinstance(n.type, TensorType)}


def _is_cheap_copy(node: Node) -> bool:
    """Whether it costs its readers next to nothing to read its input instead, which is in memory
    in any case: an input of the graph, or what a library call gives."""
    if len(node.inputs) != 1:
        return False
    (source,) = node.inputs
    base = source
    while is_alias(base):
        (base,) = base.inputs
    if not isinstance(base.op, Input) and base.op.fusion != "library":
        return False
    narrow = source.dtype.itemsize <= node.dtype.itemsize
    return narrow and source.tensor.size == node.tensor.size and weight(node) <= CHEAP


def _unify(a: Frame, b: Frame) -> Frame | None:
    """The frame in which both run, or None."""
    if a.fixed and b.fixed:
        return a if same(a.rows, b.rows) and same(a.cols, b.cols) else None
    if not a.fixed and not b.fixed:
        return a if same(a.rows, b.rows) else None
    fixed, free = (a, b) if a.fixed else (b, a)
    if same(free.rows, fixed.rows * fixed.cols) or same(free.rows, fixed.rows):
        return fixed
    return None


def _relabel(group: Group, frame: Frame) -> dict[Node, str]:
    """Levels of a group's members in the frame it is merged into."""
    old = group.frame
    if old.fixed or not frame.fixed or same(old.rows, frame.rows * frame.cols):
        return dict(group.levels)
    return {n: "row" if level == "full" else level for n, level in group.levels.items()}


def _show(frame: Frame) -> str:
    return f"{frame.rows}x{frame.cols}" if frame.fixed else str(frame.rows)


def members(groups: Iterable[Group]) -> int:
    """Number of nodes in some groups."""
    return sum(len(g.levels) for g in groups)
