"""Two logical devices for each test, and the same random stream."""

from collections.abc import Iterator

import pytest

import graphnn as tf


def split_cpu(parts: int | None) -> None:
    """Make the CPU several logical devices; None makes it one again."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, None if parts is None else [one] * parts)


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    tf.random.set_seed(0)
    split_cpu(2)
    yield
    split_cpu(None)


@pytest.fixture
def strategy() -> tf.distribute.MirroredStrategy:
    return tf.distribute.MirroredStrategy()
