"""Element-wise functions, one per op class of the Elementwise template.

They are made from the registry: a new op class is a new function here. Functions whose arguments
differ from the op's inputs and settings are written by hand in the other files of this folder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphnn.compiler.ops as _all_ops  # registers every op
from graphnn.compiler.ops.base import REGISTRY, Elementwise
from graphnn.ops.public import public

BY_HAND = frozenset(
    {
        "barrier",
        "cast",
        "clip",
        "full_like",
        "identity",
        "ones_like",
        "stop_gradient",
        "where",
        "zeros_like",
    }
)


def made(package: str) -> dict[str, Callable[..., Any]]:
    """Public functions by name, for the ops defined in a package."""
    return {
        name: public(cls, cls.arity)
        for name, cls in sorted(REGISTRY.items())
        if issubclass(cls, Elementwise)
        and name not in BY_HAND
        and cls.__module__.startswith(package)
    }


_functions = made(_all_ops.__name__)
globals().update(_functions)
__all__ = sorted(_functions)


def __getattr__(name: str) -> Any:
    # Only for type checkers: every function is in the module's namespace already.
    raise AttributeError(f"graphnn has no element-wise function {name!r}")
