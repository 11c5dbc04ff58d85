"""Loops cut where conditions change: the pieces of a concat become copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphnn


def pieces(rows: int, widths: list[int]) -> list[Any]:
    rng = np.random.default_rng(3)
    return [graphnn.constant(rng.uniform(-1, 1, (rows, w)).astype("float32")) for w in widths]


@pytest.mark.parametrize(
    ("widths", "loops"),
    [([16, 16, 16], 3), ([1, 40, 7, 64], 4), ([2, 3, 2], 1), ([100], 0), ([12] * 40, 1)],
)
def test_concat_on_the_last_axis(widths: list[int], loops: int) -> None:
    parts = pieces(70, widths)
    join = graphnn.function(lambda parts: graphnn.concat(parts, axis=-1))
    np.testing.assert_array_equal(
        join(parts).numpy(), np.concatenate([p.numpy() for p in parts], -1)
    )
    text = join.dump("loops")
    assert text.count("for j <") == loops
    assert ("guarded" in text) == (loops == 1)


def test_what_is_fused_with_the_pieces() -> None:
    def both(parts: Any) -> Any:
        joined = graphnn.concat([parts[0] * 2.0, graphnn.exp(parts[1]), parts[2]], axis=-1)
        wide = graphnn.pad(joined, [[0, 0], [3, 30]], constant_values=7.0)
        return graphnn.nn.relu(joined), wide + 1.0, graphnn.flip(wide, axis=-1)

    parts = pieces(300, [20, 33, 11])
    for a, b in zip(graphnn.function(both)(parts), both(parts), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_symbolic_rows_and_gradient() -> None:
    def slopes(parts: Any) -> Any:
        with graphnn.GradientTape() as tape:
            tape.watch(parts)
            y = graphnn.sum(graphnn.concat(parts, axis=-1) ** 2)
        return tape.gradient(y, parts)

    compiled = graphnn.function(slopes)
    for rows in (5, 6, 9):
        parts = pieces(rows, [10, 20])
        for a, p in zip(compiled(parts), parts, strict=True):
            np.testing.assert_allclose(a.numpy(), 2 * p.numpy(), rtol=1e-6)


def test_long_bodies_are_not_copied() -> None:
    parts = pieces(64, [16] * 20)
    long = graphnn.function(lambda p: graphnn.nn.gelu(graphnn.sin(graphnn.concat(p, axis=-1))))
    expected = graphnn.nn.gelu(graphnn.sin(graphnn.concat(parts, axis=-1)))
    np.testing.assert_allclose(long(parts).numpy(), expected.numpy(), rtol=2e-5, atol=1e-6)
    assert long.dump("loops").count("for j <") == 1
