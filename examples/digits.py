"""Train a small network on real handwritten digits, by hand and with `fit`, eagerly and compiled.

Run: python examples/digits.py [--device cpu|gpu] [--epochs 30]. Takes well under a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import graphnn as tf
from graphnn import keras

BATCH = 32


def load_data() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """1,437 digits for training and 360 for testing: 64 pixels from 0 to 1, labels 0 to 9."""
    (x_train, y_train), (x_test, y_test) = keras.datasets.digits.load_data()
    x_train, x_test = (x.reshape(-1, 64).astype("float32") / 16 for x in (x_train, x_test))
    return (x_train, y_train.astype("int32")), (x_test, y_test.astype("int32"))


def make_model() -> keras.Sequential:
    """Three dense layers with dropout; the same weights each time."""
    tf.random.set_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape=(64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def make_step(model: keras.Sequential) -> Callable[[Any, Any], Any]:
    """One step of training, as one writes it by hand."""
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(learning_rate=1e-3)

    def train_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_fn(y, logits)
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return loss

    return train_step


def batches(x: Any, y: Any, epochs: int) -> Iterator[tuple[Any, Any]]:
    """Shuffled batches; the last of each epoch is smaller."""
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            yield x[rows], y[rows]


def accuracy_of(model: keras.Sequential, x: Any, y: Any) -> float:
    """Share of digits that are read correctly."""
    return float((model.predict(x, verbose=0).argmax(-1) == y).mean())


def train_by_hand(compiled: bool, epochs: int) -> tuple[Any, float, float]:
    """The step, steps per second after the first epoch, and the accuracy on the test digits."""
    (x, y), test = load_data()
    model = make_model()
    step: Any = make_step(model)
    if compiled:
        step = tf.function(step)
    for batch in batches(x, y, 1):
        step(*batch)
    data = list(batches(x, y, epochs - 1))
    start = time.perf_counter()
    for batch in data:
        loss = step(*batch)
    float(loss)
    seconds = time.perf_counter() - start
    return step, len(data) / seconds, accuracy_of(model, *test)


def train_with_fit(compiled: bool, epochs: int) -> tuple[float, float]:
    """Steps per second after the first epoch, and the accuracy on the test digits."""
    (x, y), test = load_data()
    model = make_model()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=not compiled,
    )
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    steps = -(-len(x) // BATCH) * (epochs - 1)
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, initial_epoch=1, verbose=0)
    seconds = time.perf_counter() - start
    return steps / seconds, accuracy_of(model, *test)


def main() -> None:
    """Train four times, print the table, and look inside the compiled step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"], help="where to run")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.device == "gpu" and not tf.config.list_physical_devices("GPU"):
        parser.error("there is no GPU to use; `graphnn doctor` says what to install")
    with tf.device(f"/{arguments.device}:0"):
        show(arguments.epochs)


def show(epochs: int) -> None:
    """The table, and the dump of the compiled step."""
    print(f"{'':28}steps per second   test accuracy")
    for compiled in (False, True):
        mode = "compiled" if compiled else "eager"
        step, rate, accuracy = train_by_hand(compiled, epochs)
        print(f"{f'train step by hand, {mode}':28}{rate:16,.0f}{accuracy:16.1%}")
        rate, accuracy = train_with_fit(compiled, epochs)
        print(f"{f'fit, {mode}':28}{rate:16,.0f}{accuracy:16.1%}")

    print("\nThe compiled step: `step.dump()`, which `graphnn dump` prints as well\n")
    print(step.dump())


if __name__ == "__main__":
    main()
