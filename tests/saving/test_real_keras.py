"""What real Keras 3 writes loads here and predicts the same, and the other way round."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnn import keras
from tests.layers.harness import Case, make
from tests.layers.test_all_layers import CASES
from tests.saving import zoo

pytest.importorskip("h5py")
NAMES = [f.__name__ for f in zoo.MODELS] + list(zoo.OPTIMIZERS)

LAYERS = [case for case in CASES if case.layer is not keras.layers.Lambda]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def theirs(
    real_keras: Callable[[str, Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of files that real Keras has written."""
    folder = tmp_path_factory.mktemp("theirs")
    real_keras("write", folder)
    return folder


@pytest.fixture(scope="module")
def ours(real_keras: Callable[[str, Path], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files of ours, with what real Keras has made of them."""
    folder = tmp_path_factory.mktemp("ours")
    for name in NAMES:
        try:
            write(folder, name)
        except Exception:  # the test of this one model shows it
            (folder / f"{name}.write.error").write_text(traceback.format_exc())
    real_keras("read", folder)
    return folder


def write(folder: Path, name: str) -> None:
    model, x, y = zoo.build(keras, name)
    model.save(folder / f"{name}.keras")
    model.save_weights(folder / f"{name}.weights.h5")
    arrays = {f"out{i}": v for i, v in enumerate(zoo.predictions(model, x))}
    arrays |= {f"state{i}": v for i, v in enumerate(zoo.states(model))}
    if name in zoo.TRAINED_ON:
        arrays |= {f"after{i}": v for i, v in enumerate(zoo.train_on(model, x, y))}
    np.savez(folder / f"{name}.npz", **arrays)


def arrays_of(path: Path, kind: str) -> list[Any]:
    with np.load(path) as file:
        return [file[f"{kind}{i}"] for i in range(sum(k.startswith(kind) for k in file.files))]


def check_error(folder: Path, name: str, command: str) -> None:
    error = folder / f"{name}.{command}.error"
    if not error.exists():
        return
    text = error.read_text()
    if "requires TensorFlow" in text:
        pytest.skip("real Keras needs TensorFlow for this layer")
    raise AssertionError(text)


def check_close(found: list[Any], wanted: list[Any], tolerance: float) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# Real Keras 3.15 cannot read its own file of a layer that is in two models.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "tied"])
def test_files_of_real_keras_load_here(theirs: Path, name: str) -> None:
    check_error(theirs, name, "write")
    zoo.custom(keras)
    model = keras.models.load_model(theirs / f"{name}.keras")
    _, x, y = zoo.build(keras, name)
    saved = theirs / f"{name}.npz"
    check_close(zoo.states(model), arrays_of(saved, "state"), 0)
    check_close(zoo.predictions(model, x), arrays_of(saved, "out"), 1e-5)
    fresh, _, _ = zoo.build(keras, name)
    fresh.load_weights(theirs / f"{name}.weights.h5")
    check_close(zoo.states(fresh), zoo.states(model), 0)
    if name in zoo.TRAINED_ON:
        check_close(zoo.train_on(model, x, y), arrays_of(saved, "after"), 1e-4)


@pytest.fixture(scope="module")
def one_layer(
    real_keras: Callable[[str, Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of models of one layer each, with what real Keras has made of them."""
    folder = tmp_path_factory.mktemp("layers")
    for number, case in enumerate(LAYERS):
        model = model_of(case)
        model.save(folder / f"{number}.keras")
        x = zoo.flat(case.inputs())
        np.savez(folder / f"{number}.npz", **{f"x{i}": v for i, v in enumerate(x)})
    real_keras("again", folder)
    return folder


def model_of(case: Case) -> Any:
    dtype = "int32" if case.integers is not None else "float32"
    inputs = [keras.Input(shape[1:], dtype=dtype) for shape in (case.shape, *case.more)]
    given = inputs if case.more else inputs[0]
    return keras.Model(given, make(case)(given))


@pytest.mark.parametrize("number", range(len(LAYERS)), ids=lambda number: LAYERS[number].id)
def test_each_layer_through_real_keras(one_layer: Path, number: int) -> None:
    """Written here, read and written there, read here: the same outputs all the way."""
    check_error(one_layer, str(number), "again")
    x = LAYERS[number].inputs()
    wanted = zoo.predictions(keras.models.load_model(one_layer / f"{number}.keras"), x)
    check_close(arrays_of(one_layer / f"{number}.read.npz", "out"), wanted, 1e-5)
    back = keras.models.load_model(one_layer / f"{number}.again.keras")
    check_close(zoo.predictions(back, x), wanted, 0)


@pytest.mark.parametrize("name", NAMES)
def test_files_of_ours_load_in_real_keras(ours: Path, name: str) -> None:
    check_error(ours, name, "write")
    check_error(ours, name, "read")
    saved, read = ours / f"{name}.npz", ours / f"{name}.read.npz"
    check_close(arrays_of(read, "state"), arrays_of(saved, "state"), 0)
    check_close(arrays_of(read, "out"), arrays_of(saved, "out"), 1e-5)
    check_close(arrays_of(read, "after"), arrays_of(saved, "after"), 1e-4)
