"""Training on several real GPUs. Run with `pytest -m gpu tests/cuda/test_gpu_many.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.distribute import MirroredStrategy
from graphnn.runtime.cuda import device, nccl
from tests.distribute.test_training import BATCH, assert_same, compiled, data, in_scope

pytestmark = pytest.mark.gpu
STEPS = 20


def trained(names: list[str]) -> Any:
    """A model after some steps."""
    x, y = data(STEPS * BATCH + 5)
    model = in_scope(MirroredStrategy(names), lambda: compiled("adam"))
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    return model


def check(names: list[str]) -> None:
    """Some GPUs train as the CPU does, twice with the same bits, and their copies are equal."""
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        cpu, many, again = trained(["CPU:0"]), trained(names), trained(names)
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
    assert_same(cpu, many, 1e-5)
    for a, b in zip(many.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for variable in many.weights:
        for buffer in variable._places().values():
            np.testing.assert_array_equal(buffer.get(), variable.numpy())


def test_two_logical_devices_of_one_gpu() -> None:
    """All but NCCL and copies between GPUs, on a machine with one."""
    gpu = tf.config.list_physical_devices("GPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(gpu, parts)
    try:
        check(["GPU:0", "GPU:1"])
    finally:
        tf.config.set_logical_device_configuration(gpu, None)


@pytest.mark.parametrize("library", [True, False], ids=["nccl", "copies"])
def test_all_gpus(library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count = device.count()
    if count < 2:
        pytest.skip("needs two GPUs")
    if library and (reason := nccl.why_not(tuple(range(count)))):
        pytest.skip(reason)
    if not library:
        monkeypatch.setattr(nccl, "why_not", lambda indices=(): "switched off")
    check([f"GPU:{i}" for i in range(count)])
