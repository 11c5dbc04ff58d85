"""Saving and loading without real Keras: formats, paths, states, and files that Keras wrote."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.keras import layers
from graphnn.keras.saving import hdf5
from graphnn.runtime.errors import ArgumentError, ShapeError, StateError
from tests.saving import zoo

pytest.importorskip("h5py")
FILES = Path(__file__).with_name("files")
NAMES = [f.__name__ for f in zoo.MODELS]


@pytest.fixture
def without_h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)


def small(name: str | None = None) -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)], name=name)
    model.compile("adam", "mse")
    model.fit(zoo.data(8, 4), zoo.data(8, 2), verbose=0)
    return model


def check_same(a: Any, b: Any, x: Any) -> None:
    for p, q in zip(zoo.states(a), zoo.states(b), strict=True):
        np.testing.assert_array_equal(p, q)
    for p, q in zip(zoo.predictions(a, x), zoo.predictions(b, x), strict=True):
        np.testing.assert_array_equal(p, q)


# ---- files of real Keras ------------------------------------------------------------------------


def test_files_that_real_keras_has_written() -> None:
    wanted = json.loads((FILES / "expected.json").read_text())
    x = np.array(wanted["x"], "float32")
    one = keras.models.load_model(FILES / "sequential.keras")
    np.testing.assert_allclose(one.predict(x, verbose=0), wanted["sequential"], rtol=1e-5)
    assert one.name == "small" and one.optimizer is None
    two = keras.models.load_model(FILES / "functional.keras")
    y = two.predict([x, x[::-1]], verbose=0)
    np.testing.assert_allclose(y, wanted["functional"], rtol=1e-5)
    assert int(two.optimizer.iterations) == wanted["iterations"]
    assert float(two.optimizer.learning_rate) == pytest.approx(0.1)
    assert [type(layer).__name__ for layer in two.layers][-2:] == ["Add", "Dense"]
    logs = two.evaluate([x, x[::-1]], np.ones((2, 1)), verbose=0, return_dict=True)
    assert set(logs) == {"loss", "mae"} or set(logs) == {"loss", "mean_absolute_error"}


def test_the_layout_is_that_of_real_keras(tmp_path: Path) -> None:
    import h5py

    model = keras.models.load_model(FILES / "functional.keras")
    model.save(tmp_path / "again.keras")
    names: list[set[str]] = []
    for path in (FILES / "functional.keras", tmp_path / "again.keras"):
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
            with archive.open("model.weights.h5") as content, h5py.File(content) as file:
                found: set[str] = set()
                file.visit(found.add)
                names.append(found)
    assert names[0] == names[1]


# ---- our own files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_models_come_back(name: str, tmp_path: Path) -> None:
    model, x, y = zoo.build(keras, name)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    assert type(again) is type(model) and again.name == model.name
    check_same(again, model, x)
    assert json.loads(again.to_json()) == json.loads(model.to_json())
    for suffix in (".weights.h5", ".safetensors", ""):
        weights = tmp_path / f"only{suffix}"
        model.save_weights(weights)
        fresh = keras.models.load_model(path)
        for weight in fresh.weights:
            weight.assign(weight * 0)
        fresh.load_weights(weights)
        check_same(fresh, model, x)
    if y is not None and name not in ("mlp", "two_ends"):  # dropout
        for one, two in zip(zoo.train_on(again, x, y), zoo.train_on(model, x, y), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["model_3", "model_3-0.25", "deep/er/model_3"])
def test_paths_without_a_suffix_of_a_known_kind(name: str, tmp_path: Path) -> None:
    model, path = small(), tmp_path / name
    model.save(path)
    assert path.is_file()
    check_same(keras.models.load_model(path), model, zoo.data(3, 4))
    again = small()
    again.load_weights(path)
    check_same(again, model, zoo.data(3, 4))


def test_folders(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "folder"
    for _ in range(2):
        model.save(path, zipped=False)
    assert sorted(p.name for p in path.iterdir()) == [
        "config.json",
        "metadata.json",
        "model.weights.h5",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    check_same(keras.models.load_model(path), model, zoo.data(3, 4))
    (tmp_path / "other").mkdir()
    with pytest.raises(ArgumentError, match="is no saved model"):
        model.save(tmp_path / "other", zipped=False)


def test_without_h5py(without_h5py: None, tmp_path: Path) -> None:
    model = small()
    for save in (model.save, model.save_weights):
        path = tmp_path / ("a.keras" if save == model.save else "a.weights.h5")
        with pytest.raises(ImportError, match=r"pip install 'graphnn\[hdf5\]'"):
            save(path)
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "whole_1")
    model.save_weights(tmp_path / "weights_1")
    model.save_weights(tmp_path / "a.safetensors")
    check_same(keras.models.load_model(tmp_path / "whole_1"), model, zoo.data(3, 4))
    for name in ("whole_1", "weights_1", "a.safetensors"):
        again = small()
        again.load_weights(tmp_path / name)
        check_same(again, model, zoo.data(3, 4))
    with pytest.raises(ImportError, match="HDF5"):
        keras.models.load_model(FILES / "sequential.keras")


def test_suffixes_of_other_formats(tmp_path: Path) -> None:
    model = small()
    for name in ("a.h5", "a.weights.h5", "a.safetensors", "a.json"):
        with pytest.raises(ArgumentError, match="without one"):
            model.save(tmp_path / name)
    for name in ("a.keras", "a.hdf5"):
        with pytest.raises(ArgumentError, match="save_weights"):
            model.save_weights(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_overwrite(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "a.keras"
    model.save(path)
    content = path.read_bytes()
    with pytest.raises(StateError, match="overwrite=False"):
        model.save(path, overwrite=False)
    assert path.read_bytes() == content
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(StateError, match="overwrite=False"):
        model.save_weights(tmp_path / "a.weights.h5", overwrite=False)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small()
    files = {"a.keras": model.save, "a.weights.h5": model.save_weights}
    for name, save in files.items():
        save(tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in files}

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hdf5, "_put", broken)
    for name, save in files.items():
        with pytest.raises(OSError, match="No space"):
            save(tmp_path / name)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# ---- parts --------------------------------------------------------------------------------------


def test_load_without_compile(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras", compile=False)
    assert again.optimizer is None
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_own_compile_is_not_called(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("test")
    class Own(keras.Sequential):
        def compile(self, **kwargs: Any) -> None:
            super().compile(optimizer="sgd", loss="mse")

    model = Own([keras.Input((2,)), layers.Dense(1)])
    model.compile()
    model.save(tmp_path / "a.keras")
    with pytest.warns(UserWarning, match="a compile\\(\\) of its own"):
        again = keras.models.load_model(tmp_path / "a.keras")
    assert again.optimizer is None


def test_weights_for_a_model_that_was_not_trained_yet(tmp_path: Path) -> None:
    model = small()
    model.save_weights(tmp_path / "a.weights.h5")
    fresh = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    fresh.compile("adam", "mse")
    fresh.load_weights(tmp_path / "a.weights.h5")
    check_same(fresh, model, zoo.data(3, 4))
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    plain.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(plain.get_weights()[0], model.get_weights()[0])
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    other.compile("sgd", "mse")
    other.fit(zoo.data(8, 4), zoo.data(8, 2), verbose=0)
    with pytest.warns(UserWarning, match="starts afresh"):
        other.load_weights(tmp_path / "a.weights.h5")


def test_a_model_without_weights_yet(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(StateError, match="no weights yet"):
        model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(StateError, match="no weights yet"):
        model.load_weights(tmp_path / "a.weights.h5")


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "a.weights.h5"
    model.save_weights(path)
    wrong = {
        "shape": (ShapeError, [keras.Input((4,)), layers.Dense(3), layers.Dense(5)]),
        "count": (
            ArgumentError,
            [keras.Input((4,)), layers.Dense(3), layers.Dense(2, use_bias=False)],
        ),
        "more": (ArgumentError, [keras.Input((4,)), *(layers.Dense(n) for n in (3, 2, 2))]),
    }
    for error, stack in wrong.values():
        other = keras.Sequential(stack)
        before = other.get_weights()
        with pytest.raises(error, match="weights of dense"):
            other.load_weights(path)
        for a, b in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(5)])
    before = other.get_weights()
    with pytest.warns(UserWarning, match="keeps its weights"):
        other.load_weights(path, skip_mismatch=True)
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])
    np.testing.assert_array_equal(other.get_weights()[2], before[2])


def test_own_loading_that_fails_puts_everything_back(tmp_path: Path) -> None:
    class Own(layers.Dense):
        good = True

        def load_own_variables(self, store: Any) -> None:
            super().load_own_variables(store)
            self.note = "loaded"
            if not self.good:
                raise RuntimeError("not today")

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Own(2)])
    model.save_weights(tmp_path / "a.weights.h5")
    saved = model.get_weights()
    for weight in model.weights:
        weight.assign(weight + 1.0)
    changed = model.get_weights()
    Own.good = False
    with pytest.raises(keras.saving.SavedFileError, match="not today"):
        model.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(changed, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not hasattr(model.layers[1], "note")
    Own.good = True
    model.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(saved, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "mixed_bfloat16"])
def test_dtypes(dtype: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype=dtype)])
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    assert again.layers[0].dtype_policy == model.layers[0].dtype_policy
    assert again.weights[0].dtype == model.weights[0].dtype
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    for name in ("a.weights.h5", "a.safetensors"):
        model.save_weights(tmp_path / name)
        again.weights[0].assign(again.weights[0] * 0)
        again.load_weights(tmp_path / name)
        np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_a_layer_in_two_models_stays_one_layer(tmp_path: Path) -> None:
    tied = layers.Dense(3, name="tied")
    x = keras.Input((3,))
    one, two = keras.Model(x, tied(x), name="one"), keras.Sequential([keras.Input((3,)), tied])
    model = keras.Model(x, [one(x), two(x)])
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    assert len(again.weights) == len(model.weights) == 2
    check_same(again, model, zoo.data(3, 3))


def test_frozen_weights_keep_their_place(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(), layers.Dense(2)])
    model.layers[0].trainable = False
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    assert not again.layers[0].trainable and len(again.trainable_weights) == 2
    check_same(again, model, zoo.data(3, 3))


def test_json(tmp_path: Path) -> None:
    model = small("by_text")
    again = keras.models.model_from_json(model.to_json(indent=1))
    assert again.name == "by_text" and again.count_params() == model.count_params()


def test_checkpoints_of_the_guide(tmp_path: Path) -> None:
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            filepath=str(tmp_path / "path/to/my/model_{epoch}"), save_freq="epoch"
        )
    ]
    model = small()
    x, y = zoo.data(16, 4), zoo.data(16, 2)
    model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    assert sorted(p.name for p in (tmp_path / "path/to/my").iterdir()) == ["model_1", "model_2"]
    check_same(keras.models.load_model(tmp_path / "path/to/my/model_2"), model, x)


@pytest.mark.parametrize(
    ("path", "weights_only"), [("x.keras", False), ("{epoch}.weights.h5", True)]
)
def test_checkpoints_ask_for_h5py_before_training(
    without_h5py: None, tmp_path: Path, path: str, weights_only: bool
) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / path, save_weights_only=weights_only)
    before = model.get_weights()
    with pytest.raises(ImportError, match=r"pip install 'graphnn\[hdf5\]'"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[saver], verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_checkpoints_refuse_other_formats_before_training(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for path, weights_only in (("{epoch}.h5", False), ("{epoch}.keras", True)):
        saver = keras.callbacks.ModelCheckpoint(tmp_path / path, save_weights_only=weights_only)
        with pytest.raises(ArgumentError, match="suffix"):
            model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[saver], verbose=0)
        assert int(model.optimizer.iterations) == 0


def test_a_checkpoint_of_a_model_that_saves_in_its_own_way(tmp_path: Path) -> None:
    class Own(keras.Sequential):
        def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None) -> None:
            Path(filepath).write_text(self.name)

    model = Own([keras.Input((2,)), keras.layers.Dense(1)], name="own")
    model.compile("sgd", "mse")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "model.h5")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[saver], verbose=0)
    assert (tmp_path / "model.h5").read_text() == "own"
