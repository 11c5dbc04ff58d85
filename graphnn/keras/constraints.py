"""Constraints on weights: each maps a weight to the nearest allowed one, after every update."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras.registry import Registry
from graphnn.runtime.errors import missing_method

__all__ = [
    "Constraint",
    "MaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]

_registry = Registry("constraints")
get, serialize, deserialize = _registry.get, _registry.serialize, _registry.deserialize

EPSILON = 1e-7
Axis = int | tuple[int, ...] | list[int]


class Constraint:
    """Base: subclasses define `__call__(w)` giving a tensor like w, and `get_config`."""

    def __call__(self, w: Any) -> Any:
        """The allowed weight for w, same shape and dtype."""
        raise missing_method(self, "__call__(self, w)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        """An equal object."""
        return cls(**config)


def _norm(w: Any, axis: Axis) -> Any:
    axes = axis if isinstance(axis, int) else tuple(axis)
    return ops.sqrt(ops.sum(ops.square(w), axis=axes, keepdims=True))


@_registry.register()
class MaxNorm(Constraint):
    """Scales vectors along `axis` down to an Euclidean norm of at most `max_value`.

    >>> MaxNorm(1.0)(graphnn.constant([[3.0], [4.0]])).numpy().ravel().round(4).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    def __init__(self, max_value: float = 2.0, axis: Axis = 0) -> None:
        self.max_value, self.axis = max_value, axis

    def __call__(self, w: Any) -> Any:
        norms = _norm(w, self.axis)
        return w * (ops.clip(norms, 0.0, self.max_value) / (norms + EPSILON))

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "axis": self.axis}


@_registry.register()
class NonNeg(Constraint):
    """Sets negative weights to zero.

    >>> NonNeg()(graphnn.constant([1.0, -2.0])).numpy().tolist()
    [1.0, 0.0]
    """

    def __call__(self, w: Any) -> Any:
        return ops.maximum(w, 0.0)


@_registry.register()
class UnitNorm(Constraint):
    """Scales vectors along `axis` to an Euclidean norm of 1.

    >>> UnitNorm()(graphnn.constant([[3.0], [4.0]])).numpy().ravel().round(4).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    def __init__(self, axis: Axis = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        return w / (_norm(w, self.axis) + EPSILON)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


max_norm, non_neg, unit_norm = MaxNorm, NonNeg, UnitNorm
