"""From a traced graph to something that runs: passes, code, machine code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn import inspection
from graphnn.compiler.codegen.program import Built, Target, build_program
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.verify import verifier
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.cpu import blas, pool
from graphnn.runtime.execute import Executable

Array = np.ndarray[Any, Any]


def host_target() -> Target:
    """The machine this process runs on."""
    return Target(
        threads=pool.num_threads(), blas=blas.gemm_address(np.dtype("float32")) is not None
    )


class Compiled:
    """A graph after all passes, its program, and the machine code that runs it.

    traced: the graph as recorded. graph: after the passes. built: program, groups and kernels.
    """

    def __init__(self, traced: Graph, pipeline: Pipeline, target: Target) -> None:
        self.traced, self.pipeline, self.target = traced, pipeline, target
        recorder = inspection.recorder(traced)
        self.graph = (recorder.watch(pipeline) if recorder else pipeline).run(traced)
        self.built: Built = build_program(self.graph, target)
        self.executable = Executable(self.built.program)
        if recorder:
            recorder.finish(self)

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """Outputs for the inputs in order; inputs with new values are overwritten in place."""
        return self.executable.run(arrays)

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input for all following runs."""
        self.executable.bind(position, array)


def compile_graph(
    graph: Graph, pipeline: Pipeline | None = None, target: Target | None = None
) -> Compiled:
    """Compile a traced graph for this machine.

    pipeline: other passes than the default ones. target: another number of threads, no BLAS, or no
    fusion, for tests and comparisons. After each pass the graph is verified; GRAPHNN_VERIFY=2 also
    infers all types again and reads the text form back, 0 trusts the passes.
    """
    level = int(os.environ.get("GRAPHNN_VERIFY", "1"))
    default = Pipeline(callback=verifier(level) if level else None)
    return Compiled(graph, pipeline or default, target or host_target())
