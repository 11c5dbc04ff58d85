"""Shapes as layers see them: tuples of ints, with None for a size that is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import tree
from graphnn.apply import convert
from graphnn.compiler.ir.types import as_dtype


def shape_of(tensor: Any) -> tuple[int | None, ...]:
    """The sizes of a tensor; a symbolic one is None."""
    return tuple(s if isinstance(s, int) else None for s in tensor.shape)


def shapes_of(tensors: Any, **batch: None) -> Any:
    """The shapes of tensors in a structure; with `batch=None`, the first size is None."""

    def one(value: Any) -> Any:
        if not hasattr(value, "shape"):
            return None
        shape = shape_of(value)
        return (None, *shape[1:]) if batch and shape else shape

    if not tree.is_nested(tensors):
        return one(tensors)
    if isinstance(tensors, dict):
        return {k: shapes_of(v, **batch) for k, v in tensors.items()}
    return [shapes_of(v, **batch) for v in tree.flatten(tensors)]


def is_shape(value: Any) -> bool:
    """Whether a value is one shape and not a structure of shapes."""
    return isinstance(value, tuple | list) and all(s is None or isinstance(s, int) for s in value)


def map_shapes(function: Callable[[tuple[int | None, ...]], Any], shapes: Any) -> Any:
    """The structure of shapes with a function applied to each."""
    if is_shape(shapes):
        return function(tuple(shapes))
    if isinstance(shapes, dict):
        return {k: map_shapes(function, v) for k, v in shapes.items()}
    return [map_shapes(function, v) for v in shapes]


def count_of(tensor: Any, dtype: Any) -> Any:
    """Number of elements as a 0-d tensor; right also where a size is symbolic."""
    return convert(tensor.size, as_dtype(dtype))


def batch_size_of(structure: Any, dtype: Any = "float32") -> Any:
    """Size of the first axis of the first tensor, as a 0-d tensor; 1 for a 0-d tensor."""
    first = next(t for t in tree.flatten(structure) if t is not None)
    return convert(first.shape[0] if first.shape else 1, as_dtype(dtype))
