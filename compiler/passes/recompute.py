"""Recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphnn.compiler.ir.graph import Graph


@dataclass(frozen=True)
class Recompute:
    """Off unless a budget is given."""

    name: ClassVar[str] = "recompute"
    memory_budget: int | None = None

    def run(self, graph: Graph) -> Graph:
        """The graph."""
        return graph
