"""Seeing what happens between devices."""

from __future__ import annotations

from graphnn.runtime import copies as _copies
from graphnn.runtime.copies import Copy
from graphnn.runtime.settings import settings

__all__ = [
    "Copy",
    "copies",
    "forget_copies",
    "get_log_device_placement",
    "set_log_device_placement",
]


def copies() -> list[Copy]:
    """The copies between devices since the start or `forget_copies`, those of most bytes first.

    Each has `what` was copied, `source` and `target`, the user's line `loc`, the `count` of such
    copies and their `nbytes`. Copies that the user asked for (`numpy()`, `to_device`) and single
    numbers are not listed.

    >>> graphnn.debugging.forget_copies()
    >>> with graphnn.device("CPU"):
    ...     x = graphnn.ones(2) + 1.0
    >>> graphnn.debugging.copies()
    []
    """
    return _copies.copies()


def forget_copies() -> None:
    """Begin the list of copies anew."""
    _copies.forget()


def set_log_device_placement(enabled: bool) -> None:
    """Whether each eager operation and each copy between devices is printed with its device, on
    standard error.

    >>> graphnn.debugging.set_log_device_placement(False)
    """
    settings.log_placement = bool(enabled)


def get_log_device_placement() -> bool:
    """What `set_log_device_placement` chose.

    >>> graphnn.debugging.get_log_device_placement()
    False
    """
    return settings.log_placement
