"""Where elements come from, what they look like, and how many there are."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.dtypes import StringDType

import graphnn as tf
from graphnn.data import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY, Dataset
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError, StateError
from tests.data.conftest import plain, values

Point = namedtuple("Point", ["x", "y"])


@dataclass
class Example:
    image: object
    label: object


def test_slices_give_tensors_in_the_structure_of_the_arrays() -> None:
    dataset = Dataset.from_tensor_slices(({"a": [1.0, 2.0]}, np.array([[1], [2]], np.uint8)))
    (features, label), _ = list(dataset)
    assert isinstance(features["a"], tf.Tensor)
    assert features["a"].dtype == tf.float32
    assert label.dtype == tf.uint8
    assert values(dataset) == [({"a": 1.0}, [1]), ({"a": 2.0}, [2])]


@pytest.mark.parametrize("make", [Point, Example])
def test_named_tuples_and_dataclasses_stay_what_they_are(make: type) -> None:
    dataset = Dataset.from_tensor_slices(make([1, 2, 3], [4, 5, 6])).shuffle(3, seed=0).batch(2)
    first = next(iter(dataset))
    assert type(first) is make
    again = dataset.map(lambda e: e).unbatch()
    assert type(next(iter(again))) is make


def test_python_numbers_have_the_dtypes_of_tensorflow() -> None:
    spec = Dataset.from_tensors(
        (1, 2.0, True, [1, 2], np.float64(3), np.arange(2), [np.float64(1.0)], 2**40)
    ).element_spec
    names = [leaf.dtype.name for leaf in spec]
    assert names == [
        "int32",
        "float32",
        "bool",
        "int32",
        "float64",
        "int64",
        "float64",
        "int64",
    ]


@pytest.mark.parametrize(
    "text",
    [["a", "bc"], np.array(["a", "bc"]), np.array([b"a", b"bc"]), np.array(["a", "bc"], "O")],
)
def test_text_of_any_kind_becomes_strings(text: object) -> None:
    dataset = Dataset.from_tensor_slices(text)
    assert dataset.element_spec == tf.TensorSpec((), tf.string)
    first = next(iter(dataset))
    assert isinstance(first.dtype, StringDType)
    assert list(dataset.as_numpy_iterator()) == ["a", "bc"]
    batch = next(iter(dataset.shuffle(2).map(lambda s: s).batch(2)))
    assert isinstance(batch.dtype, StringDType)
    assert sorted(batch.tolist()) == ["a", "bc"]


@pytest.mark.parametrize("bad", [np.array([1j]), np.array([None, 1], "O"), [object()]])
def test_other_objects_are_refused(bad: object) -> None:
    with pytest.raises(DTypeError, match="expected: numbers, booleans or text"):
        Dataset.from_tensor_slices(bad)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ShapeError, match="same number of elements"):
        Dataset.from_tensor_slices((np.zeros(3), np.zeros(4)))
    with pytest.raises(ShapeError, match="from_tensors"):
        Dataset.from_tensor_slices(3.0)
    with pytest.raises(ArgumentError, match="from_generator"):
        Dataset.from_tensor_slices([[1], [2, 3]])


def test_a_variable_is_copied_when_it_goes_in() -> None:
    variable = tf.Variable([1.0, 2.0])
    dataset = Dataset.from_tensor_slices(variable)
    variable.assign([7.0, 7.0])
    assert values(dataset) == [1.0, 2.0]


def test_numpy_iterator_gives_scalars_and_read_only_arrays() -> None:
    source = np.arange(6.0).reshape(3, 2)
    first, number = next(Dataset.from_tensor_slices((source, [1, 2, 3])).as_numpy_iterator())
    assert isinstance(number, np.int32)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 5
    assert source[0, 0] == 0


def test_range_has_the_three_forms_and_a_dtype() -> None:
    assert values(Dataset.range(3)) == [0, 1, 2]
    assert values(Dataset.range(5, 0, -2)) == [5, 3, 1]
    assert values(Dataset.range(3, 1)) == []
    assert next(iter(Dataset.range(2, output_type="float32"))).dtype == tf.float32
    with pytest.raises(ArgumentError, match="an integer"):
        Dataset.range(1.5)


def test_generators_with_and_without_a_signature() -> None:
    def rows(stop: object):
        for i in range(int(stop)):
            yield {"n": i, "x": [float(i)] * i}

    spec = {"n": tf.TensorSpec((), "int64"), "x": tf.TensorSpec((None,), "float64")}
    dataset = Dataset.from_generator(rows, args=(3,), output_signature=spec)
    assert dataset.element_spec == spec
    first = next(iter(dataset))
    assert (first["n"].dtype, first["x"].dtype) == (tf.int64, tf.float64)
    assert values(dataset)[2] == {"n": 2, "x": [2.0, 2.0]}
    older = Dataset.from_generator(lambda: iter([(1, "a")]), (tf.int32, str), ((), ()))
    assert older.element_spec == (tf.TensorSpec((), "int32"), tf.TensorSpec((), tf.string))
    assert values(older) == [(1, "a")]
    bare = Dataset.from_generator(lambda: iter([np.zeros((2, 3))]))
    assert bare.element_spec == tf.TensorSpec((2, 3), "float64")


def test_generator_that_does_not_fit_its_signature() -> None:
    dataset = Dataset.from_generator(
        lambda: iter([[1.0], [1.0, 2.0]]), output_signature=tf.TensorSpec((1,))
    )
    iterator = iter(dataset)
    next(iterator)
    with pytest.raises(ShapeError, match="element 1"):
        next(iterator)


def test_generator_is_closed_with_the_iterator() -> None:
    events = []

    def rows():
        try:
            yield from range(10)
        finally:
            events.append("closed")

    for _ in Dataset.from_generator(rows):
        break
    assert events == ["closed"]
    with pytest.raises(ArgumentError, match="a function that gives a new generator"):
        Dataset.from_generator(rows())


def test_zip_and_enumerate_and_concatenate() -> None:
    a, b = Dataset.range(3), Dataset.range(5).filter(lambda x: x != 1)
    assert values(Dataset.zip((a, b))) == [(0, 0), (1, 2), (2, 3)]
    assert values(Dataset.zip({"a": a, "b": (b, a)}))[1] == {"a": 1, "b": (2, 1)}
    assert values(Dataset.zip(a, a)) == [(0, 0), (1, 1), (2, 2)]
    assert values(b.enumerate(7)) == [(7, 0), (8, 2), (9, 3), (10, 4)]
    assert values(a.concatenate(b)) == [0, 1, 2, 0, 2, 3, 4]
    assert Dataset.range(2).batch(2).concatenate(Dataset.range(3).batch(3, True)).element_spec == (
        tf.TensorSpec((None,), "int64")
    )
    with pytest.raises(ArgumentError, match="from_tensor_slices"):
        Dataset.zip((a, [1, 2]))


def test_cardinality_and_length() -> None:
    ten = Dataset.range(10)
    sizes = {
        len(ten.batch(3)): 4,
        len(ten.batch(3, drop_remainder=True)): 3,
        len(ten.take(20)): 10,
        len(ten.skip(4).shard(4, 1)): 2,
        len(ten.repeat(3).enumerate()): 30,
        len(ten.concatenate(ten).prefetch(1).map(lambda x: x)): 20,
        len(ten.batch(5, True).unbatch()): 10,
    }
    assert all(have == want for have, want in sizes.items())
    assert int(ten.repeat().cardinality()) == INFINITE_CARDINALITY
    assert int(ten.filter(lambda x: True).cardinality()) == UNKNOWN_CARDINALITY
    assert int(ten.repeat().take(7).cardinality()) == 7
    assert bool(ten.take(0))
    for dataset in (ten.repeat(), ten.filter(lambda x: True)):
        with pytest.raises(TypeError, match="len"):
            len(dataset)
    assert len(list(ten.filter(lambda x: True))) == 10


def test_element_spec_knows_which_sizes_change() -> None:
    data = (np.zeros((9, 4), "float32"), np.zeros(9, "int32"))
    dataset = Dataset.from_tensor_slices(data).shuffle(4).batch(2).repeat()
    assert dataset.element_spec == (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), "int32"))
    mapped = dataset.map(lambda x, y: {"x": tf.reshape(x, (-1, 2, 2)), "y": tf.reduce_sum(x)})
    assert mapped.element_spec == {"x": tf.TensorSpec((None, 2, 2)), "y": tf.TensorSpec(())}
    fixed = Dataset.from_tensor_slices(data).batch(2, drop_remainder=True).map(lambda x, y: x)
    assert fixed.element_spec == tf.TensorSpec((2, 4))
    assert fixed.unbatch().element_spec == tf.TensorSpec((4,))
    inner = Dataset.range(3).flat_map(lambda i: Dataset.from_tensors([1.0]).batch(2))
    assert inner.element_spec == tf.TensorSpec((None, 1))
    assert iter(dataset).element_spec == dataset.element_spec


def test_element_spec_of_nothing_is_an_error() -> None:
    with pytest.raises(StateError, match="output_signature"):
        _ = Dataset.from_generator(lambda: iter([])).element_spec
    assert Dataset.from_tensor_slices(np.zeros((0, 3))).map(
        lambda x: x
    ).element_spec == tf.TensorSpec((3,), "float64")


def test_apply_reduce_and_single_element() -> None:
    dataset = Dataset.range(4)
    assert dataset.apply(lambda d: d.take(1)).get_single_element() == 0
    total, count = dataset.enumerate().reduce((0, 0), lambda s, e: (s[0] + e[1], s[1] + 1))
    assert (int(total), int(count)) == (6, 4)
    for bad in (dataset, dataset.take(0)):
        with pytest.raises(StateError):
            bad.get_single_element()


def test_repr_shows_the_pipeline() -> None:
    dataset = Dataset.range(5).shuffle(3).batch(2).prefetch(1)
    assert repr(dataset) == "Dataset(range(0, 5, 1).rows(5).shuffle(3).batch(2).prefetch())"
    assert plain(next(iter(dataset.take(1)))) is not None


def test_wrong_arguments_are_refused() -> None:
    dataset = Dataset.range(3)
    for call in (
        lambda: dataset.batch(0),
        lambda: dataset.batch("2"),
        lambda: dataset.shuffle(-1),
        lambda: dataset.take(-2),
        lambda: dataset.shard(2, 2),
        lambda: dataset.map(3),
        lambda: dataset.map(abs, num_parallel_calls=0),
        lambda: dataset.prefetch(-3),
        lambda: dataset.interleave(abs, cycle_length=0),
        lambda: dataset.iterator(5),
    ):
        with pytest.raises(ArgumentError):
            call()


def test_specs_of_text_are_tensor_specs() -> None:
    texts = Dataset.from_tensor_slices(["a", "bc"])
    spec = texts.element_spec
    assert type(spec) is tf.TensorSpec
    assert spec == tf.TensorSpec((), tf.string) == tf.TensorSpec(shape=[], dtype="string")
    assert spec != tf.TensorSpec((), "int32")
    assert spec.dtype == tf.string
    assert repr(spec) == "TensorSpec(shape=(), dtype=string)"
    assert texts.batch(2).element_spec == tf.TensorSpec((None,), tf.string)
    assert len({spec, tf.TensorSpec((), tf.string)}) == 1


def test_a_generator_of_text_with_a_signature() -> None:
    signature = {"words": tf.TensorSpec((None,), tf.string), "n": tf.TensorSpec((), tf.int64)}
    rows = [{"words": ["a", "bc"], "n": 2}, {"words": [], "n": 0}]
    dataset = Dataset.from_generator(lambda: iter(rows), output_signature=signature)
    assert dataset.element_spec == signature
    first, second = values(dataset)
    assert first == {"words": ["a", "bc"], "n": 2}
    assert second == {"words": [], "n": 0}
    older = Dataset.from_generator(lambda: iter(["x"]), output_types=tf.string, output_shapes=())
    assert older.element_spec == tf.TensorSpec((), tf.string)
    wrong = Dataset.from_generator(lambda: iter([3]), output_signature=tf.TensorSpec((), tf.string))
    with pytest.raises(ShapeError, match=r"TensorSpec\(shape=\(\), dtype=string\)"):
        list(wrong)
    ragged = Dataset.from_generator(
        lambda: iter(["x"]), output_signature=tf.TensorSpec((None,), tf.string)
    )
    with pytest.raises(ShapeError, match="element 0"):
        list(ragged)
