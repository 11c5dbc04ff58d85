"""Penalties on weights: each is a function from a tensor to a scalar that joins the loss."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras.registry import Registry
from graphnn.runtime.errors import ArgumentError, missing_method

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "serialize",
]

_registry = Registry("regularizers")
get, serialize, deserialize = _registry.get, _registry.serialize, _registry.deserialize


class Regularizer:
    """Base: subclasses define `__call__(x)` giving a scalar tensor, and `get_config`."""

    def __call__(self, x: Any) -> Any:
        """The penalty of a tensor, a scalar."""
        raise missing_method(self, "__call__(self, x)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        """An equal object."""
        return cls(**config)


def _factor(name: str, value: float | None) -> float:
    number = 0.0 if value is None else float(value)
    if not 0 <= number < float("inf"):
        raise ArgumentError(
            "a regularizer",
            received=f"{name}={value!r}",
            expected="a finite number, not negative",
            fix=f"for example {name}=0.01",
        )
    return number


@_registry.register("l1_l2")
class L1L2(Regularizer):
    """`l1 * sum(|x|) + l2 * sum(x ** 2)`.

    l1, l2: factors, finite and not negative. Raises ArgumentError for others.

    >>> float(L1L2(l1=1.0, l2=2.0)(graphnn.constant([1.0, -2.0])))
    13.0
    """

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1, self.l2 = _factor("l1", l1), _factor("l2", l2)

    def __call__(self, x: Any) -> Any:
        parts = []
        if self.l1:
            parts.append(ops.sum(ops.abs(x)) * self.l1)
        if self.l2:
            parts.append(ops.sum(ops.square(x)) * self.l2)
        if not parts:
            return ops.zeros((), dtype=x.dtype)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


@_registry.register("l1")
class L1(L1L2):
    """`l1 * sum(|x|)`.

    >>> float(L1(0.5)(graphnn.constant([1.0, -2.0])))
    1.5
    """

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


@_registry.register("l2")
class L2(L1L2):
    """`l2 * sum(x ** 2)`.

    >>> float(L2(0.5)(graphnn.constant([1.0, -2.0])))
    2.5
    """

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


l1, l2, l1_l2 = L1, L2, L1L2
