"""Functional models as plain data, in the layout of Keras 3, and back."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.keras.layers.operation import OpLayer
from graphnn.keras.layers.registry import deserialize, serialize
from graphnn.keras.layers.symbolic import Call, KerasTensor
from graphnn.keras.models.functional import LayerGraph
from graphnn.keras.models.operations import (
    KerasOperation,
    constant_entry,
    extra_arguments,
    is_operation,
    operation_entry,
    operation_from,
    takes_list,
)
from graphnn.runtime.errors import ArgumentError
from graphnn.strings import dtype_name
from graphnn.tensor import Operand

# ---- writing --------------------------------------------------------------------------------


def graph_config(model: Any, graph: LayerGraph) -> dict[str, Any]:
    """What `graph_from_config` needs: the layers with the calls that join them, inputs, outputs.

    Raises what the `get_config` methods of the layers raise.
    """
    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": [_layer_entry(layer, graph) for layer in graph.operations],
        "input_layers": _places(graph.input_structure, graph),
        "output_layers": _places(graph.output_structure, graph),
    }


def _layer_entry(layer: Any, graph: LayerGraph) -> dict[str, Any]:
    single_op = isinstance(layer, OpLayer | KerasOperation)
    entry = operation_entry(layer) if single_op else dict(serialize(layer))
    calls = [call for call in graph.own_calls(layer) if call.args or call.kwargs]
    return entry | {"name": layer.name, "inbound_nodes": [_call_entry(c, graph) for c in calls]}


def _call_entry(call: Call, graph: LayerGraph) -> dict[str, Any]:
    args: list[Any] = [_argument(arg, graph) for arg in call.args]
    if takes_list(call.layer):
        args = [args]
    args += [_argument(value, graph) for value in extra_arguments(call.layer)]
    return {"args": args, "kwargs": {k: _argument(v, graph) for k, v in call.kwargs.items()}}


def _argument(value: Any, graph: LayerGraph) -> Any:
    if isinstance(value, KerasTensor):
        config = {
            "shape": list(value.sizes.plain()),
            "dtype": dtype_name(value.dtype),
            "keras_history": [value.source.layer.name, _number(value, graph), value.index],
        }
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(value, Operand):
        # Keras takes a number as it is.
        return value.item() if not value.shape else constant_entry(value)
    if isinstance(value, np.ndarray):
        return constant_entry(ops.asarray(value))
    if isinstance(value, dict):
        return {k: _argument(v, graph) for k, v in value.items()}
    if isinstance(value, tuple):
        return {"class_name": "__tuple__", "items": [_argument(v, graph) for v in value]}
    if isinstance(value, list):
        return [_argument(v, graph) for v in value]
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, slice):
        return _slice_entry(value)
    if value is ...:
        return {"class_name": "__ellipsis__", "config": {}}
    raise ArgumentError(
        "the config of a model",
        received=f"the argument {value!r:.60} of a layer's call",
        expected="symbolic tensors, arrays and plain values",
        fix="make it an argument of the layer's constructor",
    )


def _slice_entry(value: slice) -> dict[str, Any]:
    config = {"start": value.start, "stop": value.stop, "step": value.step}
    return {"class_name": "__slice__", "config": config}


def _number(tensor: KerasTensor, graph: LayerGraph) -> int:
    """Which of the layer's calls in this graph gives the tensor."""
    calls = graph.own_calls(tensor.source.layer)
    return next(i for i, call in enumerate(calls) if call is tensor.source)


def _places(structure: Any, graph: LayerGraph) -> Any:
    """[layer name, number of the call, number of the output] for each tensor of a structure."""
    if isinstance(structure, dict):
        return {k: _places(v, graph) for k, v in structure.items()}
    if isinstance(structure, list | tuple):
        return [_places(v, graph) for v in structure]
    layer = structure.source.layer
    return [layer.name, _number(structure, graph) + _first_number(layer), structure.index]


def _first_number(layer: Any) -> int:
    """Keras counts the calls of a functional model from 1 in this one place."""
    return int(getattr(layer, "_counts_from_one", False))


# ---- reading --------------------------------------------------------------------------------


class _Reader:
    """Makes the layers of a config, then calls them as far as their inputs are known."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.layers: dict[str, Any] = {}
        self.starts: dict[str, int] = {}  # calls that a layer had when it was made
        self.waiting: list[tuple[str, dict[str, Any]]] = []
        for entry in config["layers"]:
            name = entry.get("name") or entry["config"]["name"]
            layer = operation_from(entry) if is_operation(entry) else deserialize(entry)
            self.layers[name] = layer
            self.starts[name] = 0 if not entry.get("inbound_nodes") else len(layer._calls)
            self.waiting += [(name, call) for call in entry.get("inbound_nodes", ())]

    def connect(self) -> None:
        """All calls. Raises ArgumentError if some wait for one another."""
        while self.waiting:
            still: list[tuple[str, dict[str, Any]]] = []
            stuck: set[str] = set()
            for name, call in self.waiting:
                # The calls of one layer keep their order.
                if name in stuck or not self._ready(call):
                    stuck.add(name)
                    still.append((name, call))
                    continue
                self._call(name, call)
            if len(still) == len(self.waiting):
                raise ArgumentError(
                    "a model config",
                    received="calls of " + ", ".join(sorted(stuck)) + " that wait for one another",
                    expected="calls whose inputs come from other calls of the config",
                    fix="write the config anew with model.get_config()",
                )
            self.waiting = still

    def _call(self, name: str, call: Any) -> None:
        layer = self.layers[name]
        if isinstance(call, list):  # Keras 2: a list of [name, number, output, keywords]
            tensors = [self.tensor(*place[:3]) for place in call]
            kwargs = call[0][3] if len(call[0]) > 3 else {}
            layer(tensors[0] if len(tensors) == 1 else tensors, **kwargs)
            return
        args = [self._revived(arg) for arg in call["args"]]
        kwargs = {k: self._revived(v) for k, v in call["kwargs"].items()}
        if takes_list(layer) and len(args) == 1 and isinstance(args[0], list):
            args = args[0]
        if isinstance(layer, OpLayer):
            args = [a if isinstance(a, Operand) else _like(a, layer, i) for i, a in enumerate(args)]
        layer(*args, **kwargs)

    def _ready(self, value: Any) -> bool:
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                name, number, _ = value["config"]["keras_history"]
                return self._has(name, number)
            return all(map(self._ready, value.values()))
        if isinstance(value, list):
            if _is_place(value):
                return self._has(value[0], value[1])
            return all(map(self._ready, value))
        return True

    def _has(self, name: str, number: int) -> bool:
        return name in self.layers and len(self.layers[name]._calls) > self.starts[name] + number

    def tensor(self, name: str, number: int, index: int) -> KerasTensor:
        """The output of a call. Raises ArgumentError if there is none."""
        if not self._has(name, number):
            raise ArgumentError(
                "a model config",
                received=f"output {index} of call {number} of {name!r}",
                expected="a layer of the config and one of its calls",
                fix="write the config anew with model.get_config()",
            )
        call = self.layers[name]._calls[self.starts[name] + number]
        return call.outputs[index]  # type: ignore[no-any-return]

    def _revived(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._revived(v) for v in value]
        if not isinstance(value, dict):
            return value
        kind, config = value.get("class_name"), value.get("config", {})
        if kind == "__keras_tensor__":
            return self.tensor(*config["keras_history"])
        if kind == "__tuple__":
            return tuple(self._revived(v) for v in value["items"])
        if kind == "__slice__":
            return slice(config["start"], config["stop"], config["step"])
        if kind == "__ellipsis__":
            return ...
        if kind in ("__tensor__", "__numpy__"):
            return ops.asarray(np.asarray(config["value"], config["dtype"]))
        return {k: self._revived(v) for k, v in value.items()}

    def places(self, structure: Any) -> Any:
        """The tensors of `input_layers` or `output_layers`."""
        if isinstance(structure, dict):
            return {k: self.places(v) for k, v in structure.items()}
        if _is_place(structure):
            name, number, index = structure[:3]
            return self.tensor(name, number - _first_number(self.layers.get(name)), index)
        return [self.places(v) for v in structure]


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def _like(value: Any, layer: OpLayer, position: int) -> Any:
    dtype = layer.types[position].dtype if position < len(layer.types) else None
    return ops.asarray(value, dtype=dtype)


def graph_from_config(config: dict[str, Any]) -> tuple[Any, Any]:
    """The symbolic inputs and outputs that a config describes, with new layers.

    Raises ArgumentError for a config that does not fit together, and for layers that are unknown.
    """
    reader = _Reader(config)
    reader.connect()
    return reader.places(config["input_layers"]), reader.places(config["output_layers"])


def takes_graph(cls: type) -> bool:
    """Whether a model class is made from inputs and outputs, as Model is."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    kinds = {p.kind for p in parameters}
    names = [p.name for p in parameters]
    free = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
    return free or names[:2] == ["inputs", "outputs"]
