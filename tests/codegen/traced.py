"""Small traces for tests of fusion and code generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn.build import Compiled, compile_graph
from graphnn.compiler.codegen.loops import render
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.trace import Trace

ONE_THREAD = Target(threads=1)


class Variable:
    """Stands for a Variable: a buffer that a trace reads and assigns."""

    def __init__(self, value: Any) -> None:
        self.buffer = np.array(value)
        self.type = TensorType(self.buffer.shape, self.buffer.dtype)


class Tracer:
    """A trace with its ops, and Variables read and assigned by value."""

    def __init__(self) -> None:
        self.trace = Trace("test")
        self.ops = Ops(self.trace)

    def read(self, variable: Variable) -> Node:
        return self.trace.read(variable, "v", variable.type)

    def assign(self, variable: Variable, value: Node) -> None:
        self.trace.assign(variable, "v", variable.type, value)

    def gradient(self, target: Node, *sources: Node) -> tuple[Node, ...]:
        seed = self.trace.constant(1.0, target.dtype)
        op = Gradient(targets=1, sources=len(sources))
        return tuple(self.trace.apply(op, (target, *sources, seed)))


def trace(
    function: Callable[..., Any], *shapes: Sequence[Any], dtype: Any = float32
) -> tuple[Graph, Tracer]:
    """The graph of function(tracer, *arguments); a string in a shape is a symbol."""
    tracer = Tracer()
    arguments = []
    for k, shape in enumerate(shapes):
        sizes = tuple(symbol(s) if isinstance(s, str) else s for s in shape)
        arguments.append(tracer.trace.argument(f"x{k}", TensorType(sizes, np.dtype(dtype))))
    out = function(tracer, *arguments)
    return tracer.trace.finish(list(out) if isinstance(out, list | tuple) else [out]), tracer


def compiled(
    function: Callable[..., Any], *shapes: Sequence[Any], target: Target | None = None
) -> Compiled:
    """The compiled trace; Variables are bound."""
    graph, tracer = trace(function, *shapes)
    result = compile_graph(graph, target=target)
    first = len(tracer.trace.arguments) + len(tracer.trace.captures)
    for k, known in enumerate(tracer.trace.variables.values()):
        result.bind(first + k, known.source.buffer)
    return result


def run(result: Compiled, *arrays: Any) -> list[Any]:
    """Outputs for the arguments; Variables are bound already."""
    missing = len(result.traced.inputs) - len(arrays)
    return result.run([*(np.ascontiguousarray(a) for a in arrays), *[None] * missing])


def loops(result: Compiled) -> str:
    """The loop form of every step."""
    kernels = [w.lowered.kernel for step in result.built.steps for w in step[:1] if w.lowered]
    return "\n\n".join(map(render, kernels))


def titles(result: Compiled) -> list[str]:
    """What each step computes."""
    return [s.title for s in result.built.program.steps]


def normal(*shape: int, seed: int = 0) -> Any:
    """Reproducible normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")
