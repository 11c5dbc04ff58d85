"""Activation functions by name; each takes a tensor and gives one of the same shape and dtype."""

from __future__ import annotations

from typing import Any

from graphnn import nn, ops
from graphnn.keras.registry import Registry

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
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
def celu(x: Any, alpha: float = 1.0) -> Any:
    """x where positive, `alpha * (exp(x / alpha) - 1)` elsewhere: smooth for every alpha."""
    return ops.where(x > 0, x, ops.expm1(ops.minimum(x, 0.0) / alpha) * alpha)


@_registry.register()
def glu(x: Any, axis: int = -1) -> Any:
    """The first half of x along an axis times the sigmoid of the second half.

    >>> glu(graphnn.constant([[2.0, 4.0, 0.0, 0.0]])).numpy().tolist()
    [[1.0, 2.0]]
    """
    value, gate = ops.split(x, 2, axis=axis)
    return value * nn.sigmoid(gate)


@_registry.register()
def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x where `|x| > threshold`, 0 elsewhere."""
    return ops.where(ops.abs(x) > threshold, x, ops.zeros_like(x))


@_registry.register()
def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved by `threshold` towards 0, and 0 where it would pass it."""
    return ops.sign(x) * nn.relu(ops.abs(x) - threshold)


@_registry.register()
def tanh_shrink(x: Any) -> Any:
    """`x - tanh(x)`."""
    return x - ops.tanh(x)


@_registry.register("hard_swish")
def hard_silu(x: Any) -> Any:
    """`x * hard_sigmoid(x)`."""
    return x * hard_sigmoid(x)


@_registry.register()
def hard_tanh(x: Any) -> Any:
    """x kept in -1 to 1."""
    return ops.clip(x, -1.0, 1.0)


@_registry.register()
def log_sigmoid(x: Any) -> Any:
    """`log(sigmoid(x))`, without overflow."""
    return -nn.softplus(-x)


@_registry.register()
def sparse_plus(x: Any) -> Any:
    """0 up to -1, x from 1 on, `(x + 1) ** 2 / 4` in between."""
    middle = ops.square(x + 1.0) * 0.25
    return ops.where(x <= -1, ops.zeros_like(x), ops.where(x < 1, middle, x))


@_registry.register()
def sparse_sigmoid(x: Any) -> Any:
    """`(x + 1) / 2` kept in 0 to 1."""
    return ops.clip((x + 1.0) * 0.5, 0.0, 1.0)


@_registry.register()
def squareplus(x: Any, b: float = 4) -> Any:
    """`(x + sqrt(x ** 2 + b)) / 2`: softplus without exponentials."""
    return (x + ops.sqrt(ops.square(x) + float(b))) * 0.5


@_registry.register()
def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x where it is above a threshold, a default value elsewhere."""
    return ops.where(x > threshold, x, ops.full_like(x, default_value))


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
hard_swish = hard_silu
