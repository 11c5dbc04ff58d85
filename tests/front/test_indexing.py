"""x[key] against NumPy, with and without a tape, and its errors."""

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.runtime.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

X = np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5)
ROWS, COLUMNS = np.array([1, 0]), np.array([[2], [0]])

KEYS: list[Any] = [
    0,
    -1,
    (1, 2, 3, 4),
    slice(None, None, -1),
    (slice(1, None), Ellipsis, 2),
    (None, 0, Ellipsis, None),
    (Ellipsis, slice(3, 0, -2)),
    (slice(5, 2), 0),
    ROWS,
    (slice(None), ROWS),
    (ROWS, slice(None), COLUMNS),
    (slice(None), ROWS, COLUMNS),
    (slice(None), ROWS, None, COLUMNS),
    (0, ROWS),
    (ROWS, 0),
    (0, slice(None), ROWS),
    (ROWS, Ellipsis, ROWS),
    (slice(None), 0, Ellipsis, ROWS),
    (None, ROWS),
    ([0, 1], [1, 2]),
    X[:, 0, 0, 0] > 50,
    X > 50,
    (slice(None), X[0, :, 0, 0] > 10, 1),
    [],
    np.int64(1),
    (slice(np.int32(1), None),),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
@pytest.mark.parametrize("taped", [False, True])
def test_like_numpy(key: Any, taped: bool) -> None:
    x = graphnn.constant(X)
    expected = X[key]
    if not taped:
        got = x[key]
    else:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            got = x[key]
            total = graphnn.sum(got)
        weights = np.zeros_like(X)
        np.add.at(weights, key if not isinstance(key, list) or key else np.zeros(0, int), 1)
        np.testing.assert_array_equal(tape.gradient(total, x).numpy(), weights)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.numpy(), expected)


def test_tensors_as_keys() -> None:
    x = graphnn.constant(X)
    i, n = graphnn.constant(ROWS), graphnn.constant(1)
    np.testing.assert_array_equal(x[i].numpy(), X[ROWS])
    np.testing.assert_array_equal(x[n].numpy(), X[1])
    np.testing.assert_array_equal(x[:, n:].numpy(), X[:, 1:])
    np.testing.assert_array_equal(x[x > 50].numpy(), X[X > 50])


def test_errors() -> None:
    x = graphnn.constant(X)
    with pytest.raises(OutOfRangeError, match="index 2 for axis 0"):
        x[2]
    with pytest.raises(OutOfRangeError, match="index -6 for axis 3"):
        x[..., -6]
    with pytest.raises(OutOfRangeError, match="7"):
        x[[0, 7]]
    with pytest.raises(ShapeError, match="at most 4"):
        x[0, 0, 0, 0, 0]
    with pytest.raises(DTypeError, match="float32"):
        x[graphnn.constant(0.5)]
    with pytest.raises(DTypeError, match="text"):
        x["text"]
    with pytest.raises(ShapeError, match="mask"):
        x[[True, False, True]]
    with pytest.raises(ArgumentError, match="step"):
        x[::0]
    with pytest.raises(ShapeError):
        graphnn.constant(1.0)[0]


@settings(max_examples=60)
@given(st.data())
def test_random_basic_keys(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    array = np.arange(np.prod(shape)).reshape(shape)
    x = graphnn.constant(array)
    with graphnn.GradientTape() as tape:
        tape.watch(graphnn.ones(1))  # leaves the fast path
        np.testing.assert_array_equal(x[key].numpy(), array[key])
    np.testing.assert_array_equal(x[key].numpy(), array[key])


@settings(max_examples=60)
@given(st.data())
def test_random_integer_arrays(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    wanted = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
    key = data.draw(hnp.integer_array_indices(shape, result_shape=st.just(wanted)))
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(graphnn.constant(array)[key].numpy(), array[key])


INDEXED: dict[str, Any] = {
    "gather": lambda x, i: graphnn.gather(x, i),
    "take_along_axis": lambda x, i: graphnn.take_along_axis(x, i[:, None], axis=1),
    "x[i]": lambda x, i: x[i],
    "one_hot": lambda x, i: graphnn.one_hot(i, 3),
    "scatter": lambda x, i: graphnn.tensor_scatter_nd_add(x, i[:, None], x[:1]),
}


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("compiled", [False, True])
def test_float_indices_are_refused(name: str, compiled: bool) -> None:
    function = graphnn.function(INDEXED[name]) if compiled else INDEXED[name]
    with pytest.raises(DTypeError):
        function(graphnn.ones((3, 3)), graphnn.constant([1.0]))


@pytest.mark.parametrize("shape", [(3,), (1,), (3, 1)])
def test_the_check_of_an_index_stays_where_all_values_are_equal(shape: tuple[int, ...]) -> None:
    @graphnn.function
    def taken(i: Any) -> Any:
        return graphnn.gather(graphnn.ones(shape), i)

    assert taken(graphnn.constant([0])).numpy().tolist() == np.ones((1, *shape[1:])).tolist()
    with pytest.raises(OutOfRangeError, match="index 5 on axis 0"):
        taken(graphnn.constant([5]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: graphnn.one_hot([1], -1),
        lambda: graphnn.linspace(0.0, 1.0, -1),
        lambda: graphnn.random.uniform((-1,)),
        lambda: graphnn.random.normal((2, -3)),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_negative_sizes_are_refused(make: Any, compiled: bool) -> None:
    with pytest.raises(ArgumentError):
        (graphnn.function(make) if compiled else make)()
