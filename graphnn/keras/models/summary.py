"""The table of a model's layers, their output shapes and numbers of weights."""

from __future__ import annotations

import itertools
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.keras.layers.operation import OpLayer
from graphnn.runtime.errors import ArgumentError

Row = tuple[str, ...]

_WIDTH, _GRAPH_WIDTH = 88, 108  # Keras' limits without and with the column of connections
_LEAST = 5  # no column is made narrower


def _count(variables: list[Any]) -> int:
    return sum(int(np.prod(v.shape, dtype=np.int64)) for v in variables)


def _bytes(variables: list[Any]) -> int:
    return sum(
        int(np.prod(v.shape, dtype=np.int64)) * np.dtype(v.dtype).itemsize for v in variables
    )


def _size(nbytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if nbytes < 1024 or unit == "GB":
            return f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    return ""


def type_name(layer: Any) -> str:
    """What the table calls the kind of a layer; an op goes by its own name."""
    if isinstance(layer, OpLayer):
        return type(layer.op).__name__
    return str(getattr(layer, "class_name", type(layer).__name__))


def shape_text(layer: Any) -> str:
    """The shape of a layer's output, or of the first call's; "?" before it is known."""
    if layer._calls:
        shapes = [t.sizes.plain() for t in layer._calls[0].outputs]
        return ", ".join(map(str, shapes))
    shape = getattr(layer, "_output_shape", None)
    return "?" if shape is None else str(shape)


def connections(layer: Any, graph: Any) -> list[str]:
    """The outputs that a layer is called on: name[call][output]."""
    found = []
    for call in graph.own_calls(layer):
        for tensor in call.inputs:
            source = tensor.source.layer
            number = next(i for i, c in enumerate(graph.own_calls(source)) if c is tensor.source)
            found.append(f"{source.name}[{number}][{tensor.index}]")
    return found


def is_chain(graph: Any) -> bool:
    """Whether each layer is called once, on nothing but the output of the layer before it."""
    before: Any = None
    for layer in graph.operations:
        calls = graph.own_calls(layer)
        if len(calls) != 1:
            return False
        sources = [tensor.source for tensor in calls[0].inputs]
        if sources != ([] if before is None else [before]):
            return False
        before = calls[0]
    return True


def _row(layer: Any, graph: Any, depth: int, show_trainable: bool) -> Row:
    mark = "   " * depth + "└ " if depth else ""
    weights = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
    row = [f"{mark}{layer.name} ({type_name(layer)})", shape_text(layer), weights]
    if graph is not None:
        row.append(", ".join(connections(layer, graph)) or "-" if not depth else "-")
    if show_trainable:
        row.append(("Y" if layer.trainable else "N") if layer.weights else "-")
    return tuple(row)


def _rows(
    layers: Sequence[Any], graph: Any, expand: bool, show_trainable: bool, depth: int = 0
) -> list[Row]:
    rows: list[Row] = []
    for layer in layers:
        rows.append(_row(layer, graph, depth, show_trainable))
        inner = getattr(layer, "layers", None)
        if expand and isinstance(inner, list):
            rows += _rows(inner, graph, expand, show_trainable, depth + 1)
    return rows


def layers_in_range(layers: Sequence[Any], names: Any) -> Sequence[Any]:
    """The layers from one name (or pattern) to another, both included.

    Raises ArgumentError for a name that no layer has.
    """
    if names is None:
        return layers
    places = []
    for pattern, order in zip(names, (1, -1), strict=True):
        numbers = [i for i, layer in enumerate(layers) if re.fullmatch(pattern, layer.name)]
        if not numbers:
            raise ArgumentError(
                "layer_range",
                received=repr(pattern),
                expected="the names of two layers, " + ", ".join(layer.name for layer in layers),
                fix="give a tuple (first, last)",
            )
        places.append(numbers[::order][0])
    first, last = sorted(places)
    return layers[first : last + 1]


def summary_text(
    model: Any,
    line_length: int | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Any = None,
) -> str:
    """The table as text.

    line_length: its width in characters. By default it is as wide as needed up to Keras' limit, or
    that of the terminal if that is narrower. Cells that are too long go on in further lines.
    """
    graph = getattr(model, "_graph", None)
    layers = layers_in_range(model.operations, layer_range)
    graph = None if graph is None or is_chain(graph) else graph
    header = ["Layer (type)", "Output Shape", "Param #"]
    header += ["Connected to"] if graph is not None else []
    header += ["Trainable"] if show_trainable else []
    rows = [tuple(header), *_rows(layers, graph, expand_nested, show_trainable)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    frame = 3 * len(widths) + 1
    if line_length is not None:
        widths[0] += max(0, line_length - frame - sum(widths))
    _narrow(widths, (line_length or _default_width(graph is not None)) - frame)
    return "\n".join([f'Model: "{model.name}"', *_table(rows, widths), *_totals(model)])


def _default_width(connected: bool) -> int:
    width = _GRAPH_WIDTH if connected else _WIDTH
    # Four columns less than a terminal has, as Keras does; a file counts as wide enough.
    return min(width, shutil.get_terminal_size((width + 4, 24)).columns - 4)


def _narrow(widths: list[int], room: int) -> None:
    """Take from the widest columns until all of them fit."""
    while sum(widths) > room and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1


def _table(rows: list[Row], widths: list[int]) -> list[str]:
    def lines(row: Row) -> list[str]:
        cells = [
            textwrap.wrap(text, width, break_on_hyphens=False) or [""]
            for text, width in zip(row, widths, strict=True)
        ]
        found = []
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            padded = [
                f"{text:>{width}}" if i == 2 else f"{text:<{width}}"
                for i, (text, width) in enumerate(zip(parts, widths, strict=True))
            ]
            found.append(f"│ {' │ '.join(padded)} │")
        return found

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (w + 2) for w in widths) + right

    body = [lines(row) for row in rows]
    if any(len(part) > 1 for part in body[1:]):  # then it must show where a row ends
        body[2:] = [[rule("├", "┼", "┤"), *part] for part in body[2:]]
    head = [rule("┌", "┬", "┐"), *body[0], rule("├", "┼", "┤")]
    return [*head, *itertools.chain(*body[1:]), rule("└", "┴", "┘")]


def _totals(model: Any) -> list[str]:
    groups = [
        ("Total params", model.weights),
        ("Trainable params", model.trainable_weights),
        ("Non-trainable params", model.non_trainable_weights),
    ]
    optimizer = getattr(model, "optimizer", None)
    state = list(getattr(optimizer, "variables", None) or ())
    if state:
        groups[0] = ("Total params", [*model.weights, *state])
        groups.append(("Optimizer params", state))
    return [f" {name}: {_count(found):,} ({_size(_bytes(found))})" for name, found in groups]
