"""Placement over one device and over two that are only described."""

from __future__ import annotations

import time
from typing import Any

import pytest

from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.text import print_graph, read_graph
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ir.verify import verify
from graphnn.compiler.ops.core import HostCall
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.passes.place import HOST, Link, Machine, gpu_machine, place
from graphnn.compiler.passes.regions import HostRegion, split
from graphnn.compiler.passes.simplify import Simplify
from graphnn.compiler.trace import WISH
from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import ArgumentError, GraphError
from tests.codegen.traced import Tracer, trace

GPU_NAME = "/device:GPU:0"
CPU = Machine(HOST, bandwidth=2e10, launch=1e-7)
GPU = Machine(GPU_NAME, bandwidth=2e12, launch=1e-6, is_host=False, flops=5e13)


def big(t: Tracer, x: Any) -> Any:
    return t.ops.sum(t.ops.exp(t.ops.tanh(x)), axes=(0, 1))


def wished(device: str, function: Any, *arguments: Any, **settings: Any) -> Any:
    """What an op makes within `with device(...)`."""
    WISH.device = device
    try:
        return function(*arguments, **settings)
    finally:
        WISH.device = ""


def called(t: Tracer, x: Any) -> Any:
    kind = HostCall(function=lambda v: (v,), types=(x.tensor,))
    return t.trace.apply(kind, (x,))[0]


def test_one_device_takes_everything() -> None:
    graph, _ = trace(big, (8, 8))
    placement = place(graph)
    assert set(placement.devices.values()) == {"/device:CPU:0"}
    assert not placement.transfers


def test_big_work_on_data_of_the_gpu_stays_there() -> None:
    graph, _ = trace(big, (4096, 4096))
    placement = place(graph, (CPU, GPU), {graph.inputs[0]: GPU_NAME})
    assert set(placement.devices.values()) == {GPU_NAME}


def test_small_work_does_not_travel() -> None:
    graph, _ = trace(big, (4, 4))
    placement = place(graph, (CPU, GPU), {graph.inputs[0]: HOST})
    assert not placement.transfers


def test_the_host_only_op_says_why_it_costs_copies() -> None:
    def function(t: Tracer, x: Any) -> Any:
        return t.ops.tanh(called(t, t.ops.exp(x)))

    graph, _ = trace(function, (4096, 4096))
    placement = place(graph, (CPU, GPU), home=GPU_NAME)
    there, back = placement.transfers
    assert (there.reason, there.target) == ("host_call runs only on the host", HOST)
    assert (back.reason, back.target) == (
        f"tanh is faster on {GPU_NAME}, the copy included",
        GPU_NAME,
    )
    assert there.nbytes == back.nbytes == 4 * 4096 * 4096
    assert there.loc is not None and there.loc.file.endswith("test_place.py")


def test_work_between_two_host_ops_stays_if_it_is_small() -> None:
    def function(t: Tracer, x: Any) -> Any:
        return t.ops.sum(called(t, t.ops.tanh(t.ops.exp(called(t, x)))), axes=(0, 1))

    for size, where in ((16, HOST), (4096, GPU_NAME)):
        graph, _ = trace(function, (size, size))
        devices = place(graph, (CPU, GPU), home=GPU_NAME).devices
        assert {d for n, d in devices.items() if n.op.name in ("exp", "tanh")} == {where}


def test_a_matrix_product_is_not_pulled_to_the_host() -> None:
    def function(t: Tracer, x: Any) -> Any:
        return called(t, t.ops.matmul(called(t, x), x))

    graph, _ = trace(function, (4096, 4096))
    devices = place(graph, (CPU, GPU), home=GPU_NAME).devices
    assert {d for n, d in devices.items() if n.op.name == "matmul"} == {GPU_NAME}


def test_wishes_are_kept_by_passes_and_honoured() -> None:
    def function(t: Tracer, x: Any) -> Any:
        here = wished(HOST, t.ops.softmax, x, axis=-1)
        return [t.ops.sum(t.ops.add(here, x), axes=(0, 1)), here]

    graph, _ = trace(function, (512, 512))
    after = Pipeline().run(graph)
    placement = place(after, (CPU, GPU), home=GPU_NAME)
    parts = {n.op.name for n in after.nodes if n.device == HOST}
    assert {"exp", "divide"} <= parts
    assert all(placement.devices[n] == HOST for n in after.nodes if n.device == HOST)
    reasons = {t.reason for t in placement.transfers}
    assert any(r.endswith(f"was placed on {HOST}") for r in reasons)
    assert placement.ends == (GPU_NAME, HOST)


def test_gradients_are_where_their_op_is() -> None:
    def function(t: Tracer, x: Any) -> Any:
        loss = t.ops.sum(wished(HOST, t.ops.tanh, x), axes=(0,))
        return t.gradient(loss, x)

    graph, _ = trace(function, (64,))
    after = Pipeline().run(graph)
    assert {n.device for n in after.nodes if n.op.name in ("tanh", "square")} == {HOST}


def test_equal_expressions_with_other_wishes_stay_apart() -> None:
    def function(t: Tracer, x: Any) -> Any:
        return [t.ops.exp(x), wished(HOST, t.ops.exp, x), t.ops.exp(x)]

    graph, _ = trace(function, (64,))
    after = Simplify().run(graph)
    assert [n.device for n in after.nodes if n.op.name == "exp"] == ["", HOST]


def test_one_copy_serves_all_readers() -> None:
    def function(t: Tracer, x: Any) -> Any:
        y = t.ops.exp(x)
        return [wished(HOST, getattr(t.ops, name), y) for name in ("tanh", "sin", "cos", "square")]

    graph, _ = trace(function, (64, 64))
    placement = place(graph, (CPU, GPU), home=GPU_NAME, link=Link(1e12, 1e-5))
    assert len(placement.transfers) == 1


def test_constants_do_not_travel() -> None:
    def function(t: Tracer, x: Any) -> Any:
        y = t.ops.multiply(called(t, x), 3.0)
        return t.ops.multiply(t.ops.exp(y), 3.0)

    graph, _ = trace(function, (512, 512))
    placement = place(graph, (CPU, GPU), home=GPU_NAME)
    assert all(t.node.op.name != "constant" for t in placement.transfers)


def test_regions_alternate_with_the_gpu_and_never_wait_for_themselves() -> None:
    def function(t: Tracer, x: Any) -> Any:
        a = called(t, x)
        b = t.ops.matmul(a, x)  # on the GPU, between two calls
        return [t.ops.matmul(called(t, t.ops.add(a, b)), x), called(t, t.ops.tanh(a))]

    graph, _ = trace(function, (2048, 2048))
    placement = place(graph, (CPU, GPU), home=GPU_NAME)
    cut = split(graph, placement)
    regions = [n for n in cut.nodes if isinstance(n.op, HostRegion)]
    assert len(regions) == 2
    calls = [sum(n.op.name == "host_call" for n in r.op.graph.nodes) for r in regions]
    assert sorted(calls) == [1, 2] or calls == [2, 1]


def test_a_large_graph_is_placed_quickly() -> None:
    def function(t: Tracer, x: Any) -> Any:
        y = x
        for k in range(600):
            y = t.ops.tanh(t.ops.add(t.ops.matmul(y, x), float(k)))
            if k % 100 == 50:
                y = called(t, y)
        return y

    graph, _ = trace(function, (512, 512))
    start = time.perf_counter()
    placement = place(graph, (CPU, gpu_machine(GPU_NAME, DeviceFacts())), home=GPU_NAME)
    assert time.perf_counter() - start < 2
    assert sum(d == HOST for d in placement.devices.values()) < 60


def test_unknown_device() -> None:
    graph, _ = trace(big, (4, 4))
    with pytest.raises(ArgumentError, match="GPU:7"):
        place(graph, (CPU, GPU), {graph.inputs[0]: "/device:GPU:7"})


def test_symbolic_sizes_have_a_usual_size() -> None:
    tracer = Tracer()
    x = tracer.trace.argument("x", TensorType((symbol("n"), 4096), float32))
    graph = tracer.trace.finish([tracer.ops.exp(called(tracer, x))])
    transfers = place(graph, (CPU, GPU), home=GPU_NAME).transfers
    assert [str(t.nbytes) for t in transfers] == ["16384*n"] * 2


def test_the_text_form_has_the_devices() -> None:
    tracer = Tracer()
    x = tracer.trace.argument("x", TensorType((3,), float32), HOST)
    y = wished("/device:GPU:1", tracer.ops.multiply, x, 2.0)
    text = print_graph(tracer.trace.finish([tracer.ops.exp(y)]), places=False)
    assert '(%0: f32[3] "x" on CPU:0)' in text and "multiply(%0, %1) on GPU:1\n" in text
    again = read_graph(text)
    assert print_graph(again, places=False) == text
    assert [n.device for n in again.nodes if n.device] == [HOST, "/device:GPU:1", "/device:GPU:1"]


def test_a_string_that_looks_like_a_device_is_none() -> None:
    text = 'graph f(%0: f32[3] "a on CPU:0") {\n  %1: f32[3] = exp(%0)\n  return %1\n}\n'
    assert read_graph(text).inputs[0].device == ""
    assert print_graph(read_graph(text)) == text


def test_a_short_name_of_a_device_is_refused_by_the_verifier() -> None:
    graph, _ = trace(lambda t, x: wished("gpu", t.ops.exp, x), (3,))
    with pytest.raises(GraphError, match="the device 'gpu'"):
        verify(graph)


def test_an_identity_is_a_copy_to_a_device() -> None:
    graph, _ = trace(lambda t, x: wished(HOST, t.ops.identity, x), (3,))
    after = Pipeline().run(graph)
    assert after.outputs[0].device == HOST and after.outputs[0].op.name == "identity"
    plain, _ = trace(lambda t, x: t.ops.identity(x), (3,))
    assert Pipeline().run(plain).outputs == plain.inputs
