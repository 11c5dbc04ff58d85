"""Model: a layer that can be compiled, trained, evaluated and used to predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from graphnn.keras import mixed_precision, naming
from graphnn.keras.layers.abstract import output_shape_of
from graphnn.keras.layers.base import Layer, automatic
from graphnn.keras.layers.registry import register
from graphnn.keras.layers.symbolic import Shown
from graphnn.keras.models.config import graph_config, graph_from_config, takes_graph
from graphnn.keras.models.functional import LayerGraph, shapes, symbolic_arguments
from graphnn.keras.models.summary import summary_text
from graphnn.keras.models.trainer import Trainer
from graphnn.keras.saving.methods import Saving
from graphnn.keras.serialization import publish
from graphnn.keras.shapes import shapes_of
from graphnn.runtime.errors import ArgumentError, missing_method


class Model(Trainer, Saving, Layer):
    """A layer with `compile`, `fit`, `evaluate` and `predict`.

    Made from symbolic tensors, `Model(inputs, outputs)`, or by subclassing: subclasses make their
    layers in `__init__` and use them in `call`. A subclass without a `call` of its own is made from
    symbolic tensors too.

    inputs, outputs: symbolic tensors, or lists and dicts of them.

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

    _graph: LayerGraph | None
    _counts_from_one = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        wanted: Any = cls
        if cls is Model and symbolic_arguments(args, kwargs) is not None:
            wanted = Functional
        self: Self = super().__new__(wanted, *args, **kwargs)
        self.__dict__["_graph"] = None
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        found = symbolic_arguments(args, kwargs)
        if found is None:
            if args:
                raise ArgumentError(
                    type(self).__name__,
                    received=f"{len(args)} positional arguments",
                    expected="inputs and outputs, or keywords such as name",
                    fix="for example keras.Model(inputs=inputs, outputs=outputs)",
                )
            super().__init__(**kwargs)
            return
        inputs, outputs, rest = found
        name = rest.pop("name", None) or naming.unique_name(type(self).__name__)
        trainable = rest.pop("trainable", None)
        super().__init__(name=name, **rest)
        self._set_graph(LayerGraph(inputs, outputs))
        if trainable is not None and not trainable:
            self.trainable = False

    def _set_graph(self, graph: LayerGraph) -> None:
        self.__dict__["_graph"] = graph
        self._operations = graph.operations  # an attribute, so that their weights are found
        self.built = True
        self.__dict__["_output_shape"] = self.output_shape

    # ---- the call ---------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The outputs for inputs nested as the model's own, or in a dict by their names.

        Subclasses that are not made from symbolic tensors define their own.
        """
        if self._graph is None:
            kind = type(self).__name__
            fix = f"define it in {kind}, or make the model from tensors: {kind}(inputs, outputs)"
            raise missing_method(self, "call(self, inputs)", fix)
        return self._graph.run(inputs, mask)

    def _cast_inputs(self, values: Any) -> Any:
        # Each Input has a dtype of its own.
        return super()._cast_inputs(values) if self._graph is None else values

    def _mark(self, inputs: Any, outputs: Any, mask: Any) -> None:
        """The layers inside have done it."""

    def build(self, input_shape: Any = None) -> None:
        """Make all weights for inputs of a shape, by running `call` on tensors without values."""
        if self._graph is not None:
            return
        if input_shape is None:
            raise ArgumentError(
                f"build of {self.name}",
                received="no input shape",
                expected="the shape of the inputs, None for sizes that vary",
                fix="for example model.build((None, 784)), or call the model on data",
            )
        self.__dict__["_output_shape"] = output_shape_of(self, input_shape)

    def _build_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.built and not self._needs_build() and len(args) == 1:
            self.__dict__["_build_shapes"] = {"input_shape": shapes_of(args[0], batch=None)}
        super()._build_once(args, kwargs)

    @property
    def _layers_first(self) -> bool:  # in files, before what other attributes hold
        return self._graph is not None

    def _needs_build(self) -> bool:
        # The weights of sublayers are made as the call reaches them.
        return type(self).build not in (Layer.build, Model.build)

    # ---- looking inside ---------------------------------------------------------------------

    @property
    def layers(self) -> list[Any]:
        """The layers that the model holds itself; of a functional model those between its inputs
        and outputs, Inputs included."""
        return self._own(Layer) if self._graph is None else self._graph.layers

    @property
    def operations(self) -> list[Any]:
        """The layers, with those that stand for single ops on symbolic tensors."""
        return self.layers if self._graph is None else list(self._graph.operations)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """One of `layers`, by name or by position. Raises ArgumentError if there is none."""
        layers = self.layers
        if index is not None and name is None and -len(layers) <= index < len(layers):
            return layers[index]
        found = [layer for layer in [*layers, *self.operations] if layer.name == name]
        if found and index is None:
            return found[0]
        raise ArgumentError(
            f"get_layer of {self.name}",
            received=f"name={name!r}, index={index!r}",
            expected="a position below "
            f"{len(layers)}, or one of the names {', '.join(layer.name for layer in layers)}",
            fix="give either the name or the index of a layer of the model",
        )

    @Shown
    def inputs(self) -> Any:
        """The symbolic inputs, in a list; None for a model that was not made from them."""
        return None if self._graph is None else list(self._graph.inputs)

    @Shown
    def outputs(self) -> Any:
        """The symbolic outputs, in a list; None for a model that was not made from them."""
        return None if self._graph is None else list(self._graph.outputs)

    @Shown
    def input(self) -> Any:
        """The symbolic inputs, nested as they were given."""
        return _nested(self, "input")

    @Shown
    def output(self) -> Any:
        """The symbolic outputs, nested as they were given."""
        return _nested(self, "output")

    @Shown
    def input_names(self) -> Any:
        """Names of the inputs."""
        return [tensor.name for tensor in self.inputs] if self.inputs else None

    @Shown
    def output_names(self) -> Any:
        """Names of the layers that give the outputs."""
        return None if self._graph is None else self._graph.output_names

    @Shown
    def input_shape(self) -> Any:
        """Shape of the input, or a list of shapes; None where it is not known."""
        return None if self._graph is None else shapes(self._graph.inputs)

    @Shown
    def output_shape(self) -> Any:
        """Shape of the output, or a list of shapes; None where it is not known."""
        return self._output_shape if self._graph is None else shapes(self._graph.outputs)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Print a table of the layers, their output shapes, numbers of weights and, where layers do
        not simply follow one another, what they are called on.

        Shapes are known after the first call or `build`. print_fn: takes the text. expand_nested:
        show the layers of models inside. show_trainable: a column Y or N. layer_range: (first,
        last) names of layers. line_length: the table's width in characters; by default as wide as
        needed, up to 88, or 108 with connections, and to the terminal's width. Longer cells wrap.
        positions: accepted for Keras' sake.
        """
        text = summary_text(self, line_length, expand_nested, show_trainable, layer_range)
        (print_fn or print)(text)

    # ---- configs ----------------------------------------------------------------------------

    @automatic
    def get_config(self) -> dict[str, Any]:
        """The graph of layers of a functional model; the constructor's arguments of another."""
        if self._graph is not None and takes_graph(type(self)):
            return graph_config(self, self._graph)
        return super().get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """A model equal to the one whose `get_config` this is, with new weights."""
        if not {"layers", "input_layers", "output_layers"} <= set(config):
            return super().from_config(config)
        inputs, outputs = graph_from_config(config)
        rest = {
            k: v for k, v in config.items() if k not in ("layers", "input_layers", "output_layers")
        }
        return cls(inputs=inputs, outputs=outputs, **rest)

    def _policy_config(self) -> dict[str, Any]:
        return mixed_precision.serialize(self.dtype_policy)


@publish("keras.src.models.functional", "Functional")
@register()
class Functional(Model):
    """What `keras.Model(inputs, outputs)` makes: a graph of layers between symbolic tensors.

    >>> x = graphnn.keras.Input(shape=(3,))
    >>> model = graphnn.keras.Model(x, graphnn.keras.layers.Dense(2)(x))
    >>> model.output_shape, model.count_params()
    ((None, 2), 8)
    """

    _counts_from_one = True


def _nested(model: Any, which: str) -> Any:
    graph = model._graph
    if graph is not None:
        return graph.input_structure if which == "input" else graph.output_structure
    tensors = getattr(model, f"{which}s")
    if tensors is None:
        descriptor: Any = getattr(Layer, which)
        return descriptor.__get__(model, type(model))
    return tensors[0] if len(tensors) == 1 else list(tensors)
