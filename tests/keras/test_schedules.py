"""Learning rate schedules against their formulas, alone and inside a compiled step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras.optimizers import schedules as S
from graphnn.runtime.errors import ArgumentError

STEPS = [0, 1, 3, 7, 10, 11, 19, 20, 21, 35, 69, 70, 71, 150]


def half(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def restarts(step: int, first: int, t_mul: float, m_mul: float, alpha: float) -> float:
    length, height, start = float(first), 1.0, 0.0
    while step >= start + length:
        start, length, height = start + length, length * t_mul, height * m_mul
    return (1 - alpha) * height * half((step - start) / length) + alpha


def warm(step: int) -> float:
    if step < 10:
        return 0.1 + (0.5 - 0.1) * step / 10
    return 0.5 * (0.9 * half(min(step - 10, 40) / 40) + 0.1)


def cycled(step: int) -> float:
    rounds = 1 if step == 0 else math.ceil(step / 20)
    return (0.1 - 0.01) * (1 - step / (20 * rounds)) ** 2 + 0.01


CASES: tuple[tuple[Any, Callable[[int], float]], ...] = (
    (S.ExponentialDecay(0.1, 10, 0.5), lambda s: 0.1 * 0.5 ** (s / 10)),
    (S.ExponentialDecay(0.1, 10, 0.5, staircase=True), lambda s: 0.1 * 0.5 ** (s // 10)),
    (S.InverseTimeDecay(0.1, 10, 0.5), lambda s: 0.1 / (1 + 0.5 * s / 10)),
    (S.InverseTimeDecay(0.1, 10, 0.5, staircase=True), lambda s: 0.1 / (1 + 0.5 * (s // 10))),
    (
        S.PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.001]),
        lambda s: 0.1 if s <= 10 else 0.01 if s <= 20 else 0.001,
    ),
    (
        S.PolynomialDecay(0.1, 20, 0.01, power=2.0),
        lambda s: (0.1 - 0.01) * (1 - min(s, 20) / 20) ** 2 + 0.01,
    ),
    (S.PolynomialDecay(0.1, 20, 0.01, power=2.0, cycle=True), cycled),
    (S.CosineDecay(0.1, 70, 0.2), lambda s: 0.1 * (0.8 * half(min(s, 70) / 70) + 0.2)),
    (S.CosineDecay(0.1, 40, 0.1, warmup_target=0.5, warmup_steps=10), warm),
    (S.CosineDecayRestarts(0.1, 10), lambda s: 0.1 * restarts(s, 10, 2, 1, 0)),
    (
        S.CosineDecayRestarts(0.1, 10, t_mul=1.0, m_mul=0.5, alpha=0.1),
        lambda s: 0.1 * restarts(s, 10, 1, 0.5, 0.1),
    ),
    (
        S.CosineDecayRestarts(0.1, 10, t_mul=3.0, m_mul=0.9),
        lambda s: 0.1 * restarts(s, 10, 3, 0.9, 0),
    ),
)


def name_of(case: Any) -> str:
    return f"{case[0].name}-{CASES.index(case)}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_values(case: Any) -> None:
    schedule, formula = case
    compiled = tf.function(lambda step: schedule(step))
    for step in STEPS:
        expected = formula(step)
        np.testing.assert_allclose(float(schedule(step)), expected, rtol=1e-4, atol=1e-7)
        found = float(compiled(tf.constant(step, dtype="int64")))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_in_an_optimizer(case: Any) -> None:
    schedule, formula = case
    optimizer = keras.optimizers.SGD(schedule)
    w = tf.Variable(0.0)
    step = tf.function(lambda: optimizer.apply_gradients([(tf.constant(1.0), w)]))
    for _ in range(12):
        step()
    np.testing.assert_allclose(float(w), -sum(map(formula, range(12))), rtol=1e-4)
    np.testing.assert_allclose(float(optimizer.learning_rate), formula(12), rtol=1e-4)
    assert step.trace_count == 1


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_configs(case: Any) -> None:
    schedule, _ = case
    config = S.serialize(schedule)
    assert config["module"] == "keras.optimizers.schedules"
    assert S.deserialize(config).get_config() == schedule.get_config()
    optimizer = keras.optimizers.Adam(schedule)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["learning_rate"] == config


def test_errors() -> None:
    with pytest.raises(ArgumentError, match="one value more"):
        S.PiecewiseConstantDecay([1], [0.1])
    with pytest.raises(ArgumentError, match="decay_steps=0"):
        S.CosineDecay(0.1, 0)
