"""Loops of four elements at a time, where these share most of their work.

A block of random bits serves four neighbours, but the code of one element computes a whole block.
Written out for four elements, equal expressions become one, and the block is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphnn.compiler.codegen.loops import Kernel, Loop, Statement, Store, scalars
from graphnn.compiler.codegen.lower import Lowered, estimated_cost
from graphnn.compiler.codegen.scalar import Scalar, expressions
from graphnn.compiler.ir.sizes import Dynamic, FloorDiv, Var, atom, atoms, floordiv, mod, substitute

TIMES = 4
SHARED = 0.6  # of the work of four elements apart, what they may need together at most


def unrolled(lowered: Lowered) -> Lowered:
    """The kernel with its loop over elements written out four times, if that saves much work.

    Only where the loop's extent is a multiple of four and its body does nothing but store.
    """
    kernel = lowered.kernel
    if kernel.checks or not any(_divides(s) for s in kernel.body):
        return lowered
    if kernel.flat and kernel.row is not None:
        found = _four_times(kernel.row, kernel.body)
        return lowered if found is None else _with(lowered, row=found.var, body=found.body)
    body = [_loop(s) for s in kernel.body]
    return lowered if tuple(body) == kernel.body else _with(lowered, body=tuple(body))


def _with(lowered: Lowered, **changes: Any) -> Lowered:
    kernel: Kernel = replace(lowered.kernel, **changes)
    return replace(lowered, kernel=replace(kernel, cost=estimated_cost(kernel.body)))


def _divides(statement: Statement) -> bool:
    """Whether an index that is no load's place is divided by 2 or 4: a quick sign of such work."""
    if isinstance(statement, Loop):
        return any(map(_divides, statement.body))
    return any(
        isinstance(a, FloorDiv) and a.denominator in (2, TIMES)
        for e in expressions(scalars(statement))
        if e.op == "index"
        for a in atoms(e.attrs[0])
    )


def _loop(statement: Statement) -> Statement:
    if not isinstance(statement, Loop) or not statement.independent:
        return statement
    if statement.extent is not None:
        return statement
    found = _four_times(statement.var, statement.body)
    return statement if found is None else found


def _four_times(var: Var, body: Sequence[Statement]) -> Loop | None:
    """The loop over a fourth of the variable's extent, if four iterations share enough."""
    if mod(var.extent, TIMES) != 0 or var.extent == TIMES or not all(map(_is_plain, body)):
        return None
    fourth = Var(var.name, floordiv(var.extent, TIMES))
    copies: list[Store] = []
    for k in range(TIMES):
        copy = _Copy({var: atom(fourth) * TIMES + k})
        copies += [copy.store(s) for s in body if isinstance(s, Store)]
    apart = TIMES * sum(1 for _ in expressions(v for s in body for v in scalars(s)))
    together = sum(1 for _ in expressions(v for s in copies for v in scalars(s)))
    return Loop(fourth, tuple(copies)) if together <= SHARED * apart else None


def _is_plain(statement: Statement) -> bool:
    """Whether it is a store without computed indices."""
    return isinstance(statement, Store) and not any(
        isinstance(a, Dynamic)
        for place in (statement.linear, *_places(statement))
        for a in atoms(place)
    )


def _places(statement: Statement) -> Iterator[Any]:
    for e in expressions(scalars(statement)):
        if e.op in ("index", "load"):
            yield e.attrs[-1]


class _Copy:
    """Statements and scalars with other indices in the place of loop variables."""

    def __init__(self, indices: Mapping[Any, Any]) -> None:
        self.indices = indices
        self.known: dict[int, Scalar] = {}

    def store(self, statement: Store) -> Store:
        """The store, at the other index."""
        for e in expressions(scalars(statement)):
            self.known[id(e)] = self.scalar(e)
        linear = substitute(statement.linear, self.indices)
        return Store(statement.buffer, linear, self.known[id(statement.value)])

    def scalar(self, value: Scalar) -> Scalar:
        """The value, whose arguments are known already."""
        emit, args = value.emit, tuple(self.known[id(a)] for a in value.args)
        emit.loc = value.loc
        if value.op == "index":
            return emit.index(substitute(value.attrs[0], self.indices))
        if value.op == "load":
            return emit.load(value.attrs[0], substitute(value.attrs[1], self.indices))
        if value.op == "compare" and all(a.op == "constant" for a in args):
            if value.attrs == ("eq",):
                return emit.constant(args[0].attrs[0].value == args[1].attrs[0].value, value.dtype)
        if value.op == "select" and args[0].op == "constant":
            return args[1] if args[0].attrs[0].value else args[2]
        if not args:
            return value
        return emit.make(value.op, args, value.dtype, value.attrs)
