"""Real Keras 3, where there is one: GRAPHNN_KERAS_PYTHON names the interpreter that has it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import graphnn as tf

SCRIPT = Path(__file__).with_name("real_keras.py")


@pytest.fixture(autouse=True)
def seeded() -> None:
    tf.random.set_seed(0)


@pytest.fixture(scope="session")
def real_keras() -> Callable[[str, Path], None]:
    """Run `real_keras.py` with a command and a folder."""
    python = os.environ.get("GRAPHNN_KERAS_PYTHON")
    if not python:
        pytest.skip("GRAPHNN_KERAS_PYTHON names no interpreter with keras, jax and h5py")

    def run(command: str, folder: Path) -> None:
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        subprocess.run([python, str(SCRIPT), command, str(folder)], env=environment, check=True)

    return run
