"""Plain data of a program for a GPU: texts, launches and library calls, with all numbers.

`runtime.program` says which memory each step touches; this module says how a step is run on a
device. The compiler computes a `DevicePlan` once per combination of symbolic sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphnn.runtime.program import Program

WIDE_ELEMENTS = 1 << 30  # elements of a buffer from which on indices have 64 bits


@dataclass(frozen=True)
class DeviceFacts:
    """What schedules depend on.

    name: for people. capability: (major, minor). multiprocessors: their number. shared_bytes: what
    one block may have when it asks for it. memory_bytes: of the device.

    >>> DeviceFacts().architecture
    'sm_90'
    """

    name: str = "NVIDIA H100"
    capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 132
    shared_bytes: int = 227 << 10
    memory_bytes: int = 80 << 30

    @property
    def architecture(self) -> str:
        """The name that NVRTC knows it by."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Launch:
    """One launch: name of the entry, number of blocks, threads of each, bytes of shared memory."""

    entry: str
    blocks: int
    threads: int
    shared: int = 0


@dataclass(frozen=True)
class KernelRun:
    """A step made of kernels: arguments are buffers, `rows`, `sizes` and the status of checks.

    firsts: for an entry that runs several segments, the first block of each and the number of all
    blocks; else empty. rows: of each segment.
    """

    launches: tuple[Launch, ...]
    rows: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    firsts: tuple[int, ...] = ()


@dataclass(frozen=True)
class ProductRun:
    """A step that multiplies matrices, row-major: c = op(a) @ op(b), `len(offsets)` times.

    offsets: where the matrices of each product begin, in elements of a, b and c. stride: the
    distance from one product to the next where it is always the same, else None.
    """

    m: int
    n: int
    k: int
    transpose: tuple[bool, bool]
    offsets: tuple[tuple[int, int, int], ...]
    stride: tuple[int, int, int] | None = None


StepRun = KernelRun | ProductRun | None  # None: a call back to the host


@dataclass(frozen=True)
class DevicePlan:
    """The runs of all steps for one combination of sizes. wide: whether indices need 64 bits."""

    steps: tuple[StepRun, ...]
    wide: bool = False


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """A compiled graph for a GPU.

    program: memory and steps; its modules are CUDA C without the prelude. plan: numbers for sizes.
    """

    program: Program
    prelude: str
    plan: Callable[[tuple[int, ...]], DevicePlan]
    entries: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        """The whole CUDA C text."""
        return "\n".join([self.prelude, *(text for _, text in self.program.modules)])
