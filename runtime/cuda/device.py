"""The GPU of this process: whether there is one, and the facts that schedules depend on."""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import Any

from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import ArgumentError
from graphnn.runtime.later import Later

INSTALL = "pip install 'graphnn[cuda13]' (or graphnn[cuda12] for an older driver)"

_nvrtc = Later("graphnn.runtime.cuda.nvrtc")


class DeviceError(ArgumentError, RuntimeError):
    """A GPU was asked for where there is none."""


@functools.cache
def why_not() -> str:
    """Why no GPU can be used here, or the empty string. Imports CuPy if it is installed.

    >>> isinstance(why_not(), str)
    True
    """
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    try:
        import cupy
    except Exception as error:  # a package that is broken is no reason to stop on the CPU
        return f"CuPy cannot be imported: {type(error).__name__}: {error}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"the CUDA runtime finds no GPU: {error}"
    return str(_nvrtc.why_not()) if count else "the CUDA runtime finds no GPU"


@functools.cache
def count() -> int:
    """How many GPUs there are; 0 without CuPy."""
    if why_not():
        return 0
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


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

    # Not `Device.attributes`: CuPy leaves the capability out of it.
    own: dict[str, Any] = cupy.cuda.runtime.getDeviceProperties(index)
    name = own["name"]
    return DeviceFacts(
        name=name.decode() if isinstance(name, bytes) else str(name),
        capability=(int(own["major"]), int(own["minor"])),
        multiprocessors=int(own["multiProcessorCount"]),
        shared_bytes=int(own["sharedMemPerBlockOptin"]),
        memory_bytes=int(own["totalGlobalMem"]),
        bandwidth=_bandwidth(own),
    )


def _bandwidth(own: dict[str, Any]) -> float:
    """Bytes per second of a device's memory: two transfers a cycle over the whole bus."""
    kilohertz = own.get("memoryClockRate") or 0
    bits = own.get("memoryBusWidth") or 0
    return 2e3 * kilohertz * bits / 8 or DeviceFacts.bandwidth


def forget() -> None:
    """Look for GPUs again when they are next asked for."""
    for found in (why_not, count, facts):
        found.cache_clear()
