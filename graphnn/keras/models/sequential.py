"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphnn import tree
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.inputs import InputLayer
from graphnn.keras.layers.registry import deserialize, register, serialize
from graphnn.keras.layers.symbolic import KerasTensor, Shown
from graphnn.keras.masks import set_mask
from graphnn.keras.models.functional import fit_shape
from graphnn.keras.models.model import Model
from graphnn.keras.serialization import publish
from graphnn.keras.shapes import is_shape, shape_of
from graphnn.runtime.errors import ArgumentError


@publish("keras", "Sequential")
@register()
class Sequential(Model):
    """A model that passes its input through a list of layers.

    layers: may begin with `Input(shape)`; then the weights are made at once, otherwise at the first
    call, when the input's shape is known.

    >>> model = graphnn.keras.Sequential([graphnn.keras.Input((3,)), graphnn.keras.layers.Dense(2)])
    >>> model.count_params(), model.output_shape
    (8, (None, 2))
    """

    _layers_first = True
    _tensors: list[KerasTensor]
    _input: InputLayer | None
    _seen: tuple[Any, Any] | None

    def __init__(
        self,
        layers: Iterable[Any] | Any = (),
        trainable: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, trainable=trainable, **kwargs)
        self._stack: list[Any] = []
        # The Input, and the symbolic tensors after it and after each layer; not searched for
        # layers. seen: shape and dtype of the first data of a model without an Input.
        self.__dict__.update(_input=None, _tensors=[], _seen=None)
        for layer in layers if isinstance(layers, list | tuple) else [layers]:
            self.add(layer)

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Append a layer. Raises ArgumentError for what is none, or has the name of another."""
        if isinstance(layer, KerasTensor) and isinstance(layer.source.layer, InputLayer):
            layer = layer.source.layer
        if isinstance(layer, InputLayer):
            self._set_input(layer)
            return
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"add to {self.name}",
                received=f"{layer!r} of type {type(layer).__name__}",
                expected="a layer",
                fix="wrap a plain function into keras.layers.Lambda, or into a layer of your own",
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
        self.__dict__["_input"] = layer
        self._tensors.append(layer.output)

    def _extend(self) -> None:
        """Build layers whose input shape is known by now."""
        if self._input is None:
            return
        for layer in self._stack[len(self._tensors) - 1 :]:
            self._tensors.append(layer(self._tensors[-1]))
        self.built = True
        self.__dict__["_output_shape"] = self._plain(self._tensors[-1])

    @staticmethod
    def _plain(tensors: Any) -> Any:
        if isinstance(tensors, KerasTensor):
            return tensors.sizes.plain()
        return tree.map_structure(lambda t: t.sizes.plain(), tensors)

    def _known(self) -> list[KerasTensor]:
        """The symbolic tensors, made now if the model has seen data instead of an Input."""
        if self._input is None and self._seen is not None and self._stack:
            shape, dtype = self._seen
            self.__dict__["_input"] = layer = InputLayer(batch_shape=shape, dtype=dtype)
            self._tensors.append(layer.output)
            self._extend()
        return self._tensors

    def build(self, input_shape: Any = None) -> None:
        """Make all weights for inputs of a shape, in which None is a size that may vary."""
        if not is_shape(input_shape) or self._input is not None:
            super().build(input_shape)
            return
        first = next((layer for layer in self._stack), self)
        dtype = getattr(first, "input_dtype", None) or first.compute_dtype
        self.__dict__["_seen"] = (tuple(input_shape), dtype)
        self._known()

    def _needs_build(self) -> bool:
        return type(self).build is not Sequential.build and super()._needs_build()

    def get_build_config(self) -> dict[str, Any] | None:
        """The input's shape, if it is known."""
        return {"input_shape": self.input_shape} if self.input_shape is not None else None

    def pop(self, rebuild: bool = True) -> Any:
        """Take the last layer off and return it. Raises ArgumentError without layers."""
        if not self._stack:
            raise ArgumentError(f"pop of {self.name}", received="no layers", expected="a layer")
        del self._tensors[len(self._stack) :]
        self.__dict__["_output_shape"] = self._plain(self._tensors[-1]) if self._tensors else None
        return self._stack.pop()

    @property
    def layers(self) -> list[Any]:
        """The layers in order, without the Input."""
        return list(self._stack)

    @Shown
    def inputs(self) -> Any:
        """The symbolic input, in a list; None before its shape is known."""
        return self._known()[:1] or None

    @Shown
    def outputs(self) -> Any:
        """The symbolic output, in a list; None before the input's shape is known."""
        tensors = self._known()
        return tree.flatten(tensors[-1]) if tensors else None

    @Shown
    def input_shape(self) -> Any:
        """Shape of the input, None for sizes that vary; None before it is known."""
        tensors = self._known()
        return self._plain(tensors[0]) if tensors else None

    @Shown
    def output_shape(self) -> Any:
        """Shape of the output, None for sizes that vary; None before it is known."""
        tensors = self._known()
        return self._plain(tensors[-1]) if tensors else None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The output of the last layer; `training` reaches each of them."""
        if mask is not None:
            set_mask(inputs, mask)
        if self._seen is None and self._input is None and hasattr(inputs, "dtype"):
            shape = shape_of(inputs)
            self.__dict__["_seen"] = ((None, *shape[1:]) if shape else shape, inputs.dtype)
        if self._input is not None and self._seen is None:
            inputs = fit_shape(self._input.output, self._single(inputs))
        for layer in self._stack:
            inputs = layer(inputs)
        return inputs

    def _single(self, inputs: Any) -> Any:
        """The one input. Raises ArgumentError for several, and for a dict."""
        if isinstance(inputs, list | tuple) and len(inputs) == 1:
            return inputs[0]
        if not tree.is_nested(inputs):
            return inputs
        raise ArgumentError(
            f"the input of {self.name}",
            received=tree.skeleton(inputs),
            expected="one tensor",
            fix="give Datasets and generators of (x, y), or make a functional model, which may "
            "have several inputs",
        )

    def get_config(self) -> dict[str, Any]:
        self._known()
        stack = [self._input, *self._stack] if self._input is not None else self._stack
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": self._policy_config(),
            "layers": [serialize(layer) for layer in stack],
        }
        if self._input is not None:
            config["build_input_shape"] = self._input.batch_shape
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Sequential:
        layers = [deserialize(item) for item in config["layers"]]
        model = cls(
            layers,
            name=config.get("name"),
            trainable=config.get("trainable", True),
            dtype=config.get("dtype"),
        )
        shape = config.get("build_input_shape")
        if shape is not None and model._input is None and layers:
            model.build(tuple(shape))
        return model
