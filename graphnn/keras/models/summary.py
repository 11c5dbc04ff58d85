"""The table of a model's layers, their output shapes and numbers of weights."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def _row(layer: Any) -> tuple[str, str, str]:
    shape = layer._output_shape
    text = "?" if shape is None else str(shape)
    weights = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
    return f"{layer.name} ({type(layer).__name__})", text, weights


def summary_text(model: Any, line_length: int | None = None) -> str:
    """The table as text; `line_length` is its width in characters, as wide as needed by default."""
    rows = [("Layer (type)", "Output Shape", "Param #"), *map(_row, model.layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    if line_length is not None:
        widths[0] += max(0, line_length - sum(widths) - 10)

    def line(row: tuple[str, str, str]) -> str:
        return f"│ {row[0]:<{widths[0]}} │ {row[1]:<{widths[1]}} │ {row[2]:>{widths[2]}} │"

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (w + 2) for w in widths) + right

    trainable, rest = model.trainable_weights, model.non_trainable_weights
    totals = [
        (name, f"{_count(variables):,} ({_size(_bytes(variables))})")
        for name, variables in (
            ("Total params", model.weights),
            ("Trainable params", trainable),
            ("Non-trainable params", rest),
        )
    ]
    return "\n".join(
        [
            f'Model: "{model.name}"',
            rule("┌", "┬", "┐"),
            line(rows[0]),
            rule("├", "┼", "┤"),
            *map(line, rows[1:]),
            rule("└", "┴", "┘"),
            *(f" {name}: {text}" for name, text in totals),
        ]
    )
