"""Finding the weights, sublayers and metrics that an object holds in its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from graphnn.keras.metrics import Metric
from graphnn.random import Generator
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.variable import Variable

_CONTAINERS = (list, tuple, dict)


def unique(items: Any) -> list[Any]:
    """Items once each, by identity, in order of first appearance."""
    return list({id(item): item for item in items}.values())


def _open(container: Any, found: list[Any], depth: int = 0) -> None:
    """Collect what lists, tuples and dicts hold. Depth is bounded: a list may hold itself."""
    for value in container.values() if isinstance(container, dict) else container:
        if isinstance(value, _TRACKED):
            found.append(value)
        elif isinstance(value, _CONTAINERS) and depth < 20:
            _open(value, found, depth + 1)


def matched(name: str, own: Sequence[Any], arrays: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Variables with the arrays for them, in their dtype.

    Raises ArgumentError for another count and ShapeError for another shape.
    """
    new = [np.asarray(w) for w in arrays]
    if len(own) != len(new):
        raise ArgumentError(
            f"weights of {name}",
            received=f"{len(new)} arrays",
            expected=f"{len(own)} arrays, one for each weight",
            fix="build the layer first (call it once), or give what get_weights() returned",
        )
    for variable, array in zip(own, new, strict=True):
        if tuple(variable.shape) != array.shape:
            raise ShapeError(
                f"weights of {name}",
                received=f"an array of shape {array.shape} for {variable.name}",
                expected=f"shape {tuple(variable.shape)}",
                fix="give the arrays in the order of layer.weights",
            )
    return [(v, a.astype(v.dtype, copy=False)) for v, a in zip(own, new, strict=True)]


class Tracked:
    """Base of layers: Variables, sublayers, metrics and random generators set as attributes, also
    inside lists, tuples and dicts, are found again, whenever they were put there.

    Containers are looked into when somebody asks, so a list may grow after it has been assigned.
    """

    _held: dict[str, None]
    _added: list[Any]
    _frozen: list[Any]
    _trainable: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Here and not in __init__: attributes may be set before super().__init__() is called.
        self = super().__new__(cls)
        self.__dict__.update(_held={}, _added=[], _frozen=[], _trainable=True)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if isinstance(value, _TRACKED) or isinstance(value, _CONTAINERS):
            if name in self.__dict__:  # not a property
                self._held[name] = None
        else:
            self._held.pop(name, None)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._held.pop(name, None)

    # ---- what this object holds itself ------------------------------------------------------

    def _direct(self) -> list[Any]:
        """What attributes hold, containers opened."""
        found = list(self._added)
        for name in self._held:
            value = self.__dict__[name]
            if isinstance(value, _CONTAINERS):
                _open(value, found)
            else:
                found.append(value)
        return found

    def _own(self, kind: type) -> list[Any]:
        return unique(value for value in self._direct() if isinstance(value, kind))

    def _own_weights(self) -> list[Any]:
        """Own Variables, those made as trainable first: the order does not change by freezing."""
        found = self._own(Variable)
        if not found:
            return found
        frozen = {id(v) for v in self._frozen}
        first = [v for v in found if v.trainable or id(v) in frozen]
        rest = [v for v in found if not (v.trainable or id(v) in frozen)]
        return first + rest

    def _walk(self) -> list[Any]:
        """This object and all objects below it, each once, parents first."""
        found: dict[int, Any] = {}
        waiting: list[Any] = [self]
        while waiting:
            item = waiting.pop()
            if id(item) not in found:
                found[id(item)] = item
                waiting += reversed(item._own(Tracked))
        return list(found.values())

    # ---- the public lists -------------------------------------------------------------------

    @property
    def weights(self) -> list[Any]:
        """All Variables of this layer and its sublayers, without those of metrics."""
        return unique(v for layer in self._walk() for v in layer._own_weights())

    @property
    def trainable_weights(self) -> list[Any]:
        """The weights that training changes."""
        if not self._trainable:
            return []
        return unique(
            v
            for layer in self._walk()
            if layer._trainable
            for v in layer._own_weights()
            if v.trainable
        )

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The weights that training leaves alone, or changes by other means than gradients."""
        trainable = {id(v) for v in self.trainable_weights}
        return [v for v in self.weights if id(v) not in trainable]

    @property
    def variables(self) -> list[Any]:
        """All state: weights, then states of random generators and metrics."""
        layers = self._walk()
        seeds = (g.state for layer in layers for g in layer._own(Generator))
        metrics = (v for m in self.metrics for v in m.variables)
        return unique([*self.weights, *seeds, *metrics])

    @property
    def trainable_variables(self) -> list[Any]:
        """The same as `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Any]:
        """All state that is not in `trainable_variables`."""
        trainable = {id(v) for v in self.trainable_weights}
        return [v for v in self.variables if id(v) not in trainable]

    @property
    def metrics(self) -> list[Any]:
        """The metrics of this layer and its sublayers."""
        return unique(m for layer in self._walk() for m in layer._own(Metric))

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it sets all sublayers too."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._walk():
            layer._set_trainable(bool(value))

    def _set_trainable(self, value: bool) -> None:
        self.__dict__["_trainable"] = value
        if not value:
            self._frozen += [v for v in self._own(Variable) if v.trainable]
        for variable in self._frozen:
            variable.trainable = value
        if value:
            self._frozen.clear()

    # ---- values -----------------------------------------------------------------------------

    def get_weights(self) -> list[Any]:
        """Copies of the weights as NumPy arrays, in the order of `weights`."""
        return [np.array(v.numpy()) for v in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Assign all weights.

        weights: one array for each of `self.weights`, of its shape. Raises ArgumentError for
        another count and ShapeError for another shape, before anything has been changed.
        """
        name = getattr(self, "name", type(self).__name__)
        for variable, array in matched(name, self.weights, weights):
            variable.assign(array)

    def count_params(self) -> int:
        """Number of elements of all weights."""
        return sum(int(np.prod(v.shape, dtype=np.int64)) for v in self.weights)


_TRACKED = (Variable, Tracked, Metric, Generator)
