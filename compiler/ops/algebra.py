"""What `fold` rules ask about the nodes they see."""

from __future__ import annotations

import math
from typing import Any

from graphnn.compiler.ir.types import FLOATS


def uniform(node: Any) -> Any:
    """The Python number that every element of a node is, or None.

    Looks through broadcasts, reshapes and other moves.
    """
    while node.op.rearranges:
        node = node.inputs[0]
    return node.op.uniform()


def is_uniform(node: Any, value: float) -> bool:
    """Whether every element is this number; 0.0 and -0.0 differ."""
    found = uniform(node)
    if found is None or isinstance(found, complex) or found != value:
        return False
    if not isinstance(found, float) or found != 0:
        return True
    return math.copysign(1.0, found) == math.copysign(1.0, value)


def made_by(node: Any, op: type) -> bool:
    """Whether a node is the result of an op of this class."""
    return isinstance(node.op, op)


def zero(dtype: Any, negative: bool = False) -> float:
    """The zero of a dtype; the negative one is wanted for floats only."""
    return -0.0 if negative and dtype in FLOATS else 0
