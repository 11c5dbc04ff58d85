"""Dtype policies: in which dtype a layer computes, and in which it keeps its weights."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import FLOATS, DType, as_dtype
from graphnn.keras.serialization import publish
from graphnn.runtime.errors import ArgumentError, GraphnnError

__all__ = [
    "DTypePolicy",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]

_MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}


@publish("keras")
class DTypePolicy:
    """A dtype name such as "float32", or "mixed_float16" / "mixed_bfloat16": compute in half
    precision, keep the weights in float32.

    Raises ArgumentError for other names.

    >>> policy = DTypePolicy("mixed_bfloat16")
    >>> policy.compute_dtype, policy.variable_dtype
    ('bfloat16', 'float32')
    """

    def __init__(self, name: str = "float32") -> None:
        self._name = name
        if name in _MIXED:
            self._compute, self._variable = as_dtype(_MIXED[name]), as_dtype("float32")
            return
        try:
            self._compute = self._variable = as_dtype(name)
        except (GraphnnError, TypeError):
            raise ArgumentError(
                "a dtype policy",
                received=repr(name),
                expected="a dtype name, mixed_float16 or mixed_bfloat16",
                fix='for example dtype="float32"',
            ) from None

    @property
    def name(self) -> str:
        """The name the policy was made from."""
        return self._name

    @property
    def compute_dtype(self) -> str:
        """Name of the dtype that layers compute in."""
        return self._compute.name

    @property
    def variable_dtype(self) -> str:
        """Name of the dtype of weights."""
        return self._variable.name

    @property
    def compute(self) -> DType:
        """The dtype that layers compute in."""
        return self._compute

    @property
    def casts_inputs(self) -> bool:
        """Whether floating-point inputs are cast to the compute dtype."""
        return self._compute in FLOATS

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self._name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DTypePolicy:
        """An equal policy."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"DTypePolicy({self._name!r})"


Policy = DTypePolicy
_global = DTypePolicy("float32")


def get(identifier: Any = None) -> DTypePolicy:
    """The policy for a name, dtype, config or policy; None is the global one."""
    if identifier is None:
        return _global
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):
        return DTypePolicy(**identifier["config"])
    if isinstance(identifier, str):
        return DTypePolicy(identifier)
    return DTypePolicy(as_dtype(identifier).name)


def serialize(policy: DTypePolicy) -> dict[str, Any]:
    """The config that `get` turns back into the policy."""
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": policy.get_config(),
        "registered_name": None,
    }


def global_policy() -> DTypePolicy:
    """The policy of layers made without a dtype."""
    return _global


def set_global_policy(policy: Any) -> None:
    """Set the policy of layers made from now on without a dtype.

    policy: a name, dtype or DTypePolicy. Raises ArgumentError for other names.
    """
    global _global
    _global = get(policy)


dtype_policy, set_dtype_policy = global_policy, set_global_policy
