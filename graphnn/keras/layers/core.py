"""Dense, Embedding, Activation and its special cases, Dropout, Flatten, Reshape, Rescaling."""

from __future__ import annotations

import math
from typing import Any

from graphnn import nn, ops, random
from graphnn.compiler.ir.types import INTEGERS
from graphnn.keras import activations, constraints, initializers, regularizers
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError


def positive(subject: str, name: str, value: Any) -> int:
    """An integer of at least 1. Raises ArgumentError for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise ArgumentError(
            subject,
            received=f"{name}={value!r}",
            expected="a positive integer",
            fix=f"for example {name}=32",
        )
    return int(value)


@register()
class Dense(Layer):
    """`activation(inputs @ kernel + bias)`.

    units: size of the last axis of the result. activation, use_bias; initializers, regularizers and
    constraints of both weights by name or object. Raises ArgumentError for bad units.
    Inputs: shape (..., d). Result: shape (..., units).

    >>> layer = graphnn.keras.layers.Dense(4, activation="relu")
    >>> layer(graphnn.ones((2, 3))).shape == (2, 4), layer.count_params()
    (True, 16)
    """

    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = positive("Dense", "units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if not self.use_bias:
            return
        self.bias = self.add_weight(
            name="bias",
            shape=(self.units,),
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    def call(self, inputs: Any) -> Any:
        kernel, bias = self.in_compute_dtype(self.kernel), self.in_compute_dtype(self.bias)
        shape = inputs.shape
        # One product of two matrices, also for inputs with more axes.
        x = ops.reshape(inputs, (-1, shape[-1])) if len(shape) > 2 else inputs
        x = ops.matmul(x, kernel)
        if bias is not None:
            x = x + bias
        x = self.activation(x)
        return ops.reshape(x, (*shape[:-1], self.units)) if len(shape) > 2 else x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }


@register()
class Embedding(Layer):
    """A row of a table for each integer.

    input_dim: number of rows. output_dim: their length. mask_zero: 0 stands for padding.
    Inputs: integers from 0 to input_dim - 1, any shape. Result: that shape with output_dim added.
    Raises OutOfRangeError for other integers.

    >>> graphnn.keras.layers.Embedding(10, 3)(graphnn.constant([[1, 2]])).shape == (1, 2, 3)
    True
    """

    input_dtype = "int32"

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = positive("Embedding", "input_dim", input_dim)
        self.output_dim = positive("Embedding", "output_dim", output_dim)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = self.supports_masking = mask_zero
        self.embeddings: Any = None

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )

    def call(self, inputs: Any) -> Any:
        inputs = inputs if hasattr(inputs, "dtype") else ops.asarray(inputs)
        rows = inputs if inputs.dtype in INTEGERS else ops.cast(inputs, "int32")
        return ops.take(self.in_compute_dtype(self.embeddings), rows, axis=0)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """True where the integer is not the padding 0; None without `mask_zero`."""
        return inputs != 0 if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": regularizers.serialize(self.embeddings_regularizer),
            "embeddings_constraint": constraints.serialize(self.embeddings_constraint),
            "mask_zero": self.mask_zero,
        }


class _SameShape(Layer):
    """Base of layers whose result has the shape, and the mask, of the input."""

    supports_masking = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@register()
class Activation(_SameShape):
    """An activation function, by name or as a function.

    >>> graphnn.keras.layers.Activation("relu")(graphnn.constant([-1.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"activation": activations.serialize(self.activation)}


@register()
class ReLU(_SameShape):
    """`max(x, 0)`; with the settings as `keras.activations.relu`.

    >>> graphnn.keras.layers.ReLU(max_value=1.0)(graphnn.constant([-1.0, 2.0])).numpy().tolist()
    [0.0, 1.0]
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def call(self, inputs: Any) -> Any:
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


@register()
class Softmax(_SameShape):
    """`exp(x) / sum(exp(x))` along an axis.

    >>> graphnn.keras.layers.Softmax()(graphnn.zeros((1, 2))).numpy().tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any) -> Any:
        return nn.softmax(inputs, axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


@register()
class Dropout(_SameShape):
    """In training, sets a share of the inputs to 0 and scales the others up by 1 / (1 - rate).

    rate: the share, 0 to 1 exclusive. noise_shape: shape of the mask, which broadcasts against the
    inputs; None in it, or for it, means the inputs' size. seed: an int; drawn if left out. The
    masks are the same eagerly and compiled. Raises ArgumentError for another rate.

    >>> layer = graphnn.keras.layers.Dropout(0.5, seed=1)
    >>> bool((layer(graphnn.ones((2, 2))).numpy() == 1).all())
    True
    """

    def __init__(
        self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ArgumentError(
                "Dropout",
                received=f"rate={rate!r}",
                expected="a number from 0 to 1, 1 excluded",
                fix="give the share of inputs to drop, such as 0.5",
            )
        self.rate, self.noise_shape, self.seed = rate, noise_shape, seed
        self.seed_generator = random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return inputs
        shape = self.noise_shape
        if shape is not None:
            shape = tuple(
                s if s is not None else own for s, own in zip(shape, inputs.shape, strict=True)
            )
        return nn.dropout(inputs, rate=self.rate, noise_shape=shape, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "rate": self.rate,
            "seed": self.seed,
            "noise_shape": self.noise_shape,
        }


@register()
class Flatten(Layer):
    """All axes but the first as one.

    data_format: "channels_first" takes the channels, on axis 1, as the last axis; by default
    "channels_last". Raises ArgumentError for others.

    >>> graphnn.keras.layers.Flatten()(graphnn.ones((2, 3, 4))).shape == (2, 12)
    True
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if data_format not in (None, "channels_last", "channels_first"):
            raise ArgumentError(
                "Flatten",
                received=f"data_format={data_format!r}",
                expected="channels_last or channels_first",
                fix="leave it out for channels_last",
            )
        self.data_format = data_format or "channels_last"

    def call(self, inputs: Any) -> Any:
        shape = inputs.shape
        if self.data_format == "channels_first" and len(shape) > 2:
            inputs = ops.moveaxis(inputs, 1, -1)
            shape = inputs.shape
        if len(shape) < 2:
            return ops.expand_dims(inputs, axis=-1)
        if len(shape) == 2:
            return inputs
        return ops.reshape(inputs, (shape[0], math.prod(shape[1:])))

    def compute_output_shape(self, input_shape: Any) -> Any:
        rest = input_shape[1:]
        return (input_shape[0], None if None in rest else math.prod(rest))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"data_format": self.data_format}


@register()
class Reshape(Layer):
    """Another shape for each example.

    target_shape: sizes without the batch axis; one of them may be -1.

    >>> graphnn.keras.layers.Reshape((2, -1))(graphnn.ones((5, 6))).shape == (5, 2, 3)
    True
    """

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = (target_shape,) if isinstance(target_shape, int) else target_shape
        self.target_shape = tuple(sizes)

    def call(self, inputs: Any) -> Any:
        return ops.reshape(inputs, (inputs.shape[0], *self.target_shape))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"target_shape": self.target_shape}


@register()
class Rescaling(_SameShape):
    """`inputs * scale + offset`, in the layer's dtype.

    >>> graphnn.keras.layers.Rescaling(0.5, offset=1.0)(graphnn.constant([2, 4])).numpy().tolist()
    [2.0, 3.0]
    """

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset

    def call(self, inputs: Any) -> Any:
        return ops.cast(inputs, self.compute_dtype) * self.scale + self.offset

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"scale": self.scale, "offset": self.offset}
