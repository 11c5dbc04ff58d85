"""Tensor as users hold it: conversion, operators, printing, copies, other libraries."""

import copy
import math
import pickle

import ml_dtypes
import numpy as np
import pytest

import graphnn
from graphnn.compiler.ops.math import Add, Divide, Multiply, Subtract
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError
from graphnn.state import state

FLOATS = ("float16", "bfloat16", "float32", "float64")
ALL = ("bool", "int8", "int32", "int64", "uint8", "uint32", *FLOATS)


# ---- making tensors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1, "int32"),
        (1.5, "float32"),
        (True, "bool"),
        ([1, 2], "int32"),
        ([1, 2.5], "float32"),
        ([True, False], "bool"),
        ([], "float32"),
        (np.float64(2.0), "float64"),
        (np.arange(3), "int64"),
        (np.ones(2), "float64"),
        ([np.float64(1.0)], "float64"),
        (np.ones(2, ml_dtypes.bfloat16), "bfloat16"),
        (range(3), "int32"),
    ],
)
def test_dtypes_of_converted_values(value: object, dtype: str) -> None:
    assert graphnn.constant(value).dtype == dtype


def test_conversion_copies_arrays() -> None:
    array = np.ones(3, "float32")
    tensor = graphnn.constant(array)
    array[0] = 9
    assert tensor.numpy().tolist() == [1, 1, 1]
    shared = graphnn.asarray(array, copy=False)
    assert np.shares_memory(np.asarray(shared), array)


def test_lists_may_hold_tensors() -> None:
    one = graphnn.constant(1.0)
    nested = graphnn.constant([[one, 2.0], [3, one + 3]])
    assert nested.numpy().tolist() == [[1, 2], [3, 4]]
    assert graphnn.stack([one, one]).shape == (2,)


@pytest.mark.parametrize("value", [None, {"a": 1}, [[1], [2, 3]], object(), 1j])
def test_what_is_no_tensor(value: object) -> None:
    with pytest.raises(DTypeError, match="received"):
        graphnn.constant(value)


def test_integers_must_fit() -> None:
    with pytest.raises(ArgumentError, match="int32 cannot hold"):
        graphnn.constant(2**40)
    assert graphnn.constant(2**40, dtype="int64").item() == 2**40
    with pytest.raises(ArgumentError, match="uint8"):
        graphnn.constant([1], dtype="uint8") + 300


def test_constant_with_shape() -> None:
    assert graphnn.constant(7, shape=(2, 2)).numpy().tolist() == [[7, 7], [7, 7]]
    assert graphnn.constant([1, 2, 3, 4], shape=(2, 2)).shape == (2, 2)


# ---- operators ------------------------------------------------------------------------------


def test_arithmetic_matches_numpy() -> None:
    a, b = np.array([5.0, -3.0], "float32"), np.array([2.0, 4.0], "float32")
    x, y = graphnn.constant(a), graphnn.constant(b)
    for left, right in ((x, y), (x, b), (a, y)):
        assert (left + right).numpy().tolist() == (a + b).tolist()
        assert (left - right).numpy().tolist() == (a - b).tolist()
        assert (left * right).numpy().tolist() == (a * b).tolist()
        assert (left / right).numpy().tolist() == (a / b).tolist()
        assert (left // right).numpy().tolist() == (a // b).tolist()
        assert (left % right).numpy().tolist() == (a % b).tolist()
        np.testing.assert_allclose((left**right).numpy(), a**b)
        assert (left @ right).numpy() == a @ b
        assert (left < right).numpy().tolist() == (a < b).tolist()
        assert (left == right).numpy().tolist() == (a == b).tolist()
    assert (2 - x).numpy().tolist() == (2 - a).tolist()
    assert (2 / x).numpy().tolist() == (2 / a).tolist()
    assert (-x).numpy().tolist() == (-a).tolist()
    assert abs(x).numpy().tolist() == [5, 3]
    assert (2**y).numpy().tolist() == [4, 16]
    assert divmod(x, y)[0].numpy().tolist() == (a // b).tolist()


def test_in_place_operators_make_new_tensors() -> None:
    x = before = graphnn.constant([1.0])
    x += 1
    assert before.item() == 1 and x.item() == 2


def test_bitwise_and_logical() -> None:
    x = graphnn.constant([6, 3])
    assert (x & 2).numpy().tolist() == [2, 2]
    assert (x | 1).numpy().tolist() == [7, 3]
    assert (x ^ x).numpy().tolist() == [0, 0]
    assert (~x).numpy().tolist() == [-7, -4]
    assert (x << 1).numpy().tolist() == [12, 6]
    t = graphnn.constant([True, False])
    assert (t & True).dtype == "bool"
    assert (~t).numpy().tolist() == [False, True]
    assert (t | [True, True]).numpy().tolist() == [True, True]


def test_comparison_with_foreign_objects() -> None:
    x = graphnn.constant(1.0)
    assert (x == None) is False  # noqa: E711
    assert (x != "text") is True
    with pytest.raises(TypeError):
        x + None
    assert {x: 1}[x] == 1


@pytest.mark.parametrize("dtype", ALL)
def test_python_scalars_are_weak(dtype: str) -> None:
    x = graphnn.zeros((2,), dtype)
    assert (x == 0).dtype == "bool"
    if dtype == "bool":
        assert (x + 1).dtype == "int32"
        assert (x + 1.0).dtype == "float32"
        return
    assert (x + 1).dtype == dtype
    assert (1 - x).dtype == dtype
    assert (x * True).dtype == dtype
    assert (x + 1.5).dtype == (dtype if dtype in FLOATS else "float32")


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        ("int32", "float32", "float32"),
        ("int64", "float16", "float16"),
        ("float16", "bfloat16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("uint8", "int8", "int16"),
        ("bool", "int8", "int8"),
        ("uint64", "int64", "int64"),
    ],
)
def test_promotion(a: str, b: str, common: str) -> None:
    x, y = graphnn.ones(2, a), graphnn.ones(2, b)
    assert (x + y).dtype == common
    assert (y * x).dtype == common
    assert graphnn.result_type(x, y) == common


def test_true_division_of_integers() -> None:
    assert (graphnn.constant(1) / 2).numpy() == np.float32(0.5)
    assert graphnn.constant(1).dtype == "int32"
    assert graphnn.sqrt(graphnn.constant(4)).dtype == "float32"


def test_bools_are_no_numbers() -> None:
    t = graphnn.constant([True])
    with pytest.raises(DTypeError, match="add"):
        t + t


@pytest.mark.parametrize("op", [Add, Subtract, Multiply, Divide])
@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("shape", [(), (3,), (0,)])
def test_fast_path_is_the_op(op: type, dtype: str, shape: tuple[int, ...]) -> None:
    a = graphnn.cast(graphnn.constant(np.arange(1, 1 + math.prod(shape)).reshape(shape)), dtype)
    operator = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}[op.name]
    slow = getattr(graphnn, op.name)
    try:
        expected = slow(a, a)
    except DTypeError:
        with pytest.raises(DTypeError):
            eval(f"a {operator} a", {"a": a})
        return
    got = eval(f"a {operator} a", {"a": a})
    assert got.dtype == expected.dtype and got.shape == expected.shape
    assert type(got._value) is np.ndarray
    np.testing.assert_array_equal(got.numpy(), expected.numpy())


def test_numpy_keeps_silent() -> None:
    big = graphnn.constant(3e38)
    assert float(big + big) == math.inf
    assert float(graphnn.log(graphnn.constant(0.0))) == -math.inf
    assert math.isnan(float(graphnn.constant(0.0) / 0.0))
    assert np.geterr()["over"] == "warn"


def test_ops_inside_of_ops_still_work() -> None:
    x = graphnn.constant([1.0])

    class Nested:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return (x + x).numpy()

    assert state.quiet(np.asarray, Nested()).tolist() == [2.0]
    assert state.quiet(graphnn.exp, x * 0).item() == 1


# ---- leaving --------------------------------------------------------------------------------


def test_python_conversions() -> None:
    x = graphnn.constant(2.5)
    assert float(x) == 2.5 and int(x) == 2 and bool(x) is True and complex(x) == 2.5
    assert f"{x:.3f}" == "2.500"
    assert "%.3f" % x == "2.500" and "%d" % x == "2"  # noqa: UP031
    assert [10, 20, 30][graphnn.constant(1)] == 20
    assert list(range(graphnn.constant(3))) == [0, 1, 2]
    assert round(x).item() == 2.0
    assert math.sqrt(graphnn.constant(4.0)) == 2
    assert graphnn.constant([[7]]).item() == 7
    with pytest.raises(DTypeError):
        [1][graphnn.constant(0.0)]
    with pytest.raises(ArgumentError, match="one element"):
        bool(graphnn.constant([1, 2]))


def test_numpy_is_a_copy_and_asarray_a_view() -> None:
    x = graphnn.constant([1.0, 2.0])
    array = x.numpy()
    array[0] = 9
    assert x.numpy().tolist() == [1, 2]
    view = np.asarray(x)
    assert np.shares_memory(view, x._value) and not view.flags.writeable
    assert isinstance(graphnn.constant(1.0).numpy(), np.float32)
    assert np.array(x).flags.writeable
    assert np.asarray(x, "float64").dtype == "float64"
    assert np.exp(graphnn.constant([0.0])).tolist() == [1]


def test_len_iter_and_bool() -> None:
    x = graphnn.constant([[1, 2], [3, 4]])
    assert len(x) == 2 and [row.numpy().tolist() for row in x] == [[1, 2], [3, 4]]
    _, second = x
    assert second.tolist() == [3, 4]
    with pytest.raises(TypeError, match="0-d"):
        len(graphnn.constant(1))
    with pytest.raises(TypeError, match="0-d"):
        iter(graphnn.constant(1))


def test_properties() -> None:
    x = graphnn.zeros((2, 3), "int8")
    assert x.shape == (2, 3) and x.shape.as_list() == [2, 3] and x.shape.rank == 2
    assert x.shape.num_elements() == 6 and x.shape.is_fully_defined()
    assert (x.ndim, x.size, x.itemsize, x.nbytes, x.device) == (2, 6, 1, 6, "/device:CPU:0")
    assert x.T.shape == (3, 2) and x.mT.shape == (3, 2)
    assert x.dtype == "int8" == graphnn.int8 == np.int8 and x.dtype.name == "int8"
    assert graphnn.bfloat16 == "bfloat16" and graphnn.as_dtype(float) == "float32"
    with pytest.raises(ShapeError):
        _ = graphnn.zeros(3).mT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "Tensor(1.5, shape=(), dtype=float32)"),
        ([1.0, 2.0], "Tensor([1. 2.], shape=(2,), dtype=float32)"),
        (True, "Tensor(True, shape=(), dtype=bool)"),
        (np.ones(1, ml_dtypes.bfloat16), "Tensor([1], shape=(1,), dtype=bfloat16)"),
    ],
)
def test_printing(value: object, text: str) -> None:
    x = graphnn.constant(value)
    assert repr(x) == str(x) == f"{x}" == text


def test_copies() -> None:
    x = graphnn.constant([1.0, 2.0])
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.numpy().tolist() == [1, 2]
    b = pickle.loads(pickle.dumps(graphnn.ones(2, "bfloat16")))
    assert b.dtype == "bfloat16"


def test_methods() -> None:
    x = graphnn.constant([[1.0, 2.0], [3.0, 4.0]])
    assert x.sum().item() == 10 and x.sum(axis=0).tolist() == [4, 6]
    assert x.mean(axis=-1, keepdims=True).shape == (2, 1)
    assert x.max().item() == 4 and x.argmax(axis=1).tolist() == [1, 1]
    assert x.reshape(4).shape == x.reshape(-1).shape == x.reshape((4,)).shape == (4,)
    assert x.transpose(1, 0).tolist() == x.T.tolist() == [[1, 3], [2, 4]]
    assert x.astype("int32").dtype == "int32"
    assert x.flatten().tolist() == [1, 2, 3, 4]
    assert x.clip(2, 3).tolist() == [[2, 2], [3, 3]]
    assert x.cumsum(axis=0).tolist() == [[1, 2], [4, 6]]


def test_references_compare_by_identity() -> None:
    x, y = graphnn.constant(1.0), graphnn.constant(1.0)
    assert x.ref() == x.ref() != y.ref() and x.ref().deref() is x
    assert {x.ref(), x.ref(), y.ref()} == {y.ref(), x.ref()}


def test_every_operation_is_public() -> None:
    inner = {"matvec", "trace"}  # in graphnn.linalg
    assert set(graphnn.ops.__all__) - inner <= set(graphnn.__all__)


def test_array_namespace() -> None:
    x = graphnn.ones(2)
    assert x.__array_namespace__() is graphnn
    assert x.to_device("cpu") is x
    with pytest.raises(ArgumentError, match="tpu"):
        x.to_device("tpu")


# ---- DLPack -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint8", "float16", "float32"])
def test_dlpack_with_numpy(dtype: str) -> None:
    x = graphnn.ones((2, 3), dtype)
    array = np.from_dlpack(x)
    assert np.shares_memory(array, x._value) and array.dtype == dtype
    source = np.zeros((2, 2), dtype)
    y = graphnn.from_dlpack(source)
    assert np.shares_memory(np.asarray(y), source) and y.dtype == dtype
    assert x.__dlpack_device__() == (1, 0)


def test_dlpack_of_a_variable_is_a_copy() -> None:
    v = graphnn.Variable([1.0, 2.0])
    array = np.from_dlpack(v)
    v.assign([5.0, 6.0])
    assert array.tolist() == [1, 2]


def test_dlpack_without_bfloat16() -> None:
    with pytest.raises(DTypeError, match="bfloat16"):
        np.from_dlpack(graphnn.ones(2, "bfloat16"))


def test_dlpack_with_torch() -> None:
    torch = pytest.importorskip("torch")
    x = graphnn.constant([1.0, 2.0])
    assert torch.from_dlpack(x).tolist() == [1, 2]
    assert graphnn.from_dlpack(torch.ones(2)).tolist() == [1, 1]
    assert graphnn.constant(torch.ones(2)).tolist() == [1, 1]


def test_dlpack_with_jax() -> None:
    jnp = pytest.importorskip("jax.numpy")
    x = graphnn.constant([1.0, 2.0])
    assert jnp.from_dlpack(x).tolist() == [1, 2]
    assert graphnn.from_dlpack(jnp.ones(2)).tolist() == [1, 1]


# ---- NumPy's functions --------------------------------------------------------------------


@pytest.mark.parametrize("make", [graphnn.constant, graphnn.Variable])
def test_numpy_functions_take_tensors(make):
    a = np.array([[1.0, 2.0], [4.0, 3.0]], "float32")
    t = make(a)
    for name in ("sum", "mean", "std", "var", "max", "min", "prod", "argmax", "any", "all"):
        function = getattr(np, name)
        found = function(t, axis=1)
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, function(a, axis=1))
    assert np.allclose(t, a) and np.array_equal(np.stack([t, t])[1], a)
    assert np.concatenate((t, a), axis=-1).shape == (2, 4)
    assert np.round(t, decimals=1).tolist() == a.tolist()


def test_numpy_functions_in_a_trace():
    @graphnn.function
    def scaled(x):
        return x * float(np.ndim(x)) * np.shape(x)[0]

    assert scaled(graphnn.ones((3, 1))).numpy().ravel().tolist() == [6.0] * 3
    with pytest.raises(graphnn.errors.TraceError):
        graphnn.function(lambda x: np.mean(x))(graphnn.ones(2))


def test_a_name_that_is_no_dtype():
    for wrong in ("float7", "complex64", object):
        with pytest.raises(DTypeError, match="received: "):
            graphnn.zeros(2, dtype=wrong)
