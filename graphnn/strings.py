"""Text: tensors of strings, which live on the host and never enter a compiled program.

A tensor of strings is a Tensor whose array has NumPy's `StringDType`. It can be made, compared,
joined, indexed and reshaped eagerly; preprocessing layers turn it into numbers. The functions here
carry TensorFlow's names (`tensorflow.strings`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np
from numpy.dtypes import StringDType

from graphnn.compiler.ir.types import describe
from graphnn.runtime.errors import ArgumentError, DTypeError, TraceError
from graphnn.tensor import Operand, Tensor, Traced

__all__ = [
    "as_string",
    "join",
    "length",
    "lower",
    "regex_full_match",
    "regex_replace",
    "strip",
    "substr",
    "to_number",
    "upper",
]

Array = np.ndarray[Any, Any]

string: Any = StringDType()  # the dtype of tensors of strings, `tensorflow.string`
_WHITESPACE = " \t\n\r\v\f"  # what TensorFlow strips and splits at: ASCII only
_UNITS = ("BYTE", "UTF8_CHAR")


# ---- what is text ---------------------------------------------------------------------------


def is_string_dtype(dtype: Any) -> bool:
    """Whether a dtype, or the name of one, is that of strings.

    >>> is_string_dtype("string"), is_string_dtype("float32")
    (True, False)
    """
    return (
        dtype is str
        or isinstance(dtype, StringDType)
        or (dtype.__class__ is str and dtype == "string")
    )


def dtype_name(dtype: Any) -> str:
    """The name of a dtype; NumPy's own name of the dtype of strings is another one.

    >>> dtype_name(string)
    'string'
    """
    return "string" if is_string_dtype(dtype) else str(dtype.name)


def is_string(value: Any) -> bool:
    """Whether a tensor or array holds strings.

    >>> is_string(graphnn.constant(["a"])), is_string(graphnn.constant([1]))
    (True, False)
    """
    return isinstance(getattr(value, "dtype", None), StringDType)


def looks_like_text(value: Any) -> bool:
    """Whether data are text of any kind: str, bytes, arrays of these, or nested lists of these."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, str | bytes):
        return True
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind != "O":
        return kind in ("T", "U", "S")
    flat = value.reshape(-1) if isinstance(value, np.ndarray) else np.empty(0)
    return bool(flat.size) and isinstance(flat[0], str | bytes)


def text_array(value: Any, subject: str = "conversion to a tensor of strings") -> Array:
    """The `StringDType` array of text in any form; bytes are read as UTF-8.

    Raises DTypeError for data that are not text, ArgumentError for lists of different lengths, and
    TraceError for a traced tensor.

    >>> text_array([["a", b"b"]]).shape
    (1, 2)
    """
    if isinstance(value, Operand):
        value = host_array(value, subject)
    if type(value) is np.ndarray and isinstance(value.dtype, StringDType):
        return value if value.dtype == string else _without_missing(value, subject)
    try:
        # An object array keeps the numbers and None among strings apart from text.
        array = value if isinstance(value, np.ndarray) else np.array(value, object)
        return _decoded(array, value, subject)
    except UnicodeError as error:
        raise DTypeError(
            subject,
            received=f"what is not UTF-8: {error}",
            expected="text",
            fix="decode the bytes first, or read the file with its own encoding",
        ) from None
    except ValueError as error:
        raise ArgumentError(
            subject,
            received=f"lists of different lengths ({error})",
            expected="nested lists that form one array",
            fix="pad the shorter lists with empty strings",
        ) from None


def host_array(value: Operand, subject: str) -> Array:
    """The array of a tensor. Raises TraceError for a traced one."""
    inner = value._tensor()._value
    if type(inner) is Traced:
        raise no_trace(subject, f"a traced tensor {describe(inner.dtype, inner.shape)}")
    return inner  # type: ignore[no-any-return]


def _decoded(array: Array, value: Any, subject: str) -> Array:
    kind = array.dtype.kind
    if kind == "U":
        return array.astype(string)
    if kind == "S":
        flat: list[Any] = array.reshape(-1).tolist()
    elif kind == "O":
        flat = array.reshape(-1).tolist()
    else:
        raise _no_text(value, subject)
    for item in flat:
        if not isinstance(item, str | bytes):
            if isinstance(item, list | tuple):
                raise ValueError("a list where a string was expected")
            raise _no_text(item, subject)
    text = [item.decode("utf-8") if isinstance(item, bytes) else item for item in flat]
    return np.array(text, string).reshape(array.shape)


def _without_missing(array: Array, subject: str) -> Array:
    try:
        return array.astype(string)
    except (TypeError, ValueError):
        raise DTypeError(
            subject,
            received="strings with missing values",
            expected="a string in each place",
            fix="replace the missing values, e.g. by empty strings",
        ) from None


def _no_text(value: Any, subject: str) -> DTypeError:
    what = value.dtype.name if hasattr(value, "dtype") else f"{type(value).__name__} {value!r:.60}"
    return DTypeError(
        subject,
        received=what,
        expected="strings: str, bytes, or arrays or nested lists of these",
        fix="convert numbers with graphnn.strings.as_string",
    )


def mixed(what: str) -> DTypeError:
    """The error for strings where numbers are wanted, or the other way round."""
    return DTypeError(
        what,
        received="strings together with numbers",
        expected="either strings or numbers",
        fix="convert with graphnn.strings.to_number or graphnn.strings.as_string",
    )


def no_trace(subject: str, received: str) -> TraceError:
    """The error for text that would enter a compiled program, or that is wanted from within."""
    return TraceError(
        subject,
        received=received,
        expected="numbers: text stays on the host and cannot be part of a compiled program",
        fix="turn text into numbers before: dataset.map(lambda x, y: (vectorizer(x), y)), or call "
        "the layer outside of the @function, or run eagerly (run_eagerly=True in compile, "
        "graphnn.run_functions_eagerly(True))",
    )


# ---- flat lists, with which Python's own string methods work ----------------------------------


def encoded(array: Array) -> list[bytes]:
    """All strings of an array in row-major order, in UTF-8."""
    # One string is encoded faster than many; the separator must not be in any of them.
    items = array.reshape(-1).tolist()
    parts = "\0".join(items).encode("utf-8").split(b"\0")
    if len(parts) == len(items):
        return parts
    return [s.encode("utf-8") for s in items]


def decoded(items: list[bytes], shape: Any = None) -> Array:
    """The array of UTF-8 strings; 1-D unless a shape is given."""
    array = np.array([s.decode("utf-8") for s in items], string)
    return array if shape is None else array.reshape(shape)


def lookup(table: dict[Any, int], items: list[Any], missing: int) -> Array:
    """The numbers of strings in a table as int64; `missing` for those that are not in it."""
    return np.fromiter(map(table.get, items, repeat(missing)), np.int64, len(items))


def _each(function: Callable[[str], Any], value: Any, name: str, dtype: Any = string) -> Tensor:
    array = text_array(value, f"strings.{name}")
    flat = [function(s) for s in array.reshape(-1).tolist()]
    return Tensor(np.array(flat, dtype).reshape(array.shape))


# ---- TensorFlow's functions -------------------------------------------------------------------

_LOWER = bytes.maketrans(bytes(range(65, 91)), bytes(range(97, 123)))
_UPPER = bytes.maketrans(bytes(range(97, 123)), bytes(range(65, 91)))


def _cased(
    value: Any, table: bytes, whole: Callable[[str], str], encoding: str, name: str
) -> Tensor:
    if encoding.lower() in ("utf-8", "utf8"):
        return _each(whole, value, name)
    array = text_array(value, f"strings.{name}")
    return Tensor(decoded([s.translate(table) for s in encoded(array)], array.shape))


def lower(input: Any, encoding: str = "", name: Any = None) -> Tensor:
    """Small letters: of ASCII only, or with `encoding="utf-8"` of all alphabets.

    >>> graphnn.strings.lower(["ABC"]).tolist()
    ['abc']
    """
    return _cased(input, _LOWER, str.lower, encoding, "lower")


def upper(input: Any, encoding: str = "", name: Any = None) -> Tensor:
    """Capital letters: of ASCII only, or with `encoding="utf-8"` of all alphabets.

    >>> graphnn.strings.upper(["abc"]).tolist()
    ['ABC']
    """
    return _cased(input, _UPPER, str.upper, encoding, "upper")


def strip(input: Any, name: Any = None) -> Tensor:
    """Without white space (of ASCII) at both ends.

    >>> graphnn.strings.strip([" a b "]).tolist()
    ['a b']
    """
    return _each(lambda s: s.strip(_WHITESPACE), input, "strip")


def regex_replace(
    input: Any, pattern: str, rewrite: str, replace_global: bool = True, name: Any = None
) -> Tensor:
    r"""Matches of a regular expression replaced by a text, in which `\1` is the first group.

    replace_global: replace all matches, not the first only. Patterns are those of Python's `re`.
    Raises ArgumentError for a bad pattern.

    >>> graphnn.strings.regex_replace(["a<br />b"], "<br />", " ").tolist()
    ['a b']
    """
    find = _pattern(pattern, "regex_replace")
    count = 0 if replace_global else 1
    return _each(lambda s: find.sub(rewrite, s, count), input, "regex_replace")


def regex_full_match(input: Any, pattern: str, name: Any = None) -> Tensor:
    """Whether a regular expression matches the whole of each string.

    Raises ArgumentError for a bad pattern.

    >>> graphnn.strings.regex_full_match(["ab", "b"], "a.*").tolist()
    [True, False]
    """
    find = _pattern(pattern, "regex_full_match")
    return _each(lambda s: find.fullmatch(s) is not None, input, "regex_full_match", bool)


def _pattern(pattern: str, name: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ArgumentError(
            f"strings.{name}",
            received=f"the pattern {pattern!r}: {error}",
            expected="a regular expression",
            fix="escape plain text with re.escape",
        ) from None


def join(inputs: Any, separator: str = "", name: Any = None) -> Tensor:
    """Tensors of strings put together element by element; shapes broadcast.

    Raises ArgumentError for no tensor, ShapeError for shapes that do not broadcast.

    >>> graphnn.strings.join([["a", "b"], ["c", "d"]], separator="-").tolist()
    ['a-c', 'b-d']
    """
    arrays = [text_array(value, "strings.join") for value in inputs]
    if not arrays:
        raise ArgumentError(
            "strings.join", received="no tensor", expected="one or more", fix="check the list"
        )
    result = arrays[0]
    for array in arrays[1:]:
        result = np.add(np.add(result, np.array(separator, string)), array)
    return Tensor(np.asarray(result, string))


def length(input: Any, unit: str = "BYTE", name: Any = None) -> Tensor:
    """Number of bytes, or of characters with `unit="UTF8_CHAR"`, as int32.

    >>> graphnn.strings.length(["é"]).tolist(), graphnn.strings.length(["é"], "UTF8_CHAR").tolist()
    ([2], [1])
    """
    _check_unit(unit, "length")
    array = text_array(input, "strings.length")
    flat = encoded(array) if unit == "BYTE" else array.reshape(-1).tolist()
    return Tensor(np.fromiter(map(len, flat), np.int32, len(flat)).reshape(array.shape))


def substr(input: Any, pos: int, len: int, unit: str = "BYTE", name: Any = None) -> Tensor:
    """The part of each string that starts at `pos` (negative: from the end) with `len` units.

    unit: "BYTE" or "UTF8_CHAR". Raises DTypeError where bytes cut a character in two.

    >>> graphnn.strings.substr(["hello"], 1, 3).tolist()
    ['ell']
    """
    _check_unit(unit, "substr")
    if unit == "UTF8_CHAR":
        return _each(lambda s: _part(s, pos, len), input, "substr")
    array = text_array(input, "strings.substr")
    parts = [_part(s, pos, len) for s in encoded(array)]
    return Tensor(text_array(np.array(parts, object).reshape(array.shape), "strings.substr"))


def _part(text: Any, pos: int, count: int) -> Any:
    start = pos if pos >= 0 else max(len(text) + pos, 0)
    return text[start : start + count]


def _check_unit(unit: str, name: str) -> None:
    if unit not in _UNITS:
        raise ArgumentError(
            f"strings.{name}",
            received=f"unit={unit!r}",
            expected=" or ".join(map(repr, _UNITS)),
            fix="choose one",
        )


def as_string(
    input: Any,
    precision: int = -1,
    scientific: bool = False,
    shortest: bool = False,
    name: Any = None,
) -> Tensor:
    """Numbers as text: "true" and "false" for bools, six decimals for floats.

    precision: number of decimals. scientific: with an exponent. shortest: as short as possible.

    >>> graphnn.strings.as_string([1, -2]).tolist(), graphnn.strings.as_string([1.5]).tolist()
    (['1', '-2'], ['1.500000'])
    """
    if looks_like_text(input):
        return Tensor(text_array(input, "strings.as_string"))
    array = np.asarray(input)
    if array.dtype.kind == "b":
        return Tensor(np.where(array, np.array("true", string), np.array("false", string)))
    if array.dtype.kind in "iu":
        return Tensor(array.astype(str).astype(string))
    digits = "" if precision < 0 else f".{precision}"
    form = f"%{digits}{'g' if shortest else 'e' if scientific else 'f'}"
    text = [form % number for number in array.reshape(-1).tolist()]
    return Tensor(np.array(text, string).reshape(array.shape))


def to_number(input: Any, out_type: Any = "float32", name: Any = None) -> Tensor:
    """Text as numbers. Raises ArgumentError for text that is none.

    >>> graphnn.strings.to_number(["1.5", "2"]).tolist()
    [1.5, 2.0]
    """
    array = text_array(input, "strings.to_number")
    wanted = np.dtype(out_type)
    parse: Callable[[str], Any] = int if wanted.kind in "iu" else float
    text = array.reshape(-1).tolist()
    try:
        numbers = list(map(parse, text))
    except ValueError as error:
        raise ArgumentError(
            "strings.to_number",
            received=str(error),
            expected=f"text that is a number of dtype {wanted.name}",
            fix="clean the text first, or give out_type='float32'",
        ) from None
    return Tensor(np.array(numbers, wanted).reshape(array.shape))
