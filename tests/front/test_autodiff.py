"""grad, vjp, jvp, jacobian, custom gradients and recomputation, eager and traced."""

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.runtime.errors import ArgumentError, GradientError, ShapeError
from tests.front.test_tape import MODES

X = np.array([0.5, -1.0, 2.0], "float32")


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@MODES
def test_grad_and_value(mode: Any) -> None:
    f = graphnn.value_and_grad(lambda x, y: graphnn.sum(x * y), argnums=(0, 1))
    value, (gx, gy) = mode(f)(graphnn.constant(X), graphnn.constant(X * 2))
    close(value, (X * X * 2).sum())
    close(gx, X * 2)
    close(gy, X)


def test_grad_of_nested_arguments_and_aux() -> None:
    def f(p: dict[str, Any]) -> Any:
        return graphnn.sum(p["w"] * p["w"]) + p["b"], "more"

    g, aux = graphnn.grad(f, has_aux=True)({"w": graphnn.constant(X), "b": 1.0})
    close(g["w"], 2 * X)
    close(g["b"], 1)
    assert aux == "more"


def test_only_the_argument_counts() -> None:
    x = graphnn.constant(3.0)
    assert graphnn.grad(lambda y: y * x)(x).item() == 3
    assert graphnn.grad(lambda y, z: y * z)(x, x).item() == 3
    assert graphnn.grad(lambda y: x * x)(x).item() == 0


def test_grad_errors() -> None:
    with pytest.raises(GradientError, match=r"float32\[3\]"):
        graphnn.grad(lambda x: x * x)(graphnn.constant(X))
    with pytest.raises(GradientError, match="NoneType"):
        graphnn.grad(lambda x: None)(1.0)
    with pytest.raises(GradientError, match="int32"):
        graphnn.grad(lambda x: x * x)(3)
    with pytest.raises(ArgumentError, match="argnums"):
        graphnn.grad(lambda x: x, argnums=1)(1.0)


@MODES
def test_vjp(mode: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        _, pullback = graphnn.vjp(lambda a, b: (a * b, graphnn.sin(a)), x, w)
        return pullback((w, x))

    gx, gw = mode(f)(graphnn.constant(X), graphnn.constant(X + 1))
    w = X + 1
    close(gx, w * w + np.cos(X) * X)
    close(gw, w * X)


@MODES
def test_jvp(mode: Any) -> None:
    def f(x: Any, dx: Any) -> Any:
        return graphnn.jvp(lambda a: [graphnn.sin(a) * a, graphnn.sum(a * a)], (x,), (dx,))

    (y, z), (dy, dz) = mode(f)(graphnn.constant(X), graphnn.constant(X * 3))
    close(y, np.sin(X) * X)
    close(z, (X * X).sum())
    close(dy, (np.cos(X) * X + np.sin(X)) * X * 3)
    close(dz, (6 * X * X).sum())


def test_jvp_needs_fitting_tangents() -> None:
    with pytest.raises(ShapeError, match="tangent"):
        graphnn.jvp(graphnn.sin, (graphnn.constant(X),), (graphnn.constant(1.0),))
    with pytest.raises(ArgumentError):
        graphnn.jvp(graphnn.sin, (1.0,), (1.0, 2.0))


@MODES
def test_jacobian_and_hessian(mode: Any) -> None:
    jacobian = mode(graphnn.jacobian(lambda x: graphnn.sin(x) * 2.0))
    close(jacobian(graphnn.constant(X)), np.diag(2 * np.cos(X)))
    hessian = mode(graphnn.hessian(lambda x: graphnn.sum(x * x * x) + x[0] * x[1]))
    expected = np.diag(6 * X)
    expected[0, 1] = expected[1, 0] = 1
    close(hessian(graphnn.constant(X)), expected)


# ---- custom gradients -----------------------------------------------------------------------


@MODES
def test_custom_gradient(mode: Any) -> None:
    @graphnn.custom_gradient
    def log1pexp(x: Any) -> Any:
        e = graphnn.exp(x)

        def rule(upstream: Any) -> Any:
            return upstream * (1 - 1 / (1 + e))

        return graphnn.log(1 + e), rule

    def f(x: Any) -> Any:
        with graphnn.GradientTape() as outer:
            outer.watch(x)
            with graphnn.GradientTape() as tape:
                tape.watch(x)
                y = log1pexp(x * 2.0)
            g = tape.gradient(y, x)
        return y, g, outer.gradient(g, x)

    y, g, h = mode(f)(graphnn.constant(X))
    s = 1 / (1 + np.exp(-2 * X))
    close(y, np.log1p(np.exp(2 * X)))
    close(g, 2 * s)
    close(h, 4 * s * (1 - s))


@MODES
def test_custom_gradient_of_several(mode: Any) -> None:
    @graphnn.custom_gradient
    def f(x: Any, y: Any) -> Any:
        return (x * y, x + y), lambda a, b: (a * 10.0 + y, b * 100.0)

    def g(x: Any, y: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch([x, y])
            p, q = f(x, y)
            z = p * 2.0 + q * 3.0
        return tape.gradient(z, [x, y])

    gx, gy = mode(g)(graphnn.constant(X), graphnn.constant(X))
    close(gx, 20 + X)
    close(gy, X * 0 + 300)


@MODES
def test_custom_gradient_with_variables(mode: Any) -> None:
    v = graphnn.Variable(2.0)

    @graphnn.custom_gradient
    def f(x: Any) -> Any:
        def rule(g: Any, variables: Any = None) -> Any:
            assert variables == [v]
            return g * 7.0, [g * 11.0]

        return x * v, rule

    def g(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            y = f(x) * 2.0
        return tape.gradient(y, [x, v])

    gx, gv = mode(g)(graphnn.constant(3.0))
    close(gx, 14)
    close(gv, 22)


def test_custom_gradient_must_fit() -> None:
    @graphnn.custom_gradient
    def f(x: Any, y: Any) -> Any:
        return x * y, lambda g: g

    with pytest.raises(GradientError, match="2 tensor arguments"):
        graphnn.grad(f)(1.0, graphnn.constant(2.0))
    assert f(1.0, 2.0) == 2.0


def test_custom_gradient_of_a_function_called_under_an_outer_tape() -> None:
    @graphnn.custom_gradient
    def double(x: Any) -> Any:
        return x * 1.0, lambda g: g * 2.0

    compiled = graphnn.function(lambda x: double(x) * 3.0)
    x = graphnn.constant(5.0)
    with graphnn.GradientTape() as tape:
        tape.watch(x)
        y = compiled(x)
    close(tape.gradient(y, x), 6)


# ---- recomputation ----------------------------------------------------------------------------


@MODES
def test_recompute_grad(mode: Any) -> None:
    v = graphnn.Variable(X)
    calls: list[int] = []

    def block(x: Any) -> Any:
        calls.append(1)
        return graphnn.sin(graphnn.exp(x) * v)

    def run(f: Any) -> Any:
        def g(x: Any) -> Any:
            with graphnn.GradientTape() as outer:
                outer.watch(x)
                with graphnn.GradientTape() as tape:
                    tape.watch(x)
                    y = graphnn.sum(f(x) * x)
                gx, gv = tape.gradient(y, [x, v])
            return gx, gv, outer.gradient(gx, x)

        return mode(g)(graphnn.constant(X * 0.5))

    expected = run(block)
    calls.clear()
    for found, wanted in zip(run(graphnn.recompute_grad(block)), expected, strict=True):
        close(found, wanted.numpy())
    assert len(calls) >= 2


def test_recompute_keeps_nothing() -> None:
    x = graphnn.constant(X)
    block = graphnn.recompute_grad(lambda x: graphnn.sin(graphnn.exp(graphnn.cos(x))))
    with graphnn.GradientTape() as tape:
        tape.watch(x)
        y = block(x)
    assert len(tape.steps) == 1
    expected = np.cos(np.exp(np.cos(X))) * np.exp(np.cos(X)) * -np.sin(X)
    close(tape.gradient(y, x), expected)
