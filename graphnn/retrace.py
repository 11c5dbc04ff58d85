"""Why a `@function` was traced: what changed against the trace that was nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphnn.runtime.errors import Loc
from graphnn.signature import Signature

ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One argument (or flag) with its old and new text."""

    path: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


@dataclass(frozen=True)
class Retrace:
    """One trace: its number, the call that caused it, and what differs from an earlier one.

    against: number of the nearest earlier trace, 0 for the first trace. notes: e.g. which sizes
    became symbolic, or why they could not.
    """

    number: int
    signature: Signature
    loc: Loc | None
    against: int = 0
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """The lines of `explain` about this trace."""
        where = f" at {self.loc}" if self.loc is not None else ""
        if self.against:
            lines = [f"trace {self.number}{where}, which differs from trace {self.against}:"]
            lines += [f"    {d}" for d in self.differences]
        else:
            lines = [f"trace {self.number}{where}, the first:"]
            lines += [f"    {path}: {text}" for path, text in self.signature.lines().items()]
        return "\n".join([*lines, *(f"    note: {note}" for note in self.notes)])


def differences(old: Signature, new: Signature) -> tuple[Difference, ...]:
    """What changed from one signature to another, in the order of the new one."""
    before, after = old.lines(), new.lines()
    paths = [*after, *(p for p in before if p not in after)]
    return tuple(
        Difference(p, before.get(p, ABSENT), after.get(p, ABSENT))
        for p in paths
        if before.get(p, ABSENT) != after.get(p, ABSENT)
    )


def nearest(known: Sequence[Retrace], new: Signature) -> tuple[int, tuple[Difference, ...]]:
    """Number of the trace with the fewest differences (the latest of equals), and these."""
    best: tuple[int, tuple[Difference, ...]] = (0, ())
    for record in known:
        found = differences(record.signature, new)
        if best[0] == 0 or len(found) <= len(best[1]):
            best = record.number, found
    return best


def explain(name: str, records: Iterable[Retrace]) -> str:
    """The whole record of a function as text."""
    known = list(records)
    count = f"{len(known)} trace" + ("" if len(known) == 1 else "s")
    return "\n".join([f"function {name}: {count}", *(r.text() for r in known)])
