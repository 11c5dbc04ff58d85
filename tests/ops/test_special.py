"""The functions NumPy lacks (`runtime.xp`): accuracy against mpmath, poles and limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphnn.runtime import xp as special

RNG = np.random.default_rng(3)
SMALL = 10.0 ** RNG.uniform(-300, 0, 40)
ORDINARY = np.concatenate([RNG.normal(0, 2, 200), RNG.uniform(-1.1, 1.1, 100)])
NEAR_ONE = 1 - 10.0 ** RNG.uniform(-16, 0, 100)


def worst_ulp(name: str, reference: str, xs: Any, least: float = 0.0) -> float:
    """The greatest error in ulp of max(|result|, least)."""
    mpmath = pytest.importorskip("mpmath")
    values = getattr(special, name)(np, xs)
    worst = 0.0
    with mpmath.workdps(40):
        for x, value in zip(xs, values, strict=True):
            exact = mpmath.re(getattr(mpmath, reference)(mpmath.mpf(float(x))))
            unit = float(np.spacing(max(abs(float(exact)), least)))
            worst = max(worst, abs(float((mpmath.mpf(float(value)) - exact) / unit)))
    return worst


@pytest.mark.parametrize(
    ("name", "reference", "xs", "ulp", "least"),
    [
        ("erf", "erf", np.concatenate([ORDINARY, SMALL]), 2, 0),
        ("erfc", "erfc", np.concatenate([ORDINARY, RNG.uniform(-6, 26, 200)]), 4, 0),
        ("erfinv", "erfinv", np.concatenate([RNG.uniform(-1, 1, 200), NEAR_ONE, SMALL]), 3, 0),
        ("lgamma", "loggamma", np.concatenate([RNG.uniform(0, 10, 200), SMALL]), 3, 0),
        ("lgamma", "loggamma", RNG.uniform(-20, 0, 150), 6, 1),
        ("digamma", "digamma", RNG.uniform(-10, 30, 200), 16, 1),
    ],
)
def test_accuracy(name: str, reference: str, xs: Any, ulp: float, least: float) -> None:
    assert worst_ulp(name, reference, xs, least) <= ulp


def test_against_the_standard_library() -> None:
    xs = np.concatenate([ORDINARY, [0.0, 30.0, -30.0]])
    np.testing.assert_allclose(special.erf(np, xs), [math.erf(x) for x in xs], rtol=1e-15)
    np.testing.assert_allclose(special.erfc(np, xs), [math.erfc(x) for x in xs], rtol=2e-15)
    positive = np.abs(ORDINARY) + 0.01
    np.testing.assert_allclose(
        special.lgamma(np, positive), [math.lgamma(x) for x in positive], rtol=1e-14, atol=1e-15
    )


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("name", "xs", "expected"),
    [
        ("erf", [INF, -INF, NAN, 0.0, -0.0], [1, -1, NAN, 0.0, -0.0]),
        ("erfc", [INF, -INF, NAN], [0, 2, NAN]),
        ("erfinv", [1, -1, 1.5, NAN, 0.0, -0.0], [INF, -INF, NAN, NAN, 0.0, -0.0]),
        ("lgamma", [0.0, -1, -2, INF, -INF, NAN, 1, 2], [INF, INF, INF, INF, INF, NAN, 0, 0]),
        ("digamma", [0.0, -0.0, -1, INF, NAN], [-INF, INF, NAN, INF, NAN]),
        ("sigmoid", [INF, -INF, NAN, 0, -800], [1, 0, NAN, 0.5, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(name: str, xs: list[float], expected: list[float], dtype: Any) -> None:
    value = getattr(special, name)(np, np.array(xs, dtype))
    assert value.dtype == dtype
    np.testing.assert_array_equal(value, np.array(expected, dtype))
    sure = ~np.isnan(value)
    np.testing.assert_array_equal(np.signbit(value[sure]), np.signbit(np.array(expected)[sure]))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3), (20_000,)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.5, np.float32)
    value = special.erf(np, x)
    assert value.shape == shape and value.dtype == np.float32
    np.testing.assert_allclose(value, 0.5204999, rtol=1e-6)


def test_the_quantile_table() -> None:
    top, bottom = special.PPND16[0]
    assert special.horner(top, 0.180625) / special.horner(bottom, 0.180625) == pytest.approx(
        math.sqrt(2 * math.pi), rel=1e-15
    )
