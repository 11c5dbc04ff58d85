"""Models that graphnn and real Keras 3 both can make: each function takes the `keras` to use.

This module imports neither, so that the same code runs in both interpreters.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Made = tuple[Any, Any, Any]  # the model, inputs, and targets (None: it is not trained)


def data(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype("float32")


def labels(count: int, classes: int) -> Any:
    return (np.arange(count) % classes).astype("int32")


@functools.cache
def custom(keras: Any) -> Any:
    """Classes and functions of a user, registered."""
    register = keras.saving.register_keras_serializable("zoo")

    @register
    class Scale(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, start: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.start = start

        def build(self, input_shape: Any) -> None:
            self.factor = self.add_weight(
                name="factor",
                shape=(input_shape[-1],),
                initializer=keras.initializers.Constant(self.start),
            )
            self.calls = self.add_weight(
                name="calls", shape=(), initializer="zeros", trainable=False
            )

        def call(self, inputs: Any) -> Any:
            return inputs * self.factor

        def get_config(self) -> Any:
            return {**super().get_config(), "start": self.start}

    @register
    class Blocks(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self, units: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units
            self.zeroth = keras.layers.Dense(units, activation="tanh")
            self.blocks = [keras.layers.Dense(units), keras.layers.Dense(units, "tanh")]
            self.heads = {"a": keras.layers.BatchNormalization(), "b": keras.layers.Dense(2)}
            self._hidden = keras.layers.Dense(units, name="hidden")

        def call(self, inputs: Any, training: Any = None) -> Any:
            x = self._hidden(self.zeroth(inputs))
            for block in self.blocks:
                x = block(x)
            return self.heads["b"](self.heads["a"](x, training=training))

        def get_config(self) -> Any:
            return {**super().get_config(), "units": self.units}

    @register
    class OwnStep(keras.Model):  # type: ignore[misc, name-defined]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs) * 2.0

    @register
    def bent(x: Any) -> Any:
        return x * x * 0.5

    @register
    def squared(y_true: Any, y_pred: Any) -> Any:
        return (y_true - y_pred) ** 2

    return {f.__name__: f for f in (Scale, Blocks, OwnStep, bent, squared)}


def mlp(keras: Any) -> Made:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(
                8,
                activation="relu",
                kernel_regularizer="l2",
                kernel_constraint=keras.constraints.MaxNorm(2.0),
                kernel_initializer=keras.initializers.HeNormal(seed=3),
            ),
            layers.BatchNormalization(momentum=0.9),
            layers.Dropout(0.25, seed=1),
            layers.Dense(3, activation="softmax", bias_regularizer=keras.regularizers.L1L2(0.1)),
        ],
        name="mlp",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, data(32, 4), labels(32, 3)


def deferred(keras: Any) -> Made:
    model = keras.Sequential([keras.layers.Dense(5, activation="elu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), "mse")
    return model, data(16, 3), data(16, 1)


def norms(keras: Any) -> Made:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((3, 6)),
            layers.LayerNormalization(),
            layers.Dense(6),
            layers.Activation("gelu"),
            layers.LayerNormalization(axis=[1, 2], center=False),
            layers.ReLU(max_value=1.5, negative_slope=0.1),
            layers.Softmax(),
            layers.BatchNormalization(axis=1, scale=False),
        ]
    )
    return model, data(7, 3, 6), None


def embedding(keras: Any) -> Made:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(11, 4, embeddings_initializer="normal"),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid", use_bias=False),
        ]
    )
    optimizer = keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True)
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=[keras.metrics.BinaryAccuracy(name="right")])
    x = np.random.default_rng(1).integers(0, 11, (16, 5)).astype("int32")
    return model, x, labels(16, 2).astype("float32").reshape(-1, 1)


def two_ends(keras: Any) -> Made:
    layers = keras.layers
    a = keras.Input((3,), name="a")
    b = keras.Input((2,), name="b")
    joined = layers.Concatenate()([layers.Dense(4)(a), b])
    first = layers.Dense(2, name="first")(joined)
    second = layers.Dense(1, name="second", activation="softplus")(layers.Dropout(0.1)(joined))
    model = keras.Model(inputs=[a, b], outputs=[first, second])
    model.compile(
        keras.optimizers.AdamW(0.01, weight_decay=0.02),
        loss=["mse", keras.losses.Huber(delta=0.5)],
        loss_weights=[1.0, 0.5],
    )
    return model, [data(16, 3), data(16, 2)], [data(16, 2, seed=5), data(16, 1, seed=5)]


def shared(keras: Any) -> Made:
    layers = keras.layers
    start = keras.Input((4,))
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, activation="tanh"), layers.Dense(4)], name="inner"
    )
    twice = layers.Dense(4, name="twice")
    p, q = twice(inner(start)), inner(twice(start))
    parts = [
        layers.Add()([p, q]),
        layers.Subtract()([p, q]),
        layers.Multiply()([p, q]),
        layers.Average()([p, q]),
        layers.Maximum()([p, q]),
        layers.Minimum()([p, q]),
    ]
    product = layers.Dot(axes=1)([p, q])
    model = keras.Model(start, layers.Concatenate()([*parts, product]))
    model.compile("sgd", "mae")
    return model, data(8, 4), data(8, 25)


def nested(keras: Any) -> Made:
    layers = keras.layers
    x = keras.Input((3,))
    encoder = keras.Model(x, layers.Dense(2, name="code")(x), name="encoder")
    z = keras.Input((2,))
    decoder = keras.Model(z, layers.Dense(3)(layers.Dense(4, activation="relu")(z)), name="decoder")
    outer = keras.Input((3,))
    model = keras.Model(outer, decoder(encoder(outer)), name="auto")
    model.compile("adam", "mse")
    return model, data(8, 3), data(8, 3)


def tied(keras: Any) -> Made:
    layer = keras.layers.Dense(3, name="tied")
    x = keras.Input((3,))
    one = keras.Model(x, layer(x), name="one")
    two = keras.Sequential([keras.Input((3,)), layer], name="two")
    model = keras.Model(x, [one(x), two(x)])
    model.compile("sgd", "mse")
    return model, data(6, 3), [data(6, 3, seed=1), data(6, 3, seed=2)]


def subclassed(keras: Any) -> Made:
    model = custom(keras)["Blocks"](4)
    model.compile(keras.optimizers.Nadam(0.01), custom(keras)["squared"])
    return model, data(8, 3), data(8, 2)


def own_layer(keras: Any) -> Made:
    parts = custom(keras)
    x = keras.Input((3,))
    y = keras.layers.Dense(2, activation=parts["bent"])(parts["Scale"](2.0)(x))
    model = keras.Model(x, y)
    model.compile("adagrad", "mse", metrics=[parts["squared"]])
    return model, data(8, 3), data(8, 2)


def own_step(keras: Any) -> Made:
    x = keras.Input((32,))
    model = custom(keras)["OwnStep"](x, keras.layers.Dense(1)(x))
    model.compile(optimizer="adam", loss="mse")
    return model, data(8, 32), data(8, 1)


def moved(keras: Any) -> Made:
    layers = keras.layers
    x = keras.Input((6,))
    y = layers.Permute((2, 1))(layers.Reshape((3, -1))(x))
    z = layers.RepeatVector(2)(layers.Flatten()(layers.Rescaling(0.5, offset=1.0)(y)))
    return keras.Model(x, layers.Dense(2)(z)), data(5, 6), None


def scheduled(keras: Any) -> Made:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, trainable=False), layers.Dense(2, name="out")]
    )
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5, staircase=True)
    optimizer = keras.optimizers.Adam(rate, amsgrad=True, clipnorm=1.0)
    model.compile(optimizer, "mse", run_eagerly=False)
    return model, data(8, 3), data(8, 2)


def operators(keras: Any) -> Made:
    x, y = keras.Input((3,)), keras.Input((3,))
    z = keras.layers.Dense(3)(x * 2.0 + y) - x / 3.0
    return keras.Model([x, y], z), [data(4, 3), data(4, 3, seed=2)], None


def normalized(keras: Any) -> Made:
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(data(50, 3) * 3.0 + 1.0)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])
    return model, data(8, 3), None


MODELS = (
    mlp,
    deferred,
    norms,
    embedding,
    two_ends,
    shared,
    nested,
    tied,
    subclassed,
    own_layer,
    own_step,
    moved,
    scheduled,
    operators,
    normalized,
)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.5},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.1},
    "Adamax": {},
    "Adagrad": {},
    "Adadelta": {},
    "Nadam": {},
    "Ftrl": {},
    "Lion": {"gradient_accumulation_steps": 2},
    "Lamb": {},
}


def with_optimizer(keras: Any, name: str) -> Made:
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)]
    )
    model.compile(getattr(keras.optimizers, name)(0.01, **OPTIMIZERS[name]), "mse")
    return model, data(8, 3), data(8, 2)


def build(keras: Any, name: str) -> Made:
    """A model by name, trained for a few steps if it has targets."""
    keras.utils.set_random_seed(7)
    if name in OPTIMIZERS:
        model, x, y = with_optimizer(keras, name)
    else:
        model, x, y = next(f for f in MODELS if f.__name__ == name)(keras)
    if y is not None:
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    return model, x, y


def flat(values: Any) -> list[Any]:
    values = values if isinstance(values, list | tuple) else [values]
    return [np.asarray(v) for v in values]


def predictions(model: Any, x: Any) -> list[Any]:
    return flat(model.predict(x, verbose=0))


def states(model: Any) -> list[Any]:
    """Weights and the optimizer's state."""
    optimizer = getattr(model, "optimizer", None)
    state = [] if optimizer is None else optimizer.variables
    return [np.asarray(v.numpy()) for v in [*model.weights, *state]]


def train_on(model: Any, x: Any, y: Any) -> list[Any]:
    """Predictions after three more steps on whole batches."""
    for _ in range(3):
        model.train_on_batch(x, y)
    return predictions(model, x)


# Whose further training is the same everywhere: no dropout.
TRAINED_ON = ("deferred", "embedding", "nested", "subclassed", "own_step", *OPTIMIZERS)
