"""Matrix products: against NumPy, in every form, and from several threads."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphnn.runtime.cpu import blas

INT, POINTER = ctypes.c_int32, ctypes.c_void_p
CONFIGURATIONS = list(
    itertools.product((blas.ROW_MAJOR, blas.COL_MAJOR), (False, True), (False, True))
)


def caller(address: int, dtype: Any) -> Callable[..., None]:
    real = np.ctypeslib.as_ctypes_type(dtype)
    signature = [INT] * 6 + [real, POINTER, INT, POINTER, INT, real, POINTER, INT]
    return ctypes.CFUNCTYPE(None, *signature)(address)


def needed(dtype: Any) -> int:
    address = blas.gemm_address(dtype)
    if address is None:
        pytest.skip("no BLAS is installed")
    return address


def check(address: int, dtype: Any, order: int, trans_a: bool, trans_b: bool) -> None:
    m, n, k = 17, 33, 65
    rng = np.random.default_rng(0)
    layout = "C" if order == blas.ROW_MAJOR else "F"
    a = np.array(rng.standard_normal((k, m) if trans_a else (m, k)), dtype, order=layout)
    b = np.array(rng.standard_normal((n, k) if trans_b else (k, n)), dtype, order=layout)
    c = np.array(rng.standard_normal((m, n)), dtype, order=layout)
    wanted = 2 * ((a.T if trans_a else a) @ (b.T if trans_b else b)) - 0.5 * c
    long = 1 if layout == "C" else 0
    flags = [blas.TRANS if t else blas.NO_TRANS for t in (trans_a, trans_b)]
    gemm = caller(address, dtype)
    sides = (a.ctypes.data, a.shape[long], b.ctypes.data, b.shape[long])
    gemm(order, *flags, m, n, k, 2.0, *sides, -0.5, c.ctypes.data, c.shape[long])
    np.testing.assert_allclose(c, wanted, rtol=1e-4 if dtype is np.float32 else 1e-12, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("order", "trans_a", "trans_b"), CONFIGURATIONS)
def test_against_numpy(dtype: Any, order: int, trans_a: bool, trans_b: bool) -> None:
    check(needed(dtype), dtype, order, trans_a, trans_b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("order", "trans_a", "trans_b"), CONFIGURATIONS)
def test_shim_over_fortran(dtype: Any, order: int, trans_a: bool, trans_b: bool) -> None:
    library: Any = getattr(blas._openblas_wheel(), "keep", None)
    if library is None:
        pytest.skip("the wheel scipy-openblas32 is not installed")
    fortran = {f"{s}gemm": blas._address(getattr(library, f"scipy_{s}gemm_")) for s in "sd"}
    shim = blas._shim(fortran)
    letter = "s" if dtype is np.float32 else "d"
    check(shim.address(f"gnn_cblas_{letter}gemm"), dtype, order, trans_a, trans_b)


def test_scipy_capsules() -> None:
    pytest.importorskip("scipy.linalg")
    provider = blas._scipy_capsules()
    assert provider is not None
    check(provider.addresses["s"], np.float32, blas.ROW_MAJOR, False, True)
    check(provider.addresses["d"], np.float64, blas.ROW_MAJOR, True, False)


def check_vector(address: int, dtype: Any, order: int, trans: bool) -> None:
    m, n = 33, 65
    rng = np.random.default_rng(1)
    a = np.array(rng.standard_normal((m, n)), dtype, order="C" if order == blas.ROW_MAJOR else "F")
    x, y = (np.array(rng.standard_normal(k), dtype) for k in ((m, n) if trans else (n, m)))
    wanted = 2 * ((a.T if trans else a) @ x) - 0.5 * y
    real = np.ctypeslib.as_ctypes_type(dtype)
    signature = [INT] * 4 + [real, POINTER, INT, POINTER, INT, real, POINTER, INT]
    gemv = ctypes.CFUNCTYPE(None, *signature)(address)
    lda = n if order == blas.ROW_MAJOR else m
    flag = blas.TRANS if trans else blas.NO_TRANS
    gemv(order, flag, m, n, 2.0, a.ctypes.data, lda, x.ctypes.data, 1, -0.5, y.ctypes.data, 1)
    np.testing.assert_allclose(y, wanted, rtol=1e-4 if dtype is np.float32 else 1e-12, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", [blas.ROW_MAJOR, blas.COL_MAJOR])
@pytest.mark.parametrize("trans", [False, True])
def test_products_with_a_vector(dtype: Any, order: int, trans: bool) -> None:
    needed(dtype)
    address = blas.gemv_address(dtype)
    assert address is not None
    check_vector(address, dtype, order, trans)
    library: Any = getattr(blas._openblas_wheel(), "keep", None)
    if library is not None:
        letter = "s" if dtype is np.float32 else "d"
        fortran = blas._address(getattr(library, f"scipy_{letter}gemv_"))
        shim = blas._shim({f"{letter}gemv": fortran})
        check_vector(shim.address(f"gnn_cblas_{letter}gemv"), dtype, order, trans)


@pytest.mark.parametrize("size", [8, 96, 300])
def test_threads_multiply_at_once(size: int) -> None:
    gemm = caller(needed(np.float32), np.float32)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        a, b = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
        c = np.empty_like(a)
        sides = (a.ctypes.data, size, b.ctypes.data, size)
        form = (blas.ROW_MAJOR, blas.NO_TRANS, blas.NO_TRANS, size, size, size)
        first = None
        for _ in range(50):
            gemm(*form, 1.0, *sides, 0.0, c.ctypes.data, size)
            first = c.copy() if first is None else first
            if not (np.allclose(c, a @ b, atol=1e-3) and np.array_equal(c, first)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_dtypes_have_none() -> None:
    for dtype in (np.int32, np.float16, np.complex64, "bool"):
        assert blas.gemm_address(dtype) is None


def test_missing_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_find_provider", lambda: None)
    assert blas.gemm_address(np.float32) is None
    assert "scipy-openblas32" in blas.describe()


def test_describe_names_the_library() -> None:
    needed(np.float32)
    assert "BLAS" in blas.describe()


def test_loading_starts_no_threads_and_leaves_the_environment(
    run_python: Callable[..., str],
) -> None:
    code = """
import os
before = dict(os.environ)
import numpy
from graphnn.runtime.cpu import gemm_address
def threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
start = threads()
gemm_address("float32")
print(threads() - start, dict(os.environ) == before)
"""
    needed(np.float32)
    for value in ("", "3"):
        environment = {"OPENBLAS_NUM_THREADS": value} if value else {}
        assert run_python(code, **environment).split() == ["0", "True"]
