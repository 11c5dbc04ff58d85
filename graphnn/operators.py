"""Python's operators on Tensors and Variables.

`+ - * /` have a fast path for two eager tensors of one dtype, with or without a recording tape;
everything else goes through promotion and `apply`. A `try` around it all, which costs nothing
unless something fails, leaves one frame of graphnn in the traceback of an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphnn.apply import constant_of
from graphnn.compiler.ops.base import REGISTRY, Op
from graphnn.indexing import getitem
from graphnn.ops.linalg import matmul
from graphnn.ops.public import call_op, plain
from graphnn.runtime import devices, memory
from graphnn.runtime.errors import GraphnnError, hide_own_frames
from graphnn.state import state
from graphnn.strings import is_string
from graphnn.tensor import Operand, Tensor

_ndarray = np.ndarray
_bool = np.dtype(np.bool_)
_BIG = 1 << 18  # bytes from which results come from the caching allocator
_UNKNOWN = (str, bytes, dict, set, type(None))

Operator = Callable[..., Any]


def _binary(op: Op) -> Operator:
    def operator(self: Operand, other: Any) -> Any:
        if isinstance(other, _UNKNOWN) and not _is_text(self, other):
            return NotImplemented
        try:
            return call_op(op, (self, other))
        except GraphnnError as error:
            raise hide_own_frames(error)  # noqa: B904

    return operator


def _reflected(op: Op) -> Operator:
    def operator(self: Operand, other: Any) -> Any:
        if isinstance(other, _UNKNOWN) and not _is_text(self, other):
            return NotImplemented
        try:
            return call_op(op, (other, self))
        except GraphnnError as error:
            raise hide_own_frames(error)  # noqa: B904

    return operator


def _is_text(self: Operand, other: Any) -> bool:
    return isinstance(other, str | bytes) and is_string(self)


def _unary(op: Op) -> Operator:
    def operator(self: Operand) -> Any:
        try:
            return call_op(op, (self,))
        except GraphnnError as error:
            raise hide_own_frames(error)  # noqa: B904

    return operator


def _fast(op: Op, ufunc: Any) -> Operator:
    """The operator of two tensors; `ufunc` is what the op's eager rule calls."""
    slow = _binary(op)

    def operator(self: Tensor, other: Any) -> Any:
        try:
            if type(other) is not Tensor:
                if (type(other) is not float and type(other) is not int) or state.trace is not None:
                    return slow(self, other)
                dtype = self._value.dtype
                if dtype.kind != "f" or type(self._value) is not _ndarray:
                    return slow(self, other)
                other = constant_of(other, dtype)
            a, b = self._value, other._value
            dtype = a.dtype
            if dtype is not b.dtype or dtype is _bool or state.trace is not None:
                return slow(self, other)
            try:
                if a.nbytes >= _BIG and a.shape == b.shape:  # memory that stays with the process
                    result = state.quiet(ufunc, a, b, memory.empty(a.shape, dtype))
                else:
                    result = state.quiet(ufunc, a, b)
            except Exception:
                result = None
            if type(result) is not _ndarray:
                if result is None:
                    return slow(self, other)  # raises the designed error, and that alone
                result = np.asarray(result)
            if result.dtype is not dtype:
                return slow(self, other)
            out = Tensor(result)
            for tape in state.tapes:
                watched = tape.watched
                if id(self) in watched or id(other) in watched:
                    tape.steps.append((op, (self, other), out))
                    watched.add(id(out))
            return out
        except GraphnnError as error:
            raise hide_own_frames(error)  # noqa: B904

    return operator


def _power(self: Operand, other: Any, modulo: Any = None) -> Any:
    if modulo is not None or isinstance(other, _UNKNOWN):
        return NotImplemented
    if type(other) in (int, float) and other == 2:
        return call_op(_op("square"), (self,))
    return call_op(_op("power"), (self, other))


def _invert(self: Operand) -> Any:
    return call_op(_op("logical_not" if self.dtype == _bool else "bitwise_invert"), (self,))


def _logical(name: str, reflected: bool = False) -> Operator:
    """& | ^: logical on bools, bitwise on integers."""

    def operator(self: Operand, other: Any) -> Any:
        if isinstance(other, _UNKNOWN):
            return NotImplemented
        both = (other, self) if reflected else (self, other)
        bools = self.dtype == _bool and (isinstance(other, bool) or _dtype(other) == _bool)
        return call_op(_op(f"logical_{name}" if bools else f"bitwise_{name}"), both)

    return operator


def _dtype(value: Any) -> Any:
    return getattr(value, "dtype", None)


def _matmul(self: Operand, other: Any) -> Any:
    try:
        return NotImplemented if isinstance(other, _UNKNOWN) else matmul(self, other)
    except GraphnnError as error:
        raise hide_own_frames(error)  # noqa: B904


def _rmatmul(self: Operand, other: Any) -> Any:
    return NotImplemented if isinstance(other, _UNKNOWN) else matmul(other, self)


def _divmod(self: Operand, other: Any) -> Any:
    return self // other, self % other


def _round(self: Operand, digits: int | None = None) -> Any:
    if not digits:
        return call_op(_op("round"), (self,))
    scale = 10.0**digits
    return call_op(_op("round"), (self * scale,)) / scale


def _op(name: str) -> Op:
    return plain(REGISTRY[name])


_ARITHMETIC = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_FAST = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide}


def _define(cls: type, python: str, function: Operator) -> None:
    function.__name__ = f"__{python}__"
    function.__qualname__ = f"{cls.__name__}.__{python}__"
    setattr(cls, function.__name__, function)


def install() -> None:
    """Give Tensors and Variables their operators."""
    for python, name in _ARITHMETIC.items():
        _define(Operand, python, _binary(_op(name)))
        _define(Operand, f"r{python}", _reflected(_op(name)))
    for python, name in _COMPARISONS.items():
        _define(Operand, python, _binary(_op(name)))
    for name in ("and", "or", "xor"):
        _define(Operand, name, _logical(name))
        _define(Operand, f"r{name}", _logical(name, reflected=True))
    for python, name in (("neg", "negative"), ("pos", "positive"), ("abs", "abs")):
        _define(Operand, python, _unary(_op(name)))
    _define(Operand, "pow", _power)
    _define(Operand, "rpow", _reflected(_op("power")))
    _define(Operand, "matmul", _matmul)
    _define(Operand, "rmatmul", _rmatmul)
    _define(Operand, "invert", _invert)
    _define(Operand, "divmod", _divmod)
    _define(Operand, "round", _round)
    _define(Operand, "getitem", getitem)
    devices.on_change.append(_choose_arithmetic)
    _choose_arithmetic(devices.used)


def _choose_arithmetic(has_gpu: bool) -> None:
    """The quick operators know NumPy arrays only: they are for processes that use no GPU."""
    for python, ufunc in _FAST.items():
        op = _op(_ARITHMETIC[python])
        _define(Tensor, python, _binary(op) if has_gpu else _fast(op, ufunc))


install()
