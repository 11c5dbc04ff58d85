"""Shapes and dtypes of elements: a TensorSpec at each leaf."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.data.elements import describe_element, is_string, map_leaves, zip_leaves
from graphnn.runtime.errors import ShapeError
from graphnn.signature import TensorSpec

Shape = tuple[int | None, ...]


def spec_of(element: Any) -> Any:
    """The specs of one element.

    >>> spec_of((np.zeros((2, 3), "float32"), np.array("a", np.dtypes.StringDType())))
    (TensorSpec(shape=(2, 3), dtype=float32), TensorSpec(shape=(), dtype=string))
    """
    return map_leaves(lambda leaf: TensorSpec(leaf.shape, leaf.dtype), element)


def batched(spec: Any, size: int | None) -> Any:
    """The specs with one more axis in front."""
    return map_leaves(lambda s: TensorSpec((size, *s.shape), s.dtype), spec)


def unbatched(spec: Any) -> Any:
    """The specs without the first axis. Raises ShapeError for a leaf without axes."""

    def rest(leaf: TensorSpec) -> TensorSpec:
        if not leaf.shape:
            raise ShapeError(
                "Dataset.unbatch",
                received=f"the element {leaf}",
                expected="at least one axis, along which to cut",
                fix="batch the dataset first, or leave unbatch out",
            )
        return TensorSpec(leaf.shape[1:], leaf.dtype)

    return map_leaves(rest, spec)


def common(*specs: Any) -> Any:
    """One spec for several: sizes that differ become None.

    >>> common(TensorSpec((2, 3)), TensorSpec((5, 3)))
    TensorSpec(shape=(None, 3), dtype=float32)
    """
    return zip_leaves(_common_leaf, *specs)


def _common_leaf(*specs: TensorSpec) -> TensorSpec:
    first = specs[0]
    if any(s.dtype != first.dtype or len(s.shape) != len(first.shape) for s in specs):
        raise ShapeError(
            "a Dataset",
            received=" and ".join(str(s) for s in dict.fromkeys(specs)),
            expected="elements of one dtype and one number of axes",
            fix="make them alike in map",
        )
    sizes = zip(*(s.shape for s in specs), strict=True)
    return TensorSpec(tuple(s[0] if len(set(s)) == 1 else None for s in sizes), first.dtype)


def is_fixed(spec: Any) -> bool:
    """Whether no size may change."""
    fixed = True

    def look(leaf: TensorSpec) -> None:
        nonlocal fixed
        fixed = fixed and None not in leaf.shape

    map_leaves(look, spec)
    return fixed


def fit(spec: Any, element: Any, subject: str, index: int) -> Any:
    """The element with its leaves in the dtypes of the spec.

    Raises ShapeError naming the element that does not fit, and ArgumentError for another structure.
    """

    def check(leaf: TensorSpec, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        other_kind = array.size and is_string(array) != is_string(leaf)  # [] may be of any kind
        if other_kind or not leaf.fits(array.shape):
            raise ShapeError(
                subject,
                received=f"element {index}: {describe_element(element)}",
                expected=str(spec),
                fix="change the data or the signature",
            )
        return array if array.dtype == leaf.dtype else array.astype(leaf.dtype)

    return zip_leaves(check, spec, element)
