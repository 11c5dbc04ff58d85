"""save_model, load_model, save_weights, load_weights."""

from __future__ import annotations

import datetime
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphnn.keras import serialization
from graphnn.keras.layers.saved import Saved
from graphnn.keras.saving import archive, hdf5, safetensors, state
from graphnn.keras.saving.archive import ASSETS, CONFIG, METADATA, WEIGHTS_H5, WEIGHTS_ST
from graphnn.keras.saving.files import (
    SavedFileError,
    check_free,
    reading,
    written,
    written_folder,
)
from graphnn.runtime.errors import ArgumentError, StateError

# The version of the format that is written: any Keras 3 reads it.
_KERAS_VERSION = "3.0.0"
_FOREIGN = (".h5", ".hdf5", ".safetensors", ".json", ".onnx", ".pb", ".tf", ".tflite")


# ---- whole models ---------------------------------------------------------------------------


def save_model(
    model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None
) -> None:
    """Write a model: how it is made, its weights, how it was compiled, its optimizer's state.

    filepath: with the suffix `.keras` an archive that real Keras 3 reads, too (needs h5py, as in
    `pip install graphnn[hdf5]`). A path with no suffix of a known kind, such as
    "path/to/my/model_3", gives the same archive at exactly that path; there, weights are kept as
    safetensors if h5py is missing. overwrite: whether a file that exists is replaced. zipped=False
    gives a folder. The file is there whole or not at all.

    Raises StateError for what cannot be stored, such as lambdas, and for an existing file with
    overwrite=False; ArgumentError for a suffix of another format; ImportError without h5py.
    """
    path = Path(filepath)
    check_model_path(path)
    check_free(path, overwrite)
    if zipped is False:
        with written_folder(path) as folder:
            _fill(model, folder, path)
        return
    with tempfile.TemporaryDirectory() as name:
        _fill(model, Path(name), path)
        with written(path) as target:
            archive.pack(Path(name), target)


def check_model_path(filepath: Any) -> None:
    """Raise what `save_model` raises for a suffix of another format, or without h5py."""
    path = Path(filepath)
    if path.name.lower().endswith(_FOREIGN):
        raise ArgumentError(
            "save",
            received=f"the path {str(path)!r}",
            expected="a path with the suffix .keras, or without one",
            fix="use save_weights for weights alone"
            if "weights" in path.name or path.suffix == ".safetensors"
            else f"{path.with_suffix('.keras').name!r} is the format of Keras 3",
        )
    if path.suffix == ".keras":
        hdf5.module()


def _fill(model: Any, folder: Path, path: Path) -> None:
    """Write the parts of a saved model."""
    in_hdf5 = path.suffix == ".keras" or hdf5.is_installed()
    (folder / CONFIG).write_text(model_to_json(model), encoding="utf-8")
    now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    metadata = {"keras_version": _KERAS_VERSION, "date_saved": now, "written_by": "graphnn"}
    (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")
    groups = state.collect(model)
    if in_hdf5:
        hdf5.write(folder / WEIGHTS_H5, groups)
    else:
        safetensors.write(folder / WEIGHTS_ST, groups)
    _save_assets(model, folder / ASSETS)


def _save_assets(model: Any, folder: Path) -> None:
    for owner in state.owners_of(model):
        save = getattr(owner.item, "save_assets", None)
        if save is not None:
            place = folder / owner.paths[0]
            place.mkdir(parents=True, exist_ok=True)
            save(str(place))
    archive.drop_empty(folder)


def model_to_json(model: Any, **options: Any) -> str:
    """The config of a model as JSON text; `options` go to `json.dumps`.

    Raises StateError for what cannot be stored.
    """
    config = serialization.serialize_whole(model)
    _refuse_code(config, model)
    try:
        return json.dumps(config, **options)
    except (TypeError, ValueError) as error:
        raise StateError(
            f"saving {model.name}",
            received=f"a config that is no JSON: {error}",
            expected="configs of plain values with strings as keys",
            fix="change what get_config() returns",
        ) from error


def _refuse_code(config: Any, model: Any) -> None:
    """Raise StateError for lambdas: they have no name by which they could be found again."""
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__":
            raise StateError(
                f"saving {model.name}",
                received="a lambda",
                expected="functions with a name",
                fix="write it with def, decorated with @keras.saving.register_keras_serializable()",
            )
        config = list(config.values())
    if isinstance(config, list | tuple):
        for item in config:
            _refuse_code(item, model)


def load_model(
    filepath: Any,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """The model that `save_model`, or real Keras 3, has written.

    filepath: an archive or a folder. custom_objects: classes and functions by name, beside those
    registered with `register_keras_serializable`. compile: compile the model as it was, and restore
    the optimizer's state. safe_mode: taken for Keras' sake; code in a file is never run.

    Raises FileNotFoundError, SavedFileError for a file that is damaged or no saved model, and
    ArgumentError for classes and settings that are not known here.
    """
    path = Path(filepath)
    _check_is_model(path)
    with reading(path, "loading a model"), archive.opened(path) as parts:
        config = archive.config_of(parts, str(path))
        if not compile:
            config.pop("compile_config", None)
        model = _model_of(config, custom_objects, str(path))
        with _weights_in(parts, path) as get:
            state.restore(model, get)
        _load_assets(model, parts)
    return model


def model_from_json(json_string: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """The model of a text that `to_json` gave, with new weights."""
    return _model_of(json.loads(json_string), custom_objects, "the text")


def _model_of(config: Any, custom_objects: dict[str, Any] | None, label: str) -> Any:
    with serialization.sharing():
        model = serialization.deserialize_keras_object(config, custom_objects)
    if isinstance(model, Saved):
        return model
    raise SavedFileError(
        "loading a model",
        received=f"{label} with a {type(model).__name__}",
        expected="a model",
        fix="give a file that model.save() has written",
    )


def _check_is_model(path: Path) -> None:
    if path.is_dir():
        found = (path / CONFIG).is_file()
    else:
        with path.open("rb"):  # raises FileNotFoundError
            found = zipfile.is_zipfile(path)
    if found:
        return
    hint = "build the model in code and call its load_weights() for a file of weights"
    raise SavedFileError(
        "loading a model",
        received=f"{path}, which is no saved model, or is cut off",
        expected="an archive (.keras) or folder that model.save() has written",
        fix=hint if _kind_of(path) is not None else "copy it again, or go back to an older one",
    )


def _load_assets(model: Any, parts: archive.Parts) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not archive.unpack_assets(parts, folder):
            return
        for owner in state.owners_of(model):
            load = getattr(owner.item, "load_assets", None)
            place = next((folder / p for p in owner.paths if (folder / p).is_dir()), None)
            if load is not None and place is not None:
                load(str(place))


# ---- weights --------------------------------------------------------------------------------

Get = Callable[[str], "dict[str, Any] | None"]


def save_weights(model: Any, filepath: Any, overwrite: bool = True) -> None:
    """Write the weights of a model, and its optimizer's state.

    filepath: with the suffix `.weights.h5` (or `.h5`) as Keras 3 does, which needs h5py; with
    `.safetensors` as safetensors; with neither, as HDF5 if h5py is installed and otherwise as
    safetensors, at exactly that path. The file is there whole or not at all.

    Raises StateError for a model without weights yet, and for an existing file with
    overwrite=False; ArgumentError for other suffixes; ImportError without h5py.
    """
    path = Path(filepath)
    _check_built(model, "save_weights")
    check_weights_path(path)
    check_free(path, overwrite)
    name = path.name.lower()
    in_hdf5 = name.endswith(".h5") or not (name.endswith(".safetensors") or not _has_hdf5())
    groups = state.collect(model)
    with written(path) as target:
        if in_hdf5:
            hdf5.write(target, groups, checksums=True)
        else:
            safetensors.write(target, groups)


def check_weights_path(filepath: Any) -> None:
    """Raise what `save_weights` raises for a suffix of another format, or without h5py."""
    path = Path(filepath)
    name = path.name.lower()
    if name.endswith((".keras", ".json", ".hdf5")):
        raise ArgumentError(
            "save_weights",
            received=f"the path {str(path)!r}",
            expected="a path with the suffix .weights.h5 or .safetensors, or without one",
            fix="use save() for a whole model" if name.endswith(".keras") else "change the suffix",
        )
    if name.endswith(".h5"):
        hdf5.module()


def _has_hdf5() -> bool:
    return hdf5.is_installed()


def load_weights(model: Any, filepath: Any, skip_mismatch: bool = False) -> None:
    """Give a model the weights, and its optimizer the state, of a file.

    filepath: what `save_weights` or `save`, or real Keras 3, has written; the kind is seen from the
    content. skip_mismatch: leave layers as they are whose weights do not fit, with a warning.

    Raises FileNotFoundError, SavedFileError for a file that is damaged, StateError for a model
    without weights yet, ArgumentError and ShapeError for weights that do not fit. After an error
    the model is as it was before.
    """
    path = Path(filepath)
    _check_built(model, "load_weights")
    with reading(path, "loading weights"), _weights_at(path) as get:
        state.restore(model, get, skip_mismatch)


def _check_built(model: Any, what: str) -> None:
    if model.built:
        return
    parts = [layer for layer in model._walk() if layer is not model]
    if model.weights and all(layer.built for layer in parts):
        return  # only its layers are called, as a train_step of one's own may do
    raise StateError(
        f"{what} of {model.name}",
        received="a model that has no weights yet",
        expected="a model that was built",
        fix="call it on data once, or model.build(input_shape)",
    )


def _kind_of(path: Path) -> str | None:
    """What a file is by its first bytes."""
    if path.is_dir():
        return "model" if (path / CONFIG).is_file() else None
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(hdf5.MAGIC):
        return "hdf5"
    if head.startswith(b"PK"):
        return "model"
    return "safetensors" if safetensors.is_header(head) else None


@contextmanager
def _weights_at(path: Path) -> Iterator[Get]:
    """How to get the arrays of a group out of a file."""
    kind = _kind_of(path)
    if kind == "model":
        with archive.opened(path) as parts, _weights_in(parts, path) as get:
            yield get
    elif kind == "hdf5":
        with hdf5.opened(path, str(path)) as reader:
            yield reader.get
    elif kind == "safetensors":
        yield safetensors.Reader(path.read_bytes()).get
    else:
        raise SavedFileError(
            "loading weights",
            received=f"{path}, which is neither HDF5 nor safetensors nor a saved model",
            expected="a file that save_weights() or save() has written",
            fix="copy it again, or go back to an older one",
        )


@contextmanager
def _weights_in(parts: archive.Parts, path: Path) -> Iterator[Get]:
    """The same for the weights inside a saved model."""
    names = parts.names()
    if WEIGHTS_H5 in names:
        hdf5.module()
        with hdf5.opened(io.BytesIO(parts.read(WEIGHTS_H5)), str(path)) as reader:
            yield reader.get
    elif WEIGHTS_ST in names:
        yield safetensors.Reader(parts.read(WEIGHTS_ST)).get
    else:
        raise SavedFileError(
            "loading weights",
            received=f"{path} without weights in it",
            expected=f"{WEIGHTS_H5} or {WEIGHTS_ST}",
            fix="copy it again, or go back to an older one",
        )
