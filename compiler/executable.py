"""From a traced graph to something that runs: the pipeline, then a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.passes.pipeline import Callback, Pipeline


class Executable(Protocol):
    """A compiled graph."""

    def bind(self, position: int, array: np.ndarray[Any, Any]) -> None:
        """Fix the array of an input (a Variable's buffer), which `run` is then not given."""

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Fresh arrays of the outputs, for arrays of the inputs that are not bound, in order.

        Inputs with an update are overwritten in place, after everything has been read.
        """


class Interpreted:
    """Runs a graph with the ops' eager rules: the reference, and the fallback."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._bound: dict[int, np.ndarray[Any, Any]] = {}
        self._targets = [graph.inputs.index(node) for node, _ in graph.updates]

    def bind(self, position: int, array: np.ndarray[Any, Any]) -> None:
        """Fix the array of an input."""
        self._bound[position] = array

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """The outputs; bound inputs with an update are overwritten."""
        rest = iter(arrays)
        values = [
            self._bound[i] if i in self._bound else next(rest)
            for i in range(len(self.graph.inputs))
        ]
        with np.errstate(all="ignore"):
            outputs, new = interpret(self.graph, values)
        outputs = [np.array(o) if _is_shared(o, values) else o for o in outputs]
        for position, value in zip(self._targets, new, strict=True):
            values[position][...] = value
        return outputs


def _is_shared(output: Any, inputs: Sequence[Any]) -> bool:
    return not output.flags.writeable or any(np.may_share_memory(output, i) for i in inputs)


def compile_graph(graph: Graph, callback: Callback | None = None) -> Executable:
    """The program of a traced graph."""
    return Interpreted(Pipeline(callback=callback).run(graph))
