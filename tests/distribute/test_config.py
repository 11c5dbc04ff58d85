"""Devices, their names and the context of a device."""

import pytest

import graphnn as tf
from graphnn.config import current_device
from graphnn.errors import ArgumentError
from tests.distribute.conftest import split_cpu


def test_a_split_cpu_is_several_logical_devices() -> None:
    (cpu,) = tf.config.list_physical_devices()
    assert (cpu.name, cpu.device_type) == ("/physical_device:CPU:0", "CPU")
    names = [d.name for d in tf.config.list_logical_devices("CPU")]
    assert names == ["/device:CPU:0", "/device:CPU:1"]
    assert len(tf.config.get_logical_device_configuration(cpu)) == 2
    split_cpu(None)
    assert len(tf.config.list_logical_devices()) == 1
    assert tf.config.get_logical_device_configuration(cpu) is None
    assert tf.config.list_physical_devices("GPU") == []


def test_an_empty_configuration_is_refused() -> None:
    (cpu,) = tf.config.list_physical_devices()
    with pytest.raises(ArgumentError, match="at least one configuration"):
        tf.config.set_logical_device_configuration(cpu, [])


@pytest.mark.parametrize(
    "name", ["/CPU:1", "cpu:1", "/device:CPU:1", "/job:localhost/replica:0/task:0/device:CPU:1"]
)
def test_device_names(name: str) -> None:
    with tf.device(name):
        assert current_device() == "/device:CPU:1"
        with tf.device("CPU"):
            assert current_device() == "/device:CPU:0"
        with tf.device(None):
            assert float(tf.constant(1.0) + 1.0) == 2.0
            assert current_device() == "/device:CPU:1"
    assert current_device() is None


@pytest.mark.parametrize("name", ["/GPU:0", "CPU:2", "here", ""])
def test_unknown_devices_are_named(name: str) -> None:
    with pytest.raises(ArgumentError, match="expected: one of /device:CPU:0, /device:CPU:1"):
        with tf.device(name):
            pass


def test_a_logical_device_is_a_name() -> None:
    with tf.device(tf.config.list_logical_devices()[1]):
        assert current_device() == "/device:CPU:1"
