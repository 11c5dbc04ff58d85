"""Small graphs for the tests of the IR and of passes."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import TensorType, as_dtype, is_float
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.trace import Trace


class Builder:
    """Makes a graph by hand: `b.x("f32 shape")`, `b.ops.add(...)`, `b.graph(out)`."""

    def __init__(self, name: str = "f") -> None:
        self.trace = Trace(name)
        # Without places, so that texts do not depend on the lines of the tests.
        self.trace.place = lambda: None  # type: ignore[method-assign]
        self.ops = Ops(self.trace)

    def input(self, *shape: int | Size, dtype: str = "float32", label: str = "") -> Node:
        """An argument."""
        type = TensorType(tuple(shape), as_dtype(dtype))
        return self.trace.argument(label or f"x{len(self.trace.arguments)}", type)

    def variable(self, *shape: int, label: str = "v") -> tuple[Any, Node]:
        """A Variable (any object stands for it) and its value."""
        owner = object()
        return owner, self.trace.read(owner, label, TensorType(shape, as_dtype("float32")))

    def constant(self, value: Any, dtype: str = "float32") -> Node:
        """A constant."""
        return self.trace.constant(value, as_dtype(dtype))

    def apply(self, op: Any, *inputs: Node) -> Any:
        """Any op."""
        return self.trace.apply(op, inputs)

    def graph(self, *outputs: Node) -> Graph:
        """The graph with these results."""
        return self.trace.finish(outputs)


def arrays_for(graph: Graph, seed: int = 0, **sizes: int) -> list[Any]:
    """Random arrays for the inputs of a graph."""
    rng = np.random.default_rng(seed)
    found = []
    for node in graph.inputs:
        type = node.tensor.bind(dict(sizes))
        if is_float(type.dtype):
            found.append(rng.normal(size=type.shape).astype(type.dtype))
        else:
            found.append(rng.integers(0, 2, size=type.shape).astype(type.dtype))
    return found


def values(graph: Graph, arrays: Sequence[Any]) -> list[Any]:
    """Outputs and new values."""
    with np.errstate(all="ignore"):
        outputs, new = interpret(graph, arrays)
    return [*outputs, *new]


def assert_same(a: Graph, b: Graph, arrays: Sequence[Any], rtol: float = 1e-6) -> None:
    """Both graphs compute the same."""
    for x, y in zip(values(a, arrays), values(b, arrays), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


def names(graph: Graph) -> list[str]:
    """Op names without the inputs, in order."""
    return [n.op.name for n in graph.nodes if n.op.name != "input"]


def relative(text: str, function: Callable[..., Any]) -> str:
    """A text with the lines of a test file counted from the start of a function in it.

    So a golden text names the user's line, and moves with the test.
    """
    first = function.__code__.co_firstlineno
    return re.sub(r"(test_\w+\.py):(\d+)", lambda m: f"{m[1]}:+{int(m[2]) - first}", text)
