"""Random numbers four at a time: the same bits, from a fourth of the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.compiler.ops.base import REGISTRY
from tests.ops import harness

STATE = np.array([7, 1, 2**32 - 2, 3], np.uint32)
SHAPES: list[tuple[int, ...]] = [
    (1,), (4,), (5,), (8,), (64,), (1000,), (1003,), (6, 4), (3, 5), (70, 12), (2, 3, 8), (20000,)
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("random_bits", {}),
        ("random_bits", {"dtype": "uint64"}),
        ("random_uniform", {"dtype": "float32"}),
        ("random_uniform", {"dtype": "float64"}),
        ("random_uniform", {"dtype": "bfloat16"}),
        ("randint", {"low": -5, "high": 100}),
    ],
)
def test_bits_are_those_of_eager_code(name: str, settings: Any, shape: tuple[int, ...]) -> None:
    op = REGISTRY[name](shape=shape, **settings)
    np.testing.assert_array_equal(
        harness.compiled_value(op, (STATE,)), op.eager(np, STATE), strict=True
    )


def loops_of(function: Any, *args: Any) -> tuple[Any, str]:
    """Result of a compiled function in the state of seed 3, and its loops as text."""
    graphnn.random.set_seed(3)
    return function(*args), function.dump("loops")


def words(text: str) -> int:
    """How many products a kernel makes at least: Philox makes 20 a block."""
    return text.count(" = mul(")


def test_a_block_is_computed_once() -> None:
    whole = graphnn.function(lambda: graphnn.random.uniform((64, 64)))
    odd = graphnn.function(lambda: graphnn.random.uniform((63, 63)))
    (_, four), (_, one) = loops_of(whole), loops_of(odd)
    assert "for i < 1024, in parallel" in four and "for i < 3969, in parallel" in one
    assert words(four) < words(one) + 8


@pytest.mark.parametrize("size", [3, 4, 6, 8])
def test_symbolic_sizes_and_what_is_fused(size: int) -> None:
    @graphnn.function
    def drop(x: Any) -> Any:
        kept = graphnn.random.uniform(graphnn.shape(x)) < 0.5
        return graphnn.where(kept, x * 2.0, 0.0), graphnn.sum(x, axis=-1)

    drop(graphnn.ones((2, 3)))
    drop(graphnn.ones((5, 3)))  # now symbolic
    x = graphnn.reshape(graphnn.range(8.0 * size), (8, size))
    graphnn.random.set_seed(5)
    found = drop(x)
    graphnn.random.set_seed(5)
    wanted = drop.python_function(x)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("shape", [(16, 64), (300, 400), (7, 3)])
def test_dropout_with_its_gradient(shape: tuple[int, ...]) -> None:
    def both(x: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            y = graphnn.nn.softmax(graphnn.nn.dropout(graphnn.exp(x), 0.3))
        return y, tape.gradient(y, x)

    x = graphnn.constant(np.random.default_rng(0).uniform(-1, 1, shape).astype("float32"))
    compiled = graphnn.function(both)
    for _ in range(2):
        graphnn.random.set_seed(9)
        found = compiled(x)
        graphnn.random.set_seed(9)
        for a, b in zip(found, both(x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_gathered_places_are_left_alone() -> None:
    @graphnn.function
    def pick(table: Any, i: Any) -> Any:
        return graphnn.take(table, i, axis=0) * graphnn.random.uniform((8, 12))

    table, i = graphnn.ones((5, 12)), graphnn.constant([0, 4, 1, 1, 2, 3, 0, 4])
    graphnn.random.set_seed(1)
    found = pick(table, i)
    graphnn.random.set_seed(1)
    np.testing.assert_array_equal(found.numpy(), pick.python_function(table, i).numpy())
