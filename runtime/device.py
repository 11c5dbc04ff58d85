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
    one block may have when it asks for it. memory_bytes: of the device. bandwidth: bytes per second
    of its memory. launch: seconds of a kernel within a graph. flops: of products, per second.

    >>> DeviceFacts().architecture
    'sm_90'
    """

    name: str = "NVIDIA H100"
    capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 132
    shared_bytes: int = 227 << 10
    memory_bytes: int = 80 << 30
    bandwidth: float = 3.35e12
    launch: float = 1.1e-6
    flops: float = 5e13

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
class Epilogue:
    """What a product does to its result c before it is stored, in this order.

    bias: a vector is added to each row. residual: a matrix that lies as the result is added.
    activation: "relu" or "gelu" (by tanh) is applied, "" is none. keeps: what the gradient of the
    activation needs is stored too: a bit for each element, set where it is positive, rows padded to
    a multiple of 128 bits, or the values before gelu. slope: "relu" or "gelu": the result is
    multiplied by its derivative, from what was kept. sums: "a", "b" or "c": the sums over the rows
    of that matrix, as it is stored, are given out too.
    """

    bias: bool = False
    residual: bool = False
    activation: str = ""
    keeps: bool = False
    slope: str = ""
    sums: str = ""


@dataclass(frozen=True)
class ProductRun:
    """A step that multiplies matrices, row-major: c = op(a) @ op(b).

    leading: elements from one row of a, b and c, as stored, to the next. offsets: where the
    matrices of each call begin, in elements. batch, stride: matrices of one call and the distance
    from one to the next. dtype: of a and b; result: of c. tf32: whether float32 may be cut to 10
    bits. operands: positions in the step's buffers of a, b and c, then of what the epilogue needs:
    bias, residual, what is kept, sums.
    """

    m: int
    n: int
    k: int
    transpose: tuple[bool, bool]
    leading: tuple[int, int, int]
    offsets: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    batch: int = 1
    stride: tuple[int, int, int] = (0, 0, 0)
    dtype: str = "float32"
    result: str = "float32"
    tf32: bool = False
    epilogue: Epilogue = Epilogue()
    operands: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class StridedTensor:
    """A tensor of a library call: offset and strides in elements of its buffer."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class AttentionRun:
    """A step that computes softmax(q k' scale) v, or its gradients.

    tensors: q, k, v, out and stats, of shape (batch, heads, time, depth); stats are the logarithms
    of the sums of the softmax. backward: then follow g, dq, dk and dv, and only the last three are
    written. causal: a query sees keys up to its own position. operands: positions in the step's
    buffers, one for each tensor.
    """

    tensors: tuple[StridedTensor, ...]
    scale: float
    causal: bool
    backward: bool
    operands: tuple[int, ...]


LibraryRun = ProductRun | AttentionRun
StepRun = KernelRun | ProductRun | AttentionRun | None  # None: a call back to the host


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
    def texts(self) -> tuple[str, ...]:
        """The prelude and the text of each kernel."""
        return (self.prelude, *(text for _, text in self.program.modules))

    @property
    def text(self) -> str:
        """The whole CUDA C text."""
        return "\n".join(self.texts)
