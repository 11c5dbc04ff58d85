"""A small GAN: `train_step` of one's own with two optimizers, compiled by `fit` like any other.

Run: python examples/gan.py. The generator draws digits of 8 x 8 pixels, the critic tells them from
real ones, and each learns from the other (Goodfellow et al., 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np

import graphnn as tf
from graphnn import keras
from graphnn.keras.layers import Dense, Dropout, LayerNormalization

NOISE = 16
SHADES = " .:+*#"


class GAN(keras.Model):
    """A generator and a critic, trained against each other."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential(
            [
                keras.Input((NOISE,)),
                Dense(128, activation="relu"),
                LayerNormalization(),
                Dense(128, activation="relu"),
                Dense(64, activation="sigmoid"),
            ]
        )
        self.critic = keras.Sequential(
            [
                keras.Input((64,)),
                Dense(128, activation="relu"),
                Dropout(0.3),
                Dense(64, activation="relu"),
                Dropout(0.3),
                Dense(1),
            ]
        )
        self.generator_loss = keras.metrics.Mean(name="generator_loss")
        self.critic_loss = keras.metrics.Mean(name="critic_loss")

    def compile(self, generator_optimizer: Any, critic_optimizer: Any, **settings: Any) -> None:
        super().compile(**settings)
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)

    def train_step(self, data: Any) -> dict[str, Any]:
        count = tf.shape(data)[0]
        with tf.GradientTape() as tape:
            drawn = self.generator(tf.random.normal((count, NOISE)), training=True)
            both = self.critic(tf.concat([drawn, data], axis=0), training=True)
            truth = tf.concat([tf.zeros((count, 1)), tf.ones((count, 1))], axis=0)
            critic_loss = self.loss_fn(truth, both)
        weights = self.critic.trainable_weights
        gradients = tape.gradient(critic_loss, weights)
        self.critic_optimizer.apply_gradients(zip(gradients, weights, strict=True))

        with tf.GradientTape() as tape:
            drawn = self.generator(tf.random.normal((count, NOISE)), training=True)
            loss = self.loss_fn(tf.ones((count, 1)), self.critic(drawn, training=True))
        weights = self.generator.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.generator_optimizer.apply_gradients(zip(gradients, weights, strict=True))

        self.generator_loss.update_state(loss)
        self.critic_loss.update_state(critic_loss)
        return {m.name: m.result() for m in (self.generator_loss, self.critic_loss)}


def distance_to(real: np.ndarray, drawn: np.ndarray) -> float:
    """Mean distance from each drawing to the real digit that is most like it."""
    squares = ((drawn[:, None] - real[None]) ** 2).sum(-1)
    return float(np.sqrt(squares.min(1)).mean())


def show(drawings: np.ndarray) -> None:
    """Print digits side by side."""
    for row in drawings.reshape(-1, 8, 8).transpose(1, 0, 2):
        print("   ".join("".join(SHADES[int(p * 5.99)] * 2 for p in line) for line in row))


def main() -> None:
    """Train, and compare what the generator draws before and after with digits never seen."""
    keras.utils.set_random_seed(0)
    (x_train, _), (x_test, _) = keras.datasets.digits.load_data()
    real, unseen = (x.reshape(-1, 64).astype("float32") / 16 for x in (x_train, x_test))
    gan = GAN()
    gan.compile(keras.optimizers.Adam(1e-3, beta_1=0.5), keras.optimizers.Adam(1e-3, beta_1=0.5))
    noise = np.random.default_rng(0).normal(size=(200, NOISE)).astype("float32")
    before = distance_to(unseen, gan.generator.predict(noise, verbose=0))
    history = gan.fit(real, batch_size=64, epochs=150, verbose=0)
    drawn = gan.generator.predict(noise, verbose=0)
    losses = {name: round(values[-1], 2) for name, values in history.history.items()}
    print(f"losses at the end: {losses}")
    print(f"distance to the nearest real digit: {before:.2f} before, ", end="")
    print(f"{distance_to(unseen, drawn):.2f} after, {distance_to(unseen, real):.2f} for real ones")
    show(drawn[:6])


if __name__ == "__main__":
    main()
