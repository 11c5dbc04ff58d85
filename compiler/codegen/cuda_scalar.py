"""Scalars and index expressions of the loop form as CUDA C."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.compiler.codegen.scalar import Scalar
from graphnn.compiler.ir.sizes import Dynamic, FloorDiv, Size, Symbol, Var, bounds
from graphnn.compiler.ir.types import DType, bfloat16, bool_, float16, int64, is_float

_STORED = {bool_: "bool", float16: "f16", bfloat16: "bf16"}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "sqrt": "sqrt"}
_MONOIDS = {"add": "Add", "mul": "Mul", "max": "Max", "min": "Min", "or": "Or", "and": "And"}
_BOOL_MONOIDS = {"add": "Or", "mul": "And", "max": "Or", "min": "And", "or": "Or", "and": "And"}
_LEAST_64 = -(2**63)
_WORD = 2**31
_FIT_32 = ("int8", "uint8", "int16", "uint16", "int32")


def value_type(dtype: DType) -> str:
    """C type of a value in a register; 16-bit floats are floats there."""
    if dtype == bool_:
        return "bool"
    if is_float(dtype):
        return "double" if dtype.itemsize == 8 else "float"
    return f"{'i' if dtype.kind == 'i' else 'u'}{8 * dtype.itemsize}"


def stored_type(dtype: DType) -> str:
    """C type of an element in memory."""
    return _STORED.get(dtype) or value_type(dtype)


def literal(value: Any, dtype: DType) -> str:
    """A constant. Floats keep all bits."""
    if dtype == bool_:
        return "true" if value else "false"
    if is_float(dtype):
        return _float_literal(value, dtype)
    number, kind = int(value), value_type(dtype)
    if number == _LEAST_64:
        return "((i64)1 << 63)"
    if dtype.itemsize == 8:
        return f"{number}{'ll' if dtype.kind == 'i' else 'ull'}"
    if dtype.itemsize == 4:
        return f"{number}u" if dtype.kind == "u" else str(number) if number > -(2**31) else _LEAST
    return f"({kind}){number}"


_LEAST = "(-2147483647 - 1)"


def _float_literal(value: Any, dtype: DType) -> str:
    double = dtype.itemsize == 8
    number = np.float64(value) if double else np.float32(value)
    if not np.isfinite(number):
        bits = number.view(np.uint64 if double else np.uint32)
        width = 16 if double else 8
        return f"bitcast<{value_type(dtype)}>(0x{int(bits):0{width}x}{'ull' if double else 'u'})"
    text = repr(number.item()) if double else str(number)
    text = text if any(c in text for c in ".e") else f"{text}.0"
    return text if double else f"{text}f"


def monoid(name: str, dtype: DType) -> str:
    """The struct of an operation that combines values."""
    return (_BOOL_MONOIDS if dtype == bool_ else _MONOIDS)[name]


def fits_32(s: Scalar) -> bool:
    """Whether a 64-bit integer is known to have 32 bits at heart."""
    if s.dtype != int64:
        return False
    if s.op == "cast":
        return s.args[0].dtype in _FIT_32
    if s.op == "constant":
        return abs(int(s.attrs[0].value)) < _WORD
    if s.op != "index":
        return False
    least, most = bounds(s.attrs[0])
    return least is not None and most is not None and -_WORD < least and most < _WORD


def operands(s: Scalar) -> tuple[Scalar, ...]:
    """The scalars that the expression of a scalar names."""
    if s.op != "compare" or not all(map(fits_32, s.args)):
        return s.args
    return tuple(b for a in s.args for b in a.args)


class ScalarPrinter:
    """One scalar after another as a C expression. How values are remembered, loads made and
    branches opened is the subclass's affair."""

    vars: dict[Any, str]

    def value(self, scalar: Scalar) -> str:
        """The operand that holds a scalar."""
        raise TypeError("the kernel printer says how")

    # ---- indices -----------------------------------------------------------------------

    def index(self, value: Any) -> str:
        """An index expression."""
        if isinstance(value, int):
            return str(value) if -(2**31) < value < 2**31 else f"(idx){value}ll"
        parts = []
        for monomial, factor in value.terms:
            words = [self.atom(a) for a in monomial]
            if not words or abs(factor) != 1:
                words.append(str(abs(factor)))
            parts += ["-" if factor < 0 else "+", " * ".join(words)]
        text = " ".join(parts)
        return text[2:] if text.startswith("+ ") else f"-{text[2:]}"

    def factor(self, value: Any) -> str:
        """An index expression that may stand inside a product."""
        text = self.index(value)
        return f"({text})" if isinstance(value, Size) and " " in text else text

    def atom(self, a: Any) -> str:
        if isinstance(a, Var):
            return self.vars[a]
        if isinstance(a, Symbol):
            return self.vars[a.name]
        if isinstance(a, Dynamic):
            return f"(idx){self.value(a.value)}"
        if isinstance(a, FloorDiv):
            return self.quotient(a)
        raise TypeError(a)

    def quotient(self, a: FloorDiv) -> str:
        """Floor division; C's own rounds towards zero."""
        least, _ = bounds(a.numerator)
        if least is not None and least >= 0:
            return f"({self.factor(a.numerator)} / {self.factor(a.denominator)})"
        return f"floor_div<idx>({self.index(a.numerator)}, {self.index(a.denominator)})"

    # ---- scalars -----------------------------------------------------------------------

    def expression(self, s: Scalar) -> str:
        """The C expression of a scalar over the operands of its arguments."""
        method = getattr(self, f"_{s.op}", None)
        if method is not None:
            return str(method(s))
        args = [self.value(a) for a in s.args]
        if s.op in _ROUNDING:
            return f"{_ROUNDING[s.op]}{self.suffix(s)}({args[0]})"
        text = f"{args[0]} {_INFIX[s.op]} {args[1]}"
        return text if is_float(s.dtype) else self.integer(s, text, args)

    def integer(self, s: Scalar, text: str, args: list[str]) -> str:
        if s.dtype == bool_:
            symbol = {"+": "|", "*": "&", "-": "^"}.get(_INFIX[s.op], _INFIX[s.op])
            return f"(bool)({args[0]} {symbol} {args[1]})"
        kind = value_type(s.dtype)
        if s.op in ("and", "or", "xor"):
            return f"({kind})({text})"
        if s.dtype in ("uint32", "uint64"):
            return text
        return f"wrap_{s.op}({args[0]}, {args[1]})"

    @staticmethod
    def suffix(s: Scalar) -> str:
        return "" if s.dtype.itemsize == 8 else "f"

    def _index(self, s: Scalar) -> str:
        return f"(i64)({self.index(s.attrs[0])})"

    def _fma(self, s: Scalar) -> str:
        return f"fma{self.suffix(s)}({', '.join(map(self.value, s.args))})"

    def _call(self, s: Scalar) -> str:
        (name,) = s.attrs
        suffix = "" if name == "sigmoid" else self.suffix(s)
        return f"{name}{suffix}({', '.join(map(self.value, s.args))})"

    def _neg(self, s: Scalar) -> str:
        a = self.value(s.args[0])
        if is_float(s.dtype):
            return f"-{a}" if not a.startswith("-") else f"-({a})"
        return f"wrap_sub(({value_type(s.dtype)})0, {a})"

    def _abs(self, s: Scalar) -> str:
        a = self.value(s.args[0])
        return a if s.dtype.kind == "u" or s.dtype == bool_ else f"magnitude({a})"

    def _not(self, s: Scalar) -> str:
        a = self.value(s.args[0])
        return f"!{a}" if s.dtype == bool_ else f"({value_type(s.dtype)})~{a}"

    def _minimum(self, s: Scalar) -> str:
        return f"Min::of({', '.join(map(self.value, s.args))})"

    def _maximum(self, s: Scalar) -> str:
        return f"Max::of({', '.join(map(self.value, s.args))})"

    def _floordiv(self, s: Scalar) -> str:
        name = "float_floor_div" if is_float(s.dtype) else "floor_div"
        return f"{name}({', '.join(map(self.value, s.args))})"

    def _mod(self, s: Scalar) -> str:
        name = "float_mod" if is_float(s.dtype) else "floor_mod"
        return f"{name}({', '.join(map(self.value, s.args))})"

    def _shl(self, s: Scalar) -> str:
        return f"shift_left({', '.join(map(self.value, s.args))})"

    def _shr(self, s: Scalar) -> str:
        return f"shift_right({', '.join(map(self.value, s.args))})"

    def _compare(self, s: Scalar) -> str:
        narrow = all(map(fits_32, s.args))
        a, b = map(self._narrow if narrow else self.value, s.args)
        return f"{a} {_COMPARE[s.attrs[0]]} {b}"

    def _narrow(self, s: Scalar) -> str:
        """A 64-bit integer that has 32 bits at heart as an operand of 32 bits."""
        if s.op == "cast":
            return self.value(s.args[0])
        if s.op == "constant":
            return str(int(s.attrs[0].value))
        return f"(i32)({self.index(s.attrs[0])})"

    def _select(self, s: Scalar) -> str:
        test, a, b = map(self.value, s.args)
        return f"{test} ? {a} : {b}"

    # ---- conversions -------------------------------------------------------------------

    def _round(self, s: Scalar) -> str:
        kind = "f16" if s.attrs[0] == "float16" else "bf16"
        return f"rounded<{kind}>({self.value(s.args[0])})"

    def _bitcast(self, s: Scalar) -> str:
        return f"bitcast<{value_type(s.dtype)}>({self.value(s.args[0])})"

    def _cast(self, s: Scalar) -> str:
        source = s.args[0]
        a, kind = self.value(source), value_type(s.dtype)
        if s.dtype == bool_:
            return f"{a} != {literal(0, source.dtype)}"
        if is_float(source.dtype) and not is_float(s.dtype):
            return f"saturate<{kind}>({a})"
        return f"({kind}){a}"

    def as_word(self, s: Scalar, operand: str) -> str:
        """A value as an i64, for the report of a failed check."""
        if is_float(s.dtype):
            return f"bitcast<i64>((double){operand})"
        return f"(i64){operand}"
