"""Attention: masks, biases, shared heads, gradients of gradients, and one value in all modes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphnn
from graphnn.compiler.passes.pipeline import Pipeline, default_passes
from graphnn.errors import ArgumentError, ShapeError
from tests.codegen.traced import Tracer, compiled, trace

B, T, D = 2, 6, 8
attend = graphnn.nn.dot_product_attention


def expected(
    q: Any, k: Any, v: Any, bias: Any = None, mask: Any = None, scale: Any = None,
    is_causal: bool = False,
) -> Any:  # fmt: skip
    """The formula in float64."""
    q, k, v = (np.asarray(x, np.float64).transpose(0, 2, 1, 3) for x in (q, k, v))
    heads = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, heads, 1) for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * (scale or q.shape[-1] ** -0.5)
    if bias is not None:
        scores = scores + bias
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -1e30)
    if mask is not None:
        scores = np.where(mask, scores, -1e30)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)


RNG = np.random.default_rng(0)
FORMS: list[dict[str, Any]] = [
    {},
    {"is_causal": True},
    {"scale": 0.3},
    {"mask": RNG.random((B, 1, T, T)) > 0.3},
    {"bias": RNG.normal(size=(4, T, T)).astype(np.float32)},
    {"bias": RNG.normal(size=(4, 1, T)).astype(np.float32), "mask": RNG.random((B, 1, 1, T)) > 0.3},
]


def arrays(heads: int, shared: int, keys: int = T) -> list[Any]:
    rng = np.random.default_rng(heads)
    shapes = ((B, T, heads, D), (B, keys, shared, D), (B, keys, shared, D - 2))
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: "-".join(f) or "plain")
@pytest.mark.parametrize("shared", [4, 2, 1])
def test_values_and_modes(form: dict[str, Any], shared: int) -> None:
    given = arrays(4, shared)
    want = expected(*given, **form)
    np.testing.assert_allclose(attend(*given, **form).numpy(), want, rtol=1e-4, atol=1e-5)
    later = graphnn.function(lambda *x: attend(*x, **form))
    np.testing.assert_allclose(later(*given).numpy(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: "-".join(f) or "plain")
def test_gradients_are_those_of_the_composition(form: dict[str, Any]) -> None:
    given = [graphnn.constant(a) for a in arrays(4, 2)]

    def composed(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (graphnn.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
        k, v = (graphnn.repeat(x, 2, axis=1) for x in (k, v))
        s = graphnn.matmul(q, k, transpose_b=True) * (form.get("scale") or D**-0.5)
        s = s + form["bias"] if "bias" in form else s
        seen = form.get("mask", np.ones((1, 1, T, T), bool))
        seen = seen & np.tri(T, dtype=bool) if form.get("is_causal") else seen
        s = graphnn.where(seen, s, -1e30)
        return graphnn.transpose(graphnn.matmul(graphnn.nn.softmax(s), v), (0, 2, 1, 3))

    def gradients(rule: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(given)
            out = rule(*given)
            loss = graphnn.reduce_sum(out * out)
        return tape.gradient(loss, given)

    want = gradients(composed)
    for got in (
        gradients(lambda *x: attend(*x, **form)),
        graphnn.function(lambda: gradients(lambda *x: attend(*x, **form)))(),
    ):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4)


def test_the_gradient_of_a_bias_is_summed_where_it_was_stretched() -> None:
    q, k, v = map(graphnn.constant, arrays(4, 4))
    bias = graphnn.constant(RNG.normal(size=(4, 1, T)).astype(np.float32))
    with graphnn.GradientTape() as tape:
        tape.watch(bias)
        loss = graphnn.reduce_sum(graphnn.square(attend(q, k, v, bias=bias)))
    slope = tape.gradient(loss, bias).numpy()
    step = 1e-2
    at = (2, 0, 3)
    moved = [bias.numpy().copy() for _ in range(2)]
    moved[0][at] += step
    moved[1][at] -= step
    high, low = (np.square(expected(q, k, v, bias=m)).sum() for m in moved)
    np.testing.assert_allclose(slope[at], (high - low) / (2 * step), rtol=1e-2)


def test_gradients_of_gradients() -> None:
    q, k, v = (graphnn.constant(a[:1, :3, :1]) for a in arrays(1, 1))
    direction = graphnn.constant(RNG.normal(size=q.shape).astype(np.float32))

    def slope(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            loss = graphnn.reduce_sum(graphnn.square(attend(x, k, v, is_causal=True)))
        return tape.gradient(loss, x)

    with graphnn.GradientTape() as outer:
        outer.watch(q)
        along = graphnn.reduce_sum(slope(q) * direction)
    got = outer.gradient(along, q).numpy()
    step = 1e-2
    high, low = (slope(q + s * direction).numpy() for s in (step, -step))
    np.testing.assert_allclose(got, (high - low) / (2 * step), rtol=2e-2, atol=1e-3)


def test_a_query_that_sees_no_key_takes_the_mean() -> None:
    q, k, v = arrays(2, 2)
    for dtype, limit in ((np.float32, 1e-5), (np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)):
        given = [x.astype(dtype) for x in (q, k, v)]
        out = attend(*given, mask=np.zeros((1, 1, T, T), bool)).numpy()
        assert out.dtype == dtype
        want = np.broadcast_to(v.mean(1, keepdims=True), out.shape)
        np.testing.assert_allclose(out.astype(np.float32), want, rtol=limit, atol=4 * limit)


def test_the_batch_may_be_left_out() -> None:
    q, k, v = arrays(4, 2)
    out = attend(q[0], k[0], v[0])
    np.testing.assert_allclose(out.numpy(), attend(q, k, v).numpy()[0], rtol=1e-5, atol=1e-6)


def test_symbolic_sizes() -> None:
    def function(t: Tracer, q: Any, k: Any) -> Any:
        return t.ops.attention(q, k, k, scale=0.5, causal=False)

    made = compiled(function, ("b", "t", 2, 4), ("b", "s", 2, 4))
    rng = np.random.default_rng(0)
    for batch, queries, keys in ((2, 3, 5), (3, 7, 2)):
        q, k = (rng.normal(size=(batch, n, 2, 4)).astype(np.float32) for n in (queries, keys))
        (out,) = made.run([q, k])
        np.testing.assert_allclose(out, expected(q, k, k, scale=0.5), rtol=1e-4, atol=1e-5)


def test_one_matrix_of_probabilities_serves_value_and_gradient() -> None:
    """Each exponential is computed once in a compiled step."""

    def function(t: Tracer, q: Any, k: Any, v: Any) -> Any:
        out = t.ops.attention(q, k, v, scale=0.5, causal=True)
        loss = t.ops.sum(t.ops.square(out), axes=(0, 1, 2, 3))
        return (loss, *t.gradient(loss, q, k, v))

    traced, _ = trace(function, *[(B, T, 2, D)] * 3)
    names = [n.op.name for n in Pipeline().run(traced).nodes]
    assert names.count("exp") == 1 and names.count("matmul") == 6


def test_a_library_keeps_the_op_whole() -> None:
    def function(t: Tracer, q: Any, k: Any) -> Any:
        return t.ops.attention(q, k, k, scale=0.5)

    for dtype, whole in ((np.float16, True), (np.float32, False)):
        traced, _ = trace(function, (B, T, 2, D), (B, T, 2, D), dtype=dtype)
        for libraries, kept in ((("cudnn",), whole), ((), False)):
            graph = Pipeline(default_passes("cuda", libraries)).run(traced)
            assert any(n.op.name == "attention" for n in graph.nodes) is kept


def test_errors() -> None:
    q, k, v = arrays(4, 4)
    with pytest.raises(ShapeError, match="as many heads"):
        attend(q, k[:, :, :3], v[:, :, :3])
    with pytest.raises(ShapeError, match="bias"):
        attend(q, k, v, bias=np.zeros((1, 1, T, 2), np.float32))
    with pytest.raises(ShapeError):
        attend(q[0, 0], k, v)
    rule = graphnn.function(lambda x: attend(x, x, x))
    with pytest.raises(ArgumentError, match="scale"):
        rule.get_concrete_function(graphnn.TensorSpec((1, 2, 1, None), "float32"))


def test_gradients_of_gradients_of_one_tensor_in_all_places() -> None:
    x = graphnn.constant(np.random.default_rng(0).normal(size=(1, 3, 1, 2)))

    def second(attend: Any) -> Any:
        with graphnn.GradientTape() as outer:
            outer.watch(x)
            with graphnn.GradientTape() as inner:
                inner.watch(x)
                loss = graphnn.reduce_sum(attend(x) ** 2)
            total = graphnn.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(total, x).numpy()

    attend = graphnn.nn.dot_product_attention
    want = second(lambda q: attend(q, q + 0.0, q * 1.0))
    np.testing.assert_allclose(second(lambda q: attend(q, q, q)), want, rtol=1e-12)
