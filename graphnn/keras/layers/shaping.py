"""Permute, RepeatVector, Masking and Lambda."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphnn import ops, tree
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.core import positive
from graphnn.keras.layers.registry import register
from graphnn.keras.masks import set_mask
from graphnn.keras.serialization import deserialize_keras_object, serialize_keras_object
from graphnn.keras.shapes import is_shape
from graphnn.runtime.errors import ArgumentError


@register()
class Permute(Layer):
    """The axes of each example in another order.

    dims: the axes' numbers from 1, which leaves out the batch axis. Raises ArgumentError unless
    each axis is named once.

    >>> graphnn.keras.layers.Permute((2, 1))(graphnn.ones((5, 2, 3))).shape == (5, 3, 2)
    True
    """

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(
                "Permute",
                received=f"dims={self.dims}",
                expected="the numbers from 1 to the number of axes of an example, each once",
                fix="for example dims=(2, 1)",
            )

    def call(self, inputs: Any) -> Any:
        return ops.permute_dims(inputs, (0, *self.dims))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dims": self.dims}


@register()
class RepeatVector(Layer):
    """Each row n times: shape (batch, d) becomes (batch, n, d).

    >>> graphnn.keras.layers.RepeatVector(3)(graphnn.ones((5, 2))).shape == (5, 3, 2)
    True
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = positive("RepeatVector", "n", n)

    def call(self, inputs: Any) -> Any:
        batch, width = inputs.shape
        return ops.broadcast_to(ops.expand_dims(inputs, axis=1), (batch, self.n, width))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"n": self.n}


@register()
class Masking(Layer):
    """Marks the steps in which all features have one value as padding, and sets them to 0.

    mask_value: the value. Inputs: (batch, steps, features). Layers that come after, losses and
    metrics leave the marked steps out.

    >>> graphnn.keras.layers.Masking(-1.0)(graphnn.constant([[[2.0], [-1.0]]])).numpy().tolist()
    [[[2.0], [0.0]]]
    """

    supports_masking = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """True where a step is no padding."""
        return ops.any(inputs != self.mask_value, axis=-1)

    def call(self, inputs: Any) -> Any:
        real = ops.any(inputs != self.mask_value, axis=-1, keepdims=True)
        outputs = ops.where(real, inputs, ops.zeros_like(inputs))
        return set_mask(outputs, ops.squeeze(real, axis=-1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mask_value": self.mask_value}


@register()
class Lambda(Layer):
    """A function as a layer.

    function: of the inputs; it may take `mask` and `training` too. output_shape: sizes without the
    batch axis, or a function of the input shape; found by itself if left out. mask: a mask for the
    outputs, or a function of (inputs, mask). arguments: further keywords for the function.

    A model with it can be saved if the function has a name and is registered with
    `keras.saving.register_keras_serializable()`; code is never stored. Weights that the function
    uses are not found: write a layer for those.

    >>> graphnn.keras.layers.Lambda(lambda x: x * 2.0)(graphnn.ones((1, 2))).numpy().tolist()
    [[2.0, 2.0]]
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        mask: Any = None,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise ArgumentError(
                "Lambda",
                received=f"{function!r} of type {type(function).__name__}",
                expected="a function of the inputs",
                fix="for example Lambda(lambda x: x * 2)",
            )
        self.function, self.mask = function, mask
        self.stated_shape, self.arguments = output_shape, dict(arguments or {})
        self.supports_masking = mask is not None
        self._takes = [k for k in ("mask", "training") if k in _parameters(function)]

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        given = {"mask": mask, "training": training}
        return self.function(inputs, **self.arguments, **{k: given[k] for k in self._takes})

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """What the constructor was told."""
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def compute_output_shape(self, input_shape: Any) -> Any:
        if self.stated_shape is None:
            return super().compute_output_shape(input_shape)
        if callable(self.stated_shape):
            return self.stated_shape(input_shape)
        batch = input_shape[0] if is_shape(input_shape) else tree.flatten(input_shape)[0]
        return (batch, *self.stated_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {"function": serialize_keras_object(self.function)}
        if self.stated_shape is not None:
            config["output_shape"] = serialize_keras_object(self.stated_shape)
        if self.mask is not None:
            config["mask"] = serialize_keras_object(self.mask)
        return config | {"arguments": serialize_keras_object(self.arguments)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Lambda:
        """An equal layer. Raises ArgumentError for a function that is not registered."""
        names = ("function", "output_shape", "mask", "arguments")
        revived = {k: deserialize_keras_object(config[k]) for k in names if k in config}
        shape = revived.get("output_shape")
        if isinstance(shape, list):
            revived["output_shape"] = tuple(shape)
        return cls(**{**config, **revived})


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # built-in functions may not tell
        return []
