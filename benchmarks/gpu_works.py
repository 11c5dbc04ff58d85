"""The GPU workloads in graphnn, as a user writes them: nothing here is tuned for the clock."""

from collections.abc import Callable, Iterator
from typing import Any

import graphnn as tf
from benchmarks import gpu_data as data
from benchmarks import gpu_gpt2
from benchmarks.gpu_clock import Row, Work
from graphnn import keras

CHECKED_ROWS = 256
CHAINED = 30
Timer = Callable[[Callable[[], Any]], Row]


@tf.function
def chain_step(x: tf.Tensor, w: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x * w + b, approximate=True) * tf.sigmoid(x) + x


def chain(shapes: data.Shapes) -> Work:
    """A chain of element-wise operations."""
    x, w, b = map(tf.constant, data.chain(shapes))
    size = 2 * 4 * shapes["rows"] * shapes["cols"]
    return Work.of(chain_step, x, w, b, value=_mean_magnitude, bytes=size)


@tf.function
def softmax_xent_step(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = _cross_entropy(labels, tf.cast(logits, "float32"))
    return loss, tape.gradient(loss, logits)


def softmax_xent(shapes: data.Shapes) -> Work:
    """Cross-entropy of bfloat16 logits, computed in float32, and its gradient."""
    drawn, labels = data.softmax_xent(shapes)
    logits, labels = tf.cast(tf.constant(drawn), "bfloat16"), tf.constant(labels)
    size = 2 * 2 * shapes["rows"] * shapes["cols"]
    return Work.of(softmax_xent_step, logits, labels, value=lambda o: float(o[0]), bytes=size)


@tf.function
def layernorm_step(
    x: tf.Tensor, gain: tf.Tensor, offset: tf.Tensor, dy: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    with tf.GradientTape() as tape:
        tape.watch((x, gain, offset))
        y = tf.nn.layer_norm(x, gain, offset, epsilon=data.NORM_EPSILON)
    return y, *tape.gradient(y, (x, gain, offset), dy)


def layernorm(shapes: data.Shapes) -> Work:
    """Layer normalisation in bfloat16, forward and backward."""
    x, gain, offset, dy = (
        tf.cast(tf.constant(array), "bfloat16") for array in data.layernorm(shapes)
    )
    size = 5 * 2 * shapes["rows"] * shapes["cols"]
    value = lambda out: _mean_magnitude(out[1])  # noqa: E731
    return Work.of(layernorm_step, x, gain, offset, dy, value=value, bytes=size)


def mlp(shapes: data.Shapes) -> Work:
    """A train step of dense layers with relu between, by Adam."""
    x, labels, layers = data.mlp(shapes)
    sizes = shapes["dims"]
    hidden = [keras.layers.Dense(size, activation="relu") for size in sizes[1:-1]]
    model = keras.Sequential([*hidden, keras.layers.Dense(sizes[-1])])
    model.build((None, sizes[0]))
    model.set_weights([array for layer in layers for array in layer])
    optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-8)

    @tf.function
    def mlp_step(x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = _cross_entropy(labels, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    x, labels = tf.constant(x), tf.constant(labels)
    items = ("samples", shapes["batch"])
    return Work.of(mlp_step, x, labels, value=float, flops=data.mlp_flops(shapes), items=items)


def gpt2_124m(shapes: data.Shapes) -> Work:
    """A train step of GPT-2."""
    weights, tokens, following = data.gpt2(shapes)
    model = gpu_gpt2.build(shapes, weights)
    step = gpu_gpt2.train_step(model)
    tokens, following = tf.constant(tokens), tf.constant(following)
    return Work.of(
        step,
        tokens,
        following,
        value=float,
        flops=data.gpt2_flops(shapes),
        mfu=True,
        parameters=model.count_params(),
        items=("tokens", shapes["batch"] * shapes["time"]),
    )


WORKS: dict[str, Callable[[data.Shapes], Work]] = {
    "chain": chain,
    "softmax_xent": softmax_xent,
    "layernorm": layernorm,
    "mlp_tiny": mlp,
    "mlp_b64": mlp,
    "mlp_b4096": mlp,
    "gpt2_124m": gpt2_124m,
}


def eager_add(shapes: data.Shapes, timed: Timer) -> Iterator[Row]:
    """Lines of what calls from Python cost."""
    a, b = tf.ones((shapes["n"],)), tf.ones((shapes["n"],))
    add = tf.function(lambda a, b: a + b)

    def recorded() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(a)
            return a + b

    def differentiated() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(a)
            total = tf.reduce_sum(a * b)
        return tape.gradient(total, a)

    @tf.function
    def thirty(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        for _ in range(CHAINED):
            a = tf.cumsum(a + b)  # running sums are not merged into one kernel
        return a

    yield dict(what="add of two (10,)", **timed(lambda: a + b))
    yield dict(what="compiled add of two (10,)", **timed(lambda: add(a, b)))
    yield dict(what="zeros(10)", **timed(lambda: tf.zeros((shapes["n"],))))
    yield dict(what="float(tensor) after an add", **timed(lambda: float((a + b)[0])))
    yield dict(what="add with grad recorded", **timed(recorded))
    yield dict(what="(a * b).sum() forward and backward", **timed(differentiated))
    yield dict(what=f"compiled function of {CHAINED} tiny kernels", **timed(lambda: thirty(a, b)))


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(losses)


def _mean_magnitude(value: tf.Tensor) -> float:
    return float(tf.reduce_mean(tf.abs(tf.cast(value[:CHECKED_ROWS], "float32"))))
