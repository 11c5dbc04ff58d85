"""The workloads in graphnn, as a user writes them: nothing here is tuned for the clock."""

from collections.abc import Callable
from typing import Any

import numpy as np

import graphnn as tf
from benchmarks import data
from benchmarks.clock import Case, Epochs
from benchmarks.peers import Options
from benchmarks.training import hand_loop
from graphnn import keras

CALLS = 1000
CHAINED = 100
SHUFFLED = 1024  # elements in the buffer of Dataset.shuffle


class Graphnn:
    """One method a workload; `--variant fit` trains the workload fit by Model.fit, and
    `--variant fit_dataset` does so from a Dataset."""

    def __init__(self, options: Options) -> None:
        self.variants = options.variants
        self.version = tf.__version__

    def chain(self) -> Case:
        x, w, b = map(tf.constant, data.chain())

        @tf.function
        def chain(x: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            return tf.nn.gelu(x * w + b, approximate=True) * tf.sigmoid(x) + x

        def check(y: tf.Tensor) -> list[Any]:
            return [tf.reduce_mean(y), y[1, 2]]

        return Case(lambda: chain(x, w, b), _finished, check, bytes=2 * 4 * x.shape[0] * x.shape[1])

    def softmax_xent(self) -> Case:
        logits, labels = map(tf.constant, data.softmax_xent())

        @tf.function
        def loss_and_gradient(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(logits)
                loss = _cross_entropy(labels, logits)
            return loss, tape.gradient(loss, logits)

        def check(out: tuple[tf.Tensor, tf.Tensor]) -> list[Any]:
            return [out[0], tf.reduce_sum(tf.abs(out[1]))]

        rows, classes = logits.shape
        size = 2 * 4 * rows * classes
        return Case(lambda: loss_and_gradient(logits, labels), _finished, check, bytes=size)

    def layernorm(self) -> Case:
        x, gain, offset, dy = map(tf.constant, data.layernorm())

        @tf.function
        def forward_and_backward(
            x: tf.Tensor, gain: tf.Tensor, offset: tf.Tensor, dy: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape() as tape:
                tape.watch((x, gain, offset))
                y = tf.nn.layer_norm(x, gain, offset, epsilon=data.NORM_EPSILON)
            return y, *tape.gradient(y, (x, gain, offset), dy)

        def check(out: tuple[tf.Tensor, ...]) -> list[Any]:
            return [tf.reduce_mean(tf.abs(value)) for value in out]

        rows, width = x.shape
        size = 5 * 4 * rows * width
        return Case(lambda: forward_and_backward(x, gain, offset, dy), _finished, check, bytes=size)

    def mlp(self) -> Case:
        return _train_case(data.MLP_SIZES, data.MLP_BATCH)

    def mlp_tiny(self) -> Case:
        return _train_case(data.TINY_SIZES, data.TINY_BATCH)

    def eager_add(self) -> dict[str, Case]:
        a, b, left, right = map(tf.constant, data.eager())
        add_one = tf.function(lambda a: a + 1)

        def recorded() -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(a)
                for _ in range(CALLS):
                    c = a + b
            return c

        def chained() -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(a)
                c = a
                for _ in range(CHAINED):
                    c = c + b
            return tape.gradient(c, a)

        note = f"record and differentiate {CHAINED} chained adds, per add"
        return {
            "add": _calls(lambda: a + b),
            "matmul": _calls(lambda: left @ right),
            "add_recorded": Case(recorded, per_call=CALLS),
            "tape_per_op": Case(chained, per_call=CHAINED, note=note),
            "jit_call": _calls(lambda: add_one(a)),
        }

    def fit(self) -> Epochs:
        x, labels, layers = data.fit()
        batches = len(data.epoch_batches(0))
        arrays = _fit_epoch(layers, x, labels, batch_size=data.FIT_BATCH)
        if "fit_dataset" in self.variants:
            dataset = tf.data.Dataset.from_tensor_slices((x, labels))
            dataset = dataset.shuffle(SHUFFLED).batch(data.FIT_BATCH)
            return Epochs(_fit_epoch(layers, dataset), batches, base=arrays)
        if "fit" in self.variants:
            return Epochs(arrays, batches)
        train = _train_step(_model(data.FIT_SIZES, layers), _adam())
        return hand_loop(lambda x, labels: train(tf.constant(x), tf.constant(labels)))


def _fit_epoch(layers: data.Layers, *inputs: Any, **options: Any) -> Callable[[int], float]:
    """One epoch of Model.fit of a new model."""
    model = _model(data.FIT_SIZES, layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=_adam(), loss=loss)

    def epoch(_: int) -> float:
        history = model.fit(*inputs, epochs=1, verbose=0, **options)
        return history.history["loss"][0]

    return epoch


def _finished(out: Any) -> None:
    """Look at a result, so that a step that runs in the background would be waited for.

    `np.asarray` shares the memory, as the other frameworks' waits do; `numpy()` would copy it.
    """
    np.asarray(out[0] if isinstance(out, tuple) else out)


def _calls(call: Callable[[], tf.Tensor]) -> Case:
    def step() -> tf.Tensor:
        for _ in range(CALLS):
            c = call()
        return c

    return Case(step, per_call=CALLS)


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(losses)


def _adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(1e-3, epsilon=1e-8)


def _model(sizes: tuple[int, ...], layers: data.Layers) -> keras.Sequential:
    """Dense layers with relu between, holding the given weights."""
    hidden = [keras.layers.Dense(size, activation="relu") for size in sizes[1:-1]]
    model = keras.Sequential([*hidden, keras.layers.Dense(sizes[-1])])
    model.build((None, sizes[0]))
    model.set_weights([array for layer in layers for array in layer])
    return model


def _train_step(
    model: keras.Sequential, optimizer: keras.optimizers.Optimizer
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    @tf.function
    def train_step(x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = _cross_entropy(labels, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return train_step


def _train_case(sizes: tuple[int, ...], batch: int) -> Case:
    x, labels, layers = data.mlp(sizes, batch)
    train = _train_step(_model(sizes, layers), _adam())
    x, labels = tf.constant(x), tf.constant(labels)
    return Case(lambda: train(x, labels), _finished, lambda loss: [loss])
