"""Train on two replicas with half of each batch, and on one with whole batches: the same weights.

Run: python examples/two_replicas.py. The two devices are halves of one CPU, so nothing gets faster
here; the point is that the result does not depend on the number of replicas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import graphnn as tf
from graphnn import keras

BATCH, STEPS = 64, 20


def load_data() -> Any:
    """Digits in global batches: 64 pixels from 0 to 1 and labels 0 to 9."""
    (x, y), _ = keras.datasets.digits.load_data()
    x = x.reshape(-1, 64).astype("float32") / 16
    return tf.data.Dataset.from_tensor_slices((x, y.astype("int32"))).batch(BATCH).take(STEPS)


def make_model(strategy: Any) -> Any:
    """A small network and its optimizer, made in the scope of a strategy."""
    tf.random.set_seed(0)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(32, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        model.compile(
            optimizer=keras.optimizers.Adam(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return model


def train(strategy: Any) -> Any:
    """The model after a custom loop over the batches."""
    model = make_model(strategy)
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def replica_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            per_example = losses(y, model(x, training=True))
            loss = tf.nn.compute_average_loss(per_example, global_batch_size=BATCH)
        weights = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    @tf.function
    def step(batch: Any) -> Any:
        parts = strategy.run(replica_step, args=batch)
        return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    found = [float(step(b)) for b in strategy.experimental_distribute_dataset(load_data())]
    print(f"  custom loop: loss {found[0]:.4f} -> {found[-1]:.4f} in {len(found)} steps")
    return model


def fit(strategy: Any) -> Any:
    """The model after `fit` on the same batches."""
    model = make_model(strategy)
    history = model.fit(load_data(), epochs=3, verbose=0).history
    print(f"  fit: loss {history['loss'][-1]:.4f}, accuracy {history['accuracy'][-1]:.3f}")
    return model


def main() -> None:
    """Compare one replica with two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    models = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        strategy = tf.distribute.MirroredStrategy(devices)
        print(f"{strategy.num_replicas_in_sync} replica(s) on {', '.join(strategy.devices)}")
        models.append((train(strategy), fit(strategy)))
    for name, one, two in zip(("custom loop", "fit"), *models, strict=True):
        pairs = zip(one.get_weights(), two.get_weights(), strict=True)
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        print(f"largest difference of a weight, {name}: {largest:.1e}")
        if largest > 1e-5:
            raise SystemExit("one replica and two do not agree")


if __name__ == "__main__":
    main()
