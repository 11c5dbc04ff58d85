"""From a traced graph to something that runs: passes, code, machine code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphnn.compiler.codegen.program import Built, Target, build_program
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.types import DType
from graphnn.compiler.ir.verify import verifier
from graphnn.compiler.passes.narrow import NarrowCopy, keep_narrow_copies
from graphnn.compiler.passes.pipeline import Pass, Pipeline, default_passes
from graphnn.compiler.passes.place import HOST, Placement
from graphnn.narrow import NarrowMemory
from graphnn.runtime.cpu import blas, pool
from graphnn.runtime.execute import Executable
from graphnn.runtime.later import Later
from graphnn.state import state

Array = Any  # a NumPy array, or a CuPy array on a GPU
GPU = "/device:GPU:"

_devices = Later("graphnn.build_device")
_many = Later("graphnn.build_many")
_inspection = Later("graphnn.inspection")


def host_target() -> Target:
    """The machine this process runs on."""
    return Target(
        threads=pool.num_threads(), blas=blas.gemm_address(np.dtype("float32")) is not None
    )


class Compiled:
    """A graph after all passes, its program, and the machine code that runs it.

    traced: the graph as recorded. graph: after the passes. device: where it runs. built: program,
    groups and kernels. placement: the device of each node, and the copies between them. narrows:
    whether Variables that it assigns get narrow copies.
    """

    narrows = True

    def __init__(
        self, traced: Graph, pipeline: Pipeline, target: Target, device: str = HOST
    ) -> None:
        self.traced, self.pipeline, self.target, self.device = traced, pipeline, target, device
        recorder = _inspection.recorder(traced) if os.environ.get("GRAPHNN_DUMP") else None
        graph: Graph = (recorder.watch(pipeline) if recorder else pipeline).run(traced)
        self.graph = graph
        copies: tuple[NarrowCopy, ...] = ()
        if self.narrows:
            self.graph, copies = keep_narrow_copies(graph)
        self.built: Any
        self.executable: Any
        self._build()
        self.narrow = NarrowMemory(copies, self.executable.bind, self._cast) if copies else None
        if recorder:
            recorder.finish(self)

    def _build(self) -> None:
        self.built = built = build_program(self.graph, self.target)
        self.executable = Executable(built.program)

    @property
    def placement(self) -> Placement | None:
        """The device of each node, and the copies between devices."""
        built: Built = self.built
        return built.placement

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """Outputs for the inputs in order; inputs with new values are overwritten in place.

        None stands for a bound input. Arrays are dense, and on the program's device but for those
        of inputs that were placed elsewhere; so are the results. On a GPU this returns before the
        results are there.
        """
        if self.narrow is not None:
            arrays = self.narrow.complete(arrays)
        found: list[Array] = self.executable.run(arrays)
        return found

    def times(self, arrays: Sequence[Array | None], repeats: int = 10) -> list[float]:
        """Median seconds of each step over some runs; Variables change as in as many runs."""
        if self.narrow is not None:
            arrays = self.narrow.complete(arrays)
        found: list[float] = self.executable.times(arrays, repeats)
        return found

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input for all following runs.

        An input in `narrow.sources` has copies in narrower dtypes: `narrow.renew` it when its
        values were changed by anything but this program, this time included.
        """
        self.executable.bind(position, array)
        if self.narrow is not None:
            self.narrow.follow(position, array)

    def _cast(self, array: Array, dtype: DType) -> Array:
        """An array of floats in a narrower dtype."""
        return state.quiet(array.astype, dtype)

    def wait(self) -> None:
        """Wait for the runs on the current stream; raises the error of a check that failed."""


def compile_graph(
    graph: Graph,
    pipeline: Pipeline | None = None,
    target: Target | None = None,
    device: str | None = None,
    homes: Mapping[int, tuple[str, ...]] | None = None,
) -> Compiled:
    """Compile a traced graph for a device of this machine, or for those that its nodes name.

    pipeline: other passes than the default ones. target: another number of threads, no BLAS, or no
    fusion, for tests and comparisons. device: full name such as "/device:GPU:0"; by default the
    CPU. homes: for a graph on several GPUs, the devices of inputs by position, of which a Variable
    may have several. After each pass the graph is verified; GRAPHNN_VERIFY=2 also infers all types
    again and reads the text form back, 0 trusts the passes. Raises DeviceError for a GPU that is
    not there.
    """
    level = int(os.environ.get("GRAPHNN_VERIFY", "1"))
    target, device = target or host_target(), device or HOST
    gpus = _gpus_of(graph, device, homes or {})
    several = len(gpus) > 1
    index = _devices.index_of(gpus[0]) if gpus else None
    passes = default_passes() if index is None else _devices.passes(index)
    pipeline = pipeline or Pipeline(passes, verifier(level) if level else None)
    if index is None:
        return Compiled(graph, pipeline, target)
    if several:
        home = device if device in gpus else gpus[0]
        many: Compiled = _many.ManyCompiled(graph, pipeline, target, home, homes or {})
        return many
    home = device if device.startswith(GPU) else HOST
    found: Compiled = _devices.DeviceCompiled(graph, pipeline, target, home, index, gpus[0])
    return found


def passes_for(device: str) -> tuple[Pass, ...]:
    """The passes of programs for a device, of which its full name is given."""
    if not device.startswith(GPU):
        return default_passes()
    found: tuple[Pass, ...] = _devices.passes(_devices.index_of(device))
    return found


def _gpus_of(graph: Graph, device: str, homes: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    """The GPUs that a program uses: its own, those that nodes ask for, and those of inputs."""
    found = {device} if device.startswith(GPU) else set()
    found |= {n.device for n in graph.nodes if n.device.startswith(GPU)}
    found |= {name for names in homes.values() for name in names}
    return tuple(sorted(found, key=lambda name: (len(name), name)))
