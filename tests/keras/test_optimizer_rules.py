"""Every optimizer against its formula, written out here in float64, over 100 steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn import keras
from graphnn.keras import optimizers as O

State = dict[str, Any]
Reference = Callable[[Any, Any, int, State], Any]
E = 1e-7


def sgd(rate: float, momentum: float = 0.0, nesterov: bool = False) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["v"] = momentum * s.get("v", 0.0) - rate * g
        return w + (momentum * s["v"] - rate * g if nesterov else s["v"])

    return update


def rmsprop(rate: float, rho: float, momentum: float = 0.0, centered: bool = False) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["v"] = rho * s.get("v", 0.0) + (1 - rho) * g * g
        s["a"] = rho * s.get("a", 0.0) + (1 - rho) * g
        below = s["v"] - s["a"] ** 2 if centered else s["v"]
        s["m"] = momentum * s.get("m", 0.0) + rate * g / np.sqrt(below + E)
        return w - s["m"]

    return update


def adam(
    rate: float, b1: float = 0.9, b2: float = 0.999, amsgrad: bool = False, decay: float = 0.0
) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        w = w - decay * rate * w
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
        s["h"] = np.maximum(s.get("h", 0.0), s["v"])
        below = s["h"] if amsgrad else s["v"]
        size = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        return w - size * s["m"] / (np.sqrt(below) + E)

    return update


def adamax(rate: float, b1: float = 0.9, b2: float = 0.999) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["u"] = np.maximum(b2 * s.get("u", 0.0), np.abs(g))
        return w - rate / (1 - b1**t) * s["m"] / (s["u"] + E)

    return update


def nadam(rate: float, b1: float = 0.9, b2: float = 0.999) -> Reference:
    def momentum(t: int) -> float:
        return b1 * (1 - 0.5 * 0.96**t)

    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
        product = np.prod([momentum(k) for k in range(1, t + 1)])
        mean = momentum(t + 1) * s["m"] / (1 - product * momentum(t + 1))
        mean = mean + (1 - momentum(t)) * g / (1 - product)
        return w - rate * mean / (np.sqrt(s["v"] / (1 - b2**t)) + E)

    return update


def lamb(rate: float, b1: float = 0.9, b2: float = 0.999) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
        step = s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + E)
        return w - rate * np.linalg.norm(w) / np.linalg.norm(step) * step

    return update


def adagrad(rate: float, start: float = 0.1) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["a"] = s.get("a", start) + g * g
        return w - rate * g / np.sqrt(s["a"] + E)

    return update


def adadelta(rate: float, rho: float = 0.95) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        s["a"] = rho * s.get("a", 0.0) + (1 - rho) * g * g
        step = -np.sqrt(s.get("d", 0.0) + E) / np.sqrt(s["a"] + E) * g
        s["d"] = rho * s.get("d", 0.0) + (1 - rho) * step**2
        return w + rate * step

    return update


def ftrl(
    rate: float, l1: float, l2: float, shrinkage: float, beta: float, power: float = -0.5
) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        old = s.get("n", 0.1)
        s["n"] = old + g * g
        sigma = (s["n"] ** -power - old**-power) / rate
        s["z"] = s.get("z", 0.0) + g + 2 * shrinkage * w - sigma * w
        below = s["n"] ** -power / rate + 2 * (l2 + beta / (2 * rate))
        return (np.clip(s["z"], -l1, l1) - s["z"]) / below

    return update


def lion(rate: float, b1: float = 0.9, b2: float = 0.99) -> Reference:
    def update(w: Any, g: Any, t: int, s: State) -> Any:
        m = s.get("m", 0.0)
        s["m"] = b2 * m + (1 - b2) * g
        return w - rate * np.sign(b1 * m + (1 - b1) * g)

    return update


def decayed(reference: Reference, decay: float, rate: float) -> Reference:
    return lambda w, g, t, s: reference(w - decay * rate * w, g, t, s)


CASES: dict[str, tuple[Callable[[], Any], Reference]] = {
    "sgd": (lambda: O.SGD(0.1), sgd(0.1)),
    "momentum": (lambda: O.SGD(0.1, momentum=0.9), sgd(0.1, 0.9)),
    "nesterov": (lambda: O.SGD(0.1, 0.9, nesterov=True), sgd(0.1, 0.9, True)),
    "sgd decay": (lambda: O.SGD(0.1, weight_decay=0.1), decayed(sgd(0.1), 0.1, 0.1)),
    "rmsprop": (lambda: O.RMSprop(0.01), rmsprop(0.01, 0.9)),
    "rmsprop momentum": (
        lambda: O.RMSprop(0.01, 0.8, momentum=0.5, centered=True),
        rmsprop(0.01, 0.8, 0.5, True),
    ),
    "adam": (lambda: O.Adam(0.05), adam(0.05)),
    "amsgrad": (lambda: O.Adam(0.05, 0.8, 0.95, amsgrad=True), adam(0.05, 0.8, 0.95, True)),
    "adamw": (lambda: O.AdamW(0.05, weight_decay=0.1), adam(0.05, decay=0.1)),
    "adamax": (lambda: O.Adamax(0.05), adamax(0.05)),
    "nadam": (lambda: O.Nadam(0.05), nadam(0.05)),
    "lamb": (lambda: O.Lamb(0.05), lamb(0.05)),
    "adagrad": (lambda: O.Adagrad(0.1), adagrad(0.1)),
    "adagrad start": (lambda: O.Adagrad(0.1, initial_accumulator_value=0.0), adagrad(0.1, 0.0)),
    "adadelta": (lambda: O.Adadelta(1.0), adadelta(1.0)),
    "ftrl": (lambda: O.Ftrl(0.1), ftrl(0.1, 0, 0, 0, 0)),
    "ftrl all": (
        lambda: O.Ftrl(0.1, -0.4, 0.1, 0.3, 0.2, 0.05, 0.1),
        ftrl(0.1, 0.3, 0.2, 0.05, 0.1, -0.4),
    ),
    "lion": (lambda: O.Lion(0.01), lion(0.01)),
}
SHAPES = ((3, 2), (4,), (1,))


def run(make: Callable[[], Any], steps: int, compiled: bool) -> tuple[list[Any], Any, list[Any]]:
    """Weights after so many steps, the optimizer, and the gradients of each step."""
    rng = np.random.default_rng(1)
    weights = [tf.Variable(rng.normal(size=s).astype("float32")) for s in SHAPES]
    optimizer = make()

    def step(*gradients: Any) -> None:
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    call = tf.function(step) if compiled else step
    seen = []
    for _ in range(steps):
        seen.append([rng.normal(size=s).astype("float32") for s in SHAPES])
        call(*map(tf.constant, seen[-1]))
    return weights, optimizer, seen


def reference_run(reference: Reference, gradients: list[Any]) -> list[Any]:
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=s).astype("float32").astype("float64") for s in SHAPES]
    states: list[State] = [{} for _ in SHAPES]
    for t, of_step in enumerate(gradients, 1):
        weights = [
            reference(w, np.asarray(g, "float64"), t, s)
            for w, g, s in zip(weights, of_step, states, strict=True)
        ]
    return weights


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_100_steps(name: str, compiled: bool) -> None:
    make, reference = CASES[name]
    weights, optimizer, gradients = run(make, 100, compiled)
    for found, expected in zip(weights, reference_run(reference, gradients), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=3e-4, atol=2e-5)
    assert int(optimizer.iterations) == 100


@pytest.mark.parametrize("name", CASES)
def test_eager_is_compiled(name: str) -> None:
    make, _ = CASES[name]
    eager, compiled = (run(make, 20, c)[0] for c in (False, True))
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_configs_come_back(name: str) -> None:
    optimizer = CASES[name][0]()
    again = O.deserialize(O.serialize(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()


FUSED = ("momentum", "rmsprop", "adam", "adamw", "lion", "adamax", "nadam", "adagrad", "adadelta")


@pytest.mark.parametrize("name", FUSED)
def test_the_update_is_one_kernel(name: str) -> None:
    optimizer = CASES[name][0]()
    weights = [tf.Variable(np.ones(s, "float32")) for s in ((64, 32), (32,), (32, 8), (8,))]

    @tf.function
    def step(*gradients: Any) -> None:
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    step(*[tf.ones(w.shape) for w in weights])
    text = step.dump(stage="program")
    assert text.count("2048 rows + 32 rows + 256 rows + 8 rows") == 1, text
    assert text.count("2048 rows") == 1, text


@pytest.mark.parametrize("name", FUSED)
def test_the_update_in_a_train_step_is_one_kernel(name: str) -> None:
    """Gradients of weights come from products, of biases from sums: one kernel all the same."""
    optimizer = CASES[name][0]()
    model = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(8)])
    model.build((None, 64))

    @tf.function
    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    step(tf.ones((16, 64)))
    text = step.dump(stage="program")
    assert text.count("2048 rows + 32 rows + 256 rows + 8 rows") == 1, text


# ---- options that all optimizers have -------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["sgd", "adam", "nadam", "lion"])
def test_accumulated_gradients_are_the_mean_of_several(name: str, compiled: bool) -> None:
    make, reference = CASES[name]

    def accumulating() -> Any:
        return O.deserialize(
            {
                "class_name": type(make()).__name__,
                "config": make().get_config() | {"gradient_accumulation_steps": 4},
            }
        )

    weights, optimizer, gradients = run(accumulating, 22, compiled)
    means = [
        [np.mean(g, axis=0) for g in zip(*gradients[i : i + 4], strict=True)]
        for i in range(0, 20, 4)
    ]
    for found, expected in zip(weights, reference_run(reference, means), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=3e-4, atol=2e-5)
    assert int(optimizer.iterations) == 5


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_mean_of_weights(compiled: bool) -> None:
    weights, optimizer, gradients = run(
        lambda: O.SGD(0.1, use_ema=True, ema_momentum=0.9), 10, compiled
    )
    means: list[Any] = []
    for t in range(1, 11):
        now = reference_run(sgd(0.1), gradients[:t])
        means = now if t == 1 else [0.9 * m + 0.1 * w for m, w in zip(means, now, strict=True)]
    optimizer.finalize_variable_values(weights)
    for found, expected in zip(weights, means, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_weights_are_overwritten_by_their_mean(compiled: bool) -> None:
    def make() -> Any:
        return O.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)

    weights, _, gradients = run(make, 7, compiled)
    expected = reference_run(sgd(0.1), [])
    means = expected
    for t, of_step in enumerate(gradients, 1):
        expected = [w - 0.1 * g for w, g in zip(expected, of_step, strict=True)]
        share = 0.0 if t == 1 else 0.5
        means = [share * m + (1 - share) * w for m, w in zip(means, expected, strict=True)]
        expected = means if t % 3 == 0 else expected
    for found, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), value, rtol=1e-4, atol=1e-5)


def test_loss_scale_factor() -> None:
    w = tf.Variable([1.0])
    optimizer = O.SGD(0.5, loss_scale_factor=8.0)
    with tf.GradientTape() as tape:
        loss = optimizer.scale_loss(tf.reduce_sum(w * 2.0))
    assert float(loss) == 16.0
    optimizer.apply_gradients([(tape.gradient(loss, w), w)])
    assert float(w[0]) == 0.0


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_dynamic_loss_scale(compiled: bool) -> None:
    w = tf.Variable([1.0, 2.0])
    inner = O.Adam(0.1)
    optimizer = O.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=2)
    apply = (
        (lambda g: optimizer.apply_gradients([(g, w)]))
        if not compiled
        else tf.function(lambda g: optimizer.apply_gradients([(g, w)]))
    )
    seen = []
    for gradient in ([8.0, 8.0], [np.inf, 1.0], [8.0, np.nan], [2.0, 2.0], [2.0, 2.0], [4.0, 4.0]):
        before = w.numpy().copy()
        apply(tf.constant(np.asarray(gradient, "float32")))
        moved = bool((w.numpy() != before).all())
        seen.append((moved, float(optimizer.dynamic_scale), int(optimizer.step_counter)))
    assert seen == [
        (True, 8.0, 1),
        (False, 4.0, 0),
        (False, 2.0, 0),
        (True, 2.0, 1),
        (True, 4.0, 0),
        (True, 4.0, 1),
    ]
    assert int(optimizer.iterations) == 4
    np.testing.assert_allclose(w.numpy(), [0.6, 1.6], rtol=1e-5)
    again = O.deserialize(O.serialize(optimizer))
    assert again.get_config()["inner_optimizer"] == O.serialize(inner)


def test_weight_decay_by_name() -> None:
    kept, other = tf.Variable([2.0], name="dense/bias"), tf.Variable([2.0], name="dense/kernel")
    optimizer = O.SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias$"])
    zero = tf.constant([0.0])
    optimizer.apply_gradients([(zero, kept), (zero, other)])
    assert (float(kept[0]), float(other[0])) == (2.0, 1.5)


def test_state_is_in_the_order_of_keras() -> None:
    a, b = tf.Variable([1.0], name="a"), tf.Variable([1.0, 2.0], name="b")
    optimizer = O.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2, name="adam")
    optimizer.build([a, b])
    names = [v.name.removeprefix("adam/") for v in optimizer.variables]
    assert names == [
        *("iteration", "learning_rate", "a_average", "b_average"),
        *("a_gradient_accumulator", "b_gradient_accumulator"),
        *("a_momentum", "a_velocity", "b_momentum", "b_velocity"),
        *("a_velocity_hat", "b_velocity_hat"),
    ]
    store: dict[str, Any] = {}
    optimizer.save_own_variables(store)
    other = O.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2)
    other.build([a, b])
    store["6"] = np.array([7.0])
    other.load_own_variables(store)
    assert float(other.slot("momentum", a)[0]) == 7.0


def test_own_optimizer_with_the_builders_of_keras_3() -> None:
    class Heavy(O.Optimizer):
        def build(self, variables: Any) -> None:
            if self.built:
                return
            super().build(variables)
            self.speeds = self.add_optimizer_variables(variables, "speed")

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            speed = self.speeds[self._get_variable_index(variable)]
            self.assign(speed, speed * 0.5 + gradient)
            self.assign_sub(variable, speed * learning_rate)

    w = tf.Variable([1.0])
    optimizer = Heavy(0.5)
    step = tf.function(lambda g: optimizer.apply_gradients([(g, w)]))
    for _ in range(2):
        step(tf.constant([1.0]))
    assert float(w[0]) == 1.0 - 0.5 - 0.75
    assert len(optimizer.variables) == 3


def fitted(optimizer: Any, run_eagerly: bool = False, policy: str = "float32") -> tuple[Any, Any]:
    """A small model after a fit, and the mean loss of its epochs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 4)).astype("float32")
    y = x @ rng.normal(size=(4, 2)).astype("float32")
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(8, activation="tanh", dtype=policy)]
    model = keras.Sequential([*layers, keras.layers.Dense(2, dtype="float32")])
    model.dtype_policy = keras.DTypePolicy(policy)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly)
    history = model.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0)
    return model, history.history["loss"]


@pytest.mark.parametrize("name", ["adam", "nadam", "lion", "ftrl", "adagrad", "rmsprop"])
def test_fit_by_name(name: str) -> None:
    (_, compiled), (_, eager) = fitted(name), fitted(name, run_eagerly=True)
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)
    assert compiled[-1] < compiled[0]


def test_float16_is_trained_with_a_loss_scale() -> None:
    model, compiled = fitted(O.Adam(0.01), policy="mixed_float16")
    assert isinstance(model.optimizer, O.LossScaleOptimizer)
    assert float(model.optimizer.dynamic_scale) == 2.0**15
    assert int(model.optimizer.step_counter) == 24 == int(model.optimizer.iterations)
    _, plain = fitted(O.Adam(0.01))
    np.testing.assert_allclose(compiled, plain, rtol=0.02)


def test_fit_ends_with_the_mean_of_weights() -> None:
    optimizer = O.SGD(0.05, use_ema=True, ema_momentum=0.5)
    model, _ = fitted(optimizer)
    for weight in model.trainable_weights:
        mean = optimizer.slot("average", weight)
        assert (mean.numpy() == weight.numpy()).all()
