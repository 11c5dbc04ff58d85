"""Files that are there whole or not at all, and the error for those that are damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graphnn.runtime.errors import ArgumentError, GraphnnError, StateError


class SavedFileError(GraphnnError, ValueError):
    """A saved model or weights file that is damaged, or is no such file."""


def check_free(path: Path, overwrite: bool) -> None:
    """Raise StateError if there is something already that must not be overwritten."""
    if overwrite or not path.exists():
        return
    raise StateError(
        "saving",
        received=f"{path}, which exists, and overwrite=False",
        expected="a path that is free",
        fix="give another path, or overwrite=True",
    )


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write a file at; it takes its final name when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes its final name, in place of an older one, at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path / "config.json").is_file():
        raise ArgumentError(
            "saving as a folder",
            received=f"{path}, which exists and is no saved model",
            expected="a path that is free, or a model saved before",
            fix="give another path",
        )
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    """Make sure that the content is on the disk before the name is."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def reading(path: Any, what: str) -> Iterator[None]:
    """Turn what readers raise for a damaged file into one error that names it.

    A file that is missing or may not be read stays the system's own error.
    """
    try:
        yield
    except (GraphnnError, FileNotFoundError, PermissionError, ImportError, MemoryError):
        raise
    except Exception as error:  # readers of damaged data raise whatever they stumble over
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SavedFileError(
            what,
            received=f"{path}, which is damaged or is no such file: {text}",
            expected="a file as `save` or `save_weights` writes it",
            fix="copy it again, or go back to an older one",
        ) from error
