"""Weights in safetensors files, under the names that they have in Keras' HDF5 files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize
from safetensors.numpy import save_file

from graphnn.compiler.ir.types import as_dtype
from graphnn.keras.saving.state import Group


def write(target: Path, groups: dict[str, Group]) -> None:
    """Write groups: the array `key` of the group `path` as the tensor "path/vars/key"."""
    tensors = {
        _name(path, key): np.ascontiguousarray(value).reshape(np.shape(value))
        for path, group in groups.items()
        for key, value in group.arrays.items()
    }
    names = {path: group.name for path, group in groups.items() if group.name is not None}
    save_file(tensors, target, {"format": "graphnn", "names": json.dumps(names)})


def _name(path: str, key: str) -> str:
    return f"{path}/vars/{key}" if path else f"vars/{key}"


class Reader:
    """The groups of a file's content."""

    def __init__(self, content: bytes) -> None:
        self._groups: dict[str, dict[str, Any]] = {}
        for name, entry in deserialize(content):  # type: ignore[no-untyped-call]
            array = np.frombuffer(entry["data"], _dtype_of(entry["dtype"])).reshape(entry["shape"])
            path, _, key = f"/{name}".rpartition("/vars/")
            self._groups.setdefault(path.removeprefix("/"), {})[key] = array

    def get(self, path: str) -> dict[str, Any] | None:
        """The arrays of a group by key; None if there is no such group."""
        return self._groups.get(path)


def _dtype_of(code: str) -> Any:
    """The dtype that the format calls F32, BF16, I64, BOOL, ..."""
    if code in ("BOOL", "BF16"):
        return as_dtype({"BOOL": "bool", "BF16": "bfloat16"}[code])
    kinds = {"F": "float", "I": "int", "U": "uint"}
    return as_dtype(kinds[code[0]] + code[1:])


def is_header(head: bytes) -> bool:
    """Whether a file begins as safetensors files do: the length of a JSON text, then the text."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27
