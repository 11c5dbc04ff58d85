"""The texts of errors that users meet in eager code: one golden file each."""

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as gnn
from graphnn.runtime import errors
from tests.conftest import Golden
from tests.graphs import relative

x23 = gnn.constant(np.ones((2, 3), np.float32))


def add_of_wrong_shapes() -> None:
    x23 + gnn.ones((2, 4))


def matmul_of_wrong_shapes() -> None:
    x23 @ x23


def bits_of_floats() -> None:
    gnn.bitwise_and(x23, 1)


def no_tensor() -> None:
    gnn.constant({"a": 1})


def too_great_an_integer() -> None:
    gnn.constant([1, 2**40])


def index_out_of_range() -> None:
    x23[0, 3]


def several_elements_as_bool() -> None:
    bool(x23 > 0)


def wrong_axis() -> None:
    gnn.sum(x23, axis=2)


def wrong_reshape() -> None:
    gnn.reshape(x23, (4, -1))


def assign_of_wrong_shape() -> None:
    gnn.Variable([1.0, 2.0], name="bias").assign([1.0, 2.0, 3.0])


def assign_of_wrong_dtype() -> None:
    gnn.Variable([1.0, 2.0], name="bias").assign(gnn.constant([1, 2]))


def tape_used_twice() -> None:
    with gnn.GradientTape() as tape:
        tape.watch(x23)
        y = x23 * x23
    tape.gradient(y, x23)
    tape.gradient(y, x23)


def grad_of_a_vector() -> None:
    gnn.grad(lambda x: x * x)(x23)


def source_that_is_no_tensor() -> None:
    with gnn.GradientTape() as tape:
        y = x23 * 2.0
    tape.gradient(y, np.ones(3))


def wrong_dropout_rate() -> None:
    gnn.nn.dropout(x23, rate=1.5)


def wrong_label() -> None:
    gnn.nn.sparse_softmax_cross_entropy_with_logits(labels=[0, 3], logits=x23)


def mask_in_a_trace() -> None:
    @gnn.function
    def model(x: gnn.Tensor) -> gnn.Tensor:
        return x[x > 0]

    model(x23)


def variable_from_an_argument() -> None:
    @gnn.function
    def model(x: gnn.Tensor) -> gnn.Tensor:
        return gnn.Variable(x) + 1.0

    model(x23)


def shape_from_data() -> None:
    @gnn.function
    def model(n: gnn.Tensor) -> gnn.Tensor:
        return gnn.zeros((n, 2))

    model(gnn.constant(3))


def slice_of_a_symbolic_axis() -> None:
    @gnn.function(input_signature=[gnn.TensorSpec([None], "float32")])
    def model(x: gnn.Tensor) -> gnn.Tensor:
        return x[:5]

    model.get_concrete_function()


CASES: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        add_of_wrong_shapes,
        matmul_of_wrong_shapes,
        bits_of_floats,
        no_tensor,
        too_great_an_integer,
        index_out_of_range,
        several_elements_as_bool,
        wrong_axis,
        wrong_reshape,
        assign_of_wrong_shape,
        assign_of_wrong_dtype,
        tape_used_twice,
        grad_of_a_vector,
        source_that_is_no_tensor,
        wrong_dropout_rate,
        wrong_label,
        mask_in_a_trace,
        variable_from_an_argument,
        shape_from_data,
        slice_of_a_symbolic_axis,
    )
}


@pytest.mark.parametrize("case", CASES)
def test_text(case: str, golden: Golden) -> None:
    with pytest.raises(errors.GraphnnError) as caught:
        CASES[case]()
    assert gnn.executing_eagerly()
    golden(f"../errors/front/{case}.txt", relative(str(caught.value), CASES[case]))


FAILING: dict[str, tuple[int, Any]] = {
    "x + y": (1, lambda: x23 + gnn.ones((4, 5))),
    "x - float64": (1, lambda: x23 - gnn.ones((4,), "float64")),
    "1 // 0": (1, lambda: gnn.constant(1) // 0),
    "x @ x": (1, lambda: x23 @ x23),
    "invert": (1, lambda: gnn.bitwise_invert(x23)),
    "matmul": (2, lambda: gnn.matmul(x23, x23)),
    "function": (1, lambda: gnn.function(lambda: x23 + gnn.ones((4, 5)))()),
    "method": (1, lambda: Owner().fails()),
}


class Owner:
    @gnn.function
    def fails(self) -> Any:
        return x23 @ x23


@pytest.mark.parametrize("name", FAILING)
def test_tracebacks_show_hardly_anything_of_graphnn(name: str) -> None:
    most, call = FAILING[name]
    with pytest.raises(errors.GraphnnError) as caught:
        call()
    files = [f.filename for f in traceback.extract_tb(caught.value.__traceback__)]
    own = [f for f in files if errors.is_own_file(f)]
    assert 1 <= len(own) <= most and files[-1] in (own[-1], __file__)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_all_frames_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHNN_FULL_TRACEBACK", "1")
    with pytest.raises(errors.GraphnnError) as caught:
        x23 @ x23
    assert len(traceback.extract_tb(caught.value.__traceback__)) > 4
