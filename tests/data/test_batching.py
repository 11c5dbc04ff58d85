"""Batches, padded batches and their reverse."""

import numpy as np
import pytest

import graphnn as tf
from graphnn.data import Dataset
from graphnn.runtime.errors import ArgumentError, ShapeError
from tests.data.conftest import values


def ragged(count: int = 4) -> Dataset:
    return Dataset.range(1, count + 1).map(lambda n: tf.fill((int(n),), n))


def test_remainder_is_kept_or_dropped() -> None:
    for dataset in (Dataset.range(5), Dataset.range(5).map(lambda x: x)):
        assert values(dataset.batch(2)) == [[0, 1], [2, 3], [4]]
        assert values(dataset.batch(2, drop_remainder=True)) == [[0, 1], [2, 3]]
        assert values(dataset.batch(9)) == [[0, 1, 2, 3, 4]]
        assert values(dataset.batch(9, drop_remainder=True)) == []


def test_batches_of_batches_and_back() -> None:
    dataset = Dataset.range(8).batch(2).batch(2)
    assert values(dataset) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert values(dataset.unbatch().unbatch()) == list(range(8))


def test_batches_of_structures() -> None:
    dataset = Dataset.range(3).map(lambda i: {"a": (i, i * 1.5), "s": np.array(f"n{int(i)}")})
    (batch,) = list(dataset.batch(3))
    assert batch["a"][1].numpy().tolist() == [0.0, 1.5, 3.0]
    assert batch["s"].tolist() == ["n0", "n1", "n2"]
    assert dataset.batch(2).element_spec["s"] == tf.TensorSpec((None,), tf.string)
    assert values(dataset.batch(2).unbatch()) == values(dataset)


def test_padding_to_the_longest_in_the_batch() -> None:
    assert values(ragged().padded_batch(3)) == [[[1, 0, 0], [2, 2, 0], [3, 3, 3]], [[4, 4, 4, 4]]]
    assert values(ragged().padded_batch(3, drop_remainder=True))[-1][0] == [1, 0, 0]
    assert ragged().padded_batch(3).element_spec.shape == (None, None)


def test_padding_to_given_sizes_with_given_values() -> None:
    assert values(ragged(2).padded_batch(2, [3], -1)) == [[[1, -1, -1], [2, 2, -1]]]
    pairs = Dataset.zip((ragged(2), Dataset.range(2)))
    got = values(pairs.padded_batch(2, ((None,), ()), (9, None)))
    assert got == [([[1, 9], [2, 2]], [0, 1])]
    named = pairs.map(lambda a, b: {"a": a, "b": b})
    assert values(named.padded_batch(2, {"a": (4,), "b": ()}))[0]["a"][1] == [2, 2, 0, 0]
    assert named.padded_batch(2, {"a": (4,), "b": ()}, drop_remainder=True).element_spec == {
        "a": tf.TensorSpec((2, 4), "int64"),
        "b": tf.TensorSpec((2,), "int64"),
    }


def test_padding_of_images_and_strings_and_tables() -> None:
    images = Dataset.from_generator(lambda: (np.ones((n, 3 - n)) for n in (1, 2)))
    (batch,) = list(images.padded_batch(2))
    assert batch.shape == (2, 2, 2)
    assert float(tf.reduce_sum(batch)) == 4.0
    words = Dataset.from_generator(lambda: iter([["a"], ["b", "c"]]))
    assert values(words.padded_batch(2)) == [[["a", ""], ["b", "c"]]]
    assert values(words.padded_batch(2, padding_values="-")) == [[["a", "-"], ["b", "c"]]]
    assert values(Dataset.range(3).padded_batch(2)) == [[0, 1], [2]]


def test_elements_too_large_for_the_shape() -> None:
    with pytest.raises(ShapeError, match="none longer than padded_shapes"):
        list(ragged().padded_batch(2, (1,)))
    with pytest.raises(ShapeError, match="one size, or None, for each axis"):
        list(ragged().padded_batch(2, (1, 1)))
    with pytest.raises(ArgumentError, match="as many as an element has"):
        list(Dataset.zip((ragged(), ragged())).padded_batch(2, ((None,),)))
