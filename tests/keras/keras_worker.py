"""Run by a Python that has real Keras 3: computes losses, metrics, rates and updates from configs.

Arguments: a pickle to read, a pickle to write. No part of the test session itself.
"""

import os
import pickle
import sys

os.environ["KERAS_BACKEND"] = "jax"
import keras
import numpy as np


def loss(case):
    found = keras.losses.deserialize(case["config"])
    y, p, w = case["arrays"]
    return {
        "values": [np.asarray(found(y, p)), np.asarray(found(y, p, w))],
        "config": keras.losses.serialize(found),
    }


def metric(case):
    found = keras.metrics.deserialize(case["config"])
    y, p, w = case["arrays"]
    found.update_state(y[:15], p[:15])
    found.update_state(y[15:], p[15:])
    plain = np.asarray(found.result())
    state = [np.asarray(v) for v in found.variables]
    found.reset_state()
    found.update_state(y, p, w)
    values = [plain, np.asarray(found.result())]
    return {"values": values, "state": state, "config": keras.metrics.serialize(found)}


def schedule(case):
    found = keras.optimizers.schedules.deserialize(case["config"])
    return {
        "values": [np.asarray(found(step)) for step in case["steps"]],
        "config": keras.optimizers.schedules.serialize(found),
    }


def optimizer(case):
    found = keras.optimizers.deserialize(case["config"])
    weights = [keras.Variable(w) for w in case["weights"]]
    found.build(weights)
    for gradients in case["gradients"]:
        # The form without side effects: the other one of LossScaleOptimizer does not run on JAX.
        state = [v.value for v in found.variables]
        values = [w.value for w in weights]
        new, state = found.stateless_apply(state, list(map(keras.ops.array, gradients)), values)
        for variable, value in zip([*weights, *found.variables], [*new, *state], strict=True):
            variable.assign(value)
    return {
        "values": [np.asarray(w) for w in weights],
        "state": [np.asarray(v) for v in found.variables],
        "config": keras.optimizers.serialize(found),
    }


KINDS = {"loss": loss, "metric": metric, "schedule": schedule, "optimizer": optimizer}

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        cases = pickle.load(file)
    answers = {}
    for name, case in cases.items():
        try:
            answers[name] = KINDS[case["kind"]](case)
        except Exception as error:
            answers[name] = {"error": f"{type(error).__name__}: {error}"}
    with open(sys.argv[2], "wb") as file:
        pickle.dump(answers, file)
