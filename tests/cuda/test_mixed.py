"""Programs on a GPU and the host at once, on the emulated GPU: random wishes, Variables anywhere,
random numbers, checks, sizes that only the other side knows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphnn.build import Compiled, compile_graph
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.text import print_graph, read_graph
from graphnn.compiler.ir.types import TensorType, float32, int32
from graphnn.compiler.ops.core import HostCall
from graphnn.compiler.trace import WISH, Trace
from graphnn.runtime.errors import ArgumentError, OutOfRangeError
from tests.codegen.traced import Tracer, trace
from tests.cuda import stand_in
from tests.cuda.running import assert_close
from tests.cuda.test_random_programs import drawn
from tests.random_programs.test_random_programs import updating

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())
CPU, GPU = "/device:CPU:0", "/device:GPU:0"


class Wishing(Trace):
    """A trace whose nodes wish for random devices, most of them for none."""

    def __init__(self, seed: int) -> None:
        super().__init__("random")
        self.random = random.Random(seed)

    def wish(self) -> str:
        return self.random.choice(["", "", CPU, GPU])


def on(device: str, array: Any) -> Any:
    """An array on a device."""
    import cupy

    return array if device == CPU else cupy.asarray(array)


def host(array: Any) -> Any:
    """An array's values."""
    return array if isinstance(array, np.ndarray) else array.get()


def run(made: Compiled, arrays: Sequence[Any], times: int = 3) -> list[Any]:
    """Results on the host; every run gives equal bits, launched one by one or captured."""
    found: list[list[Any]] = []
    for _ in range(times):
        given = [
            None if a is None else on(n.device or made.device, a)
            for n, a in zip(made.traced.inputs, arrays, strict=True)
        ]
        results = made.run(given)
        made.wait()
        for node, result in zip(made.graph.outputs, results, strict=True):
            wanted = node.device or made.device
            if node not in made.graph.inputs:
                assert isinstance(result, np.ndarray) == (wanted == CPU)
        found.append([host(r) for r in results])
    for other in found[1:]:
        assert [a.tobytes() for a in other] == [a.tobytes() for a in found[0]]
    return found[-1]


def check(graph: Graph, arrays: Sequence[Any], device: str) -> Compiled:
    text = print_graph(graph)
    assert print_graph(read_graph(text)) == text
    made = compile_graph(graph, device=device)
    want, _ = interpret(made.graph, arrays)
    for got, value in zip(run(made, arrays), want, strict=True):
        assert (got.shape, got.dtype) == (value.shape, value.dtype)
        assert_close(got, value, 3e-5)
    return made


@pytest.mark.parametrize("device", [GPU, CPU])
def test_random_wishes(device: str, emulated_gpu: stand_in.Machine) -> None:
    regions = transfers = 0
    with np.errstate(all="ignore"):
        for seed, program in enumerate(drawn(20, 12)):
            graph = program.graph(gradient=seed % 2 == 0, trace=Wishing(seed))
            made = check(graph, program.arrays(), device)
            transfers += len(made.placement.transfers) if made.placement else 0
            regions += len(getattr(made.built, "regions", ()))
    assert regions > 8 and transfers > 8


def test_random_wishes_with_symbolic_sizes(emulated_gpu: stand_in.Machine) -> None:
    with np.errstate(all="ignore"):
        for seed, program in enumerate(drawn(6, 10)):
            graph = program.graph(symbolic=True, trace=Wishing(seed))
            made = compile_graph(graph, device=GPU)
            for batch in (6, 17):
                arrays = program.arrays(batch=batch)
                want, _ = interpret(graph, arrays)
                for got, value in zip(run(made, arrays), want, strict=True):
                    assert_close(got, value, 3e-5)


@pytest.mark.parametrize("bound", [True, False])
def test_random_updates_of_variables_anywhere(bound: bool, emulated_gpu: stand_in.Machine) -> None:
    """New values and results are as if everything had been computed before anything changed."""
    with np.errstate(all="ignore"):
        for seed, program in enumerate(drawn(24, 10)):
            rng = random.Random(seed)
            state = program.arrays()
            devices = [rng.choice(["", "", CPU]) for _ in state]
            graph = updating(program, Wishing(seed), devices)
            made = compile_graph(graph, device=GPU)
            buffers = [on(d or GPU, np.array(a)) for d, a in zip(devices, state, strict=True)]
            for position, buffer in enumerate(buffers if bound else ()):
                made.bind(position, buffer)
            for _ in range(4):
                want, new = interpret(made.graph, state)
                got = made.run([None] * len(state) if bound else buffers)
                made.wait()
                for value, expected in zip(got, want, strict=True):
                    assert_close(host(value), expected, 3e-5)
                for (node, _), value in zip(made.graph.updates, new, strict=True):
                    position = made.graph.inputs.index(node)
                    assert_close(host(buffers[position]), value, 3e-5)
                state = [np.array(host(b)) for b in buffers]


def test_the_wish_of_a_thread_is_on_the_nodes_and_in_the_text() -> None:
    def function(t: Tracer, x: Any) -> Any:
        y = t.ops.exp(x)
        WISH.device = CPU
        try:
            y = t.ops.softmax(y, axis=-1)
        finally:
            WISH.device = ""
        return t.ops.add(y, x)

    graph, _ = trace(function, (2, 3))
    text = print_graph(graph, places=False)
    assert "%2: f32[2,3] = softmax(%1) on CPU:0\n" in text
    assert text.count(" on ") == 1
    assert print_graph(read_graph(text), places=False) == text


def test_a_size_that_no_input_of_a_region_has(emulated_gpu: stand_in.Machine) -> None:
    tracer = Tracer()
    n = symbol("n")
    x = tracer.trace.argument("x", TensorType((n, 3), float32))
    total = tracer.ops.sum(x, axes=(0, 1))
    WISH.device = CPU
    try:
        y = tracer.ops.broadcast_to(tracer.ops.exp(tracer.ops.multiply(total, 0.01)), shape=(n,))
        y = tracer.ops.multiply(y, tracer.trace.constant(n, float32))
    finally:
        WISH.device = ""
    graph = tracer.trace.finish([tracer.ops.square(y)])
    made = compile_graph(graph, device=GPU)
    for rows in (4, 9):
        array = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        (want,), _ = interpret(graph, [array])
        (got,) = run(made, [array])
        np.testing.assert_allclose(got, want, rtol=1e-5)


class Kept:
    """A Variable of a test: a NumPy array or one on the GPU."""

    def __init__(self, value: Any, device: str) -> None:
        self.device, self.buffer = device, on(device, np.array(value, np.float32))
        self.type = TensorType(self.buffer.shape, np.dtype(np.float32))

    def read(self, t: Tracer) -> Any:
        return t.trace.read(self, "v", self.type, "" if self.device == GPU else self.device)

    def assign(self, t: Tracer, value: Any) -> None:
        t.trace.assign(self, "v", self.type, value)


@pytest.mark.parametrize("places", [(GPU, CPU), (CPU, GPU), (CPU, CPU), (GPU, GPU)])
@pytest.mark.parametrize("wish", ["", CPU, GPU])
def test_variables_on_both_sides(
    places: tuple[str, str], wish: str, emulated_gpu: stand_in.Machine
) -> None:
    a, b = (Kept(np.arange(6) + k, where) for k, where in enumerate(places))

    def step(t: Tracer, x: Any) -> Any:
        old_a, old_b = a.read(t), b.read(t)
        WISH.device = wish
        try:
            new = t.ops.add(t.ops.multiply(old_a, 0.5), x)
        finally:
            WISH.device = ""
        a.assign(t, t.ops.add(old_b, new))
        b.assign(t, old_a)  # an old value: written after everything has read it
        return [t.ops.sum(new, axes=(0,)), old_b]

    graph, tracer = trace(step, (6,))
    made = compile_graph(graph, device=GPU)
    sources = [c.source for c in tracer.trace.variables.values()]
    state = [np.array(host(s.buffer)) for s in sources]
    for k, source in enumerate(sources):
        made.bind(1 + k, source.buffer)
    for k in range(5):
        x = np.full(6, k, np.float32)
        want, state = interpret(graph, [x, *state])
        got = made.run([on(GPU, x), None, None])
        made.wait()
        for value, expected in zip(got, want, strict=True):
            np.testing.assert_allclose(host(value), expected, rtol=1e-6)
    for source, value in zip(sources, state, strict=True):
        np.testing.assert_allclose(host(source.buffer), value, rtol=1e-6)


def test_the_host_calls_python_between_captured_pieces(emulated_gpu: stand_in.Machine) -> None:
    seen: list[Any] = []

    def count(x: Any) -> Any:
        seen.append(x)
        return (x + len(seen),)

    def step(t: Tracer, x: Any) -> Any:
        y = t.ops.exp(x)
        many = t.ops.cumsum(t.ops.softmax(t.ops.matmul(y, y), axis=-1), axis=0)
        (z,) = t.trace.apply(HostCall(function=count, types=(many.tensor,)), (many,))
        return [t.ops.cumsum(t.ops.cumsum(t.ops.multiply(z, y), axis=0), axis=1), z]

    graph, _ = trace(step, (200, 200))
    made = compile_graph(graph, device=GPU)
    x = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    import cupy

    for k in range(4):
        got, z = made.run([cupy.asarray(x)])
        made.wait()
        y = np.exp(x)
        product = y @ y
        soft = np.exp(product - product.max(-1, keepdims=True))
        middle = np.cumsum(soft / soft.sum(-1, keepdims=True), 0) + k + 1
        np.testing.assert_allclose(z.get(), middle, rtol=1e-4)
        np.testing.assert_allclose(got.get(), np.cumsum((middle * y).cumsum(0), 1), rtol=1e-4)
    pieces = made.executable.pieces()
    assert [(p.host, p.graph) for p in pieces] == [(False, True), (True, False), (False, True)]
    assert pieces[1].reason == "host: host_call runs on the host"
    assert made.placement is not None
    (there, back) = made.placement.transfers
    assert there.reason == "host_call calls Python" and there.nbytes == 200 * 200 * 4
    assert (back.source, back.target) == (CPU, GPU)
    assert there.loc is not None and there.loc.file.endswith("test_mixed.py")


def test_an_error_on_the_host_leaves_the_program_usable(emulated_gpu: stand_in.Machine) -> None:
    fails = [True]

    def function(x: Any) -> Any:
        if fails[0]:
            raise ZeroDivisionError("in Python")
        return (x,)

    def step(t: Tracer, x: Any) -> Any:
        y = t.ops.exp(x)
        (z,) = t.trace.apply(HostCall(function=function, types=(y.tensor,)), (y,))
        return t.ops.add(z, y)

    graph, _ = trace(step, (4,))
    made = compile_graph(graph, device=GPU)
    x = on(GPU, np.ones(4, np.float32))
    for _ in range(3):
        fails[0] = True
        with pytest.raises(ZeroDivisionError):
            made.run([x])
        fails[0] = False
        np.testing.assert_allclose(made.run([x])[0].get(), 2 * np.full(4, np.e), rtol=1e-6)


def test_a_check_in_a_host_region_is_raised_at_once(emulated_gpu: stand_in.Machine) -> None:
    def look_up(t: Tracer, x: Any) -> Any:
        index = t.trace.argument("i", TensorType((3,), int32))
        WISH.device = CPU
        try:
            return t.ops.index(x, index, axes=(0,), at=0)
        finally:
            WISH.device = ""

    graph, _ = trace(look_up, (4, 2))
    made = compile_graph(graph, device=GPU)
    table = on(GPU, np.arange(8, dtype=np.float32).reshape(4, 2))
    with pytest.raises(OutOfRangeError, match="index 9 on axis 0 of size 4"):
        made.run([table, on(GPU, np.array([0, 9, 1], np.int32))])
    (rows,) = made.run([table, on(GPU, np.array([3, -4, 1], np.int32))])
    np.testing.assert_array_equal(rows, [[6, 7], [0, 1], [2, 3]])


def test_random_numbers_on_the_host_are_those_of_the_gpu(emulated_gpu: stand_in.Machine) -> None:
    def draw(t: Tracer, x: Any) -> Any:
        state = t.trace.argument("state", TensorType((4,), np.dtype(np.uint32)))
        WISH.device = CPU
        try:
            here = t.ops.random_uniform(state, shape=(5, 3))
        finally:
            WISH.device = ""
        order = t.ops.permutation(state, size=7)  # there is no GPU code for it
        return [here, t.ops.random_uniform(state, shape=(5, 3)), order, t.ops.add(here, x)]

    graph, _ = trace(draw, (5, 3))
    arrays = [np.ones((5, 3), np.float32), np.array([1, 2, 3, 4], np.uint32)]
    made = check(graph, arrays, GPU)
    here, there, *_ = run(made, arrays)
    np.testing.assert_array_equal(here, there)
    assert made.placement is not None
    where = {n.op.name: d for n, d in made.placement.devices.items()}
    assert where["permutation"] == CPU and where["add"] == GPU


def test_identity_copies_a_result_to_the_host(emulated_gpu: stand_in.Machine) -> None:
    def step(t: Tracer, x: Any) -> Any:
        y = t.ops.cumsum(t.ops.exp(x), axis=0)
        WISH.device = CPU
        try:
            return [y, t.ops.identity(y)]
        finally:
            WISH.device = ""

    graph, _ = trace(step, (40,))
    made = compile_graph(graph, device=GPU)
    for _ in range(3):
        there, here = made.run([on(GPU, np.ones(40, np.float32))])
        assert isinstance(here, np.ndarray)
        np.testing.assert_array_equal(there.get(), here)


def test_attention_on_the_host(emulated_gpu: stand_in.Machine) -> None:
    """The GPU has it whole, the host does it in parts."""

    def step(t: Tracer, q: Any, k: Any, v: Any) -> Any:
        WISH.device = CPU
        try:
            here = t.ops.attention(q, k, v, scale=0.5)
        finally:
            WISH.device = ""
        return [here, t.ops.multiply(here, 2.0)]

    graph, _ = trace(step, *[(2, 5, 3, 8)] * 3)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 5, 3, 8)).astype(np.float32) for _ in range(3)]
    made = check(graph, arrays, GPU)
    (region,) = made.built.regions.values()
    assert len(region.program.steps) > 1


def test_a_gpu_that_is_not_there(emulated_gpu: stand_in.Machine) -> None:
    def step(t: Tracer, x: Any) -> Any:
        WISH.device = "/device:GPU:1"
        try:
            return t.ops.exp(x)
        finally:
            WISH.device = ""

    graph, _ = trace(step, (4,))
    with pytest.raises(ArgumentError, match="a GPU below 1"):
        compile_graph(graph, device=GPU)
