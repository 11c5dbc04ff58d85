"""What shares a kernel, in what loops, and why not."""

from __future__ import annotations

import numpy as np
import pytest

from graphnn.compiler.codegen.program import Target
from tests.codegen.traced import ONE_THREAD, compiled, loops, normal, run, titles


def chain(t, x, w, b):
    o = t.ops
    y = o.add(o.multiply(x, w), b)
    return o.add(o.multiply(o.gelu(y, approximate=True), o.sigmoid(x)), x)


def softmax_xent(t, x, labels):
    o = t.ops
    loss = o.mean(o.sparse_softmax_cross_entropy(x, o.cast(labels, dtype="int32")), axes=(0,))
    return loss, *t.gradient(loss, x)


def layer_norm(t, x, g, b, dy):
    y = t.ops.layer_norm(x, g, b, epsilon=1e-5)
    return y, *t.gradient(t.ops.sum(t.ops.multiply(y, dy), axes=(0, 1)), x, g, b)


KERNELS = {
    "chain": (chain, (4, 6), (6,), (6,)),
    "softmax_xent": (softmax_xent, (4, 6), (4,)),
    "layer_norm": (layer_norm, (4, 6), (6,), (6,), (4, 6)),
    "transposed": (lambda t, x: t.ops.exp(t.ops.permute_dims(x, axes=(1, 0))), (4, 6)),
    "middle": (lambda t, x: t.ops.sum(x, axes=(1,)), (2, 3, 4)),
    "symbolic": (lambda t, x, b: t.ops.softmax(t.ops.add(x, b)), ("n", 6), (6,)),
    "concat": (lambda t, x, y: t.ops.exp(t.ops.concat(x, y, axis=0)), (2, 3), (4, 3)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_loops(name, golden):
    function, *shapes = KERNELS[name]
    golden(f"golden/{name}.loops", loops(compiled(function, *shapes, target=ONE_THREAD)))


def test_llvm_text(golden):
    function, *shapes = KERNELS["symbolic"]
    program = compiled(function, *shapes, target=ONE_THREAD).built.program
    text = program.modules[0][1]
    golden("golden/symbolic.ll", text[: text.index("define internal")])


def test_two_threads_have_partial_sums(golden):
    result = compiled(lambda t, x: t.ops.sum(x, axes=(0,)), (4096, 8), target=Target(threads=2))
    golden("golden/partial.loops", loops(result))
    x = normal(4096, 8)
    np.testing.assert_allclose(run(result, x)[0], x.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["chain", "softmax_xent", "layer_norm"])
def test_one_kernel_for_rows(name):
    """The workloads of the benchmarks sweep over each row once, in one kernel."""
    function, *shapes = KERNELS[name]
    steps = titles(compiled(function, *shapes, target=ONE_THREAD))
    assert len([s for s in steps if s != "divide"]) == 1


def test_exp_is_evaluated_once():
    function, *shapes = KERNELS["softmax_xent"]
    assert loops(compiled(function, *shapes, target=ONE_THREAD)).count("call(exp") == 1


def test_refusals_have_reasons():
    def function(t, x, w):
        o = t.ops
        y = o.exp(x)
        total = o.sum(y, axes=(0, 1))
        return o.matmul(o.multiply(y, total), w), o.add(y, o.permute_dims(o.tanh(y), axes=(1, 0)))

    reasons = [r.text for r in compiled(function, (4, 4), (4, 4)).built.partition.reasons]
    assert "sum is complete only after all rows" in reasons
    assert "matmul is a library step of its own" in reasons
    assert "add reads tanh in another order" in reasons


def test_equal_kernels_are_compiled_once_and_merge_into_one_step():
    def function(t, *xs):
        return [t.ops.multiply(t.ops.exp(x), 2.0) for x in xs]

    program = compiled(function, (3, 4), (7,), (2, 2)).built.program
    assert len(program.modules) == 1
    (step,) = program.steps
    assert len(step.segments) == 3


def test_merge_never_closes_a_cycle():
    """b = exp(a) and c = a + matmul(b): a and c must not share a kernel around the product."""

    def function(t, x, w):
        o = t.ops
        a = o.tanh(x)
        b = o.matmul(o.exp(a), w)
        return o.add(a, b)

    result = compiled(function, (4, 4), (4, 4))
    x, w = normal(4, 4), normal(4, 4, seed=1)
    want = np.tanh(x) + np.exp(np.tanh(x)) @ w
    np.testing.assert_allclose(run(result, x, w)[0], want, rtol=1e-5)
    assert len(titles(result)) == 3
