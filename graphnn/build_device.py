"""From a traced graph to a program on a GPU. Loaded when the first one is made."""

from __future__ import annotations

import functools
from typing import Any

from graphnn.build import GPU, Compiled, compile_graph
from graphnn.compiler.codegen.cuda_library import asking
from graphnn.compiler.codegen.cuda_program import build_device_program, options_for, why_host
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import DType, TensorType
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.passes.libraries import LibraryRules
from graphnn.compiler.passes.pipeline import Pass, Pipeline, default_passes
from graphnn.compiler.passes.place import HOST, Machine, gpu_machine, place
from graphnn.compiler.passes.regions import split
from graphnn.compiler.trace import Trace
from graphnn.runtime import devices
from graphnn.runtime.cuda import cudnn
from graphnn.runtime.cuda.driver import CupyDriver
from graphnn.runtime.cuda.execute import DeviceExecutable
from graphnn.runtime.settings import settings

Array = Any  # a NumPy array, or a CuPy array on a GPU
HOST_BANDWIDTH = 1e10  # bytes per second and core of the host's memory, at a guess
HOST_FLOPS = 5e10  # of matrix products, per second and core


def passes(index: int) -> tuple[Pass, ...]:
    """The passes of programs for a GPU, with the libraries that are installed."""
    has_cudnn = cudnn.is_available(driver(index).facts.capability)
    return default_passes("cuda", ("cudnn",) if has_cudnn else ())


def index_of(name: str) -> int:
    """The number of the physical GPU that a device's name means. Raises as `devices.named`."""
    return int(devices.named(name).index)


def driver(index: int) -> CupyDriver:
    """What runs programs on a GPU; one for each. Raises DeviceError without that GPU."""
    return devices.gpu(index).driver


class DeviceCompiled(Compiled):
    """The same for a GPU, with what only the host can do, or is placed there, between its work.

    index: of the GPU. gpu: its name, with the same number unless GPUs were hidden or split.
    """

    def __init__(
        self,
        traced: Graph,
        pipeline: Pipeline,
        target: Target,
        device: str,
        index: int,
        gpu: str = "",
    ) -> None:
        self.index, self.driver = index, driver(index)
        self.gpu = gpu or f"{GPU}{index}"
        super().__init__(traced, pipeline, target, device)

    def _build(self) -> None:
        facts = self.driver.facts
        machines = (host_machine(self.target), gpu_machine(self.gpu, facts))
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
        program = _cast_program(array.dtype, dtype, devices.gpu(self.index))
        (found,) = program.run([array.reshape(-1)])
        return found.reshape(array.shape)


@functools.cache
def _cast_program(source: DType, target: DType, backend: Any) -> Compiled:
    trace = Trace("cast")
    x = trace.argument("x", TensorType((symbol("n"),), source))
    return compile_graph(trace.finish([Ops(trace).cast(x, dtype=target.name)]), device=backend.name)


def host_machine(target: Target) -> Machine:
    """What placement knows of the CPU."""
    cores = target.threads
    return Machine(HOST, HOST_BANDWIDTH * min(cores, 20), 1e-7, flops=HOST_FLOPS * cores)
