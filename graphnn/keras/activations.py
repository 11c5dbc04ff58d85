"""Activation functions by name; each takes a tensor and gives one of the same shape and dtype."""

from __future__ import annotations

from typing import Any

from graphnn import nn, ops
from graphnn.keras.registry import Registry

__all__ = [
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "hard_sigmoid",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

_registry = Registry("activations")
serialize, deserialize = _registry.serialize, _registry.deserialize


def get(identifier: Any) -> Any:
    """The activation that a name, config or callable stands for; None is the identity.

    >>> get("relu")(graphnn.constant([-1.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """
    return linear if identifier is None else _registry.get(identifier)


@_registry.register()
def linear(x: Any) -> Any:
    """The input itself."""
    return x


@_registry.register()
def relu(
    x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Any:
    """`max(x, 0)`; with the settings, `slope * (x - threshold)` below the threshold, capped above.

    >>> relu(graphnn.constant([-4.0, 3.0]), negative_slope=0.5, max_value=2.0).numpy().tolist()
    [-2.0, 2.0]
    """
    if not negative_slope and max_value is None and not threshold:
        return nn.relu(x)
    # Without a slope a true zero: 0 times an infinite x would not be a number.
    below = (x - threshold) * negative_slope if negative_slope else ops.zeros_like(x)
    above = x if max_value is None else ops.minimum(x, max_value)
    return ops.where(x >= threshold if threshold else x > 0, above, below)


@_registry.register()
def relu6(x: Any) -> Any:
    """`min(max(x, 0), 6)`."""
    return ops.minimum(nn.relu(x), 6.0)


@_registry.register()
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x where positive, `negative_slope * x` elsewhere."""
    return ops.where(x > 0, x, x * negative_slope)


@_registry.register()
def sigmoid(x: Any) -> Any:
    """`1 / (1 + exp(-x))`."""
    return nn.sigmoid(x)


@_registry.register()
def hard_sigmoid(x: Any) -> Any:
    """`min(max(x / 6 + 0.5, 0), 1)`."""
    return nn.relu(ops.minimum(x * (1.0 / 6.0) + 0.5, 1.0))


@_registry.register()
def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return ops.tanh(x)


@_registry.register()
def softplus(x: Any) -> Any:
    """`log(1 + exp(x))`."""
    return nn.softplus(x)


@_registry.register()
def softsign(x: Any) -> Any:
    """`x / (1 + |x|)`."""
    return x / (ops.abs(x) + 1.0)


@_registry.register("swish")
def silu(x: Any) -> Any:
    """`x * sigmoid(x)`."""
    return nn.silu(x)


@_registry.register()
def mish(x: Any) -> Any:
    """`x * tanh(softplus(x))`."""
    return x * ops.tanh(nn.softplus(x))


@_registry.register()
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x where positive, `alpha * (exp(x) - 1)` elsewhere."""
    # exp only sees what is not positive, so that its gradient never overflows into the other side.
    return ops.where(x > 0, x, ops.expm1(ops.minimum(x, 0.0)) * alpha)


@_registry.register()
def selu(x: Any) -> Any:
    """Scaled elu with the constants of Klambauer et al., Self-Normalizing Neural Networks, 2017."""
    return elu(x, alpha=1.6732632423543772) * 1.0507009873554805


@_registry.register()
def gelu(x: Any, approximate: bool = False) -> Any:
    """x times the standard normal distribution function of x (by tanh if `approximate`)."""
    return nn.gelu(x, approximate=approximate)


@_registry.register()
def exponential(x: Any) -> Any:
    """`exp(x)`."""
    return ops.exp(x)


@_registry.register()
def softmax(x: Any, axis: int = -1) -> Any:
    """`exp(x) / sum(exp(x))` along an axis."""
    return nn.softmax(x, axis=axis)


@_registry.register()
def log_softmax(x: Any, axis: int = -1) -> Any:
    """Logarithm of the softmax along an axis."""
    return nn.log_softmax(x, axis=axis)


swish = silu
