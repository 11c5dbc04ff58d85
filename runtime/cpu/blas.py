"""Matrix products from OpenBLAS, by function address.

The wheel `scipy-openblas32` brings an OpenBLAS of its own, set to one thread: products are split
over graphnn's pool, and two pools at once would fight. Without it, the functions that
`scipy.linalg.cython_blas` publishes serve, through a shim that gives them the same signature.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphnn.runtime.cpu.jit import Library, compile_library

__all__ = [
    "COL_MAJOR",
    "NO_TRANS",
    "ROW_MAJOR",
    "TRANS",
    "describe",
    "gemm_address",
    "gemv_address",
]

# Numbers of the CBLAS interface.
ROW_MAJOR, COL_MAJOR = 101, 102
NO_TRANS, TRANS = 111, 112

_LETTERS = {"float32": "s", "float64": "d"}
_PREFIXES = ("scipy_", "")


@dataclass(frozen=True)
class _Provider:
    """Where the products come from. `keep` holds what must stay loaded.

    addresses: of the products of matrices, by letter. vectors: of those with a vector.
    """

    name: str
    detail: str
    addresses: dict[str, int]
    vectors: dict[str, int]
    keep: object


def gemm_address(dtype: np.dtype[Any] | type | str) -> int | None:
    """Address of the matrix product of float32 or float64, or None when there is no BLAS.

    It is `cblas_sgemm` or `cblas_dgemm`: `void (i32 order, i32 trans_a, i32 trans_b, i32 m,
    i32 n, i32 k, T alpha, ptr a, i32 lda, ptr b, i32 ldb, T beta, ptr c, i32 ldc)`, T the dtype.
    It runs on the calling thread alone and may be called from several threads at once.

    >>> gemm_address(np.int32) is None
    True
    """
    return _entry(dtype, "addresses")


def gemv_address(dtype: np.dtype[Any] | type | str) -> int | None:
    """Address of the product of a matrix and a vector, or None when there is no BLAS.

    It is `cblas_sgemv` or `cblas_dgemv`: `void (i32 order, i32 trans, i32 m, i32 n, T alpha,
    ptr a, i32 lda, ptr x, i32 incx, T beta, ptr y, i32 incy)`, T the dtype; else as the above.

    >>> gemv_address(np.int32) is None
    True
    """
    return _entry(dtype, "vectors")


def _entry(dtype: np.dtype[Any] | type | str, table: str) -> int | None:
    """An entry of one of the provider's tables of functions."""
    letter = _LETTERS.get(np.dtype(dtype).name)
    provider = _provider() if letter else None
    if letter is None or provider is None:
        return None
    found: int | None = getattr(provider, table)[letter]
    return found


def describe() -> str:
    """One line for people: which BLAS is used, its version and the kernels that it chose."""
    provider = _provider()
    if provider is None:
        return "none: install the package scipy-openblas32"
    return f"{provider.name}: {provider.detail}"


_guard = threading.RLock()


def _provider() -> _Provider | None:
    with _guard:
        return _find_provider()


@functools.cache
def _find_provider() -> _Provider | None:
    return _openblas_wheel() or _scipy_capsules()


def _openblas_wheel() -> _Provider | None:
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        return None
    for place in spec.submodule_search_locations:
        for path in sorted((Path(place) / "lib").glob("*openblas*")):
            if path.suffix in (".so", ".dylib", ".dll") and (found := _openblas_library(path)):
                return found
    return None


def _openblas_library(path: Path) -> _Provider | None:
    try:
        with _one_thread_at_load():
            library = ctypes.CDLL(str(path))
    except OSError:
        return None
    for prefix in _PREFIXES:
        if not hasattr(library, f"{prefix}cblas_sgemm"):
            continue
        getattr(library, f"{prefix}openblas_set_num_threads")(1)
        matrices, vectors = (
            {s: _address(getattr(library, f"{prefix}cblas_{s}{word}")) for s in _LETTERS.values()}
            for word in ("gemm", "gemv")
        )
        config = getattr(library, f"{prefix}openblas_get_config")
        config.restype = ctypes.c_char_p
        return _Provider("scipy-openblas32", config().decode(), matrices, vectors, library)
    return None


@contextlib.contextmanager
def _one_thread_at_load() -> Iterator[None]:
    """OpenBLAS starts its threads while it is loaded; ours would only hold memory."""
    variable = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _scipy_capsules() -> _Provider | None:
    try:
        import scipy
        from scipy.linalg import cython_blas
    except ImportError:
        return None
    names = [f"{letter}{word}" for word in ("gemm", "gemv") for letter in _LETTERS.values()]
    library = _shim({name: _capsule(cython_blas, name) for name in names})
    matrices, vectors = (
        {s: library.address(f"gnn_cblas_{s}{word}") for s in _LETTERS.values()}
        for word in ("gemm", "gemv")
    )
    detail = f"SciPy {scipy.__version__}"
    return _Provider("scipy.linalg.cython_blas", detail, matrices, vectors, library)


def _shim(fortran: dict[str, int]) -> Library:
    """CBLAS functions over Fortran ones, given by name (such as "sgemm") and address."""
    texts = {"gemm": _shim_ir, "gemv": _vector_shim_ir}
    modules = [(name, texts[name[1:]](name[0])) for name in fortran]
    return compile_library(modules, {f"gnn_{name}": address for name, address in fortran.items()})


def _capsule(module: Any, name: str) -> int:
    capsule = module.__pyx_capi__[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    if address is None:
        raise OSError("a BLAS function has no address")
    return address


def _shim_ir(letter: str) -> str:
    """CBLAS over Fortran: by rows, A times B is, by columns, B times A with m and n exchanged."""
    kind = {"s": "float", "d": "double"}[letter]
    slots = {"ta": "i8", "tb": "i8", "m": "i32", "n": "i32", "k": "i32", "lda": "i32"}
    slots |= {"ldb": "i32", "ldc": "i32", "alpha": kind, "beta": kind}
    spill = "\n".join(f"  %p.{name} = alloca {type_}" for name, type_ in slots.items())
    stored = {"m": "%m", "n": "%n", "k": "%k", "lda": "%lda", "ldb": "%ldb", "ldc": "%ldc"}
    stored |= {"alpha": "%alpha", "beta": "%beta", "ta": "%letter.a", "tb": "%letter.b"}
    fill = "\n".join(f"  store {slots[name]} {v}, ptr %p.{name}" for name, v in stored.items())
    swap = "\n".join(
        f"  %c.{first} = select i1 %rows, ptr %{second}, ptr %{first}"
        for pair in (("p.ta", "p.tb"), ("p.m", "p.n"), ("a", "b"), ("p.lda", "p.ldb"))
        for first, second in (pair, pair[::-1])
    )
    return f"""
declare void @gnn_{letter}gemm(ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr)

define void @gnn_cblas_{letter}gemm(i32 %order, i32 %ta, i32 %tb, i32 %m, i32 %n, i32 %k,
    {kind} %alpha, ptr %a, i32 %lda, ptr %b, i32 %ldb, {kind} %beta, ptr %c, i32 %ldc) {{
{spill}
  %plain.a = icmp eq i32 %ta, {NO_TRANS}
  %letter.a = select i1 %plain.a, i8 {ord("N")}, i8 {ord("T")}
  %plain.b = icmp eq i32 %tb, {NO_TRANS}
  %letter.b = select i1 %plain.b, i8 {ord("N")}, i8 {ord("T")}
{fill}
  %rows = icmp eq i32 %order, {ROW_MAJOR}
{swap}
  call void @gnn_{letter}gemm(ptr %c.p.ta, ptr %c.p.tb, ptr %c.p.m, ptr %c.p.n, ptr %p.k,
    ptr %p.alpha, ptr %c.a, ptr %c.p.lda, ptr %c.b, ptr %c.p.ldb, ptr %p.beta, ptr %c, ptr %p.ldc)
  ret void
}}
"""


def _vector_shim_ir(letter: str) -> str:
    """The same for a matrix and a vector: by columns, a matrix by rows is its transpose."""
    kind = {"s": "float", "d": "double"}[letter]
    slots = {"t": "i8", "m": "i32", "n": "i32", "lda": "i32", "incx": "i32", "incy": "i32"}
    slots |= {"alpha": kind, "beta": kind}
    spill = "\n".join(f"  %p.{name} = alloca {type_}" for name, type_ in slots.items())
    fill = "\n".join(
        f"  store {type_} %{'letter' if name == 't' else name}, ptr %p.{name}"
        for name, type_ in slots.items()
    )
    return f"""
declare void @gnn_{letter}gemv(ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr)

define void @gnn_cblas_{letter}gemv(i32 %order, i32 %trans, i32 %m, i32 %n, {kind} %alpha,
    ptr %a, i32 %lda, ptr %x, i32 %incx, {kind} %beta, ptr %y, i32 %incy) {{
{spill}
  %rows = icmp eq i32 %order, {ROW_MAJOR}
  %plain = icmp eq i32 %trans, {NO_TRANS}
  %straight = xor i1 %rows, %plain
  %letter = select i1 %straight, i8 {ord("N")}, i8 {ord("T")}
{fill}
  %first = select i1 %rows, ptr %p.n, ptr %p.m
  %second = select i1 %rows, ptr %p.m, ptr %p.n
  call void @gnn_{letter}gemv(ptr %p.t, ptr %first, ptr %second, ptr %p.alpha, ptr %a, ptr %p.lda,
    ptr %x, ptr %p.incx, ptr %p.beta, ptr %y, ptr %p.incy)
  ret void
}}
"""
