"""How a program for a GPU is started: pieces between the host's steps, and blocks of arguments."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graphnn.runtime.device import DevicePlan, KernelRun, ProductRun
from graphnn.runtime.program import Program

WORTH = 2  # launches from which on a graph is faster


class Arguments(list[Any]):
    """ctypes values of a kernel's parameters; `pointers` is what the driver's launch call reads.

    The values share memory with an instance's table of addresses, so one table serves all launches.

    >>> given = Arguments([ctypes.c_int32(3), ctypes.c_int64(5)])
    >>> len(given.pointers)
    2
    """

    __slots__ = ("pointers",)

    def __init__(self, values: Iterable[Any]) -> None:
        super().__init__(values)
        self.pointers = (ctypes.c_void_p * max(1, len(self)))(*map(ctypes.addressof, self))


@dataclass(frozen=True)
class Piece:
    """Neighbouring steps that are started together.

    steps: their numbers. host: whether this is a step of the host. graph: whether they become a
    captured graph; if not, reason says why. launches: kernels, library calls and copies.
    """

    steps: tuple[int, ...]
    host: bool
    graph: bool
    reason: str
    launches: int


def pieces_of(program: Program, plan: DevicePlan, captured: bool = True) -> list[Piece]:
    """A program's steps cut at the host's; the last piece has the copies after all steps."""
    parts: list[list[int]] = [[]]
    for number, step in enumerate(program.steps):
        if step.host is not None:
            parts += [[number], []]
        else:
            parts[-1].append(number)
    found: list[Piece] = []
    for position, part in enumerate(parts):
        if position % 2:
            title = program.steps[part[0]].title
            found.append(Piece(tuple(part), True, False, f"{title} runs on the host", 0))
            continue
        count = sum(_launches(plan.steps[n]) for n in part)
        count += _copies(program) if position == len(parts) - 1 else 0
        reason = "" if captured else "captures are switched off"
        if not reason and count < WORTH:
            reason = "a graph of one launch gains nothing"
        if count:
            found.append(Piece(tuple(part), False, not reason, reason, count))
    return found


def _launches(run: Any) -> int:
    if isinstance(run, KernelRun):
        return len(run.launches)
    return len(run.offsets) if isinstance(run, ProductRun) else 1


def _copies(program: Program) -> int:
    """Copies on the device after the steps: of new values, and of results that live elsewhere."""
    return sum(not program.slots[t].host for _, t in program.copies) + len(passed(program))


def passed(program: Program) -> list[int]:
    """Slots of results on the device whose memory is not the result's own: a Variable's, or that of
    an intermediate value."""
    slots = [program.slots[s] for s in dict.fromkeys(program.outputs)]
    return [s.index for s in slots if s.role not in ("output", "host") and not s.host]
