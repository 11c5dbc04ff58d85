"""A training loop of one's own, with metrics: an eager loop over batches, a compiled step.

Run: python examples/custom_loop.py.
"""

from __future__ import annotations

from typing import Any

import graphnn as tf
from graphnn import keras
from graphnn.keras.layers import Dense

EPOCHS = 10


def load() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Batches of digits for training and for testing."""
    train, test = keras.datasets.digits.load_data()
    (x_train, y_train), (x_test, y_test) = (
        (x.reshape(-1, 64).astype("float32") / 16, y) for x, y in (train, test)
    )
    training = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(1024).batch(32)
    return training, tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(64)


def main() -> None:
    """Train and test, epoch by epoch."""
    keras.utils.set_random_seed(0)
    training, test = load()
    l2 = keras.regularizers.L2(1e-4)
    model = keras.Sequential([Dense(64, activation="relu", kernel_regularizer=l2), Dense(10)])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = keras.optimizers.schedules.ExponentialDecay(5e-3, decay_steps=100, decay_rate=0.9)
    optimizer = keras.optimizers.Adam(learning_rate=schedule)
    mean_loss = keras.metrics.Mean()
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    test_accuracy = keras.metrics.SparseCategoricalAccuracy()

    @tf.function
    def train_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_fn(y, logits) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        mean_loss.update_state(loss)
        accuracy.update_state(y, logits)

    @tf.function
    def test_step(x: Any, y: Any) -> None:
        test_accuracy.update_state(y, model(x, training=False))

    for epoch in range(EPOCHS):
        for x, y in training:
            train_step(x, y)
        for x, y in test:
            test_step(x, y)
        print(
            f"epoch {epoch + 1}: loss {mean_loss.result():.3f}, accuracy {accuracy.result():.1%}, "
            f"on test digits {test_accuracy.result():.1%}"
        )
        for metric in (mean_loss, accuracy, test_accuracy):
            metric.reset_state()


if __name__ == "__main__":
    main()
