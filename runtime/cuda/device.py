"""The GPU of this process: whether there is one, and the facts that schedules depend on."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

from graphnn.runtime.cuda import nvrtc
from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import GraphnnError

INSTALL = "pip install 'graphnn[cuda13]' (or graphnn[cuda12] for an older driver)"


class DeviceError(GraphnnError, RuntimeError):
    """A GPU was asked for where there is none."""


@functools.cache
def why_not() -> str:
    """Why no GPU can be used here, or the empty string. Imports CuPy if it is installed.

    >>> isinstance(why_not(), str)
    True
    """
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"the CUDA runtime finds no GPU: {error}"
    return nvrtc.why_not() if count else "the CUDA runtime finds no GPU"


def require_gpu(subject: str) -> None:
    """Raise DeviceError unless a GPU can be used. subject: what was asked for."""
    reason = why_not()
    if reason:
        raise DeviceError(subject, received=reason, expected="an NVIDIA GPU and CuPy", fix=INSTALL)


@functools.cache
def facts(index: int = 0) -> DeviceFacts:
    """Facts of a device. Raises DeviceError without a GPU."""
    require_gpu(f"GPU {index}")
    import cupy

    attributes: dict[str, Any] = cupy.cuda.Device(index).attributes
    properties: dict[str, Any] = cupy.cuda.runtime.getDeviceProperties(index)
    name = properties["name"]
    return DeviceFacts(
        name=name.decode() if isinstance(name, bytes) else str(name),
        capability=(
            int(attributes["ComputeCapabilityMajor"]),
            int(attributes["ComputeCapabilityMinor"]),
        ),
        multiprocessors=int(attributes["MultiProcessorCount"]),
        shared_bytes=int(attributes["MaxSharedMemoryPerBlockOptin"]),
        memory_bytes=int(properties["totalGlobalMem"]),
    )
