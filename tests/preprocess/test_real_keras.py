"""Adapted preprocessing layers beside real Keras 3, through .keras files, both ways.

Skipped unless GRAPHNN_KERAS_PYTHON names a Python that has keras and tensorflow.
"""

from __future__ import annotations

import os
import subprocess
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from tests.preprocess import shared_cases
from tests.preprocess.shared_cases import CASES, Case

PYTHON = os.environ.get("GRAPHNN_KERAS_PYTHON", "")
WORKER = Path(__file__).with_name("real_keras.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="GRAPHNN_KERAS_PYTHON is not set"),
]


def run(command: str, folder: Path) -> None:
    has = subprocess.run(
        [PYTHON, "-c", "import importlib.util as u; exit(not u.find_spec('tensorflow'))"]
    )
    if has.returncode:
        pytest.skip("the lookup layers of real Keras need TensorFlow")
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [PYTHON, str(WORKER), command, str(folder)], env={**os.environ, **quiet}, check=True
    )


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that real Keras has written, with its outputs."""
    folder = tmp_path_factory.mktemp("theirs")
    run("write", folder)
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files of ours, with what real Keras makes of them."""
    folder = tmp_path_factory.mktemp("ours")
    for number, case in enumerate(CASES.values()):
        try:
            model = shared_cases.build(keras, case)
            model.save(folder / f"{number}.keras")
            np.save(folder / f"{number}.ours.npy", outputs(model, case))
        except Exception:  # the test of this one layer shows it
            (folder / f"{number}.failed").write_text(traceback.format_exc())
    run("read", folder)
    return folder


def outputs(model: Any, case: Case) -> Any:
    return shared_cases.outputs(model, case, tf.constant)


def check(found: Any, wanted: Any, case: Case) -> None:
    assert found.shape == wanted.shape
    assert found.dtype.kind == wanted.dtype.kind
    if case.exact:
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


def read(folder: Path, number: int, command: str) -> Any:
    for name in ("failed", "error"):
        path = folder / f"{number}.{name}"
        if path.exists():
            raise AssertionError(path.read_text())
    return np.load(folder / f"{number}.{command}.npy")


@pytest.mark.parametrize("name", CASES)
def test_layers_that_real_keras_has_written(theirs: Path, name: str) -> None:
    number, case = list(CASES).index(name), CASES[name]
    wanted = read(theirs, number, "write")
    model = keras.models.load_model(theirs / f"{number}.keras")
    check(outputs(model, case), wanted, case)
    check(outputs(shared_cases.build(keras, case), case), wanted, case)  # adapted here


@pytest.mark.parametrize("name", CASES)
def test_layers_of_ours_in_real_keras(ours: Path, name: str) -> None:
    number, case = list(CASES).index(name), CASES[name]
    wanted = read(ours, number, "ours")
    check(read(ours, number, "read"), wanted, case)
    back = keras.models.load_model(ours / f"{number}.again.keras")
    check(outputs(back, case), wanted, case)
