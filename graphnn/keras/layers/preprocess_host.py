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
from graphnn.compiler.ir.sizes import symbol, symbols_of
from graphnn.compiler.ir.types import TensorType, bool_
from graphnn.runtime.errors import ArgumentError
from graphnn.state import init_scope
from graphnn.tensor import Symbolic, Tensor, Traced

_MOST = 64  # results that a step may take from the host
_NAME = "examples of text"  # the batch size in settings of ops
_EXAMPLES = symbol(_NAME)


@dataclass(frozen=True, eq=False)
class Expression:
    """A value on the host: a function of other values; the leaves are the texts of a batch.

    key: equal for expressions that mean the same. function: of the number of examples and the
    values of the parents. item: which result of the function, if it has several.
    """

    key: Hashable
    function: Callable[..., Any] | None = None
    parents: tuple[Any, ...] = ()
    item: int | None = None

    def value(self, texts: Sequence[Any], known: dict[Hashable, Any]) -> Any:
        """The tensor for the texts of a batch. known: values by key, which is added to."""
        if self.key not in known:
            known[self.key] = self._value(texts, known)
        return known[self.key]

    def _value(self, texts: Sequence[Any], known: dict[Hashable, Any]) -> Any:
        if self.function is None:
            return texts[self.key]  # type: ignore[call-overload]
        values = [p.value(texts, known) for p in self.parents]
        result = self.function(_count(texts[0]), *values)
        return result if self.item is None else result[self.item]


def _count(text: Any) -> int:
    """The number of examples."""
    return len(text) if text.ndim else 1


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

    def value(self, expression: Expression) -> Any:
        """The value of an expression for this batch."""
        with init_scope():
            return expression.value(self.texts, self.known)

    def tensor(self, expression: Expression, shape: Any = None) -> Any:
        """What stands for the value of an expression in the trace. Raises NumbersNeeded.

        shape: as the trace knows it; found from the value if left out.
        """
        value = self.value(expression)
        if strings.is_string(value):
            sizes = self._sizes(value) if shape is None else shape
            return HostTensor(_HostBody(value.dtype, sizes, expression, self))
        if expression.key not in self.results:
            raise NumbersNeeded(expression)
        return self.results[expression.key]

    def _sizes(self, value: Any) -> tuple[Any, ...]:
        shape = tuple(value.shape)
        same = shape and self.texts[0].ndim and shape[0] == len(self.texts[0])
        return (self.size, *shape[1:]) if same else shape

    @property
    def symbols(self) -> dict[str, Any]:
        """The name of the batch size in this trace, and the name that is the same in all."""
        return {name: _EXAMPLES for name in symbols_of([self.size])}


class _HostBody(Symbolic):
    """The body of a HostTensor: the value for the batch that is traced, and how it was made."""

    __slots__ = ("batch", "expression", "shape")

    def __init__(self, dtype: Any, shape: Any, expression: Expression, batch: Batch) -> None:
        super().__init__(dtype)
        self.shape, self.expression, self.batch = shape, expression, batch

    def record(self, op: Any, inputs: Sequence[Any]) -> Any:
        """The result of an op, which runs on the host for each batch."""
        parents = tuple(_expression_of(t) for t in inputs)
        general = op.bind(self.batch.symbols)
        key = (general, *(p.key for p in parents))

        def run(count: int, *values: Any) -> Any:
            return apply(general.bind({_NAME: count}), *values)

        made = Expression(key, run, parents)
        # Only shapes are asked for: any dtype will do.
        types = op.infer(*(TensorType(tuple(t.shape), bool_) for t in inputs))
        if not isinstance(types, tuple):
            return self.batch.tensor(made, types.shape)
        items = [Expression((key, i), run, parents, i) for i in range(len(types))]
        return tuple(map(self.batch.tensor, items, [t.shape for t in types]))


class HostTensor(Tensor):
    """Text in a trace. Layers that run on the host, and ops on text, take it."""

    __slots__ = ()

    def through(self, layer: Any, kwargs: dict[str, Any]) -> Any:
        """The result of a layer."""
        body = self._value
        key = ("layer", id(layer), repr(kwargs), body.expression.key)
        return body.batch.tensor(
            Expression(key, lambda _, text: layer(text, **kwargs), (body.expression,))
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
    return Expression(key, lambda _: tensor)


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
        form = (str(tree.map_structure(lambda leaf: leaf is not None, structure)), text)

        def run(leaves: Sequence[Any]) -> Any:
            # No example and one have traces of their own, and so what these take from the host.
            count = _count(
                next(leaf for leaf, is_text in zip(leaves, text, strict=True) if is_text)
            )
            key = (form, min(count, 2))
            if key not in self._plans:
                self._plans[key] = _Plan(self._step, self._make, self._name, structure, text)
            return self._plans[key](leaves)

        return run

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
    return Tensor(np.zeros(_count(text), np.bool_))
