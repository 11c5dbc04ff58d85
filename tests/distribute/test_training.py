"""Two replicas with half batches train as one with the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.distribute import MirroredStrategy
from graphnn.errors import ArgumentError, StateError
from graphnn.keras.models.replicas import ReplicaStep

STEPS, BATCH = 20, 16
EAGERLY = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, global_clipnorm=0.5),
}


def data(count: int = STEPS * BATCH) -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    x = random.normal(size=(count, 8)).astype("float32")
    return x, (x[:, 0] + x[:, 1] > 0).astype("int64") + (x[:, 2] > 0)


def network(*more: Any) -> Any:
    tf.random.set_seed(7)
    layers = [
        keras.layers.Dense(16, activation="tanh", kernel_regularizer="l2"),
        *more,
        keras.layers.Dense(3),
    ]
    return keras.Sequential([keras.layers.Input((8,)), *layers])


def crossentropy(**settings: Any) -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **settings)


def compiled(optimizer: str, loss: Any = None, eager: bool = False, **settings: Any) -> Any:
    model = network()
    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True)]
    loss = crossentropy() if loss is None else loss
    model.compile(OPTIMIZERS[optimizer](), loss, metrics=metrics, run_eagerly=eager, **settings)
    return model


def in_scope(strategy: MirroredStrategy, make: Callable[[], Any]) -> Any:
    with strategy.scope():
        return make()


def assert_same(one: Any, two: Any, tolerance: float = 1e-6) -> None:
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


# ---- custom loops -------------------------------------------------------------------------------


def train(strategy: MirroredStrategy, optimizer: str, kind: str) -> tuple[list[float], Any, float]:
    with strategy.scope():
        model, rule, loss_of = network(), OPTIMIZERS[optimizer](), crossentropy()
        accuracy = keras.metrics.SparseCategoricalAccuracy()

    def part(batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_of(y, logits) + tf.nn.scale_regularization_loss(model.losses)
        weights = model.trainable_variables
        rule.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        accuracy.update_state(y, logits)
        return loss

    inner = tf.function(part) if kind == "function in run" else part

    def step(batch: Any) -> Any:
        return strategy.reduce("sum", strategy.run(inner, args=(batch,)))

    outer = tf.function(step) if kind == "run in function" else step
    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    losses = [float(outer(b)) for b in strategy.experimental_distribute_dataset(batches)]
    assert len(losses) == STEPS == int(rule.iterations)
    return losses, model, float(accuracy.result())


@pytest.mark.parametrize("kind", ["eager", "run in function", "function in run"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_custom_loop(strategy: MirroredStrategy, optimizer: str, kind: str) -> None:
    one = train(MirroredStrategy(["CPU:0"]), optimizer, "eager")
    two = train(strategy, optimizer, kind)
    np.testing.assert_allclose(two[0], one[0], rtol=1e-6, atol=1e-6)
    assert two[0][-1] < two[0][0]
    assert_same(one[1], two[1])
    assert two[2] == pytest.approx(one[2], abs=1e-6)


def test_a_step_is_one_program_with_one_reduction_of_gradients(strategy: MirroredStrategy) -> None:
    with strategy.scope():
        layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
        model = keras.Sequential([keras.layers.Input((8,)), *layers])
        model.compile("adam", crossentropy(), metrics=["accuracy"])
    x, y = data(2 * BATCH)
    model.fit(x, y, batch_size=BATCH, verbose=0)
    stepper = model._stepper("train")
    assert isinstance(stepper, ReplicaStep)
    (program,) = next(iter(stepper._runs)).concretes
    reductions = [n for n in program.graph.nodes if n.op.name == "all_reduce"]
    weights = [n for n in reductions if any(i.shape for i in n.inputs)]
    assert [len(n.inputs) for n in weights] == [2 * 4]  # two replicas, four weights
    assert all(len(n.inputs) == 2 for n in reductions if n not in weights)  # scalars of metrics
    # The sum over replicas and Adam's rule for all weights are one kernel.
    (line,) = [row for row in program.dump().splitlines() if " sqrt " in row]
    assert " add " in line and f" {model.count_params()} " in line


# ---- fit ----------------------------------------------------------------------------------------


@EAGERLY
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fit_evaluate_predict(strategy: MirroredStrategy, optimizer: str, eager: bool) -> None:
    one = compiled(optimizer, eager=eager)
    two = in_scope(strategy, lambda: compiled(optimizer, eager=eager))
    x, y = data()
    weights = np.random.default_rng(2).uniform(0.5, 2.0, len(x)).astype("float32")
    given = dict(batch_size=BATCH, shuffle=False, verbose=0, sample_weight=weights)
    a, b = (m.fit(x, y, validation_data=(x[:33], y[:33]), **given).history for m in (one, two))
    assert a.keys() == b.keys() and "val_accuracy" in b
    for name, values in a.items():
        np.testing.assert_allclose(b[name], values, rtol=2e-6, atol=1e-6)
    assert_same(one, two)
    assert int(two.optimizer.iterations) == STEPS
    for m in ("evaluate", "predict"):
        found = [
            getattr(model, m)(x, *([y] if m == "evaluate" else []), verbose=0)
            for model in (one, two)
        ]
        np.testing.assert_allclose(found[1], found[0], rtol=2e-6, atol=2e-6)


@EAGERLY
@pytest.mark.parametrize("rest", [1, 2, 3, 7])
def test_a_last_batch_that_does_not_divide(
    strategy: MirroredStrategy, rest: int, eager: bool
) -> None:
    one = compiled("sgd", eager=eager)
    two = in_scope(strategy, lambda: compiled("sgd", eager=eager))
    x, y = data(2 * BATCH + rest)
    given = dict(batch_size=BATCH, shuffle=False, verbose=0, epochs=2)
    a, b = (m.fit(x, y, **given).history for m in (one, two))
    for name, values in a.items():
        np.testing.assert_allclose(b[name], values, rtol=2e-6, atol=1e-6)
    assert_same(one, two)
    assert two.predict(x, batch_size=BATCH, verbose=0).shape == (2 * BATCH + rest, 3)


def test_uneven_shares_cost_no_compile(strategy: MirroredStrategy) -> None:
    model = in_scope(strategy, lambda: compiled("sgd"))
    x, y = data(3 * BATCH + 9)
    model.fit(x, y, batch_size=BATCH, verbose=0, epochs=2)
    model.fit(x, y, batch_size=12, verbose=0)
    (run,) = model._stepper("train")._runs
    assert run.trace_count == 1


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_other_reductions(strategy: MirroredStrategy, reduction: str) -> None:
    make = lambda: compiled("sgd", crossentropy(reduction=reduction))  # noqa: E731
    one, two = make(), in_scope(strategy, make)
    x, y = data(2 * BATCH + 5)
    weights = np.random.default_rng(2).uniform(0.5, 2.0, len(x)).astype("float32")
    given = dict(batch_size=BATCH, shuffle=False, verbose=0, sample_weight=weights)
    a, b = (m.fit(x, y, **given).history for m in (one, two))
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=2e-6)
    assert_same(one, two, 2e-6)


def test_masks_count_the_same(strategy: MirroredStrategy) -> None:
    def make() -> Any:
        tf.random.set_seed(3)
        model = keras.Sequential(
            [keras.layers.Embedding(12, 4, mask_zero=True), keras.layers.Dense(3)]
        )
        model.compile("sgd", crossentropy())
        return model

    random = np.random.default_rng(0)
    x, y = (
        random.integers(0, 12, (36, 5)) * random.integers(0, 2, (36, 5)),
        random.integers(0, 3, (36, 5)),
    )
    one, two = make(), in_scope(strategy, make)
    a, b = (m.fit(x, y, batch_size=8, shuffle=False, verbose=0).history for m in (one, two))
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=2e-6)
    assert_same(one, two)


def test_batch_statistics_belong_to_each_replica(strategy: MirroredStrategy) -> None:
    with strategy.scope():
        layer = keras.layers.BatchNormalization(momentum=0.5)
    x, _ = data(8)
    halves = tf.distribute.PerReplica((tf.constant(x[:4]), tf.constant(x[4:])))
    out = strategy.run(lambda x: layer(x, training=True), args=(halves,))
    np.testing.assert_allclose(out.values[1].numpy().mean(0), np.zeros(8), atol=1e-6)
    mean = (x[:4].mean(0) + x[4:].mean(0)) / 2
    np.testing.assert_allclose(layer.moving_mean, mean / 2, rtol=1e-5, atol=1e-6)


def test_fit_takes_datasets_and_lazy_models(strategy: MirroredStrategy) -> None:
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.layers.Dense(8, activation="relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3),
            ]
        )
        model.compile("adam", crossentropy(), metrics=["accuracy"])
    dataset = tf.data.Dataset.from_tensor_slices(data()).shuffle(99, seed=1).batch(BATCH)
    history = model.fit(dataset, epochs=8, verbose=0, validation_data=dataset).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert all(w.strategy is strategy for w in model.weights)
    logs = model.train_on_batch(*data(BATCH), return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    assert model.predict_on_batch(data(5)[0]).shape == (5, 3)


@EAGERLY
def test_a_custom_train_step(strategy: MirroredStrategy, eager: bool) -> None:
    class Custom(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compiled_loss(y, y_pred, regularization_losses=self.losses)
            weights = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.compiled_metrics.update_state(y, y_pred)
            return {m.name: m.result() for m in self.metrics} | {"own": loss * 2.0, "text": "t"}

    def make() -> Any:
        tf.random.set_seed(7)
        layer = keras.layers.Dense(3, kernel_regularizer="l2", activity_regularizer=None)
        model = Custom([keras.layers.Input((8,)), layer])
        model.compile("sgd", crossentropy(), metrics=["accuracy"], run_eagerly=eager)
        return model

    one, two = make(), in_scope(strategy, make)
    x, y = data(BATCH + 5)
    for batch in (slice(BATCH), slice(BATCH, None)):
        a, b = (m.train_on_batch(x[batch], y[batch], return_dict=True) for m in (one, two))
        assert a.pop("text") == b.pop("text") == "t"
        assert a == pytest.approx(b, rel=1e-5)
    assert_same(one, two)


def test_float16_with_a_loss_scale(strategy: MirroredStrategy) -> None:
    def make() -> Any:
        model = network()
        inner = keras.optimizers.SGD(0.1)
        model.compile(keras.optimizers.LossScaleOptimizer(inner, 8.0), crossentropy())
        return model

    one, two = make(), in_scope(strategy, make)
    x, y = data(2 * BATCH)
    for model in (one, two):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert_same(one, two)


def test_a_model_is_copied_without_its_strategy(strategy: MirroredStrategy) -> None:
    model = in_scope(strategy, lambda: compiled("sgd"))
    other = copy.deepcopy(model)
    assert type(other.weights[0]) is tf.Variable
    other.fit(*data(4), verbose=0)


# ---- errors -------------------------------------------------------------------------------------


def text_of(error: Any) -> str:
    head = f"{type(error).__name__} in {error.subject}\nreceived: {error.received}"
    return f"{head}\nexpected: {error.expected}\nfix: {error.fix}"


def test_a_model_made_outside(strategy: MirroredStrategy, golden: Any) -> None:
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3, name="head")])
    model.name = "net"
    with strategy.scope():
        model.compile("sgd", crossentropy())
    with pytest.raises(StateError) as caught:
        model.fit(*data(4), verbose=0)
    golden("../errors/distribute/model_outside_scope.txt", text_of(caught.value))


def test_a_model_compiled_outside(strategy: MirroredStrategy, golden: Any) -> None:
    model = in_scope(strategy, network)
    model.name = "net"
    model.compile("sgd", crossentropy())
    with pytest.raises(StateError) as caught:
        model.fit(*data(4), verbose=0)
    golden("../errors/distribute/compiled_outside_scope.txt", text_of(caught.value))


def test_weights_made_outside_of_a_custom_loop(strategy: MirroredStrategy) -> None:
    w = tf.Variable([1.0])
    optimizer = in_scope(strategy, lambda: keras.optimizers.SGD(0.1))

    def part() -> None:
        optimizer.apply_gradients([(tf.constant([1.0]), w)])

    with pytest.raises(StateError, match="made outside of the scope"):
        strategy.run(part)


def test_a_batch_size_below_the_number_of_replicas(strategy: MirroredStrategy) -> None:
    model = in_scope(strategy, lambda: compiled("sgd"))
    with pytest.raises(ArgumentError, match="a batch of 1 for 2 replicas"):
        model.fit(*data(4), batch_size=1, verbose=0)


def test_text_goes_through_the_host(strategy: MirroredStrategy) -> None:
    texts = np.array(["a b", "b c", "a a", "c b", "a", "c c"])[:, None]
    targets = np.arange(6.0, dtype="float32")[:, None]

    def make() -> Any:
        tf.random.set_seed(3)
        words = keras.layers.TextVectorization(output_mode="count", vocabulary=["a", "b", "c"])
        model = keras.Sequential([words, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    one, two = make(), in_scope(strategy, make)
    dataset = tf.data.Dataset.from_tensor_slices((texts, targets)).batch(4)
    for model in (one, two):
        model.fit(dataset, epochs=3, verbose=0)
    assert_same(one, two)


def test_a_trained_model_is_saved_and_loaded(strategy: MirroredStrategy, tmp_path: Any) -> None:
    pytest.importorskip("h5py")
    with strategy.scope():
        model = network(keras.layers.BatchNormalization())
        model.compile("adam", crossentropy(), metrics=["accuracy"])
    x, y = data(2 * BATCH)
    model.fit(x, y, batch_size=BATCH, verbose=0)
    file = tmp_path / "model.keras"
    model.save(file)
    for load in (
        keras.models.load_model,
        lambda f: in_scope(strategy, lambda: keras.models.load_model(f)),
    ):
        other = load(file)
        for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert int(other.optimizer.iterations) == 2
        other.fit(x, y, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize("suffix", [".weights.h5", ".weights.safetensors"])
def test_weights_are_loaded_outside_of_the_scope(
    strategy: MirroredStrategy, tmp_path: Any, suffix: str
) -> None:
    """The state of the optimizer goes where the weights are, without a scope around the loading."""
    pytest.importorskip("h5py")
    x, y = data(64)
    first, second = (in_scope(strategy, lambda: compiled("adam")) for _ in range(2))
    first.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    first.save_weights(tmp_path / f"kept{suffix}")
    second.load_weights(tmp_path / f"kept{suffix}")
    second.optimizer.build(second.trainable_variables)
    state: dict[str, Any] = {}
    first.optimizer.save_own_variables(state)
    second.optimizer.load_own_variables(state)
    for model in (first, second):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert_same(first, second)
