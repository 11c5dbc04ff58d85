"""Combining the values of replicas: one `all_reduce` op for as many tensors as come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn import tree
from graphnn.apply import TENSOR_OPS, apply, convert
from graphnn.compiler.ir.types import describe
from graphnn.compiler.ops.collective import AllReduce
from graphnn.distribute.enums import ReduceOp
from graphnn.runtime.errors import ArgumentError, ShapeError


def all_reduce(kind: ReduceOp, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Tensors combined over replicas. rows: the tensors of each replica, in one order.

    Raises ShapeError if a tensor's shapes differ.
    """
    if len(rows) == 1 or not rows[0]:
        return [convert(v) for v in rows[0]]
    tensors = [convert(v) for row in rows for v in row]
    op = AllReduce(kind=kind.name.lower(), replicas=len(rows))
    return list(apply(op, *tensors))


def reduce_structure(kind: ReduceOp, values: Sequence[Any]) -> Any:
    """Structures of equal nesting, one from each replica, combined leaf by leaf."""
    for other in values[1:]:
        tree.same_structure(values[0], other)
    rows = [tree.flatten(v) for v in values]
    return tree.unflatten(values[0], all_reduce(kind, rows))


def reduce_axis(kind: ReduceOp, values: Sequence[Any], axis: int) -> Any:
    """The sum or mean over an axis and over replicas, whose sizes on the axis may differ."""
    tensors = [convert(v) for v in values]
    for tensor in tensors:
        if not -tensor.ndim <= axis < tensor.ndim:
            raise ArgumentError(
                "Strategy.reduce",
                received=f"axis={axis} for {describe(tensor.dtype, tensor.shape)}",
                expected="an axis that the values have, or None",
                fix="give axis=None to combine the values as they are",
            )
    axes = (axis % tensors[0].ndim,)
    (total,) = all_reduce(ReduceOp.SUM, [[TENSOR_OPS.sum(t, axes=axes)] for t in tensors])
    if kind is ReduceOp.SUM:
        return total
    count: Any = 0
    for tensor in tensors:
        count = count + tensor.shape[axis]
    return TENSOR_OPS.divide(total, convert(count, total.dtype))


def gather(values: Sequence[Any], axis: int) -> Any:
    """The replicas' tensors one after the other along an axis. Raises ShapeError."""
    tensors = [convert(v) for v in values]
    if any(not -t.ndim <= axis < t.ndim for t in tensors):
        shapes = ", ".join(describe(t.dtype, t.shape) for t in tensors)
        raise ShapeError(
            "Strategy.gather",
            received=f"values {shapes} and axis={axis}",
            expected="an axis that all values have",
            fix="expand_dims the values first",
        )
    if len(tensors) == 1:
        return tensors[0]
    return TENSOR_OPS.concat(*tensors, axis=axis % tensors[0].ndim)
