"""How replicas combine values, and when the copies of a Variable are brought together."""

from __future__ import annotations

import enum
from typing import Any, Self

from graphnn.runtime.errors import ArgumentError


class _Named(enum.Enum):
    @classmethod
    def of(cls, value: Any, subject: str) -> Self:
        """The member that a member, its name or None means. Raises ArgumentError."""
        name = getattr(value, "name", value)
        name = str(name or cls._default()).upper()
        if name in cls.__members__:
            return cls[name]
        raise ArgumentError(
            subject,
            received=f"{cls.__name__} {value!r}",
            expected="one of " + ", ".join(cls.__members__),
            fix=f"for example graphnn.distribute.{cls.__name__}.{next(iter(cls.__members__))}",
        )

    @classmethod
    def _default(cls) -> str:
        return next(iter(cls.__members__))


class ReduceOp(_Named):
    """How values of replicas become one: their sum or their mean.

    >>> graphnn.distribute.ReduceOp.SUM.name
    'SUM'
    """

    SUM = "SUM"
    MEAN = "MEAN"


class VariableSynchronization(_Named):
    """When the copies of a Variable are brought together.

    AUTO: the same as ON_WRITE. ON_WRITE: each assignment gives all replicas one new value. ON_READ:
    each replica assigns its own copy, and a read outside of replicas combines them. NONE: there is
    one copy, which the replicas assign in turn.
    """

    AUTO = "AUTO"
    ON_WRITE = "ON_WRITE"
    ON_READ = "ON_READ"
    NONE = "NONE"


class VariableAggregation(_Named):
    """How the replicas' values of a Variable become one.

    NONE: not at all, assigning in a replica is an error. SUM, MEAN: their sum or mean.
    ONLY_FIRST_REPLICA: that of the first replica.
    """

    NONE = "NONE"
    SUM = "SUM"
    MEAN = "MEAN"
    ONLY_FIRST_REPLICA = "ONLY_FIRST_REPLICA"
