"""Drawings of models: SVG text that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from graphnn.keras.models.summary import shape_text, type_name
from graphnn.runtime.errors import ArgumentError

CHAR, LINE, PAD, GAP_X, GAP_Y = 7.4, 18, 10, 28, 36  # pixels; CHAR is the width of a letter
_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1c2733}"
    ".name{font-weight:600}.box{fill:#f4f7fb;stroke:#6b8299;stroke-width:1.2}"
    ".input{fill:#e6f3ea;stroke:#5c9a72}.op{fill:#fdf4e3;stroke:#c39a4a}"
    ".frozen{stroke-dasharray:4 3}.edge{fill:none;stroke:#6b8299;stroke-width:1.2}"
)


@dataclass
class Box:
    """A layer in the drawing, with what it is called on; `x` is its middle, `y` its top."""

    layer: Any
    lines: list[str]
    sources: list[int] = field(default_factory=list)
    level: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """Width in pixels."""
        return max(map(len, self.lines)) * CHAR + 2 * PAD

    @property
    def height(self) -> float:
        """Height in pixels."""
        return len(self.lines) * LINE + PAD


def _lines(
    layer: Any, shapes: bool, dtypes: bool, names: bool, activations: bool, trainable: bool
) -> list[str]:
    kind = type_name(layer)
    lines = [f"{layer.name} ({kind})" if names else kind]
    function = getattr(layer, "activation", None)
    if activations and function is not None:
        lines.append(f"activation: {getattr(function, '__name__', type(function).__name__)}")
    if shapes:
        lines.append(f"output: {shape_text(layer)}")
    if dtypes:
        lines.append(f"dtype: {layer._calls[0].outputs[0].dtype.name if layer._calls else '?'}")
    if trainable and layer.weights:
        lines.append("trainable" if layer.trainable else "frozen")
    return lines


def _boxes(model: Any, *how: bool) -> list[Box]:
    graph = getattr(model, "_graph", None)
    layers = model.operations
    if graph is None and getattr(model, "_input", None) is not None:
        layers = [model._input, *layers]
    boxes = [Box(layer, _lines(layer, *how)) for layer in layers]
    number = {id(layer): i for i, layer in enumerate(layers)}
    for i, box in enumerate(boxes):
        if graph is None:  # a stack, or layers of which the calls are not known
            box.sources = [i - 1] if i and hasattr(model, "_stack") else []
            continue
        sources = [t.source.layer for c in graph.own_calls(box.layer) for t in c.inputs]
        box.sources = list(dict.fromkeys(number[id(layer)] for layer in sources))
    return boxes


def _place(boxes: Sequence[Box]) -> None:
    """Rows by the longest way from an input; within a row near the boxes that feed a box."""
    for i, box in enumerate(boxes):
        earlier = [boxes[s].level for s in box.sources if s < i]
        box.level = max(earlier, default=-1) + 1
    y = float(PAD)
    for level in range(max(box.level for box in boxes) + 1):
        row = [box for box in boxes if box.level == level]
        row.sort(key=lambda box: sum(boxes[s].x for s in box.sources) / max(1, len(box.sources)))
        x = 0.0
        for box in row:
            x += box.width / 2
            box.x, box.y = x, y
            x += box.width / 2 + GAP_X
        shift = (x - GAP_X) / 2
        for box in row:
            box.x -= shift
        y += max(box.height for box in row) + GAP_Y
    left = min(box.x - box.width / 2 for box in boxes) - PAD
    for box in boxes:
        box.x -= left


def _box_svg(box: Box) -> str:
    kinds = {"InputLayer": " input", "OpLayer": " op", "KerasOperation": " op"}
    style = "box" + kinds.get(type(box.layer).__name__, "")
    if box.layer.weights and not box.layer.trainable_weights:
        style += " frozen"
    parts = [
        f'<g><title>{escape(box.layer.name)}</title><rect class="{style}" rx="5" '
        f'x="{box.x - box.width / 2:.1f}" y="{box.y:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}"/>'
    ]
    for i, line in enumerate(box.lines):
        name = ' class="name"' if i == 0 else ""
        parts.append(
            f'<text{name} text-anchor="middle" x="{box.x:.1f}" '
            f'y="{box.y + PAD / 2 + LINE * (i + 0.75):.1f}">{escape(line)}</text>'
        )
    return "".join([*parts, "</g>"])


def _edge_svg(start: Box, end: Box) -> str:
    if start.level >= end.level:  # a shared layer that is called again further down
        x = max(start.x + start.width / 2, end.x + end.width / 2)
        a, b = start.y + start.height / 2, end.y + end.height / 2
        path = (
            f"M{start.x + start.width / 2:.1f},{a:.1f} C{x + 40:.1f},{a:.1f} {x + 40:.1f},{b:.1f} "
            f"{end.x + end.width / 2 + 6:.1f},{b:.1f}"
        )
    else:
        top, bottom = start.y + start.height, end.y - 6
        middle = (top + bottom) / 2
        path = (
            f"M{start.x:.1f},{top:.1f} C{start.x:.1f},{middle:.1f} {end.x:.1f},{middle:.1f} "
            f"{end.x:.1f},{bottom:.1f}"
        )
    return f'<path class="edge" marker-end="url(#arrow)" d="{path}"/>'


def model_to_svg(
    model: Any,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
) -> str:
    """The drawing of a model as SVG text, with nothing outside that it refers to.

    Raises ArgumentError for a model without layers.
    """
    boxes = _boxes(
        model, show_shapes, show_dtype, show_layer_names, show_layer_activations, show_trainable
    )
    if not boxes:
        raise ArgumentError(
            "plot_model",
            received=f"{model.name}, which has no layers",
            expected="a model with layers",
            fix="add layers first",
        )
    _place(boxes)
    width = max(box.x + box.width / 2 for box in boxes) + PAD + 40
    height = max(box.y + box.height for box in boxes) + PAD
    edges = [_edge_svg(boxes[s], box) for box in boxes for s in box.sources]
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(model.name)}</title><style>{_STYLE}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0,0L8,4L0,8z" fill="#6b8299"/>',
            "</marker></defs>",
            *edges,
            *map(_box_svg, boxes),
            "</svg>\n",
        ]
    )


def plot_model(
    model: Any,
    to_file: str | os.PathLike[str] | None = "model.svg",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    **_: Any,
) -> str:
    """Draw a model: one box for each layer, arrows for what it is called on.

    to_file: where to write the SVG; None writes nothing. show_shapes, show_dtype: of the outputs.
    show_layer_names, show_layer_activations, show_trainable: what else the boxes say; the border of
    a frozen layer is dashed. Returns: the SVG text. Raises ArgumentError for another kind of file.

    >>> x = graphnn.keras.Input(shape=(3,), name="x")
    >>> model = graphnn.keras.Model(x, graphnn.keras.layers.Dense(2, name="head")(x))
    >>> "head (Dense)" in plot_model(model, to_file=None)
    True
    """
    path = None if to_file is None else Path(to_file)
    if path is not None and path.suffix.lower() not in (".svg", ""):
        raise ArgumentError(
            "plot_model",
            received=f"to_file={str(path)!r}",
            expected="a file that ends in .svg",
            fix=f"for example {path.stem}.svg, which browsers and notebooks show",
        )
    text = model_to_svg(
        model, show_shapes, show_dtype, show_layer_names, show_layer_activations, show_trainable
    )
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return text
