"""StringLookup and IntegerLookup: vocabularies given and learned, as in Keras."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras, strings
from graphnn.data import Dataset
from graphnn.keras.layers import IntegerLookup, StringLookup
from graphnn.runtime.errors import ArgumentError, DTypeError, OutOfRangeError, StateError
from tests.preprocess.conftest import compiled, sources

WORDS = np.array([["c", "c"], ["c", "b"], ["a", "b"], ["d", "a"]])
NUMBERS = np.array([[12, 12], [12, 36], [42, 36], [7, 42]])


# ---- strings --------------------------------------------------------------------------------


@pytest.mark.parametrize("source", sources(WORDS, 3))
def test_adapt_counts(source: str) -> None:
    layer = StringLookup()
    layer.adapt(sources(WORDS, 3)[source]())
    # By falling count, equal counts by falling word.
    assert layer.get_vocabulary() == ["[UNK]", "c", "b", "a", "d"]
    assert layer.get_vocabulary(include_special_tokens=False) == ["c", "b", "a", "d"]
    assert layer.vocabulary_size() == 5
    assert layer(WORDS).numpy().tolist() == [[1, 1], [1, 2], [3, 2], [4, 3]]
    assert layer.weights == []


def test_max_tokens_and_steps() -> None:
    layer = StringLookup(max_tokens=3)
    layer.adapt(WORDS)
    assert layer.get_vocabulary() == ["[UNK]", "c", "b"]
    layer.adapt((WORDS for _ in iter(int, 1)), steps=2)
    assert layer.get_vocabulary() == ["[UNK]", "c", "b"]
    assert layer(["d", "b"]).numpy().tolist() == [0, 2]


def test_special_tokens_are_not_learned() -> None:
    layer = StringLookup(mask_token="", oov_token="c")
    layer.adapt([*WORDS.ravel(), "", ""])
    assert layer.get_vocabulary() == ["", "c", "b", "a", "d"]


@pytest.mark.parametrize(
    ("mode", "x", "expected"),
    [
        ("int", [["a", "m", "z"], ["b", "b", "a"]], [[2, 0, 1], [3, 3, 2]]),
        ("int", "a", 2),
        ("one_hot", ["a", "m"], [[0, 1, 0], [0, 0, 0]]),
        ("one_hot", [["a"], ["z"]], [[0, 1, 0], [1, 0, 0]]),
        ("one_hot", "a", [[0, 1, 0]]),
        ("multi_hot", [["a", "m", "z"], ["b", "b", "a"]], [[1, 1, 0], [0, 1, 1]]),
        ("count", [["a", "m", "z"], ["b", "b", "a"]], [[1, 1, 0], [0, 1, 2]]),
        ("count", ["a", "m"], [0, 1, 0]),
    ],
)
def test_modes(mode: str, x: Any, expected: Any) -> None:
    layer = StringLookup(vocabulary=["a", "b"], output_mode=mode, mask_token="m")
    y = layer(x)
    assert y.dtype == "int64" and y.numpy().tolist() == expected
    assert layer(np.array(x)).numpy().tolist() == expected
    assert layer(tf.constant(x)).numpy().tolist() == expected


def test_unknown_words() -> None:
    x = ["a", "zz", "yy", "xx", "q", "", "a longer string with more than 16 chars", "x" * 40]
    x += ["y" * 70, "é" * 200]
    layer = StringLookup(num_oov_indices=3, vocabulary=["a", "b"], mask_token="")
    assert layer(x).numpy().tolist() == [4, 2, 2, 3, 3, 0, 1, 1, 1, 2]  # as in Keras 3
    assert layer.get_vocabulary() == ["", "[UNK]", "[UNK]", "[UNK]", "a", "b"]
    salted = StringLookup(num_oov_indices=3, vocabulary=["a", "b"], salt=[1, 2])
    assert salted(x).numpy().tolist() == [3, 1, 2, 0, 0, 1, 2, 2, 0, 1]
    strict = StringLookup(num_oov_indices=0, vocabulary=["a", "b"])
    assert strict(["b", "a"]).numpy().tolist() == [1, 0]
    with pytest.raises(ArgumentError, match="'zz', 'yy'"):
        strict(x)


def test_invert() -> None:
    layer = StringLookup(vocabulary=["a", "b"], mask_token="")
    back = StringLookup(vocabulary=layer.get_vocabulary(), invert=True, mask_token="")
    y = back([[0, 1, 2], [3, 4, -9]])
    assert y.tolist() == [["", "[UNK]", "a"], ["b", "[UNK]", "[UNK]"]]
    assert y.dtype == strings.string
    assert back(layer(["b", "z"])).tolist() == ["b", "[UNK]"]


def test_tf_idf() -> None:
    layer = StringLookup(output_mode="tf_idf", max_tokens=5, pad_to_max_tokens=True)
    layer.adapt([["a", "b"], ["a", "c"], ["a", "a"]])
    assert layer.get_vocabulary() == ["[UNK]", "a", "c", "b"]
    common, rare = math.log(1 + 3 / (1 + 3)), math.log(1 + 3 / (1 + 1))
    unknown = (common + 2 * rare) / 3
    y = layer([["a", "z", "a"], ["b", "b", "c"]])
    expected = [[unknown, 2 * common, 0, 0, 0], [0, 0, rare, 2 * rare, 0]]
    assert y.dtype == "float32"
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6)
    given = StringLookup(vocabulary=["a", "b"], idf_weights=[0.5, 0.25], output_mode="tf-idf")
    np.testing.assert_allclose(given([["a", "z", "a"]]).numpy(), [[0.375, 1.0, 0.0]])


def test_any_string_can_be_looked_up() -> None:
    words = ["a\0b", "", "🙂"]
    layer = StringLookup(vocabulary=words)
    assert layer([*words, "a"]).numpy().tolist() == [1, 2, 3, 0]
    assert StringLookup(vocabulary=["x"], num_oov_indices=2)(["a\0b", "x"]).shape == (2,)


def test_vocabulary_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("a\nbé\n\x85 \r\nd\n\n".encode())
    layer = StringLookup(vocabulary=str(path))
    assert layer.get_vocabulary() == ["[UNK]", "a", "bé", "\x85 ", "d"]
    other = StringLookup()
    other.set_vocabulary(path)
    assert other.get_vocabulary() == layer.get_vocabulary()
    with pytest.raises(ArgumentError, match="cannot be read"):
        StringLookup(vocabulary=str(tmp_path / "none.txt"))


def test_vocabulary_in_all_forms() -> None:
    for given in (["a", "b"], ("a", "b"), np.array(["a", "b"]), tf.constant([b"a", b"b"])):
        assert StringLookup(vocabulary=given).get_vocabulary() == ["[UNK]", "a", "b"]
    layer = StringLookup(vocabulary=["[UNK]", "a"])
    assert layer.get_vocabulary() == ["[UNK]", "a"]
    layer.set_vocabulary(["x"])
    assert layer(["x", "a"]).numpy().tolist() == [1, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: StringLookup(vocabulary=[]),
        lambda: StringLookup(vocabulary=["a", "b", "a"]),
        lambda: StringLookup(vocabulary=["a", "m"], mask_token="m"),
        lambda: StringLookup(vocabulary=["a", "[UNK]"], invert=True),
        lambda: StringLookup(vocabulary=["a", "b"], max_tokens=2),
        lambda: StringLookup(max_tokens=1),
        lambda: StringLookup(num_oov_indices=-1),
        lambda: StringLookup(pad_to_max_tokens=True),
        lambda: StringLookup(output_mode="words"),
        lambda: StringLookup(invert=True, output_mode="count"),
        lambda: StringLookup(vocabulary=["a"], output_mode="tf_idf"),
        lambda: StringLookup(vocabulary=["a"], idf_weights=[1.0]),
        lambda: StringLookup(vocabulary=["a"], output_mode="tf_idf", idf_weights=[1.0, 2.0]),
        lambda: StringLookup(sparse=True),
        lambda: StringLookup(vocabulary=["a"]).adapt(["a"]),
        lambda: IntegerLookup(salt=3),
        lambda: IntegerLookup(vocabulary_dtype="int32"),
    ],
)
def test_errors(make: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert "fix:" in str(caught.value)


def test_calls_that_cannot_work() -> None:
    with pytest.raises(StateError, match="adapt"):
        StringLookup()(["a"])
    with pytest.raises(DTypeError):
        StringLookup(vocabulary=["a"])([1])
    with pytest.raises(DTypeError):
        IntegerLookup(vocabulary=[1])(["a"])


@pytest.mark.parametrize(
    "layer",
    [
        StringLookup(vocabulary=["a", "b"], mask_token="", num_oov_indices=2, salt=5),
        StringLookup(vocabulary=["a", "b"], idf_weights=[1.0, 2.0], output_mode="tf_idf"),
        IntegerLookup(vocabulary=[1, 5], mask_token=0, output_mode="multi_hot", max_tokens=9,
                      pad_to_max_tokens=True),
    ],
)  # fmt: skip
def test_config(layer: Any) -> None:
    other = type(layer).from_config(layer.get_config())
    assert other.get_config() == layer.get_config()
    x = [["a", "q"]] if isinstance(layer, StringLookup) else [[1, 7]]
    np.testing.assert_array_equal(other(x).numpy(), layer(x).numpy())
    packed = keras.layers.serialize(layer)
    assert keras.layers.deserialize(packed).get_config() == layer.get_config()


def test_learned_vocabularies_are_assets(tmp_path: Path) -> None:
    layer = StringLookup(output_mode="tf_idf")
    layer.adapt(WORDS)
    config = layer.get_config()
    assert config["vocabulary"] is None and config["vocabulary_size"] == 5
    other = StringLookup.from_config(config)
    assert other.compute_output_shape((None, 3)) == (None, 5)
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    layer.save_assets(tmp_path)
    other.load_own_variables(store)
    other.load_assets(tmp_path)
    np.testing.assert_array_equal(other(WORDS).numpy(), layer(WORDS).numpy())
    broken = StringLookup()
    broken.adapt(["two\nlines"])
    with pytest.raises(StateError, match="line break"):
        broken.save_assets(tmp_path)


# ---- integers -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", sources(NUMBERS, 3))
def test_adapt_counts_integers(source: str) -> None:
    layer = IntegerLookup()
    layer.adapt(sources(NUMBERS, 3)[source]())
    assert layer.get_vocabulary() == [-1, 12, 42, 36, 7]
    y = layer(NUMBERS)
    assert y.dtype == "int64" and y.numpy().tolist() == [[1, 1], [1, 3], [2, 3], [4, 2]]


@pytest.mark.parametrize(
    ("settings", "x", "expected"),
    [
        ({}, [[12, 1138, 42], [42, 1000, 36]], [[1, 3, 4], [4, 0, 2]]),
        ({"mask_token": 0}, [[0, 12], [5, 42]], [[0, 2], [1, 5]]),
        (
            {"num_oov_indices": 3, "mask_token": 0},
            [[12, -1, 0], [5, 7, 36]],
            [[4, 3, 0], [3, 2, 5]],
        ),
        ({"output_mode": "multi_hot"}, [[12, 12, 3]], [[1, 1, 0, 0, 0]]),
        ({"output_mode": "count", "mask_token": 36}, [[12, 12, 36]], [[0, 2, 0, 0]]),
        ({"output_mode": "one_hot"}, [42, 1], [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]),
        ({"invert": True}, [[1, 3, 4], [4, 0, 9]], [[12, 1138, 42], [42, -1, -1]]),
        ({"invert": True, "num_oov_indices": 0}, [0, 3, -1], [12, 42, -1]),
    ],
)
def test_integer_lookup(settings: dict[str, Any], x: Any, expected: Any) -> None:
    vocabulary = [12, 36, 1138, 42]
    if "mask_token" in settings and settings["mask_token"] in vocabulary:
        vocabulary.remove(settings["mask_token"])
    layer = IntegerLookup(vocabulary=vocabulary, **settings)
    assert layer(x).numpy().tolist() == expected
    assert compiled(layer, x).numpy().tolist() == expected
    assert layer.compute_output_shape(np.shape(x)) == np.shape(expected)


def test_integer_hashes() -> None:
    settings = {"num_oov_indices": 3, "vocabulary": [10, 20], "mask_token": 0}
    layer = IntegerLookup(oov_method="farmhash", **settings)
    assert layer([[10, -1, 0], [5, 7, 20]]).numpy().tolist() == [[4, 1, 0], [2, 2, 5]]  # as Keras


@pytest.mark.parametrize("step", [7, 2**45])
def test_large_integer_vocabulary_compiled(step: int) -> None:
    rng = np.random.default_rng(0)
    vocabulary = rng.permutation(2**40 + step * np.arange(5000))
    layer = IntegerLookup(vocabulary=vocabulary)
    x = np.concatenate([vocabulary[::3], vocabulary[:100] + 1, [2**62, -(2**62)]])
    known = {int(v): i + 1 for i, v in enumerate(vocabulary)}
    expected = [known.get(int(v), 0) for v in x]
    assert layer(x).numpy().tolist() == expected
    assert compiled(layer, x, any_size=True).numpy().tolist() == expected


def test_unknown_integers_without_a_place() -> None:
    layer = IntegerLookup(vocabulary=[3, 5], num_oov_indices=0)
    assert compiled(layer, [5, 3]).numpy().tolist() == [1, 0]
    with pytest.raises(ArgumentError, match="7, 8"):
        layer([3, 7, 8])
    with pytest.raises(OutOfRangeError):
        compiled(layer, [3, 7, 8])


def test_in_models_and_datasets() -> None:
    layer = IntegerLookup(vocabulary=[12, 36])
    model = keras.Sequential(
        [keras.Input((2,), dtype="int64"), layer, keras.layers.Embedding(3, 2)]
    )
    x = np.array([[12, 36], [1, 12]])
    np.testing.assert_array_equal(model.predict(x, verbose=0), model(x).numpy())
    words = StringLookup(vocabulary=["a"])
    data = Dataset.from_tensor_slices((["a", "b"], [12, 7]))
    found = [(int(s), int(n)) for s, n in data.map(lambda s, n: (words(s), layer(n)))]
    assert found == [(1, 1), (0, 0)]


@pytest.mark.parametrize("shape", [(), (1,), (30, 1), (5, 6)])
def test_integers_far_apart_in_any_shape(shape: tuple[int, ...]) -> None:
    vocabulary = np.unique(np.random.default_rng(0).integers(0, 2**40, 5000))
    layer = keras.layers.IntegerLookup(vocabulary=vocabulary.tolist())
    count = int(np.prod(shape))
    keys = np.concatenate([vocabulary[: count - count // 3], np.arange(count // 3) + 2**41])
    want = np.where(keys < 2**41, np.arange(count) + 1, 0).reshape(shape)
    found = layer(keys.reshape(shape))
    assert found.shape == shape
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(tf.function(layer)(keys.reshape(shape)), want)
