"""Random ops: known answers of Philox, layout of the words, distributions, equal bits compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.ir.types import as_dtype
from graphnn.compiler.ops import philox
from graphnn.compiler.ops.arrays import ArrayEmit
from graphnn.compiler.ops.base import REGISTRY, ArrayHandler, Ops
from graphnn.runtime.errors import ArgumentError, ShapeError
from tests.ops import harness

OPS = Ops(ArrayHandler(np))
STATE = np.array([7, 1, 2, 3], np.uint32)
MANY = 200_000


def word(value: int) -> Any:
    return np.array([value], np.uint32)


# The known-answer file of the authors' Random123 library: counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "result"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter: list[int], key: list[int], result: list[int]) -> None:
    words = philox.philox(ArrayEmit(np), tuple(map(word, counter)), tuple(map(word, key)))
    assert [int(w[0]) for w in words] == result


def test_layout_of_words() -> None:
    bits = OPS.random_bits(STATE, shape=(3, 3))
    block = philox.philox(
        ArrayEmit(np),
        tuple(map(word, (1, 0, 2, 3))),  # block 1, count (2, 3)
        tuple(map(word, (7, 1))),
    )
    assert bits.reshape(-1)[4:8].tolist() == [int(w[0]) for w in block]
    wide = OPS.random_bits(STATE, shape=(4,), dtype="uint64")
    flat = bits.reshape(-1).astype(np.uint64)
    assert wide[1] == flat[2] | flat[3] << np.uint64(32)


def test_a_longer_tensor_begins_with_the_shorter_one() -> None:
    long = OPS.random_bits(STATE, shape=(100_000,))
    np.testing.assert_array_equal(long[:7], OPS.random_bits(STATE, shape=(7,)))


@pytest.mark.parametrize("name", ["random_uniform", "random_normal", "truncated_normal"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_compiled_numbers_have_the_same_bits(name: str, dtype: str) -> None:
    op = REGISTRY[name](shape=(37, 129), dtype=dtype)
    value, expected = harness.compiled_value(op, [STATE]), op.eager(np, STATE)
    assert value.dtype == as_dtype(dtype)
    assert value.tobytes() == expected.tobytes()


def test_compiled_dropout_has_the_same_mask() -> None:
    x = np.linspace(1, 2, 3000, dtype=np.float32).reshape(30, 100)
    op = REGISTRY["dropout"](rate=0.3)
    value = harness.compiled_value(op, [x, STATE])
    assert value.tobytes() == np.asarray(op.eager(np, x, STATE)).tobytes()
    assert 0.25 < np.mean(value == 0) < 0.35


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform(dtype: str) -> None:
    x = OPS.random_uniform(STATE, shape=(MANY,), dtype=dtype).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 5e-3 and abs(x.var() - 1 / 12) < 2e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype: str) -> None:
    x = OPS.random_normal(STATE, shape=(MANY,), dtype=dtype).astype(np.float64)
    assert abs(x.mean()) < 1e-2 and abs(x.std() - 1) < 1e-2
    for limit in (0.5, 1, 2, 3):
        inside = math.erf(limit / math.sqrt(2))
        assert abs(np.mean(np.abs(x) < limit) - inside) < 4 * math.sqrt(inside / MANY)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_truncated_normal(dtype: str) -> None:
    x = OPS.truncated_normal(STATE, shape=(MANY,), dtype=dtype).astype(np.float64)
    assert np.abs(x).max() < 2
    assert abs(x.mean()) < 1e-2 and abs(x.std() - 0.8796) < 1e-2


@pytest.mark.parametrize("bits", [0, 1, 2, -2, -1])
def test_normal_at_the_ends_of_the_range(bits: int) -> None:
    for dtype, limit in ((np.uint32, 6.4), (np.uint64, 9.2)):
        x = philox.normal(ArrayEmit(np), np.array([bits % 2 ** (8 * dtype().itemsize)], dtype))
        assert np.isfinite(x).all() and 0 < abs(float(x[0])) < limit


def test_integers() -> None:
    x = OPS.randint(STATE, shape=(MANY,), low=-3, high=4)
    shares = np.bincount(x + 3, minlength=7) / MANY
    assert x.dtype == np.int32 and len(shares) == 7
    np.testing.assert_allclose(shares, 1 / 7, atol=5e-3)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2**64), (5, 2**40), (2**63, 2**64 - 1), (0, 1), (0, 2**32)]
)
def test_integers_are_the_stated_product(low: int, high: int) -> None:
    bits = OPS.random_bits(STATE, shape=(50,), dtype="uint64")
    x = OPS.randint(STATE, shape=(50,), low=low, high=high, dtype="uint64")
    assert x.tolist() == [low + (int(b) * (high - low) >> 64) for b in bits]


def test_empty_range_of_integers() -> None:
    op = REGISTRY["randint"](shape=(2,), low=3, high=3)
    with pytest.raises(ArgumentError, match=r"low 3 and high 3 for int32"):
        op.infer(*harness.Call(op, op.samples[0], (STATE,)).types)


def test_wrong_state() -> None:
    op = REGISTRY["random_uniform"](shape=(2,))
    with pytest.raises(ShapeError, match=r"state uint32\[2\]"):
        op.infer(*harness.Call(op, op.samples[0], (STATE[:2],)).types)


def test_permutation_and_its_inverse() -> None:
    order = OPS.permutation(STATE, size=1000)
    inverse = OPS.permutation(STATE, size=1000, inverse=True)
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order[inverse], np.arange(1000))
    assert np.mean(order == np.arange(1000)) < 0.02


def test_shuffle_moves_whole_slices() -> None:
    x = np.arange(20).reshape(10, 2)
    y = OPS.shuffle(x, STATE)
    np.testing.assert_array_equal(np.sort(y[:, 0]), x[:, 0])
    np.testing.assert_array_equal(y[:, 1], y[:, 0] + 1)


def test_dropout_keeps_the_mean() -> None:
    x = np.ones(MANY, np.float32)
    y = OPS.dropout(x, STATE, rate=0.25)
    assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1 / 0.75))}
    assert abs(y.mean() - 1) < 1e-2
    assert OPS.dropout(x, STATE, rate=0.0) is x


def test_counts_give_other_numbers() -> None:
    other = STATE + np.array([0, 0, 1, 0], np.uint32)
    a, b = (OPS.random_uniform(s, shape=(MANY,)) for s in (STATE, other))
    assert abs(np.corrcoef(a, b)[0, 1]) < 1e-2
