"""Functional models: what lies between some symbolic inputs and outputs, run on data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphnn import ops, tree
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import describe
from graphnn.keras.layers.inputs import Input, InputLayer
from graphnn.keras.layers.operation import OpLayer, known_sizes, solve
from graphnn.keras.layers.symbolic import Call, KerasTensor, single
from graphnn.keras.masks import mask_of, set_mask
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.tensor import Operand


class LayerGraph:
    """The calls of layers that lead from inputs to outputs.

    inputs, outputs: symbolic tensors, or structures of them. Inputs that are outputs of layers
    themselves get an Input of their own, and the calls after them are written down anew. Raises
    ArgumentError for other things, for outputs that need inputs which are not given, and for two
    layers with one name.

    calls: in an order in which they can be run. operations: the layers, those farthest from the
    outputs first; among equals, in the order in which they are met from the outputs. This is the
    order of Keras, in which its files list the layers.
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        _check_symbolic("inputs", inputs)
        _check_symbolic("outputs", outputs)
        if not all(isinstance(t.source.layer, InputLayer) for t in tree.flatten(inputs)):
            inputs, outputs = _with_own_inputs(inputs, outputs)
        self.input_structure, self.output_structure = inputs, outputs
        self.inputs: list[KerasTensor] = tree.flatten(inputs)
        self.outputs: list[KerasTensor] = tree.flatten(outputs)
        self.calls, met = _calls_to(self.outputs, self.inputs)
        self.operations = _by_depth(self.calls, met, self.inputs)
        self._check_names()
        self._own = {id(call) for call in self.calls} | {id(t.source) for t in self.inputs}

    @property
    def layers(self) -> list[Any]:
        """The layers without those that stand for single ops."""
        return [layer for layer in self.operations if not isinstance(layer, OpLayer)]

    @property
    def output_names(self) -> list[str]:
        """For each output the name of the layer that gives it."""
        return [tensor.source.layer.name for tensor in self.outputs]

    def own_calls(self, layer: Any) -> list[Call]:
        """The calls of a layer that belong to this graph."""
        return [call for call in layer._calls if id(call) in self._own]

    def _check_names(self) -> None:
        names: dict[str, Any] = {}
        for layer in self.operations:
            other = names.setdefault(layer.name, layer)
            if other is not layer:
                raise ArgumentError(
                    "a functional model",
                    received=f"two layers with the name {layer.name!r}",
                    expected="different names",
                    fix="give one of them another name=",
                )

    # ---- running ------------------------------------------------------------------------

    def run(self, inputs: Any, mask: Any = None) -> Any:
        """The outputs for tensors, nested as the model's outputs are.

        inputs: nested as the model's inputs, a list in their order, or a dict by their names. mask:
        masks for them. Raises ArgumentError and ShapeError for inputs that do not fit.
        """
        given = self._fitted(self._arranged(inputs))
        if mask is not None:
            for tensor, its in zip(given, _masks(mask, len(given)), strict=True):
                if its is not None:
                    set_mask(tensor, its)
        values: dict[int, Any] = {id(k): v for k, v in zip(self.inputs, given, strict=True)}
        sizes = solve([k.type for k in self.inputs], [v.shape for v in given])
        with known_sizes(sizes):
            for call in self.calls:
                if not call.inputs and isinstance(call.layer, InputLayer):
                    continue
                args, kwargs = call.filled(values)
                result = tree.flatten(call.layer(*args, **kwargs))
                tensors = [leaf for leaf in result if isinstance(leaf, Operand)]
                values.update(zip(map(id, call.outputs), tensors, strict=True))
        return _mapped(self.output_structure, values)

    def _arranged(self, inputs: Any) -> list[Any]:
        """What was given, in the order of `inputs`."""
        wanted = self.input_structure
        if isinstance(inputs, dict):
            names = _names_of(wanted)
            if names is not None and all(name in inputs for name in names):
                return [inputs[name] for name in names]
            if not isinstance(wanted, dict) or any(k not in inputs for k in wanted):
                raise self._misfit(inputs)
            inputs = {key: inputs[key] for key in wanted}
        flat = tree.flatten(inputs)
        if len(flat) != len(self.inputs):
            raise self._misfit(inputs)
        return flat

    def _misfit(self, inputs: Any) -> ArgumentError:
        names = ", ".join(repr(tensor.name) for tensor in self.inputs)
        keys = f"the keys {', '.join(map(repr, inputs))}" if isinstance(inputs, dict) else ""
        return ArgumentError(
            "the inputs of a model",
            received=keys or f"{len(tree.flatten(inputs))} tensors",
            expected=f"{len(self.inputs)} tensors, for the inputs {names}",
            fix="give a list in this order, or a dict with these names",
        )

    def _fitted(self, given: list[Any]) -> list[Any]:
        return [_fit(k, v) for k, v in zip(self.inputs, given, strict=True)]


def _check_symbolic(what: str, structure: Any) -> None:
    leaves = tree.flatten(structure)
    wrong = [leaf for leaf in leaves if not isinstance(leaf, KerasTensor)]
    if leaves and not wrong:
        return
    raise ArgumentError(
        f"the {what} of a model",
        received=f"{type(wrong[0]).__name__} {wrong[0]!r:.60}" if wrong else "nothing",
        expected="symbolic tensors",
        fix="begin with keras.Input(shape=...), and call layers on it",
    )


def _mapped(structure: Any, values: dict[int, Any]) -> Any:
    if isinstance(structure, KerasTensor):
        return values[id(structure)]
    return tree.map_structure(lambda leaf: values[id(leaf)], structure)


def _names_of(structure: Any) -> list[str] | None:
    """Names of the inputs where they are one tensor or a flat list."""
    if isinstance(structure, KerasTensor):
        return [structure.name]
    if isinstance(structure, list | tuple) and all(isinstance(t, KerasTensor) for t in structure):
        return [t.name for t in structure]
    return None


def _masks(mask: Any, count: int) -> list[Any]:
    flat = [mask] if not tree.is_nested(mask) else tree.flatten(mask)
    return flat if len(flat) == count else [*flat, *[None] * count][:count]


def fit_shape(wanted: KerasTensor, given: Any) -> Any:
    """A tensor in the rank of an input. Raises ShapeError for another shape."""
    value = given if isinstance(given, Operand) else ops.asarray(given)
    mask = mask_of(value)
    rank = len(wanted.sizes)
    if len(value.shape) == rank + 1 and value.shape[-1] == 1:
        value = set_mask(ops.squeeze(value, axis=-1), mask)
    elif len(value.shape) == rank - 1 and wanted.sizes[-1] == 1:
        value = set_mask(ops.expand_dims(value, axis=-1), mask)
    fits = len(value.shape) == rank and all(
        isinstance(a, Size) or isinstance(b, Size) or a == b
        for a, b in zip(wanted.sizes, value.shape, strict=True)
    )
    if not fits:
        single = len(value.shape) == rank - 1
        raise ShapeError(
            f"the input {wanted.name!r} of a model",
            received=describe(value.dtype, tuple(value.shape)),
            expected=f"shape {wanted.shape}",
            fix="give batches: dataset.batch(32), or x[None] for one example"
            if single
            else "give data of this shape, or make the model with None for sizes that vary",
        )
    return value


def _fit(wanted: KerasTensor, given: Any) -> Any:
    """A tensor in the dtype and rank of an input. Raises ShapeError for another shape."""
    value = fit_shape(wanted, given)
    mask = mask_of(value)
    if value.dtype == wanted.dtype:
        return value
    return set_mask(ops.cast(value, wanted.dtype), mask)


# ---- the graph ------------------------------------------------------------------------------


def _calls_to(
    outputs: Sequence[KerasTensor], inputs: Sequence[KerasTensor]
) -> tuple[list[Call], dict[int, int]]:
    """The calls that outputs need, each after those it needs itself; and by id of a layer, when it
    was first met. Without recursion, so that depth has no limit."""
    ends = {id(tensor.source) for tensor in inputs}
    done: dict[int, Call] = {}
    met: dict[int, int] = {}
    for output in outputs:
        stack: list[tuple[Call, bool]] = [(output.source, False)]
        while stack:
            call, finished = stack.pop()
            if id(call) in done:
                continue
            if finished:
                done[id(call)] = call
                continue
            met.setdefault(id(call.layer), len(met))
            if isinstance(call.layer, InputLayer) and id(call) not in ends:
                raise _disconnected(call, output, inputs)
            stack.append((call, True))
            if id(call) not in ends:
                stack += [(tensor.source, False) for tensor in reversed(call.inputs)]
    return list(done.values()), met


def _disconnected(call: Call, output: KerasTensor, inputs: Sequence[KerasTensor]) -> ArgumentError:
    return ArgumentError(
        "a functional model",
        received=f"the inputs {', '.join(t.name for t in inputs)}, but the output of "
        f"{output.source.layer.name} also needs {call.layer.name}",
        expected="all inputs that the outputs need",
        fix=f"add {call.layer.name} to the inputs of the model",
    )


def _by_depth(
    calls: Sequence[Call], met: dict[int, int], inputs: Sequence[KerasTensor]
) -> list[Any]:
    """The layers of some calls, each once, in Keras' order."""
    layers: dict[int, Any] = {}
    layer_depth: dict[int, int] = {}
    call_depth: dict[int, int] = {}
    for call in reversed(calls):
        key = id(call.layer)
        layers[key] = call.layer
        depth = max(call_depth.get(id(call), 0), layer_depth.get(key, 0))
        layer_depth[key] = call_depth[id(call)] = depth
        for tensor in call.inputs:
            before = id(tensor.source)
            call_depth[before] = max(depth + 1, call_depth.get(before, 0))
    for tensor in inputs:  # also those that no output needs
        key = id(tensor.source.layer)
        layers.setdefault(key, tensor.source.layer)
        layer_depth.setdefault(key, 0)
    order = sorted(layers, key=lambda key: (-layer_depth[key], met.get(key, -1)))
    return [layers[key] for key in order]


def _with_own_inputs(inputs: Any, outputs: Any) -> tuple[Any, Any]:
    """The same with an Input in place of each input that is the output of a layer."""
    flat = tree.flatten(inputs)
    calls, _ = _calls_to(tree.flatten(outputs), flat)
    values: dict[int, Any] = {}
    for tensor in flat:
        fresh = tensor
        if not isinstance(tensor.source.layer, InputLayer):
            plain = tensor.sizes.plain()
            fresh = Input(batch_shape=plain, dtype=tensor.dtype, name=f"{tensor.name}_input")
        values[id(tensor)] = fresh
    for call in calls:
        if all(id(tensor) in values for tensor in call.outputs):
            continue
        args, kwargs = call.filled(values)
        again = call.layer(*args, **kwargs)
        found = [leaf for leaf in tree.flatten(again) if isinstance(leaf, KerasTensor)]
        for old, new in zip(call.outputs, found, strict=True):
            values.setdefault(id(old), new)
    return _mapped(inputs, values), _mapped(outputs, values)


# ---- arguments of Model ---------------------------------------------------------------------


def symbolic_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]] | None:
    """(inputs, outputs, the other keywords) where a constructor was given both; else None."""
    if len(args) >= 2:
        names = ("inputs", "outputs", "name")
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
    elif len(args) == 1 and "outputs" in kwargs:
        kwargs = {"inputs": args[0], **kwargs}
    if "inputs" not in kwargs or "outputs" not in kwargs:
        return None
    rest = {k: v for k, v in kwargs.items() if k not in ("inputs", "outputs")}
    return kwargs["inputs"], kwargs["outputs"], rest


def shapes(tensors: Iterable[KerasTensor]) -> Any:
    """Their one shape, or the list of their shapes."""
    return single([tensor.sizes.plain() for tensor in tensors])
