"""What the guide's training loops need and these tests replace: real digits and a data pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import graphnn as tf
from graphnn.keras.datasets import digits

MNIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist_5k.npz"


def load_digits() -> tuple[Any, Any]:
    """x float32 [n, 784] from 0 to 1 and y int64 [n]: 5,000 digits of MNIST where the file is at
    hand, else the UCI digits drawn larger."""
    if MNIST.is_file():
        with np.load(MNIST) as arrays:
            x, y = arrays["x_train"], arrays["y_train"]
        return x.reshape(len(x), 784).astype("float32") / 255, y.astype("int64")
    (x, y), _ = digits.load_data()
    wide = np.pad(x.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    return wide.reshape(len(x), 784).astype("float32") / 16, y.astype("int64")


class Batches:
    """Shuffled batches of tensors; each pass over it has another order."""

    def __init__(self, x: Any, y: Any, batch: int = 64) -> None:
        self.x, self.y, self.batch = x, y, batch
        self.rng = np.random.default_rng(0)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        order = self.rng.permutation(len(self.x))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            yield tf.constant(self.x[rows]), tf.constant(self.y[rows])
