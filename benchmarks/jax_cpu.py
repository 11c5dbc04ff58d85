"""The workloads in JAX: whole steps under jax.jit, parameters and optimizer state donated."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import data
from benchmarks.clock import Case, Epochs
from benchmarks.peers import Options
from benchmarks.training import hand_loop

CALLS = 1000
RECORDED_CALLS = 100


class Jax:
    """One method a workload."""

    def __init__(self, options: Options) -> None:
        self.version = jax.__version__

    def chain(self) -> Case:
        inputs = _arrays(data.chain())

        @jax.jit
        def chain(x: Any, w: Any, b: Any) -> Any:
            return jax.nn.gelu(x * w + b, approximate=True) * jax.nn.sigmoid(x) + x

        def check(y: Any) -> list[Any]:
            return [y.mean(), y[1, 2]]

        return _case(lambda: chain(*inputs), check, 2 * inputs[0].nbytes)

    def softmax_xent(self) -> Case:
        logits, labels = _arrays(data.softmax_xent())
        loss_and_gradient = jax.jit(jax.value_and_grad(_cross_entropy))

        def check(out: Any) -> list[Any]:
            return [out[0], jnp.abs(out[1]).sum()]

        return _case(lambda: loss_and_gradient(logits, labels), check, 2 * logits.nbytes)

    def layernorm(self) -> Case:
        inputs = _arrays(data.layernorm())

        @jax.jit
        def forward_and_backward(x: Any, gain: Any, offset: Any, dy: Any) -> tuple[Any, ...]:
            y, backward = jax.vjp(_layer_norm, x, gain, offset)
            return y, *backward(dy)

        def check(out: Any) -> list[Any]:
            return [jnp.abs(value).mean() for value in out]

        return _case(lambda: forward_and_backward(*inputs), check, 5 * inputs[0].nbytes)

    def mlp(self) -> Case:
        return _train_case(data.MLP_SIZES, data.MLP_BATCH)

    def mlp_tiny(self) -> Case:
        return _train_case(data.TINY_SIZES, data.TINY_BATCH)

    def fit(self) -> Epochs:
        return hand_loop(_Trainer(data.fit()[2]).step)

    def eager_add(self) -> dict[str, Case]:
        a, b, left, right = _arrays(data.eager())
        add_one = jax.jit(lambda a: a + 1)

        def add(a: Any) -> Any:
            return a + b

        recorded = _calls(lambda: jax.vjp(add, a)[0], RECORDED_CALLS, note="jax.vjp of one add")
        return {
            "add": _calls(lambda: a + b),
            "matmul": _calls(lambda: left @ right),
            "add_recorded": recorded,
            "jit_call": _calls(lambda: add_one(a)),
        }


class _Trainer:
    """An MLP and its Adam state; step(x, labels) trains on one batch and returns the loss."""

    def __init__(self, layers: data.Layers) -> None:
        optimizer = optax.adam(1e-3, eps=1e-8)
        self.parameters = _arrays(layers)
        self.state = optimizer.init(self.parameters)

        def loss_of(parameters: Any, x: Any, labels: Any) -> Any:
            return _cross_entropy(_mlp(parameters, x), labels)

        def update(parameters: Any, state: Any, x: Any, labels: Any) -> tuple[Any, Any, Any]:
            loss, gradients = jax.value_and_grad(loss_of)(parameters, x, labels)
            changes, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, changes), state, loss

        self.update = jax.jit(update, donate_argnums=(0, 1))

    def step(self, x: Any, labels: Any) -> Any:
        self.parameters, self.state, loss = self.update(self.parameters, self.state, x, labels)
        return loss

    def wait(self, loss: Any) -> None:
        jax.block_until_ready((loss, self.parameters, self.state))


def _train_case(sizes: tuple[int, ...], batch: int) -> Case:
    *arrays, layers = data.mlp(sizes, batch)
    x, labels = _arrays(arrays)
    trainer = _Trainer(layers)
    return Case(lambda: trainer.step(x, labels), trainer.wait, lambda loss: [loss])


def _arrays(tree: Any) -> Any:
    # Copies: donating one array must not free another's memory.
    return jax.tree.map(lambda array: jnp.array(array, copy=True), tree)


def _case(step: Callable[[], Any], check: Callable[[Any], list[Any]], size: int) -> Case:
    return Case(step, jax.block_until_ready, check, bytes=size)


def _calls(call: Callable[[], Any], count: int = CALLS, note: str = "") -> Case:
    def step() -> Any:
        for _ in range(count):
            c = call()
        return c

    return Case(step, jax.block_until_ready, per_call=count, note=note)


def _cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _layer_norm(x: Any, gain: Any, offset: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + data.NORM_EPSILON) * gain + offset


def _mlp(parameters: Any, x: Any) -> Any:
    *hidden, (weight, bias) = parameters
    for kernel, offset in hidden:
        x = jax.nn.relu(x @ kernel + offset)
    return x @ weight + bias
