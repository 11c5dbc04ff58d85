"""Variable: buffers, old reads, assignment, errors, copies."""

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn import variable as module
from graphnn.runtime.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError


def test_dtype_and_shape() -> None:
    v = graphnn.Variable([1.0, 2.0])
    assert v.dtype == "float32" and v.shape == (2,) and v.trainable and v.name == "Variable"
    assert graphnn.Variable(1).dtype == "int32"
    assert graphnn.Variable(np.ones(2)).dtype == "float64"
    assert graphnn.Variable(np.ones(2), dtype="float16").dtype == "float16"
    w = graphnn.Variable(lambda: graphnn.zeros((2, 3)), trainable=False, name="w", shape=(None, 3))
    assert w.shape == (2, 3) and not w.trainable and w.name == "w"
    assert graphnn.is_tensor(w) and not isinstance(w, graphnn.Tensor)
    assert "w" in repr(w) and "shape=(2, 3)" in repr(w)
    with pytest.raises(ArgumentError, match="no initial value"):
        graphnn.Variable()
    with pytest.raises(ShapeError, match="shape"):
        graphnn.Variable([1.0], shape=(2,))


def test_buffer_is_stable() -> None:
    v = graphnn.Variable([1.0, 2.0])
    buffer = v._buffer
    v.assign([3.0, 4.0])
    v.assign_add([1.0, 1.0])
    v.assign_sub(1)
    v.scatter_update([0], [9.0])
    assert v._buffer is buffer and buffer.tolist() == [9, 4]


def test_initial_value_is_copied() -> None:
    array = np.ones(2, "float32")
    t = graphnn.constant(array)
    v = graphnn.Variable(t)
    v.assign([5.0, 5.0])
    assert t.tolist() == [1, 1] and array.tolist() == [1, 1]


READERS: list[Any] = [
    lambda v: v.value(),
    lambda v: v.read_value(),
    lambda v: v[0:],
    lambda v: v[0],
    lambda v: v[None],
    lambda v: graphnn.reshape(v, (2, 1)),
    lambda v: v.T,
    lambda v: graphnn.identity(v),
    lambda v: graphnn.stop_gradient(v),
    lambda v: graphnn.convert_to_tensor(v),
    lambda v: graphnn.cast(v, "float32"),
    lambda v: graphnn.broadcast_to(v, (2, 2)),
    lambda v: v.value()[1:],
    lambda v: graphnn.split(v, 2)[0],
    lambda v: graphnn.squeeze(v),
    lambda v: graphnn.flip(v),
    lambda v: v + 0,
]


@pytest.mark.parametrize("taped", [False, True])
@pytest.mark.parametrize("read", READERS)
def test_old_reads_stay_right(read: Any, taped: bool) -> None:
    v = graphnn.Variable([1.0, 2.0])
    if taped:
        with graphnn.GradientTape():
            old = read(v)
    else:
        old = read(v)
    before = old.numpy().copy()
    view = np.asarray(old)
    v.assign([7.0, 8.0])
    v.assign_add([1.0, 1.0])
    np.testing.assert_array_equal(old.numpy(), before)
    np.testing.assert_array_equal(view, before)
    assert v.numpy().tolist() == [8, 9]


def test_numpy_is_a_copy() -> None:
    v = graphnn.Variable([1.0, 2.0])
    array = v.numpy()
    array[0] = 9
    assert v.numpy().tolist() == [1, 2]
    old = np.asarray(v)
    v.assign([3.0, 3.0])
    assert old.tolist() == [1, 2]


def test_reads_that_nobody_holds_cost_nothing() -> None:
    v = graphnn.Variable([1.0])
    for _ in range(100):
        v.value()
    assert len(v._handles) <= 17
    assert not v._detach_reads()
    held = v.value()
    assert v._detach_reads() and held.item() == 1
    assert not np.shares_memory(held._value, v._buffer)


def test_assign_from_itself() -> None:
    v = graphnn.Variable([1.0, 2.0, 3.0])
    v.assign(v[::-1])
    assert v.numpy().tolist() == [3, 2, 1]
    v.assign(v)
    v.assign_add(v)
    assert v.numpy().tolist() == [6, 4, 2]


def test_assign_takes_what_fits() -> None:
    v = graphnn.Variable([1.0, 2.0])
    assert v.assign([3, 4]) is v
    v.assign(np.array([1.5, 2.5]))  # float64
    assert v.numpy().tolist() == [1.5, 2.5]
    v.assign_add(np.array([1]))
    assert v.numpy().tolist() == [2.5, 3.5]
    i = graphnn.Variable([1, 2])
    i.assign(np.array([5, 6]))
    assert i.numpy().tolist() == [5, 6]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([1.0, 2.0, 3.0], ShapeError),
        (graphnn.constant([1, 2]), DTypeError),
        (graphnn.constant([[1.0, 2.0]]), ShapeError),
        (1.0, ShapeError),
        ("text", DTypeError),
    ],
)
def test_failed_assign_changes_nothing(value: Any, error: type[Exception]) -> None:
    v = graphnn.Variable([1.0, 2.0], name="w")
    with pytest.raises(error):
        v.assign(value)
    assert v.numpy().tolist() == [1, 2]
    i = graphnn.Variable([1])
    with pytest.raises(DTypeError):
        i.assign(np.array([1.5]))


CHANGES: dict[str, Any] = {
    "assign": lambda v, x: v.assign(x),
    "assign_add": lambda v, x: v.assign_add(x),
    "assign_sub": lambda v, x: v.assign_sub(x),
    "scatter_add": lambda v, x: v.scatter_add([0, 1], x),
    "scatter_sub": lambda v, x: v.scatter_sub([0, 1], x),
    "scatter_nd_update": lambda v, x: v.scatter_nd_update([[0], [1]], x),
    "scatter_nd_sub": lambda v, x: v.scatter_nd_sub([[0], [1]], x),
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_float_does_not_become_an_integer(change: Any, traced: bool) -> None:
    def call(v: Any, x: Any) -> None:
        both = lambda: (change(v, x), None)[1]  # noqa: E731
        (graphnn.function(both) if traced else both)()

    v = graphnn.Variable([1, 2], name="count")
    for floats in ([2.5, 1], [2.0, 3.0], np.array([2.5, 1.0]), graphnn.constant([2.5, 1.0])):
        with pytest.raises(DTypeError, match=r"float(32|64)\[2\] for int32\[2\]"):
            call(v, floats)
    assert v.numpy().tolist() == [1, 2]
    call(v, [4, 4])
    call(graphnn.Variable([1.0, 2.0]), [4, 4])
    assert v.numpy().tolist() != [1, 2]


def test_a_number_that_does_not_fit_a_variable() -> None:
    v, truth = graphnn.Variable(3), graphnn.Variable(True)
    for number in (2.5, 2.0, np.float32(2.5)):
        with pytest.raises(DTypeError, match="assign of Variable"):
            v.assign(number)
    with pytest.raises(DTypeError, match="assign of Variable"):
        truth.assign(2)
    assert v.assign(True).numpy() == 1 and v.assign(np.int64(7)).numpy() == 7
    assert graphnn.Variable(1.0).assign(2).numpy() == 2.0


def test_scatter() -> None:
    v = graphnn.Variable(np.zeros((3, 2), "float32"))
    v.scatter_add(graphnn.IndexedSlices([[1.0, 1.0], [2.0, 2.0]], [0, 0]))
    assert v.numpy().tolist() == [[3, 3], [0, 0], [0, 0]]
    v.scatter_sub([0], [[1.0, 0.0]])
    v.scatter_mul([0], [[2.0, 2.0]])
    v.scatter_max([1], [[-1.0, 5.0]])
    v.scatter_min([2], [[-1.0, 5.0]])
    assert v.numpy().tolist() == [[4, 6], [0, 5], [-1, 0]]
    v.scatter_nd_update([[0, 1]], [9.0])
    v.scatter_nd_add([[0, 1]], [1.0])
    v.scatter_nd_sub([[2]], [[1.0, 1.0]])
    assert v.numpy().tolist() == [[4, 10], [0, 5], [-2, -1]]
    with pytest.raises(OutOfRangeError):
        v.scatter_update([3], [[0.0, 0.0]])


def test_operators_and_functions() -> None:
    v = graphnn.Variable([1.0, 2.0])
    assert (v + 1).numpy().tolist() == [2, 3]
    assert (1 - v).numpy().tolist() == [0, -1]
    assert (v * v).numpy().tolist() == [1, 4]
    assert (np.ones(2, "float32") + v).numpy().tolist() == [2, 3]
    assert (v @ v).item() == 5 and (v > 1).tolist() == [False, True]
    assert graphnn.exp(v * 0).tolist() == [1, 1]
    assert v.sum().item() == 3 and len(v) == 2 and [float(x) for x in v] == [1, 2]
    assert float(graphnn.Variable(2.0)) == 2 and f"{graphnn.Variable(2.0):.1f}" == "2.0"
    assert graphnn.stack([v, v]).shape == (2, 2)
    assert {v: 1}[v] == 1


def test_rebind_moves_the_buffer() -> None:
    v = graphnn.Variable([1.0, 2.0])
    held, epoch = v.value(), module.EPOCH[0]
    arena = np.zeros(4, "float32")
    v._rebind(arena[1:3])
    assert module.EPOCH[0] == epoch + 1 and arena.tolist() == [0, 1, 2, 0]
    v.assign([5.0, 6.0])
    assert arena.tolist() == [0, 5, 6, 0] and held.tolist() == [1, 2]


def test_copies() -> None:
    v = graphnn.Variable([1.0, 2.0], name="w", trainable=False)
    for other in (copy.copy(v), copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
        assert other is not v and other.name == "w" and not other.trainable
        other.assign([0.0, 0.0])
        assert v.numpy().tolist() == [1, 2]
    twice = copy.deepcopy([v, v])
    assert twice[0] is twice[1]


def test_tapes_do_not_record_assignment() -> None:
    v = graphnn.Variable(3.0)
    with graphnn.GradientTape() as tape:
        y = v * v
        v.assign_add(1.0)
        z = y + v
    assert tape.gradient(z, v).item() == 7  # 2 * 3 for the first read, 1 for the second


def test_no_leak() -> None:
    v = graphnn.Variable(np.zeros(4, "float32"))
    gc.collect()
    for _ in range(50):
        with graphnn.GradientTape() as tape:
            loss = graphnn.sum(v * v)
        v.assign_sub(tape.gradient(loss, v))
    assert len(v._handles) <= 17
