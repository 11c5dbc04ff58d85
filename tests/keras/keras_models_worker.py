"""Run by a Python that has real Keras 3: writes functional models as configs, or runs such configs.

`write FILE`: models of its own, with weights and outputs for known data. `read FILE ANSWER`: the
outputs of the models in FILE. No part of the test session itself.
"""

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"
import keras
import numpy as np
from keras import layers, ops

A = np.linspace(-1.0, 1.0, 12).reshape(3, 4).astype("float32")
B = np.array([[1, 2, 0], [3, 0, 0], [1, 1, 1]])


def models():
    a, b = keras.Input((4,), name="a"), keras.Input((None,), dtype="int32", name="b")
    d = layers.Dense(2, name="d")
    x = d(a)
    y = d(ops.concatenate([x, x], axis=-1))
    outputs = {"z": ops.relu(x + y)[:, 0:1], "w": layers.Add()([y, x])}
    yield "shared", keras.Model({"a": a}, outputs, name="net"), {"a": A}
    i = keras.Input((4,), name="i")
    inner = keras.Model(i, layers.Dense(4, activation="gelu")(i), name="inner")
    stack = [keras.Input((4,)), layers.Dense(3, "relu"), layers.Dropout(0.3)]
    seq = keras.Sequential([*stack, layers.BatchNormalization()], name="seq")
    yield "nested", keras.Model([a], seq(inner(inner(a)))), [A]
    z = a[..., None]
    outputs = [a / 2.0, -(a**2) - 3, ops.mean(a, axis=-1), ops.transpose(z, (0, 2, 1)), 1 - a]
    outputs += [ops.reshape(a, (-1, 2)), abs(a) @ ops.ones((4, 2)), ops.softmax(a), a > 0]
    outputs += [ops.sqrt(ops.square(a)), ops.maximum(a, 0.5), ops.where(a > 0, a, 1.0)]
    outputs += [ops.expand_dims(a, 1), ops.clip(a, -0.1, 0.2), ops.sum(a, axis=1, keepdims=True)]
    outputs += [a[:, 0], ops.stack([a, a], axis=1), ops.cast(a, "int32"), ops.tanh(a)]
    yield "ops", keras.Model(a, outputs), A
    e = layers.Embedding(7, 4, mask_zero=True)(b)
    repeated = layers.RepeatVector(2)(a)
    outputs = [
        layers.Dot(1)([a, a]),
        layers.Concatenate()([repeated, layers.Permute((1, 2))(repeated)]),
    ]
    outputs += [layers.Dense(2)(layers.LayerNormalization()(e)), layers.Masking(0.0)(e)]
    yield "layers", keras.Model([a, b], outputs), [A, B]


def flat(outputs):
    return [np.asarray(y).tolist() for y in keras.tree.flatten(outputs)]


if __name__ == "__main__":
    if sys.argv[1] == "write":
        answers = {}
        for name, model, data in models():
            answers[name] = {
                "config": keras.saving.serialize_keras_object(model),
                "weights": [np.round(w, 4).tolist() for w in model.get_weights()],
            }
            model.set_weights([np.array(w) for w in answers[name]["weights"]])
            answers[name]["outputs"] = flat(model(data))
        with open(sys.argv[2], "w") as file:
            json.dump(answers, file)
    else:
        with open(sys.argv[2]) as file:
            cases = json.load(file)
        answers = {}
        for name, case in cases.items():
            model = keras.saving.deserialize_keras_object(case["config"])
            model.set_weights([np.array(w) for w in case["weights"]])
            data = [A, B] if len(model.inputs) == 2 else A
            answers[name] = flat(model({"a": A} if name == "shared" else data))
        with open(sys.argv[3], "w") as file:
            json.dump(answers, file)
