"""A driver that runs generated CUDA C on the host: g++ and `emulator.h` in the place of a GPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from graphnn.compiler.codegen.cuda import PRELUDE
from graphnn.runtime.device import DeviceProgram, ProductRun

HEADER = Path(__file__).with_name("emulator.h")
CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "cuda"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-strict-aliasing")
BATCH = 40  # kernels of one call of the compiler
GUARD = 64  # bytes on both sides of an array that nobody may touch
_ENTRY = re.compile(r'^extern "C" __global__ void __launch_bounds__\(\d+\) (\w+)\(', re.MULTILINE)
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
    import fcntl  # not on Windows, where nothing is emulated

    text = source(batch, wide)
    digest = hashlib.sha256((HEADER.read_text() + text + " ".join(FLAGS)).encode()).hexdigest()
    path = CACHE / f"{digest[:24]}.so"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{digest[:24]}.lock").open("w") as lock:  # another process may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compiler(text, path)
    library = ctypes.CDLL(str(path))
    for name, code in batch:
        own = {}
        for entry in _ENTRY.findall(code):
            function = getattr(library, f"run_{entry}")
            function.restype = ctypes.c_char_p
            own[entry] = _BY_ENTRY[entry, wide] = function
        _FUNCTIONS[name, wide] = own


def _compiler(text: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        file, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        file.write_text(text)
        command = ["g++", *FLAGS, "-o", str(made), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            kept = CACHE / "failed.cpp"
            kept.write_text(text)
            raise RuntimeError(f"{kept}\n{done.stderr[:4000]}")
        made.replace(path)


def source(batch: Sequence[tuple[str, str]], wide: bool) -> str:
    """C++ for some kernels."""
    lines = ["#define GNN_WIDE 1"] if wide else []
    lines += [f'#include "{HEADER}"', PRELUDE]
    for _, code in batch:
        lines.append(code)
        teams = "true" if _TEAMS.search(code) else "false"
        lines += [f"GNN_ENTRY({entry}, {teams})" for entry in _ENTRY.findall(code)]
    return "\n".join(lines)


class EmulatedDriver:
    """Arrays of the device are NumPy arrays between guards. order: 1 turns the order of threads
    and blocks round."""

    def __init__(self, order: int = 0) -> None:
        self.order = order
        self.launches: list[str] = []
        self._guards: list[np.ndarray[Any, Any]] = []

    def compile(self, text: str, entries: Sequence[str], wide: bool) -> dict[str, Any]:
        return {e: _BY_ENTRY[e, wide] for e in entries}  # compiled before, by `build_all`

    def launch(
        self, function: Any, blocks: int, threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.cast(ctypes.pointer(a), ctypes.c_void_p) for a in arguments)
        )
        message = function(pointers, blocks, threads, shared, self.order)
        self.launches.append(function.__name__)
        if message:
            raise RuntimeError(f"{function.__name__}: {message.decode()}")
        self._check_guards(function.__name__)

    def product(self, run: ProductRun, dtype: np.dtype[Any], addresses: Sequence[int]) -> None:
        short = dtype.itemsize == 2
        for offsets in run.offsets:
            sizes = (run.m * run.k, run.k * run.n, run.m * run.n)
            a, b, c = (
                _at(address + offset * dtype.itemsize, size, dtype)
                for address, offset, size in zip(addresses, offsets, sizes, strict=True)
            )
            left = a.reshape(run.k, run.m).T if run.transpose[0] else a.reshape(run.m, run.k)
            right = b.reshape(run.n, run.k).T if run.transpose[1] else b.reshape(run.k, run.n)
            if short:
                left, right = left.astype(np.float32), right.astype(np.float32)
            with np.errstate(all="ignore"):
                c.reshape(run.m, run.n)[...] = (left @ right).astype(dtype)

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
        np.copyto(target, source.reshape(target.shape))

    def upload(self, target: Any, source: np.ndarray[Any, Any]) -> None:
        np.copyto(target, source)

    def download(self, source: Any) -> np.ndarray[Any, Any]:
        return np.array(source)

    def capture(self, work: Callable[[], None]) -> Any:
        return work  # replaying is starting the same launches with the same addresses

    def replay(self, graph: Any) -> None:
        graph()

    def array(self, values: Any) -> Any:
        """A copy on the emulated device."""
        values = np.asarray(values)
        own = self.empty(values.shape, values.dtype)
        own[...] = values
        return own


def _at(address: int, size: int, dtype: np.dtype[Any]) -> Any:
    nbytes = size * dtype.itemsize
    if not nbytes:
        return np.empty(0, dtype)
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype)


def build_all(programs: Iterable[DeviceProgram], wide: bool = False) -> None:
    """Compile the kernels of many programs in few calls of the compiler."""
    build([m for p in programs for m in p.program.modules], wide)
