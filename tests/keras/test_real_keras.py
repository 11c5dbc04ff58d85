"""Losses, metrics, schedules and optimizers beside real Keras 3, from the same configs.

Skipped unless GRAPHNN_KERAS_PYTHON names a Python that has keras and jax.
"""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.keras import losses, metrics, optimizers
from graphnn.keras.optimizers import schedules
from tests.keras import test_loss_forms, test_metric_forms, test_optimizer_rules, test_schedules

PYTHON = os.environ.get("GRAPHNN_KERAS_PYTHON", "")
WORKER = Path(__file__).with_name("keras_worker.py")

pytestmark = pytest.mark.skipif(not PYTHON, reason="GRAPHNN_KERAS_PYTHON is not set")

# Where Keras' own formula differs from the definition, or where it cannot be asked.
APART = {
    # Keras multiplies (y_true - mean of y_pred) and not (y_true - mean of y_true).
    "metric concordance": "its covariance is taken around one mean",
    "loss 26 categorical_generalized_cross_entropy": "Keras does not read its config",
    "optimizer lamb": "Keras does not read its config",
}
FORGOTTEN = {
    "Huber": {"delta"},
    "CosineSimilarity": {"axis"},
}  # settings left out of Keras' configs

OPTIONS: dict[str, dict[str, Any]] = {
    "adam clipnorm": {"clipnorm": 0.5},
    "adam global clipnorm": {"global_clipnorm": 0.5},
    "adam clipvalue": {"clipvalue": 0.2},
    "adam decay": {"weight_decay": 0.1},
    "adam mean": {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3},
    "adam accumulated": {"gradient_accumulation_steps": 3},
    "adam scaled": {"loss_scale_factor": 4.0},
    "adam accumulated mean": {
        "use_ema": True,
        "ema_overwrite_frequency": 2,
        "gradient_accumulation_steps": 2,
    },
}


def single(array: Any) -> Any:
    return np.asarray(array, "int64" if np.asarray(array).dtype.kind == "i" else "float32")


def optimizer_cases() -> dict[str, Any]:
    made = {name: make() for name, (make, _) in test_optimizer_rules.CASES.items()}
    made |= {name: optimizers.Adam(0.05, **options) for name, options in OPTIONS.items()}
    made["scheduled"] = optimizers.SGD(schedules.CosineDecay(0.1, 10))
    made["loss scale"] = optimizers.LossScaleOptimizer(
        optimizers.Adam(0.05), initial_scale=4.0, dynamic_growth_steps=3
    )
    rng = np.random.default_rng(2)
    shapes = test_optimizer_rules.SHAPES
    cases = {}
    for name, optimizer in made.items():
        weights = [rng.normal(size=s).astype("float32") for s in shapes]
        gradients = [[rng.normal(size=s).astype("float32") for s in shapes] for _ in range(7)]
        if name == "loss scale":
            gradients[2][0][0] = np.inf
        cases[f"optimizer {name}"] = {
            "kind": "optimizer",
            "config": optimizers.serialize(optimizer),
            "weights": weights,
            "gradients": gradients,
        }
    return cases


def all_cases() -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for number, (loss, y, p, _) in enumerate(test_loss_forms.CASES):
        arrays = tuple(map(single, (y, p, test_loss_forms.WEIGHTS)))
        config = losses.serialize(loss)
        cases[f"loss {number} {loss.name}"] = {"kind": "loss", "config": config, "arrays": arrays}
    for name, (make, y, p, _) in test_metric_forms.CASES.items():
        arrays = tuple(map(single, (y, p, test_metric_forms.WEIGHTS)))
        config = metrics.serialize(make())
        cases[f"metric {name}"] = {"kind": "metric", "config": config, "arrays": arrays}
    for number, (schedule, _) in enumerate(test_schedules.CASES):
        cases[f"schedule {number} {schedule.name}"] = {
            "kind": "schedule",
            "config": schedules.serialize(schedule),
            "steps": test_schedules.STEPS,
        }
    return cases | optimizer_cases()


CASES = all_cases()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("keras")
    (folder / "in").write_bytes(pickle.dumps(CASES))
    command = [PYTHON, str(WORKER), str(folder / "in"), str(folder / "out")]
    subprocess.run(command, check=True, timeout=600)
    return pickle.loads((folder / "out").read_bytes())


def ours(case: dict[str, Any]) -> tuple[list[Any], list[Any], Any]:
    """Values, state and config of the same computation here."""
    if case["kind"] == "loss":
        loss = losses.deserialize(case["config"])
        y, p, w = map(tf.constant, case["arrays"])
        return [loss(y, p).numpy(), loss(y, p, w).numpy()], [], losses
    if case["kind"] == "schedule":
        schedule = schedules.deserialize(case["config"])
        return [schedule(step).numpy() for step in case["steps"]], [], schedules
    if case["kind"] == "metric":
        metric = metrics.deserialize(case["config"])
        y, p, w = map(tf.constant, case["arrays"])
        metric.update_state(y[:15], p[:15])
        metric.update_state(y[15:], p[15:])
        values, state = [metric.result().numpy()], [v.numpy() for v in metric.variables]
        metric.reset_state()
        metric.update_state(y, p, w)
        return [*values, metric.result().numpy()], state, metrics
    optimizer = optimizers.deserialize(case["config"])
    weights = [tf.Variable(w) for w in case["weights"]]
    step = tf.function(lambda *g: optimizer.apply_gradients(zip(g, weights, strict=True)))
    for gradients in case["gradients"]:
        step(*map(tf.constant, gradients))
    state = [v.numpy() for v in optimizer.variables]
    return [w.numpy() for w in weights], state, optimizers


@pytest.mark.parametrize("name", CASES)
def test_beside_keras(name: str, answers: Any) -> None:
    if name in APART:
        pytest.skip(APART[name])
    answer = answers[name]
    assert "error" not in answer, answer.get("error")
    values, state, module = ours(CASES[name])
    for found, expected in zip(values, answer["values"], strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)
        assert np.shape(found) == np.shape(expected)
    for found, expected in zip(state, answer.get("state", []), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)
    again = module.deserialize(answer["config"])
    mine = module.deserialize(CASES[name]["config"])
    left_out = FORGOTTEN.get(type(mine).__name__, set())
    a, b = ({k: v for k, v in m.get_config().items() if k not in left_out} for m in (again, mine))
    assert a == b
    written = {k: v for k, v in answer["config"].items() if k in ("module", "class_name")}
    assert written.items() <= module.serialize(mine).items()
    lacking = answer["config"]["config"].keys() - mine.get_config().keys()
    assert not lacking, lacking
