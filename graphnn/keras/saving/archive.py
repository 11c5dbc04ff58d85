"""The parts of a saved model: in a zip archive (`.keras`) or in a folder, read with distrust."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from graphnn.keras.saving.files import SavedFileError

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS_H5, WEIGHTS_ST = "model.weights.h5", "model.weights.safetensors"
ASSETS = "assets/"

_MAX_CONFIG = 1 << 28  # bytes
_MAX_MEMBERS = 100_000
_LARGE = 1 << 28  # bytes from which on stored and unpacked sizes are compared
_EXPANSION = 100


class Parts(Protocol):
    """The files of a saved model by name."""

    def names(self) -> set[str]:
        """Names of all files, with "/" between folders."""

    def read(self, name: str) -> bytes:
        """Content of a file."""


class ZipParts:
    """The members of a zip archive. Raises SavedFileError for one that no writer makes by honest
    means: names that lead out of it, twice the same name, sizes that explode."""

    def __init__(self, archive: zipfile.ZipFile, label: str) -> None:
        self._archive, self._label = archive, label
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise self._bad(f"{len(members)} members")
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            self._check(member)
            self._members[member.filename] = member

    def _check(self, member: zipfile.ZipInfo) -> None:
        name = member.orig_filename
        if name in self._members:
            raise self._bad(f"two members with the name {name!r}")
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or not path.parts
        if outside or any(c in name for c in "\\:\0"):
            raise self._bad(f"the member {name!r}, whose name leads out of the archive")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise self._bad(f"the member {name!r}, a link to somewhere else")
        explodes = member.file_size > _EXPANSION * max(member.compress_size, 1)
        if member.file_size > _LARGE and explodes:
            raise self._bad(f"the member {name!r}, which would fill {member.file_size} bytes")
        if name in (CONFIG, METADATA) and member.file_size > _MAX_CONFIG:
            raise self._bad(f"the member {name!r} of {member.file_size} bytes")

    def names(self) -> set[str]:
        """Names of all files."""
        return {name for name in self._members if not name.endswith("/")}

    def read(self, name: str) -> bytes:
        """Content of a member; its checksum is verified."""
        if name not in self._members:
            raise self._bad(f"no member {name!r}")
        return self._archive.read(self._members[name])

    def _bad(self, received: str) -> SavedFileError:
        return SavedFileError(
            "loading a model",
            received=f"{self._label} with {received}",
            expected="an archive as `save` writes it",
            fix="do not use this file unless you trust who made it",
        )


class FolderParts:
    """The files of a folder; links in it are not followed out of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> set[str]:
        """Names of all files."""
        files = (p for p in self._folder.rglob("*") if p.is_file())
        return {p.relative_to(self._folder).as_posix() for p in files if self._is_inside(p)}

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._folder.resolve())

    def read(self, name: str) -> bytes:
        """Content of a file."""
        path = self._folder / name
        if not self._is_inside(path):
            raise SavedFileError(
                "loading a model",
                received=f"{path}, a link to somewhere else",
                expected="files inside the folder",
                fix="do not use this folder unless you trust who made it",
            )
        return path.read_bytes()


@contextmanager
def opened(path: Path) -> Iterator[Parts]:
    """The parts of the model at a path."""
    if path.is_dir():
        yield FolderParts(path)
        return
    with zipfile.ZipFile(path) as archive:
        yield ZipParts(archive, str(path))


def config_of(parts: Parts, label: str) -> dict[str, Any]:
    """The model's config. Raises SavedFileError for one that is none."""
    try:
        config = json.loads(parts.read(CONFIG))
    except RecursionError:
        config = None
    if isinstance(config, dict) and "class_name" in config:
        return config
    raise SavedFileError(
        "loading a model",
        received=f"{label}, whose {CONFIG} describes no model",
        expected="an archive as `save` writes it",
        fix="copy it again, or go back to an older one",
    )


def pack(folder: Path, target: Path) -> None:
    """The files of a folder as a zip archive, metadata and config first, uncompressed as Keras
    writes them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in files}
    first = [name for name in (METADATA, CONFIG) if name in names]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in [*first, *(n for n in names if n not in first)]:
            archive.write(names[name], name)


def unpack_assets(parts: Parts, folder: Path) -> bool:
    """Write the assets of a model into a folder. Whether there are any."""
    names = sorted(name for name in parts.names() if name.startswith(ASSETS))
    for name in names:
        target = folder / name.removeprefix(ASSETS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(parts.read(name))
    return bool(names)


def drop_empty(folder: Path) -> None:
    """Remove folders without files."""
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    if folder.exists() and not any(folder.iterdir()):
        shutil.rmtree(folder)
