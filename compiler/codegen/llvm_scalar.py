"""Scalars of the loop form as LLVM instructions."""

from __future__ import annotations

import struct
from typing import Any, Protocol

from graphnn.compiler.codegen import llvm_math
from graphnn.compiler.codegen.scalar import Accumulator, Buffer, Scalar
from graphnn.compiler.ir.types import DType, bool_, is_float


def llvm_type(dtype: DType) -> str:
    """Type of a value in a register."""
    if dtype == bool_:
        return "i1"
    if is_float(dtype):
        return "double" if dtype.itemsize == 8 else "float"
    return f"i{8 * dtype.itemsize}"


def is_signed(dtype: DType) -> bool:
    return dtype.kind == "i"


def literal(value: Any, dtype: DType) -> str:
    """A constant operand."""
    if dtype == bool_:
        return "true" if value else "false"
    if is_float(dtype):
        (bits,) = struct.unpack("<Q", struct.pack("<d", float(value)))
        return f"0x{bits:016X}"
    return str(int(value))


def suffix(dtype: DType) -> str:
    return "f64" if dtype.itemsize == 8 else "f32"


class Context(Protocol):
    """What the printer of scalars asks of the module it prints into."""

    maths: set[tuple[str, int]]

    def declare(self, name: str, result: str, *arguments: str) -> str:
        """An intrinsic's name, declared once."""

    def check_number(self, site: Any) -> int:
        """Number of a runtime check within its kernel, from 1."""


class ScalarPrinter:
    """Prints one scalar after another; how values are remembered and blocks opened is the
    function printer's (its subclass's) affair."""

    module: Context

    def new(self, text: str) -> str:
        """A new register holding the result of an instruction."""
        raise TypeError("the function printer says how")

    def do(self, text: str) -> None:
        """An instruction without a result."""
        raise TypeError("the function printer says how")

    def value(self, scalar: Scalar) -> str:
        """The operand that holds a scalar."""
        raise TypeError("the function printer says how")

    def index(self, value: Any) -> str:
        """An index expression as an i64 operand."""
        raise TypeError("the function printer says how")

    def load(self, buffer: Buffer, linear: Any) -> str:
        """An element of a buffer."""
        raise TypeError("the function printer says how")

    def slot(self, accumulator: Accumulator) -> str:
        """Stack slot of an accumulator."""
        raise TypeError("the function printer says how")

    def monoid(self, name: str, dtype: DType, a: str, b: str) -> str:
        """a (monoid) b, reassociable."""
        kind = llvm_type(dtype)
        if is_float(dtype):
            if name in ("add", "mul"):
                return self.new(f"f{name} reassoc nsz contract {kind} {a}, {b}")
            intrinsic = {"max": "maximum", "min": "minimum"}[name]
            function = self.module.declare(f"llvm.{intrinsic}.{suffix(dtype)}", kind, kind, kind)
            return self.new(f"call nsz {kind} {function}({kind} {a}, {kind} {b})")
        if name in ("max", "min"):
            if dtype == bool_:
                name = {"max": "or", "min": "and"}[name]
                return self.new(f"{name} i1 {a}, {b}")
            intrinsic = f"llvm.{'s' if is_signed(dtype) else 'u'}{name}.{kind}"
            function = self.module.declare(intrinsic, kind, kind, kind)
            return self.new(f"call {kind} {function}({kind} {a}, {kind} {b})")
        if dtype == bool_:
            name = {"add": "or", "mul": "and"}.get(name, name)
        return self.new(f"{name} {kind} {a}, {b}")

    def bfloat16_bits(self, value: str) -> str:
        """The 16 bits of the nearest bfloat16, ties to even; NaN stays NaN."""
        bits = self.new(f"bitcast float {value} to i32")
        shifted = self.new(f"lshr i32 {bits}, 16")
        odd = self.new(f"and i32 {shifted}, 1")
        bias = self.new(f"add i32 {odd}, 32767")
        rounded = self.new(f"add i32 {bits}, {bias}")
        top = self.new(f"lshr i32 {rounded}, 16")
        quiet = self.new(f"or i32 {shifted}, 64")
        nan = self.new(f"fcmp uno float {value}, 0.0")
        return self.new(f"select i1 {nan}, i32 {quiet}, i32 {top}")

    # ---- scalars ---------------------------------------------------------------------

    def compute(self, s: Scalar) -> str:
        method = getattr(self, f"_{s.op}", None)
        if method is not None:
            return str(method(s))
        if s.op in _BINARY_INT and not is_float(s.dtype):
            a, b = map(self.value, s.args)
            return self.new(f"{_BINARY_INT[s.op]} {llvm_type(s.dtype)} {a}, {b}")
        if s.op in _BINARY_FLOAT and is_float(s.dtype):
            a, b = map(self.value, s.args)
            return self.new(f"{_BINARY_FLOAT[s.op]} {llvm_type(s.dtype)} {a}, {b}")
        if s.op in _INTRINSICS and is_float(s.dtype):
            return self.intrinsic(_INTRINSICS[s.op], s.dtype, *map(self.value, s.args))
        raise TypeError(f"no LLVM for {s.op} on {s.dtype}")

    def intrinsic(self, name: str, dtype: DType, *args: str) -> str:
        kind = llvm_type(dtype)
        function = self.module.declare(f"llvm.{name}.{suffix(dtype)}", kind, *[kind] * len(args))
        return self.new(f"call {kind} {function}({', '.join(f'{kind} {a}' for a in args)})")

    def _index(self, s: Scalar) -> str:
        return self.index(s.attrs[0])

    def _load(self, s: Scalar) -> str:
        return self.load(*s.attrs)

    def _read(self, s: Scalar) -> str:
        return self.new(f"load {llvm_type(s.dtype)}, ptr {self.slot(s.attrs[0])}")

    def _fma(self, s: Scalar) -> str:
        return self.intrinsic("fma", s.dtype, *map(self.value, s.args))

    def _call(self, s: Scalar) -> str:
        (name,), bits = s.attrs, 8 * s.dtype.itemsize
        self.module.maths.add((name, bits))
        kind = llvm_type(s.dtype)
        args = ", ".join(f"{kind} {self.value(a)}" for a in s.args)
        return self.new(f"call {kind} @{llvm_math.symbol(name, bits)}({args})")

    def _neg(self, s: Scalar) -> str:
        a, kind = self.value(s.args[0]), llvm_type(s.dtype)
        return self.new(f"fneg {kind} {a}" if is_float(s.dtype) else f"sub {kind} 0, {a}")

    def _abs(self, s: Scalar) -> str:
        a, kind = self.value(s.args[0]), llvm_type(s.dtype)
        if is_float(s.dtype):
            return self.intrinsic("fabs", s.dtype, a)
        if not is_signed(s.dtype):
            return a
        negative = self.new(f"icmp slt {kind} {a}, 0")
        flipped = self.new(f"sub {kind} 0, {a}")
        return self.new(f"select i1 {negative}, {kind} {flipped}, {kind} {a}")

    def _not(self, s: Scalar) -> str:
        kind = llvm_type(s.dtype)
        return self.new(f"xor {kind} {self.value(s.args[0])}, {'true' if kind == 'i1' else -1}")

    def _minimum(self, s: Scalar) -> str:
        return self.extreme("min", s)

    def _maximum(self, s: Scalar) -> str:
        return self.extreme("max", s)

    def extreme(self, which: str, s: Scalar) -> str:
        a, b = map(self.value, s.args)
        if is_float(s.dtype):
            return self.intrinsic(f"{which}imum", s.dtype, a, b)
        return self.monoid(which, s.dtype, a, b)

    def _floordiv(self, s: Scalar) -> str:
        a, b = map(self.value, s.args)
        kind = llvm_type(s.dtype)
        if is_float(s.dtype):
            rest = self.new(f"frem {kind} {a}, {b}")
            exact = self.new(f"fsub {kind} {a}, {rest}")
            quotient = self.new(f"fdiv {kind} {exact}, {b}")
            less = self.new(f"fsub {kind} {quotient}, 1.0")
            crossed = self.crosses_zero(kind, rest, b)
            quotient = self.new(f"select i1 {crossed}, {kind} {less}, {kind} {quotient}")
            return self.float_floordiv_fix(s.dtype, quotient, a, b)
        return self.integer_division(s.dtype, a, b)[0]

    def float_floordiv_fix(self, dtype: DType, quotient: str, a: str, b: str) -> str:
        """NumPy's floor_divide: the nearest integer to (a - a % b) / b; a / b where b is 0."""
        kind = llvm_type(dtype)
        whole = self.intrinsic("floor", dtype, quotient)
        gap = self.new(f"fsub {kind} {quotient}, {whole}")
        up = self.new(f"fcmp ogt {kind} {gap}, 0.5")
        more = self.new(f"fadd {kind} {whole}, 1.0")
        nearest = self.new(f"select i1 {up}, {kind} {more}, {kind} {whole}")
        ratio = self.new(f"fdiv {kind} {a}, {b}")
        zero = self.new(f"fcmp oeq {kind} {quotient}, 0.0")
        signed = self.intrinsic("copysign", dtype, "0.0", ratio)
        nearest = self.new(f"select i1 {zero}, {kind} {signed}, {kind} {nearest}")
        nothing = self.new(f"fcmp oeq {kind} {b}, 0.0")
        return self.new(f"select i1 {nothing}, {kind} {ratio}, {kind} {nearest}")

    def _mod(self, s: Scalar) -> str:
        a, b = map(self.value, s.args)
        if is_float(s.dtype):
            return self.float_mod(s.dtype, a, b)
        return self.integer_division(s.dtype, a, b)[1]

    def float_mod(self, dtype: DType, a: str, b: str) -> str:
        """Python's %: the remainder with the sign of b."""
        kind = llvm_type(dtype)
        rest = self.new(f"frem {kind} {a}, {b}")
        negative = self.crosses_zero(kind, rest, b)
        moved = self.new(f"fadd {kind} {rest}, {b}")
        chosen = self.new(f"select i1 {negative}, {kind} {moved}, {kind} {rest}")
        zero = self.new(f"fcmp oeq {kind} {chosen}, 0.0")
        signed = self.intrinsic("copysign", dtype, "0.0", b)
        return self.new(f"select i1 {zero}, {kind} {signed}, {kind} {chosen}")

    def crosses_zero(self, kind: str, rest: str, b: str) -> str:
        """Whether a remainder is not zero and has another sign than the divisor."""
        signs = [self.new(f"fcmp olt {kind} {v}, 0.0") for v in (rest, b)]
        differ = self.new(f"xor i1 {signs[0]}, {signs[1]}")
        some = self.new(f"fcmp une {kind} {rest}, 0.0")
        return self.new(f"and i1 {differ}, {some}")

    def integer_division(self, dtype: DType, a: str, b: str) -> tuple[str, str]:
        """(floor(a / b), a mod b); both 0 where b is 0; no undefined overflow."""
        kind, signed = llvm_type(dtype), is_signed(dtype)
        zero = self.new(f"icmp eq {kind} {b}, 0")
        by = self.new(f"select i1 {zero}, {kind} 1, {kind} {b}")
        if not signed:
            quotient = self.new(f"udiv {kind} {a}, {by}")
            rest = self.new(f"urem {kind} {a}, {by}")
        else:
            minus = self.new(f"icmp eq {kind} {by}, -1")
            safe = self.new(f"select i1 {minus}, {kind} 1, {kind} {by}")
            quotient = self.new(f"sdiv {kind} {a}, {safe}")
            rest = self.new(f"srem {kind} {a}, {safe}")
            negated = self.new(f"sub {kind} 0, {a}")
            quotient = self.new(f"select i1 {minus}, {kind} {negated}, {kind} {quotient}")
            sign = self.new(f"xor {kind} {rest}, {by}")
            crossed = self.new(f"icmp slt {kind} {sign}, 0")
            some = self.new(f"icmp ne {kind} {rest}, 0")
            fix = self.new(f"and i1 {crossed}, {some}")
            less = self.new(f"sub {kind} {quotient}, 1")
            more = self.new(f"add {kind} {rest}, {by}")
            quotient = self.new(f"select i1 {fix}, {kind} {less}, {kind} {quotient}")
            rest = self.new(f"select i1 {fix}, {kind} {more}, {kind} {rest}")
        quotient = self.new(f"select i1 {zero}, {kind} 0, {kind} {quotient}")
        return quotient, self.new(f"select i1 {zero}, {kind} 0, {kind} {rest}")

    def _shl(self, s: Scalar) -> str:
        return self.shift("shl", s, "0")

    def _shr(self, s: Scalar) -> str:
        a = self.value(s.args[0])
        kind = llvm_type(s.dtype)
        if not is_signed(s.dtype):
            return self.shift("lshr", s, "0")
        negative = self.new(f"icmp slt {kind} {a}, 0")
        return self.shift("ashr", s, self.new(f"select i1 {negative}, {kind} -1, {kind} 0"))

    def shift(self, name: str, s: Scalar, outside: str) -> str:
        a, b = map(self.value, s.args)
        kind, width = llvm_type(s.dtype), 8 * s.dtype.itemsize
        fits = self.new(f"icmp ult {kind} {b}, {width}")
        count = self.new(f"select i1 {fits}, {kind} {b}, {kind} 0")
        shifted = self.new(f"{name} {kind} {a}, {count}")
        return self.new(f"select i1 {fits}, {kind} {shifted}, {kind} {outside}")

    def _compare(self, s: Scalar) -> str:
        (kind,), dtype = s.attrs, s.args[0].dtype
        a, b = map(self.value, s.args)
        if is_float(dtype):
            word = "une" if kind == "ne" else f"o{kind}"
            return self.new(f"fcmp {word} {llvm_type(dtype)} {a}, {b}")
        sign = "" if kind in ("eq", "ne") else "s" if is_signed(dtype) else "u"
        return self.new(f"icmp {sign}{kind} {llvm_type(dtype)} {a}, {b}")

    def _select(self, s: Scalar) -> str:
        test, a, b = map(self.value, s.args)
        kind = llvm_type(s.dtype)
        return self.new(f"select i1 {test}, {kind} {a}, {kind} {b}")

    def as_int64(self, s: Scalar, value: str) -> str:
        kind = llvm_type(s.dtype)
        if kind == "i64":
            return value
        if is_float(s.dtype):
            wide = value if kind == "double" else self.new(f"fpext float {value} to double")
            return self.new(f"bitcast double {wide} to i64")
        word = "sext" if is_signed(s.dtype) else "zext"
        return self.new(f"{word} {kind} {value} to i64")

    # ---- conversions -----------------------------------------------------------------

    def _round(self, s: Scalar) -> str:
        value = self.value(s.args[0])
        if s.attrs[0] == "float16":
            half = self.new(f"fptrunc float {value} to half")
            return self.new(f"fpext half {half} to float")
        shifted = self.new(f"shl i32 {self.bfloat16_bits(value)}, 16")
        return self.new(f"bitcast i32 {shifted} to float")

    def _bitcast(self, s: Scalar) -> str:
        source = s.args[0]
        value = self.value(source)
        a, b = llvm_type(source.dtype), llvm_type(s.dtype)
        return value if a == b else self.new(f"bitcast {a} {value} to {b}")

    def _cast(self, s: Scalar) -> str:
        source = s.args[0]
        value, old, new = self.value(source), source.dtype, s.dtype
        a, b = llvm_type(old), llvm_type(new)
        if new == bool_:
            zero = "0.0" if is_float(old) else "0"
            return self.new(f"{'fcmp une' if is_float(old) else 'icmp ne'} {a} {value}, {zero}")
        if is_float(old) and is_float(new):
            word = "fpext" if new.itemsize > old.itemsize else "fptrunc"
            return value if a == b else self.new(f"{word} {a} {value} to {b}")
        if is_float(old):
            return self._to_integer(value, old, new)
        unsigned = not is_signed(old)
        if is_float(new):
            return self.new(f"{'u' if unsigned else 's'}itofp {a} {value} to {b}")
        if a == b:
            return value
        narrower = old != bool_ and new.itemsize < old.itemsize
        word = "trunc" if narrower else "zext" if unsigned else "sext"
        return self.new(f"{word} {a} {value} to {b}")

    def _to_integer(self, value: str, old: DType, new: DType) -> str:
        """Rounded towards 0, to the nearest limit from beyond it, NaN to 0.

        LLVM has one instruction for it, `llvm.fptosi.sat`, which its vectoriser takes apart.
        """
        a, b, bits = llvm_type(old), llvm_type(new), new.itemsize * 8
        if not is_signed(new):
            above = self.new(f"fcmp oge {a} {value}, {literal(2.0**bits, old)}")
            positive = self.new(f"fcmp ogt {a} {value}, {literal(0.0, old)}")
            whole = self.new(f"fptoui {a} {value} to {b}")
            whole = self.new(f"select i1 {above}, {b} {2**bits - 1}, {b} {whole}")
            return self.new(f"select i1 {positive}, {b} {whole}, {b} 0")
        end = 2 ** (bits - 1)
        above = self.new(f"fcmp oge {a} {value}, {literal(float(end), old)}")
        below = self.new(f"fcmp ole {a} {value}, {literal(-float(end), old)}")
        unordered = self.new(f"fcmp uno {a} {value}, {value}")
        whole = self.new(f"fptosi {a} {value} to {b}")
        whole = self.new(f"select i1 {above}, {b} {end - 1}, {b} {whole}")
        whole = self.new(f"select i1 {below}, {b} {-end}, {b} {whole}")
        return self.new(f"select i1 {unordered}, {b} 0, {b} {whole}")


_BINARY_INT = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_BINARY_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTRINSICS = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "roundeven",
    "sqrt": "sqrt",
}
