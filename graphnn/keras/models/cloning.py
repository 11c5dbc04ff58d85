"""A copy of a model's structure with new weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import tree
from graphnn.keras.layers.inputs import Input, InputLayer
from graphnn.keras.layers.operation import OpLayer
from graphnn.keras.layers.symbolic import KerasTensor
from graphnn.keras.models.model import Model
from graphnn.keras.models.operations import KerasOperation
from graphnn.keras.models.sequential import Sequential
from graphnn.runtime.errors import ArgumentError


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Any], Any] | None = None,
    call_function: Callable[..., Any] | None = None,
) -> Any:
    """A model with the same structure and new layers, and so new weights.

    model: functional, Sequential, or of a class with `get_config`. input_tensors: symbolic tensors
    to begin with, by default new ones. clone_function(layer): the copy of one layer, by default
    made from its config. call_function(layer, *args, **kwargs): how the copy is called. Raises
    ArgumentError for more input tensors than a Sequential takes.

    >>> x = graphnn.keras.Input(shape=(3,))
    >>> model = graphnn.keras.Model(x, graphnn.keras.layers.Dense(2)(x))
    >>> graphnn.keras.models.clone_model(model).output_shape
    (None, 2)
    """
    clone = clone_function or _copy
    call = call_function or (lambda layer, *args, **kwargs: layer(*args, **kwargs))
    if isinstance(model, Sequential):
        return _clone_sequential(model, input_tensors, clone)
    if isinstance(model, Model) and model._graph is not None:
        return _clone_graph(model, input_tensors, clone, call)
    return type(model).from_config(model.get_config())


def _copy(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _clone_sequential(model: Sequential, tensors: Any, clone: Callable[[Any], Any]) -> Any:
    given = tree.flatten(tensors) if tensors is not None else (model.inputs or [])
    if len(given) > 1 or any(not isinstance(t, KerasTensor) for t in given):
        raise ArgumentError(
            "clone_model",
            received=f"input_tensors {tensors!r:.60}",
            expected="one symbolic tensor, or none",
            fix="give keras.Input(shape=...)",
        )
    begin = [Input(batch_shape=t.sizes.plain(), dtype=t.dtype, name=t.name) for t in given]
    layers = [clone(layer) for layer in model.layers]
    return type(model)([*begin, *layers], name=model.name, trainable=model.trainable)


def _clone_graph(model: Any, tensors: Any, clone: Any, call_function: Any) -> Any:
    graph = model._graph
    if tensors is None:
        fresh = {
            id(t): Input(batch_shape=t.sizes.plain(), dtype=t.dtype, name=t.name)
            for t in graph.inputs
        }
    else:
        fresh = dict(zip(map(id, graph.inputs), tree.flatten(tensors), strict=True))
    copies: dict[int, Any] = {}
    values: dict[int, Any] = dict(fresh)
    for call in graph.calls:
        layer = call.layer
        if isinstance(layer, InputLayer):
            continue
        if id(layer) not in copies:
            is_op = isinstance(layer, OpLayer | KerasOperation)
            copies[id(layer)] = _copy_op(layer) if is_op else clone(layer)
        args, kwargs = call.filled(values)
        result = call_function(copies[id(layer)], *args, **kwargs)
        found = [leaf for leaf in tree.flatten(result) if isinstance(leaf, KerasTensor)]
        values.update(zip(map(id, call.outputs), found, strict=True))

    def placed(structure: Any) -> Any:
        return tree.map_structure(lambda t: values[id(t)], structure)

    inputs, outputs = placed(graph.input_structure), placed(graph.output_structure)
    return type(model)(inputs=inputs, outputs=outputs, name=model.name, trainable=model.trainable)


def _copy_op(layer: OpLayer | KerasOperation) -> Any:
    if isinstance(layer, KerasOperation):
        return KerasOperation(layer.module, layer.class_name, layer.settings, layer.name)
    return OpLayer(layer.op, layer.types, layer.name)
