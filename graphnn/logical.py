"""Physical and logical devices, their names, and the context in which operations run on one."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.trace import WISH
from graphnn.runtime import devices
from graphnn.runtime.cuda import device as cuda_device
from graphnn.runtime.errors import ArgumentError, StateError
from graphnn.state import state

KINDS = ("CPU", "GPU")


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

    memory_limit: MiB that a part of a GPU may take; parts of a CPU share its memory.
    experimental_priority: accepted for TensorFlow code.
    """

    memory_limit: float | None = None
    experimental_priority: int | None = None


_CPU = PhysicalDevice("/physical_device:CPU:0", "CPU")
_parts: dict[PhysicalDevice, tuple[LogicalDeviceConfiguration, ...]] = {}
_visible: dict[str, list[PhysicalDevice]] = {}


def _forget() -> None:
    """What was chosen for GPUs that may be others now."""
    _visible.clear()
    for device in [d for d in _parts if d.device_type == "GPU"]:
        del _parts[device]


devices.on_refresh.append(_forget)


def number_of(device: PhysicalDevice) -> int:
    """The number in a physical device's name."""
    return int(device.name.rpartition(":")[2])


def list_physical_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """The devices of this machine, all or of one type, "CPU" or "GPU".

    >>> [d.name for d in graphnn.config.list_physical_devices("CPU")]
    ['/physical_device:CPU:0']
    """
    found = [_CPU] if device_type is None or device_type.upper() == "CPU" else []
    if device_type is None or device_type.upper() == "GPU":
        gpus = range(cuda_device.count())
        found += [PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in gpus]
    return found


def get_visible_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """The physical devices that may be used: all, unless `set_visible_devices` chose.

    >>> len(graphnn.config.get_visible_devices("CPU"))
    1
    """
    kinds = KINDS if device_type is None else (device_type.upper(),)
    return [d for kind in kinds for d in _visible.get(kind, list_physical_devices(kind))]


def set_visible_devices(
    devices_or_device: Sequence[PhysicalDevice] | PhysicalDevice,
    device_type: str | None = None,
) -> None:
    """Choose the physical devices that may be used; they are numbered anew in this order.

    device_type: of which kind the list is; None for both. `set_visible_devices([], "GPU")` hides
    all GPUs. Raises ArgumentError for a device that is not there, or for hiding the CPU.

    >>> graphnn.config.set_visible_devices([], "GPU")
    >>> graphnn.config.list_logical_devices("GPU")
    []
    >>> graphnn.config.set_visible_devices(graphnn.config.list_physical_devices("GPU"), "GPU")
    """
    given = devices_or_device
    chosen = [given] if isinstance(given, PhysicalDevice) else list(given)
    kinds = KINDS if device_type is None else (device_type.upper(),)
    known = [d for kind in kinds for d in list_physical_devices(kind)]
    if any(d not in known for d in chosen) or ("CPU" in kinds and _CPU not in chosen):
        raise ArgumentError(
            "set_visible_devices",
            received=f"{chosen!r} of type {device_type!r}",
            expected="devices of list_physical_devices(); the CPU is always visible",
            fix="set_visible_devices(list_physical_devices('GPU')[:1], 'GPU')",
        )
    for kind in kinds:
        _visible[kind] = [d for d in chosen if d.device_type == kind]
    if "GPU" in kinds:
        devices.set_visible([number_of(d) for d in _visible["GPU"]])


def list_logical_devices(device_type: str | None = None) -> list[LogicalDevice]:
    """The devices to run on, all or of one type: each visible physical device is one unless it
    was split.

    >>> [d.name for d in graphnn.config.list_logical_devices("CPU")]
    ['/device:CPU:0']
    """
    found: list[LogicalDevice] = []
    for kind in KINDS if device_type is None else (device_type.upper(),):
        count = sum(len(_parts.get(d, (None,))) for d in get_visible_devices(kind))
        found += [LogicalDevice(f"/device:{kind}:{i}", kind) for i in range(count)]
    return found


def set_logical_device_configuration(
    device: PhysicalDevice, logical_devices: Sequence[LogicalDeviceConfiguration] | None
) -> None:
    """Split a physical device into logical ones; None makes it one again.

    The parts of a GPU share one pool of memory, whose limit is the sum of theirs; a tensor on any
    of them says that it is on the first. A strategy that exists already keeps its devices. Raises
    ArgumentError for an unknown device or an empty list.

    >>> cpu = graphnn.config.list_physical_devices("CPU")[0]
    >>> parts = [graphnn.config.LogicalDeviceConfiguration()] * 2
    >>> graphnn.config.set_logical_device_configuration(cpu, parts)
    >>> len(graphnn.config.list_logical_devices("CPU"))
    2
    >>> graphnn.config.set_logical_device_configuration(cpu, None)
    """
    given = logical_devices
    if device not in list_physical_devices() or (given is not None and not len(given)):
        raise ArgumentError(
            "set_logical_device_configuration",
            received=f"{device!r} and {given!r}",
            expected="a device of list_physical_devices() and at least one configuration",
            fix="set_logical_device_configuration(list_physical_devices('CPU')[0], "
            "[LogicalDeviceConfiguration()] * 2)",
        )
    if given is None:
        _parts.pop(device, None)
    else:
        _parts[device] = tuple(given)
    if device.device_type == "GPU":
        index = number_of(device)
        devices.set_parts(index, len(given or (None,)))
        limits = [part.memory_limit for part in given or ()]
        known = [limit for limit in limits if limit is not None]
        total = sum(known) if known and len(known) == len(limits) else 0
        devices.gpu(index).set_memory_limit(int(total * (1 << 20)))


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

_NAME = re.compile(r"^(?:.*/)?(?:(?:physical_)?device:)?([A-Za-z]+)(?::(\d+|\*))?$")


def canonical_device(device: Any) -> str:
    """The full name of a logical device: "CPU", "cpu:0", "/CPU:0" and "/device:CPU:0" are one.

    device: a name, also as PyTorch spells it ("cuda:0"), a LogicalDevice, or what `str()` makes a
    name of. Raises ArgumentError for a device that is not there, DeviceError for a GPU where there
    is none at all.
    """
    text = str(getattr(device, "name", device))
    match = _NAME.match(text)
    kind = "" if match is None else match[1].upper().replace("CUDA", "GPU")
    if match is not None and kind in KINDS:
        name = f"/device:{kind}:{match[2] if match[2] not in (None, '*') else '0'}"
        if name == devices.HOST or name in [d.name for d in list_logical_devices(kind)]:
            return name
    known = "one of " + ", ".join(d.name for d in list_logical_devices())
    if kind == "GPU" and (reason := cuda_device.why_not()):
        raise cuda_device.DeviceError(
            f"device {text!r}",
            received=f"a GPU was asked for, but {reason}",
            expected=f"{known}; for more, an NVIDIA GPU and CuPy",
            fix=cuda_device.INSTALL,
        )
    raise ArgumentError(
        "a device",
        received=f"{text!r}",
        expected=known,
        fix="see graphnn.config.list_logical_devices(); a device can be split with "
        "graphnn.config.set_logical_device_configuration",
    )


def backend_for(device: Any) -> Any:
    """The backend of a device by any of its names. Raises as `canonical_device`."""
    return devices.named(canonical_device(device))


class _Current(threading.local):
    names: tuple[str, ...] = ()


_current = _Current()


def device(device_name: Any) -> AbstractContextManager[None]:
    """A context whose operations run on a device; None means no preference.

    Tensors of other devices are copied to it where an operation needs them. All devices of one CPU
    share memory and cores, so results and speed do not depend on which of them is named. Raises
    ArgumentError for a device that is not there, DeviceError for a GPU where there is none.

    >>> with graphnn.device("/CPU:0"):
    ...     float(graphnn.constant(1.0) + 1.0)
    2.0
    """
    if device_name is None:
        return nullcontext()
    name = canonical_device(device_name)
    return _on_device(name, devices.named(name))


@contextmanager
def _on_device(name: str, backend: Any) -> Iterator[None]:
    own = state.device or devices.host
    with on_backend(backend):
        names, wish = _current.names, WISH.device
        _current.names = (*names, name)
        if state.trace is not None:  # the device of the trace itself needs no wish
            WISH.device = "" if backend is own and not wish else name
        try:
            yield
        finally:
            _current.names, WISH.device = names, wish


@contextmanager
def on_backend(backend: Any) -> Iterator[None]:
    """Eager operations run on a backend for a while, None for no change; a trace is not
    concerned."""
    if backend is None:
        yield
        return
    before = state.device
    state.device = backend
    try:
        with backend.scope():
            yield
    finally:
        state.device = before


def current_device() -> str | None:
    """Name of the device of the innermost `device` context, None outside of them."""
    return _current.names[-1] if _current.names else None


def get_default_device() -> str:
    """Name of the device on which operations without inputs run, outside of `device` contexts.

    >>> graphnn.config.get_default_device().startswith("/device:")
    True
    """
    return str(devices.default().name)


def set_default_device(device: Any) -> None:
    """Choose the default device; None for the first GPU if there is one, else the CPU.

    The environment variable GRAPHNN_DEVICE (cpu, gpu, gpu:1) does the same for a process. Raises as
    `device`, and StateError while a function is traced.

    >>> before = graphnn.config.get_default_device()
    >>> graphnn.config.set_default_device("CPU")
    >>> graphnn.zeros(2).device
    '/device:CPU:0'
    >>> graphnn.config.set_default_device(before)
    """
    if state.trace is not None:
        raise StateError(
            "set_default_device",
            received="a call while a function is traced",
            expected="a call outside of compiled functions",
            fix="call it before the function",
        )
    devices.set_default(None if device is None else backend_for(device))
