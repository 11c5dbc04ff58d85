"""Memory of a GPU: large arrays with the lines that made them, and the error when it is used up."""

from __future__ import annotations

import weakref
from typing import Any

from graphnn.runtime.errors import GraphnnError, Loc, user_loc

LARGE = 1 << 20  # bytes from which an array's line is remembered
_NAMED = 8  # arrays that the error lists


class DeviceMemoryError(GraphnnError, MemoryError):
    """A GPU has not enough memory for what was asked."""


_live: dict[int, tuple[weakref.ref[Any], str, Loc | None]] = {}


def note(array: Any, what: str) -> None:
    """Remember which line made a large array, as long as it lives. what: op or Variable."""
    if array.nbytes < LARGE or array.base is not None:
        return
    key = id(array)
    _live[key] = (weakref.ref(array, lambda _: _live.pop(key, None)), what, user_loc())


def largest(device: int) -> list[str]:
    """The largest arrays alive on a device, in words."""
    alive = [(ref(), what, loc) for ref, what, loc in list(_live.values())]
    own = [(a, what, loc) for a, what, loc in alive if a is not None and a.data.device_id == device]
    own.sort(key=lambda row: -row[0].nbytes)
    return [
        f"{readable(a.nbytes)} {a.dtype.name}{list(a.shape)}, {what}{f' at {loc}' if loc else ''}"
        for a, what, loc in own[:_NAMED]
    ]


def readable(nbytes: int) -> str:
    """A number of bytes for people.

    >>> readable(3 << 29)
    '1.50 GiB'
    """
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:.2f} {unit}"
    return f"{nbytes} bytes"


def exhausted(backend: Any, error: BaseException, what: str) -> DeviceMemoryError:
    """The error for a failed allocation. what: what it was for, with shapes."""
    info, limit = backend.memory_info(), backend.memory_limit()
    asked = getattr(error, "_size", None)
    size = f"{readable(asked)} ({asked} bytes)" if isinstance(asked, int) else str(error)
    use = f"{readable(info['current'])} in use"
    use += f", {readable(info['reserved'])} taken from the GPU, limit {readable(limit)}"
    rows = "".join(f"\n    {row}" for row in largest(backend.index))
    return DeviceMemoryError(
        f"memory of {backend.name}",
        received=f"{size} asked for by {what}; {use}"
        + (f"; the largest arrays alive:{rows}" if rows else ""),
        expected="memory that is free, after unused blocks were given back",
        fix="use a smaller batch, drop tensors that are not needed any more, or compile the whole "
        "step with @graphnn.function, which plans its memory",
    )
