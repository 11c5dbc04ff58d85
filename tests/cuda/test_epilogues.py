"""What products take in on a GPU: which nodes, why others not, and that results stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphnn.compiler.codegen.cuda_library import asking
from graphnn.compiler.codegen.cuda_program import DeviceBuilt, build_device_program
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ops.gemm import Gemm
from graphnn.compiler.passes.libraries import LibraryRules
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.device import ProductRun
from tests.codegen.traced import Tracer, trace
from tests.cuda import emulate
from tests.cuda.running import SMALL, assert_close, check

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())
BF16 = ml_dtypes.bfloat16
Case = tuple[Callable[..., Any], tuple[Any, ...]]


def program(
    function: Callable[..., Any], shapes: Sequence[Any], dtype: Any = np.float32, **rules: Any
) -> tuple[DeviceBuilt, list[Any], Graph]:
    """A traced function as a program, arrays for it, and the graph without library calls."""
    rng = np.random.default_rng(len(shapes))
    sizes = [[7 if isinstance(s, str) else s for s in shape] for shape in shapes]
    arrays = [rng.normal(size=s).astype(dtype) for s in sizes]
    traced, _ = trace(function, *shapes, dtype=dtype)
    graph = Pipeline().run(traced)
    return build_device_program(graph, SMALL, rules=LibraryRules(**rules)), arrays, graph


def words(made: DeviceBuilt) -> list[str]:
    """What each product does besides multiplying."""
    ops = [s[0].group.nodes[0].op for s in made.steps]
    return [op.words.partition(", ")[2] for op in ops if isinstance(op, Gemm)]


def other_steps(made: DeviceBuilt) -> int:
    return sum(not isinstance(s[0].group.nodes[0].op, Gemm) for s in made.steps)


def check_values(made: DeviceBuilt, arrays: Sequence[Any], graph: Graph, rtol: float) -> None:
    """The emulated device computes what the library's form says, and that is what was meant."""
    check(made, arrays, rtol)
    with np.errstate(all="ignore"):
        got, _ = interpret(made.partition.graph, arrays)
        want, _ = interpret(graph, arrays)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, rtol)


def refusals(made: DeviceBuilt) -> list[str]:
    return [r.text for r in made.partition.reasons if isinstance(r.producer.op, Gemm)]


# ---- training of layers -----------------------------------------------------------------------


def layers(activation: str, **settings: Any) -> Callable[..., Any]:
    """A loss and its gradients for two dense layers."""

    def function(t: Tracer, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        ops = t.ops
        hidden = getattr(ops, activation)(ops.add(ops.matmul(x, w1), b1), **settings)
        out = ops.add(ops.matmul(hidden, w2), b2)
        loss = ops.mean(ops.square(out), axes=tuple(range(len(out.shape))))
        return (loss, *t.gradient(loss, w1, b1, w2, b2, x))

    return function


SHAPES = ((6, 24), (24, 32), (32,), (32, 16), (16,))
STACKED = ((2, 3, 24), *SHAPES[1:])


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
@pytest.mark.parametrize("shapes", [SHAPES, STACKED], ids=["matrix", "stack"])
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_a_layer_and_its_gradient_are_products_alone(name: str, shapes: Any, dtype: Any) -> None:
    settings = {"approximate": True} if name == "gelu" else {}
    made, arrays, graph = program(layers(name, **settings), shapes, dtype)
    found = words(made)
    assert f"bias, {name}, kept" in found
    assert f"slope of {name}, sums of c" in found
    check_values(made, arrays, graph, 1e-4)


def test_other_activations_stay_in_kernels() -> None:
    made, arrays, graph = program(layers("tanh"), SHAPES)
    assert not any(words(made))
    assert "the kernel has to run anyway, nothing is saved" in refusals(made)
    check_values(made, arrays, graph, 1e-4)


def test_gelu_by_erf_is_not_the_library_s() -> None:
    made, _, _ = program(layers("gelu"), SHAPES)
    assert not any("gelu" in w for w in words(made))


def test_rows_of_kept_values_must_be_multiples() -> None:
    shapes = ((6, 24), (24, 30), (30,), (30, 16), (16,))
    made, arrays, graph = program(layers("gelu", approximate=True), shapes)
    assert not any("gelu" in w for w in words(made))
    assert any("multiple of 8" in r for r in refusals(made))
    check_values(made, arrays, graph, 1e-4)


def test_relu_bits_are_padded() -> None:
    shapes = ((6, 24), (24, 130), (130,), (130, 16), (16,))
    made, arrays, graph = program(layers("relu"), shapes)
    assert "bias, relu, kept" in words(made)
    check_values(made, arrays, graph, 1e-4)


def test_a_symbolic_batch_is_taken_in_too() -> None:
    made, arrays, graph = program(layers("relu"), (("n", 24), *SHAPES[1:]))
    assert "bias, relu, kept" in words(made) and "slope of relu, sums of c" in words(made)
    check_values(made, arrays, graph, 1e-4)


def test_the_float64_of_a_product_has_no_epilogue() -> None:
    made, arrays, graph = program(layers("relu"), SHAPES, np.float64)
    assert not any(words(made))
    assert any("no epilogue for float64" in r for r in refusals(made))
    check_values(made, arrays, graph, 1e-9)


def test_epilogues_can_be_left_out() -> None:
    made, arrays, graph = program(layers("relu"), SHAPES, epilogues=False)
    assert not any(words(made))
    check_values(made, arrays, graph, 1e-4)


def test_what_the_library_at_hand_lacks_is_left_out() -> None:
    asked: list[ProductRun] = []

    def supports(run: ProductRun) -> bool:
        asked.append(run)
        return run.epilogue.slope == "" and not run.epilogue.keeps

    made, arrays, graph = program(layers("relu"), SHAPES, supports=asking(supports))
    assert asked and not any("slope" in w or "kept" in w for w in words(made))
    check_values(made, arrays, graph, 1e-4)


# ---- single forms -----------------------------------------------------------------------------


def biased(t: Tracer, x: Any, w: Any, b: Any) -> Any:
    return t.ops.add(t.ops.matmul(x, w), b)


def test_a_bias_alone_saves_a_kernel() -> None:
    made, arrays, graph = program(biased, ((6, 8), (8, 16), (16,)))
    assert words(made) == ["bias"] and other_steps(made) == 0
    check_values(made, arrays, graph, 1e-5)


def test_a_bias_of_rows_is_none() -> None:
    made, arrays, graph = program(biased, ((6, 8), (8, 16), (6, 1)))
    assert words(made) == [""]
    assert any("neither a vector" in r for r in refusals(made))
    check_values(made, arrays, graph, 1e-5)


def test_a_residual_is_added_where_the_sum_is_stored_anyway() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        stream = t.ops.add(x, t.ops.matmul(x, w))
        return stream, t.ops.softmax(stream, axis=-1)

    made, arrays, graph = program(function, ((6, 8), (8, 8)))
    assert words(made) == ["residual"]
    check_values(made, arrays, graph, 1e-5)


def test_a_kernel_that_has_to_run_takes_the_sum_itself() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        return t.ops.softmax(t.ops.add(x, t.ops.matmul(x, w)), axis=-1)

    made, _, _ = program(function, ((6, 8), (8, 8)))
    assert words(made) == [""]


def test_a_product_that_others_read_keeps_its_value() -> None:
    def function(t: Tracer, x: Any, w: Any, b: Any) -> Any:
        p = t.ops.matmul(x, w)
        return t.ops.add(p, b), t.ops.matmul(p, w)

    made, arrays, graph = program(function, ((6, 8), (8, 8), (8,)))
    assert words(made) == ["", ""]
    check_values(made, arrays, graph, 1e-5)


def test_a_residual_that_needs_the_product_is_refused() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        p = t.ops.matmul(x, w)
        return t.ops.add(p, t.ops.tanh(p))

    made, arrays, graph = program(function, ((6, 8), (8, 8)))
    assert words(made) == [""]
    check_values(made, arrays, graph, 1e-5)


def test_16_bit_products_give_float32_where_they_are_cast() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        return t.ops.cast(t.ops.matmul(x, w), dtype="float32")

    made, arrays, graph = program(function, ((6, 8), (8, 16)), BF16)
    assert other_steps(made) == 0
    check_values(made, arrays, graph, 2e-2)


def test_casts_of_both_operands_to_float32_are_the_library_s() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        wide = (t.ops.cast(v, dtype="float32") for v in (x, w))
        return t.ops.matmul(*wide)

    made, arrays, graph = program(function, ((6, 8), (8, 16)), np.float16)
    assert other_steps(made) == 0
    check_values(made, arrays, graph, 1e-5)


def test_a_bias_gradient_comes_with_the_gradient_of_the_weights() -> None:
    def function(t: Tracer, g: Any, x: Any) -> Any:
        return t.ops.matmul(x, g, transpose_a=True), t.ops.sum(g, axes=(0,))

    def other(t: Tracer, g: Any, x: Any) -> Any:
        return t.ops.matmul(g, x, transpose_a=True), t.ops.sum(g, axes=(0,))

    for rule, word in ((function, "sums of b"), (other, "sums of a")):
        made, arrays, graph = program(rule, ((6, 8), (6, 16)))
        assert words(made) == [word] and other_steps(made) == 0
        check_values(made, arrays, graph, 1e-5)


def test_integers_are_multiplied_on_the_device() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        return t.ops.matmul(x, w), t.ops.matmul(w, x, transpose_a=True, transpose_b=True)

    for dtype in (np.int32, np.int8, np.uint64):
        made, _, graph = program(function, ((2, 6, 8), (8, 4)), dtype)
        assert not any(s.host for s in made.device.program.steps)
        rng = np.random.default_rng(0)
        arrays = [rng.integers(0, 9, s).astype(dtype) for s in ((2, 6, 8), (8, 4))]
        check_values(made, arrays, graph, 0)


# ---- where operands lie -----------------------------------------------------------------------


def heads(t: Tracer, x: Any, y: Any) -> Any:
    """Scores of attention from (batch, time, heads, depth)."""
    q, k = (t.ops.permute_dims(v, axes=(0, 2, 1, 3)) for v in (x, y))
    return t.ops.matmul(q, k, transpose_b=True)


def test_permuted_axes_are_read_where_they_lie() -> None:
    made, arrays, graph = program(heads, ((2, 5, 3, 8), (2, 5, 3, 8)))
    assert len(made.steps) == 1
    (run,) = made.device.plan(()).steps
    assert isinstance(run, ProductRun)
    assert run.leading == (24, 24, 5) and len(run.offsets) == 2 and run.batch == 3
    check_values(made, arrays, graph, 1e-5)


def test_too_many_calls_are_worth_a_copy() -> None:
    made, arrays, graph = program(heads, ((6, 3, 5, 8), (6, 3, 5, 8)))
    assert len(made.steps) == 3
    check_values(made, arrays, graph, 1e-5)


def test_slices_of_columns_are_read_where_they_lie() -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        part = t.ops.slice(x, starts=(0, 8), steps=(1, 1), shape=(6, 4))
        return t.ops.matmul(part, w), t.ops.matmul(w, part, transpose_a=True, transpose_b=True)

    made, arrays, graph = program(function, ((6, 24), (4, 5)))
    assert len(made.steps) == 2
    check_values(made, arrays, graph, 1e-5)


VECTORS = [
    ((1, 4), (4, 1)),
    ((3, 1), (1, 5)),
    ((2, 1, 4), (2, 4, 1)),
    ((0, 4), (4, 3)),
    ((3, 0), (0, 2)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", VECTORS)
def test_vectors_and_empty_matrices(shapes: Any) -> None:
    def function(t: Tracer, x: Any, w: Any) -> Any:
        axes = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
        back = t.ops.permute_dims(t.ops.permute_dims(x, axes=axes), axes=axes)
        return t.ops.relu(t.ops.matmul(back, w))

    made, arrays, graph = program(function, shapes)
    check_values(made, arrays, graph, 1e-5)


def test_each_value_is_computed_again_or_kept_by_its_twin() -> None:
    """A pass may compute a sum with a bias again for the gradient; both are one value."""

    def function(t: Tracer, x: Any, w: Any, b: Any, v: Any) -> Any:
        p = t.ops.matmul(x, w)
        y, again = t.ops.add(p, b), t.ops.add(p, b)
        later = t.ops.matmul(t.ops.gelu(y, approximate=True), v)
        return t.ops.multiply(later, t.ops.tanh(again))

    traced, _ = trace(function, (6, 8), (8, 16), (16,), (16, 16))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=n.shape).astype(np.float32) for n in traced.inputs]
    made = build_device_program(traced, SMALL)  # without the pass that would merge them
    assert words(made) == ["bias, gelu, kept", ""]
    check_values(made, arrays, traced, 1e-5)


def test_sums_of_two_products_that_wait_for_each_other() -> None:
    def crossed(t: Any, x: Any, b1: Any, b2: Any) -> Any:
        first, second = (t.ops.sum(b, axes=(0,)) for b in (b1, b2))
        one = t.ops.matmul(t.ops.multiply(x, second), b1)
        return one, t.ops.matmul(t.ops.multiply(x, first), b2)

    t = Tracer()
    inputs = [t.trace.argument(n, TensorType((8, 8), float32)) for n in ("x", "b1", "b2")]
    graph = Pipeline().run(t.trace.finish(crossed(t, *inputs)))
    made = build_device_program(graph, SMALL)
    check(made, [np.random.default_rng(0).normal(size=(8, 8)).astype("f4") for _ in inputs])
    assert any("the product needs the sums" in text for text in refusals(made))
