"""Element-wise ops where they differ from, or go beyond, plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.compiler.ops.base import REGISTRY, ArrayHandler, Ops
from graphnn.runtime.errors import DivisionError, DTypeError, OutOfRangeError
from tests.ops import harness

OPS = Ops(ArrayHandler(np))


def both(name: str, *arrays: Any, **settings: Any) -> Any:
    """The eager value, after comparing it with the compiled one."""
    op = REGISTRY[name](**settings)
    call = harness.Call(op, op.samples[0], arrays)
    harness.check_compiled(call)
    harness.check_element(call)
    return np.asarray(call.eager())


def ints(*values: int, dtype: str = "int32") -> Any:
    return np.array(values, dtype)


def floats(*values: float, dtype: str = "float32") -> Any:
    return np.array(values, dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
def test_integers_divided_by_zero_are_refused(name: str, dtype: str) -> None:
    op = REGISTRY[name]()
    for divisors in ([3, 0, 2] * 20, [0]):
        arrays = ints(*[7] * len(divisors), dtype=dtype), ints(*divisors, dtype=dtype)
        with pytest.raises(DivisionError, match=f"a divisor 0 of dtype {dtype}") as eager:
            op.eager(np, *arrays)
        with pytest.raises(DivisionError) as compiled:
            harness.compiled_value(op, arrays)
        assert str(compiled.value).splitlines()[-3:] == str(eager.value).splitlines()[-3:]
        assert all(
            str(e.value).startswith(f"DivisionError in {name} at") for e in (eager, compiled)
        )
    assert both(name, ints(dtype=dtype), ints(0, dtype=dtype)).shape == (0,)


def test_floats_divided_by_zero_are_not() -> None:
    x, y = floats(1, -1, 0), floats(0, 0, 0)
    for name in ("floor_divide", "remainder"):
        both(name, x, y)
        both(name, x.astype("float16"), y.astype("float16"))
    assert np.isnan(both("remainder", x, y)).all()
    assert both("floor_divide", x, y)[:2].tolist() == [np.inf, -np.inf]


def test_the_least_integer_divided_by_minus_one() -> None:
    least = -(2**31)
    assert both("floor_divide", ints(least), ints(-1)).tolist() == [least]
    assert both("remainder", ints(least), ints(-1)).tolist() == [0]


def test_float_division_rounds_down_as_python_does() -> None:
    x, y = floats(1.0, -7.5, 7.5, -1e-30, dtype="float64"), floats(0.1, 2, -2, 1, dtype="float64")
    assert both("floor_divide", x, y).tolist() == [a // b for a, b in zip(x, y, strict=True)]
    assert both("remainder", x, y).tolist() == [a % b for a, b in zip(x, y, strict=True)]


def test_integer_powers() -> None:
    base, exponent = ints(2, -3, 0, 1, -1, -1, 7), ints(-1, 3, -2, -5, -3, -4, 0)
    assert both("power", base, exponent).tolist() == [0, -27, 0, 1, -1, 1, 1]
    assert both("power", ints(3, dtype="uint8"), ints(6, dtype="uint8")).tolist() == [729 % 256]


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint16", "int64"])
def test_shifts_by_any_count(dtype: str) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    x, count = ints(5, 5, 5, dtype=dtype), ints(1, bits, bits - 1, dtype=dtype)
    assert both("bitwise_left_shift", x, count).tolist()[:2] == [10, 0]
    assert both("bitwise_right_shift", x, count).tolist() == [2, 0, 0]
    if dtype.startswith("int"):
        negative = ints(-5, -5, dtype=dtype)
        assert both("bitwise_right_shift", negative, ints(bits, -1, dtype=dtype)).tolist() == [
            -1,
            -1,
        ]


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("target", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_casts_to_integers_saturate(source: str, target: str) -> None:
    x = harness.make_array(np.array([np.nan, np.inf, -np.inf, 2.7, -2.7]), _dtype(source), None)
    info = np.iinfo(target)
    low = max(-2, int(info.min))
    expected = [0, int(info.max), int(info.min), 2, low]
    assert both("cast", x, dtype=target).tolist() == expected


def _dtype(name: str) -> Any:
    return harness.as_dtype(name)


def test_cast_to_bool() -> None:
    x = floats(0.0, -0.0, np.nan, 0.1)
    assert both("cast", x, dtype="bool").tolist() == [False, False, True, True]


def gradients_of(name: str, *arrays: Any, **settings: Any) -> list[Any]:
    recorder = harness.Recorder()
    inputs = [harness.Value(a) for a in arrays]
    out = recorder.apply(REGISTRY[name](**settings), inputs)
    seed = harness.Value(np.ones(out.shape, out.dtype))
    return [v.array.tolist() for v in harness.gradients(recorder, [out], [seed], inputs)]


def test_ties_go_to_the_first() -> None:
    x, y = floats(1.0, 2.0), floats(1.0, 3.0)
    assert gradients_of("maximum", x, y) == [[1.0, 0.0], [0.0, 1.0]]
    assert gradients_of("minimum", x, y) == [[1.0, 1.0], [0.0, 0.0]]


def test_gradients_at_corners() -> None:
    zero = floats(0.0)
    assert gradients_of("relu", zero) == [[0.0]]
    assert gradients_of("abs", zero) == [[0.0]]
    assert gradients_of("clip", floats(-1, 0, 0.5, 1, 2), floats(0), floats(1)) == [
        [0, 1, 1, 1, 0],
        [1],
        [1],
    ]


def test_power_of_zero_has_finite_gradients() -> None:
    assert gradients_of("power", floats(0.0, 0.0, 0.0), floats(0.0, 1.0, 2.0)) == [
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0],
    ]


def test_where_wants_a_bool() -> None:
    op = REGISTRY["where"]()
    call = harness.Call(op, op.samples[0], (ints(1), floats(1.0), floats(2.0)))
    with pytest.raises(DTypeError, match=r"received: int32\[1\], float32\[1\]"):
        op.infer(*call.types)


def test_inputs_of_two_dtypes_are_refused() -> None:
    op = REGISTRY["add"]()
    call = harness.Call(op, op.samples[0], (ints(1), floats(1.0)))
    with pytest.raises(DTypeError, match=r"int32\[1\] and float32\[1\]"):
        op.infer(*call.types)


def test_labels_out_of_range() -> None:
    logits = np.zeros((2, 3), np.float32)
    op = REGISTRY["sparse_softmax_cross_entropy"]()
    for labels in ([0, 3], [0, -1]):
        for run in (lambda a: op.eager(np, *a), lambda a: harness.compiled_value(op, a)):
            with pytest.raises(OutOfRangeError, match=f"label {labels[1]} for 3 classes"):
                run([logits, np.array(labels, np.int32)])


def test_softmax_of_large_numbers() -> None:
    x = floats(1e4, 1e4 - 1, -np.inf).reshape(1, 3)
    expected = np.array([[1, np.exp(-1), 0]]) / (1 + np.exp(-1))
    np.testing.assert_allclose(both_composite("softmax", x), expected, rtol=1e-6)
    np.testing.assert_allclose(
        both_composite("logsumexp", x, axes=(1,)), [1e4 + np.log1p(np.exp(-1))], rtol=1e-6
    )
    nothing = floats(-np.inf, -np.inf).reshape(1, 2)
    assert both_composite("logsumexp", nothing, axes=(1,)).tolist() == [-np.inf]


def both_composite(name: str, *arrays: Any, **settings: Any) -> Any:
    op = REGISTRY[name](**settings)
    harness.check_compiled(harness.Call(op, op.samples[0], arrays))
    return np.asarray(op.eager(np, *arrays))


def test_half_floats_are_summed_in_float32() -> None:
    x = np.full((1, 4096), 0.01, np.float16)
    np.testing.assert_allclose(OPS.softmax(x).astype(np.float32), 1 / 4096, rtol=1e-3)
    wide = np.full((2, 5000), 300.0, np.float16) + np.arange(2, dtype=np.float16)[:, None]
    mean, variance = OPS.moments(wide, axes=(1,))
    assert mean.tolist() == [300.0, 301.0] and variance.tolist() == [0.0, 0.0]


def test_a_size_that_a_narrow_dtype_wraps_to_0_is_checked() -> None:
    @graphnn.function
    def divided(x: Any) -> Any:
        return x // graphnn.cast(graphnn.arange(1, 301, dtype="int64"), "uint8")

    with pytest.raises(DivisionError):
        divided(graphnn.ones(300, dtype="uint8"))
