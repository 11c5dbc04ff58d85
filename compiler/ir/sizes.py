"""Symbolic integers: polynomials of named symbols, for the sizes of shapes and for loop indices.

A size is an `int`, or a `Size`: a sum of integer multiples of products of atoms. An atom is a
`Symbol` (a size that the trace left open), a `Var` (a loop variable with a known extent) or a
`FloorDiv`. `a % b` is written `a - b * (a // b)`, so that `(i // n) * n + i % n` cancels to `i`.

>>> n = symbol("n")
>>> (n + 1) * 2 - 2
2*n
>>> (4 * n) // 4 == n
True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from graphnn.runtime.errors import TraceError


@dataclass(frozen=True)
class Symbol:
    """A size that is not known before the call; at least 2, for 0 and 1 get their own trace."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Var:
    """A loop variable that runs from 0 to extent - 1."""

    name: str
    extent: Any

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Dynamic:
    """An index that is itself computed data (a gather); `value` is a scalar of the loop form."""

    value: Any
    extent: Any

    def __str__(self) -> str:
        return f"[{self.value}]"


@dataclass(frozen=True)
class FloorDiv:
    """numerator // denominator, where that is no polynomial."""

    numerator: Any
    denominator: Any

    def __str__(self) -> str:
        return f"({self.numerator})//{_factor(self.denominator)}"


Atom = Symbol | Var | Dynamic | FloorDiv
Monomial = tuple[Atom, ...]


@lru_cache(maxsize=1 << 14)
def _key(monomial: Monomial) -> tuple[int, str]:
    return (-len(monomial), "*".join(map(str, monomial)))


class Size:
    """A polynomial with integer coefficients that is not a constant. Use `+ - * // %`."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(frozenset(terms))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Size) and dict(self.terms) == dict(other.terms)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, int | Size):
            return NotImplemented
        return add(self, other)

    __radd__ = __add__

    def __neg__(self) -> Any:
        return mul(self, -1)

    def __sub__(self, other: Any) -> Any:
        if not isinstance(other, int | Size):
            return NotImplemented
        return add(self, mul(other, -1))

    def __rsub__(self, other: Any) -> Any:
        if not isinstance(other, int | Size):
            return NotImplemented
        return add(other, mul(self, -1))

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, int | Size):
            return NotImplemented
        return mul(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if not isinstance(other, int | Size):
            return NotImplemented
        return floordiv(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return floordiv(other, self)

    def __mod__(self, other: Any) -> Any:
        if not isinstance(other, int | Size):
            return NotImplemented
        return mod(self, other)

    def __rmod__(self, other: Any) -> Any:
        return mod(other, self)

    def __gt__(self, other: Any) -> bool:
        return self._at_least(other, 1, ">")

    def __ge__(self, other: Any) -> bool:
        return self._at_least(other, 0, ">=")

    def _at_least(self, other: Any, margin: int, sign: str) -> bool:
        low, high = bounds(self - other)
        if low is not None and low >= margin:
            return True
        if high is not None and high < margin:
            return False
        raise self._unknown(f"{self} {sign} {other}")

    def __lt__(self, other: Any) -> bool:
        return not self >= other

    def __le__(self, other: Any) -> bool:
        return not self > other

    def _unknown(self, what: str) -> TraceError:
        return TraceError(
            f"the symbolic size {what}",
            received=f"size {self}, which changes from call to call",
            expected="a size that is known while tracing",
            fix="compute with graphnn.shape(x) as a tensor, or give the axis a fixed size in "
            "input_signature",
        )

    def __bool__(self) -> bool:
        low, high = bounds(self)
        if (low is not None and low > 0) or (high is not None and high < 0):
            return True
        raise self._unknown(f"bool({self})")

    def __int__(self) -> int:
        raise self._unknown(f"int({self})")

    __index__ = __int__

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, factor in self.terms:
            name = "*".join(map(str, monomial))
            sign = "-" if factor < 0 else "+"
            number = "" if abs(factor) == 1 and name else str(abs(factor))
            body = f"{number}*{name}" if number and name else number or name
            parts += [sign, body]
        text = "".join(parts)
        return text[1:] if text.startswith("+") else text

    __repr__ = __str__


def _factor(value: Any) -> str:
    return f"({value})" if isinstance(value, Size) and len(value.terms) > 1 else str(value)


def _build(terms: dict[Monomial, int]) -> Any:
    left = {m: c for m, c in terms.items() if c}
    if not left:
        return 0
    if len(left) == 1 and () in left:
        return left[()]
    if len(left) == 1:
        return Size(tuple(left.items()))
    return Size(tuple(sorted(left.items(), key=lambda term: _key(term[0]))))


def symbol(name: str) -> Size:
    """The size with that name."""
    return Size((((Symbol(name),), 1),))


def atom(value: Atom) -> Any:
    """An atom as a size; a loop variable of extent 1 is 0."""
    if isinstance(value, Var) and value.extent == 1:
        return 0
    return Size((((value,), 1),))


def terms_of(value: Any) -> dict[Monomial, int]:
    """Monomials and their factors."""
    if isinstance(value, Size):
        return dict(value.terms)
    return {(): int(value)} if value else {}


def add(a: Any, b: Any) -> Any:
    """a + b."""
    terms = terms_of(a)
    for monomial, factor in terms_of(b).items():
        terms[monomial] = terms.get(monomial, 0) + factor
    return _build(terms)


def mul(a: Any, b: Any) -> Any:
    """a * b."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    terms: dict[Monomial, int] = {}
    for m, c in terms_of(a).items():
        for n, d in terms_of(b).items():
            monomial = tuple(sorted(m + n, key=str)) if m and n else m + n
            terms[monomial] = terms.get(monomial, 0) + c * d
    return _build(terms)


def _divide_monomial(monomial: Monomial, by: Monomial) -> Monomial | None:
    left = list(monomial)
    for a in by:
        if a not in left:
            return None
        left.remove(a)
    return tuple(left)


def _split(a: Any, b: Any) -> tuple[Any, Any]:
    """(quotient, rest) with a = quotient * b + rest, dividing the terms that divide exactly."""
    divisor = terms_of(b)
    if len(divisor) != 1:
        return (1, 0) if a == b else (0, a)
    (by, factor), *_ = divisor.items()
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, c in terms_of(a).items():
        left = _divide_monomial(monomial, by)
        if left is not None and abs(c) >= abs(factor):
            whole = c // factor
            quotient[left] = quotient.get(left, 0) + whole
            c -= whole * factor
        if c:
            rest[monomial] = rest.get(monomial, 0) + c
    return _build(quotient), _build(rest)


def floordiv(a: Any, b: Any) -> Any:
    """a // b, as a polynomial where that is exact; 0 for b = 0 (an empty axis has no index)."""
    if b == 0:
        return 0
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    quotient, rest = _split(a, b)
    if rest == 0 or is_within(rest, b):
        return quotient
    if is_within(add(rest, b), b):  # the rest of a reversed axis: -1 - j with j below b
        return quotient - 1
    inner = _single_floordiv(rest)
    if inner is not None:  # (x // m) // b is x // (m * b)
        return quotient + floordiv(inner.numerator, mul(inner.denominator, b))
    return quotient + Size((((FloorDiv(rest, b),), 1),))


def _single_floordiv(value: Any) -> FloorDiv | None:
    if isinstance(value, Size) and len(value.terms) == 1:
        (monomial, factor) = value.terms[0]
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], FloorDiv):
            return monomial[0]
    return None


def mod(a: Any, b: Any) -> Any:
    """a % b; 0 for b = 0."""
    if b == 0:
        return 0
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return add(a, mul(mul(b, floordiv(a, b)), -1))


def is_within(value: Any, limit: Any) -> bool:
    """Whether 0 <= value < limit is certain."""
    low, _ = bounds(value)
    if low is None or low < 0:
        return False
    top = upper(value)
    if top is None:
        return False
    low, _ = bounds(add(limit, mul(add(top, 1), -1)))
    return low is not None and low >= 0


def upper(value: Any) -> Any:
    """The greatest value over all loop variables, as a size without them; None if unknown."""
    total: Any = 0
    for monomial, factor in terms_of(value).items():
        has_var = any(not isinstance(a, Symbol) for a in monomial)
        if has_var and factor < 0:
            continue  # its least magnitude is 0
        product: Any = factor
        for a in monomial:
            top = _top(a)
            if top is None:
                return None
            product = mul(product, top)
        total = add(total, product)
    return total


def _top(a: Atom) -> Any:
    if isinstance(a, Symbol):
        return atom(a)
    if isinstance(a, Var | Dynamic):
        return add(a.extent, -1)
    top = upper(a.numerator)
    return None if top is None else floordiv(top, a.denominator)


def bounds(value: Any) -> tuple[int | None, int | None]:
    """Least and greatest value as ints; None where there is no bound."""
    if isinstance(value, int):
        return value, value
    low: int | None = 0
    high: int | None = 0
    for monomial, factor in value.terms:
        least, most = 1, 1
        for a in monomial:
            a_low, a_high = _atom_bounds(a)
            least = least * a_low
            most = None if most is None or a_high is None else most * a_high  # type: ignore[assignment]
        first = least * factor
        second = None if most is None else most * factor
        small, big = (first, second) if factor > 0 else (second, first)
        low = None if low is None or small is None else low + small
        high = None if high is None or big is None else high + big
    return low, high


def _atom_bounds(a: Atom) -> tuple[int, int | None]:
    if isinstance(a, Symbol):
        return 2, None
    if isinstance(a, Var | Dynamic):
        top = bounds(a.extent)[1]
        return 0, None if top is None else max(top - 1, 0)
    low, high = bounds(a.numerator)
    by_low, _ = bounds(a.denominator)
    low = 0 if low is None or low < 0 else low
    return 0, None if high is None else high // max(by_low or 1, 1)


def atoms(value: Any) -> set[Atom]:
    """All atoms in a size, those inside floor divisions included."""
    found: set[Atom] = set()
    for monomial in terms_of(value):
        for a in monomial:
            found.add(a)
            if isinstance(a, FloorDiv):
                found |= atoms(a.numerator) | atoms(a.denominator)
    return found


def symbols_of(values: Iterable[Any]) -> tuple[str, ...]:
    """Names of the symbols in some sizes, sorted."""
    return tuple(sorted({a.name for v in values for a in atoms(v) if isinstance(a, Symbol)}))


def substitute(value: Any, env: Mapping[Any, Any]) -> Any:
    """The size with symbols (by name) or atoms (by object) replaced.

    >>> substitute(symbol("n") * 4, {"n": 8})
    32
    """
    if not isinstance(value, Size):
        return value
    total: Any = 0
    for monomial, factor in value.terms:
        product: Any = factor
        for a in monomial:
            product = mul(product, _replace(a, env))
        total = add(total, product)
    return total


def _replace(a: Atom, env: Mapping[Any, Any]) -> Any:
    if a in env:
        return env[a]
    if isinstance(a, Symbol):
        return env.get(a.name, atom(a))
    if isinstance(a, FloorDiv):
        return floordiv(substitute(a.numerator, env), substitute(a.denominator, env))
    return atom(a)


def product(sizes: Iterable[Any]) -> Any:
    """The product of sizes; 1 for none."""
    return prod(sizes)


def same(a: Any, b: Any) -> bool:
    """Whether two sizes are certainly equal."""
    return bool(a is b or a == b)


def ravel(index: Iterable[Any], shape: Iterable[Any]) -> Any:
    """Row-major linear index of a multi-dimensional one.

    >>> ravel((1, 2), (3, 4))
    6
    """
    linear: Any = 0
    for i, extent in zip(index, shape, strict=True):
        linear = linear * extent + i
    return linear


def unravel(linear: Any, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Multi-dimensional index of a row-major linear one.

    >>> unravel(6, (3, 4))
    (1, 2)
    """
    index: list[Any] = []
    for position, extent in enumerate(reversed(shape)):
        if extent == 1:
            index.append(0)
        elif position == len(shape) - 1:
            index.append(linear)
        else:
            index.append(mod(linear, extent))
        linear = floordiv(linear, extent) if extent != 1 else linear
    if len(shape) > 1 and shape[0] == 1:
        index[-1] = 0
    return tuple(reversed(index))
