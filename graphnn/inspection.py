"""Looking inside compiled functions: what `fn.dump()`, `graphnn dump` and GRAPHNN_DUMP show."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from graphnn.compiler import dump as dumps
from graphnn.compiler.codegen.cuda_program import (
    DeviceBuilt,
    build_device_program,
    options_for,
    why_host,
)
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.dump import Dump
from graphnn.compiler.dump_device import target_facts
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.text import print_graph
from graphnn.compiler.passes.libraries import LibraryRules
from graphnn.compiler.passes.narrow import keep_narrow_copies
from graphnn.compiler.passes.pipeline import Pipeline, default_passes
from graphnn.compiler.passes.place import HOST, Machine, gpu_machine, place
from graphnn.compiler.passes.regions import split
from graphnn.runtime.cpu import jit
from graphnn.runtime.device import DeviceFacts
from graphnn.runtime.errors import ArgumentError
from graphnn.runtime.settings import settings

__all__ = [
    "Recorder",
    "cross_compile",
    "inspect_for",
    "inspect_program",
    "recorder",
    "text_of",
]

MACHINE = dumps.Machine(jit.optimized_ir, jit.assembly)
FIRST_GPU = "/device:GPU:0"


class Program(Protocol):
    """What is asked of a compiled graph (`graphnn.build.Compiled`)."""

    traced: Graph
    pipeline: Pipeline
    target: Target
    built: Any
    executable: Any


def inspect_program(program: Program, times: Sequence[float] = ()) -> Dump:
    """All stages of a compiled graph; the passes run again for those between.

    times: measured seconds of the steps of a program for a GPU, as
    `program.times(arrays)` gives them.
    """
    graphs = replace(program.pipeline, callback=None).stages(program.traced)
    sizes = program.executable.sizes
    if not isinstance(program.built, DeviceBuilt):
        return Dump(graphs, program.built, sizes, MACHINE)
    facts = program.executable.driver.facts
    return Dump(graphs, program.built, sizes, None, facts, dict(enumerate(times)))


def inspect_for(traced: Graph, device: str, sizes: Mapping[str, int] | None = None) -> Dump:
    """All stages of the program that a traced graph becomes on a GPU; no GPU is needed.

    device: "cuda", or with an architecture: "cuda:sm_80". sizes: values of symbolic sizes. Raises
    ArgumentError for an unknown device.
    """
    facts = target_facts(device)
    graphs = Pipeline(default_passes("cuda")).stages(traced)
    return Dump(graphs, cross_compile(graphs[-1][1], facts), sizes or {}, None, facts)


def cross_compile(graph: Graph, facts: DeviceFacts, target: Target | None = None) -> DeviceBuilt:
    """The program of a graph after the passes for the first GPU of a machine.

    facts: of that GPU. target: the machine's processor, for what only that can do.
    """
    target = target or Target()
    graph, _ = keep_narrow_copies(graph)
    machines = (Machine(HOST), gpu_machine(FIRST_GPU, facts))
    placement = place(graph, machines, home=FIRST_GPU, host_only=why_host)
    rules = LibraryRules(tf32=settings.tf32, epilogues=settings.epilogues and target.fuse)
    graph = split(graph, placement)
    built = build_device_program(graph, options_for(facts), target.fuse, target, rules)
    built.placement = placement
    return built


def text_of(
    found: Dump,
    stage: str = "summary",
    format: str = "text",
    *,
    against: str | None = None,
    kernel: str | None = None,
) -> str:
    """A stage of a dump as text; the arguments are those of `Function.dump`.

    Raises ArgumentError for a stage, kernel or format that does not exist.
    """
    if format != "text":
        raise ArgumentError(
            f"dump of {found.name}",
            received=f"format {format!r}",
            expected="'text'",
            fix="leave format out",
        )
    if kernel is not None:
        return found.kernel(kernel, "loops" if stage == "summary" else stage)
    return found.text(stage) if against is None else found.diff(against, stage)


# ---- GRAPHNN_DUMP ---------------------------------------------------------------------------


def recorder(traced: Graph) -> Recorder | None:
    """The writer of a graph's stages, if the environment variable GRAPHNN_DUMP names a folder."""
    root = os.environ.get("GRAPHNN_DUMP", "")
    if not root:
        return None
    try:
        return Recorder(_new_folder(Path(root), traced.name), traced)
    except OSError as error:
        warnings.warn(f"GRAPHNN_DUMP={root}: nothing is written: {error}", stacklevel=2)
        return None


def _new_folder(root: Path, name: str) -> Path:
    """A folder for one program: 000-step, 001-step, ...; other processes may take numbers too."""
    safe = re.sub(r"[^\w.-]+", "_", name) or "graph"
    root.mkdir(parents=True, exist_ok=True)
    taken = {path.name.split("-", 1)[0] for path in root.iterdir()}
    for number in itertools.count():
        if f"{number:03}" in taken:
            continue
        folder = root / f"{number:03}-{safe}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise OSError("no number is free")


class Recorder:
    """Writes each stage as it is made, so that a pass that fails leaves those before it."""

    def __init__(self, folder: Path, traced: Graph) -> None:
        self.folder = folder
        self._number = itertools.count()
        self._write("trace", print_graph(traced))

    def _write(self, name: str, text: str) -> None:
        file = self.folder / f"{next(self._number):02}-{name}.txt"
        file.write_text(text, encoding="utf-8", newline="\n")

    def watch(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline that also writes the graph after each pass."""
        other = pipeline.callback

        def callback(name: str, before: Graph, after: Graph) -> None:
            self._write(name, print_graph(after))
            if other is not None:
                other(name, before, after)

        return replace(pipeline, callback=callback)

    def finish(self, program: Program) -> None:
        """Write what comes after the passes, and the summary."""
        found = inspect_program(program)
        passes = set(found.by_stage)
        for stage in found.stages:
            if stage not in passes and stage != "summary":
                self._write(stage, found.text(stage))
        (self.folder / "summary.txt").write_text(found.text(), encoding="utf-8", newline="\n")
