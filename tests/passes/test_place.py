"""Placement over one device and over two that are only described."""

from __future__ import annotations

import pytest

from graphnn.compiler.ops.core import HostCall
from graphnn.compiler.passes.place import Machine, place
from graphnn.runtime.errors import ArgumentError
from tests.codegen.traced import trace

CPU = Machine("cpu:0", bandwidth=2e10, launch=1e-7)
GPU = Machine("gpu:0", bandwidth=2e12, launch=1e-6, is_host=False)


def big(t, x):
    return t.ops.sum(t.ops.exp(t.ops.tanh(x)), axes=(0, 1))


def test_one_device_takes_everything():
    graph, _ = trace(big, (8, 8))
    placement = place(graph)
    assert set(placement.devices.values()) == {"cpu:0"}
    assert not placement.transfers


def test_big_work_on_data_of_the_gpu_stays_there():
    graph, _ = trace(big, (4096, 4096))
    placement = place(graph, (CPU, GPU), {graph.inputs[0]: "gpu:0"})
    assert set(placement.devices.values()) == {"gpu:0"}


def test_small_work_does_not_travel():
    graph, _ = trace(big, (4, 4))
    placement = place(graph, (CPU, GPU), {graph.inputs[0]: "cpu:0"})
    assert not placement.transfers


def test_the_host_only_op_says_why_it_costs_copies():
    def function(t, x):
        y = t.ops.exp(x)
        (z,) = t.trace.apply(HostCall(function=lambda v: (v,), types=(y.tensor,)), (y,))
        return t.ops.tanh(z)

    graph, _ = trace(function, (4096, 4096))
    placement = place(graph, (CPU, GPU), {graph.inputs[0]: "gpu:0", graph.outputs[0]: "gpu:0"})
    reasons = [t.reason for t in placement.transfers]
    assert "host_call runs only on the host" in reasons
    assert any(t.target == "gpu:0" for t in placement.transfers)


def test_unknown_device():
    graph, _ = trace(big, (4, 4))
    with pytest.raises(ArgumentError, match="gpu:7"):
        place(graph, (CPU, GPU), {graph.inputs[0]: "gpu:7"})
