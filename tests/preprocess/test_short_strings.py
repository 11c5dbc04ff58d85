"""Lookups and hashes of many strings and integers: the fast ways against the plain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphnn import short_strings, strings
from graphnn.keras.layers import Hashing, IntegerLookup, StringLookup
from graphnn.keras.layers.preprocess_hash import buckets, number_buckets, text_buckets
from graphnn.runtime.errors import ArgumentError
from graphnn.short_strings import HashTable, words_of

RNG = np.random.default_rng(0)
PARTS = ["", "a", "xyz", "é", "日本", "\0", " ", "0123456789"]
TEXT = np.array(
    ["".join(RNG.choice(PARTS, RNG.integers(0, 9))) for _ in range(3000)], strings.string
)


@pytest.fixture(params=["memory", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without NumPy's memory being read."""
    if request.param == "Python":
        monkeypatch.setattr(short_strings, "_layout_is_known", lambda: False)
    return str(request.param)


def test_words_tell_short_strings() -> None:
    words = words_of(TEXT)
    assert words is not None  # the layout of the NumPy that tests run with is known
    codes = [t.encode() for t in TEXT.tolist()]
    assert words.short.tolist() == [len(c) < 16 for c in codes]
    for row, length, code in zip(words.rows, words.lengths, codes, strict=True):
        if len(code) < 16:
            assert row.tobytes()[:length] == code


def test_words_of_strings_that_were_overwritten() -> None:
    array = np.array(["long" * 9, "short", ""], strings.string)
    array[:] = ["now short", "now long" * 9, "x"]
    found, fresh = words_of(array), words_of(np.array(array.tolist(), strings.string))
    assert found is not None and fresh is not None
    assert found.short.tolist() == [True, False, True]
    assert found.low[found.short].tolist() == fresh.low[found.short].tolist()
    assert found.high[found.short].tolist() == fresh.high[found.short].tolist()
    empty = words_of(np.empty((0,), strings.string))
    assert empty is not None and not empty.low.size
    parts = words_of(TEXT[::-7])  # not contiguous
    assert parts is not None and parts.short.sum() == sum(len(t.encode()) < 16 for t in TEXT[::-7])


@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_hash_tables(count: int) -> None:
    keys = RNG.choice(1 << 40, count, replace=False).astype("uint64")
    high = RNG.integers(0, 3, count).astype("uint64")
    table = HashTable(keys, high, np.arange(count) * 3)
    asked = np.concatenate([keys, keys + 1])
    both = np.concatenate([high, high])
    known = {(int(k), int(h)): 3 * i for i, (k, h) in enumerate(zip(keys, high, strict=True))}
    want = [known.get((int(k), int(h)), -9) for k, h in zip(asked, both, strict=True)]
    assert table.find(asked, both, -9).tolist() == want


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_oov_indices": 7}, {"num_oov_indices": 5, "salt": 3}, {"mask_token": "a"}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["int", "count"])
def test_strings_are_looked_up_as_one_by_one(way: str, settings: Any, mode: str) -> None:
    known = list(dict.fromkeys(TEXT[:900].tolist()))
    known = [t for t in known if t != settings.get("mask_token")]
    layer = StringLookup(vocabulary=known, output_mode=mode, **settings)
    many = np.asarray(layer(TEXT.reshape(-1, 3)))
    one = np.concatenate([np.asarray(layer(row[None])) for row in TEXT.reshape(-1, 3)])
    np.testing.assert_array_equal(many, one)
    if mode == "int" and not settings:
        table = {t: i + 1 for i, t in enumerate(known)}
        assert many.reshape(-1).tolist() == [table.get(t, 0) for t in TEXT.tolist()]


def test_unknown_strings_are_named(way: str) -> None:
    layer = StringLookup(vocabulary=["a", "b"], num_oov_indices=0)
    with pytest.raises(ArgumentError, match="'new'"):
        layer(np.array(["a", "new"] * 300))


@pytest.mark.parametrize("salt", [None, [1, 2]])
def test_hashes_of_text(way: str, salt: Any) -> None:
    want = buckets([t.encode() for t in TEXT.tolist()], 1 << 40, salt)
    np.testing.assert_array_equal(text_buckets(TEXT, 1 << 40, salt), want)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint64", "uint8", "int32"])
def test_hashes_of_integers(dtype: str) -> None:
    limits = np.iinfo(dtype)
    edge = [limits.min, limits.max, limits.max - 1, 0, 1, 9, 10, 99, 100]
    spread = RNG.integers(limits.min, limits.max, 500, dtype=dtype, endpoint=True)
    numbers = np.concatenate([np.array(edge, dtype), spread, spread // np.array(17, dtype)])
    want = buckets([b"%d" % n for n in numbers.tolist()], 1 << 40)
    np.testing.assert_array_equal(number_buckets(numbers, 1 << 40), want)
    small = np.array([3, 0, 77], dtype)
    want = buckets([b"3", b"0", b"77"], 1 << 40)
    np.testing.assert_array_equal(number_buckets(small, 1 << 40), want)
    assert number_buckets(np.empty(0, dtype), 5).shape == (0,)


def test_hashing_of_booleans_and_floats() -> None:
    layer = Hashing(1000)
    bins = np.asarray(layer(np.array([["true", "false", "12", "-3"]])))[0].tolist()
    assert np.asarray(layer(np.array([[True, False]])))[0].tolist() == bins[:2]
    assert np.asarray(layer(np.array([[12.7, -3.2]])))[0].tolist() == bins[2:]


def test_integers_far_apart(way: str) -> None:
    known = RNG.choice(1 << 50, 700, replace=False) - (1 << 49)
    layer = IntegerLookup(vocabulary=known.tolist(), mask_token=-5)
    asked = np.concatenate([known, known + 1, [-5]])
    table = {int(k): i + 2 for i, k in enumerate(known)} | {-5: 0}
    assert np.asarray(layer(asked)).tolist() == [table.get(int(k), 1) for k in asked]


def test_integers_are_counted_over_batches() -> None:
    data = RNG.integers(0, 9, (40, 3)) ** 2
    one, two = IntegerLookup(), IntegerLookup()
    one.adapt(data)
    two.adapt([data[:15], data[15:]])
    assert one.get_vocabulary() == two.get_vocabulary()
    counts = {int(v): int((data == v).sum()) for v in np.unique(data)}
    assert one.get_vocabulary()[1:] == sorted(counts, key=lambda v: (-counts[v], -v))
