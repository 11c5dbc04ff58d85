"""Seeds for what is made without one."""

from __future__ import annotations

from graphnn import random
from graphnn.state import init_scope


def new_seed() -> int:
    """A seed drawn now from graphnn.random's stream, so that `set_seed` makes it reproducible."""
    with init_scope():
        return int(random.randint((), 0, 2**31 - 1))
