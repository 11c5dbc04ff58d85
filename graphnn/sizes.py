"""Sizes, shapes and axes as users give them: ints, sequences, symbolic sizes or tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphnn.compiler.ir.graph import Node, topological
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ops.core import Constant, SizeOf
from graphnn.compiler.ops.creation import check_extent
from graphnn.runtime.errors import ArgumentError, TraceError
from graphnn.tensor import Operand, Traced

_MOST = 64  # nodes looked at: sizes are computed with a few operations


def _evaluate(node: Node, known: dict[Node, Any]) -> Any:
    """The value as an array of ints and sizes, None where it depends on data."""
    op = node.op
    if isinstance(op, SizeOf):
        return np.array(op.size, object)
    if isinstance(op, Constant):
        return op.value.astype(object) if op.value.dtype.kind in "iu" else None
    inputs: list[Any] = [known.get(i) for i in node.inputs]
    if not inputs or any(i is None for i in inputs):
        return None
    try:
        found = op.on_sizes(*inputs)
    except (TypeError, ValueError, ArithmeticError, TraceError):
        return None
    return None if found is None or node.dtype.kind not in "iu" else np.asarray(found, object)


def known_value(tensor: Any) -> Any:
    """Ints and sizes that an integer tensor is known to hold, as nested lists; None if unknown."""
    value = tensor._tensor()._value
    if type(value) is not Traced:
        return value.tolist()
    order = list(topological([value.node]))
    if len(order) > _MOST:
        return None
    known: dict[Node, Any] = {}
    for node in order:
        known[node] = _evaluate(node, known)
    result = known[value.node]
    return None if result is None else result.tolist()


def _needs_known(what: str, tensor: Any) -> Any:
    value = known_value(tensor)
    if value is None:
        raise TraceError(
            what,
            received=f"a traced tensor {tensor!r}, whose value depends on data",
            expected="a size that is known while tracing: an int, or a part of graphnn.shape(x)",
            fix="compute it outside of the function, or from the shapes of its arguments",
        )
    return value


def integer(value: Any, what: str) -> Any:
    """A setting as an int or a symbolic size. Raises ArgumentError or TraceError."""
    if isinstance(value, Operand):
        value = _needs_known(what, value)
    if isinstance(value, Size):
        return value
    if isinstance(value, bool | float) or not hasattr(value, "__index__"):
        raise ArgumentError(
            what, received=f"{value!r}", expected="an integer", fix="convert it with int()"
        )
    return int(value)


def axes_of(axis: Any, ndim: int, subject: str) -> tuple[int, ...]:
    """Non-negative axes from an int, a sequence of ints, or None for all.

    Raises ArgumentError for an axis that the tensor lacks or that is given twice.
    """
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, Operand):
        axis = _needs_known(f"axis of {subject}", axis)
    given = list(axis) if isinstance(axis, Iterable) else [axis]
    axes = tuple(one_axis(a, ndim, subject) for a in given)
    if len(set(axes)) != len(axes):
        raise ArgumentError(
            subject, received=f"axis={axis}", expected="each axis once", fix="drop the second one"
        )
    return axes


def one_axis(axis: Any, ndim: int, subject: str) -> int:
    """A non-negative axis. Raises ArgumentError for one that the tensor lacks."""
    number = integer(axis, f"axis of {subject}")
    if not -ndim <= number < ndim:
        raise ArgumentError(
            subject,
            received=f"axis {number} for a tensor with {ndim} axes",
            expected=f"an axis from {-ndim} to {ndim - 1}" if ndim else "no axis at all",
            fix="give an axis the tensor has",
        )
    return int(number % ndim)


def shape_of(shape: Any, subject: str) -> tuple[Any, ...]:
    """A shape from an int, a sequence of ints and sizes, or an integer tensor.

    Raises ArgumentError for other things, TraceError for a tensor that depends on data.
    """
    if isinstance(shape, Operand):
        shape = _needs_known(f"shape of {subject}", shape)
    if not isinstance(shape, Iterable):
        shape = (shape,)
    return tuple(_extent(s, subject) for s in shape)


def new_shape(shape: Any, subject: str) -> tuple[Any, ...]:
    """The shape of a tensor to be made: `shape_of`, and ArgumentError for a negative size."""
    sizes = shape_of(shape, subject)
    for size in sizes:
        check_extent(size, "a size", subject)
    return sizes


def extent_of(value: Any, what: str) -> Any:
    """A number of elements: `integer`, and ArgumentError for a negative one."""
    number = integer(value, what)
    check_extent(number, "the number", what)
    return number


def _extent(value: Any, subject: str) -> Any:
    if value is None:
        raise ArgumentError(
            subject,
            received="a size of None",
            expected="an integer",
            fix="use x.shape[axis] or graphnn.shape(x)[axis] for a size that changes",
        )
    return integer(value, f"shape of {subject}")
