"""Nested structures: lists, tuples, named tuples, dicts and dataclasses with values at the leaves.

Dicts are walked in the sorted order of their keys where these can be sorted, so two dicts with the
same items have the same leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from graphnn.runtime.errors import ArgumentError

__all__ = [
    "assert_same_structure",
    "flatten",
    "is_leaf",
    "is_nested",
    "map_structure",
    "pack_sequence_as",
    "same_structure",
    "unflatten",
]


class _Leaf:
    """Stands for a value in a structure."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "*"


LEAF = _Leaf()


def is_nested(value: Any) -> bool:
    """Whether a value is one of the containers that are walked into.

    >>> is_nested([1]), is_nested("text")
    (True, False)
    """
    if isinstance(value, list | tuple | Mapping):
        return not getattr(type(value), "_tree_leaf", False)
    return is_dataclass(value) and not isinstance(value, type)


def is_leaf(value: Any) -> bool:
    """Whether a value is not walked into."""
    return not is_nested(value)


def keys_of(mapping: Mapping[Any, Any]) -> list[Any]:
    """Keys in the order in which they are walked."""
    try:
        return sorted(mapping)
    except TypeError:
        return list(mapping)


def children(value: Any) -> list[tuple[Any, Any]]:
    """(label, child) pairs of a container: index, key or field name."""
    if isinstance(value, Mapping):
        return [(k, value[k]) for k in keys_of(value)]
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    return [(f.name, getattr(value, f.name)) for f in fields(value)]


def rebuild(value: Any, new: list[Any]) -> Any:
    """A container of the same kind with other children, in the order of `children`."""
    if isinstance(value, Mapping):
        pairs = dict(zip(keys_of(value), new, strict=True))
        ordered = {k: pairs[k] for k in value}
        kind: Any = type(value)
        if kind is dict:
            return ordered
        if hasattr(value, "default_factory"):
            return kind(value.default_factory, ordered)
        return kind(ordered)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*new)
    if isinstance(value, list | tuple):
        kind = type(value)
        return new if kind is list else kind(new)
    return _rebuild_dataclass(value, new)


def _rebuild_dataclass(value: Any, new: list[Any]) -> Any:
    copy = object.__new__(type(value))  # fields with init=False and frozen ones work this way too
    for f, child in zip(fields(value), new, strict=True):
        object.__setattr__(copy, f.name, child)
    return copy


def flatten(structure: Any) -> list[Any]:
    """The leaves, left to right; None is a leaf.

    >>> flatten({"b": [1, 2], "a": 3})
    [3, 1, 2]
    """
    if not is_nested(structure):
        return [structure]
    leaves: list[Any] = []
    for _, child in children(structure):
        leaves += flatten(child)
    return leaves


def unflatten(structure: Any, leaves: list[Any] | tuple[Any, ...]) -> Any:
    """The structure with other leaves. Raises ArgumentError if there are too many or too few.

    >>> unflatten({"b": [1, 2], "a": 3}, [30, 10, 20])
    {'b': [10, 20], 'a': 30}
    """
    rest = list(reversed(leaves))
    try:
        result = _fill(structure, rest)
    except IndexError:
        rest = [None]
    if rest:
        raise ArgumentError(
            "tree.unflatten",
            received=f"{len(leaves)} leaves",
            expected=f"{len(flatten(structure))} leaves",
            fix="give one leaf for each place of the structure",
        )
    return result


def _fill(structure: Any, rest: list[Any]) -> Any:
    if not is_nested(structure):
        return rest.pop()
    return rebuild(structure, [_fill(child, rest) for _, child in children(structure)])


def map_structure(function: Callable[..., Any], *structures: Any) -> Any:
    """The structure of the first argument with `function(leaf, ...)` at each leaf.

    Raises ArgumentError if the structures differ.

    >>> map_structure(lambda a, b: a + b, [1, (2, 3)], [10, (20, 30)])
    [11, (22, 33)]
    """
    first, *others = structures
    for other in others:
        same_structure(first, other)
    return unflatten(first, [function(*v) for v in zip(*map(flatten, structures), strict=True)])


def same_structure(a: Any, b: Any) -> None:
    """Raise ArgumentError unless two structures differ in their leaves only."""
    if skeleton(a) == skeleton(b):
        return
    raise ArgumentError(
        "tree",
        received=f"structures {skeleton(a)} and {skeleton(b)}",
        expected="two structures that differ in their leaves only",
        fix="nest both arguments alike",
    )


def skeleton(structure: Any) -> Any:
    """The structure with a mark at each leaf; equal for structures that differ in leaves only.

    >>> skeleton({"a": [1, 2]})
    {'a': [*, *]}
    """
    if not is_nested(structure):
        return LEAF
    pairs = children(structure)
    if is_dataclass(structure):
        return (type(structure).__name__, *((k, skeleton(v)) for k, v in pairs))
    return rebuild(structure, [skeleton(v) for _, v in pairs])


pack_sequence_as = unflatten  # TensorFlow's names, in tf.nest
assert_same_structure = same_structure
