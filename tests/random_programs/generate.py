"""Random graphs for property tests: instructions drawn by hypothesis, built into a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import graphnn
from graphnn.apply import TENSOR_OPS
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.trace import Trace
from graphnn.runtime.errors import GraphnnError

SHAPES = ((6, 5), (6, 1), (5,), (1, 5), (6, 5), (2, 3, 5), (5, 4), (4,), ())

# Smooth and tame on [-2, 2], so that finite differences in float64 are a fair judge.
UNARY = ("tanh", "sigmoid", "sin", "cos", "negative", "square", "softplus", "atan", "erf")
BINARY = ("add", "subtract", "multiply")
KINDS = (
    "unary",
    "binary",
    "binary",
    "scale",
    "reduce",
    "mean_axis",
    "softmax",
    "reshape",
    "transpose",
    "slice",
    "concat",
    "matmul",
    "pad",
    "flip",
    "broadcast",
    "cumsum",
    "where",
    "take",
    "layer_norm",
)


@dataclass(frozen=True)
class Program:
    """Shapes of the inputs, and instructions (kind, three small numbers)."""

    inputs: tuple[int, ...]
    steps: tuple[tuple[str, int, int, int], ...]
    seed: int

    def arrays(self, dtype: Any = np.float32, batch: int = 6) -> list[np.ndarray[Any, Any]]:
        """Values of the inputs; an axis of 6 becomes `batch` long."""
        rng = np.random.default_rng(self.seed)
        shapes = [tuple(batch if s == 6 else s for s in SHAPES[k]) for k in self.inputs]
        return [rng.uniform(-1, 1, s).astype(dtype) for s in shapes]

    def graph(
        self,
        dtype: Any = float32,
        symbolic: bool = False,
        gradient: bool = False,
        trace: Trace | None = None,
    ) -> Graph:
        """The trace: the last values are the results, with their gradients if asked for."""
        trace = trace or Trace("random")
        ops = Ops(trace)
        n = symbol("n")
        types = [
            TensorType(tuple(n if symbolic and s == 6 else s for s in SHAPES[k]), np.dtype(dtype))
            for k in self.inputs
        ]
        sources = [trace.argument(f"x{k}", t) for k, t in enumerate(types)]
        results = self.results(ops, sources)
        if not gradient:
            return trace.finish(results)
        total = ops.sum(results[-1], axes=tuple(range(len(results[-1].shape))))
        gradients = _gradients(trace, total, sources)
        return trace.finish([total, *gradients])

    def results(self, ops: Any, sources: list[Any], count: int = 2) -> list[Any]:
        """The last values, made of nodes or of tensors, whichever `ops` makes."""
        values = list(sources)
        for step in self.steps:
            try:
                values.append(_apply(ops, values, *step))
            except GraphnnError:
                continue
        return values[-count:]

    def eager(self, arrays: list[Any]) -> tuple[list[Any], list[Any]]:
        """(results, gradients of the sum of the last one) as a user gets them line by line."""
        sources = [graphnn.constant(a) for a in arrays]
        with graphnn.GradientTape() as tape:
            tape.watch(sources)
            results = self.results(TENSOR_OPS, sources)
        gradients = tape.gradient(results[-1], sources, unconnected_gradients="zero")
        return [r.numpy() for r in results], [g.numpy() for g in gradients]


def _gradients(trace: Trace, total: Node, sources: list[Node]) -> list[Node]:
    seed = trace.constant(1.0, total.dtype)
    result = trace.apply(Gradient(targets=1, sources=len(sources)), (total, *sources, seed))
    return list(result)


def _apply(ops: Any, values: list[Node], kind: str, a: int, b: int, c: int) -> Node:
    x, y = values[a % len(values)], values[b % len(values)]
    ndim = len(x.shape)
    axis = c % ndim if ndim else 0
    match kind:
        case "unary":
            return getattr(ops, UNARY[c % len(UNARY)])(x)
        case "binary":
            return getattr(ops, BINARY[c % len(BINARY)])(x, y)
        case "scale":
            return ops.multiply(x, (c % 5 - 2) / 2)
        case "reduce" if ndim:
            return ops.sum(x, axes=(axis,), keepdims=bool(b % 2))
        case "mean_axis" if ndim:
            return ops.mean(x, axes=(axis,), keepdims=True)
        case "softmax" if ndim:
            return ops.softmax(x, axis=axis)
        case "reshape" if ndim > 1:
            return ops.reshape(x, shape=(x.shape[0] * x.shape[1], *x.shape[2:]))
        case "transpose" if ndim > 1:
            order = list(range(ndim))
            order[axis], order[-1] = order[-1], order[axis]
            return ops.permute_dims(x, axes=tuple(order))
        case "flip" if ndim:
            return ops.flip(x, axes=(axis,))
        case "concat" if ndim:
            return ops.concat(x, y, axis=axis)
        case "matmul" if ndim > 1 and len(y.shape) > 1:
            return ops.multiply(ops.matmul(x, y), 0.25)
        case "pad" if ndim:
            low = tuple(int(k == axis) for k in range(ndim))
            return ops.pad(x, low=low, high=tuple(2 * v for v in low))
        case "broadcast":
            return ops.broadcast_to(x, shape=(3, *x.shape))
        case "cumsum" if ndim:
            return ops.cumsum(x, axis=axis, reverse=bool(b % 2))
        case "where":
            return ops.where(ops.greater(x, 0.1), x, y)
        case "layer_norm" if ndim and isinstance(x.shape[-1], int) and x.shape[-1] > 2:
            one = ops.broadcast_to(
                ops.multiply(ops.sum(x, axes=tuple(range(ndim))), 0.1), shape=(x.shape[-1],)
            )
            return ops.layer_norm(x, one, one, epsilon=0.1)
    return ops.square(x)


def programs(max_steps: int = 14) -> st.SearchStrategy[Program]:
    """Random programs."""
    small = st.integers(0, 30)
    step = st.tuples(st.sampled_from(KINDS), small, small, small)
    inputs = st.lists(st.integers(0, len(SHAPES) - 1), min_size=1, max_size=3).map(tuple)
    steps = st.lists(step, min_size=1, max_size=max_steps).map(tuple)
    return st.builds(Program, inputs, steps, st.integers(0, 1000))
