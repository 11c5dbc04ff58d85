"""Scalar code of the loop form: a small expression language that both emitters print.

`Emit` builds `Scalar` values; equal ones are one object, so common subexpressions within a kernel
cost nothing. float16 and bfloat16 elements are float32 here: loads widen, stores and casts round.
Nothing is contracted or reassociated by itself; `fma` must be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnn.compiler.ir.sizes import Dynamic, Size, Var, atom, atoms, terms_of
from graphnn.compiler.ir.types import DType, bfloat16, bool_, float16, float32, int64, is_float
from graphnn.runtime.errors import Loc
from graphnn.runtime.program import CheckSite

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True, eq=False)
class Scalar:
    """One scalar value. `op` is a word of the expression language, `attrs` its fixed parts.

    needs: loop variables and accumulators that must be in scope where it is computed. loc: the
    user's line that asked for it first, for the dump tool.
    """

    op: str
    args: tuple[Scalar, ...]
    dtype: DType
    attrs: tuple[Any, ...]
    needs: frozenset[Any]
    emit: Emit
    loc: Loc | None = None

    def _binary(self, op: str, other: Any, swap: bool = False) -> Scalar:
        other = self.emit.lift(other, self.dtype)
        a, b = (other, self) if swap else (self, other)
        return self.emit.binary(op, a, b)

    def __add__(self, other: Any) -> Scalar:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Scalar:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Any) -> Scalar:
        return self._binary("sub", other)

    def __rsub__(self, other: Any) -> Scalar:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Any) -> Scalar:
        return self._binary("mul", other)

    def __rmul__(self, other: Any) -> Scalar:
        return self._binary("mul", other, swap=True)

    def __truediv__(self, other: Any) -> Scalar:
        return self._binary("div", other)

    def __rtruediv__(self, other: Any) -> Scalar:
        return self._binary("div", other, swap=True)

    def __neg__(self) -> Scalar:
        return self.emit.unary("neg", self)

    def __repr__(self) -> str:
        return show(self)


def show(value: Scalar) -> str:
    """The expression as text."""
    words = [*map(str, value.attrs), *map(show, value.args)]
    return f"{value.op}({', '.join(words)})" if words else value.op


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory that a kernel reads or writes: a dense row-major array of `size` elements."""

    name: str
    dtype: DType
    size: Any


@dataclass(frozen=True, eq=False)
class Accumulator:
    """A scalar that a loop updates with an associative operation."""

    name: str
    monoid: str
    dtype: DType
    initial: Any
    loc: Loc | None = None


def compute_dtype(dtype: DType) -> DType:
    """The dtype in which elements of a storage dtype are computed."""
    return float32 if dtype in (float16, bfloat16) else dtype


class Emit:
    """Builds scalars. Python numbers beside a scalar take its dtype."""

    def __init__(self) -> None:
        self._known: dict[Any, Scalar] = {}
        self.loc: Loc | None = None  # the user's line whose element is being built

    def make(
        self,
        op: str,
        args: tuple[Scalar, ...],
        dtype: DType,
        attrs: tuple[Any, ...] = (),
        needs: frozenset[Any] = frozenset(),
    ) -> Scalar:
        """The scalar with these parts; the same object each time."""
        key = (op, tuple(map(id, args)), dtype, attrs)
        found = self._known.get(key)
        if found is None:
            for a in args:
                needs |= a.needs
            found = self._known[key] = Scalar(op, args, dtype, attrs, needs, self, self.loc)
        return found

    def lift(self, value: Any, dtype: DType) -> Scalar:
        """A Python number as a constant; a scalar as it is."""
        return value if isinstance(value, Scalar) else self.constant(value, dtype)

    # ---- leaves ----------------------------------------------------------------------

    def constant(self, value: Any, dtype: DType) -> Scalar:
        """A number. Floats keep all bits (nan, inf, -0.0 too)."""
        if isinstance(value, Size):
            return self.cast(self.index(value), dtype)
        bits = np.asarray(value).astype(dtype)
        if dtype in (float16, bfloat16):
            bits, dtype = bits.astype(float32), float32
        return self.make("constant", (), dtype, (Literal(bits.tobytes(), dtype),))

    def index(self, value: Any) -> Scalar:
        """A size or an index as an int64 value."""
        if isinstance(value, int):
            return self.constant(value, int64)
        return self.make("index", index_scalars(value), int64, (value,), index_needs(value))

    def dynamic(self, value: Scalar, extent: Any) -> Any:
        """A computed integer as an index in [0, extent)."""
        return atom(Dynamic(self.cast(value, int64), extent))

    def load(self, buffer: Buffer, linear: Any) -> Scalar:
        """The element of a buffer at a linear index."""
        needs = index_needs(linear)
        return self.make(
            "load", index_scalars(linear), compute_dtype(buffer.dtype), (buffer, linear), needs
        )

    def read(self, accumulator: Accumulator) -> Scalar:
        """The value of an accumulator after its loop."""
        return self.make("read", (), accumulator.dtype, (accumulator,), frozenset((accumulator,)))

    # ---- arithmetic ------------------------------------------------------------------

    def binary(self, op: str, a: Any, b: Any) -> Scalar:
        """add sub mul div floordiv mod minimum maximum and or xor shl shr on one dtype."""
        if not isinstance(a, Scalar):
            a = self.lift(a, b.dtype)
        b = self.lift(b, a.dtype)
        return self.make(op, (a, b), a.dtype)

    def unary(self, op: str, a: Scalar) -> Scalar:
        """neg abs not floor ceil trunc rint sqrt on one dtype."""
        return self.make(op, (a,), a.dtype)

    def minimum(self, a: Any, b: Any) -> Scalar:
        """The smaller; NaN if either is NaN."""
        return self.binary("minimum", a, b)

    def maximum(self, a: Any, b: Any) -> Scalar:
        """The greater; NaN if either is NaN."""
        return self.binary("maximum", a, b)

    def floordiv(self, a: Any, b: Any) -> Scalar:
        """floor(a / b); for integers 0 where b is 0."""
        return self.binary("floordiv", a, b)

    def mod(self, a: Any, b: Any) -> Scalar:
        """a - b * floor(a / b), the sign of b; for integers 0 where b is 0."""
        return self.binary("mod", a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Scalar:
        """a * b + c, rounded once."""
        like = next(v for v in (a, b, c) if isinstance(v, Scalar))
        args = tuple(self.lift(v, like.dtype) for v in (a, b, c))
        return self.make("fma", args, like.dtype)

    def call(self, name: str, *args: Any) -> Scalar:
        """A function of the C maths library (exp, log, tanh, erf, pow, ...) on floats."""
        like = next(v for v in args if isinstance(v, Scalar))
        return self.make("call", tuple(self.lift(a, like.dtype) for a in args), like.dtype, (name,))

    # ---- bits and truth --------------------------------------------------------------

    def bitwise(self, op: str, a: Any, b: Any) -> Scalar:
        """and, or, xor, shl, shr (arithmetic for signed; a count out of range gives 0 or -1)."""
        return self.binary(op, a, b)

    def logical_not(self, a: Scalar) -> Scalar:
        """The bitwise complement; for bool the negation."""
        return self.unary("not", a)

    def compare(self, kind: str, a: Any, b: Any) -> Scalar:
        """eq ne lt le gt ge; with NaN only `ne` holds."""
        if not isinstance(a, Scalar):
            a = self.lift(a, b.dtype)
        return self.make("compare", (a, self.lift(b, a.dtype)), bool_, (kind,))

    def isnan(self, a: Scalar) -> Scalar:
        """Whether a float is NaN."""
        return self.compare("ne", a, a)

    def select(self, condition: Scalar, a: Any, b: Any) -> Scalar:
        """a where the condition holds, else b; both are computed."""
        like = a if isinstance(a, Scalar) else b
        a, b = self.lift(a, like.dtype), self.lift(b, like.dtype)
        return a if a is b else self.make("select", (condition, a, b), a.dtype)

    def guarded(self, condition: Scalar, value: Callable[[], Scalar], otherwise: Any) -> Scalar:
        """value() where the condition holds; it is not computed (nothing loaded) elsewhere."""
        inner = value()
        args = (condition, inner, self.lift(otherwise, inner.dtype))
        return self.make("guarded", args, inner.dtype)

    def within(self, index: Any, low: Any, high: Any) -> Scalar:
        """Whether low <= index < high, for index expressions."""
        at = self.index(index)
        above = self.compare("ge", at, self.index(low))
        return self.binary("and", above, self.compare("lt", at, self.index(high)))

    # ---- conversions -----------------------------------------------------------------

    def cast(self, a: Scalar, dtype: DType) -> Scalar:
        """NumPy's astype; float to integer truncates and saturates, NaN gives 0."""
        if a.dtype == dtype:
            return a
        if dtype in (float16, bfloat16):
            wide = a if a.dtype == float32 else self.cast(a, float32)
            return self.make("round", (wide,), float32, (dtype.name,))
        return self.make("cast", (a,), dtype)

    def bitcast(self, a: Scalar, dtype: DType) -> Scalar:
        """The same bits read as another dtype of equal width."""
        return self.make("bitcast", (a,), dtype)

    def check(self, ok: Scalar, value: Scalar, code: Any, instead: Any = None) -> Scalar:
        """`value`, or `instead` (default 0) with the program's check `code` raised where not ok."""
        other = self.lift(0 if instead is None else instead, value.dtype)
        site = CheckSite(code, self.loc)
        return self.make("check", (ok, value, other), value.dtype, (site,))


@dataclass(frozen=True)
class Literal:
    """The bits of a constant: equality of bits, so -0.0 is not 0.0 and NaN equals itself."""

    bits: bytes
    dtype: DType

    @property
    def value(self) -> Any:
        """The NumPy scalar."""
        return np.frombuffer(self.bits, self.dtype)[0]

    def __str__(self) -> str:
        value = self.value
        if is_float(self.dtype):
            return f"{float(value)!r}:{self.dtype.name}"
        return f"{value}:{self.dtype.name}"


def expressions(values: Iterable[Scalar]) -> Iterator[Scalar]:
    """All sub-expressions, each once, arguments first."""
    seen: set[int] = set()
    stack = [(v, False) for v in values]
    while stack:
        value, ready = stack.pop()
        if id(value) in seen:
            continue
        if ready:
            seen.add(id(value))
            yield value
            continue
        stack.append((value, True))
        stack += [(a, False) for a in value.args]


def index_scalars(value: Any) -> tuple[Scalar, ...]:
    """The computed scalars inside an index expression, in a stable order."""
    found = [a.value for a in atoms(value) if isinstance(a, Dynamic)]
    return tuple(sorted(set(found), key=show)) if len(found) > 1 else tuple(found)


def index_needs(value: Any) -> frozenset[Any]:
    """Loop variables in an index expression."""
    return frozenset(a for a in atoms(value) if isinstance(a, Var))


def is_affine(value: Any, var: Var) -> bool:
    """Whether an index is (anything without var) + constant * var."""
    inside = [m for m in terms_of(value) if any(var in atoms(atom(a)) for a in m)]
    return all(m == (var,) for m in inside)
