"""The texts of the errors that users meet in traced functions: one golden file each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as gnn
from graphnn.runtime import errors
from tests.conftest import Golden
from tests.graphs import relative

x23 = gnn.constant(np.ones((2, 3), np.float32))


def shape_mismatch() -> None:
    @gnn.function
    def model(x: Any, w: Any) -> Any:
        h = x @ w
        return h

    model(x23, gnn.ones((4, 2)))


def wrong_dtype() -> None:
    @gnn.function
    def model(x: Any) -> Any:
        return gnn.logical_and(x, x) if x.dtype == gnn.bool_ else gnn.bitwise_and(x, x)

    model(x23)


def non_scalar_gradient() -> None:
    gnn.grad(lambda x: x * 2.0)(x23)


def late_variable() -> None:
    @gnn.function
    def f(x: Any) -> Any:
        v = gnn.Variable(1.0)
        return x * v

    f(x23)


def leaked_tensor() -> None:
    kept = []

    @gnn.function
    def model(x: Any) -> Any:
        kept.append(x * 2.0)
        return x

    model(x23)
    kept[0] + 1.0


def tensor_as_bool() -> None:
    @gnn.function(autograph=False)
    def model(x: Any) -> Any:
        if gnn.sum(x) > 0.0:
            return x
        return -x

    model(x23)


def tensor_as_number() -> None:
    @gnn.function
    def model(x: Any) -> Any:
        return x * float(gnn.sum(x))

    model(x23)


def index_out_of_range_compiled() -> None:
    @gnn.function
    def model(x: Any, i: Any) -> Any:
        return gnn.gather(x, i)

    model(x23, gnn.constant([0, 7]))


def index_out_of_range_eager() -> None:
    gnn.gather(x23, gnn.constant([0, 7]))


def endless_recursion() -> None:
    @gnn.function
    def f(x: Any) -> Any:
        return f(x * 2.0)

    f(x23)


def symbolic_size_as_number() -> None:
    @gnn.function
    def model(x: Any) -> Any:
        return x * float(sum(range(x.shape[0])))

    model.get_concrete_function(gnn.TensorSpec([None, 3]))


CASES: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        shape_mismatch,
        wrong_dtype,
        non_scalar_gradient,
        late_variable,
        leaked_tensor,
        tensor_as_bool,
        tensor_as_number,
        index_out_of_range_compiled,
        index_out_of_range_eager,
        endless_recursion,
        symbolic_size_as_number,
    )
}


@pytest.mark.parametrize("case", CASES)
def test_text(case: str, golden: Golden) -> None:
    with pytest.raises(errors.GraphnnError) as caught:
        CASES[case]()
    assert gnn.executing_eagerly()
    golden(f"../errors/{case}.txt", relative(str(caught.value), CASES[case]))
