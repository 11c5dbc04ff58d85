"""Which values were copied between devices, and for which line of the user's code."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import Any

from graphnn.runtime.errors import Loc, user_loc
from graphnn.runtime.settings import settings

_MOST = 4096  # distinct copies that are remembered


@dataclass
class Copy:
    """Copies of one thing, between two devices, for one line.

    what: in words. source, target: names of devices. loc: the user's line, or None. count: how
    often. nbytes: of all of them together.
    """

    what: str
    source: str
    target: str
    loc: Loc | None
    count: int = 0
    nbytes: int = 0

    def __str__(self) -> str:
        times = f"{self.count} times, " if self.count > 1 else ""
        where = f" at {self.loc}" if self.loc is not None else ""
        return f"{self.what}: {times}{self.nbytes} bytes, {self.source} -> {self.target}{where}"


_found: dict[tuple[Any, ...], Copy] = {}
_lock = threading.Lock()


def note(what: str, nbytes: int, source: str, target: str) -> None:
    """Write a copy down; with `log_placement` it is printed as well."""
    loc = user_loc()
    key = (what, source, target, loc and (loc.file, loc.line))
    with _lock:
        copy = _found.get(key)
        if copy is None:
            if len(_found) >= _MOST:
                _found.pop(next(iter(_found)))
            copy = _found[key] = Copy(what, source, target, loc)
        copy.count += 1
        copy.nbytes += nbytes
    if settings.log_placement:
        where = f" at {loc}" if loc is not None else ""
        print(f"copy of {what}: {nbytes} bytes, {source} -> {target}{where}", file=sys.stderr)


def copies() -> list[Copy]:
    """All copies so far, those of most bytes first."""
    with _lock:
        found = list(_found.values())
    return sorted(found, key=lambda c: -c.nbytes)


def forget() -> None:
    """Begin the list anew."""
    with _lock:
        _found.clear()
