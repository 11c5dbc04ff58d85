"""Text in compiled steps: what layers make of it on the host becomes an input of the program.

A step is traced with a `HostTensor` in the place of each text. What is done with it - by a layer
that runs on the host, or by an op - is written down as an `Expression`. As soon as numbers come
out, the trace stops and is begun anew with these numbers as a further input; from then on they are
computed on the host for each batch, before the compiled program runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphnn import strings, tree
from graphnn.apply import apply
from graphnn.runtime.errors import ArgumentError
from graphnn.state import init_scope
from graphnn.tensor import Symbolic, Tensor, Traced

_MOST = 64  # results that a step may take from the host


@dataclass(frozen=True, eq=False)
class Expression:
    """A value on the host: a function of other values; the leaves are the texts of a batch.

    key: equal for expressions that mean the same.
    """

    key: Hashable
    function: Callable[..., Any] | None = None
    parents: tuple[Any, ...] = ()
    item: int | None = None  # which result of the function, if it has several

    def value(self, texts: Sequence[Any], known: dict[Hashable, Any]) -> Any:
        """The tensor for the texts of a batch. known: values by key, which is added to."""
        if self.key not in known:
            known[self.key] = self._value(texts, known)
        return known[self.key]

    def _value(self, texts: Sequence[Any], known: dict[Hashable, Any]) -> Any:
        if self.function is None:
            return texts[self.key]  # type: ignore[call-overload]
        result = self.function(*(p.value(texts, known) for p in self.parents))
        return result if self.item is None else result[self.item]


class NumbersNeeded(Exception):
    """A trace needs numbers that are made of text, and were not among its inputs."""

    def __init__(self, expression: Expression) -> None:
        super().__init__("numbers made of text are needed")
        self.expression = expression


@dataclass
class Batch:
    """The batch that a step is traced with.

    texts: the text tensors. results: inputs of the trace, by the key of the expression that they
    are the values of. size: the size of the first axis in the trace.
    """

    texts: list[Any]
    results: dict[Hashable, Any]
    size: Any
    known: dict[Hashable, Any] = field(default_factory=dict)

    def tensor(self, expression: Expression) -> Any:
        """What stands for the value of an expression in the trace. Raises NumbersNeeded."""
        with init_scope():
            value = expression.value(self.texts, self.known)
        if strings.is_string(value):
            return HostTensor(_HostBody(value, expression, self))
        if expression.key not in self.results:
            raise NumbersNeeded(expression)
        return self.results[expression.key]


class _HostBody(Symbolic):
    """The body of a HostTensor: the value for the batch that is traced, and how it was made."""

    __slots__ = ("batch", "expression", "shape")

    def __init__(self, value: Any, expression: Expression, batch: Batch) -> None:
        super().__init__(value.dtype)
        shape = tuple(value.shape)
        first = batch.texts[0]
        same = bool(shape) and bool(first.ndim) and shape[0] == len(first)
        self.shape = (batch.size, *shape[1:]) if same else shape
        self.expression, self.batch = expression, batch

    def record(self, op: Any, inputs: Sequence[Any]) -> Any:
        """The result of an op, which runs on the host for each batch."""
        parents = tuple(_expression_of(t) for t in inputs)
        key = (op, *(p.key for p in parents))

        def run(*values: Any) -> Any:
            return apply(op, *values)

        expression = Expression(key, run, parents)
        with init_scope():
            value = expression.value(self.batch.texts, self.batch.known)
        if not isinstance(value, tuple):
            return self.batch.tensor(expression)
        return tuple(
            self.batch.tensor(Expression((key, i), run, parents, i)) for i in range(len(value))
        )


class HostTensor(Tensor):
    """Text in a trace. Layers that run on the host, and ops on text, take it."""

    __slots__ = ()

    def through(self, layer: Any, kwargs: dict[str, Any]) -> Any:
        """The result of a layer."""
        body = self._value
        key = ("layer", id(layer), repr(kwargs), body.expression.key)
        return body.batch.tensor(
            Expression(key, lambda text: layer(text, **kwargs), (body.expression,))
        )

    def __repr__(self) -> str:
        return f"<text on the host, shape={tuple(self._value.shape)}>"

    def _array(self, what: str) -> Any:
        raise strings.no_trace(what, f"strings of shape {tuple(self._value.shape)}")


def _expression_of(tensor: Any) -> Expression:
    """The expression of an input of an op. Raises TraceError for a value of the graph."""
    value = tensor._value
    if isinstance(value, _HostBody):
        return value.expression
    if type(value) is Traced:
        raise strings.no_trace("an operation on text", "strings together with values of the graph")
    key = ("constant", value.dtype.str, value.shape, tuple(value.reshape(-1).tolist()))
    return Expression(key, lambda: tensor)


class TextStep:
    """`step(data)` for data in which some leaves are text.

    step: the function. make: gives the compiled form of a function of a tuple of tensors, as
    `Step(function, name)` does.
    """

    def __init__(self, step: Callable[[Any], Any], make: Callable[..., Any], name: str) -> None:
        self._step, self._make, self._name = step, make, name
        self._plans: dict[Hashable, _Plan] = {}

    def bind(self, structure: Any, leaves: Sequence[Any]) -> Callable[[Any], Any]:
        """The step for data of one structure: a function of the tuple of leaves (without None)."""
        text = tuple(strings.is_string(leaf) for leaf in leaves)
        key = (str(tree.map_structure(lambda leaf: leaf is not None, structure)), text)
        if key not in self._plans:
            self._plans[key] = _Plan(self._step, self._make, self._name, structure, text)
        return self._plans[key]

    def graph(self) -> Any:
        """The graph of the latest trace, or None before the first step."""
        graphs = [plan.compiled.graph() for plan in self._plans.values()]
        return next((g for g in reversed(graphs) if g is not None), None)


class _Plan:
    """A step for data of one structure, and what it takes from the host."""

    def __init__(
        self,
        step: Callable[[Any], Any],
        make: Callable[..., Any],
        name: str,
        structure: Any,
        text: tuple[bool, ...],
    ) -> None:
        self._step, self._make, self._name = step, make, name
        self._places = [leaf is not None for leaf in tree.flatten(structure)]
        self._structure, self._text = structure, text
        self._wanted: list[Expression] = []
        self._texts: list[Any] = []  # of the batch that is being run: the example in a trace
        self.compiled = make(self._traced, name)

    def __call__(self, leaves: Sequence[Any]) -> Any:
        self._texts = [leaf for leaf, text in zip(leaves, self._text, strict=True) if text]
        numbers = [leaf for leaf, text in zip(leaves, self._text, strict=True) if not text]
        known: dict[Hashable, Any] = {}
        while True:
            made = [wanted.value(self._texts, known) for wanted in self._wanted]
            flat = (*numbers, *made, _marker(self._texts[0]))
            try:
                return self.compiled.bind(flat, flat)(flat)
            except NumbersNeeded as needed:
                self._want(needed.expression)

    def _want(self, expression: Expression) -> None:
        if len(self._wanted) == _MOST:
            raise ArgumentError(
                self._name,
                received=f"more than {_MOST} different results made of text",
                expected="a model in which layers turn text into numbers",
                fix="prepare the text before: dataset.map(lambda x, y: (vectorizer(x), y))",
            )
        self._wanted.append(expression)
        self.compiled = self._make(self._traced, self._name)  # a trace has fixed inputs

    def _traced(self, flat: Any) -> Any:
        """The step on numbers, and on HostTensors in the places of text."""
        *flat, marker = flat
        count = len(flat) - len(self._wanted)
        results = {e.key: t for e, t in zip(self._wanted, flat[count:], strict=True)}
        batch = Batch(self._texts, results, marker.shape[0])
        numbers, texts = iter(flat[:count]), iter(range(len(self._texts)))
        leaves = iter(
            batch.tensor(Expression(next(texts))) if text else next(numbers) for text in self._text
        )
        filled = [next(leaves) if there else None for there in self._places]
        return self._step(tree.unflatten(self._structure, filled))


def _marker(text: Any) -> Tensor:
    """An input of the program with as many entries as the text has on its first axis, which tells
    the trace the size of the batch."""
    return Tensor(np.zeros(len(text) if text.ndim else 1, np.bool_))
