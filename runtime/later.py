"""Modules of graphnn that are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """Stands for a module of ours until one of its names is asked for.

    Code for GPUs and the dump tool are a third of all modules; `import graphnn` does without them.
    The module is asked for anew each time, so nothing needs to be told when it is replaced.

    >>> texts = Later("graphnn.runtime.errors")
    >>> texts.GraphnnError.__name__
    'GraphnnError'
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)
