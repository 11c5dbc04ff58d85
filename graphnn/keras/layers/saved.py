"""What a layer says of itself when it is saved: the shapes it was built for, its own weights."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

from graphnn.keras.layers.tracking import Tracked, matched
from graphnn.keras.shapes import map_shapes


class Saved(Tracked):
    """Base of layers: the part that saving and loading ask. All of it may be overridden."""

    name: str
    _build_shapes: dict[str, Any] | None = None

    def get_build_config(self) -> dict[str, Any] | None:
        """The shapes that the layer was built for, as `build_from_config` takes them; or None."""
        shapes = self._build_shapes
        if not shapes or any(shape is None for shape in shapes.values()):
            return None
        if len(shapes) > 1:
            return {"shapes_dict": shapes}
        return {"input_shape": next(iter(shapes.values()))}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Make the weights as those of the layer whose `get_build_config` this is."""
        named = config.get("shapes_dict")
        if named:
            self.build(**{k: map_shapes(tuple, shape) for k, shape in named.items()})
        elif config.get("input_shape") is not None:
            self.build(map_shapes(tuple, config["input_shape"]))

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Make the weights."""

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put the layer's own weights, without those of sublayers, into a dict of arrays."""
        for number, variable in enumerate(self._own_weights()):
            store[str(number)] = variable.numpy()

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Take the layer's own weights from what `save_own_variables` has made.

        Raises ArgumentError for another number of them, ShapeError for other shapes; then nothing
        has changed.
        """
        for variable, array in matched(self.name, self._own_weights(), in_order(store)):
            variable.assign(array)


def in_order(store: MutableMapping[str, Any]) -> list[Any]:
    """The arrays of a store by their numbers."""
    return [store[key] for key in sorted(store, key=_as_number)]


def _as_number(key: str) -> tuple[int, str]:
    return (int(key), "") if key.isdecimal() else (sys.maxsize, key)
