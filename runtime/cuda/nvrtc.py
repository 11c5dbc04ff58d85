"""CUDA C to machine code by NVIDIA's run-time compiler, without a GPU, a toolkit or headers.

The compiler comes with the wheel `nvidia-cuda-nvrtc` (CUDA 13) or `nvidia-cuda-nvrtc-cu12`, or with
a toolkit. Compiled code is kept on disk under the hash of its text, options and compiler.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphnn.runtime.cpu.objects import object_cache
from graphnn.runtime.errors import GraphnnError

# No contraction to fused multiply-add: compiled results are those of eager code.
OPTIONS = ("--fmad=false", "--std=c++17", "--diag-suppress=177")
INSTALL = "pip install 'graphnn[cuda13]', or nvidia-cuda-nvrtc alone"
_PATTERNS = {"linux": "libnvrtc.so*", "win32": "nvrtc64_*.dll"}


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
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return major.value, minor.value


def compile_cubin(text: str, architecture: str, defines: Sequence[str] = ()) -> bytes:
    """Machine code of a CUDA C text.

    architecture: such as "sm_90". defines: macros, such as "GNN_WIDE". Raises NvrtcError with the
    compiler's messages.
    """
    options = [f"--gpu-architecture={architecture}", *OPTIONS, *(f"-D{d}" for d in defines)]
    parts = (text, *options, str(version()))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    code = object_cache.load(digest)
    if code is None:
        code = _compile(text, options, "CUBIN")
        object_cache.store(digest, code)
    return code


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
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise NvrtcError(
        "CUDA C", received="no NVRTC on this machine", expected="libnvrtc", fix=INSTALL
    )


def _candidates() -> Iterator[str]:
    """Libraries of wheels, newest first, then what the system finds."""
    spec = importlib.util.find_spec("nvidia")
    pattern = _PATTERNS.get(sys.platform, _PATTERNS["linux"])
    for root in spec.submodule_search_locations or () if spec else ():
        found = [p for p in Path(root).rglob(pattern) if "builtins" not in p.name]
        yield from (str(p) for p in sorted(found, reverse=True))
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
