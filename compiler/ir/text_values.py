"""Settings of ops as text: Python literals, dtypes, tensor types, slices and symbolic sizes."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np

from graphnn.compiler.ir.sizes import Size, symbol
from graphnn.compiler.ir.types import BY_SHORT, SHORT, TensorType

BYTES_SHOWN = 256  # longer byte strings are left out of the text
NAMES: dict[str, Any] = {"inf": math.inf, "nan": math.nan}


class BadValue(Exception):
    """Text that stands for no value."""


def print_values(settings: dict[str, Any]) -> str:
    """name=value, ... of some settings."""
    return ", ".join(f"{k}={print_value(v)}" for k, v in settings.items())


def print_value(value: Any) -> str:
    """A setting as text; what text cannot hold is shown as a quoted placeholder in <>."""
    if value is None or isinstance(value, bool | int | float | Size):
        return str(value)
    if isinstance(value, str):
        return ascii(value) if '"' in value or "\\" in value else f'"{_escaped(value)}"'
    if isinstance(value, tuple | list):
        inside = ", ".join(map(print_value, value))
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, np.dtype):
        return SHORT[value]
    if isinstance(value, np.generic):
        return print_value(value.item())
    if isinstance(value, TensorType):
        return f"{SHORT[value.dtype]}[{print_value(value.shape)}]"
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop}, {value.step})"
    if isinstance(value, bytes) and len(value) <= BYTES_SHOWN:
        return repr(value)
    return f'unprintable("{_describe(value)}")'


def _escaped(value: str) -> str:
    return ascii(value)[1:-1].replace("\\'", "'")


def _describe(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    name = getattr(value, "__qualname__", None)
    kind = type(value).__name__
    return f"{kind} {name}" if name else kind


def read_value(node: ast.expr) -> Any:
    """The value of a parsed literal; raises BadValue."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return _name(node.id)
        case ast.Tuple():
            return tuple(map(read_value, node.elts))
        case ast.List():
            return list(map(read_value, node.elts))
        case ast.UnaryOp(op=ast.USub()):
            return -_number(node.operand)
        case ast.BinOp():
            return _arithmetic(node)
        case ast.Subscript(value=ast.Name(id=short)) if short in BY_SHORT:
            sizes = read_value(node.slice)
            shape = sizes if isinstance(sizes, tuple) else (sizes,)
            return TensorType(shape, BY_SHORT[short])
        case ast.Call(func=ast.Name(id="slice")):
            return slice(*map(read_value, node.args))
        case ast.Call(func=ast.Name(id="unprintable")):
            raise BadValue(f"a value that text can hold; the printer left out {_what(node)}")
    raise BadValue("a Python literal, a dtype or a symbolic size")


def _name(name: str) -> Any:
    if name in NAMES:
        return NAMES[name]
    if name in BY_SHORT:
        return BY_SHORT[name]
    return symbol(name)


def _what(call: ast.Call) -> str:
    argument = call.args[0] if call.args else None
    return str(argument.value) if isinstance(argument, ast.Constant) else "it"


def _number(node: ast.expr) -> Any:
    value = read_value(node)
    if not isinstance(value, int | float | Size):
        raise BadValue("a number or a symbolic size")
    return value


def _arithmetic(node: ast.BinOp) -> Any:
    left, right = _number(node.left), _number(node.right)
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.FloorDiv():
            return left // right
    raise BadValue("+, -, * or //")
