"""Normalisation over the batch or over the features of each example."""

from __future__ import annotations

from typing import Any

from graphnn import nn, ops
from graphnn.autodiff import stop_gradient
from graphnn.keras import constraints, initializers, regularizers
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError

EPSILON = 1e-7  # steps that count, at least: a batch that is all padding
HALF = ("float16", "bfloat16")


def _axes(axis: Any, ndim: int, subject: str) -> tuple[int, ...]:
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -ndim <= a < ndim for a in given):
        raise ArgumentError(
            subject,
            received=f"axis={axis!r} for inputs with {ndim} axes",
            expected=f"axes from {-ndim} to {ndim - 1}",
            fix="give an axis that the inputs have",
        )
    return tuple(sorted(a % ndim for a in given))


def _moments(x: Any, axes: tuple[int, ...], mask: Any) -> tuple[Any, Any]:
    """Mean and variance over axes; steps that a mask calls padding do not count."""
    if mask is None:
        mean, variance = nn.moments(x, axes=axes)
        return mean, variance
    missing = len(x.shape) - len(mask.shape)
    weight = ops.cast(mask, x.dtype)
    weight = ops.expand_dims(weight, axis=tuple(range(-missing, 0))) if missing > 0 else weight
    weight = ops.broadcast_to(weight, x.shape)
    count = ops.maximum(ops.sum(weight, axis=axes, keepdims=True), EPSILON)
    mean = ops.sum(x * weight, axis=axes, keepdims=True) / count
    variance = ops.sum(ops.square(x - mean) * weight, axis=axes, keepdims=True) / count
    return ops.squeeze(mean, axis=axes), ops.squeeze(variance, axis=axes)


class _Normalization(Layer):
    """What both share: a scale `gamma` and an offset `beta`, statistics in at least float32."""

    supports_masking = True

    def __init__(
        self,
        axis: Any,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis if isinstance(axis, int) else tuple(axis)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.gamma: Any = None
        self.beta: Any = None

    def _add_scale(self, shape: tuple[Any, ...]) -> None:
        if self.scale:
            self.gamma = self.add_weight(
                name="gamma",
                shape=shape,
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = self.add_weight(
                name="beta",
                shape=shape,
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )

    def _wide(self, inputs: Any) -> Any:
        """Inputs in the dtype of the statistics: sums of half precision would lose too much."""
        return ops.cast(inputs, "float32") if inputs.dtype.name in HALF else inputs

    def _back(self, outputs: Any) -> Any:
        if outputs.dtype == self.compute_dtype or self.compute_dtype not in HALF:
            return outputs
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
        }


@register()
class LayerNormalization(_Normalization):
    """Each example with zero mean and unit variance over `axis`, then scaled and shifted.

    Ba et al., Layer Normalization, 2016: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.

    >>> y = graphnn.keras.layers.LayerNormalization()(graphnn.constant([[1.0, 3.0]]))
    >>> y.numpy().round(2).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )

    def build(self, input_shape: Any) -> None:
        axes = _axes(self.axis, len(input_shape), "LayerNormalization")
        self._add_scale(tuple(input_shape[a] for a in axes))

    def call(self, inputs: Any) -> Any:
        axes = _axes(self.axis, len(inputs.shape), "LayerNormalization")
        x = self._wide(inputs)
        if axes == (len(inputs.shape) - 1,) and self.scale and self.center:
            gamma, beta = (ops.cast(v, x.dtype) for v in (self.gamma, self.beta))
            return self._back(nn.layer_norm(x, gamma, beta, epsilon=self.epsilon))
        mean, variance = nn.moments(x, axes=axes, keepdims=True)
        out = (x - mean) * ops.rsqrt(variance + self.epsilon)
        shape = tuple(s if a in axes else 1 for a, s in enumerate(inputs.shape))
        if self.gamma is not None:
            out = out * ops.reshape(ops.cast(self.gamma, x.dtype), shape)
        if self.beta is not None:
            out = out + ops.reshape(ops.cast(self.beta, x.dtype), shape)
        return self._back(out)


@register()
class BatchNormalization(_Normalization):
    """Each feature with zero mean and unit variance over the batch, then scaled and shifted.

    Ioffe and Szegedy, Batch Normalization, 2015. In training with the batch's statistics, which
    also move the running ones by `1 - momentum`; otherwise, and when the layer is frozen, with the
    running ones. axis: that of the features.

    >>> layer = graphnn.keras.layers.BatchNormalization()
    >>> layer(graphnn.constant([[1.0], [3.0]]), training=True).numpy().round(2).tolist()
    [[-1.0], [1.0]]
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.momentum = momentum
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.moving_mean: Any = None
        self.moving_variance: Any = None

    def build(self, input_shape: Any) -> None:
        (axis,) = _axes(self.axis, len(input_shape), "BatchNormalization")
        shape = (input_shape[axis],)
        self._add_scale(shape)
        self.moving_mean = self.add_weight(
            name="moving_mean",
            shape=shape,
            initializer=self.moving_mean_initializer,
            trainable=False,
            synchronization="on_read",
            aggregation="mean",
        )
        self.moving_variance = self.add_weight(
            name="moving_variance",
            shape=shape,
            initializer=self.moving_variance_initializer,
            trainable=False,
            synchronization="on_read",
            aggregation="mean",
        )

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        ndim = len(inputs.shape)
        (axis,) = _axes(self.axis, ndim, "BatchNormalization")
        x = self._wide(inputs)
        if training and self.trainable:
            mean, variance = _moments(x, tuple(a for a in range(ndim) if a != axis), mask)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        else:
            mean = ops.cast(self.moving_mean, x.dtype)
            variance = ops.cast(self.moving_variance, x.dtype)
        shape = tuple(s if a == axis else 1 for a, s in enumerate(inputs.shape))
        factor = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = factor * ops.cast(self.gamma, x.dtype)
        out = (x - ops.reshape(mean, shape)) * ops.reshape(factor, shape)
        if self.beta is not None:
            out = out + ops.reshape(ops.cast(self.beta, x.dtype), shape)
        return self._back(out)

    def _move(self, moving: Any, value: Any) -> None:
        new = stop_gradient(ops.cast(value, moving.dtype))
        moving.assign(moving * self.momentum + new * (1.0 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "momentum": self.momentum,
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
        }
