"""A driver that runs generated CUDA C on the host: g++ and `emulator.h` in the place of a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from graphnn.compiler.codegen.cuda import PRELUDE
from graphnn.runtime.device import DeviceProgram, LibraryRun
from tests.cuda import library_calls

HEADER = Path(__file__).with_name("emulator.h")
CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "cuda"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-strict-aliasing")
# For programs that are compiled one at a time: little time in the compiler and the linker.
FAST = (*(f for f in FLAGS if f != "-O1"), "-O0", "-pipe", "-fuse-ld=gold")
BATCH = 40  # kernels of one call of the compiler
GUARD = 64  # bytes on both sides of an array that nobody may touch
_ENTRY = re.compile(r'^extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\(', re.MULTILINE)
_DIGEST = re.compile(r"_[0-9a-f]{12}(_|$)")
_TEAMS = re.compile(r"__sync|_sync[<(]|_reduce<|block_scan<")


def why_not() -> str:
    """Why nothing can be emulated here, or the empty string."""
    fits = shutil.which("g++") and sys.platform != "win32"
    return "" if fits else "the emulation of CUDA needs g++ on a POSIX system"


def build(modules: Iterable[tuple[str, str]], wide: bool = False) -> dict[str, Any]:
    """Entry functions by name, from kernel texts; each text is compiled once and kept on disk."""
    texts = dict(modules)
    # A kernel with the entry for several segments is the same kernel without it, and more.
    texts = {n: t for n, t in texts.items() if f"{n}_many" not in texts}
    missing = {n: t for n, t in texts.items() if (n, wide) not in _FUNCTIONS}
    names = list(missing)
    batches = [names[k : k + BATCH] for k in range(0, len(names), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda b: _compile([(n, missing[n]) for n in b], wide), batches))
    found: dict[str, Any] = {}
    for name in texts:
        found |= _FUNCTIONS[name, wide]
    return found


_FUNCTIONS: dict[tuple[str, bool], dict[str, Any]] = {}
_BY_ENTRY: dict[tuple[str, bool], Any] = {}


def _compile(batch: Sequence[tuple[str, str]], wide: bool) -> None:
    library = ctypes.CDLL(str(_built(source(batch, wide), FLAGS)))
    for name, code in batch:
        own = {entry: _function(library, entry) for entry in _ENTRY.findall(code)}
        _FUNCTIONS[name, wide] = own
        _BY_ENTRY.update({(entry, wide): f for entry, f in own.items()})


def _function(library: ctypes.CDLL, entry: str) -> Any:
    """A kernel's function; `sizes` are the bytes of its parameters, negative for a pointer."""
    function = getattr(library, f"run_{entry}")
    function.restype = ctypes.c_char_p
    describe = getattr(library, f"sizes_{entry}")
    describe.restype = ctypes.POINTER(ctypes.c_int)
    sizes = describe()
    function.sizes = list(itertools.takewhile(bool, (sizes[k] for k in itertools.count())))
    return function


def load(text: str, wide: bool = False) -> dict[str, Any]:
    """Entry functions of a whole program's text by name, compiled on their own in little time."""
    own = text.removeprefix(PRELUDE)
    entries = list(_ENTRY.finditer(own))
    names = [e[1] for e in entries]
    # A kernel of graphnn has the digest of its text in its name.
    if all(_DIGEST.search(n) and (n, wide) in _BY_ENTRY for n in names):
        return {n: _BY_ENTRY[n, wide] for n in names}
    teams = bool(_TEAMS.search(own)) if "DEVICE" in own else None
    ends = [e.start() for e in entries[1:]] + [len(own)]
    lines = [f'#include "{_precompiled(wide)}"' if own != text else "\n".join(_head(wide)), own]
    for entry, end in zip(entries, ends, strict=True):
        fibers = bool(_TEAMS.search(own[entry.start() : end])) if teams is None else teams
        lines.append(f"GNN_ENTRY({entry[1]}, {'true' if fibers else 'false'})")
    library = ctypes.CDLL(str(_built("\n".join(lines), FAST)))
    found = {n: _function(library, n) for n in names}
    _BY_ENTRY.update({(n, wide): f for n, f in found.items() if _DIGEST.search(n)})
    return found


def _head(wide: bool) -> list[str]:
    return [*(["#define GNN_WIDE 1"] if wide else []), f'#include "{HEADER}"']


@functools.cache
def _precompiled(wide: bool) -> Path:
    """The header and the prelude, read once by the compiler."""
    text = "\n".join((*_head(wide), PRELUDE))
    flags = (*FAST, HEADER.read_text())
    path = CACHE / f"{_digest(text, flags)}.h"
    with _locked(path):
        made = path.with_suffix(".h.gch")
        if not made.exists():
            path.write_text(text)
            own = [f for f in FAST if f != "-shared" and not f.startswith("-fuse")]
            part = f"{made}.part"
            command = ["g++", *own, "-x", "c++-header", "-o", part, str(path)]
            subprocess.run(command, check=True, capture_output=True)
            Path(part).replace(made)
    return path


def _digest(text: str, flags: Sequence[str]) -> str:
    return hashlib.sha256((text + "\0".join(flags)).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from making the same file."""
    import fcntl  # not on Windows, where nothing is emulated

    CACHE.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _built(text: str, flags: Sequence[str]) -> Path:
    """The library of a text, from the disk if it was made before."""
    path = CACHE / f"{_digest(HEADER.read_text() + text, flags)}.so"
    if not path.exists():
        with _locked(path):
            if not path.exists():
                _compiler(text, path, flags)
    return path


def _compiler(text: str, path: Path, flags: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        file, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        file.write_text(text)
        command = ["g++", *flags, "-o", str(made), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            kept = CACHE / "failed.cpp"
            kept.write_text(text)
            raise RuntimeError(f"{kept}\n{done.stderr[:4000]}")
        made.replace(path)


def source(batch: Sequence[tuple[str, str]], wide: bool) -> str:
    """C++ for some kernels."""
    lines = [*_head(wide), PRELUDE]
    for _, code in batch:
        lines.append(code)
        teams = "true" if _TEAMS.search(code) else "false"
        lines += [f"GNN_ENTRY({entry}, {teams})" for entry in _ENTRY.findall(code)]
    return "\n".join(lines)


class EmulatedDriver:
    """Arrays of the device are NumPy arrays between guards. order: 1 turns the order of threads
    and blocks round."""

    stream, many = 0, False

    @staticmethod
    def scope() -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def __init__(self, order: int = 0) -> None:
        self.order = order
        self.launches: list[str] = []
        self.pending: dict[Any, int] = {}
        self._guards: list[np.ndarray[Any, Any]] = []
        self._record: list[Callable[[], None]] | None = None  # of the capture under way

    def compile(self, texts: Sequence[str], entries: Sequence[str], wide: bool) -> dict[str, Any]:
        return {e: _BY_ENTRY[e, wide] for e in entries}  # compiled before, by `build_all`

    def launch(
        self, function: Any, blocks: int, threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        values = [type(a)(a.value) for a in arguments]  # a graph keeps what they are now
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))

        def work() -> None:
            kept = (values, pointers)
            message = function(kept[1], blocks, threads, shared, self.order)
            self.launches.append(function.__name__)
            if message:
                raise RuntimeError(f"{function.__name__}: {message.decode()}")
            self._check_guards(function.__name__)

        self._do(work)

    def _do(self, work: Callable[[], None]) -> None:
        if self._record is None:
            work()
        else:
            self._record.append(work)

    def library(self, run: LibraryRun, addresses: Sequence[int]) -> None:
        def work() -> None:
            library_calls.run_library(run, addresses)
            self._check_guards("library")

        self._do(work)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> EmulatedBuffer:
        return EmulatedBuffer(self.empty(shape, dtype))

    def shared(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, int]:
        array = np.zeros(shape, dtype)
        return array, self.address(array)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.full(nbytes + 2 * GUARD + 16, 0xFF, np.uint8)
        start = GUARD + -(memory.ctypes.data + GUARD) % 16
        self._guards.append(memory[:start])
        self._guards.append(memory[start + nbytes :])
        self._guards = self._guards[-400:]
        return memory[start : start + nbytes].view(dtype).reshape(shape)

    def _check_guards(self, name: str) -> None:
        if not all((g == 0xFF).all() for g in self._guards):
            raise RuntimeError(f"{name} wrote outside its arrays")

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def view(self, arena: Any, offset: int, shape: tuple[int, ...], dtype: Any) -> Any:
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return arena[offset : offset + nbytes].view(dtype).reshape(shape)

    def copy(self, target: Any, source: Any) -> None:
        self._do(lambda: np.copyto(target, source.reshape(target.shape)))

    def upload(self, target: Any, source: np.ndarray[Any, Any]) -> None:
        np.copyto(target, source)

    def download(self, source: Any) -> np.ndarray[Any, Any]:
        return np.array(source)

    def capture(self, work: Callable[[], None]) -> Any:
        if self._record is not None:
            raise RuntimeError("a capture within a capture")
        self._record = record = []
        try:
            work()
        finally:
            self._record = None
        return record

    def replay(self, graph: Any) -> None:
        for work in graph:
            work()

    def synchronize(self) -> None:
        """Everything is done."""

    def times(self, works: Sequence[Callable[[], None]], gated: bool) -> list[float]:
        found = []
        for work in works:
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
        return found

    def array(self, values: Any) -> Any:
        """A copy on the emulated device."""
        values = np.asarray(values)
        own = self.empty(values.shape, values.dtype)
        own[...] = values
        return own


class EmulatedBuffer:
    """Memory that is given out again and again."""

    def __init__(self, own: np.ndarray[Any, Any]) -> None:
        self.own, self.address = own, int(own.ctypes.data)
        self._lent: list[weakref.ref[Any]] = []

    def lend(self, shape: tuple[int, ...]) -> Any:
        if not self.own.nbytes:
            return np.empty(shape, self.own.dtype)
        # All views of an array over a buffer refer to that array, and not to the memory's owner.
        lent = np.frombuffer(memoryview(self.own.reshape(-1).view(np.uint8)), np.uint8)
        self._lent.append(weakref.ref(lent))
        return lent.view(self.own.dtype).reshape(shape)

    def held(self) -> bool:
        self._lent = [r for r in self._lent if r() is not None]
        return bool(self._lent)


def build_all(programs: Iterable[DeviceProgram], wide: bool = False) -> None:
    """Compile the kernels of many programs in few calls of the compiler."""
    build([m for p in programs for m in p.program.modules], wide)
