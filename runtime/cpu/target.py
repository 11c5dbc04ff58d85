"""The host CPU as LLVM sees it, and how many threads this process may use."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["OPT_LEVEL", "HostCPU", "available_cores", "host_cpu", "llvm", "target_machine"]

# LLVM level 3 gave no faster loops than 2 on any kernel measured, and level 1 was no quicker.
OPT_LEVEL = 2

# Server parts ask LLVM for 256-bit vectors to spare the clock of 2017 models. Full width
# was 1.2 to 1.4 times as fast on every kernel measured.
_WIDE_VECTORS = "-prefer-256-bit"


@dataclass(frozen=True)
class HostCPU:
    """What code generation depends on: two hosts with equal fields run each other's objects."""

    triple: str
    name: str
    features: str
    llvm_version: tuple[int, ...]
    llvmlite_version: str

    @property
    def key(self) -> str:
        """One string for cache keys."""
        return "|".join(
            (self.triple, self.name, self.features, str(self.llvm_version), self.llvmlite_version)
        )

    @property
    def vector_bits(self) -> int:
        """Width of the widest vector register in bits, 128 where it is not known.

        >>> host_cpu().vector_bits in (128, 256, 512)
        True
        """
        enabled = set(self.features.split(","))
        if "+avx512f" in enabled:
            return 512
        return 256 if "+avx" in enabled else 128


@functools.cache
def llvm() -> Any:
    """The module `llvmlite.binding`, imported and set up for this host on first use."""
    import llvmlite.binding as binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    _hold_lock_over_fork(binding)
    return binding


def _hold_lock_over_fork(binding: Any) -> None:
    """Without this, a fork while another thread is in LLVM leaves the child a lock for ever."""
    lock = getattr(binding.ffi.lib, "_lock", None)
    if lock is None or not hasattr(os, "register_at_fork"):
        return

    def leave() -> None:
        lock.__exit__(None, None, None)

    os.register_at_fork(before=lock.__enter__, after_in_parent=leave, after_in_child=leave)


@functools.cache
def host_cpu() -> HostCPU:
    """The CPU of this machine, with its features sorted as LLVM names them."""
    import llvmlite

    binding = llvm()
    triple = binding.get_process_triple()
    # LLVM's run-time linker is at home with ELF objects; the calling convention stays Windows'.
    if sys.platform == "win32" and not triple.endswith("-elf"):
        triple += "-elf"
    features = binding.get_host_cpu_features().flatten()
    if "+avx512f" in features.split(","):
        features = f"{features},{_WIDE_VECTORS}"
    return HostCPU(
        triple=triple,
        name=binding.get_host_cpu_name(),
        features=features,
        llvm_version=tuple(binding.llvm_version_info),
        llvmlite_version=llvmlite.__version__,
    )


# A target machine costs half a millisecond and must not serve two threads at once.
_idle_machines: collections.deque[Any] = collections.deque()


@contextlib.contextmanager
def target_machine() -> Iterator[Any]:
    """Lend an llvmlite `TargetMachine` for the host to the calling thread."""
    try:
        machine = _idle_machines.pop()
    except IndexError:
        machine = _new_target_machine()
    try:
        yield machine
    finally:
        _idle_machines.append(machine)


def _new_target_machine() -> Any:
    host = host_cpu()
    target = llvm().Target.from_triple(host.triple)
    return target.create_target_machine(
        cpu=host.name, features=host.features, opt=OPT_LEVEL, reloc="pic", codemodel="small"
    )


def available_cores() -> int:
    """Cores that this process may run on: its affinity mask, cut down by a container's quota.

    >>> available_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota_cores()))


def _quota_cores() -> int:
    """Whole cores granted by the control group, or a large number when there is no limit."""
    unlimited = 1 << 20
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return unlimited if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return unlimited
