"""Run by the interpreter that has real Keras 3: `real_keras.py write|read|again FOLDER`."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import zoo  # type: ignore[import-not-found]

NAMES = [f.__name__ for f in zoo.MODELS] + list(zoo.OPTIMIZERS)


def write(keras: Any, folder: Path, name: str) -> None:
    """A model of real Keras, its predictions, and those after further training."""
    model, x, y = zoo.build(keras, name)
    model.save(folder / f"{name}.keras")
    model.save_weights(folder / f"{name}.weights.h5")
    arrays = {f"out{i}": v for i, v in enumerate(zoo.predictions(model, x))}
    arrays |= {f"state{i}": v for i, v in enumerate(zoo.states(model))}
    if name in zoo.TRAINED_ON:
        arrays |= {f"after{i}": v for i, v in enumerate(zoo.train_on(model, x, y))}
    np.savez(folder / f"{name}.npz", **arrays)


def read(keras: Any, folder: Path, name: str) -> None:
    """What real Keras makes of a model of ours."""
    zoo.custom(keras)
    _, x, y = next((f(keras) for f in zoo.MODELS if f.__name__ == name), (None, None, None))
    if name in zoo.OPTIMIZERS:
        _, x, y = zoo.with_optimizer(keras, name)
    model = keras.models.load_model(folder / f"{name}.keras")
    first = zoo.predictions(model, x)
    arrays = {f"out{i}": v for i, v in enumerate(first)}
    arrays |= {f"state{i}": v for i, v in enumerate(zoo.states(model))}
    for weight in model.weights:
        weight.assign(weight * 0)
    model.load_weights(folder / f"{name}.weights.h5")
    for a, b in zip(first, zoo.predictions(model, x), strict=True):
        np.testing.assert_array_equal(a, b)
    if name in zoo.TRAINED_ON:
        arrays |= {f"after{i}": v for i, v in enumerate(zoo.train_on(model, x, y))}
    np.savez(folder / f"{name}.read.npz", **arrays)


def again(keras: Any, folder: Path, name: str) -> None:
    """A model of ours, what it predicts, and the model as real Keras writes it."""
    model = keras.models.load_model(folder / f"{name}.keras")
    with np.load(folder / f"{name}.npz") as file:
        x = [file[f"x{i}"] for i in range(len(file.files))]
    outputs = zoo.predictions(model, x if len(x) > 1 else x[0])
    np.savez(folder / f"{name}.read.npz", **{f"out{i}": v for i, v in enumerate(outputs)})
    model.save(folder / f"{name}.again.keras")


def main(command: str, folder: Path) -> None:
    import keras

    names = NAMES
    if command != "write":
        names = [path.stem for path in folder.glob("*.keras")]
    for name in names:
        try:
            {"write": write, "read": read, "again": again}[command](keras, folder, name)
        except Exception:  # the test of this one model shows it
            (folder / f"{name}.{command}.error").write_text(traceback.format_exc())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
