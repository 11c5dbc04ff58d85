"""The order of steps for memory."""

from typing import Any

from graphnn.compiler.codegen.program import Work
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.passes.fuse import Group, fuse
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.passes.schedule import order_for_memory
from tests.graphs import Builder

DEPTH, ROWS, WIDTH = 4, 256, 16


def deep() -> Graph:
    """Layers and the gradients of all their weights: activations are far larger than weights."""
    b = Builder()
    x = b.input(ROWS, WIDTH)
    weights = [b.input(WIDTH, WIDTH) for _ in range(DEPTH)]
    for weight in weights:
        x = b.ops.tanh(b.ops.matmul(x, weight))
    found = b.apply(Gradient(targets=1, sources=DEPTH), x, *weights, x)
    return Pipeline().run(b.graph(*found))


def works_of(graph: Graph) -> list[Any]:
    """Steps with what they read and write."""
    partition = fuse(graph)
    made = []
    for group in partition.groups:
        reads = dict.fromkeys(
            partition.aliases.get(i, i) for n in group.nodes for i in sources(partition, n)
        )
        writes = [n for n in group.nodes if n in partition.stored]
        outside = [n for n in reads if n not in group.levels]
        lowered: Any = group.kind
        made.append(Work(group, lowered, None, outside, writes))
    return made


def sources(partition: Any, node: Node) -> list[Node]:
    """Nodes in memory that a node reads."""
    found: list[Node] = []
    for source in node.inputs:
        inlined = source in partition.inlined and source not in partition.aliases
        found += sources(partition, source) if inlined else [source]
    return found


def peak(works: list[Any]) -> int:
    """Most elements alive at once."""
    last = {n: k for k, w in enumerate(works) for n in (*w.writes, *w.reads)}
    alive: dict[Node, int] = {}
    most = 0
    for k, work in enumerate(works):
        alive |= {n: int(n.tensor.size) for n in work.writes}
        most = max(most, sum(alive.values()))
        alive = {n: size for n, size in alive.items() if last[n] > k}
    return most


def test_gradients_of_weights_come_as_soon_as_they_can() -> None:
    graph = deep()
    works = works_of(graph)
    ordered = order_for_memory(works, set(graph.roots))
    assert sorted(map(id, ordered)) == sorted(map(id, works))
    assert peak(ordered) < peak(works)


def test_each_step_comes_after_what_it_reads() -> None:
    graph = deep()
    made: set[Node] = set(graph.inputs)
    for work in order_for_memory(works_of(graph), set(graph.roots)):
        assert made.issuperset(work.reads)
        made |= set(work.writes)


def test_calls_back_to_the_host_keep_their_order() -> None:
    b = Builder()
    large, small = b.input(1024), b.input(4)
    first, second = b.ops.exp(small), b.ops.exp(large)
    calls = [
        Work(Group("host", fuse(b.graph(first)).groups[0].frame), None, None, [n], [])
        for n in (first, second)
    ]
    steps: list[Any] = works_of(b.graph(first, second)) + calls
    ordered = order_for_memory(steps, set())
    assert ordered.index(calls[0]) < ordered.index(calls[1])


def test_what_frees_nothing_stays_where_it_is() -> None:
    b = Builder()
    x = b.input(64)
    values = [b.ops.sum(b.ops.multiply(x, float(k)), axes=(0,)) for k in range(2, 5)]
    graph = b.graph(*values)
    works = works_of(graph)
    assert order_for_memory(works, set(graph.roots)) == works
