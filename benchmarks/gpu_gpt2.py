"""GPT-2 in Keras layers: pre-LN blocks, learned positions, tanh GELU, the head tied to the table.

Products run in bfloat16 (policy `mixed_bfloat16`), weights are float32; the residual stream, layer
norms and the loss are float32, logits bfloat16.
"""

from collections.abc import Callable
from typing import Any

import graphnn as tf
from benchmarks.gpu_data import NORM_EPSILON, FloatArray, Shapes
from graphnn import keras

MIXED = "mixed_bfloat16"


def gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU by the tanh formula."""
    return tf.nn.gelu(x, approximate=True)


def norm(name: str) -> keras.layers.LayerNormalization:
    """A layer norm in float32."""
    return keras.layers.LayerNormalization(epsilon=NORM_EPSILON, dtype="float32", name=name)


class Block(keras.layers.Layer):
    """Attention, then two dense layers, each added to the residual stream."""

    def __init__(self, width: int, heads: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.norm1, self.norm2 = norm("norm1"), norm("norm2")
        self.qkv = keras.layers.Dense(3 * width, dtype=MIXED)
        self.projection = keras.layers.Dense(width, dtype=MIXED)
        self.up = keras.layers.Dense(4 * width, activation=gelu, dtype=MIXED)
        self.down = keras.layers.Dense(width, dtype=MIXED)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x (batch, time, width) -> the same shape."""
        x = x + self.projection(self.attention(self.norm1(x)))
        return x + self.down(self.up(self.norm2(x)))

    def attention(self, x: tf.Tensor) -> tf.Tensor:
        """Every position looks at itself and those before it."""
        batch, time, width = x.shape
        qkv = tf.reshape(self.qkv(x), (batch, time, 3, self.heads, width // self.heads))
        found = tf.nn.dot_product_attention(
            qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=True
        )
        return tf.reshape(found, (batch, time, width))


class GPT2(keras.Model):
    """Tokens (batch, time) to logits (batch, time, vocabulary)."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width = shapes["width"]
        self.tokens = keras.layers.Embedding(shapes["vocab"], width, name="tokens")
        self.positions = keras.layers.Embedding(shapes["time"], width, name="positions")
        self.blocks = [
            Block(width, shapes["heads"], name=f"block{i}") for i in range(shapes["layers"])
        ]
        self.norm = norm("norm")

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """tokens: int32."""
        x = self.tokens(tokens) + self.positions(tf.range(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = tf.cast(self.norm(x), "bfloat16")
        return tf.matmul(x, tf.cast(self.tokens.embeddings, "bfloat16"), transpose_b=True)


def build(shapes: Shapes, weights: dict[str, FloatArray] | None = None) -> GPT2:
    """A model with the given weights, else zeros."""
    model = GPT2(shapes)
    model(tf.zeros((1, shapes["time"]), "int32"))
    if weights is None:
        return model
    model.tokens.set_weights([weights["tokens"]])
    model.positions.set_weights([weights["positions"]])
    for i, block in enumerate(model.blocks):
        for name in ("norm1", "norm2"):
            given = [weights[f"{i}.{name}.{part}"] for part in ("gain", "offset")]
            getattr(block, name).set_weights(given)
        for name in ("qkv", "projection", "up", "down"):
            given = [weights[f"{i}.{name}.{part}"] for part in ("kernel", "bias")]
            getattr(block, name).set_weights(given)
    model.norm.set_weights([weights["norm.gain"], weights["norm.offset"]])
    return model


def train_step(model: GPT2) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """One step of AdamW: (tokens, the tokens that follow) -> the loss before the step."""
    optimizer = keras.optimizers.AdamW(3e-4, weight_decay=0.1, epsilon=1e-8)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def gpt2_step(tokens: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(following, tf.cast(model(tokens), "float32"))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return gpt2_step
