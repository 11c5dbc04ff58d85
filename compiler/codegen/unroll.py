"""Loops of four elements at a time, where these share most of their work.

A block of random bits serves four neighbours, but the code of one element computes a whole block.
Written out for four elements, equal expressions become one, and the block is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphnn.compiler.codegen.copies import Copy, is_plain
from graphnn.compiler.codegen.loops import Kernel, Loop, Statement, Store, scalars
from graphnn.compiler.codegen.lower import Lowered, estimated_cost
from graphnn.compiler.codegen.scalar import expressions
from graphnn.compiler.ir.sizes import FloorDiv, Var, atom, atoms, floordiv, mod

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
    if mod(var.extent, TIMES) != 0 or var.extent == TIMES or not all(map(is_plain, body)):
        return None
    fourth = Var(var.name, floordiv(var.extent, TIMES))
    copies: list[Store] = []
    for k in range(TIMES):
        copy = Copy({var: atom(fourth) * TIMES + k})
        copies += [copy.store(s) for s in body if isinstance(s, Store)]
    apart = TIMES * sum(1 for _ in expressions(v for s in body for v in scalars(s)))
    together = sum(1 for _ in expressions(v for s in copies for v in scalars(s)))
    return Loop(fourth, tuple(copies)) if together <= SHARED * apart else None
