"""Object code kept by content hash: in memory, and in a folder shared by all processes.

A file is `MAGIC + checksum + object code`, written under a temporary name and renamed, so that a
reader sees a whole file or none. A folder that cannot be used means no disk cache, never an error.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import os
import sys
import threading
import time
from pathlib import Path

__all__ = ["FORMAT_VERSION", "ObjectCache", "cache_directory", "cache_limit", "object_cache"]

FORMAT_VERSION = 1
_MAGIC = b"gnnobj%02d" % FORMAT_VERSION
_CHECKSUM_BYTES = 16
_MEMORY_BYTES = 64 << 20
_DISK_BYTES = 1 << 30
_PRUNE_EVERY = 128
_TOUCH_AFTER_S = 3600.0


def cache_directory() -> Path:
    """The folder of compiled code: `GRAPHNN_CACHE_DIR`, or the platform's user cache folder."""
    chosen = os.environ.get("GRAPHNN_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local") / "graphnn"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "graphnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "graphnn"


def _home() -> Path:
    # A user without a home folder gets a path that cannot be made: no disk cache.
    with contextlib.suppress(RuntimeError):
        return Path.home()
    return Path(os.devnull)


def cache_limit() -> int:
    """Bytes the folder may hold: `GRAPHNN_CACHE_BYTES` or 1 GiB; 0 or less turns it off."""
    try:
        return int(os.environ.get("GRAPHNN_CACHE_BYTES", _DISK_BYTES))
    except ValueError:
        return _DISK_BYTES


class ObjectCache:
    """Two levels, memory then disk; safe between threads and between processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory: collections.OrderedDict[str, bytes] = collections.OrderedDict()
        self._memory_bytes = 0
        self._writes = 0
        self._problem: str | None = None
        self.memory_hits = 0
        self.disk_hits = 0
        self.misses = 0

    def load(self, digest: str) -> bytes | None:
        """The object code stored under `digest`, or None."""
        with self._lock:
            found = self._memory.get(digest)
            if found is not None:
                self._memory.move_to_end(digest)
                self.memory_hits += 1
                return found
        found = self._read(digest)
        with self._lock:
            if found is None:
                self.misses += 1
                return None
            self.disk_hits += 1
            self._remember(digest, found)
        return found

    def store(self, digest: str, code: bytes) -> None:
        """Keep `code` in memory and, where the folder allows, on disk."""
        with self._lock:
            self._remember(digest, code)
        if cache_limit() <= 0:
            return
        try:
            self._write(digest, code)
            self._problem = None
        except OSError as error:
            self._problem = str(error)

    def forget(self) -> None:
        """Drop the memory level; the folder stays."""
        with self._lock:
            self._memory.clear()
            self._memory_bytes = 0

    def after_fork(self) -> None:
        """In the child: a lock that another thread of the parent held is never released."""
        self._lock = threading.Lock()

    def status(self) -> dict[str, object]:
        """Folder, its size, hits and misses of this process, and why the disk is not used."""
        folder = _objects_folder()
        files = list(_stored_files(folder))
        problem = "turned off by GRAPHNN_CACHE_BYTES" if cache_limit() <= 0 else self._problem
        return {
            "directory": str(folder),
            "disk": problem is None,
            "problem": problem,
            "files": len(files),
            "bytes": sum(size for _, size, _ in files),
            "limit": cache_limit(),
            "memory_hits": self.memory_hits,
            "disk_hits": self.disk_hits,
            "misses": self.misses,
        }

    def _remember(self, digest: str, code: bytes) -> None:
        if digest in self._memory:
            return
        self._memory[digest] = code
        self._memory_bytes += len(code)
        while self._memory_bytes > _MEMORY_BYTES and len(self._memory) > 1:
            _, dropped = self._memory.popitem(last=False)
            self._memory_bytes -= len(dropped)

    def _read(self, digest: str) -> bytes | None:
        if cache_limit() <= 0:
            return None
        path = _object_path(digest)
        try:
            with path.open("rb") as file:
                data = file.read()
                age = time.time() - os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        head = len(_MAGIC)
        code = data[head + _CHECKSUM_BYTES :]
        if data[:head] != _MAGIC or data[head : head + _CHECKSUM_BYTES] != _checksum(code):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        # The time stamp orders files by last use; once an hour is enough.
        if age > _TOUCH_AFTER_S:
            with contextlib.suppress(OSError):
                os.utime(path)
        return code

    def _write(self, digest: str, code: bytes) -> None:
        path = _object_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".new-{os.getpid()}-{next(_serial)}-{path.name}")
        try:
            with temporary.open("xb") as file:
                file.write(_MAGIC + _checksum(code) + code)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        with self._lock:
            self._writes += 1
            due = self._writes % _PRUNE_EVERY == 1
        if due:
            prune(cache_limit())


def prune(limit: int) -> int:
    """Delete the files used longest ago until the folder holds `limit` bytes; bytes freed."""
    files = sorted(_stored_files(_objects_folder(), leftovers=True))
    total = sum(size for _, size, _ in files)
    goal = limit if total <= limit else limit * 4 // 5
    freed = 0
    for modified, size, path in files:
        stale = path.name.startswith(".new-") and time.time() - modified > _TOUCH_AFTER_S
        if total - freed <= goal and not stale:
            continue
        # Another process may have deleted it first.
        with contextlib.suppress(OSError):
            path.unlink()
            freed += size
    return freed


def _objects_folder() -> Path:
    return cache_directory() / "cpu"


def _object_path(digest: str) -> Path:
    return _objects_folder() / digest[:2] / f"{digest[2:]}.o"


def _checksum(code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=_CHECKSUM_BYTES).digest()


def _stored_files(folder: Path, leftovers: bool = False) -> list[tuple[float, int, Path]]:
    """Time of last use, size and path of each object; with `leftovers` of broken writes too."""
    found = []
    try:
        shelves = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []
    for shelf in shelves:
        with contextlib.suppress(OSError):
            for entry in os.scandir(shelf):
                if not (entry.name.endswith(".o") or leftovers):
                    continue
                with contextlib.suppress(OSError):
                    facts = entry.stat()
                    found.append((facts.st_mtime, facts.st_size, Path(entry.path)))
    return found


_serial = itertools.count()
object_cache = ObjectCache()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=object_cache.after_fork)
