"""Writes names.txt: what the real CuPy has. Run it where CuPy is installed; no GPU is needed.

A line is a module, a name and what it is: `ufunc` with its loops, `function` with the names of its
parameters (`=` marks optional ones, `*` those that are only given by name), `class` or `other`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("names.txt")
MODULES = (
    "cupy",
    "cupy.linalg",
    "cupy.cuda",
    "cupy.cuda.driver",
    "cupy.cuda.memory",
    "cupy.cuda.runtime",
    "cupyx",
    "cupyx.scipy.special",
)
CLASSES = (
    "cupy.ndarray",
    "cupy.cuda.Device",
    "cupy.cuda.Event",
    "cupy.cuda.ExternalStream",
    "cupy.cuda.Function",
    "cupy.cuda.Graph",
    "cupy.cuda.MemoryPointer",
    "cupy.cuda.MemoryPool",
    "cupy.cuda.Module",
    "cupy.cuda.PinnedMemoryPointer",
    "cupy.cuda.PinnedMemoryPool",
    "cupy.cuda.Stream",
)


def main() -> None:
    """Write the file."""
    warnings.simplefilter("ignore")
    lines = [f"version {importlib.import_module('cupy').__version__}"]
    for name in MODULES:
        parent, _, last = name.rpartition(".")
        within = importlib.import_module(parent) if parent in MODULES else None
        lines += lines_of(name, getattr(within, last, None) or importlib.import_module(name))
    for name in CLASSES:
        module, attribute = name.rsplit(".", 1)
        lines += lines_of(name, getattr(importlib.import_module(module), attribute))
    where = importlib.import_module("cupy._sorting.search")
    lines.append(f"cupy where.loops ufunc {loops(where._where_ufunc)}")
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def lines_of(owner: str, thing: Any) -> Iterator[str]:
    """The lines of a module or a class."""
    for name in sorted(dir(thing)):
        public = not name.startswith("_") or (inspect.isclass(thing) and name.startswith("__"))
        value = getattr(thing, name, None)
        if public and not inspect.ismodule(value):
            yield f"{owner} {name} {kind(value)}".rstrip()


def kind(value: Any) -> str:
    """What a thing is, in a few words."""
    if type(value).__name__ == "ufunc":
        return f"ufunc {loops(value)}"
    if inspect.isclass(value):
        return "class"
    if not callable(value):
        return "other"
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "function"
    return f"function({','.join(map(parameter, parameters))})"


def loops(ufunc: Any) -> str:
    """The loops; bfloat16, which shares its letter with complex halves, is written as W."""
    return " ".join(loop.replace("E", "W") for loop in ufunc.types)


def parameter(p: inspect.Parameter) -> str:
    """The name of a parameter with its marks."""
    if p.kind is p.VAR_POSITIONAL:
        return "*"
    if p.kind is p.VAR_KEYWORD:
        return "**"
    mark = "*" if p.kind is p.KEYWORD_ONLY else ""
    return mark + p.name + ("=" if p.default is not p.empty else "")


if __name__ == "__main__":
    sys.exit(main())
