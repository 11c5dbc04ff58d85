"""From a traced graph to something that runs: passes, code, machine code."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn import inspection
from graphnn.compiler.codegen.cuda_library import asking
from graphnn.compiler.codegen.cuda_program import build_device_program, options_for, why_host
from graphnn.compiler.codegen.program import Built, Target, build_program
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import DType, TensorType
from graphnn.compiler.ir.verify import verifier
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.passes.libraries import LibraryRules
from graphnn.compiler.passes.narrow import keep_narrow_copies
from graphnn.compiler.passes.pipeline import Pipeline, default_passes
from graphnn.compiler.passes.place import HOST, Machine, Placement, gpu_machine, place
from graphnn.compiler.passes.regions import split
from graphnn.compiler.trace import Trace
from graphnn.narrow import NarrowMemory
from graphnn.runtime import devices
from graphnn.runtime.cpu import blas, pool
from graphnn.runtime.cuda import cudnn
from graphnn.runtime.cuda.driver import CupyDriver
from graphnn.runtime.cuda.execute import DeviceExecutable
from graphnn.runtime.errors import ArgumentError
from graphnn.runtime.execute import Executable
from graphnn.runtime.settings import settings
from graphnn.state import state

Array = Any  # a NumPy array, or a CuPy array on a GPU
GPU = "/device:GPU:"
HOST_BANDWIDTH = 1e10  # bytes per second and core of the host's memory, at a guess
HOST_FLOPS = 5e10  # of matrix products, per second and core


def host_target() -> Target:
    """The machine this process runs on."""
    return Target(
        threads=pool.num_threads(), blas=blas.gemm_address(np.dtype("float32")) is not None
    )


def driver(index: int) -> CupyDriver:
    """What runs programs on a GPU; one for each. Raises DeviceError without that GPU."""
    return devices.gpu(index).driver


class Compiled:
    """A graph after all passes, its program, and the machine code that runs it.

    traced: the graph as recorded. graph: after the passes. device: where it runs. built: program,
    groups and kernels. placement: the device of each node, and the copies between them.
    """

    def __init__(
        self, traced: Graph, pipeline: Pipeline, target: Target, device: str = HOST
    ) -> None:
        self.traced, self.pipeline, self.target, self.device = traced, pipeline, target, device
        recorder = inspection.recorder(traced)
        graph = (recorder.watch(pipeline) if recorder else pipeline).run(traced)
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


class DeviceCompiled(Compiled):
    """The same for a GPU, with what only the host can do, or is placed there, between its work.

    index: of the GPU.
    """

    def __init__(
        self, traced: Graph, pipeline: Pipeline, target: Target, device: str, index: int
    ) -> None:
        self.index, self.driver = index, driver(index)
        super().__init__(traced, pipeline, target, device)

    def _build(self) -> None:
        facts = self.driver.facts
        machines = (host_machine(self.target), gpu_machine(f"{GPU}{self.index}", facts))
        placement = place(self.graph, machines, home=self.device, host_only=why_host)
        graph = split(self.graph, placement)
        options = options_for(facts)
        fused = self.target.fuse
        rules = LibraryRules(
            tf32=settings.tf32,
            epilogues=settings.epilogues and fused,
            supports=asking(self.driver.products.supports),
        )
        with self.driver.scope():  # libraries are asked what this GPU does
            self.built = build_device_program(graph, options, fused, self.target, rules)
        self.built.placement = placement
        self.executable = DeviceExecutable(self.built.device, self.driver)

    def wait(self) -> None:
        self.executable.wait()

    def _cast(self, array: Array, dtype: DType) -> Array:
        program = _cast_program(array.dtype, dtype, self.device)
        (found,) = program.run([array.reshape(-1)])
        return found.reshape(array.shape)


@functools.cache
def _cast_program(source: DType, target: DType, device: str) -> Compiled:
    trace = Trace("cast")
    x = trace.argument("x", TensorType((symbol("n"),), source))
    return compile_graph(trace.finish([Ops(trace).cast(x, dtype=target.name)]), device=device)


def host_machine(target: Target) -> Machine:
    """What placement knows of the CPU."""
    cores = target.threads
    return Machine(HOST, HOST_BANDWIDTH * min(cores, 20), 1e-7, flops=HOST_FLOPS * cores)


def compile_graph(
    graph: Graph,
    pipeline: Pipeline | None = None,
    target: Target | None = None,
    device: str | None = None,
) -> Compiled:
    """Compile a traced graph for a device of this machine.

    pipeline: other passes than the default ones. target: another number of threads, no BLAS, or no
    fusion, for tests and comparisons. device: full name such as "/device:GPU:0"; by default the
    CPU. After each pass the graph is verified; GRAPHNN_VERIFY=2 also infers all types again and
    reads the text form back, 0 trusts the passes. Raises ArgumentError for a graph whose nodes were
    placed on several GPUs, DeviceError for a GPU that is not there.
    """
    level = int(os.environ.get("GRAPHNN_VERIFY", "1"))
    target, device = target or host_target(), device or HOST
    index = _gpu_of(graph, device)
    libraries = ("cudnn",) if index is not None and cudnn.is_available() else ()
    passes = default_passes("cpu" if index is None else "cuda", libraries)
    pipeline = pipeline or Pipeline(passes, verifier(level) if level else None)
    if index is None:
        return Compiled(graph, pipeline, target)
    home = device if device.startswith(GPU) else HOST
    return DeviceCompiled(graph, pipeline, target, home, index)


def _gpu_of(graph: Graph, device: str) -> int | None:
    """The GPU that a program uses, or None."""
    names = {n.device for n in graph.nodes if n.device.startswith(GPU)}
    if device.startswith(GPU):
        names.add(device)
    if len(names) > 1:
        raise ArgumentError(
            f"the devices of {graph.name}",
            received=" and ".join(sorted(names)),
            expected="one GPU in a program, besides the CPU",
            fix="call one @function for each GPU",
        )
    return int(names.pop().removeprefix(GPU)) if names else None
