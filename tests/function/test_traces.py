"""Which calls trace: structure, dtypes, shapes, Python values; symbolic sizes; the record."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphnn as gnn
from graphnn.runtime import errors
from tests.conftest import Golden
from tests.graphs import relative


def counted(function: Any = None, **options: Any) -> tuple[Any, list[str]]:
    """A `@function` around a Python function, and a list that grows with each trace."""
    traces: list[str] = []

    def python(*args: Any, **kwargs: Any) -> Any:
        traces.append("traced")
        return function(*args, **kwargs)

    return gnn.function(python, **options), traces


def floats(*shape: int) -> Any:
    return gnn.constant(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def test_traced_once_and_results() -> None:
    f, traces = counted(lambda x, y: x * y + 1.0)
    for k in range(3):
        out = f(floats(3), floats(3) + float(k))
        np.testing.assert_allclose(out.numpy(), np.arange(3) * (np.arange(3) + k) + 1)
    assert len(traces) == f.trace_count == 1


def test_dtype_and_rank_have_their_own_traces() -> None:
    f, traces = counted(lambda x: x + x)
    for x in (floats(3), gnn.constant([1, 2, 3]), floats(3, 1), floats(3)):
        f(x)
    assert len(traces) == 3


def test_second_size_becomes_symbolic_and_serves_all() -> None:
    f, traces = counted(lambda x: gnn.sum(x * 2.0, axis=0))
    for n in (5, 7, 8, 2, 100, 5):
        np.testing.assert_allclose(f(floats(n, 3)).numpy(), floats(n, 3).numpy().sum(0) * 2)
    assert len(traces) == 2
    assert str(f.concretes[1].signature.shapes) == "((n, 3),)"


def test_sizes_0_and_1_get_their_own_traces() -> None:
    f, traces = counted(lambda x: x + 1.0)
    for n in (5, 1, 7, 9, 0, 1, 0):
        assert f(floats(n)).shape == (n,)
    assert len(traces) == 4  # 5, 1, n, 0
    assert [str(c.signature.shapes[0]) for c in f.concretes] == ["(5,)", "(1,)", "(n,)", "(0,)"]


def test_axes_that_change_together_share_a_symbol() -> None:
    f, traces = counted(lambda x, y: gnn.sum(x, axis=1) * y)
    for n in (4, 6, 9):
        f(floats(n, 3), floats(n))
    assert len(traces) == 2
    assert str(f.concretes[1].signature.shapes) == "((n, 3), (n,))"
    with pytest.raises(errors.ShapeError):
        f(floats(4, 3), floats(5))


def test_axes_that_change_apart_get_two_symbols() -> None:
    f, traces = counted(lambda x, y: gnn.sum(x) + gnn.sum(y))
    f(floats(4), floats(4))
    f(floats(5), floats(5))
    assert f(floats(5), floats(6)).numpy() == 10 + 15
    assert f(floats(9), floats(2)).numpy() == 36 + 1
    assert len(traces) == 3
    assert str(f.concretes[2].signature.shapes) == "((n,), (m,))"


def test_square_matrices_that_must_stay_square() -> None:
    f, _ = counted(lambda x: x @ x)
    for n in (3, 4, 5, 6):
        x = floats(n, n)
        np.testing.assert_allclose(f(x).numpy(), x.numpy() @ x.numpy(), rtol=1e-5)
    assert f.trace_count == 2
    assert str(f.concretes[1].signature.shapes) == "((n, n),)"


def test_size_that_must_be_known_falls_back_to_fixed_sizes() -> None:
    f, _ = counted(lambda x: x * float(len(range(x.shape[0]))))
    for n in (3, 4, 5):
        np.testing.assert_allclose(f(floats(n)).numpy(), np.arange(n) * float(n))
    assert f.trace_count == 3
    assert "no size can be symbolic" in f.explain()


def test_python_values_are_part_of_the_signature() -> None:
    f, traces = counted(lambda x, k, flag=False: x * k if flag else x + k)
    for k in (1, 2, 1, 2.0, True, 1):
        f(floats(3), k)
    assert len(traces) == 4  # 1, 2, 2.0 and True
    assert f(floats(3), 2, flag=True).numpy().tolist() == [0.0, 2.0, 4.0]
    assert f(floats(3), 2).numpy().tolist() == [2.0, 3.0, 4.0]


def test_zero_and_negative_zero_differ_and_nan_does_not() -> None:
    f, traces = counted(lambda x, k: x * k)
    for k in (0.0, -0.0, float("nan"), float("nan")):
        f(floats(2), k)
    assert len(traces) == 3
    assert np.signbit(f(gnn.ones(2), -0.0).numpy()).all()


def test_keywords_and_defaults_meet_the_same_trace() -> None:
    traces = []

    @gnn.function
    def f(x: Any, y: Any, scale: float = 2.0, *, shift: float = 0.0) -> Any:
        traces.append(1)
        return (x - y) * scale + shift

    x, y = floats(3), gnn.ones(3)
    for out in (f(x, y), f(x, y=y), f(y=y, x=x), f(x, y, 2.0), f(x, y, scale=2.0, shift=0.0)):
        np.testing.assert_allclose(out.numpy(), [-2.0, 0.0, 2.0])
    for _ in range(2):
        np.testing.assert_allclose(f(y=y, x=x).numpy(), [-2.0, 0.0, 2.0])
    assert len(traces) == 1
    with pytest.raises(TypeError, match=r"f\(\) missing a required argument: 'y'"):
        f(x)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Batch:
    x: Any
    scale: float


def test_nested_structures() -> None:
    f, traces = counted(
        lambda d: {
            "sum": d["a"][0] + d["a"][1],
            "pair": Pair(d["p"].second, None),
            "batch": Batch(d["b"].x * d["b"].scale, d["b"].scale),
            "text": "x",
        }
    )
    for k in range(2):
        tensors = [floats(3) + float(k), floats(3)]
        out = f({"a": tensors, "p": Pair(1, floats(2)), "b": Batch(floats(3), 3.0)})
        assert out["sum"].numpy().tolist() == [k, 2.0 + k, 4.0 + k]
        assert isinstance(out["pair"], Pair) and out["pair"].second is None
        assert out["batch"].x.numpy().tolist() == [0.0, 3.0, 6.0]
        assert out["text"] == "x"
    assert len(traces) == 1


def test_kinds_of_results() -> None:
    assert counted(lambda x: None)[0](floats(2)) is None
    f = counted(lambda x: (x, [x, x * 2.0], None, 3))[0]
    same, (again, double), nothing, number = f(floats(2))
    assert nothing is None and number.numpy() == 3
    assert same.numpy().tolist() == again.numpy().tolist() == [0.0, 1.0]
    assert double.numpy().tolist() == [0.0, 2.0]


def test_numpy_arrays_are_inputs() -> None:
    f, traces = counted(lambda x: x * 2.0)
    array = np.ones((2, 3), np.float32)
    first = f(array)
    array[:] = 5.0
    assert first.numpy().max() == 2.0
    assert f(array).numpy().max() == 10.0
    assert f(np.ones((3, 2), np.float32).T).numpy().shape == (2, 3)
    assert f(array[:, ::-1]).numpy().shape == (2, 3)
    assert len(traces) == 1
    result = counted(lambda x: x)[0](array)
    array[:] = 0.0
    assert result.numpy().max() == 5.0


def test_closed_over_tensors_are_read_by_reference() -> None:
    factor = floats(3)
    variable = gnn.Variable([1.0, 2.0, 3.0])
    read = variable.value()

    @gnn.function
    def f(x: Any) -> Any:
        return x * factor + read

    assert f(gnn.ones(3)).numpy().tolist() == [1.0, 3.0, 5.0]
    variable.assign([9.0, 9.0, 9.0])  # the tensor that was read keeps its values
    assert f(gnn.ones(3)).numpy().tolist() == [1.0, 3.0, 5.0]
    assert len(f.concretes[0].captures) == 2


def test_hashable_and_unhashable_objects() -> None:
    class Config:
        def __init__(self, k: float) -> None:
            self.k = k

    class ByValue(Config):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, ByValue) and other.k == self.k

        def __hash__(self) -> int:
            return hash(self.k)

    f, traces = counted(lambda x, c: x * c.k)
    for config in (one := Config(2.0), one, Config(2.0)):
        f(floats(2), config)
    assert len(traces) == 2
    f(floats(2), ByValue(2.0))
    f(floats(2), ByValue(2.0))
    assert len(traces) == 3
    g, traces = counted(lambda x, s: x * float(len(s)))
    unhashable = {1, 2}
    g(floats(2), unhashable)
    g(floats(2), unhashable)
    assert len(traces) == 1


def test_input_signature() -> None:
    specs = [gnn.TensorSpec([None, 3]), gnn.TensorSpec([None], "int32")]
    f, traces = counted(
        lambda x, y: gnn.sum(x, axis=1) * gnn.cast(y, "float32"), input_signature=specs
    )
    for n in (4, 5, 9):
        f(np.ones((n, 3)), list(range(n)))  # float64 and a list are cast
    assert len(traces) == 1
    assert f.get_concrete_function() is f.concretes[0]
    with pytest.raises(errors.ArgumentError, match=r"float32\[4,2\]"):
        f(gnn.ones((4, 2)), [1, 2, 3, 4])


def test_input_signature_from_the_start_with_specs() -> None:
    f, traces = counted(lambda x: x * 2.0, input_signature=[gnn.TensorSpec([None, None])])
    concrete = f.get_concrete_function()
    assert str(concrete.signature.shapes) == "((n, m),)"
    for shape in ((2, 3), (4, 4), (7, 2)):
        assert f(floats(*shape)).shape == shape
    assert len(traces) == 1


def test_get_concrete_function() -> None:
    f, traces = counted(lambda x, k: x * k)
    concrete = f.get_concrete_function(gnn.TensorSpec([None, 2]), 3)
    assert concrete(floats(4, 2)).numpy()[3, 1] == 21.0
    assert [s.shape for s in concrete.inputs] == [(None, 2)]
    assert [s.shape for s in concrete.outputs] == [(None, 2)]
    with pytest.raises(errors.ArgumentError, match="float32"):
        concrete(floats(4, 3))
    assert f(floats(9, 2), 3).shape == (9, 2)
    assert len(traces) == 1


def test_explain(golden: Golden) -> None:
    @gnn.function
    def step(x: Any, y: Any, training: bool = True, options: Any = None) -> Any:
        return gnn.sum(x) + gnn.sum(y)

    step(floats(32, 4), floats(32))
    step(floats(32, 4), floats(32), training=False)
    step(floats(16, 4), floats(16))
    step(floats(16, 4), gnn.constant([1] * 16))
    step(floats(16, 4), floats(16), options=[1, 2])
    golden("explain.txt", relative(step.explain(), test_explain))


def test_max_traces(golden: Golden) -> None:
    f, traces = counted(lambda x, k: x * k, max_traces=2, name="scale")
    f(floats(3), 1)
    f(floats(3), 2)
    with pytest.raises(errors.StateError) as caught:
        f(floats(3), 3)
    golden("../errors/max_traces.txt", relative(str(caught.value), test_max_traces))
    assert f.trace_count == len(traces) == 2
    assert f(floats(3), 2).numpy().tolist() == [0.0, 2.0, 4.0]


def test_run_functions_eagerly() -> None:
    f, traces = counted(lambda x: float(gnn.sum(x)))
    gnn.run_functions_eagerly(True)
    try:
        assert gnn.functions_run_eagerly()
        assert f(floats(3)) == f(floats(3)) == 3.0
    finally:
        gnn.run_functions_eagerly(False)
    assert len(traces) == 2 and f.trace_count == 0
    with pytest.raises(errors.TraceError):
        f(floats(3))


def test_stages() -> None:
    f, _ = counted(lambda x: gnn.exp(x) * 1.0)
    with pytest.raises(errors.StateError, match="has not been called"):
        f.stages()
    f(floats(3))
    assert f.stages()[0] == ("trace", f.graph())
    assert [n.op.name for n in f.stages()[-1][1].nodes] == ["input", "exp"]


def test_decorator_forms() -> None:
    @gnn.function(jit_compile=True, reduce_retracing=True, autograph=False, name="other")
    def f(x: Any) -> Any:
        """Doubles."""
        return x * 2.0

    assert f.name == "other" and f.__doc__ == "Doubles."
    assert gnn.function(f) is f
    assert repr(f) == "<function other: 0 traces>"
