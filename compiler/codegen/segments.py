"""Loops cut where a condition on their variable changes: joined pieces become one loop each.

The element of a concat or a pad asks for each piece whether the column lies in it. Over the columns
of one piece the answers are known, and what is left is a copy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphnn.compiler.codegen.copies import Copy, is_plain
from graphnn.compiler.codegen.loops import Loop, Statement, Store, scalars
from graphnn.compiler.codegen.lower import Lowered, estimated_cost
from graphnn.compiler.codegen.scalar import expressions
from graphnn.compiler.ir.sizes import Var, atom

MOST = 32  # loops that one is cut into: each takes its time to compile
SHORT = 8  # columns of a part on average: with fewer, branches cost less than beginning a loop
LONGER = 2  # how much longer the code may become


def segmented(lowered: Lowered) -> Lowered:
    """The kernel with the loops of its rows cut where that decides conditions."""
    kernel = lowered.kernel
    body = tuple(part for s in kernel.body for part in _cut(s))
    if kernel.checks or len(body) == len(kernel.body):
        return lowered
    return replace(lowered, kernel=replace(kernel, body=body, cost=estimated_cost(body)))


def _cut(statement: Statement) -> list[Statement]:
    if not isinstance(statement, Loop) or not statement.independent:
        return [statement]
    var, extent = statement.var, statement.var.extent
    fixed = statement.extent is None and isinstance(extent, int)
    if not fixed or not all(map(is_plain, statement.body)):
        return [statement]
    ends = sorted({c for s in statement.body for c in _cuts(s, var) if 0 < c < extent} | {extent})
    begins = [0, *ends[:-1]]
    if not 1 < len(ends) <= min(MOST, extent // SHORT):
        return [statement]
    parts = [_part(var, b, e, statement.body) for b, e in zip(begins, ends, strict=True)]
    long = sum(_length(p) for p in parts) > LONGER * _length(statement)
    return [statement] if long else list(parts)


def _length(loop: Loop) -> int:
    """Instructions, roughly: a function's polynomial has some sixteen."""
    found = expressions(v for s in loop.body for v in scalars(s))
    return sum(16 if e.op == "call" else 1 for e in found)


def _part(var: Var, begin: int, end: int, body: tuple[Statement, ...]) -> Loop:
    inner = Var(var.name, end - begin)
    copy = Copy({var: atom(inner) + begin})
    return Loop(inner, tuple(copy.store(s) for s in body if isinstance(s, Store)))


def _cuts(statement: Statement, var: Var) -> set[int]:
    """The values of the variable at which a comparison with a constant changes."""
    found: set[int] = set()
    for e in expressions(scalars(statement)):
        if e.op != "compare" or e.attrs[0] not in ("lt", "ge"):
            continue
        index, limit = e.args
        if index.op != "index" or limit.op != "constant":
            continue
        offset: Any = index.attrs[0] - atom(var)
        if isinstance(offset, int):
            found.add(int(limit.attrs[0].value) - offset)
    return found
