"""Elements and positions as bytes: JSON for the structure, raw memory for the arrays. No pickle."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from graphnn.compiler.ir.types import as_dtype
from graphnn.data.elements import STRING, Array, is_string
from graphnn.runtime.errors import ArgumentError, StateError

_MAGIC = b"graphnn1"
_LENGTH = 8


def pack(value: Any) -> bytes:
    """Bytes of nested dicts, lists and tuples of arrays, numbers, text and None.

    Raises ArgumentError for anything else.

    >>> unpack(pack({"a": (1, [2.5, None]), "b": "text"}))
    {'a': (1, [2.5, None]), 'b': 'text'}
    """
    chunks: list[bytes] = []
    head = json.dumps(_encode(value, chunks)).encode()
    return b"".join((_MAGIC, len(head).to_bytes(_LENGTH, "little"), head, *chunks))


def _encode(value: Any, chunks: list[bytes]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return ["list", *(_encode(v, chunks) for v in value)]
    if kind is tuple:
        return ["tuple", *(_encode(v, chunks) for v in value)]
    if kind is dict:
        return ["dict", *([_encode(k, chunks), _encode(v, chunks)] for k, v in value.items())]
    if kind is np.ndarray and is_string(value):
        return ["strings", list(value.shape), value.ravel().tolist()]
    if kind is np.ndarray:
        chunks.append(value.tobytes())
        return ["array", value.dtype.name, list(value.shape)]
    raise ArgumentError(
        "writing elements to a file",
        received=f"a {kind.__name__}",
        expected="tuples, dicts and lists of arrays",
        fix="return tuples or dicts from map; dataclasses and named tuples cannot be written",
    )


def unpack(data: bytes | memoryview) -> Any:
    """The value of `pack`. Raises StateError for damaged bytes."""
    try:
        view = memoryview(data)
        if bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise ValueError("it does not begin as it should")
        start = len(_MAGIC) + _LENGTH
        length = int.from_bytes(view[len(_MAGIC) : start], "little")
        reader = _Reader(view[start + length :])
        value = reader.decode(json.loads(bytes(view[start : start + length])))
        if reader.at != len(reader.view):
            raise ValueError("it is longer than it should be")
        return value
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise StateError(
            "reading elements from a file",
            received=f"damaged data: {error}",
            expected="what graphnn wrote",
            fix="delete the file and make it anew",
        ) from None


class _Reader:
    def __init__(self, view: memoryview) -> None:
        self.view, self.at = view, 0

    def decode(self, code: Any) -> Any:
        if not isinstance(code, list):
            return code
        kind, *rest = code
        if kind == "list":
            return [self.decode(c) for c in rest]
        if kind == "tuple":
            return tuple([self.decode(c) for c in rest])
        if kind == "dict":
            return {self.decode(k): self.decode(v) for k, v in rest}
        if kind == "strings":
            return np.array(rest[1], STRING).reshape(rest[0])
        return self._array(*rest)

    def _array(self, name: str, shape: list[int]) -> Array:
        dtype = as_dtype(name)
        stop = self.at + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if min(shape, default=0) < 0 or stop > len(self.view):
            raise ValueError("an array is cut off")
        array = np.frombuffer(self.view[self.at : stop], dtype).reshape(shape).copy()
        self.at = stop
        return array


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, or leave everything as it was."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
