"""Devices: which there are, which may be used, and how one shows as several logical ones."""

from __future__ import annotations

from graphnn import config_experimental as experimental
from graphnn.logical import (
    LogicalDevice,
    LogicalDeviceConfiguration,
    PhysicalDevice,
    get_default_device,
    get_logical_device_configuration,
    get_visible_devices,
    list_logical_devices,
    list_physical_devices,
    set_default_device,
    set_logical_device_configuration,
    set_visible_devices,
)
from graphnn.logical import (
    canonical_device as canonical_device,
)
from graphnn.logical import (
    current_device as current_device,
)
from graphnn.logical import (
    device as device,
)

__all__ = [
    "LogicalDevice",
    "LogicalDeviceConfiguration",
    "PhysicalDevice",
    "experimental",
    "get_default_device",
    "get_logical_device_configuration",
    "get_visible_devices",
    "list_logical_devices",
    "list_physical_devices",
    "set_default_device",
    "set_logical_device_configuration",
    "set_visible_devices",
]
