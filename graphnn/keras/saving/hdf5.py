"""Weights in HDF5, laid out as Keras 3 does: group `<path>/vars` with datasets "0", "1", ..."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphnn.compiler.ir.types import as_dtype
from graphnn.keras.saving.files import SavedFileError
from graphnn.keras.saving.state import Group

MAGIC = b"\x89HDF\r\n\x1a\n"
_KINDS = "biufV"  # bool, integers, floats; V: bfloat16 as bytes
_LARGE = 1 << 28  # bytes from which on declared and stored sizes are compared
_EXPANSION = 1000


def module() -> Any:
    """h5py. Raises ImportError saying how to get it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "the HDF5 files of Keras need the package h5py: pip install 'graphnn[hdf5]'. "
            "Without it, save_weights('NAME.safetensors') works, and so do paths without a suffix."
        ) from error
    return h5py


def is_installed() -> bool:
    """Whether h5py can be imported."""
    try:
        module()
    except ImportError:
        return False
    return True


def write(target: Any, groups: dict[str, Group], checksums: bool = False) -> None:
    """Write groups to a path or a binary file.

    checksums: store one for each dataset, so that a damaged file is found out when it is read.
    """
    with module().File(target, "w") as file:
        for path, group in groups.items():
            entry = file.create_group(f"{path}/vars" if path else "vars")
            if group.name is not None:
                entry.attrs["name"] = group.name
            for key, value in group.arrays.items():
                _put(entry, key, np.asarray(value), checksums)


def _put(entry: Any, key: str, array: Any, checksums: bool) -> None:
    # HDF5 has no bfloat16: Keras stores the two bytes as they are and writes the name beside them.
    half = array.dtype.name == "bfloat16"
    options: dict[str, Any] = {}
    if checksums and array.size and array.ndim and array.nbytes < 1 << 31:
        options = {"chunks": array.shape, "fletcher32": True}
    dataset = entry.create_dataset(key, data=array.view("V2") if half else array, **options)
    if half:
        dataset.attrs["dtype"] = "bfloat16"


class Reader:
    """The groups of an open file; nothing outside the file is followed."""

    def __init__(self, file: Any, label: str) -> None:
        self._file, self._label, self._h5py = file, label, module()

    def get(self, path: str) -> dict[str, Any] | None:
        """The arrays of a group by key; None if there is no such group."""
        entry = self._entry(f"{path}/vars" if path else "vars")
        if entry is None:
            return None
        return {key: self._array(entry, key) for key in entry}

    def _entry(self, path: str) -> Any:
        entry = self._file
        for part in path.split("/"):
            if part not in entry:
                return None
            self._check_link(entry, part)
            entry = entry[part]
            if not isinstance(entry, self._h5py.Group):
                raise self._bad(f"{path}, which is no group")
        return entry

    def _check_link(self, entry: Any, name: str) -> None:
        if not isinstance(entry.get(name, getlink=True), self._h5py.HardLink):
            raise self._bad(f"{entry.name}/{name}, a link to somewhere else")

    def _array(self, entry: Any, key: str) -> Any:
        self._check_link(entry, key)
        data, name = entry[key], f"{entry.name}/{key}"
        if not isinstance(data, self._h5py.Dataset) or data.dtype.kind not in _KINDS:
            raise self._bad(f"{name}, which holds no numbers")
        if data.external or data.is_virtual:
            raise self._bad(f"{name}, whose data lie in another file")
        declared = math.prod(data.shape) * data.dtype.itemsize
        if declared > _LARGE and declared > _EXPANSION * data.id.get_storage_size():
            raise self._bad(f"{name}, which would fill {declared} bytes from next to nothing")
        return self._decoded(name, data)

    def _decoded(self, name: str, data: Any) -> Any:
        array = np.asarray(data[()])
        if data.dtype.kind != "V":
            kind = data.attrs.get("dtype")
            return array if kind != "bfloat16" else array.astype(as_dtype("bfloat16"))
        if data.dtype.itemsize != 2 or data.attrs.get("dtype") != "bfloat16":
            raise self._bad(f"{name}, which holds no numbers")
        return array.view(as_dtype("bfloat16"))

    def _bad(self, received: str) -> SavedFileError:
        return SavedFileError(
            "loading weights",
            received=f"{self._label} with {received}",
            expected="datasets of numbers inside the file",
            fix="do not use this file unless you trust who made it",
        )


@contextmanager
def opened(source: Any, label: str) -> Iterator[Reader]:
    """A Reader of a path or binary file. label: what errors call it."""
    with module().File(source, "r") as file:
        yield Reader(file, label)
