"""Loops follow the order in which memory lies: orders once found to be 10 to 80 times too slow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn
from tests.codegen.traced import ONE_THREAD, compiled, loops, normal, run

SCANS = [((50, 64), 0), ((3, 40, 96), 1), ((2, 3, 5, 32), 0), ((5, 7), 0), ((0, 64), 0)]


def _form(function: Callable[..., Any], *shapes: tuple[int, ...]) -> str:
    return loops(compiled(function, *shapes, target=ONE_THREAD))


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (2,)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_a_reduction_reads_under_the_transposition(axes: tuple[int, ...], keepdims: bool) -> None:
    def reduced(t: Any, x: Any) -> Any:
        turned = t.ops.permute_dims(x, axes=(2, 0, 1))
        return t.ops.sum(turned, axes=axes, keepdims=keepdims)

    result = compiled(reduced, (3, 4, 5), target=ONE_THREAD)
    x = normal(3, 4, 5)
    expected = x.transpose(2, 0, 1).sum(axes, keepdims=keepdims)
    (found,) = run(result, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_sum_of_a_transposed_matrix_reads_rows() -> None:
    text = _form(lambda t, x: t.ops.sum(t.ops.permute_dims(x, axes=(1, 0)), axes=(0,)), (300, 200))
    assert "[200*i+j]" in text and "*j]" not in text


@pytest.mark.parametrize("spec", ["ij,ij->j", "ij,ij->i", "ij,j->ij", "ij,ij->ji", "ij,jk->ijk"])
def test_einsum_without_a_product_reads_in_order(spec: str) -> None:
    a = normal(6, 5)
    b = normal(*(dict(i=6, j=5, k=3)[c] for c in spec.split("->")[0].split(",")[1]))
    found = graphnn.function(lambda x, y: graphnn.einsum(spec, x, y))(a, b)
    np.testing.assert_allclose(found.numpy(), np.einsum(spec, a, b), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(graphnn.einsum(spec, a, b), np.einsum(spec, a, b), rtol=1e-5)


@pytest.mark.parametrize(("shape", "axis"), SCANS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_running_sums_across_rows(
    shape: tuple[int, ...], axis: int, dtype: str, exclusive: bool, reverse: bool
) -> None:
    x = graphnn.cast(np.random.default_rng(0).integers(0, 3, shape), dtype)

    def scanned(x: Any) -> Any:
        return graphnn.cumsum(x, axis=axis, exclusive=exclusive, reverse=reverse)

    expected, found = scanned(x), graphnn.function(scanned)(x)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_running_sums_go_down_whole_rows() -> None:
    text = _form(lambda t, x: t.ops.cumsum(x, axis=0), (300, 256))
    assert re.search(r"for s < 300:\n +for j < 256:", text)


def test_long_rows_are_not_divided_by_element() -> None:
    text = _form(lambda t, x, y: t.ops.concat(x, y, axis=0), (100, 128), (70, 128))
    assert "for j < 128:" in text and "//" not in text
    x, y = normal(100, 128), normal(70, 128)
    (found,) = run(compiled(lambda t, x, y: t.ops.concat(x, y, axis=0), x.shape, y.shape), x, y)
    np.testing.assert_array_equal(found, np.concatenate([x, y]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("transpose", [(False, False), (True, False), (False, True)])
def test_16_bit_products_use_the_library(dtype: str, transpose: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    a, b = (graphnn.cast(rng.standard_normal((8, 8)), dtype) for _ in range(2))

    def product(a: Any, b: Any) -> Any:
        return graphnn.matmul(a, b, transpose_a=transpose[0], transpose_b=transpose[1])

    found = graphnn.function(product)(a, b)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.numpy().astype("float32"), product(a, b).numpy().astype("float32"), rtol=1e-2
    )
    step = graphnn.function(product)
    step(a, b)
    assert "library call" in step.dump("program")


LIMITS = [0.0, -0.0, 0.9, -0.9, 1.5, -1.5, np.nan, np.inf, -np.inf, 3e38, -3e38]


@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("sign", ["int", "uint"])
def test_casts_to_integers_at_the_limits(source: str, bits: int, sign: str) -> None:
    ends = [s * 2.0**n + d for n in (bits - 1, bits) for s in (1, -1) for d in (-1, 0, 1)]
    with np.errstate(over="ignore"):
        x = graphnn.constant(np.array((LIMITS + ends) * 5, source))
    found = graphnn.function(lambda x: graphnn.cast(x, f"{sign}{bits}"))(x)
    np.testing.assert_array_equal(found.numpy(), graphnn.cast(x, f"{sign}{bits}").numpy())
