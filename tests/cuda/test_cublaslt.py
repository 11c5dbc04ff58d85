"""The products' descriptors, on a stand-in for cuBLASLt that reads and writes host memory as the
library's documentation says: column-major, with leading dimensions and strided batches."""

from __future__ import annotations

import ctypes
import enum
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphnn.runtime.cuda import cublaslt
from graphnn.runtime.device import DeviceFacts, ProductRun

TYPES = {2: np.float16, 14: ml_dtypes.bfloat16, 0: np.float32, 1: np.float64}


class Desc(enum.IntEnum):
    TRANSA, TRANSB = 3, 4


class Layout(enum.IntEnum):
    BATCH_COUNT, STRIDED_BATCH_OFFSET = 5, 6


class Preference(enum.IntEnum):
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES, MIN_ALIGNMENT_B_BYTES = 5, 6
    MIN_ALIGNMENT_C_BYTES, MIN_ALIGNMENT_D_BYTES = 7, 8


class StandIn:
    """As much of `nvmath.bindings.cublasLt` as products use."""

    MatmulDescAttribute, MatrixLayoutAttribute = Desc, Layout
    MatmulPreferenceAttribute = Preference
    cuBLASLtError = RuntimeError

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = [{}]
        self.preferences: list[dict[int, int]] = []
        self.used: list[int] = []

    def _new(self, **parts: Any) -> int:
        self.objects.append(parts)
        return len(self.objects) - 1

    def create(self) -> int:
        return 77

    def get_version(self) -> int:
        return 130000

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._new(compute=compute, scale=scale)

    def matrix_layout_create(self, kind: int, rows: int, cols: int, ld: int) -> int:
        return self._new(kind=kind, rows=rows, cols=cols, ld=ld)

    def matmul_preference_create(self) -> int:
        return self._new()

    def matmul_preference_destroy(self, preference: int) -> None:
        self.preferences.append(self.objects[preference])

    @staticmethod
    def get_matmul_desc_attribute_dtype(attribute: int) -> Any:
        return np.int32

    @staticmethod
    def get_matrix_layout_attribute_dtype(attribute: int) -> Any:
        return np.int32 if attribute == Layout.BATCH_COUNT else np.int64

    @staticmethod
    def get_matmul_preference_attribute_dtype(attribute: int) -> Any:
        return np.uint64 if attribute == Preference.MAX_WORKSPACE_BYTES else np.uint32

    def _set(self, target: int, attribute: int, address: int, nbytes: int) -> None:
        data = ctypes.string_at(address, nbytes)
        self.objects[target][attribute] = int.from_bytes(data, "little")

    matmul_desc_set_attribute = matrix_layout_set_attribute = _set
    matmul_preference_set_attribute = _set

    def matmul_algo_get_heuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int, count: int,
        results: int, found: int,
    ) -> None:  # fmt: skip
        proposals = np.zeros(count, cublaslt.RESULT)
        proposals["algo"][:, 0] = np.arange(count) + 100
        ctypes.memmove(results, proposals.ctypes.data, proposals.nbytes)
        ctypes.c_int32.from_address(found).value = count

    def matmul_algo_check(self, *arguments: int) -> None:
        """Every kept algorithm still fits."""

    def matmul(
        self, handle: int, desc: int, alpha: int, a: int, adesc: int, b: int, bdesc: int,
        beta: int, c: int, cdesc: int, d: int, ddesc: int, algo: int, workspace: int, nbytes: int,
        stream: int,
    ) -> None:  # fmt: skip
        assert (handle, c, cdesc) == (77, d, ddesc)
        self.used.append(ctypes.c_uint64.from_address(algo).value)
        own = self.objects[desc]
        assert self.objects[adesc].get(Layout.BATCH_COUNT, 1) == self.batch(bdesc)
        for t in range(self.batch(ddesc)):
            first, second, out = (
                self._matrix(p, q, t) for p, q in ((a, adesc), (b, bdesc), (d, ddesc))
            )
            first = first.T if own[Desc.TRANSA] else first
            second = second.T if own[Desc.TRANSB] else second
            total = first.astype(np.float64) @ second.astype(np.float64)
            out[...] = total.astype(out.dtype)

    def batch(self, layout: int) -> int:
        return int(self.objects[layout].get(Layout.BATCH_COUNT, 1))

    def _matrix(self, address: int, layout: int, t: int) -> Any:
        """A column-major matrix in memory."""
        own = self.objects[layout]
        dtype = np.dtype(TYPES[own["kind"]])
        start = address + t * own.get(Layout.STRIDED_BATCH_OFFSET, 0) * dtype.itemsize
        size = own["ld"] * own["cols"]
        memory = (ctypes.c_char * (size * dtype.itemsize)).from_address(start)
        return np.frombuffer(memory, dtype).reshape(own["cols"], own["ld"])[:, : own["rows"]].T


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    data = {"CUDA_R_16F": 2, "CUDA_R_16BF": 14, "CUDA_R_32F": 0, "CUDA_R_64F": 1}
    compute = {"COMPUTE_32F": 68, "COMPUTE_32F_FAST_TF32": 77, "COMPUTE_64F": 70}
    bindings = types.SimpleNamespace(cublasLt=stand_in)
    cublas = types.SimpleNamespace(ComputeType=types.SimpleNamespace(**compute))
    nvmath = types.SimpleNamespace(CudaDataType=types.SimpleNamespace(**data), bindings=bindings)
    memory = types.SimpleNamespace(ptr=4096)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(alloc=lambda nbytes: memory))
    for name, module in (
        ("nvmath", nvmath),
        ("nvmath.bindings", bindings),
        ("nvmath.bindings.cublas", cublas),
        ("cupy", cupy),
    ):
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    kept: dict[str, bytes] = {}
    cache = types.SimpleNamespace(load=kept.get, store=kept.__setitem__, kept=kept)
    monkeypatch.setattr(cublaslt, "object_cache", cache)
    return stand_in


def timer_that_likes(stand_in: StandIn, best: int) -> Callable[[Callable[[], None], int], float]:
    def timer(work: Callable[[], None], times: int) -> float:
        work()
        return float(abs(stand_in.used[-1] - best))

    return timer


def products(stand_in: StandIn, tf32: bool = False, best: int = 105) -> cublaslt.Products:
    return cublaslt.Products(DeviceFacts(), tf32, timer_that_likes(stand_in, best))


def multiply(
    own: cublaslt.Products, run: ProductRun, dtype: Any, shapes: tuple[Any, Any, Any], tune: bool
) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(dtype) for s in shapes[:2])
    c = np.full(shapes[2], 7, dtype)
    addresses = [x.ctypes.data for x in (a, b, c)]
    own.run(run, np.dtype(dtype), addresses, stream=5, tune=tune)
    return a, b, c


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_rows_and_columns_change_places(
    library: StandIn, dtype: Any, transpose_a: bool, transpose_b: bool
) -> None:
    m, n, k = 3, 5, 4
    run = ProductRun(m, n, k, (transpose_a, transpose_b), ((0, 0, 0),))
    shapes = ((k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n), (m, n))
    a, b, c = multiply(products(library), run, dtype, shapes, tune=False)
    a, b = (x.astype(np.float64) for x in (a, b))
    want = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    np.testing.assert_allclose(c.astype(np.float64), want, rtol=2e-2, atol=2e-2)


def test_a_strided_batch_is_one_call(library: StandIn) -> None:
    m, n, k, count = 2, 3, 4, 5
    offsets = tuple((t * m * k, 0, t * m * n) for t in range(count))
    run = ProductRun(m, n, k, (False, False), offsets, (m * k, 0, m * n))
    shapes = ((count, m, k), (k, n), (count, m, n))
    a, b, c = multiply(products(library), run, np.float32, shapes, tune=False)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)
    assert len(library.used) == 1


def test_an_uneven_batch_is_one_call_each(library: StandIn) -> None:
    run = ProductRun(1, 2, 2, (False, False), ((0, 4, 0), (2, 0, 2), (0, 0, 4)))
    a, b, c = multiply(products(library), run, np.float32, ((2, 2), (2, 2, 2), (3, 2)), tune=False)
    want = [a[0] @ b[1], a[1] @ b[0], a[0] @ b[0]]
    np.testing.assert_allclose(c, want, rtol=1e-5)
    assert len(library.used) == 3


def test_the_fastest_algorithm_is_found_once_and_kept(library: StandIn) -> None:
    run = ProductRun(3, 5, 4, (False, False), ((0, 0, 0),))
    shapes = ((3, 4), (4, 5), (3, 5))
    own = products(library, best=105)
    multiply(own, run, np.float32, shapes, tune=True)
    assert library.used[-1] == 105 and len(library.used) == cublaslt.CANDIDATES + 1
    multiply(own, run, np.float32, shapes, tune=True)
    assert library.used[-1] == 105 and len(library.used) == cublaslt.CANDIDATES + 2
    other = products(library, best=101)  # another process: the choice on disk is taken
    multiply(other, run, np.float32, shapes, tune=True)
    assert library.used[-1] == 105 and len(library.used) == cublaslt.CANDIDATES + 3


def test_nothing_is_timed_in_a_capture(library: StandIn) -> None:
    run = ProductRun(3, 5, 4, (False, False), ((0, 0, 0),))
    multiply(products(library), run, np.float32, ((3, 4), (4, 5), (3, 5)), tune=False)
    assert library.used == [100]


def test_tf32_is_asked_for_on_request_only(library: StandIn) -> None:
    run = ProductRun(3, 5, 4, (False, False), ((0, 0, 0),))
    for tf32 in (False, True):
        multiply(products(library, tf32), run, np.float32, ((3, 4), (4, 5), (3, 5)), tune=False)
    assert [o["compute"] for o in library.objects if "compute" in o] == [68, 77]


def test_alignment_is_stated(library: StandIn) -> None:
    """The library assumes 256 bytes, more than an arena gives."""
    own = products(library)
    run = ProductRun(2, 2, 2, (False, False), ((0, 0, 0), (1, 0, 4)))
    multiply(own, run, np.float32, ((8,), (4,), (8,)), tune=False)
    run = ProductRun(2, 2, 2, (False, False), ((0, 0, 0),))
    multiply(own, run, np.float32, ((8,), (4,), (8,)), tune=False)
    found = [p[Preference.MIN_ALIGNMENT_A_BYTES] for p in library.preferences]
    assert found[0] == 4 and set(found) <= {4, 16}


@pytest.mark.skipif(
    importlib.util.find_spec("nvmath") is None, reason="nvmath-python is not installed"
)
def test_the_real_bindings_have_what_the_stand_in_has() -> None:
    real = importlib.import_module("nvmath.bindings.cublasLt")
    for name, _ in inspect.getmembers(StandIn, inspect.isfunction):
        assert name.startswith("_") or name == "batch" or hasattr(real, name), name
    for ours, theirs in (
        (Desc, real.MatmulDescAttribute),
        (Layout, real.MatrixLayoutAttribute),
        (Preference, real.MatmulPreferenceAttribute),
    ):
        assert all(hasattr(theirs, member.name) for member in ours)
    assert real.MatmulHeuristicResult(1)._data.dtype.itemsize == cublaslt.RESULT.itemsize
