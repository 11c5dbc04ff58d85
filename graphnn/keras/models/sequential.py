"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphnn.keras.layers.abstract import outputs_of
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.inputs import InputLayer
from graphnn.keras.layers.registry import deserialize, register, serialize
from graphnn.keras.models.model import Model
from graphnn.keras.shapes import shape_of
from graphnn.runtime.errors import ArgumentError


@register()
class Sequential(Model):
    """A model that passes its input through a list of layers.

    layers: may begin with `Input(shape)`; then the weights are made at once, otherwise at the first
    call, when the input's shape is known.

    >>> model = graphnn.keras.Sequential([graphnn.keras.Input((3,)), graphnn.keras.layers.Dense(2)])
    >>> model.count_params(), model.output_shape
    (8, (None, 2))
    """

    _shapes: list[tuple[Any, Any]]

    def __init__(
        self,
        layers: Iterable[Any] | Any = (),
        trainable: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, trainable=trainable, **kwargs)
        self._stack: list[Any] = []
        self._input: Any = None
        # Shape and dtype after each layer, the input's first. Not searched for layers.
        self.__dict__["_shapes"] = []
        for layer in layers if isinstance(layers, list | tuple) else [layers]:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Append a layer. Raises ArgumentError for what is none, or has the name of another."""
        if isinstance(layer, InputLayer):
            self._set_input(layer)
            return
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"add to {self.name}",
                received=f"{layer!r} of type {type(layer).__name__}",
                expected="a layer",
                fix="wrap a plain function into a subclass of keras.layers.Layer",
            )
        if any(other is not layer and other.name == layer.name for other in self._stack):
            raise ArgumentError(
                f"add to {self.name}",
                received=f"a second layer with the name {layer.name}",
                expected="different names",
                fix="give the layer another name=",
            )
        if self._input is None and not self._stack and layer._input_shape is not None:
            self._set_input(InputLayer(layer._input_shape))
        self._stack.append(layer)
        self._extend()

    def _set_input(self, layer: InputLayer) -> None:
        if self._stack or self._input is not None:
            raise ArgumentError(
                f"add to {self.name}",
                received="an Input that is not the first layer",
                expected="the Input before all layers",
                fix="put it first",
            )
        self._input = layer
        self._shapes.append((layer.batch_shape, layer.dtype))

    def _extend(self) -> None:
        """Build layers whose input shape is known by now."""
        if self._input is None:
            return
        for layer in self._stack[len(self._shapes) - 1 :]:
            shape, dtype = self._shapes[-1]
            output = outputs_of(layer, shape, dtype)
            self._shapes.append((shape_of(output), output.dtype))
        self.built = True
        self.__dict__["_output_shape"] = self._shapes[-1][0]

    def pop(self) -> Any:
        """Take the last layer off and return it. Raises ArgumentError without layers."""
        if not self._stack:
            raise ArgumentError(f"pop of {self.name}", received="no layers", expected="a layer")
        del self._shapes[len(self._stack) :]
        return self._stack.pop()

    @property
    def layers(self) -> list[Any]:
        """The layers in order, without the Input."""
        return list(self._stack)

    @property
    def input_shape(self) -> Any:
        """Shape of the input, None for sizes that vary; None before it is known."""
        return self._shapes[0][0] if self._shapes else None

    @property
    def output_shape(self) -> Any:
        """Shape of the output, None for sizes that vary; None before it is known."""
        return self._output_shape

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The output of the last layer; `training` reaches each of them."""
        for layer in self._stack:
            inputs = layer(inputs)
        return inputs

    def get_config(self) -> dict[str, Any]:
        stack = [self._input, *self._stack] if self._input is not None else self._stack
        layers = [serialize(layer) for layer in stack]
        return {"name": self.name, "trainable": self.trainable, "layers": layers}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        layers = [deserialize(item) for item in config["layers"]]
        return cls(layers, name=config.get("name"), trainable=config.get("trainable", True))
