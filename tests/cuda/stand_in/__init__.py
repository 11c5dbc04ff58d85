"""An emulated GPU: host packages in the place of `cupy`, `cupyx`, `nvmath` and `cudnn`.

`install()` puts them into `sys.modules`, so that graphnn's own driver and device code run unchanged
without a GPU; `emulated()` does so for a while. `gpu` is the machine: its counters, its modes and
`gpu.no_waits()`. The packages have what graphnn uses, and are as strict as the real ones.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

from tests.cuda import emulate
from tests.cuda.stand_in import memory
from tests.cuda.stand_in.machine import Chip, CUDARuntimeError, Fault, Machine, gpu

__all__ = [
    "CUDARuntimeError", "Chip", "Fault", "Machine", "emulated", "gpu", "install", "installed",
    "uninstall", "why_not",
]  # fmt: skip
_NAMES = ("cupy", "cupyx", "nvmath", "cudnn")
_kept: dict[str, Any] = {}
_nvrtc: Any = None


def why_not() -> str:
    """Why there can be no emulated GPU here, or the empty string."""
    return emulate.why_not()


def installed() -> bool:
    """Whether the stand-ins are in place."""
    return getattr(sys.modules.get("cupy"), "is_stand_in", False)


def install(devices: int = 1, lazy: bool = False, chip: Chip = Chip()) -> Machine:  # noqa: B008
    """Put the stand-ins in place, with a fresh machine."""
    from tests.cuda.stand_in import modules

    uninstall()
    gpu.reset(devices, lazy, chip)
    for name in [n for n in sys.modules if n.split(".")[0] in _NAMES]:
        _kept[name] = sys.modules.pop(name)
    for name, module in modules.build().items():
        sys.modules[name] = module
    _patch_nvrtc()
    _refresh()
    return gpu


def uninstall() -> None:
    """Put back what was there."""
    global _nvrtc
    if not installed():
        return
    for name in [n for n in sys.modules if n.split(".")[0] in _NAMES]:
        del sys.modules[name]
    sys.modules.update(_kept)
    _kept.clear()
    nvrtc = importlib.import_module("graphnn.runtime.cuda.nvrtc")
    nvrtc._library, _nvrtc = _nvrtc, None  # type: ignore[attr-defined]
    _refresh()


@contextlib.contextmanager
def emulated(
    devices: int = 1,
    lazy: bool = False,
    chip: Chip = Chip(),  # noqa: B008
) -> Iterator[Machine]:
    """The emulated GPU for a while."""
    before = _Kept() if installed() else None
    try:
        yield install(devices, lazy, chip)
        gpu.check()
    finally:
        uninstall()
        if before is not None:
            before.put_back()


class _Kept:
    """The emulated GPU as it is, with everything that lies in its memory."""

    def __init__(self) -> None:
        self.state, self.allocator = dict(vars(gpu)), memory._State.allocator
        self.modules = {n: m for n, m in sys.modules.items() if n.split(".")[0] in _NAMES}

    def put_back(self) -> None:
        install()
        vars(gpu).update(self.state)
        memory._State.allocator = self.allocator
        sys.modules.update(self.modules)
        _refresh()


def _patch_nvrtc() -> None:
    """The C library of NVRTC is replaced; graphnn's calls of it stay."""
    global _nvrtc
    from tests.cuda.stand_in import nvrtc as own

    nvrtc = importlib.import_module("graphnn.runtime.cuda.nvrtc")
    library = own.Nvrtc()
    _nvrtc, nvrtc._library = nvrtc._library, lambda: library  # type: ignore[attr-defined]


def _refresh() -> None:
    """Let graphnn forget what it knew of GPUs."""
    device = importlib.import_module("graphnn.runtime.cuda.device")
    for function in (device.why_not, device.facts):
        function.cache_clear()
    devices = sys.modules.get("graphnn.runtime.devices")
    if devices is not None:
        devices.refresh()


def package(name: str, **contents: Any) -> types.ModuleType:
    """A module that `importlib.util.find_spec` finds."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    vars(module).update(contents)
    return module
