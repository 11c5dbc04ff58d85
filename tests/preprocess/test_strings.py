"""Tensors of strings: made, compared, joined, indexed and printed, and kept out of traces."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import strings
from graphnn.data import Dataset
from graphnn.runtime.errors import ArgumentError, DTypeError, TraceError

TEXT = [["a", "bé"], ["", "x y"]]


@pytest.fixture
def text() -> Any:
    return tf.constant(TEXT)


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        np.array(TEXT),
        np.array(TEXT, object),
        np.array(TEXT, strings.string),
        [[s.encode() for s in row] for row in TEXT],
        np.char.encode(np.array(TEXT), "utf-8"),
        [np.array(row) for row in TEXT],
        [tf.constant(row) for row in TEXT],
    ],
    ids=["list", "U", "object", "StringDType", "bytes", "S", "arrays", "tensors"],
)
def test_made_from(data: Any) -> None:
    for make in (tf.constant, tf.convert_to_tensor, tf.asarray):
        tensor = make(data)
        assert tensor.tolist() == TEXT
        assert tensor.shape == (2, 2) and tensor.dtype == strings.string
        assert tf.is_tensor(tensor) and strings.is_string(tensor)


def test_the_data_are_copied() -> None:
    data = np.array(["a", "b"], strings.string)
    tensor = tf.constant(data)
    data[0] = "changed"
    assert tensor.tolist() == ["a", "b"]
    out = tensor.numpy()
    out[0] = "changed"
    assert tensor.tolist() == ["a", "b"]


def test_one_string() -> None:
    one = tf.constant("hi")
    assert one.shape == () and one.numpy() == "hi" and isinstance(one.numpy(), str)
    assert one.item() == "hi" and bool(one == "hi")
    assert tf.constant(b"hi", dtype="string").item() == "hi"
    assert tf.constant("a", shape=(2,)).tolist() == ["a", "a"]


def test_printing(text: Any) -> None:
    assert repr(tf.constant("hi")) == "Tensor('hi', shape=(), dtype=string)"
    assert repr(text[1]) == "Tensor(['' 'x y'], shape=(2,), dtype=string)"
    assert f"{text[0, 0]}" == str(text[0, 0])


def test_comparisons(text: Any) -> None:
    assert (text == "a").tolist() == [[True, False], [False, False]]
    assert (text != ["a", "x y"]).tolist() == [[False, True], [True, False]]
    assert ("a" == text).tolist() == (tf.equal(text, "a")).tolist()
    assert (text < "b").tolist() == [[True, False], [True, False]]
    assert (text >= text).numpy().all()
    assert (tf.constant([1]) == "a") is False


def test_joining(text: Any) -> None:
    assert (text + "!").tolist() == [["a!", "bé!"], ["!", "x y!"]]
    assert ("<" + text[0]).tolist() == ["<a", "<bé"]
    assert (text[0] + text[1]).tolist() == ["a", "béx y"]
    assert strings.join([text[0], text[1]], separator="-").tolist() == ["a-", "bé-x y"]


def test_indexing(text: Any) -> None:
    assert text[0, 1].item() == "bé" and text[:, -1].tolist() == ["bé", "x y"]
    assert text[text == "a"].tolist() == ["a"]
    assert text[[1, 0]].tolist() == [TEXT[1], TEXT[0]]
    assert [row.tolist() for row in text] == TEXT and len(text) == 2
    assert tf.gather(text, [1]).tolist() == [TEXT[1]]
    assert tf.boolean_mask(text, [False, True]).tolist() == [TEXT[1]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: tf.reshape(x, (-1,)), ["a", "bé", "", "x y"]),
        (lambda x: tf.expand_dims(x[0], -1), [["a"], ["bé"]]),
        (lambda x: tf.squeeze(tf.expand_dims(x[0], -1), -1), ["a", "bé"]),
        (lambda x: tf.concat([x[0], x[1]], 0), ["a", "bé", "", "x y"]),
        (lambda x: tf.stack([x[0], x[1]], 1), [["a", ""], ["bé", "x y"]]),
        (lambda x: tf.transpose(x), [["a", ""], ["bé", "x y"]]),
        (lambda x: tf.tile(x[:1], (2, 1)), [["a", "bé"], ["a", "bé"]]),
        (lambda x: tf.where(x == "a", "A", x), [["A", "bé"], ["", "x y"]]),
        (lambda x: tf.shape(x), [2, 2]),
        (lambda x: tf.identity(x), TEXT),
    ],
)
def test_moving(text: Any, function: Callable[[Any], Any], expected: Any) -> None:
    assert function(text).tolist() == expected


def test_copies(text: Any) -> None:
    for other in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert other.tolist() == TEXT and other.dtype == strings.string


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2,
        lambda x: x - "a",
        lambda x: -x,
        lambda x: tf.exp(x),
        lambda x: tf.reduce_sum(x),
        lambda x: tf.reduce_max(x),
        lambda x: tf.matmul(x, x),
        lambda x: tf.add(x, 1),
        lambda x: tf.add(1.0, "a"),
        lambda x: tf.cast(x, "float32"),
        lambda x: tf.Variable(x),
        lambda x: tf.constant(["a"], dtype="float32"),
        lambda x: tf.constant([1.0], dtype="string"),
        lambda x: tf.constant([1, "a"]),
        lambda x: tf.constant(["a", 1]),
        lambda x: tf.constant(np.array(["a", None], object)),
        lambda x: tf.constant(b"\xff"),
        lambda x: tf.constant("\ud800"),
    ],
)
def test_strings_are_no_numbers(text: Any, function: Callable[[Any], Any]) -> None:
    with pytest.raises(DTypeError):
        function(text)


def test_lists_of_different_lengths() -> None:
    with pytest.raises(ArgumentError, match="different lengths"):
        tf.constant([["a"], ["b", "c"]])


@pytest.mark.parametrize(
    "call",
    [
        lambda text: tf.function(lambda x: x)(text),
        lambda text: tf.function(lambda x: x)(np.array(["a"])),
        lambda text: tf.function(lambda x: tf.expand_dims(text, 0))(tf.ones(2)),
        lambda text: tf.function(lambda x: text == "a")(tf.ones(2)),
    ],
    ids=["argument", "array", "captured", "compared"],
)
def test_strings_stay_out_of_traces(text: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(TraceError) as caught:
        call(text)
    message = str(caught.value)
    assert "dataset.map" in message and "run_functions_eagerly" in message
    assert "run_eagerly=True" in message


def test_eager_functions_take_strings(text: Any) -> None:
    tf.run_functions_eagerly(True)
    try:
        assert tf.function(lambda x: x + "!")(text[0]).tolist() == ["a!", "bé!"]
    finally:
        tf.run_functions_eagerly(False)


def test_specs_of_datasets() -> None:
    spec = tf.TensorSpec((), strings.string)
    assert repr(spec) == "TensorSpec(shape=(), dtype=string)" and spec == tf.TensorSpec(
        (), "string"
    )
    data = Dataset.from_generator(lambda: iter(["a", "b"]), output_signature=spec)
    (batch,) = data.batch(2)
    assert tf.is_tensor(batch) and batch.tolist() == ["a", "b"]
    with pytest.raises(TraceError, match="argument x"):
        tf.function(lambda x: x, input_signature=[tf.TensorSpec([None], "string")])(batch)


# ---- tensorflow.strings ---------------------------------------------------------------------


def test_letters() -> None:
    assert strings.lower(["ABC É"]).tolist() == ["abc É"]
    assert strings.lower(["ABC É"], encoding="utf-8").tolist() == ["abc é"]
    assert strings.upper([["abc é"]]).tolist() == [["ABC é"]]
    assert strings.strip(["\t a b \n"]).tolist() == ["a b"]


def test_patterns() -> None:
    found = strings.regex_replace(["a<br />b<br />"], "<br />", " ")
    assert found.tolist() == ["a b "]
    assert strings.regex_replace("aab", "(a)", r"\1-", replace_global=False).item() == "a-ab"
    assert strings.regex_full_match(["ab", "cab"], "a.*").tolist() == [True, False]
    with pytest.raises(ArgumentError, match=r"re\.escape"):
        strings.regex_replace(["a"], "(", "")


def test_parts() -> None:
    assert strings.length([["é", "ab"]]).tolist() == [[2, 2]]
    assert strings.length(["é"], unit="UTF8_CHAR").tolist() == [1]
    assert strings.substr(["hello", "hi"], 1, 3).tolist() == ["ell", "i"]
    assert strings.substr("hello", -3, 2).item() == "ll"
    assert strings.substr(["éa"], 0, 1, unit="UTF8_CHAR").tolist() == ["é"]
    with pytest.raises(DTypeError, match="UTF-8"):
        strings.substr(["éa"], 0, 1)
    with pytest.raises(ArgumentError, match="BYTE"):
        strings.length(["a"], unit="WORD")


def test_numbers() -> None:
    assert strings.as_string([1, -2]).tolist() == ["1", "-2"]
    assert strings.as_string([1.5, 0.25]).tolist() == ["1.500000", "0.250000"]
    assert strings.as_string([1.5], precision=1).tolist() == ["1.5"]
    assert strings.as_string([1.5], shortest=True).tolist() == ["1.5"]
    assert strings.as_string([1500.0], scientific=True).tolist() == ["1.500000e+03"]
    assert strings.as_string([True, False]).tolist() == ["true", "false"]
    assert strings.as_string("a").item() == "a"
    assert strings.to_number(["1.5", "-2e3"]).tolist() == [1.5, -2000.0]
    assert strings.to_number("7", out_type="int64").dtype == "int64"
    with pytest.raises(ArgumentError, match="to_number"):
        strings.to_number(["x"])


def test_public_names_have_docstrings() -> None:
    assert all(getattr(strings, name).__doc__ for name in strings.__all__)
