"""Statements of the loop form copied with other indices; what these decide is decided at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphnn.compiler.codegen.loops import Statement, Store, scalars
from graphnn.compiler.codegen.scalar import Scalar, expressions
from graphnn.compiler.ir.sizes import Dynamic, atoms, bounds, substitute
from graphnn.compiler.ir.types import bool_


def is_plain(statement: Statement) -> bool:
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


class Copy:
    """Copies with indices in the place of loop variables."""

    def __init__(self, indices: Mapping[Any, Any]) -> None:
        self.indices = indices
        self.known: dict[int, Scalar] = {}

    def store(self, statement: Store) -> Store:
        """The store, at the other index."""
        for e in expressions(scalars(statement)):
            self.known[id(e)] = self._scalar(e)
        linear = substitute(statement.linear, self.indices)
        return Store(statement.buffer, linear, self.known[id(statement.value)])

    def _scalar(self, value: Scalar) -> Scalar:
        """The value, whose arguments are known already."""
        emit, args = value.emit, tuple(self.known[id(a)] for a in value.args)
        emit.loc = value.loc
        if value.op == "index":
            return emit.index(substitute(value.attrs[0], self.indices))
        if value.op == "load":
            return emit.load(value.attrs[0], substitute(value.attrs[1], self.indices))
        if not args:
            return value
        decided = _decided(value, args)
        return emit.make(value.op, args, value.dtype, value.attrs) if decided is None else decided


def _decided(value: Scalar, args: tuple[Scalar, ...]) -> Scalar | None:
    """A simpler scalar, where the indices say which."""
    match value.op:
        case "compare":
            holds = _compared(value.attrs[0], *args)
            return None if holds is None else value.emit.constant(holds, bool_)
        case "and" if value.dtype == bool_:
            for one, other in (args, reversed(args)):
                if one.op == "constant":
                    return other if one.attrs[0].value else one
        case "select" | "guarded" if args[0].op == "constant":
            return args[1] if args[0].attrs[0].value else args[2]
    return None


def _compared(kind: str, a: Scalar, b: Scalar) -> bool | None:
    """Whether two whole numbers, constants or indices, compare so; None where that varies."""
    (low, high), (least, most) = _range(a), _range(b)
    if low is None or high is None or least is None or most is None:
        return None
    below, above = high < least, low > most
    same = low == high == least == most
    always = {"lt": below, "gt": above, "le": high <= least, "ge": low >= most}
    never = {"lt": low >= most, "gt": high <= least, "le": above, "ge": below}
    always |= {"eq": same, "ne": below or above}
    never |= {"eq": below or above, "ne": same}
    return True if always[kind] else False if never[kind] else None


def _range(value: Scalar) -> tuple[int | None, int | None]:
    if value.op == "index":
        return bounds(value.attrs[0])
    if value.op == "constant" and value.dtype.kind in "iu":
        number = int(value.attrs[0].value)
        return number, number
    return None, None
