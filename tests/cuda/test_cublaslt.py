"""The products' descriptors, on a stand-in for cuBLASLt that reads and writes memory as the
library's documentation says: column-major, with leading dimensions, strided batches, epilogues."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from itertools import product as combinations
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphnn
from graphnn.runtime.cuda import cublaslt
from graphnn.runtime.device import DeviceFacts, Epilogue, ProductRun
from tests.cuda import library_calls, stand_in
from tests.cuda.stand_in.cublaslt import Desc, Layout, Library, Preference
from tests.cuda.stand_in.cublaslt import Epilogue as Names

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    kept: dict[str, bytes] = {}
    cache = types.SimpleNamespace(load=kept.get, store=kept.__setitem__, kept=kept)
    monkeypatch.setattr(cublaslt, "object_cache", cache)
    with stand_in.emulated():
        yield sys.modules["nvmath.bindings.cublasLt"].library  # type: ignore[attr-defined]


def timer_that_likes(library: Library, best: int) -> Callable[[Callable[[], None], int], float]:
    def timer(work: Callable[[], None], times: int) -> float:
        work()
        return float(abs(library.used[-1] - best))

    return timer


def products(library: Library, best: int = 105) -> cublaslt.Products:
    return cublaslt.Products(DeviceFacts(), timer_that_likes(library, best))


def on_device(arrays: Sequence[Any]) -> list[Any]:
    import cupy

    return [cupy.asarray(a) for a in arrays]


def random(shapes: Sequence[Any], dtype: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=s).astype(dtype) for s in shapes]


def multiply(
    own: cublaslt.Products, run: ProductRun, shapes: tuple[Any, Any, Any], tune: bool = False
) -> tuple[Any, Any, Any]:
    dtype = np.dtype(run.dtype) if run.dtype != "bfloat16" else ml_dtypes.bfloat16
    a, b = random(shapes[:2], dtype)
    arrays = on_device([a, b, np.full(shapes[2], 7, dtype)])
    own.run(run, [x.data.ptr for x in arrays], 0, tune)
    return a, b, arrays[2].get()


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_rows_and_columns_change_places(
    library: Library, dtype: str, transpose_a: bool, transpose_b: bool
) -> None:
    m, n, k = 3, 5, 4
    leading = (m if transpose_a else k, k if transpose_b else n, n)
    run = ProductRun(m, n, k, (transpose_a, transpose_b), leading, dtype=dtype, result=dtype)
    shapes = ((k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n), (m, n))
    a, b, c = multiply(products(library), run, shapes)
    a, b = (x.astype(np.float64) for x in (a, b))
    want = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    np.testing.assert_allclose(c.astype(np.float64), want, rtol=2e-2, atol=2e-2)


def test_a_strided_batch_is_one_call(library: Library) -> None:
    m, n, k, count = 2, 3, 4, 5
    run = ProductRun(m, n, k, (False, False), (k, n, n), batch=count, stride=(m * k, 0, m * n))
    a, b, c = multiply(products(library), run, ((count, m, k), (k, n), (count, m, n)))
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)
    assert len(library.used) == 1


def test_an_uneven_batch_is_one_call_each(library: Library) -> None:
    run = ProductRun(1, 2, 2, (False, False), (2, 2, 2), ((0, 4, 0), (2, 0, 2), (0, 0, 4)))
    a, b, c = multiply(products(library), run, ((2, 2), (2, 2, 2), (3, 2)))
    want = [a[0] @ b[1], a[1] @ b[0], a[0] @ b[0]]
    np.testing.assert_allclose(c, want, rtol=1e-5)
    assert len(library.used) == 3


ONE = ProductRun(3, 5, 4, (False, False), (4, 5, 5))
SHAPES = ((3, 4), (4, 5), (3, 5))


def test_the_fastest_algorithm_is_found_once_and_kept(library: Library) -> None:
    own = products(library, best=105)
    multiply(own, ONE, SHAPES, tune=True)
    assert library.used[-1] == 105 and len(library.used) == cublaslt.CANDIDATES + 1
    multiply(own, ONE, SHAPES, tune=True)
    assert library.used[-1] == 105 and len(library.used) == cublaslt.CANDIDATES + 2
    other = products(library, best=101)  # another process: the choice on disk is taken
    multiply(other, ONE, SHAPES, tune=True)
    assert library.used[-1] == 105 and len(library.used) == cublaslt.CANDIDATES + 3


def test_nothing_is_timed_in_a_capture(library: Library) -> None:
    multiply(products(library), ONE, SHAPES)
    assert library.used == [100]


def test_tf32_is_part_of_the_problem_and_its_name_on_disk(library: Library) -> None:
    own = products(library)
    digests = set()
    for tf32 in (False, True):
        run = ProductRun(3, 5, 4, (False, False), (4, 5, 5), tf32=tf32)
        multiply(own, run, SHAPES)
        digests.add(own.digest(cublaslt.problem_of(run)))
    assert [o["compute"] for o in library.objects if "compute" in o] == [68, 77]
    assert len(digests) == 2
    short = ProductRun(3, 5, 4, (False, False), (4, 5, 5), dtype="float16", tf32=True)
    assert not cublaslt.problem_of(short).tf32


def test_the_switch_for_tf32_makes_another_program(library: Library) -> None:
    rule = graphnn.function(lambda a, b: graphnn.nn.relu(a @ b))
    precise = graphnn.config.experimental.enable_tensor_float_32_execution
    try:
        with graphnn.device("/GPU:0"):
            a, b = (graphnn.constant(x) for x in random(((4, 8), (8, 16)), np.float32))
            for on in (True, False, False):
                precise(on)
                rule(a, b).numpy()
    finally:
        precise(True)
    assert [o["compute"] for o in library.objects if "compute" in o] == [77, 68]


def test_alignment_is_stated(library: Library) -> None:
    """The library assumes 256 bytes, more than an arena gives."""
    own = products(library)
    run = ProductRun(2, 2, 2, (False, False), (2, 2, 2), ((0, 0, 0), (1, 0, 4)))
    multiply(own, run, ((8,), (4,), (8,)))
    multiply(own, ProductRun(2, 2, 2, (False, False), (2, 2, 2)), ((8,), (4,), (8,)))
    batch = ProductRun(2, 2, 2, (False, False), (2, 2, 2), batch=2, stride=(2, 0, 4))
    multiply(own, batch, ((8,), (4,), (8,)))
    found = [p[Preference.MIN_ALIGNMENT_A_BYTES] for p in library.preferences]
    assert found == [4, 16, 8]


@pytest.mark.parametrize(("result", "mask"), [("bfloat16", 2), ("float32", None)])
def test_parts_of_a_sum_are_never_rounded_to_16_bits(
    library: Library, result: str, mask: int | None
) -> None:
    """Algorithms that split the sum may put its parts together in the type of the result."""
    run = ProductRun(
        3, 5, 4, (False, False), (4, 5, 5), dtype="bfloat16", result=result, operands=(0, 1, 2)
    )
    assert products(library).supports(run)
    (preference,) = library.preferences
    assert preference.get(Preference.REDUCTION_SCHEME_MASK) == mask


def test_each_stream_has_its_own_workspace(library: Library) -> None:
    own = products(library)
    assert own.workspace(0) != own.workspace(5) and own.workspace(5) == own.workspace(5)


def test_a_product_over_nothing_is_zero(library: Library) -> None:
    run = ProductRun(2, 3, 0, (False, False), (1, 3, 3), batch=2, stride=(0, 0, 6))
    _, _, c = multiply(products(library), run, ((1,), (1,), (2, 2, 3)))
    assert not c.any() and not library.used


# ---- epilogues --------------------------------------------------------------------------------

EPILOGUES = [
    *(
        Epilogue(bias=bias, activation=act, keeps=keeps)
        for bias, act, keeps in combinations((False, True), ("relu", "gelu"), (False, True))
    ),
    Epilogue(bias=True),
    Epilogue(residual=True),
    Epilogue(bias=True, residual=True),
    *(Epilogue(slope=s, sums=sums) for s, sums in combinations(("relu", "gelu"), ("", "c"))),
    Epilogue(sums="b"),
]
M, N, K = 6, 8, 4


def extras(e: Epilogue) -> list[Any]:
    """What an epilogue reads and writes besides a, b and c."""
    bias, matrix, total = random(((N,), (M, N), (N,)), np.float32)
    found = [bias] * e.bias + [matrix] * e.residual
    if e.slope or e.keeps:
        bits = np.random.default_rng(1).integers(0, 256, (M, 16)).astype(np.uint8)
        found.append(bits if "relu" in (e.slope, e.activation) else matrix)
    return found + [total] * bool(e.sums)


@pytest.mark.parametrize("e", EPILOGUES, ids=cublaslt.epilogue_name)
def test_epilogues_do_what_the_run_says(library: Library, e: Epilogue) -> None:
    """The library's words for it, against plain NumPy."""
    operands = tuple(range(3 + len(extras(e))))
    run = ProductRun(M, N, K, (False, False), (K, N, N), epilogue=e, operands=operands)
    arrays = [*random(((M, K), (K, N), (M, N)), np.float32), *extras(e)]
    device = on_device(arrays)
    products(library).run(run, [x.data.ptr for x in device], 0, tune=True)
    library_calls.run_library(run, [x.ctypes.data for x in arrays])
    for ours, want in zip(device, arrays, strict=True):
        got = ours.get()
        if got.dtype == np.uint8:  # padding is anybody's
            got, want = got[:, : N // 8], want[:, : N // 8]
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_sums_of_the_first_operand_where_it_is_transposed(library: Library) -> None:
    run = ProductRun(
        M, N, K, (True, False), (M, N, N), epilogue=Epilogue(sums="a"), operands=(0, 1, 2, 3)
    )
    a, b, c, total = random(((K, M), (K, N), (M, N), (M,)), np.float32)
    device = on_device([a, b, c, total])
    products(library).run(run, [x.data.ptr for x in device], 0, tune=False)
    np.testing.assert_allclose(device[3].get(), a.sum(0), rtol=1e-5)
    assert cublaslt.epilogue_name(run.epilogue) == "BGRADB"


def test_every_epilogue_of_the_library_can_be_asked_for() -> None:
    named = {cublaslt.epilogue_name(e) for e in (*EPILOGUES, Epilogue(sums="a"), Epilogue())}
    assert named == set(Names.__members__)


def test_a_missing_algorithm_is_found_out_before_and_named_after(library: Library) -> None:
    library.refuses = lambda word: word == Names.RELU_BIAS
    run = ProductRun(
        M, N, K, (False, False), (K, N, N), epilogue=Epilogue(bias=True, activation="relu"),
        operands=(0, 1, 2, 3),
    )  # fmt: skip
    own = products(library)
    assert not own.supports(run)
    assert own.supports(ProductRun(M, N, K, (False, False), (K, N, N)))
    device = on_device(random(((M, K), (K, N), (M, N), (N,)), np.float32))
    with pytest.raises(RuntimeError, match="no algorithm"):
        own.run(run, [x.data.ptr for x in device], 0, tune=False)


@pytest.mark.skipif(
    importlib.util.find_spec("nvmath") is None, reason="nvmath-python is not installed"
)
def test_the_real_bindings_have_what_the_stand_in_has() -> None:
    real = importlib.import_module("nvmath.bindings.cublasLt")
    for name, _ in inspect.getmembers(Library, inspect.isfunction):
        assert name.startswith("_") or hasattr(real, name), name
    for ours, theirs in (
        (Desc, real.MatmulDescAttribute),
        (Layout, real.MatrixLayoutAttribute),
        (Preference, real.MatmulPreferenceAttribute),
        (Names, real.Epilogue),
    ):
        assert all(int(theirs[member.name]) == member for member in ours)
    desc = (Desc.BIAS_POINTER, Desc.EPILOGUE_AUX_POINTER, Desc.EPILOGUE_AUX_LD)
    assert all(np.dtype(real.get_matmul_desc_attribute_dtype(d)).itemsize == 8 for d in desc)
    assert real.MatmulHeuristicResult(1)._data.dtype.itemsize == cublaslt.RESULT.itemsize
