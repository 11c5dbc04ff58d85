"""GradientTape: closed forms, what it watches, nesting, its states, the same inside @function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.runtime.errors import ArgumentError, ShapeError, StateError

A = np.array([[0.5, -1.0], [2.0, 0.25]], "float32")
B = np.array([[1.5, 1.0], [-2.0, 3.0]], "float32")


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


MODES = pytest.mark.parametrize("mode", [eager, graphnn.function], ids=["eager", "function"])


def check(mode: Any, function: Callable[..., Any], expected: Any, *args: Any) -> None:
    """function(*args) gives the expected arrays (None where there is no gradient)."""
    found = graphnn.tree.flatten(mode(function)(*map(graphnn.constant, args)))
    wanted = graphnn.tree.flatten(expected)
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        if w is None:
            assert f is None
        else:
            np.testing.assert_allclose(f.numpy(), w, rtol=1e-5, atol=1e-6)


@MODES
def test_closed_form(mode: Any) -> None:
    def f(a: Any, b: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch([a, b])
            c = graphnn.sqrt(graphnn.square(a) + graphnn.square(b))
        return tape.gradient(c, [a, b])

    root = np.sqrt(A * A + B * B)
    check(mode, f, [A / root, B / root], A, B)


@MODES
def test_matmul_and_broadcasting(mode: Any) -> None:
    def f(x: Any, w: Any, b: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch((x, w, b))
            y = x @ w + b
            loss = graphnn.mean(y * y)
        return tape.gradient(loss, {"x": x, "rest": (w, b)})

    b = np.array([1.0, -1.0], "float32")
    g = 2 * (A @ B + b) / 4
    check(mode, f, {"x": g @ B.T, "rest": (A.T @ g, g.sum(0))}, A, B, b)


@MODES
def test_variables_are_watched(mode: Any) -> None:
    v, frozen = graphnn.Variable(A), graphnn.Variable(B, trainable=False)

    def f(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            y = graphnn.sum(v * frozen * x + v)
        assert tape.watched_variables() == (v,)
        return tape.gradient(y, [v, frozen, x])

    check(mode, f, [2 * B + 1, None, None], np.float32(2.0))

    def g(x: Any) -> Any:
        with graphnn.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(frozen)
            y = graphnn.sum(v * frozen * x)
        return tape.gradient(y, [v, frozen])

    check(mode, g, [None, A * 2], np.float32(2.0))


@MODES
def test_reads_outside_are_not_watched(mode: Any) -> None:
    v = graphnn.Variable(3.0)

    def f(x: Any) -> Any:
        outside = v.value()
        with graphnn.GradientTape() as tape:
            y = outside * v * x
        return tape.gradient(y, v)

    check(mode, f, 6.0, np.float32(2.0))


@MODES
def test_assignment_cuts(mode: Any) -> None:
    v = graphnn.Variable(3.0)

    def f(x: Any) -> Any:
        v.assign(x)
        with graphnn.GradientTape() as tape:
            y = v * v
            v.assign(y * 2.0)
            z = v * y
        return tape.gradient(z, v)

    # z = w * v * v with w = 18 read after the assign: d/dv = 2 v w, and d/dw = v * v.
    check(mode, f, 2 * 3 * 18 + 9.0, np.float32(3.0))


@MODES
def test_higher_orders(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape() as t3:
            t3.watch(x)
            with graphnn.GradientTape() as t2:
                t2.watch(x)
                with graphnn.GradientTape() as t1:
                    t1.watch(x)
                    y = graphnn.sin(x) * x**3
                d1 = t1.gradient(y, x)
            d2 = t2.gradient(d1, x)
        return d1, d2, t3.gradient(d2, x)

    x = 0.7
    s, c = np.sin(x), np.cos(x)
    d1 = c * x**3 + 3 * s * x**2
    d2 = -s * x**3 + 6 * c * x**2 + 6 * s * x
    d3 = -c * x**3 - 9 * s * x**2 + 18 * c * x + 6 * s
    check(mode, f, (d1, d2, d3), np.float32(x))


@MODES
def test_persistent_inside_its_context(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = x**3
            first = tape.gradient(y, x)
        return first, tape.gradient(first, x), tape.gradient(y, x)

    check(mode, f, (12.0, 12.0, 12.0), np.float32(2.0))


@MODES
def test_outer_tape_opened_later(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape() as inner:
            inner.watch(x)
            y = x**3
        with graphnn.GradientTape() as outer:
            outer.watch(x)
            g = inner.gradient(y, x)  # what the inner tape saw is constant to the outer one
            z = g * x
        return outer.gradient(z, x)

    check(mode, f, 3 * 4.0 + 2 * 3 * 2.0 * 2.0, np.float32(2.0))


@MODES
def test_stop_recording_and_stop_gradient(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            with tape.stop_recording():
                hidden = x * x
            y = hidden * x + graphnn.stop_gradient(x) * x
        return tape.gradient(y, x)

    check(mode, f, 4.0 + 2.0, np.float32(2.0))


@MODES
def test_target_is_source_or_unconnected(mode: Any) -> None:
    def f(x: Any, z: Any) -> Any:
        with graphnn.GradientTape(persistent=True) as tape:
            tape.watch([x, z])
            y = x * 2.0
            whole = graphnn.cast(graphnn.cast(x, "int32"), "float32")
        return [
            tape.gradient(x, x),
            tape.gradient(y, [x, y]),
            tape.gradient(y, z),
            tape.gradient(y, z, unconnected_gradients="zero"),
            tape.gradient(whole, x),
            tape.gradient([y, z * 1.0], [x, z]),
        ]

    x = np.float32(3.0)
    check(mode, f, [1.0, [2.0, 1.0], None, 0.0, None, [2.0, None]], x, x)


@MODES
def test_output_gradients(mode: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            y, z = x * 2.0, x * x
        return tape.gradient([y, z], x, output_gradients=[w, w])

    check(mode, f, 2 * B + 2 * A * B, A, B)


@MODES
def test_composites_with_and_without_rules(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape(persistent=True) as tape:
            tape.watch(x)
            p = graphnn.nn.softmax(x)
            loss = graphnn.sum(p * graphnn.constant(B))
            spread = graphnn.sum(graphnn.std(x, axis=1))
        return tape.gradient(loss, x), tape.gradient(spread, x)

    e = np.exp(A - A.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    d = A - A.mean(1, keepdims=True)
    check(
        mode,
        f,
        (p * (B - (p * B).sum(1, keepdims=True)), d / (2 * A.std(1, keepdims=True))),
        A,
    )


@MODES
def test_several_outputs(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            first, _ = graphnn.split(x, 2, axis=1)
            mean, variance = graphnn.nn.moments(x, axes=[0, 1])
            y = graphnn.sum(first * 3.0) + mean + variance
        return tape.gradient(y, x)

    first = np.array([[3.0, 0.0], [3.0, 0.0]])
    check(mode, f, first + 0.25 + 2 * (A - A.mean()) / 4, A)


@MODES
def test_jacobians(mode: Any) -> None:
    def f(x: Any) -> Any:
        with graphnn.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = x * x
            z = x @ graphnn.constant(B)
            corner = z[0, 0]
        return (
            tape.jacobian(y, x),
            tape.batch_jacobian(z, x),
            tape.jacobian(corner, x),
            tape.jacobian(corner, graphnn.constant(1.0)),
        )

    square = np.zeros((2, 2, 2, 2))
    for i in np.ndindex(2, 2):
        square[i + i] = 2 * A[i]
    batch = np.stack([B.T, B.T])
    corner = np.zeros((2, 2))
    corner[0] = B[:, 0]
    check(mode, f, (square, batch, corner, None), A)


@MODES
def test_integer_sources(mode: Any) -> None:
    def f(x: Any) -> Any:
        i = graphnn.cast(x, "int32")
        with graphnn.GradientTape() as tape:
            with pytest.warns(UserWarning, match="int32"):
                tape.watch(i)
            y = graphnn.cast(i, "float32") * x
        return [tape.gradient(y, i)]

    check(mode, f, [None], np.float32(2.0))


# ---- states and errors ------------------------------------------------------------------------


def test_second_call_of_a_used_tape() -> None:
    x = graphnn.constant(1.0)
    with graphnn.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    tape.gradient(y, x)
    with pytest.raises(StateError, match="persistent=True"):
        tape.gradient(y, x)
    with tape:
        pass
    tape.reset()
    with tape:
        tape.watch(x)
        y = x * 3.0
    assert tape.gradient(y, x).item() == 3


def test_nothing_is_kept_after_the_gradient() -> None:
    x = graphnn.constant(1.0)
    with graphnn.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    assert len(tape.steps) == 1
    tape.gradient(y, x)
    assert not tape.steps and not tape.watched


def test_an_exception_leaves_no_tape_behind() -> None:
    from graphnn.state import state

    with pytest.raises(ZeroDivisionError), graphnn.GradientTape():
        1 / 0  # noqa: B018
    assert state.tapes == () and not state.busy


def test_misuse() -> None:
    x = graphnn.constant(1.0)
    tape = graphnn.GradientTape(persistent=True)
    with pytest.raises(StateError, match="not recording"), tape.stop_recording():
        pass
    with tape, pytest.raises(StateError, match="already"), tape:
        pass
    with pytest.raises(ArgumentError, match="watch"):
        tape.watch(1.0)
    with tape:
        tape.watch(x)
        y = x * x
    with pytest.raises(ArgumentError, match="sources"):
        tape.gradient(y, 1.0)
    with pytest.raises(ArgumentError, match="'none' or 'zero'"):
        tape.gradient(y, x, unconnected_gradients="what")
    with pytest.raises(ShapeError, match="output_gradients"):
        tape.gradient(y, x, output_gradients=[[1.0, 2.0]])
    with pytest.raises(ShapeError, match="batch_jacobian"):
        tape.batch_jacobian(y, x)
    assert graphnn.UnconnectedGradients.ZERO == "zero"


def test_only_watched_work_is_recorded() -> None:
    x, y = graphnn.constant(1.0), graphnn.constant(2.0)
    with graphnn.GradientTape() as tape:
        z = y * y
        tape.watch(x)
        z = z * z
        w = x > 0
    assert tape.steps == [] and z.item() == 16 and bool(w)


LINEAR: dict[str, Any] = {
    "3 * x": lambda x: 3.0 * x,
    "relu": lambda x: graphnn.nn.relu(x),
    "where": lambda x: graphnn.where(x > 0, x * 2.0, x),
    "matmul": lambda x: graphnn.sum(graphnn.reshape(x, (1, 1)) @ graphnn.ones((1, 2))),
    "x * x": lambda x: x * x,
}


@pytest.mark.parametrize("around", ["neither", "both", "inner", "value"])
@pytest.mark.parametrize("name", LINEAR)
def test_second_derivative_of_something_linear_is_none(name: str, around: str) -> None:
    value = LINEAR[name] if around != "value" else graphnn.function(LINEAR[name])

    def first(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            y = value(x)
        return tape.gradient(y, x)

    inner = graphnn.function(first) if around == "inner" else first

    def second(x: Any) -> Any:
        with graphnn.GradientTape(persistent=True) as tape:
            tape.watch(x)
            g = inner(x)
        zero = tape.gradient(g, x, unconnected_gradients="zero")
        return tape.gradient(g, x), zero

    found, zero = (graphnn.function(second) if around == "both" else second)(graphnn.constant(2.0))
    if name == "x * x":
        assert found.item() == zero.item() == 2
    else:
        assert found is None and zero.item() == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_third_derivatives_and_one_path_of_two(compiled: bool) -> None:
    def derivatives(x: Any, w: Any) -> Any:
        with graphnn.GradientTape() as third:
            third.watch([x, w])
            with graphnn.GradientTape() as second:
                second.watch([x, w])
                with graphnn.GradientTape() as first:
                    first.watch([x, w])
                    y = x * x * w
                dx = first.gradient(y, x)
            dxw, dxx = second.gradient(dx, [w, x])
        return dxw, dxx, third.gradient(dxw, [w, x])

    call = graphnn.function(derivatives) if compiled else derivatives
    dxw, dxx, (none, last) = call(graphnn.constant(2.0), graphnn.constant(3.0))
    assert (dxw.item(), dxx.item(), none, last.item()) == (4, 6, None, 2)
