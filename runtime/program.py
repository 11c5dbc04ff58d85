"""Plain data of a compiled program: what the compiler hands to the runtime.

Memory is named by slots. A `Layout` holds the numbers that depend on the sizes of one call; the
compiler's `Program.layout` computes it once per combination of symbolic sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn.runtime.errors import Loc


@dataclass(frozen=True)
class Slot:
    """One piece of memory.

    role: "input" (given by the caller), "output" (fresh for each call), "temp" (in the arena) or
    "constant"; "host" in a program for a GPU: a value that stays in the host's memory. label: for
    people. loc: the user's line that made it. host: whether an input is in the host's memory.
    """

    index: int
    role: str
    dtype: np.dtype[Any]
    shape: tuple[Any, ...]
    label: str = ""
    loc: Loc | None = None
    host: bool = False


@dataclass(frozen=True)
class Segment:
    """One run of a kernel: the slots of its buffers. A step with several runs each in turn."""

    slots: tuple[int, ...]


@dataclass(frozen=True)
class CheckSite:
    """A runtime check inside a kernel: `error(value, loc)` builds the exception."""

    check: Any
    loc: Loc | None


@dataclass(frozen=True)
class Step:
    """A kernel, run over its rows, or a call back to the host.

    kernel: name of the native function ("" for a host call). starts, finishes: whether the kernel
    has functions to run before and after its parts. symbols: sizes it reads, in order.
    host: function(arrays, sizes by name) -> arrays for a call back; inputs and outputs are its
    slots. region: the program that the host runs instead; `host` then gives its inputs.
    title: what it computes, in words, for people.
    """

    kernel: str
    segments: tuple[Segment, ...]
    starts: bool = False
    finishes: bool = False
    symbols: tuple[str, ...] = ()
    checks: tuple[CheckSite, ...] = ()
    host: Callable[[list[Any], dict[str, int]], Any] | None = None
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    title: str = ""
    locs: tuple[Loc, ...] = ()
    region: Program | None = None


@dataclass(frozen=True)
class StepSizes:
    """Numbers of a step for one call: rows of each segment, split into `parts`."""

    rows: tuple[int, ...]
    parts: int
    grain: int = 1


@dataclass(frozen=True)
class Layout:
    """All numbers for one combination of symbolic sizes.

    shapes: of each slot. offsets: into the arena, -1 for slots outside it. arena: its bytes.
    steps: one per step. sizes: the values of the symbols, in the order of `Program.symbols`.
    outputs: shapes of the outputs (a reshaped result shares its source's slot).
    """

    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    arena: int
    steps: tuple[StepSizes, ...]
    sizes: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled graph.

    modules: (name, LLVM text) of each distinct kernel. inputs, outputs: slots in call order.
    copies: (from slot, to slot) after all steps, for new values that could not be made in place.
    symbols: names; symbol_sources: (input position, axis) that gives each its value.
    """

    name: str
    modules: tuple[tuple[str, str], ...]
    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    copies: tuple[tuple[int, int], ...]
    constants: tuple[tuple[int, np.ndarray[Any, Any]], ...]
    symbols: tuple[str, ...]
    symbol_sources: tuple[tuple[int, int], ...]
    layout: Callable[[tuple[int, ...]], Layout]
