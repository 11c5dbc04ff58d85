"""Running a graph with the ops' eager rules, in the place of a compiled program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph


class Executable(Protocol):
    """A graph that can be run."""

    def bind(self, position: int, array: np.ndarray[Any, Any]) -> None:
        """Fix the array of an input (a Variable's buffer) for all following runs."""

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Fresh arrays of the outputs, for arrays of the inputs; None stands for a bound one.

        Inputs with an update are overwritten in place, after everything has been read.
        """


class Interpreted:
    """The reference: no passes, no code; for comparisons and for graphs under suspicion."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._bound: dict[int, np.ndarray[Any, Any]] = {}
        self._targets = [graph.inputs.index(node) for node, _ in graph.updates]

    def bind(self, position: int, array: np.ndarray[Any, Any]) -> None:
        """Fix the array of an input."""
        self._bound[position] = array

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """The outputs; inputs with an update are overwritten."""
        values = [self._bound[i] if a is None else a for i, a in enumerate(arrays)]
        with np.errstate(all="ignore"):
            outputs, new = interpret(self.graph, values)
        outputs = [np.array(o) if _is_shared(o, values) else o for o in outputs]
        for position, value in zip(self._targets, new, strict=True):
            values[position][...] = value
        return outputs


def _is_shared(output: Any, inputs: Sequence[Any]) -> bool:
    return not output.flags.writeable or any(np.may_share_memory(output, i) for i in inputs)
