"""CUDA C to machine code by NVIDIA's run-time compiler, without a GPU, a toolkit or headers.

The compiler comes with the wheel `nvidia-cuda-nvrtc` (CUDA 13) or `nvidia-cuda-nvrtc-cu12`, or with
a toolkit. A driver loads machine code of compilers up to its own major version, so of several the
newest that fits the driver is taken. Compiled code is kept on disk under the hash of its text,
options and compiler.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graphnn.runtime.cpu.objects import object_cache
from graphnn.runtime.errors import GraphnnError

# No contraction to fused multiply-add: compiled results are those of eager code.
OPTIONS = ("--fmad=false", "--std=c++17", "--diag-suppress=177")
INSTALL = "pip install 'graphnn[cuda13]', or nvidia-cuda-nvrtc alone"
MOST_PIECES = 8  # of a program that are compiled side by side
LEAST_PIECE = 8000  # characters of one
_PATTERNS = {"linux": "libnvrtc.so*", "win32": "nvrtc64_*.dll"}
_BESIDE = re.compile("builtins|[.]alt[.]")  # names of other libraries in the same folders
_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


class NvrtcError(GraphnnError):
    """NVRTC is missing or refused a text."""


def why_not() -> str:
    """Why nothing can be compiled here, or the empty string."""
    try:
        _library()
    except NvrtcError as error:
        return str(error)
    return ""


def version() -> tuple[int, int]:
    """(major, minor) of NVRTC. Raises NvrtcError without it."""
    return _version_of(_library())


def _version_of(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile_cubin(text: str, architecture: str, defines: Sequence[str] = ()) -> bytes:
    """Machine code of a CUDA C text; for a GPU that is newer than the compiler, PTX, which the
    driver translates.

    architecture: such as "sm_90". defines: macros, such as "GNN_WIDE". Raises NvrtcError with the
    compiler's messages, or for a GPU that the compiler does not know any more.
    """
    name, kind = target_of(architecture, architectures())
    options = [f"--gpu-architecture={name}", *OPTIONS, *(f"-D{d}" for d in defines)]
    parts = (text, *options, str(version()))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    code = object_cache.load(digest)
    if code is None:
        code = _compile(text, options, kind)
        object_cache.store(digest, code)
    return code


def architectures() -> tuple[int, ...]:
    """The numbers of the architectures that NVRTC compiles for, such as 90."""
    library, count = _library(), ctypes.c_int()
    _check(library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "nvrtcGetNumSupportedArchs")
    found = (ctypes.c_int * count.value)()
    _check(library.nvrtcGetSupportedArchs(found), "nvrtcGetSupportedArchs")
    return tuple(found)


def target_of(architecture: str, known: Sequence[int]) -> tuple[str, str]:
    """What to compile for a GPU: the name of an architecture, and "CUBIN" or "PTX".

    Machine code runs on GPUs of its major version that are not older; PTX on all that are not
    older. Raises NvrtcError for a GPU older than all that are known.

    >>> target_of("sm_90", (80, 90, 100))
    ('sm_90', 'CUBIN')
    >>> target_of("sm_103", (80, 90, 100)), target_of("sm_120", (80, 90, 100))
    (('sm_100', 'CUBIN'), ('compute_100', 'PTX'))
    """
    wanted = int(architecture.removeprefix("sm_"))
    older = [k for k in known if k <= wanted]
    if not older:
        raise NvrtcError(
            "the GPU's architecture",
            received=f"{architecture}, which NVRTC {'.'.join(map(str, version()))} does not know",
            expected=f"sm_{min(known)} or newer",
            fix="an older compiler: pip install 'graphnn[cuda12]'",
        )
    nearest = max(older)
    if nearest // 10 == wanted // 10:
        return f"sm_{nearest}", "CUBIN"
    return f"compute_{nearest}", "PTX"


def compile_cubins(
    texts: Sequence[str], architecture: str, defines: Sequence[str] = ()
) -> list[tuple[str, bytes]]:
    """Machine code of many CUDA C texts that share a beginning: pieces, compiled side by side.

    texts: what comes first in each piece, then what is shared out. Returns (text, machine code) of
    each piece. Raises NvrtcError.
    """
    first, *kernels = texts
    groups = _balanced(kernels, min(_cores(), MOST_PIECES, sum(map(len, kernels)) // LEAST_PIECE))
    whole = ["\n".join([first, *group]) for group in groups]
    if len(whole) == 1:
        return [(whole[0], compile_cubin(whole[0], architecture, defines))]
    with ThreadPoolExecutor(len(whole)) as pool:  # NVRTC runs without Python's lock
        codes = pool.map(lambda text: compile_cubin(text, architecture, defines), whole)
        return list(zip(whole, codes, strict=True))


def _balanced(texts: Sequence[str], count: int) -> list[list[str]]:
    """The texts in at most so many groups of about equal length, in a fixed order."""
    groups: list[list[str]] = [[] for _ in range(max(1, count))]
    sizes = [0] * len(groups)
    for text in sorted(texts, key=len, reverse=True):
        least = sizes.index(min(sizes))
        groups[least].append(text)
        sizes[least] += len(text)
    return [g for g in groups if g] or [[]]


def _cores() -> int:
    found = getattr(os, "sched_getaffinity", None)
    return len(found(0)) if found else os.cpu_count() or 1


def compile_ptx(text: str, architecture: str) -> str:
    """The PTX of a text, for people and tests. architecture: such as "compute_90"."""
    code = _compile(text, [f"--gpu-architecture={architecture}", *OPTIONS], "PTX")
    return code.rstrip(b"\0").decode()


def _compile(text: str, options: Sequence[str], kind: str) -> bytes:
    library = _library()
    program = ctypes.c_void_p()
    source = text.encode()
    made = library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    _check(made, "nvrtcCreateProgram")
    try:
        given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        if library.nvrtcCompileProgram(program, len(options), given):
            raise NvrtcError(
                "CUDA C",
                received=_log(program),
                expected="a text that NVRTC compiles",
                fix="report this as a bug of graphnn, with the text from the dump",
            )
        size = ctypes.c_size_t()
        _check(getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)), "size")
        code = ctypes.create_string_buffer(size.value)
        _check(getattr(library, f"nvrtcGet{kind}")(program, code), kind)
        return code.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _log(program: ctypes.c_void_p) -> str:
    library, size = _library(), ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(1, size.value))
    library.nvrtcGetProgramLog(program, text)
    return text.value.decode(errors="replace")[:4000]


def _check(code: int, what: str) -> None:
    if code:
        name = _library().nvrtcGetErrorString(code).decode()
        raise NvrtcError(what, received=name, expected="NVRTC_SUCCESS", fix=INSTALL)


@functools.cache
def _library() -> ctypes.CDLL:
    most, newest = _driver_major(), None
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        if not most or _version_of(library)[0] <= most:
            return library
        newest = newest or library
    if newest is not None:
        return newest  # the driver has the last word
    raise NvrtcError(
        "CUDA C", received="no NVRTC on this machine", expected="libnvrtc", fix=INSTALL
    )


def _driver_major() -> int:
    """Major version of the newest CUDA that the driver knows; 0 without a driver."""
    version = ctypes.c_int()
    try:
        library = ctypes.CDLL(_DRIVERS.get(sys.platform, _DRIVERS["linux"]))
    except OSError:
        return 0
    return 0 if library.cuDriverGetVersion(ctypes.byref(version)) else version.value // 1000


def _candidates() -> Iterator[str]:
    """Libraries of wheels, newest first, then what the system finds."""
    spec = importlib.util.find_spec("nvidia")
    pattern = _PATTERNS.get(sys.platform, _PATTERNS["linux"])
    found: list[Path] = []
    for root in spec.submodule_search_locations or () if spec else ():
        found += [p for p in Path(root).rglob(pattern) if not _BESIDE.search(p.name)]
    yield from (str(p) for p in sorted(found, key=_numbers, reverse=True))
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def _numbers(path: Path) -> tuple[list[int], str]:
    """The version in a library's name, and the whole path so that the order is one."""
    return [int(n) for n in re.findall(r"\d+", path.name)], str(path)
