"""compile: wrong names are told at once; losses, metrics and weights find their outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.keras import layers
from graphnn.runtime.errors import ArgumentError

X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
Y = X[:, :1] * 2


def one() -> Any:
    inputs = keras.Input((2,))
    return keras.Model(inputs, layers.Dense(1, name="out")(inputs))


def two() -> Any:
    inputs = keras.Input((2,))
    return keras.Model(inputs, [layers.Dense(1, name=name)(inputs) for name in "ab"])


def by_key() -> Any:
    inputs = keras.Input((2,))
    return keras.Model(inputs, {"first": layers.Dense(1, name="a")(inputs)})


def deferred() -> Any:
    return keras.Sequential([layers.Dense(1)])


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "loss": (one, {"loss": "nope"}, "keras.losses.*'nope'.*mean_squared_error"),
    "near loss": (one, {"loss": "mean_square_error"}, "did you mean 'mean_squared_error'"),
    "loss before a build": (deferred, {"loss": "nope"}, "keras.losses.*'nope'"),
    "optimizer": (one, {"optimizer": "adamm"}, "keras.optimizers.*did you mean 'adam'"),
    "optimizer kind": (one, {"optimizer": 3}, "keras.optimizers.*type int"),
    "metric": (one, {"metrics": ["acuracy"]}, "keras.metrics.*did you mean 'accuracy'"),
    "weighted metric": (one, {"weighted_metrics": ["nope"]}, "keras.metrics.*'nope'"),
    "metric of an output": (two, {"metrics": {"a": ["nope"]}}, "keras.metrics.*'nope'"),
    "kind of loss": (one, {"loss": 3}, "keras.losses.*type int"),
    "one of two losses": (two, {"loss": ["mse", "nope"]}, "keras.losses.*'nope'"),
    "unknown output": (two, {"loss": {"a": "mse", "c": "mse"}}, "output 'c'.*'a', 'b'"),
    "unknown only output": (one, {"loss": {"c": "mse"}}, "output 'c'.*'out'"),
    "unknown key": (by_key, {"loss": {"a": "mse"}}, "output 'a'.*'first'"),
    "unknown output of metrics": (two, {"metrics": {"c": "mae"}}, "metrics for an output 'c'"),
    "too few losses": (two, {"loss": ["mse"]}, "loss with 1 entries.*2 outputs"),
    "too few weights": (two, {"loss": "mse", "loss_weights": [1]}, "loss_weights with 1 entries"),
    "too many lists": (two, {"metrics": [["mae"], [], []]}, "metrics with 3 entries"),
    "weights by name": (one, {"loss": "mse", "loss_weights": "a"}, "loss_weights with 'a'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_told_by_compile(name: str) -> None:
    make, arguments, message = WRONG[name]
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        make().compile(**arguments)


RIGHT: dict[str, tuple[Any, dict[str, Any], Any, list[str]]] = {
    "by the name of the only output": (
        one,
        {"loss": {"out": "mse"}, "metrics": {"out": ["mse"]}, "loss_weights": {"out": 2.0}},
        {"out": Y},
        ["loss", "mse"],
    ),
    "nested lists for the only output": (
        one,
        {"loss": ["mse"], "metrics": [["mae", "mse"]], "loss_weights": [2.0]},
        [Y],
        ["loss", "mae", "mse"],
    ),
    "by key": (by_key, {"loss": {"first": "mse"}}, {"first": Y}, ["loss"]),
    "lists of metrics": (
        two,
        {"loss": ["mse", "mae"], "metrics": [["mae"], None]},
        [Y, Y],
        ["loss", "a_loss", "b_loss", "a_mae"],
    ),
    "classes": (
        one,
        {"loss": keras.losses.MeanSquaredError, "optimizer": keras.optimizers.SGD},
        Y,
        ["loss"],
    ),
    "deferred": (deferred, {"loss": {"dense": "mse"}}, Y, ["loss"]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_arguments_find_their_outputs(name: str) -> None:
    make, arguments, y, names = RIGHT[name]
    model = make()
    model.compile(**arguments)
    history = model.fit(X, y, verbose=0).history
    assert list(history) == names
    if "loss_weights" in arguments:
        assert history["loss"] == pytest.approx([2 * history["mse"][0]])


@pytest.mark.parametrize("classes", [1, 3])
def test_crossentropy_is_chosen_by_the_shapes(classes: int) -> None:
    labels = np.arange(8) % max(classes, 2)
    names = {1: "binary_crossentropy", 3: "sparse_categorical_crossentropy"}
    losses = []
    for loss in ("crossentropy", "ce", names[classes]):
        keras.utils.set_random_seed(1)
        act = "sigmoid" if classes == 1 else "softmax"
        model = keras.Sequential([keras.Input((2,)), layers.Dense(classes, activation=act)])
        model.compile(loss=loss, metrics=[loss])
        losses.append(model.evaluate(X, labels, verbose=0))
    assert losses[0] == losses[1] == losses[2]


def test_a_failed_compile_leaves_the_model_as_it_was() -> None:
    model = one()
    model.compile(optimizer="sgd", loss="mse")
    with pytest.raises(ArgumentError):
        model.compile(optimizer="adam", loss="nope")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert list(model.fit(X, Y, verbose=0).history) == ["loss"]
