"""Linear indices as offset and strides."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.sizes import Symbol, Var, atom, terms_of


def coefficients(linear: Any, index: list[Var]) -> tuple[Any, list[Any]] | None:
    """(offset, strides) of an index that is affine in some variables; None for any other.

    An axis of one element has no variable: its stride is that of a dense matrix, or 0.
    """
    offset: Any = 0
    strides: dict[Var, Any] = {}
    for monomial, factor in terms_of(linear).items():
        own = [a for a in monomial if isinstance(a, Var)]
        if len(own) > 1 or not all(isinstance(a, Var | Symbol) for a in monomial):
            return None
        rest: Any = factor
        for a in monomial:
            rest = rest if isinstance(a, Var) else rest * atom(a)
        if own:
            strides[own[0]] = strides.get(own[0], 0) + rest
        else:
            offset = offset + rest
    if any(isinstance(s, int) and s < 0 for s in strides.values()):
        return None
    found = [strides.get(v, 0) for v in index]
    rows, cols = index[-2:]
    if cols.extent == 1:
        found[-1] = 1 if found[-2] != 1 else rows.extent
    if rows.extent == 1:
        found[-2] = cols.extent if found[-1] == 1 else 1
    return (offset, found) if all(s != 0 for s in found[-2:]) else None
