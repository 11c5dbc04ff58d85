"""Files and folders, local or wherever fsspec reaches (s3://, gs://, https://, memory://, zip://)."""

from __future__ import annotations

import bz2
import glob
import gzip
import importlib
import io
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from graphnn.runtime.errors import ArgumentError

_OPENERS: dict[str, Callable[..., Any]] = {"GZIP": gzip.open, "BZ2": bz2.open, "XZ": lzma.open}


class MissingPackageError(ArgumentError, ImportError):
    """An optional package that is not installed."""


def needed(module: str, package: str, purpose: str) -> Any:
    """An optional package. Raises MissingPackageError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            purpose,
            received=f"no package {package!r}",
            expected=f"{package} to be installed",
            fix="pip install 'graphnn[data]'",
        ) from error


def is_remote(path: str) -> bool:
    """Whether a path names another file system, as in memory://folder/file."""
    return "://" in path or "::" in path


def names(value: Any, subject: str) -> list[str]:
    """Paths as a list of text, from one path or many of them."""
    if isinstance(value, str | os.PathLike):
        return [os.fspath(value)]
    items = value.tolist() if hasattr(value, "tolist") else list(value)
    found = [os.fspath(item) for item in (items if isinstance(items, list) else [items])]
    if found:
        return found
    raise ArgumentError(subject, received="no path", expected="at least one path")


def expand(patterns: Any, subject: str) -> list[str]:
    """The files that paths and patterns with * and ? name, sorted for each pattern.

    Raises ArgumentError for a pattern that no file matches.
    """
    found: list[str] = []
    for pattern in names(patterns, subject):
        matches = sorted(_matches(pattern))
        if not matches:
            raise ArgumentError(
                subject,
                received=f"{pattern!r}, which no file matches",
                expected="an existing file, or a pattern that matches some",
                fix=f"check the path; the current folder is {os.getcwd()}",
            )
        found += matches
    return found


def _matches(pattern: str) -> list[str]:
    if is_remote(pattern):
        fs, path = _filesystem(pattern)
        return [fs.unstrip_protocol(p) for p in fs.glob(path)]
    if Path(pattern).is_file():
        return [pattern]  # also a name that holds a *
    return [p for p in glob.glob(pattern, recursive=True) if Path(p).is_file()]


def _filesystem(path: str) -> tuple[Any, str]:
    fsspec = needed("fsspec", "fsspec", f"reading {path}")
    return cast("tuple[Any, str]", fsspec.core.url_to_fs(path))


def open_binary(path: str, compression: str | None = None) -> BinaryIO:
    """A file for reading bytes.

    compression: "GZIP", "BZ2", "XZ", None or "". Raises ArgumentError for another one, and
    FileNotFoundError for a missing file.
    """
    kind = (compression or "").upper()
    if kind and kind not in _OPENERS:
        raise ArgumentError(
            f"reading {path}",
            received=f"compression {compression!r}",
            expected=f"one of {', '.join(_OPENERS)}, or None",
        )
    if not is_remote(path):
        return cast(BinaryIO, _OPENERS[kind](path, "rb") if kind else open(path, "rb"))
    fs, inner = _filesystem(path)
    raw = fs.open(inner, "rb")
    return cast(BinaryIO, _Unpacked(_OPENERS[kind](raw, "rb"), raw) if kind else raw)


class _Unpacked(io.BufferedReader):
    """Unpacks a file and closes it too, which the openers do for files of their own only."""

    def __init__(self, unpacked: Any, packed: Any) -> None:
        super().__init__(unpacked)
        self._packed = packed

    def close(self) -> None:
        super().close()
        self._packed.close()


def folders(path: str) -> list[str]:
    """Names of the folders in a folder, sorted. Raises ArgumentError if it is not a folder."""
    if not is_remote(path):
        root = Path(path)
        if not root.is_dir():
            raise _no_folder(path)
        return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    fs, inner = _filesystem(path)
    if not fs.isdir(inner):
        raise _no_folder(path)
    inside = (p for p in fs.ls(inner, detail=False) if fs.isdir(p))
    return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in inside)


def _no_folder(path: str) -> ArgumentError:
    return ArgumentError(
        "reading a folder",
        received=repr(path),
        expected="an existing folder",
        fix=f"check the path; the current folder is {os.getcwd()}",
    )


def files(path: str, endings: tuple[str, ...], follow_links: bool = False) -> list[str]:
    """Paths of all files below a folder whose names end so, sorted; hidden ones left out."""
    if is_remote(path):
        fs, inner = _filesystem(path)
        found = [fs.unstrip_protocol(p) for p in fs.find(inner)]
    else:
        found = list(_walk(path, follow_links))
    return sorted(p for p in found if p.lower().endswith(endings))


def _walk(path: str, follow_links: bool) -> Iterator[str]:
    for folder, inside, here in os.walk(path, followlinks=follow_links):
        inside[:] = [name for name in inside if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in here if not name.startswith("."))


def join(folder: str, name: str) -> str:
    """The path of something in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)
