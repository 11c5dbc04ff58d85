"""Functional models: symbolic tensors, shared and nested layers, several inputs and outputs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import layers
from graphnn.runtime.errors import ArgumentError, ShapeError, TraceError

RNG = np.random.default_rng(0)
A = RNG.normal(size=(7, 4)).astype("float32")
B = RNG.normal(size=(7, 3)).astype("float32")


def two_inputs() -> Any:
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    h = layers.Concatenate()([layers.Dense(8, "relu")(a), layers.Dense(8)(b)])
    outputs = [layers.Dense(1, name="price")(h), layers.Dense(3, name="kind")(h)]
    return keras.Model([a, b], outputs)


# ---- symbolic tensors -----------------------------------------------------------------------


def test_symbolic_tensor_looks_like_keras() -> None:
    x = keras.Input(shape=(None, None, 3), dtype="int64", name="image")
    assert isinstance(x, keras.KerasTensor) and isinstance(x, tf.Tensor)
    assert tuple(x.shape) == (None, None, None, 3)
    assert x.shape.as_list() == [None, None, None, 3] and x.shape[1:] == (None, None, 3)
    assert str(x.shape) == "(None, None, None, 3)"
    assert x.dtype == "int64" and x.ndim == 4 and x.name == "image"
    assert repr(x) == "<KerasTensor shape=(None, None, None, 3), dtype=int64, name=image>"
    assert x.shape[0] == x.shape[0] and x.shape[1] != x.shape[2]
    assert keras.Input(5).shape == (None, 5)
    assert keras.Input((5,), batch_size=2).shape == (2, 5)
    assert keras.Input(batch_shape=(3, None)).shape == (3, None)
    assert keras.Input(tensor=x) is x


@pytest.mark.parametrize("ask", [float, bool, np.asarray, np.exp, lambda x: x.numpy(), list])
def test_symbolic_tensor_has_no_numbers(ask: Any) -> None:
    with pytest.raises(TraceError, match="symbolic"):
        ask(keras.Input((3,)))


def test_a_variable_beside_a_symbolic_tensor() -> None:
    with pytest.raises(ArgumentError, match="make a layer that has the Variable"):
        keras.Input((3,)) * tf.Variable([1.0, 2.0, 3.0])


def test_random_numbers_of_a_symbolic_tensor() -> None:
    with pytest.raises(ArgumentError, match="a layer such as"):
        tf.nn.dropout(keras.Input((3,)), 0.5)


OPS: dict[str, Any] = {
    "operators": lambda x: (1.0 - x * 2.0) / (abs(x) + 3.0) - (-x) ** 2,
    "matmul": lambda x: x @ tf.ones((4, 2)),
    "compare": lambda x: tf.where(x > 0, x, 0.5),
    "column": lambda x: x[:, 0],
    "last": lambda x: x[:, -1:],
    "every second": lambda x: x[:, ::2],
    "rows": lambda x: x[1:],
    "new axis": lambda x: x[..., None],
    "reshape": lambda x: tf.reshape(x, (-1, 2)),
    "by the batch": lambda x: tf.reshape(x, (x.shape[0] * 2, 2)),
    "by tf.shape": lambda x: tf.reshape(x, (tf.shape(x)[0], 2, 2)),
    "broadcast": lambda x: tf.broadcast_to(x[:, None], (x.shape[0], 3, 4)),
    "concat": lambda x: tf.concat([x, x * 2.0], axis=-1),
    "stack": lambda x: tf.stack([x, x], axis=1),
    "transpose": lambda x: tf.transpose(x),
    "tile": lambda x: tf.tile(x, (1, 2)),
    "split": lambda x: tf.split(x, 2, axis=1)[1],
    "mean": lambda x: tf.reduce_mean(x, axis=-1, keepdims=True),
    "softmax": lambda x: tf.nn.softmax(x),
    "gelu": lambda x: tf.nn.gelu(x),
    "einsum": lambda x: tf.einsum("bi,bj->bij", x, x),
    "clip": lambda x: tf.clip_by_value(x, -0.1, 0.2),
    "cast": lambda x: tf.cast(x, "int32"),
    "one hot": lambda x: tf.one_hot(tf.cast(x > 0, "int32"), 2),
    "array": lambda x: x + np.arange(4, dtype="float32"),
    "from the left": lambda x: tf.constant([1.0, 2.0, 3.0, 4.0]) - x,
}


@pytest.mark.parametrize("name", OPS)
def test_ops_on_symbolic_tensors(name: str) -> None:
    """They become layers, which give what the op gives - for every batch size, also 1."""
    x = keras.Input((4,))
    model = keras.Model(x, OPS[name](x))
    compiled = tf.function(model)
    for batch in (7, 2, 1):
        want = OPS[name](tf.constant(A[:batch])).numpy()
        np.testing.assert_allclose(model(A[:batch]).numpy(), want, rtol=1e-6)
        np.testing.assert_allclose(compiled(tf.constant(A[:batch])).numpy(), want, rtol=2e-6)
    again = keras.Model.from_config(model.get_config())
    np.testing.assert_array_equal(again(A).numpy(), model(A).numpy())


def test_two_inputs_whose_open_axes_differ() -> None:
    """The same axis has one symbol while the model is made; the data decide when it runs."""
    x, y = keras.Input((None, 4)), keras.Input((None, 4))
    scores = tf.matmul(x, tf.transpose(y, (0, 2, 1)))
    model = keras.Model([x, y], tf.reshape(scores, (-1, scores.shape[1] * scores.shape[2])))
    one, two = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4))
    got = model([one.astype("float32"), two.astype("float32")]).numpy()
    np.testing.assert_allclose(got, np.einsum("bik,bjk->bij", one, two).reshape(2, 15), rtol=1e-5)


# ---- models ---------------------------------------------------------------------------------


def test_a_chain() -> None:
    inputs = keras.Input((4,), name="x")
    first, second = layers.Dense(5, "relu"), layers.Dense(2)
    model = keras.Model(inputs=inputs, outputs=second(first(inputs)), name="net")
    assert type(model).__name__ == "Functional" and isinstance(model, keras.Model)
    assert model.built and model.count_params() == 37
    assert [layer.name for layer in model.layers] == ["x", first.name, second.name]
    assert model.input_shape == (None, 4) and model.output_shape == (None, 2)
    assert model.input is inputs and model.inputs == [inputs]
    assert model.output is second.output and model.output_names == [second.name]
    assert model.get_layer(index=1) is first and model.get_layer("x").name == "x"
    with pytest.raises(ArgumentError, match="net"):
        model.get_layer("nothing")
    np.testing.assert_array_equal(model(A).numpy(), second(first(A)).numpy())


def test_a_shared_layer_counts_once() -> None:
    a, b = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(2)
    model = keras.Model([a, b], layers.Subtract()([shared(a), shared(b)]))
    assert model.count_params() == 10 and model.layers.count(shared) == 1
    np.testing.assert_array_equal(model([A, A]).numpy(), np.zeros((7, 2)))


def test_inputs_by_list_dict_and_name() -> None:
    model = two_inputs()
    want = [y.numpy() for y in model([A, B])]
    for inputs in ((A, B), {"a": A, "b": B}, {"b": B, "a": A, "more": B}):
        for got, expected in zip(model(inputs), want, strict=True):
            np.testing.assert_array_equal(got.numpy(), expected)
    with pytest.raises(ArgumentError, match="'a', 'b'"):
        model([A])
    with pytest.raises(ArgumentError, match="the keys 'a', 'c'"):
        model({"a": A, "c": B})
    with pytest.raises(ShapeError, match=r"\(None, 3\)"):
        model([A, A])


def test_dicts_of_inputs_and_outputs() -> None:
    inputs = {"b": keras.Input((3,), name="b"), "a": keras.Input((4,), name="a")}
    h = layers.Dense(3)(inputs["a"])
    model = keras.Model(inputs, {"sum": h + inputs["b"], "deep": [h]})
    out = model({"a": A, "b": B})
    assert list(out) == ["sum", "deep"] and isinstance(out["deep"], list)
    np.testing.assert_allclose(out["sum"].numpy(), out["deep"][0].numpy() + B, rtol=1e-6)
    again = keras.Model.from_config(model.get_config())
    assert list(again({"a": A, "b": B})) == ["sum", "deep"]


def test_inputs_are_cast_and_get_a_missing_axis() -> None:
    x = keras.Input((1,), dtype="int32")
    model = keras.Model(x, layers.Flatten()(layers.Embedding(5, 2)(x)))
    assert model(np.array([1.0, 2.0])).shape == (2, 2)
    assert model(np.array([[1], [2]], "int64")).shape == (2, 2)


def test_intermediate_outputs_and_inputs() -> None:
    model = two_inputs()
    features = keras.Model(model.inputs, [layer.output for layer in model.layers[2:4]])
    one, two = features([A, B])
    hidden = model.get_layer(index=4).output
    head = keras.Model(hidden, model.outputs)
    assert [type(layer).__name__ for layer in head.layers] == ["InputLayer", "Dense", "Dense"]
    joined = np.concatenate([one.numpy(), two.numpy()], 1)
    for got, want in zip(head(joined), model([A, B]), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)
    assert keras.Model.from_config(head.get_config()).count_params() == head.count_params()


def test_models_in_models() -> None:
    x = keras.Input((4,))
    inner = keras.Model(x, layers.Dense(4, "tanh")(x), name="inner")
    stack = keras.Sequential([layers.Dense(3, "relu"), layers.Dropout(0.5)])

    class Twice(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

    y = keras.Input((4,))
    model = keras.Model(y, Twice()(stack(inner(inner(y)))))
    assert model.count_params() == 20 + 15 and model.output_shape == (None, 3)
    want = stack(inner(inner(A))).numpy() * 2
    np.testing.assert_allclose(model(A).numpy(), want, rtol=1e-6)
    assert (model(A, training=True).numpy() != want).any()
    outer = keras.Sequential([keras.Input((4,)), model, layers.Dense(1)])
    assert outer.output_shape == (None, 1) and len(outer.weights) == 6


def test_deferred_sequential_beside_functional() -> None:
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    assert model.inputs is None and model.outputs is None and model.input_shape is None
    model(A)
    assert model.inputs[0].shape == (None, 4) and model.output_shape == (None, 2)
    part = keras.Model(model.inputs, model.layers[0].output)
    np.testing.assert_array_equal(part(A).numpy(), model.layers[0](A).numpy())
    model.pop()
    model.add(layers.Dense(7))
    assert model.output_shape == (None, 7) and model(A).shape == (7, 7)
    built = keras.Sequential([layers.Dense(3)])
    built.build((None, 4))
    assert built.input_shape == (None, 4) and built.count_params() == 15


def test_sequential_config_keeps_the_input() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="h")], name="s")
    config = model.get_config()
    assert config["build_input_shape"] == (None, 4)
    assert [entry["class_name"] for entry in config["layers"]] == ["InputLayer", "Dense"]
    again = keras.Sequential.from_config(config)
    assert again.built and again.name == "s" and again.get_config() == config


class CustomModel(keras.Model):
    pass


class Built(keras.Model):
    """Makes its own graph, and has a layer beside it."""

    def __init__(self, units: int, name: str | None = None) -> None:
        x = keras.Input((4,))
        super().__init__(inputs=x, outputs=layers.Dense(units)(x), name=name)
        self.extra = layers.Dense(1)


def test_subclasses_made_from_symbolic_tensors() -> None:
    x = keras.Input((4,))
    model = CustomModel(x, layers.Dense(2)(x), name="mine")
    assert type(model) is CustomModel and model.name == "mine" and model(A).shape == (7, 2)
    again = CustomModel.from_config(model.get_config())
    assert type(again) is CustomModel and again.output_shape == (None, 2)
    built = Built(3)
    assert built.output_shape == (None, 3) and len(built.layers) == 2
    assert built.extra in built._own(keras.Layer)
    config = Built(units=3).get_config()
    assert Built.from_config(config).output_shape == (None, 3)


def test_freezing_reaches_all_layers() -> None:
    model = two_inputs()
    model.trainable = False
    assert model.trainable_weights == [] and len(model.non_trainable_weights) == 8
    model.get_layer("kind").trainable = True
    model.trainable = True
    model.layers[2].trainable = False
    assert len(model.trainable_weights) == 6
    before = [w.numpy() for w in model.layers[2].weights]
    model.compile("sgd", loss=["mse", keras.losses.SparseCategoricalCrossentropy(from_logits=True)])
    model.fit([A, B], [A[:, :1], np.zeros(7, int)], verbose=0)
    for w, old in zip(model.layers[2].weights, before, strict=True):
        np.testing.assert_array_equal(w.numpy(), old)


def test_no_inputs_or_outputs_that_are_not_symbolic() -> None:
    x, other = keras.Input((4,), name="x"), keras.Input((4,), name="other")
    with pytest.raises(ArgumentError, match=r"begin with keras\.Input"):
        keras.Model(x, A)
    with pytest.raises(ArgumentError, match=r"begin with keras\.Input"):
        keras.Model([], x)
    with pytest.raises(ArgumentError, match="add other to the inputs"):
        keras.Model(x, x + other)
    with pytest.raises(ArgumentError, match="two layers with the name 'd'"):
        keras.Model(x, layers.Dense(1, name="d")(layers.Dense(1, name="d")(x)))
    with pytest.raises(ArgumentError, match=r"for example keras\.Model"):
        keras.Model(x)
    with pytest.raises(AttributeError, match="begin the model with an Input"):
        _ = layers.Dense(1).output


def test_a_failed_symbolic_call_leaves_no_trace_of_it() -> None:
    x, layer = keras.Input((4,)), layers.Dot(axes=1)
    with pytest.raises(ShapeError):
        layer([x, keras.Input((3,))])
    assert layer._calls == []
    assert layer([x, x]).shape == (None, 1)


def test_a_very_deep_model() -> None:
    x = y = keras.Input((2,))
    for _ in range(1200):
        y = y + 1.0
    model = keras.Model(x, y)
    np.testing.assert_array_equal(model(np.zeros((2, 2))).numpy(), np.full((2, 2), 1200.0))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied: Any) -> None:
    model = two_inputs()
    again = copied(model)
    again.layers[2].kernel.assign_add(np.ones((4, 8)))
    assert not np.allclose(again([A, B])[0].numpy(), model([A, B])[0].numpy())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again([A, B])[0].numpy(), model([A, B])[0].numpy())


# ---- cloning --------------------------------------------------------------------------------


def test_clone_model() -> None:
    x = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(x, tf.nn.relu(shared(shared(x)) + 1.0), name="net")
    again = keras.models.clone_model(model)
    assert again.name == "net" and len(again.weights) == 2
    assert again.get_layer("shared") is not shared
    assert not np.allclose(again(A).numpy(), model(A).numpy())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(A).numpy(), model(A).numpy())

    def wider(layer: Any) -> Any:
        config = layer.get_config()
        return layers.Dense(**{**config, "activation": "tanh"})

    assert keras.models.clone_model(model, clone_function=wider).layers[1].activation is not None
    fresh = keras.Input((4,), batch_size=2)
    assert keras.models.clone_model(model, input_tensors=fresh).output_shape == (2, 4)
    stack = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert keras.models.clone_model(stack).output_shape == (None, 2)


# ---- training -------------------------------------------------------------------------------


def test_fit_with_names_of_outputs_eager_and_compiled() -> None:
    histories = []
    for eager in (False, True):
        tf.random.set_seed(1)
        model = two_inputs()
        model.compile(
            "adam",
            loss={
                "price": "mse",
                "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            },
            loss_weights={"price": 2.0},
            metrics={"kind": ["accuracy"]},
            run_eagerly=eager,
        )
        y = {"price": A[:, :1], "kind": np.arange(7) % 3}
        history = model.fit({"a": A, "b": B}, y, epochs=3, batch_size=4, shuffle=False, verbose=0)
        histories.append(history.history)
    assert list(histories[0]) == ["loss", "price_loss", "kind_loss", "kind_accuracy"]
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-5)
    total = 2 * np.array(histories[0]["price_loss"]) + histories[0]["kind_loss"]
    np.testing.assert_allclose(histories[0]["loss"], total, rtol=1e-5)
    one, two = model.predict([A, B], verbose=0)
    assert one.shape == (7, 1) and two.shape == (7, 3)
    by_list = model.evaluate([A, B], [y["price"], y["kind"]], verbose=0, return_dict=True)
    by_name = model.evaluate([A, B], y, verbose=0, return_dict=True)
    assert by_list == by_name


def test_regularizers_and_add_loss_inside() -> None:
    class Penalty(layers.Layer):
        def call(self, inputs: Any) -> Any:
            self.add_loss(tf.reduce_sum(inputs))
            return inputs

    x = keras.Input((4,))
    model = keras.Model(x, Penalty()(layers.Dense(2, kernel_regularizer="l2")(x)))
    assert len(model.losses) == 1  # what the symbolic call added is gone
    y = model(A)
    assert len(model.losses) == 2
    np.testing.assert_allclose(float(model.losses[0]), y.numpy().sum(), rtol=1e-5)


def test_mixed_precision() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, dtype="mixed_bfloat16")(x))
    assert model.outputs[0].dtype == "bfloat16" and model(A).dtype == "bfloat16"


def test_steps_per_execution_and_own_train_function() -> None:
    x = keras.Input((4,))
    seen: list[Any] = []

    class Batches(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen.append(("begin", batch))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(("end", batch))

    model = keras.Model(x, layers.Dense(1)(x))
    model.compile("sgd", "mse", steps_per_execution=3)
    model.fit(A, A[:, :1], batch_size=2, verbose=0, callbacks=[Batches()])
    assert seen == [("begin", 0), ("end", 2), ("begin", 3), ("end", 3)]

    class Counting(keras.Model):
        count = 0

        def make_train_function(self, force: bool = False) -> Any:
            step = super().make_train_function(force)

            def counted(iterator: Any) -> Any:
                self.count += 1
                return step(iterator)

            self.train_function = counted
            return counted

    own = Counting(x, layers.Dense(1)(x))
    own.compile("sgd", "mse")
    history = own.fit(A, A[:, :1], batch_size=2, epochs=3, verbose=0).history["loss"]
    assert own.count == 12 and history[-1] < history[0]
    logs = model.make_test_function()(iter([(A, A[:, :1])]))
    assert float(logs["loss"]) > 0


def test_class_weight_on_one_batch() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, "softmax")(x))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    y = np.array([0, 1, 0, 1, 0, 0, 1])
    got = model.train_on_batch(A, y, class_weight={0: 2.0, 1: 0.5}, return_dict=True)["loss"]
    p = model.predict(A, verbose=0)[np.arange(7), y]
    np.testing.assert_allclose(got, np.mean(-np.log(p) * np.array([2.0, 0.5])[y]), rtol=1e-5)
