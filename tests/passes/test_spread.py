"""Graphs cut for several GPUs compute what they compute uncut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ir.verify import verify
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.core import Input
from graphnn.compiler.passes.spread import Spread, spread
from graphnn.compiler.trace import Trace

A, B, C = (f"/device:GPU:{i}" for i in range(3))
F32 = np.dtype(np.float32)


class Runner:
    """Runs a cut graph with NumPy. memory: of each Variable on each device."""

    def __init__(self, graph: Graph, cut: Spread, memory: dict[int, dict[str, Any]]) -> None:
        self.graph, self.cut, self.memory = graph, cut, memory

    def run(self, arrays: list[Any]) -> list[Any]:
        """The outputs; Variables are None among the arrays."""
        cut, values = self.cut, [None] * self.cut.count
        for position, places in enumerate(cut.given):
            for device, key in places.items():
                given = arrays[position]
                values[key] = self.memory[position][device] if given is None else given
        for exchange, parts in zip(cut.exchanges, cut.stages, strict=True):
            self._exchange(exchange, values)
            for part in parts:
                self._part(part, values, arrays)
        return [values[key] for key in cut.outputs]

    def _exchange(self, exchange: Any, values: list[Any]) -> None:
        for reduction in exchange.reductions:
            sums = []
            for keys in zip(*reduction.inputs, strict=True):
                total = values[keys[0]]
                for key in keys[1:]:
                    total = total + values[key]
                sums.append(total)
            for row in reduction.outputs:
                for key, total in zip(row, sums, strict=True):
                    values[key] = total
        for transfer in exchange.transfers:
            assert values[transfer.source] is not None
            values[transfer.target] = np.array(values[transfer.source])

    def _part(self, part: Any, values: list[Any], arrays: list[Any]) -> None:
        verify(part.graph, level=2)
        assert not any(n.device for n in part.graph.nodes)
        given = []
        for place, key in enumerate(part.inputs):
            if key is None:
                given.append(self.memory[part.variables[place]][part.device])
            else:
                given.append(values[key])
        assert all(g is not None for g in given)
        sizes = {
            str(s): arrays[p].shape[a]
            for p, n in enumerate(self.graph.inputs)
            for a, s in enumerate(n.shape)
            if not isinstance(s, int)
        }
        given += [np.empty((sizes[str(s)], 0), bool) for s in part.sizes]
        outputs, news = interpret(part.graph, given)
        for key, value in zip(part.outputs, outputs, strict=True):
            values[key] = np.array(value)
        places = {n: i for i, n in enumerate(part.graph.inputs)}
        for (node, _), value in zip(part.graph.updates, news, strict=True):
            memory = self.memory[part.variables[places[node]]]
            memory[part.device] = np.array(value)


class Maker:
    """A random graph of replicas on three GPUs, with work outside of them."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.trace = Trace("random")
        self.ops = Ops(self.trace)
        self.devices = [A, B, C][: int(self.random.integers(1, 4))]
        self.homes: dict[int, tuple[str, ...]] = {}

    def pick(self, values: list[Any]) -> Any:
        return values[int(self.random.integers(len(values)))]

    def step(self, pool: list[Node]) -> None:
        kind = int(self.random.integers(6))
        a, b = self.pick(pool), self.pick(pool)
        if kind == 0:
            pool.append(self.ops.add(a, self.ops.sum(b, axes=(0,), keepdims=True)))
        elif kind == 1:
            pool.append(self.ops.sin(a))
        elif kind == 2:
            pool.append(self.ops.matmul(a, b))
        elif kind == 3:
            pool.append(self.ops.multiply(a, b))
        else:
            pool.append(self.ops.add(self.ops.tanh(a), b))

    def graph(self) -> Graph:
        type, trace = TensorType((3, 3), F32), self.trace
        shared = [trace.argument(f"x{i}", type) for i in range(2)]
        mirrored, own = object(), [object() for _ in self.devices]
        trace.read(mirrored, "w", type)
        for i, device in enumerate(self.devices):
            trace.read(own[i], f"v{i}", type)
            self.homes[3 + i] = (device,)
        self.homes[2] = tuple(self.devices)
        variables = [mirrored, *own]
        pools = [[*shared, trace.read(mirrored, "w", type)] for _ in self.devices]
        across = list(shared)
        for _ in range(3):
            for pool, device, variable in zip(pools, self.devices, own, strict=True):
                trace.device = device
                pool.append(trace.read(variable, "v", type))
                for _ in range(3):
                    self.step(pool)
                trace.assign(variable, "v", type, self.pick(pool))
            trace.device = ""
            rows = [[self.pick(pool) for _ in range(2)] for pool in pools]
            kind = self.pick(["sum", "mean"])
            flat = [n for row in rows for n in row]
            sums = self.ops.all_reduce(*flat, kind=kind, replicas=len(self.devices))
            across += sums
            self.step(across)
            if self.random.random() < 0.5:
                trace.assign(mirrored, "w", type, self.pick(across))
            for pool in pools:
                pool += [self.pick(list(sums)), trace.read(mirrored, "w", type)]
            across += [self.pick(self.pick(pools)), trace.read(self.pick(variables), "w", type)]
        outputs = [self.pick(across), self.pick(self.pick(pools)), trace.read(own[0], "v", type)]
        return trace.finish(outputs)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int) -> None:
    maker = Maker(seed)
    graph = maker.graph()
    arrays = [maker.random.normal(size=n.shape).astype(F32) * 0.5 for n in graph.inputs]
    cut = spread(graph, A, maker.homes)
    is_variable = [n.op.kind == "variable" for n in graph.inputs if isinstance(n.op, Input)]
    memory = {
        p: {d: np.array(arrays[p]) for d in maker.homes[p]} for p, v in enumerate(is_variable) if v
    }
    runner = Runner(graph, cut, memory)
    given = [None if v else a for v, a in zip(is_variable, arrays, strict=True)]
    for _ in range(2):
        outputs, news = interpret(graph, arrays)
        found = runner.run(given)
        for a, b in zip(found, outputs, strict=True):
            np.testing.assert_array_equal(a, b)
        for (node, _), value in zip(graph.updates, news, strict=True):
            arrays[graph.inputs.index(node)] = np.array(value)
        for position, copies in memory.items():
            for copy in copies.values():
                np.testing.assert_array_equal(copy, arrays[position])


def training_step() -> tuple[Graph, dict[int, tuple[str, ...]]]:
    """Two replicas with batches of their own sizes, and an update of a mirrored Variable."""
    trace = Trace("step")
    ops = Ops(trace)
    parts = [
        trace.argument(f"x{i}", TensorType((symbol(s), 4), F32)) for i, s in enumerate(("n", "m"))
    ]
    variable, type = object(), TensorType((4, 4), F32)
    weight = trace.read(variable, "w", type)
    gradients, losses = [], []
    for part, device in zip(parts, (A, B), strict=True):
        trace.device = device
        y = ops.matmul(part, weight)
        losses.append(ops.sum(y, axes=(0, 1)))
        gradients.append(ops.matmul(ops.permute_dims(part, axes=(1, 0)), y))
    trace.device = ""
    (total,) = ops.all_reduce(*gradients, kind="sum", replicas=2)
    trace.assign(variable, "w", type, ops.subtract(weight, ops.multiply(total, 0.1)))
    (loss,) = ops.all_reduce(*losses, kind="mean", replicas=2)
    return trace.finish([loss]), {2: (A, B)}


def test_a_step_has_two_stages_and_one_sum_between_them() -> None:
    cut = spread(*_with_home(training_step()))
    assert [[p.device for p in parts] for parts in cut.stages] == [[A, B], [A, B]]
    before, between = cut.exchanges
    assert not before.reductions and not before.transfers  # each replica's part goes to its GPU
    assert [list(given) for given in cut.given] == [[A], [B], [A, B]]
    (reduction,) = between.reductions
    assert reduction.devices == (A, B) and len(reduction.inputs[0]) == 1
    assert [t.device for t in between.transfers] == [A]  # the other replica's loss
    assert all(len(p.graph.updates) == 1 for p in cut.stages[1])


def _with_home(made: tuple[Graph, Any]) -> tuple[Graph, str, Any]:
    return made[0], A, made[1]


def test_a_size_that_no_input_tells() -> None:
    trace = Trace("sizes")
    x = trace.argument("x", TensorType((symbol("n"),), F32))
    y = trace.argument("y", TensorType((2,), F32))
    ops = Ops(trace)
    trace.device = A
    first = ops.sum(x, axes=(0,))
    trace.device = B
    second = ops.multiply(y, trace.constant(symbol("n"), F32))
    trace.device = ""
    graph = trace.finish([ops.add(second, first)])
    cut = spread(graph, A, {})
    (part,) = [p for parts in cut.stages for p in parts if p.device == B]
    assert [str(s) for s in part.sizes] == ["n"]
    arrays = [np.ones(5, F32), np.array([1, 2], F32)]
    (found,) = Runner(graph, cut, {}).run(arrays)
    np.testing.assert_array_equal(found, interpret(graph, arrays)[0][0])


def test_what_may_round_otherwise_elsewhere_is_computed_once() -> None:
    """Norms of gradients are found on the first GPU, and the others get them from there."""
    trace = Trace("clip")
    ops, type, variable = Ops(trace), TensorType((4,), F32), object()
    weight = trace.read(variable, "w", type)
    trace.device = A
    a = ops.sin(weight)
    trace.device = B
    b = ops.cos(weight)
    trace.device = ""
    (total,) = ops.all_reduce(a, b, kind="sum", replicas=2)
    norm = ops.sum(ops.multiply(total, total), axes=(0,), keepdims=True)
    trace.assign(variable, "w", type, ops.divide(total, norm))
    cut = spread(trace.finish([]), A, {0: (A, B)})
    parts = [p for parts in cut.stages for p in parts]
    assert [p.device for p in parts if any(n.op.name == "sum" for n in p.graph.nodes)] == [A]
    assert [t.device for e in cut.exchanges for t in e.transfers] == [B]
