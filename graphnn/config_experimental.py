"""Memory of devices and the precision of products: TensorFlow's `config.experimental`."""

from __future__ import annotations

from typing import Any

from graphnn.logical import (
    LogicalDeviceConfiguration,
    PhysicalDevice,
    backend_for,
    get_logical_device_configuration,
    get_visible_devices,
    list_logical_devices,
    list_physical_devices,
    number_of,
    set_logical_device_configuration,
    set_visible_devices,
)
from graphnn.runtime import devices
from graphnn.runtime.errors import ArgumentError
from graphnn.runtime.settings import settings
from graphnn.signature import FLAGS

__all__ = [
    "VirtualDeviceConfiguration",
    "enable_tensor_float_32_execution",
    "get_memory_growth",
    "get_memory_info",
    "get_memory_usage",
    "get_virtual_device_configuration",
    "get_visible_devices",
    "list_logical_devices",
    "list_physical_devices",
    "reset_memory_stats",
    "set_memory_growth",
    "set_virtual_device_configuration",
    "set_visible_devices",
    "tensor_float_32_execution_enabled",
]

VirtualDeviceConfiguration = LogicalDeviceConfiguration
set_virtual_device_configuration = set_logical_device_configuration
get_virtual_device_configuration = get_logical_device_configuration


def get_memory_info(device: Any) -> dict[str, int]:
    """Bytes of a device in use (`current`) and the most so far (`peak`).

    On a GPU `peak` is the most that the memory pool has taken, blocks kept for later included, and
    `reserved` what it holds now. Raises as `graphnn.device`.

    >>> sorted(graphnn.config.experimental.get_memory_info("CPU:0"))
    ['current', 'peak']
    """
    return dict(backend_for(device).memory_info())


def reset_memory_stats(device: Any) -> None:
    """Let `peak` begin anew at what is in use; unused blocks are given back to the GPU.

    >>> graphnn.config.experimental.reset_memory_stats("CPU:0")
    """
    backend = backend_for(device)
    if backend.kind == "GPU":
        backend.reset_memory_stats()


def get_memory_usage(device: Any) -> int:
    """Bytes of a device in use.

    >>> graphnn.config.experimental.get_memory_usage("CPU:0") >= 0
    True
    """
    return int(backend_for(device).memory_info()["current"])


def _physical_gpu(device: Any, subject: str) -> Any:
    if isinstance(device, PhysicalDevice):
        if device in list_physical_devices("GPU"):
            return devices.gpu(number_of(device))
    elif (backend := backend_for(device)).kind == "GPU":
        return backend
    raise ArgumentError(
        subject,
        received=repr(device),
        expected="a GPU of graphnn.config.list_physical_devices('GPU')",
        fix="leave the call out where there is no GPU",
    )


def set_memory_growth(device: Any, enable: bool) -> None:
    """Whether memory is taken from a GPU as it is needed (the default), or all of it at once.

    Raises ArgumentError for what is no GPU.
    """
    _physical_gpu(device, "set_memory_growth").set_memory_growth(bool(enable))


def get_memory_growth(device: Any) -> bool:
    """What `set_memory_growth` chose. Raises ArgumentError for what is no GPU."""
    return bool(_physical_gpu(device, "get_memory_growth").memory_growth)


def enable_tensor_float_32_execution(enabled: bool) -> None:
    """Whether float32 products on a GPU may round their factors to TF32: 10 bits of fraction
    instead of 23, and several times the speed. On by default, as in TensorFlow; the CPU always
    computes in float32.

    >>> graphnn.config.experimental.enable_tensor_float_32_execution(False)
    >>> graphnn.config.experimental.tensor_float_32_execution_enabled()
    False
    >>> graphnn.config.experimental.enable_tensor_float_32_execution(True)
    """
    if settings.tf32 is not bool(enabled):
        settings.tf32 = bool(enabled)
        FLAGS.changed()


def tensor_float_32_execution_enabled() -> bool:
    """Whether float32 products on a GPU may use TF32."""
    return settings.tf32


def _tf32() -> bool | None:
    """Part of a signature only where it was switched off, and a GPU is in use."""
    return False if devices.used and not settings.tf32 else None


FLAGS.register("tensor_float_32", _tf32)
