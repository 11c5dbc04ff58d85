"""Functional models as Keras 3 writes them: real ones load here, ours have the same layout."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers
from graphnn.runtime.errors import ArgumentError

WORKER = Path(__file__).with_name("keras_models_worker.py")
REAL = json.loads((Path(__file__).parent / "data" / "functional_models.json").read_text())
PYTHON = os.environ.get("GRAPHNN_KERAS_PYTHON", "")
A = np.linspace(-1.0, 1.0, 12).reshape(3, 4).astype("float32")
B = np.array([[1, 2, 0], [3, 0, 0], [1, 1, 1]])


def data_for(name: str, model: Any) -> Any:
    if name == "shared":
        return {"a": A}
    return [A, B] if len(model.inputs) == 2 else A


def outputs_of(model: Any, data: Any) -> list[Any]:
    return [np.asarray(y).astype("float64") for y in tf.nest.flatten(model(data))]


def names(config: Any) -> list[Any]:
    """What joins the layers, without the layers' own settings."""
    keys = ("name", "class_name", "module", "inbound_nodes")
    rows = [[entry[k] for k in keys] for entry in config["layers"]]
    return [rows, config["input_layers"], config["output_layers"], config["name"]]


@pytest.mark.parametrize("name", REAL)
def test_real_models_load_and_give_the_same(name: str) -> None:
    case = REAL[name]
    model = keras.saving.deserialize_keras_object(case["config"])
    assert type(model).__name__ == "Functional"
    model.set_weights([np.array(w) for w in case["weights"]])
    for got, want in zip(outputs_of(model, data_for(name, model)), case["outputs"], strict=True):
        np.testing.assert_allclose(got, np.array(want, "float64"), rtol=1e-5, atol=1e-6)
    again = json.loads(json.dumps(model.get_config()))
    assert names(again) == names(case["config"]["config"])
    compiled = tf.function(model)(tf.nest.map_structure(tf.constant, data_for(name, model)))
    for got, want in zip(tf.nest.flatten(compiled), case["outputs"], strict=True):
        want = np.array(want, "float64")
        np.testing.assert_allclose(np.asarray(got).astype("float64"), want, rtol=1e-5, atol=1e-6)


def ours() -> dict[str, Any]:
    a, b = keras.Input((4,), name="a"), keras.Input((None,), dtype="int32", name="b")
    d = layers.Dense(2, name="d")
    x = d(a)
    y = d(tf.concat([x, x], axis=-1))
    outputs: Any = {"z": tf.nn.relu(x + y)[:, 0:1], "w": layers.Add()([y, x])}
    models = {"shared": keras.Model({"a": a}, outputs, name="net")}
    i = keras.Input((4,), name="i")
    inner = keras.Model(i, layers.Dense(4, activation="gelu")(i), name="inner")
    stack = [keras.Input((4,)), layers.Dense(3, "relu"), layers.Dropout(0.3)]
    seq = keras.Sequential([*stack, layers.BatchNormalization()], name="seq")
    models["nested"] = keras.Model([a], seq(inner(inner(a))))
    z = a[..., None]
    outputs = [a / 2.0, -(a**2) - 3, tf.reduce_mean(a, axis=-1), tf.transpose(z, (0, 2, 1)), 1 - a]
    outputs += [tf.reshape(a, (-1, 2)), abs(a) @ tf.ones((4, 2)), tf.nn.softmax(a), a > 0]
    outputs += [tf.sqrt(tf.square(a)), tf.maximum(a, 0.5), tf.where(a > 0, a, 1.0), a[:, -1]]
    outputs += [a[:, 1:], a[:, ::2], a[:, 0], tf.stack([a, a], axis=1), tf.cast(a, "int32")]
    outputs += [tf.nn.gelu(a), tf.sigmoid(a), tf.nn.log_softmax(a), tf.expand_dims(a, 1)]
    models["ops"] = keras.Model(a, outputs)
    e = layers.Embedding(7, 4, mask_zero=True)(b)
    repeated = layers.RepeatVector(2)(a)
    joined = layers.Concatenate()([repeated, layers.Permute((1, 2))(repeated)])
    outputs = [layers.Dot(1)([a, a]), joined, layers.Dense(2)(layers.LayerNormalization()(e))]
    models["layers"] = keras.Model([a, b], outputs)
    return models


@pytest.mark.skipif(not PYTHON, reason="GRAPHNN_KERAS_PYTHON is not set")
def test_our_models_load_in_real_keras(tmp_path: Path) -> None:
    models = ours()
    cases = {
        name: {
            "config": keras.saving.serialize_keras_object(model),
            "weights": [w.tolist() for w in model.get_weights()],
        }
        for name, model in models.items()
    }
    asked, answered = tmp_path / "ours.json", tmp_path / "answers.json"
    asked.write_text(json.dumps(cases))
    command = [PYTHON, str(WORKER), "read", str(asked), str(answered)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(answered.read_text())
    for name, model in models.items():
        pairs = zip(outputs_of(model, data_for(name, model)), answers[name], strict=True)
        for got, want in pairs:
            np.testing.assert_allclose(got, np.array(want, "float64"), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_together_is_refused() -> None:
    config = REAL["shared"]["config"]["config"]

    def broken(change: Any) -> Any:
        copy = json.loads(json.dumps(config))
        change(copy)
        return copy

    def loop(c: Any) -> None:
        entry = next(e for e in c["layers"] if e["name"] == "concatenate")
        entry["inbound_nodes"][0]["args"][0][0]["config"]["keras_history"] = ["add", 0, 0]

    def unknown(c: Any) -> None:
        c["output_layers"]["w"] = ["nowhere", 0, 0]

    def foreign(c: Any) -> None:
        next(e for e in c["layers"] if e["name"] == "relu")["class_name"] = "Mystery"

    for change, words in (
        (loop, "wait for one another"),
        (unknown, "nowhere"),
        (foreign, "Mystery"),
    ):
        with pytest.raises(ArgumentError, match=words):
            keras.Model.from_config(broken(change))


def test_keras_2_lists_of_calls_load() -> None:
    dense = layers.Dense(2, name="d").get_config()
    config = {
        "name": "old",
        "layers": [
            {
                "class_name": "InputLayer",
                "config": {"batch_shape": (None, 4), "name": "x"},
                "name": "x",
                "inbound_nodes": [],
            },
            {
                "class_name": "Dense",
                "config": dense,
                "name": "d",
                "inbound_nodes": [[["x", 0, 0, {}]]],
            },
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["d", 0, 0]],
    }
    assert keras.Model.from_config(config).output_shape == (None, 2)
