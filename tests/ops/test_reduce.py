"""Reductions and scans: what the generic harness does not show."""

from contextlib import nullcontext

import numpy as np
import pytest

from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, bfloat16, float32
from graphnn.compiler.ops.base import REGISTRY, ArrayHandler, Ops
from graphnn.compiler.ops.reduce import ArgMax, Max, Mean, Sum
from graphnn.runtime.errors import ArgumentError, ShapeError
from tests.ops.recorder import Recorder

OPS = Ops(ArrayHandler(np))


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("bool", "int64"), ("int8", "int64"), ("uint8", "uint64"), ("int64", "int64")],
)
@pytest.mark.parametrize("name", ["sum", "prod"])
def test_integers_are_added_up_in_64_bits(name, dtype, result):
    x = np.full((3, 50), 1, dtype)
    assert getattr(OPS, name)(x, axes=(1,)).dtype == result
    assert getattr(OPS, f"cum{name}")(x, axis=1).dtype == result


def test_small_floats_are_added_up_in_float32():
    x = np.full((4096,), 0.1, bfloat16)
    exact = float(x[0]) * 4096
    assert abs(float(OPS.sum(x, axes=(0,))) - exact) <= exact * 2**-8
    big = np.full((10,), 60000, np.float16)
    assert float(OPS.mean(big, axes=(0,))) == 60000
    assert float(OPS.var(big, axes=(0,))) == 0
    assert OPS.std(big, axes=(0,)).dtype == np.float16


def test_empty_axes():
    x = np.zeros((0, 3), np.float32)
    assert OPS.sum(x, axes=(0,)).tolist() == [0, 0, 0]
    assert OPS.prod(x, axes=(0,)).tolist() == [1, 1, 1]
    assert OPS.max(x, axes=(1,)).shape == (0,)
    assert np.isnan(OPS.mean(x, axes=(0, 1)))
    with pytest.raises(ShapeError, match="the max of nothing"):
        Max(axes=(0,)).infer(TensorType((0, 3), float32))
    with pytest.raises(ShapeError, match="at least one element"):
        ArgMax(axis=0).infer(TensorType((0, 3), float32))


def test_axes_must_exist_once():
    with pytest.raises(ArgumentError, match="axis 2"):
        Sum(axes=(2,)).infer(TensorType((3, 4), float32))
    with pytest.raises(ArgumentError, match="each axis once"):
        Sum(axes=(0, -2)).infer(TensorType((3, 4), float32))


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_nan_is_the_extreme(name):
    x = np.array([[1.0, np.nan, 3.0, np.nan], [2.0, 5.0, 5.0, 0.0]])
    settings = {"axis": 1} if name.startswith("arg") else {"axes": (1,)}
    got = getattr(OPS, name)(x, **settings)
    np.testing.assert_array_equal(got, getattr(np, name)(x, axis=1))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions_are_said_in_other_ops(name):
    op = getattr(OPS, name)
    x = np.random.default_rng(0).integers(0, 3, (4, 1, 6)).astype(np.float32)
    x[0, 0, 3] = np.nan
    for axis in (0, 1, -1):
        said = REGISTRY[name](axis=axis).decompose(OPS, x)
        np.testing.assert_array_equal(said, op(x, axis=axis))
        assert said.dtype == np.int64


@pytest.mark.parametrize("correction", [0, 1, 0.5, 9])
def test_variance_is_numpys(correction):
    x = np.random.default_rng(0).normal(size=(3, 4))
    with np.errstate(all="ignore"), pytest.warns() if correction == 9 else nullcontext():
        want = np.var(x, axis=1, ddof=correction)
    np.testing.assert_allclose(OPS.var(x, axes=(1,), correction=correction), want)


def test_ties_share_the_gradient():
    rec, x = Recorder(), np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 2.0]])
    out = rec.ops.max(x, axes=(1,))
    (gx,) = rec.gradients(out, [2.0, 4.0], x)
    assert gx.tolist() == [[0, 1, 1], [2, 0, 2]]


@pytest.mark.parametrize("zeros", [[], [1], [0, 2], [3]])
def test_product_gradient_with_zeros(zeros):
    rec, x = Recorder(), np.array([2.0, 3.0, 0.5, 4.0])
    x[zeros] = 0
    (gx,) = rec.gradients(rec.ops.prod(x, axes=(0,)), 1.0, x)
    want = [np.prod(np.delete(x, i)) for i in range(4)]
    np.testing.assert_allclose(gx, want)


@pytest.mark.parametrize("zeros", [[], [0], [1], [0, 2], [1, 3], [3]])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_product_gradient_with_zeros(zeros, exclusive, reverse):
    settings = {"axis": 0, "exclusive": exclusive, "reverse": reverse}
    rec, x = Recorder(), np.array([2.0, 3.0, 0.5, 4.0])
    x[zeros] = 0
    seed = np.array([1.0, -2.0, 3.0, 5.0])
    (gx,) = rec.gradients(rec.ops.cumprod(x, **settings), seed, x)
    want = []
    for i in range(4):
        up, down = x.copy(), x.copy()
        up[i], down[i] = x[i] + 1, x[i] - 1  # linear in each element: differences are exact
        change = OPS.cumprod(up, **settings) - OPS.cumprod(down, **settings)
        want.append((change * seed).sum() / 2)
    np.testing.assert_allclose(gx, want)


def test_exclusive_and_reverse_scans():
    x = np.array([1, 2, 3, 4])
    assert OPS.cumsum(x, axis=0, exclusive=True).tolist() == [0, 1, 3, 6]
    assert OPS.cumsum(x, axis=0, reverse=True).tolist() == [10, 9, 7, 4]
    assert OPS.cumprod(x, axis=0, exclusive=True, reverse=True).tolist() == [24, 12, 4, 1]


def test_symbolic_sizes():
    n = symbol("n")
    assert Mean(axes=(0,)).infer(TensorType((n, 3), float32)).shape == (3,)
    assert ArgMax(axis=0).infer(TensorType((n, 3), float32)).shape == (3,)
    assert Sum(axes=(1,), keepdims=True).infer(TensorType((n, n), float32)).shape == (n, 1)
