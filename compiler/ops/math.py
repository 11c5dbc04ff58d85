"""Elementwise arithmetic and functions."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import FLOATS, NUMBERS
from graphnn.compiler.ops.base import Elementwise, Sample


class Add(Elementwise):
    """Sum of two tensors, with broadcasting.

    x, y: numbers of any dtype, bool excluded. Returns: their common dtype.

    >>> graphnn.add(2.0, 3.0).numpy().item()
    5.0
    """

    name, arity, accepts, commutative = "add", 2, NUMBERS, True
    samples = (
        Sample((("f", (3, 4)), ("f", (4,)))),
        Sample((("f", (2, 1)), ("f", (1, 3)))),
        Sample((("i", (5,)), ("i", ()))),
    )

    def eager(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.add(x, y)

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return g, g

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return x + y


class Multiply(Elementwise):
    """Product of two tensors, with broadcasting.

    >>> graphnn.multiply(2.0, 3.0).numpy().item()
    6.0
    """

    name, arity, accepts, commutative = "multiply", 2, NUMBERS, True
    samples = (Sample((("f", (3, 4)), ("f", (4,)))), Sample((("i", (5,)), ("i", ()))))

    def eager(self, xp: Any, x: Any, y: Any) -> Any:
        return xp.multiply(x, y)

    def grad(self, ops: Any, x: Any, y: Any, *, out: Any, g: Any) -> Any:
        return ops.multiply(g, y), ops.multiply(g, x)

    def scalar(self, emit: Any, x: Any, y: Any) -> Any:
        return x * y


class Exp(Elementwise):
    """e to the power of each element.

    >>> graphnn.exp(0.0).numpy().item()
    1.0
    """

    name, accepts, promotes = "exp", FLOATS, "float"
    samples = (Sample((("f", (3, 4)),)),)

    def eager(self, xp: Any, x: Any) -> Any:
        return xp.exp(x)

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (ops.multiply(g, out),)

    def scalar(self, emit: Any, x: Any) -> Any:
        return emit.call("exp", x)
