"""Devices: which there are, and how one physical device shows as several logical ones."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphnn.runtime.errors import ArgumentError

__all__ = [
    "LogicalDevice",
    "LogicalDeviceConfiguration",
    "PhysicalDevice",
    "get_logical_device_configuration",
    "list_logical_devices",
    "list_physical_devices",
    "set_logical_device_configuration",
]


@dataclass(frozen=True)
class PhysicalDevice:
    """A device of the machine. name: such as "/physical_device:CPU:0". device_type: "CPU"."""

    name: str
    device_type: str


@dataclass(frozen=True)
class LogicalDevice:
    """A device to run on. name: such as "/device:CPU:0". device_type: "CPU"."""

    name: str
    device_type: str


@dataclass(frozen=True)
class LogicalDeviceConfiguration:
    """One part of a physical device.

    memory_limit, experimental_priority: accepted for TensorFlow code; parts of a CPU share its
    memory.
    """

    memory_limit: float | None = None
    experimental_priority: int | None = None


_PHYSICAL = (PhysicalDevice("/physical_device:CPU:0", "CPU"),)
_parts: dict[PhysicalDevice, tuple[LogicalDeviceConfiguration, ...]] = {}


def list_physical_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """The devices of this machine, all or of one type such as "CPU".

    >>> [d.name for d in graphnn.config.list_physical_devices("CPU")]
    ['/physical_device:CPU:0']
    """
    return [d for d in _PHYSICAL if device_type is None or d.device_type == device_type.upper()]


def list_logical_devices(device_type: str | None = None) -> list[LogicalDevice]:
    """The devices to run on, all or of one type: each physical device is one unless it was split.

    >>> [d.name for d in graphnn.config.list_logical_devices("CPU")]
    ['/device:CPU:0']
    """
    found: list[LogicalDevice] = []
    for kind in dict.fromkeys(d.device_type for d in _PHYSICAL):
        devices = list_physical_devices(kind)
        count = sum(len(_parts.get(d, (None,))) for d in devices)
        found += [LogicalDevice(f"/device:{kind}:{i}", kind) for i in range(count)]
    return [d for d in found if device_type is None or d.device_type == device_type.upper()]


def set_logical_device_configuration(
    device: PhysicalDevice, logical_devices: Sequence[LogicalDeviceConfiguration] | None
) -> None:
    """Split a physical device into logical ones; None makes it one again.

    A strategy that exists already keeps its devices. Raises ArgumentError for an unknown device or
    an empty list.

    >>> cpu = graphnn.config.list_physical_devices("CPU")[0]
    >>> parts = [graphnn.config.LogicalDeviceConfiguration()] * 2
    >>> graphnn.config.set_logical_device_configuration(cpu, parts)
    >>> len(graphnn.config.list_logical_devices("CPU"))
    2
    >>> graphnn.config.set_logical_device_configuration(cpu, None)
    """
    if device not in _PHYSICAL or (logical_devices is not None and not len(logical_devices)):
        raise ArgumentError(
            "set_logical_device_configuration",
            received=f"{device!r} and {logical_devices!r}",
            expected="a device of list_physical_devices() and at least one configuration",
            fix="set_logical_device_configuration(list_physical_devices('CPU')[0], "
            "[LogicalDeviceConfiguration()] * 2)",
        )
    if logical_devices is None:
        _parts.pop(device, None)
    else:
        _parts[device] = tuple(logical_devices)


def get_logical_device_configuration(
    device: PhysicalDevice,
) -> list[LogicalDeviceConfiguration] | None:
    """How a physical device was split; None if it was not.

    >>> cpu = graphnn.config.list_physical_devices("CPU")[0]
    >>> graphnn.config.get_logical_device_configuration(cpu) is None
    True
    """
    found = _parts.get(device)
    return None if found is None else list(found)


# ---- names and the context of a device ------------------------------------------------------

_NAME = re.compile(r"^(?:.*/)?(?:device:)?([A-Za-z]+)(?::(\d+|\*))?$")


def canonical_device(device: Any) -> str:
    """The full name of a logical device: "CPU", "cpu:0", "/CPU:0" and "/device:CPU:0" are one.

    device: a name or LogicalDevice. Raises ArgumentError for a device that is not there.
    """
    text = str(getattr(device, "name", device))
    match = _NAME.match(text)
    names = [d.name for d in list_logical_devices()]
    if match is not None:
        number = match[2] if match[2] not in (None, "*") else "0"
        name = f"/device:{match[1].upper()}:{number}"
        if name in names:
            return name
    raise ArgumentError(
        "a device",
        received=f"{text!r}",
        expected="one of " + ", ".join(names),
        fix="see graphnn.config.list_logical_devices(); a CPU can be split with "
        "graphnn.config.set_logical_device_configuration",
    )


class _Current(threading.local):
    names: tuple[str, ...] = ()


_current = _Current()


@contextmanager
def device(device_name: Any) -> Iterator[None]:
    """A context whose operations are meant for a device; None means no preference.

    All devices of one CPU share memory and cores, so results and speed do not depend on it. Raises
    ArgumentError for a device that is not there.

    >>> with graphnn.device("/CPU:0"):
    ...     float(graphnn.constant(1.0) + 1.0)
    2.0
    """
    before = _current.names
    _current.names = before if device_name is None else (*before, canonical_device(device_name))
    try:
        yield
    finally:
        _current.names = before


def current_device() -> str | None:
    """Name of the device of the innermost `device` context, None outside of them."""
    return _current.names[-1] if _current.names else None
