"""TextVectorization: the numbers of Keras 3, every setting, and data of all kinds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras, strings
from graphnn.data import Dataset
from graphnn.keras.layers import TextVectorization
from graphnn.runtime.errors import ArgumentError, DTypeError, StateError, TraceError
from tests.preprocess.conftest import sources

DOCS = ["the cat sat", "the dog", "", "A  cat, the CAT!\u00a0x É"]
WORDS = ["the", "cat", "É", "sat", "dog", "cat\u00a0x", "a"]  # what Keras 3 finds in them


@pytest.mark.parametrize("source", sources(np.array(DOCS), 3))
def test_adapt(source: str) -> None:
    layer = TextVectorization()
    layer.adapt(sources(np.array(DOCS), 3)[source]())
    assert layer.get_vocabulary() == ["", "[UNK]", *WORDS]
    assert layer.get_vocabulary(include_special_tokens=False) == WORDS
    assert layer.vocabulary_size() == 9


@pytest.mark.parametrize("as_column", [False, True])
def test_integers(as_column: bool) -> None:
    layer = TextVectorization()
    layer.adapt(DOCS)
    data = [[d] for d in DOCS] if as_column else DOCS
    y = layer(data)
    assert y.dtype == "int64"
    assert y.numpy().tolist() == [
        [2, 3, 5, 0, 0],
        [2, 6, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [8, 3, 2, 7, 4],
    ]
    assert layer("the cat").numpy().tolist() == [2, 3]
    assert layer(["nothing known"]).numpy().tolist() == [[1, 1]]
    assert layer([""]).shape == (1, 0)
    assert layer(np.array([], str)).shape == (0, 0)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(2, [[2, 3], [2, 6]]), (4, [[2, 3, 5, 0], [2, 6, 0, 0]]), (0, [[], []])],
)
def test_sequence_length(length: int, expected: Any) -> None:
    layer = TextVectorization(output_sequence_length=length)
    layer.adapt(DOCS)
    assert layer(DOCS[:2]).numpy().tolist() == expected
    assert layer.compute_output_shape((None, 1)) == (None, length)


def test_vectors() -> None:
    hot = [[0, 1, 1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1, 0, 0], [0] * 8, [0, 1, 1, 1, 0, 0, 1, 1]]
    for mode in ("multi_hot", "count"):
        layer = TextVectorization(output_mode=mode)
        layer.adapt(DOCS)
        assert layer.get_vocabulary() == ["[UNK]", *WORDS]
        assert layer(DOCS).numpy().tolist() == hot and layer(DOCS).dtype == "int64"
        assert layer("the cat").numpy().tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
        twice = 1 if mode == "multi_hot" else 2
        assert layer(["the the q"]).numpy().tolist() == [[1, twice, 0, 0, 0, 0, 0, 0]]
        assert layer.compute_output_shape((None,)) == (None, 8)


def test_one_hot_pads_with_zeros() -> None:
    layer = TextVectorization(vocabulary=["a"], output_mode="one_hot")
    assert layer(["a q", "a"]).numpy().tolist() == [[[0, 1], [1, 0]], [[0, 1], [0, 0]]]


def test_tf_idf() -> None:
    layer = TextVectorization(output_mode="tf_idf")
    layer.adapt(DOCS)
    seen = {"the": 3, "cat": 2}  # in how many of the four texts
    weights = [math.log(1 + 4 / (1 + seen.get(w, 1))) for w in WORDS]
    counts = np.array([[2, 0, 0, 0, 1, 0, 0]])
    y = layer(["the the dog never"])
    np.testing.assert_allclose(y.numpy()[:, 1:], counts * weights, rtol=1e-6)
    np.testing.assert_allclose(y.numpy()[0, 0], np.mean(weights), rtol=1e-6)
    given = TextVectorization(output_mode="tf_idf", vocabulary=["a", "b"], idf_weights=[0.5, 0.25])
    np.testing.assert_allclose(given(["a b a z"]).numpy(), [[0.375, 1.0, 0.25]])


def test_tf_idf_of_batches_counts_documents() -> None:
    whole, parts = (TextVectorization(output_mode="tf_idf") for _ in range(2))
    whole.adapt(DOCS)
    parts.adapt(Dataset.from_tensor_slices(DOCS).batch(3))
    np.testing.assert_array_equal(whole(DOCS).numpy(), parts(DOCS).numpy())


@pytest.mark.parametrize(
    ("ngrams", "expected"),
    [
        (1, ["a", "b", "c"]),
        (2, ["a", "b", "c", "a b", "b c"]),
        ((2,), ["a b", "b c"]),
        ((3, 2), ["a b c", "a b", "b c"]),
        ((4,), []),
    ],
)
def test_ngrams(ngrams: Any, expected: list[str]) -> None:
    order = ["a", "b", "c", "a b", "b c", "a b c"]
    layer = TextVectorization(ngrams=ngrams, vocabulary=order)
    assert layer(["a b c"]).numpy().tolist() == [[2 + order.index(w) for w in expected]]


def test_ngrams_of_keras() -> None:
    layer = TextVectorization(ngrams=(2, 3), output_sequence_length=4)
    layer.adapt(DOCS)
    assert layer.get_vocabulary()[2:6] == [
        "the dog",
        "the cat\xa0x É",
        "the cat\xa0x",
        "the cat sat",
    ]
    assert layer(DOCS).numpy().tolist() == [
        [6, 10, 5, 0],
        [2, 0, 0, 0],
        [0, 0, 0, 0],
        [12, 9, 4, 7],
    ]


@pytest.mark.parametrize(
    ("standardize", "expected"),
    [
        ("lower_and_strip_punctuation", ["dont", "stop", "É"]),
        ("lower", ["don't", "stop!", "É"]),
        ("strip_punctuation", ["Dont", "Stop", "É"]),
        (None, ["Don't", "Stop!", "É"]),
        (lambda x: strings.regex_replace(strings.lower(x), "[^a-z ]", ""), ["dont", "stop"]),
        (lambda x: np.strings.replace(np.asarray(x), "Stop!", "go"), ["Don't", "go", "É"]),
        (lambda x: [s.upper() for s in x.tolist()], ["DON'T", "STOP!", "É"]),
    ],
)
def test_standardize(standardize: Any, expected: list[str]) -> None:
    layer = TextVectorization(standardize=standardize)
    layer.adapt(["Don't Stop! É"])
    assert sorted(layer.get_vocabulary()[2:]) == sorted(expected)
    assert layer(["Don't Stop! É"]).shape == (1, len(expected))


@pytest.mark.parametrize(
    ("split", "text", "expected"),
    [
        ("whitespace", " a\tb\n\x0bc\u2003d ", ["a", "b", "c\u2003d"]),
        ("character", "aé \n€", ["a", "é", " ", "\n", "€"]),
        (lambda x: [s.split(",") for s in x.tolist()], "a,b c", ["a", "b c"]),
        (lambda x: np.char.split(x.tolist(), ","), "a,b c", ["a", "b c"]),
        (lambda x: tf.stack([x, x + "!"], 1), "a", ["a", "a!"]),
    ],
)
def test_split(split: Any, text: str, expected: list[str]) -> None:
    layer = TextVectorization(standardize=None, split=split, vocabulary=expected)
    assert layer([text]).numpy().tolist() == [list(range(2, 2 + len(expected)))]


def test_no_split() -> None:
    settings = {"split": None, "standardize": None, "vocabulary": ["a", "b"]}
    x = [["a", "b", "c"], ["", "a", "a"]]
    assert TextVectorization(**settings)(x).numpy().tolist() == [[2, 3, 1], [0, 2, 2]]
    assert TextVectorization(**settings)(["a", "c"]).numpy().tolist() == [2, 1]
    padded = TextVectorization(**settings, output_sequence_length=4)
    assert padded(x).numpy().tolist() == [[2, 3, 1, 0], [0, 2, 2, 0]]
    assert padded.compute_output_shape((None, 3)) == (None, 4)
    hot = TextVectorization(**settings, output_mode="multi_hot")
    assert hot(x).numpy().tolist() == [[1, 1, 1], [0, 1, 0]]
    pairs = TextVectorization(split=None, standardize=None, ngrams=2)
    pairs.adapt([["a", "b", "c"]])
    assert pairs.get_vocabulary() == ["", "[UNK]", "c", "b c", "b", "a b", "a"]


def test_more_axes() -> None:
    layer = TextVectorization(vocabulary=["a"])
    x = [[["a b"], ["b"]], [["a"], ["a a a"]]]
    assert layer(x).numpy().tolist() == [[[2, 1, 0], [1, 0, 0]], [[2, 0, 0], [2, 2, 2]]]
    count = TextVectorization(vocabulary=["a"], output_mode="count")
    assert count(x).numpy().tolist() == [[[1, 1], [1, 0]], [[0, 1], [0, 3]]]


def test_max_tokens() -> None:
    layer = TextVectorization(max_tokens=4)
    layer.adapt(DOCS)
    assert layer.get_vocabulary() == ["", "[UNK]", "the", "cat"]
    wide = TextVectorization(max_tokens=20, output_mode="count", pad_to_max_tokens=True)
    wide.adapt(DOCS)
    assert wide(DOCS).shape == (4, 20) and wide.compute_output_shape((None,)) == (None, 20)


def test_set_vocabulary_and_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n[UNK]\none\ntwo", encoding="utf-8")
    layer = TextVectorization(vocabulary=str(path))
    assert layer.get_vocabulary() == ["", "[UNK]", "one", "two"]
    layer.set_vocabulary(["two", "three"])
    assert layer(["one two three"]).numpy().tolist() == [[1, 2, 3]]


def test_config_round_trip() -> None:
    layer = TextVectorization(ngrams=(1, 2), output_sequence_length=3, vocabulary=["a", "a b"])
    config = layer.get_config()
    other = TextVectorization.from_config({**config, "ngrams": [1, 2]})  # as JSON gives it
    assert other.get_config() == config
    assert other(["a b"]).numpy().tolist() == layer(["a b"]).numpy().tolist() == [[2, 1, 3]]
    assert keras.layers.deserialize(keras.layers.serialize(layer)).get_config() == config


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: TextVectorization(standardize="upper"), ArgumentError),
        (lambda: TextVectorization(split="comma"), ArgumentError),
        (lambda: TextVectorization(ngrams=[1, 2]), ArgumentError),
        (lambda: TextVectorization(ngrams=0), ArgumentError),
        (lambda: TextVectorization(output_mode="words"), ArgumentError),
        (lambda: TextVectorization(output_mode="count", output_sequence_length=3), ArgumentError),
        (lambda: TextVectorization(ragged=True), ArgumentError),
        (lambda: TextVectorization(vocabulary=["a"]).adapt(["a"]), ArgumentError),
        (lambda: TextVectorization(vocabulary=["a"])([["a", "b"]]), ArgumentError),
        (lambda: TextVectorization(vocabulary=["a"])([1, 2]), DTypeError),
        (lambda: TextVectorization(vocabulary=["a"], split=lambda x: x)(["a"]), DTypeError),
        (lambda: TextVectorization(vocabulary=["a"], split=lambda x: [])(["a"]), DTypeError),
        (lambda: TextVectorization()(["a"]), StateError),
        (lambda: TextVectorization(output_mode="count")(["a"]), StateError),
        (lambda: tf.function(TextVectorization(vocabulary=["a"]))(tf.ones(2)), TraceError),
    ],
)
def test_errors(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        make()
    assert "fix:" in str(caught.value)


def test_guide_pipeline() -> None:
    samples = np.array([["This is the 1st sample."], ["And here's the 2nd sample."]])
    labels = [[0], [1]]
    vectorizer = TextVectorization(output_mode="int")
    vectorizer.adapt(samples)
    dataset = Dataset.from_tensor_slices((samples, labels)).batch(2)
    dataset = dataset.map(lambda x, y: (vectorizer(x), y), num_parallel_calls=2)
    dataset = dataset.prefetch(2)
    inputs = keras.Input(shape=(None,), dtype="int64")
    x = keras.layers.Embedding(input_dim=10, output_dim=32)(inputs)
    outputs = keras.layers.Dense(1)(x)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer="adam", loss="mse", run_eagerly=True)
    history = model.fit(dataset, verbose=0)
    assert math.isfinite(history.history["loss"][0])
    (tokens, _), *_ = dataset
    assert tokens.shape == (2, 5) and int(tf.reduce_max(tokens)) == 9


def test_a_long_stream_keeps_its_words_only() -> None:
    def endless() -> Any:
        number = 0
        while True:
            yield [f"word{(number + i) % 50} common" for i in range(64)]
            number += 64

    layer = TextVectorization(max_tokens=10)
    layer.adapt(endless(), steps=100)
    assert layer.get_vocabulary()[2] == "common" and layer.vocabulary_size() == 10
