"""Runtime checks: what compiled code found wrong, told in the words of the eager error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.sizes import substitute
from graphnn.runtime.errors import DivisionError, Loc, OutOfRangeError


@dataclass(frozen=True)
class IndexCheck:
    """An index must lie in its axis: -extent <= index < extent.

    op: name of the op. axis: the indexed axis. extent: its size, symbolic before `bind`.
    """

    op: str
    axis: int
    extent: Any

    def bind(self, env: dict[Any, Any]) -> IndexCheck:
        """The check with symbolic sizes replaced by numbers."""
        return IndexCheck(self.op, self.axis, substitute(self.extent, env))

    def error(self, value: Any, loc: Loc | None = None) -> OutOfRangeError:
        """The error for a wrong index; without `loc` it names the user's current line."""
        expected = f"-{self.extent} <= index < {self.extent}"
        return OutOfRangeError(
            self.op,
            received=f"index {int(value)} on axis {self.axis} of size {self.extent}",
            expected="no index: the axis is empty" if self.extent == 0 else expected,
            fix="clip the indices to the axis, or check how they are computed",
            loc=loc,
        )


@dataclass(frozen=True)
class DivisionCheck:
    """The divisor of integers must not be 0. op: name of the op. dtype: of the divisor."""

    op: str
    dtype: str

    def error(self, value: Any = 0, loc: Loc | None = None) -> DivisionError:
        """The error for a divisor 0; without `loc` it names the user's current line."""
        return DivisionError(
            self.op,
            received=f"a divisor 0 of dtype {self.dtype}",
            expected="divisors other than 0: integers have no infinity",
            fix="replace zeros with graphnn.where(y == 0, 1, y), or divide floats",
            loc=loc,
        )
