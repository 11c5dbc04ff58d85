"""What new users get wrong, and that the errors say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.data import Dataset
from graphnn.keras import callbacks, layers
from graphnn.runtime.errors import ArgumentError, GraphnnError, ShapeError

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.arange(16) % 3


def make(loss: str = "sparse_categorical_crossentropy") -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", loss)
    return model


def endless(batch: Any) -> Iterator[Any]:
    while True:
        yield batch


def singles() -> Iterator[Any]:
    yield from zip(X, Y, strict=True)


MISTAKES: dict[str, tuple[dict[str, Any], type[GraphnnError], str]] = {
    "features": ({"x": X[:, :3], "y": Y}, ShapeError, r"float32\[\d+,3\].*\(None, 4\)"),
    "one axis": ({"x": X[:, 0], "y": Y}, ShapeError, r"\(None, 4\).*give batches"),
    "no batches": ({"x": Dataset.from_tensor_slices((X, Y))}, ShapeError, r"dataset.batch\(32\)"),
    "no batches of a generator": ({"x": singles()}, ShapeError, r"dataset.batch\(32\)"),
    "numbers": ({"x": endless(5), "steps_per_epoch": 2}, ShapeError, r"\[\].*\(None, 4\)"),
    "dicts": (
        {"x": Dataset.from_tensor_slices({"x": X, "y": Y}).batch(4)},
        ArgumentError,
        r"'x': \*, 'y': \*.*one tensor.*\(x, y\)",
    ),
    "no targets": ({"x": X}, ArgumentError, "no targets.*give y"),
    "no targets of a generator": (
        {"x": endless(X), "steps_per_epoch": 2},
        ArgumentError,
        r"no targets.*\(x, y\)",
    ),
    "no targets of validation": (
        {"x": X, "y": Y, "validation_data": X},
        ArgumentError,
        "no targets",
    ),
    "features of validation": (
        {"x": X, "y": Y, "validation_data": (X[:, :2], Y)},
        ShapeError,
        r"float32\[\d+,2\].*\(None, 4\)",
    ),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, ShapeError, '"categorical_crossentropy"'),
    "epochs": ({"x": X, "y": Y, "epochs": 1.5}, ArgumentError, "epochs=1.5.*integer"),
    "batch size": ({"x": X, "y": Y, "batch_size": 0}, ArgumentError, "batch_size=0.*at least 1"),
    "negative batch size": ({"x": X, "y": Y, "batch_size": -2}, ArgumentError, "batch_size=-2"),
    "steps": (
        {"x": endless((X, Y)), "steps_per_epoch": 16 / 3},
        ArgumentError,
        "steps_per_epoch=5.33.*//",
    ),
    "verbose": ({"x": X, "y": Y, "verbose": "loud"}, ArgumentError, "'loud'.*silent"),
    "class weights": (
        {"x": X, "y": Y, "class_weight": [1, 2, 3]},
        ArgumentError,
        "type list.*enumerate",
    ),
    "callback class": (
        {"x": X, "y": Y, "callbacks": [callbacks.EarlyStopping]},
        ArgumentError,
        r"class EarlyStopping.*EarlyStopping\(...\)",
    ),
    "callback function": ({"x": X, "y": Y, "callbacks": print}, ArgumentError, "LambdaCallback"),
    "share of a dataset": (
        {"x": Dataset.from_tensor_slices((X, Y)).batch(4), "validation_split": 0.2},
        ArgumentError,
        "validation_data",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_fit(name: str) -> None:
    arguments, error, message = MISTAKES[name]
    with pytest.raises(error, match=f"(?s){message}") as caught:
        make().fit(**{"verbose": 0, **arguments})
    assert caught.value.loc is not None and caught.value.loc.file == __file__


def test_class_numbers_for_a_loss_of_vectors() -> None:
    with pytest.raises(ShapeError, match="sparse form"):
        make("categorical_crossentropy").fit(X, Y, verbose=0)


@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_mistakes_in_evaluate_and_predict(what: str) -> None:
    model = make()
    with pytest.raises(ShapeError, match=r"(?s)float32\[\d+,2\].*\(None, 4\)"):
        getattr(model, what)(X[:, :2], verbose=0)
    with pytest.raises(ArgumentError, match="batch_size=0"):
        getattr(model, what)(X, batch_size=0, verbose=0)
    with pytest.raises(ArgumentError, match="steps=0"):
        getattr(model, what)(X, steps=0, verbose=0)


def test_inputs_of_a_sequential_model_are_fitted_like_those_of_others() -> None:
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2)])
    assert tuple(model(np.ones(5, "float32")).shape) == (5, 2)
    assert model.predict(np.ones(5), verbose=0).shape == (5, 2)
    flat = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert tuple(flat(np.ones((5, 3, 1), "float32")).shape) == (5, 2)
    assert tuple(flat([np.ones((5, 3), "float32")]).shape) == (5, 2)
    free = keras.Sequential([keras.Input((None, 3)), layers.Dense(2)])
    assert tuple(free(np.ones((5, 7, 3), "float32")).shape) == (5, 7, 2)


def test_a_sequential_model_without_input_takes_other_sizes() -> None:
    model = keras.Sequential([layers.Rescaling(2.0)])
    assert tuple(model(np.ones((2, 3), "float32")).shape) == (2, 3)
    assert tuple(model(np.ones((2, 5), "float32")).shape) == (2, 5)


def test_errors_in_with_blocks_name_the_users_line(tmp_path: Any) -> None:
    path = tmp_path / "model.keras"
    make().save(path)
    code = bytearray(path.read_bytes())
    code[len(code) // 2] ^= 0xFF
    path.write_bytes(bytes(code))
    with pytest.raises(GraphnnError) as caught:
        keras.models.load_model(path)
    assert caught.value.loc is not None and caught.value.loc.file == __file__


def test_checkpoints_in_a_folder_that_cannot_be_written(tmp_path: Any) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    saving = callbacks.ModelCheckpoint(str(tmp_path / "taken" / "model_{epoch}.keras"))
    model = make()
    with pytest.raises(OSError) as caught:
        model.fit(X, Y, verbose=0, callbacks=[saving])
    assert "ModelCheckpoint, epoch 1" in caught.value.__notes__[0]
    assert int(model.optimizer.iterations) == 1
