"""Model: a layer that can be compiled, trained, evaluated and used to predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn.keras.layers.abstract import output_shape_of
from graphnn.keras.layers.base import Layer
from graphnn.keras.models.summary import summary_text
from graphnn.keras.models.trainer import Trainer
from graphnn.runtime.errors import ArgumentError


class Model(Trainer, Layer):
    """A layer with `compile`, `fit`, `evaluate` and `predict`.

    Subclasses make their layers in `__init__` and use them in `call`.

    >>> class Net(graphnn.keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.head = graphnn.keras.layers.Dense(2)
    ...     def call(self, inputs):
    ...         return self.head(inputs)
    >>> model = Net()
    >>> model.compile(optimizer="sgd", loss="mse")
    >>> history = model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    >>> list(history.history), model.predict(np.ones((4, 3)), verbose=0).shape
    (['loss'], (4, 2))
    """

    def build(self, input_shape: Any = None) -> None:
        """Make all weights for inputs of a shape, by running `call` on tensors without values."""
        if input_shape is None:
            raise ArgumentError(
                f"build of {self.name}",
                received="no input shape",
                expected="the shape of the inputs, None for sizes that vary",
                fix="for example model.build((None, 784)), or call the model on data",
            )
        self.__dict__["_output_shape"] = output_shape_of(self, input_shape)

    def _needs_build(self) -> bool:
        # The weights of sublayers are made as the call reaches them.
        return type(self).build not in (Layer.build, Model.build)

    @property
    def layers(self) -> list[Any]:
        """The layers that the model holds itself."""
        return self._own(Layer)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """One of `layers`, by name or by position. Raises ArgumentError if there is none."""
        layers = self.layers
        if index is not None and name is None and -len(layers) <= index < len(layers):
            return layers[index]
        found = [layer for layer in layers if layer.name == name]
        if found and index is None:
            return found[0]
        raise ArgumentError(
            f"get_layer of {self.name}",
            received=f"name={name!r}, index={index!r}",
            expected="a position below "
            f"{len(layers)}, or one of the names {', '.join(layer.name for layer in layers)}",
            fix="give either the name or the index of a layer of the model",
        )

    def summary(
        self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None
    ) -> None:
        """Print a table of the layers, their output shapes and numbers of weights.

        Shapes are known after the first call or `build`. print_fn: takes the text.
        """
        (print_fn or print)(summary_text(self, line_length))
