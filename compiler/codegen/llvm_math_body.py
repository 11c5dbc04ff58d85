"""A small builder of straight-line LLVM IR: Python expressions in, one pure function out.

Values overload the arithmetic operators; comparisons are methods or operators that give `i1`
values. There is no control flow, so equal instructions are emitted once. Intrinsics need no
declaration: LLVM declares them on use.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

Number = int | float
FLOATS = {"float": 32, "double": 64}
INTEGERS = {"i1": 1, "i32": 32, "i64": 64}


def symbol(name: str, bits: int) -> str:
    """The name of a function for 32 or 64 bits.

    >>> symbol("exp", 32)
    'gnn.exp.f32'
    """
    return f"gnn.{name}.f{bits}"


@dataclass(frozen=True, eq=False)
class Value:
    """One SSA value or literal of type `float`, `double`, `i1`, `i32` or `i64`."""

    body: Body
    type: str
    text: str

    @property
    def bits(self) -> int:
        """32 for float and i32, 64 for double and i64."""
        return FLOATS.get(self.type) or INTEGERS[self.type]

    def __add__(self, other: Value | Number) -> Value:
        return self.body.binary("add", self, other)

    def __radd__(self, other: Number) -> Value:
        return self.body.binary("add", self, other)

    def __sub__(self, other: Value | Number) -> Value:
        return self.body.binary("sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.body.binary("sub", self.body.like(self, other), self)

    def __mul__(self, other: Value | Number) -> Value:
        return self.body.binary("mul", self, other)

    def __rmul__(self, other: Number) -> Value:
        return self.body.binary("mul", self, other)

    def __truediv__(self, other: Value | Number) -> Value:
        return self.body.binary("div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return self.body.binary("div", self.body.like(self, other), self)

    def __and__(self, other: Value | Number) -> Value:
        return self.body.binary("and", self, other)

    def __or__(self, other: Value | Number) -> Value:
        return self.body.binary("or", self, other)

    def __xor__(self, other: Value | Number) -> Value:
        return self.body.binary("xor", self, other)

    def __lshift__(self, count: int) -> Value:
        return self.body.binary("shl", self, count)

    def __rshift__(self, count: int) -> Value:
        """Arithmetic shift of a signed integer."""
        return self.body.binary("ashr", self, count)

    def __neg__(self) -> Value:
        if self.type in FLOATS:
            return self.body.emit(self.type, f"fneg {self.type} {self.text}")
        return self.body.binary("sub", self.body.like(self, 0), self)

    def __lt__(self, other: Value | Number) -> Value:
        return self.body.compare("lt", self, other)

    def __le__(self, other: Value | Number) -> Value:
        return self.body.compare("le", self, other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.body.compare("gt", self, other)

    def __ge__(self, other: Value | Number) -> Value:
        return self.body.compare("ge", self, other)

    def equal(self, other: Value | Number) -> Value:
        return self.body.compare("eq", self, other)

    def is_nan(self) -> Value:
        return self.body.emit("i1", f"fcmp uno {self.type} {self.text}, {self.text}")

    def logical_not(self) -> Value:
        return self.body.binary("xor", self, 1)

    def is_finite(self) -> Value:
        return self.body.abs(self) < math.inf

    def select(self, yes: Value | Number, no: Value | Number) -> Value:
        """`yes if self else no`; at least one of the two is a Value."""
        yes, no = self.body.pair(yes, no)
        return self.body.emit(
            yes.type, f"select i1 {self.text}, {yes.type} {yes.text}, {no.type} {no.text}"
        )


class Body:
    """Collects the instructions of one function `gnn.<name>.f<bits>`.

    `type` is the float type of `bits`; bodies may compute in other types too.
    """

    def __init__(self, name: str, bits: int, parameters: Sequence[str]) -> None:
        self.name, self.bits = name, bits
        self.type = {32: "float", 64: "double"}[bits]
        self.parameters = tuple(Value(self, self.type, f"%{p}") for p in parameters)
        self.calls: dict[tuple[str, int], None] = {}
        self.tables: dict[str, None] = {}
        self._lines: list[str] = []
        self._known: dict[str, Value] = {}

    # Literals ------------------------------------------------------------------------------

    def const(self, number: Number, type: str | None = None) -> Value:
        """A literal; floats are rounded to the type and printed as bits."""
        type = type or self.type
        if type not in FLOATS:
            return Value(self, type, str(int(number)))
        if type == "float":
            number = struct.unpack("<f", struct.pack("<f", number))[0]
        bits = struct.unpack("<Q", struct.pack("<d", number))[0]
        return Value(self, type, f"0x{bits:016X}")

    def like(self, value: Value, other: Value | Number) -> Value:
        return other if isinstance(other, Value) else self.const(other, value.type)

    def pair(self, a: Value | Number, b: Value | Number) -> tuple[Value, Value]:
        if isinstance(a, Value):
            return a, self.like(a, b)
        if isinstance(b, Value):
            return self.const(a, b.type), b
        raise TypeError("one of two operands must be a Value")

    # Instructions --------------------------------------------------------------------------

    def emit(self, type: str, text: str) -> Value:
        """One instruction; an equal earlier one is used again."""
        if text not in self._known:
            name = f"%v{len(self._lines)}"
            self._lines.append(f"  {name} = {text}")
            self._known[text] = Value(self, type, name)
        return self._known[text]

    def binary(self, op: str, a: Value, b: Value | Number) -> Value:
        b = self.like(a, b)
        name = f"f{op}" if a.type in FLOATS else op
        return self.emit(a.type, f"{name} {a.type} {a.text}, {b.text}")

    def compare(self, test: str, a: Value, b: Value | Number) -> Value:
        """Ordered comparison of floats, signed comparison of integers."""
        b = self.like(a, b)
        if a.type in FLOATS:
            return self.emit("i1", f"fcmp o{test} {a.type} {a.text}, {b.text}")
        test = test if test == "eq" else f"s{test}"
        return self.emit("i1", f"icmp {test} {a.type} {a.text}, {b.text}")

    def cast(self, op: str, value: Value, type: str) -> Value:
        return self.emit(type, f"{op} {value.type} {value.text} to {type}")

    def intrinsic(self, name: str, *args: Value) -> Value:
        type = args[0].type
        suffix = f"f{FLOATS[type]}" if type in FLOATS else type
        listed = ", ".join(f"{a.type} {a.text}" for a in args)
        return self.emit(type, f"call {type} @llvm.{name}.{suffix}({listed})")

    def call(self, name: str, *args: Value) -> Value:
        """Another function of this library, in the type of the arguments."""
        type = args[0].type
        self.calls[name, FLOATS[type]] = None
        listed = ", ".join(f"{a.type} {a.text}" for a in args)
        return self.emit(type, f"call {type} @{symbol(name, FLOATS[type])}({listed})")

    def load(self, table: str, index: Value) -> Value:
        """Element `index` (i64) of a table of doubles."""
        self.tables[table] = None
        place = self.emit("ptr", f"getelementptr double, ptr @gnn.{table}, i64 {index.text}")
        return self.emit("double", f"load double, ptr {place.text}, align 8")

    # Shorthands ----------------------------------------------------------------------------

    def fma(self, a: Value, b: Value | Number, c: Value | Number) -> Value:
        """a * b + c with one rounding."""
        return self.intrinsic("fma", a, self.like(a, b), self.like(a, c))

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Sum of coefficients[i] * x**i, by Horner's rule."""
        total = self.const(coefficients[-1], x.type)
        for c in reversed(coefficients[:-1]):
            total = self.fma(total, x, c)
        return total

    def abs(self, x: Value) -> Value:
        return self.intrinsic("fabs", x)

    def sqrt(self, x: Value) -> Value:
        return self.intrinsic("sqrt", x)

    def copysign(self, size: Value, sign: Value) -> Value:
        return self.intrinsic("copysign", size, sign)

    def at_least(self, x: Value, low: float) -> Value:
        """max(x, low); a NaN stays."""
        return (x < low).select(low, x)

    def at_most(self, x: Value, high: float) -> Value:
        """min(x, high); a NaN stays."""
        return (x > high).select(high, x)

    def to_bits(self, x: Value) -> Value:
        return self.cast("bitcast", x, f"i{FLOATS[x.type]}")

    def from_bits(self, x: Value) -> Value:
        return self.cast("bitcast", x, {"i32": "float", "i64": "double"}[x.type])

    def extend(self, x: Value) -> Value:
        return self.cast("fpext", x, "double")

    def truncate(self, x: Value) -> Value:
        return self.cast("fptrunc", x, "float")

    def round_to_int(self, x: Value, factor: float = 1.0) -> tuple[Value, Value]:
        """The integer next to x * factor, as float and as integer of equal size.

        Adding 1.5 * 2**(mantissa bits) leaves the integer in the low bits; this needs no
        conversion instruction (AVX2 has none for 64 bits). |x * factor| < 2**21 or 2**50.
        """
        magic = self.const(1.5 * 2.0**23 if x.type == "float" else 1.5 * 2.0**52, x.type)
        shifted = self.fma(x, factor, magic)
        return shifted - magic, self.to_bits(shifted) - self.to_bits(magic)

    def int_to_float(self, n: Value) -> Value:
        """A small integer (|n| < 2**21) as float of equal size, without a conversion."""
        magic = self.const(
            *((1.5 * 2.0**23, "float") if n.type == "i32" else (1.5 * 2.0**52, "double"))
        )
        return self.from_bits(n + self.to_bits(magic)) - magic

    def power_of_two(self, n: Value) -> Value:
        """2**n for an integer n in the range of normal numbers."""
        bias, shift = (127, 23) if n.type == "i32" else (1023, 52)
        return self.from_bits((n + bias) << shift)

    def scale(self, x: Value, n: Value) -> Value:
        """x * 2**n with one rounding, also where 2**n is no normal number."""
        half = n >> 1
        return x * self.power_of_two(half) * self.power_of_two(n - half)

    # Unevaluated sums (hi, lo) -------------------------------------------------------------

    def fast_two_sum(self, a: Value, b: Value | Number) -> tuple[Value, Value]:
        """a + b exactly as a pair, for |a| >= |b| or a == 0."""
        total = a + b
        return total, self.like(a, b) - (total - a)

    def two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """a + b exactly as a pair."""
        total = a + b
        part = total - a
        return total, (a - (total - part)) + (b - part)

    def two_product(self, a: Value, b: Value | Number) -> tuple[Value, Value]:
        """a * b exactly as a pair."""
        product = a * b
        return product, self.fma(a, b, -product)

    def pair_divide(
        self, top: Value, top_low: Value, bottom: Value, bottom_low: Value
    ) -> tuple[Value, Value]:
        """(top + top_low) / (bottom + bottom_low) as a pair, with one division."""
        inverse = 1.0 / bottom
        q = top * inverse
        rest = self.fma(-q, bottom, top) + self.fma(-q, bottom_low, top_low)
        return q, rest * inverse

    # Output --------------------------------------------------------------------------------

    def finish(self, result: Value) -> str:
        """The text of the whole function."""
        parameters = ", ".join(f"{self.type} {p.text}" for p in self.parameters)
        head = (
            f"define internal {self.type} @{symbol(self.name, self.bits)}({parameters}) "
            "alwaysinline nounwind willreturn memory(none) {\n"
        )
        lines = "\n".join([*self._lines, f"  ret {self.type} {result.text}"])
        return f"{head}{lines}\n}}\n"
