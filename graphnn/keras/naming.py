"""Names of layers, metrics and other objects: snake_case, numbered so that each is used once."""

from __future__ import annotations

import re
import threading

_counts: dict[str, int] = {}
_lock = threading.Lock()


def to_snake_case(name: str) -> str:
    """The snake_case spelling of a class name.

    >>> to_snake_case("LayerNormalization"), to_snake_case("Conv2D")
    ('layer_normalization', 'conv2d')
    >>> to_snake_case("MLPWithDropout")
    'mlp_with_dropout'
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().lstrip("_")


def unique_name(class_name: str) -> str:
    """A fresh name for an object of a class: dense, dense_1, dense_2, ..."""
    base = to_snake_case(class_name)
    with _lock:
        number = _counts[base] = _counts.get(base, -1) + 1
    return f"{base}_{number}" if number else base


def reset_names() -> None:
    """Start counting anew, so that a script run twice in one process gives the same names."""
    with _lock:
        _counts.clear()
