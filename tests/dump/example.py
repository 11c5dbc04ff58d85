"""The program of the golden texts: one dense layer, its gradients, and a step down them."""

from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.trace import Trace


def trained_layer(rows: int | str = 8) -> Graph:
    """relu(x @ w + b) of `rows` rows, its mean, and w and b moved against their gradients."""
    trace = Trace("step")
    ops = Ops(trace)
    size = symbol(rows) if isinstance(rows, str) else rows
    x = trace.argument("x", TensorType((size, 4), float32))
    owners = ("the Variable w", "the Variable b")
    w = trace.read(owners[0], "w", TensorType((4, 3), float32))
    b = trace.read(owners[1], "b", TensorType((3,), float32))
    h = ops.relu(ops.add(ops.matmul(x, w), b))
    loss = ops.mean(h, axes=(0, 1), keepdims=False)
    seed = ops.ones_like(loss)
    dw, db = trace.apply(Gradient(targets=1, sources=2), [loss, w, b, seed])
    new_w = ops.subtract(w, ops.multiply(dw, 0.1))
    new_b = ops.subtract(b, ops.multiply(db, 0.1))
    trace.assign(owners[0], "w", w.tensor, new_w)
    trace.assign(owners[1], "b", b.tensor, new_b)
    return trace.finish([loss])


def summed_rows() -> Graph:
    """Two steps that cannot be one: the rows of a sum, in another order."""
    trace = Trace("flipped")
    ops = Ops(trace)
    x = trace.argument("x", TensorType((5, 7), float32))
    rows = ops.sum(ops.exp(x), axes=(1,), keepdims=False)
    turned = ops.flip(rows, axes=(0,))
    return trace.finish([ops.add(turned, rows)])
