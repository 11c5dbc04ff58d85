"""Looking inside compiled functions: what `fn.dump()`, `graphnn dump` and GRAPHNN_DUMP show."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from graphnn.compiler.codegen.program import Built
from graphnn.compiler.dump import Dump, Machine
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.text import print_graph
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.cpu import jit
from graphnn.runtime.errors import ArgumentError

__all__ = ["Recorder", "dump", "inspect_program", "recorder"]

MACHINE = Machine(jit.optimized_ir, jit.assembly)


class Program(Protocol):
    """What is asked of a compiled graph (`graphnn.build.Compiled`)."""

    traced: Graph
    pipeline: Pipeline
    built: Built
    executable: Any


def inspect_program(program: Program) -> Dump:
    """All stages of a compiled graph; the passes run again for those between."""
    graphs = replace(program.pipeline, callback=None).stages(program.traced)
    return Dump(graphs, program.built, program.executable.sizes, MACHINE)


def dump(
    program: Program,
    stage: str = "summary",
    format: str = "text",
    *,
    against: str | None = None,
    kernel: str | None = None,
) -> str:
    """A stage of a compiled graph as text.

    stage: "summary", "trace", the name of a pass, "fuse", "memory", "loops", "program", "llvm",
    "optimized", "asm", or "all". against: an earlier stage, to see only what has changed since.
    kernel: one kernel (k0, k1, ... or a part of its name) in the form that `stage` names.
    Raises ArgumentError for a stage, kernel or format that does not exist.
    """
    found = inspect_program(program)
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
