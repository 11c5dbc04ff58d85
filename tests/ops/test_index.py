"""Reading and writing at indices: NumPy's results, range errors, gradients of repeated indices."""

import numpy as np
import pytest

from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, bool_, float32, int32, int64
from graphnn.compiler.ops.base import ArrayHandler, Ops
from graphnn.compiler.ops.checks import IndexCheck
from graphnn.compiler.ops.index import BooleanMask, Index, NonZero, OneHot, Take, TakeAlongAxis
from graphnn.compiler.ops.scatter import PutAlongAxis, Scatter
from graphnn.runtime.errors import (
    ArgumentError,
    DTypeError,
    OutOfRangeError,
    ShapeError,
    TraceError,
)
from tests.ops.recorder import Recorder

OPS = Ops(ArrayHandler(np))
X = np.arange(60.0).reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("indices", "axes", "at", "want"),
    [
        (([0, 2], [1, -1]), (0, 1), 0, X[[0, 2], [1, -1]]),
        (([0, 2], [1, -1]), (0, 2), 0, X[[0, 2], :, [1, -1]]),
        (([0, 2], [[1], [3]]), (1, 2), 1, X[:, [0, 2], [[1], [3]]]),
        (([[0, 1]],), (2,), 2, X[:, :, [[0, 1]]]),
        ((1, [0, 3]), (0, 2), 0, X[1, :, [0, 3]]),
        ((1, 2), (0, 2), 0, X[1, :, 2]),
        (([0, 1],), (0,), 2, np.moveaxis(X[[0, 1]], 0, 2)),
    ],
)
def test_integer_arrays_index_as_in_numpy(indices, axes, at, want):
    arrays = [np.array(i) for i in indices]
    np.testing.assert_array_equal(OPS.index(X, *arrays, axes=axes, at=at), want)
    added = OPS.scatter(np.zeros_like(X), *arrays, want, axes=axes, at=at, mode="set")
    np.testing.assert_array_equal(OPS.index(added, *arrays, axes=axes, at=at), want)


def test_unsigned_and_narrow_indices():
    for dtype in ("uint8", "int8", "uint64"):
        np.testing.assert_array_equal(OPS.take(X, np.array([2, 0], dtype), axis=0), X[[2, 0]])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: OPS.take(X, np.array([0, 4, 9]), axis=1), "index 4 on axis 1 of size 4"),
        (lambda: OPS.take(X, np.array(-4), axis=0), "index -4 on axis 0 of size 3"),
        (lambda: OPS.take(X[:0], np.array([0]), axis=0), "the axis is empty"),
        (
            lambda: OPS.index(X, np.array([0]), np.array([5]), axes=(0, 2), at=0),
            "index 5 on axis 2 of size 5",
        ),
        (
            lambda: OPS.take_along_axis(X[0], np.full((4, 1), 5), axis=1),
            "index 5 on axis 1 of size 5",
        ),
        (
            lambda: OPS.scatter(X, np.array([3]), X[:1], axes=(0,), at=0, mode="add"),
            "-3 <= index < 3",
        ),
        (
            lambda: OPS.put_along_axis(X[0], np.full((4, 1), -6), X[0, :, :1], axis=1, mode="add"),
            "index -6",
        ),
    ],
)
def test_out_of_range(call, text):
    with pytest.raises(OutOfRangeError, match=text):
        call()


def test_compiled_check_speaks_as_eager_does():
    n = symbol("n")
    check = IndexCheck("take", 1, n).bind({"n": 4})
    with pytest.raises(OutOfRangeError) as eager:
        OPS.take(X, np.array([7]), axis=1)
    assert check.error(7, eager.value.loc).text() == eager.value.text()


@pytest.mark.parametrize(
    ("op", "types", "error", "text"),
    [
        (Take(axis=0), [(float32, 3), (float32, 2)], DTypeError, "integer indices"),
        (Take(axis=1), [(float32, 3), (int32, 2)], ArgumentError, "axis 1"),
        (Take(axis=0), [(float32,), (int32, 2)], ShapeError, "at least one axis"),
        (TakeAlongAxis(axis=0), [(float32, 3, 4), (int32, 2, 3)], ShapeError, "equal sizes"),
        (Index(axes=(0, 0), at=0), [(float32, 3), (int32,), (int32,)], ArgumentError, "once"),
        (Index(axes=(0,), at=1), [(float32, 3), (int32,)], ArgumentError, "at=1"),
        (OneHot(depth=3), [(float32, 3)], DTypeError, "one_hot"),
        (
            Scatter(axes=(0,), mode="add"),
            [(float32, 3), (int32, 2), (float32, 3)],
            ShapeError,
            r"shape \(2,\)",
        ),
        (
            Scatter(axes=(0,), mode="sum"),
            [(float32, 3), (int32, 2), (float32, 2)],
            ArgumentError,
            "mode 'sum'",
        ),
        (
            PutAlongAxis(axis=0, mode="add"),
            [(bool_, 3), (int32, 2), (bool_, 2)],
            DTypeError,
            "only with mode 'set'",
        ),
    ],
)
def test_errors_name_what_is_wrong(op, types, error, text):
    with pytest.raises(error, match=text):
        op.infer(*(TensorType(tuple(shape), dtype) for dtype, *shape in types))


def test_data_dependent_shapes_need_eager_code():
    x, mask = TensorType((3,), float32), TensorType((3,), bool_)
    with pytest.raises(TraceError, match="outside @function"):
        NonZero().infer(x)
    with pytest.raises(TraceError, match="where"):
        BooleanMask().infer(x, mask)
    with pytest.raises(ShapeError, match="a bool mask"):
        BooleanMask().infer(x, TensorType((2,), bool_))


def test_boolean_mask_and_its_gradient():
    rec, x = Recorder(), np.arange(12.0).reshape(3, 4)
    mask = np.array([True, False, True, True])
    out = rec.ops.boolean_mask(x, mask, axis=1)
    np.testing.assert_array_equal(out, x[:, mask])
    (gx,) = rec.gradients(out, 2.0, x)
    np.testing.assert_array_equal(gx, np.where(mask, 2.0, 0.0) * np.ones((3, 1)))
    rows, cols = OPS.nonzero(np.array([[0, 3], [4, 0]]))
    assert (rows.tolist(), cols.tolist(), rows.dtype) == ([0, 1], [1, 0], int64)


def test_one_hot_out_of_range_is_zero():
    hot = OPS.one_hot(np.array([0, -1, 3, 2]), depth=3, dtype="float32")
    assert hot.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_repeated_indices():
    index, updates = np.array([1, 1, 0]), np.array([2.0, 3.0, 4.0])
    base = np.array([1.0, 10.0, 100.0])
    wanted = {
        "add": [5, 15, 100],
        "set": [4, 3, 100],
        "mul": [4, 60, 100],
        "max": [4, 10, 100],
        "min": [1, 2, 100],
    }
    for mode, want in wanted.items():
        assert OPS.scatter(base, index, updates, axes=(0,), mode=mode).tolist() == want


def gradients_of(mode, base, index, updates, seed):
    rec = Recorder()
    out = rec.ops.scatter(base, index, updates, axes=(0,), mode=mode)
    return [g.tolist() for g in rec.gradients(out, seed, base, updates)]


def test_gradients_of_repeated_indices():
    index, seed = np.array([1, 1, 0]), np.array([1.0, 2.0, 3.0])
    base, updates = np.array([1.0, 10.0, 100.0]), np.array([2.0, 3.0, 4.0])
    assert gradients_of("add", base, index, updates, seed) == [[1, 2, 3], [2, 2, 1]]
    assert gradients_of("set", base, index, updates, seed) == [[0, 0, 3], [0, 2, 1]]
    assert gradients_of("mul", base, index, updates, seed) == [[4, 12, 3], [60, 40, 1]]
    tied = np.array([10.0, 10.0, 4.0])
    got = gradients_of("max", base, index, tied, seed)
    np.testing.assert_allclose(got[0], [0, 2 / 3, 3])
    np.testing.assert_allclose(got[1], [2 / 3, 2 / 3, 1])
    zeros = np.array([0.0, 3.0, 0.0])
    assert gradients_of("mul", base, index, zeros, seed) == [[0, 0, 3], [60, 0, 1]]


def test_embedding_gradient_adds_rows():
    rec, table = Recorder(), np.zeros((4, 2))
    out = rec.ops.take(table, np.array([[1, 3], [1, -4]]), axis=0)
    (g,) = rec.gradients(out, 1.0, table)
    assert g.tolist() == [[1, 1], [2, 2], [0, 0], [1, 1]]
