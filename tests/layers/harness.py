"""What every layer must do, checked for one layer by `check_layer`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import graphnn as tf
from graphnn import keras


@dataclass(frozen=True)
class Case:
    """One layer with settings, and what is expected of it.

    shape: of the inputs, batch axis first. more: shapes of further inputs; the layer then takes a
    list. low, high: range of integer inputs (floats without).
    weights: number of trainable and of other weights. reference(x, *weights): the outputs without
    training, in NumPy. trains: whether training and inference differ. moves: whether training
    changes weights that are not trainable.
    """

    layer: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (4, 3)
    more: tuple[tuple[int, ...], ...] = ()
    integers: tuple[int, int] | None = None
    output: tuple[int, ...] | None = None
    weights: tuple[int, int] = (0, 0)
    reference: Callable[..., Any] | None = None
    trains: bool = False
    half: bool = True

    @property
    def id(self) -> str:
        """Name in the test report."""
        values = {k: getattr(v, "__name__", v) for k, v in self.settings.items()}
        text = "-".join(f"{k}={v}" for k, v in values.items())
        return f"{self.layer.__name__}({text}){list(self.shape)}"

    @property
    def shapes(self) -> Any:
        """The shape, or the list of shapes, that `build` gets."""
        return [self.shape, *self.more] if self.more else self.shape

    def tensors(self, batch: int | None = None) -> Any:
        """The data as tensors."""
        return tf.nest.map_structure(tf.constant, self.inputs(batch))

    def inputs(self, batch: int | None = None, seed: int = 0) -> Any:
        """Data of the shape, with another batch size on request; a list of them for several."""
        if self.more:
            rows = enumerate((self.shape, *self.more))
            return [replace(self, shape=s, more=()).inputs(batch, i) for i, s in rows]
        shape = self.shape if batch is None else (batch, *self.shape[1:])
        rng = np.random.default_rng((sum(shape), seed))
        if self.integers is not None:
            return rng.integers(*self.integers, shape).astype("int32")
        return rng.normal(size=shape).astype("float32")


def make(case: Case, **more: Any) -> Any:
    """The layer, with the seed set so that weights do not depend on other tests."""
    tf.random.set_seed(1)
    return case.layer(**{**case.settings, **more})


def check_layer(case: Case) -> None:
    """All checks."""
    check_build_and_call(case)
    check_compiled(case)
    check_training_flag(case)
    check_gradient(case)
    check_weights(case)
    check_config(case)
    check_symbolic_batch(case)
    check_functional(case)
    if case.half:
        check_mixed_precision(case)


def check_build_and_call(case: Case) -> None:
    layer, x = make(case), case.inputs()
    assert not layer.built
    y = layer(x)
    assert layer.built
    assert tuple(y.shape) == (case.output or case.shape)
    assert y.dtype == "float32"
    found = len(layer.trainable_weights), len(layer.non_trainable_weights)
    assert found == case.weights
    assert layer.count_params() == sum(int(np.prod(w.shape)) for w in layer.weights)
    assert all(w.name.startswith(layer.name + "/") for w in layer.weights)
    if case.reference is not None:
        np.testing.assert_allclose(
            y.numpy(), case.reference(x, *layer.get_weights()), rtol=2e-6, atol=2e-6
        )
    explicit = make(case)
    explicit.build(case.shapes)
    assert explicit.built
    assert [w.shape for w in explicit.weights] == [w.shape for w in layer.weights]


def check_compiled(case: Case) -> None:
    for training in (False, True):
        eager, traced = make(case), make(case)
        x = case.tensors()
        call = tf.function(lambda x, layer=traced, flag=training: layer(x, training=flag))
        for _ in range(2):
            np.testing.assert_allclose(
                call(x).numpy(), eager(x, training=training).numpy(), rtol=3e-6, atol=3e-6
            )
        for a, b in zip(eager.weights, traced.weights, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=3e-6, atol=1e-6)


def check_training_flag(case: Case) -> None:
    x = case.inputs()
    layer = make(case)
    inference = layer(x).numpy()
    np.testing.assert_array_equal(layer(x, training=False).numpy(), inference)
    trained = make(case)(x, training=True).numpy()
    assert bool(np.any(trained != inference)) == case.trains


def check_gradient(case: Case) -> None:
    """Gradients by the tape against differences of float64, along one random direction."""
    layer = make(case, dtype="float64")
    x = case.tensors()
    if case.integers is None:
        x = tf.nest.map_structure(lambda t: tf.cast(t, "float64"), x)
    layer(x)
    rng = np.random.default_rng(0)
    for w in layer.trainable_weights:
        w.assign(w.numpy() + 0.1 * rng.normal(size=w.shape))
    if not layer.trainable_weights and case.integers is not None:
        return
    probe = rng.normal(size=layer(x).shape)
    free = tf.nest.flatten(x) if case.integers is None else []
    sources = [*layer.trainable_weights, *free]
    with tf.GradientTape() as tape:
        tape.watch(free)
        loss = tf.reduce_sum(layer(x) * tf.constant(probe))
    gradients = tape.gradient(loss, sources)
    directions = [rng.normal(size=s.shape) for s in sources]
    slope = sum(float((g.numpy() * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def loss_at(step: float) -> float:
        starts = [np.array(w.numpy()) for w in layer.trainable_weights]
        for w, start, d in zip(layer.trainable_weights, starts, directions, strict=False):
            w.assign(start + step * d)
        moved = x
        if free:
            ways = directions[len(starts) :]
            new = [tf.constant(t.numpy() + step * d) for t, d in zip(free, ways, strict=True)]
            moved = tf.nest.pack_sequence_as(x, new)
        value = float(tf.reduce_sum(layer(moved) * tf.constant(probe)))
        for w, start in zip(layer.trainable_weights, starts, strict=True):
            w.assign(start)
        return value

    h = 1e-6
    difference = (loss_at(h) - loss_at(-h)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7)


def check_weights(case: Case) -> None:
    layer, x = make(case), case.inputs()
    y = layer(x)
    rng = np.random.default_rng(3)
    saved = layer.get_weights()
    layer.set_weights([np.abs(rng.normal(size=w.shape)).astype("float32") for w in saved])
    layer.set_weights(saved)
    np.testing.assert_array_equal(layer(x).numpy(), y.numpy())
    layer.trainable = False
    assert layer.trainable_weights == []
    assert len(layer.non_trainable_weights) == sum(case.weights)
    layer.trainable = True
    assert len(layer.trainable_weights) == case.weights[0]


def check_config(case: Case) -> None:
    layer, x = make(case), case.inputs()
    layer(x)
    config = layer.get_config()
    again = case.layer.from_config(config)
    assert again.get_config() == config
    assert type(again) is type(layer)
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x).numpy(), layer(x).numpy())
    packed = keras.layers.serialize(layer)
    assert keras.layers.deserialize(packed).get_config() == config


def check_symbolic_batch(case: Case) -> None:
    """One trace serves every batch size of 2 or more; output shapes are known without data."""
    layer = make(case)
    dtype = "int32" if case.integers is not None else "float32"
    open_shapes = [(None, *shape[1:]) for shape in (case.shape, *case.more)]
    specs = [tf.TensorSpec(shape, dtype) for shape in open_shapes]
    spec = specs if case.more else specs[0]
    call = tf.function(lambda x: layer(x), input_signature=[spec])
    for batch in (4, 2, 7):
        x = case.tensors(batch)
        y = call(x)
        np.testing.assert_allclose(y.numpy(), layer(x).numpy(), rtol=3e-6, atol=3e-6)
    assert call.trace_count == 1
    output = case.output or case.shape
    shapes = open_shapes if case.more else open_shapes[0]
    assert make(case).compute_output_shape(shapes) == (None, *output[1:])


def check_functional(case: Case) -> None:
    """The layer in a functional model, whose config makes an equal model."""
    dtype = "int32" if case.integers is not None else "float32"
    inputs = [keras.Input(shape[1:], dtype=dtype) for shape in (case.shape, *case.more)]
    given = inputs if case.more else inputs[0]
    layer, x = make(case), case.inputs()
    model = keras.Model(given, layer(given))
    assert model.output_shape == (None, *(case.output or case.shape)[1:])
    assert model.count_params() == layer.count_params()
    np.testing.assert_allclose(model(x).numpy(), layer(x).numpy(), rtol=3e-6, atol=3e-6)
    config = json.loads(json.dumps(model.get_config()))
    again = keras.Model.from_config(config)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        read = keras.models.load_model(f"{folder}/model")
    np.testing.assert_array_equal(read(x).numpy(), model(x).numpy())


def check_mixed_precision(case: Case) -> None:
    layer = make(case, dtype="mixed_bfloat16")
    y = layer(case.inputs())
    if case.integers is None or case.weights != (0, 0):
        assert y.dtype == "bfloat16"
    assert all(w.dtype == "float32" for w in layer.weights)
    reference = make(case)(case.inputs()).numpy()
    np.testing.assert_allclose(np.asarray(y).astype("float32"), reference, rtol=0.05, atol=0.05)
