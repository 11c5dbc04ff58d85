"""Files that are damaged, or that mean harm: named, refused, and nothing of them is run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnn import keras
from graphnn.keras import layers
from graphnn.keras.saving import SavedFileError
from graphnn.runtime.errors import ArgumentError, GraphnnError, StateError
from tests.saving import zoo

h5py = pytest.importorskip("h5py")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(zoo.data(8, 4), zoo.data(8, 2), verbose=0)
    model.save(tmp_path / "good.keras")
    model.save_weights(tmp_path / "good.weights.h5")
    model.save_weights(tmp_path / "good.safetensors")
    return tmp_path / "good.keras"


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def with_config(saved: Path, change: Callable[[Any], None]) -> Path:
    parts = parts_of(saved)
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    return packed(saved.with_name("changed.keras"), parts)


def layer_config(config: Any) -> Any:
    return config["config"]["layers"][1]


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["good.keras", "good.weights.h5", "good.safetensors"])
def test_damage_is_found_or_harmless(saved: Path, name: str) -> None:
    """Cut off or changed at any place: an error that names the file, or the right values; the model
    is never left half loaded."""
    good = saved.with_name(name).read_bytes()
    bad = saved.with_name("bad" + name.removeprefix("good"))
    model = keras.models.load_model(saved)
    before = zoo.states(model)
    for weight in model.weights:
        weight.assign(weight + 1.0)
    changed = zoo.states(model)
    variables = [*model.weights, *model.optimizer.variables]
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(60):
        content = bytearray(good)
        place = int(rng.integers(len(good)))
        if trial % 2:
            del content[place:]
        else:
            content[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(bytes(content))
        for variable, value in zip(variables, changed, strict=True):
            variable.assign(value)
        try:
            model.load_weights(bad)
        except GraphnnError as error:
            refused += 1
            assert bad.name in str(error) or "weights of" in str(error)
            wanted = changed
        else:
            wanted = before
        if name.endswith(".safetensors") and wanted is before:
            continue  # this format has no checksums
        for a, b in zip(zoo.states(model), wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    assert refused >= 30


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        keras.models.load_model(tmp_path / "nowhere.keras")
    (tmp_path / "empty.keras").touch()
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name in ("empty.keras", "text.keras", "folder"):
        with pytest.raises(SavedFileError, match=name):
            keras.models.load_model(tmp_path / name)


def test_weights_are_no_model(saved: Path) -> None:
    with pytest.raises(SavedFileError, match="load_weights"):
        keras.models.load_model(saved.with_name("good.weights.h5"))


def test_parts_that_are_missing_or_wrong(saved: Path) -> None:
    parts = parts_of(saved)
    for name in ("config.json", "model.weights.h5"):
        rest = {k: v for k, v in parts.items() if k != name}
        with pytest.raises(SavedFileError, match=r"other\.keras"):
            keras.models.load_model(packed(saved.with_name("other.keras"), rest))
    for text in (b"{", b"[1]", b"null", b"[" * 100_000, b'{"a": 1}', b"\xff\xfe"):
        path = packed(saved.with_name("other.keras"), parts | {"config.json": text})
        with pytest.raises(SavedFileError, match=r"other\.keras"):
            keras.models.load_model(path)


# ---- archives that mean harm --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/etc/out.txt", "assets/../../out.txt", "C:\\out.txt", "assets\\..\\..\\out"],
)
def test_names_that_lead_out_of_the_archive(saved: Path, name: str) -> None:
    path = packed(saved.with_name("evil.keras"), parts_of(saved) | {name: b"x"})
    with pytest.raises(SavedFileError, match="leads out of the archive"):
        keras.models.load_model(path)
    assert not list(saved.parent.rglob("out*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_with_one_name(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("config.json", b"{}")
    with pytest.raises(SavedFileError, match="two members"):
        keras.models.load_model(saved)


def test_links_in_the_archive(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        link = zipfile.ZipInfo("assets/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SavedFileError, match="a link"):
        keras.models.load_model(saved)


def test_members_that_explode(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("assets/zeros", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    with pytest.raises(SavedFileError, match="would fill"):
        keras.models.load_model(saved)


def test_links_in_a_folder(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    keras.models.load_model(saved).save(folder, zipped=False)
    (folder / "model.weights.h5").rename(tmp_path / "elsewhere.h5")
    (folder / "model.weights.h5").symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(SavedFileError):
        keras.models.load_model(folder)


@pytest.mark.parametrize("kind", ["soft", "external", "data", "virtual", "text", "bomb"])
def test_hdf5_that_points_elsewhere(saved: Path, kind: str) -> None:
    path = saved.with_name("good.weights.h5")
    other = saved.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((4, 3), "float32")
    with h5py.File(path, "a") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        if kind == "soft":
            group["0"] = h5py.SoftLink("/layers/dense_1/vars/0")
        elif kind == "external":
            group["0"] = h5py.ExternalLink(str(other), "x")
        elif kind == "data":
            group.create_dataset("0", (4, 3), "float32", external=[(str(other), 0, 48)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4, 3), "float32")
            layout[:] = h5py.VirtualSource(str(other), "x", (4, 3))
            group.create_virtual_dataset("0", layout)
        elif kind == "text":
            group["0"] = ["a", "b"]
        else:
            group.create_dataset("0", (1 << 20, 1 << 12), "float32", chunks=(1, 1), compression=9)
    model = keras.models.load_model(saved)
    before = zoo.states(model)
    with pytest.raises(SavedFileError, match=r"good\.weights\.h5"):
        model.load_weights(path)
    for a, b in zip(before, zoo.states(model), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- configs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("keras.utils", "get_file"),
     ("keras.saving", "load_model"), ("keras.layers", "Nonsense"), (None, "Mine")],
)  # fmt: skip
def test_only_known_classes(saved: Path, module: Any, name: str) -> None:
    def change(config: Any) -> None:
        layer_config(config).update(module=module, class_name=name, registered_name=name)

    with pytest.raises(ArgumentError, match=name):
        keras.models.load_model(with_config(saved, change))

    def as_function(config: Any) -> None:
        layer_config(config)["config"]["activation"] = {
            "module": module,
            "class_name": "function",
            "config": name,
            "registered_name": name,
        }

    with pytest.raises(ArgumentError, match=name):
        keras.models.load_model(with_config(saved, as_function))


def test_lambdas_are_not_run(saved: Path) -> None:
    def change(config: Any) -> None:
        layer_config(config)["config"]["activation"] = {
            "class_name": "__lambda__",
            "config": {"value": ["4wEAAAA=", None, None]},
        }

    path = with_config(saved, change)
    for safe_mode in (True, False):
        with pytest.raises(ArgumentError, match="never run"):
            keras.models.load_model(path, safe_mode=safe_mode)


def test_lambdas_are_not_written(tmp_path: Path) -> None:
    x = keras.Input((2,))
    bad = {
        "activation": keras.Sequential([x, layers.Dense(1, activation=lambda x: x * 2)]),
        "layer": keras.Sequential([x, layers.Lambda(lambda x: x * 2)]),
    }
    for model in bad.values():
        with pytest.raises(StateError, match=r"lambda|Lambda"):
            model.save(tmp_path / "a.keras")
    assert list(tmp_path.iterdir()) == []


def test_settings_that_graphnn_does_not_have(saved: Path) -> None:
    def neutral(config: Any) -> None:
        layer_config(config)["config"].update(quantization_config=None, lora_rank=None)

    keras.models.load_model(with_config(saved, neutral))

    def telling(config: Any) -> None:
        layer_config(config)["config"].update(lora_rank=4)

    with pytest.raises(ArgumentError, match="lora_rank"):
        keras.models.load_model(with_config(saved, telling))


def test_a_custom_class_has_to_be_named(tmp_path: Path) -> None:
    class Mine(layers.Dense):
        pass

    def twice(x: Any) -> Any:
        return x * 2

    model = keras.Sequential([keras.Input((2,)), Mine(1, activation=twice)])
    model.save(tmp_path / "a.keras")
    with pytest.raises(ArgumentError, match="custom_objects"):
        keras.models.load_model(tmp_path / "a.keras")
    names = {"Mine": Mine, "twice": twice}
    again = keras.models.load_model(tmp_path / "a.keras", custom_objects=names)
    assert type(again.layers[0]) is Mine and again.layers[0].activation is twice
    with keras.saving.custom_object_scope(names):
        keras.models.load_model(tmp_path / "a.keras")
    with pytest.raises(ArgumentError, match="custom_objects"):
        keras.models.load_model(tmp_path / "a.keras")


def test_registration_needs_a_config() -> None:
    with pytest.raises(ArgumentError, match="get_config"):
        keras.saving.register_keras_serializable()(int)
    assert keras.saving.get_registered_object("Custom>int") is None


def test_values_in_configs() -> None:
    values = {
        "a": np.arange(3, dtype="float32"),
        "b": (1, [2.5, None]),
        "c": slice(1, None, 2),
        "d": b"bytes",
        "e": np.float32(0.5),
        "f": keras.initializers.Constant(2.0),
    }
    config = keras.saving.serialize_keras_object(values)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    np.testing.assert_array_equal(again["a"], values["a"])
    assert again["b"] == [1, [2.5, None]]
    assert again["c"] == values["c"] and again["d"] == b"bytes" and again["e"] == 0.5
    assert again["f"].value == 2.0
    with pytest.raises(StateError, match="get_config"):
        keras.saving.serialize_keras_object(object())
