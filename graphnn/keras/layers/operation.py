"""Ops on symbolic tensors, as layers without weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from graphnn import tree
from graphnn.apply import apply, type_of
from graphnn.compiler.ir.sizes import Size, Symbol, substitute, symbols_of
from graphnn.compiler.ir.types import TensorType, uint32
from graphnn.compiler.ops.base import Op
from graphnn.keras import naming
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.symbolic import Call, KerasTensor, set_recorder, with_trusted_sizes
from graphnn.runtime import devices
from graphnn.runtime.errors import ArgumentError, TraceError
from graphnn.tensor import Traced

Sizes = dict[str, Any]


class _Known(threading.local):
    """The sizes that the data of the model being run stand for, by symbol."""

    sizes: Sizes

    def __init__(self) -> None:
        self.sizes = {}


_KNOWN = _Known()


def solve(types: Sequence[TensorType], shapes: Sequence[Any]) -> Sizes:
    """The size that each symbol of some types has where the shapes are these."""
    found: Sizes = {}
    for type, shape in zip(types, shapes, strict=True):
        for pattern, size in zip(type.shape, shape, strict=False):
            if not isinstance(pattern, Size) or len(pattern.terms) != 1:
                continue
            (monomial, factor), *_ = pattern.terms
            if len(monomial) == 1 and isinstance(monomial[0], Symbol):
                found.setdefault(monomial[0].name, size if factor == 1 else size // factor)
    return found


@contextmanager
def known_sizes(sizes: Sizes) -> Iterator[None]:
    """Where an op's own inputs do not tell a size that it needs, it has the one given here."""
    before = _KNOWN.sizes
    _KNOWN.sizes = sizes
    try:
        yield
    finally:
        _KNOWN.sizes = before


class OpLayer(Layer):
    """One op: what becomes of `x + y`, `graphnn.reshape(x, ...)` and so on for symbolic tensors.

    op: the op with its settings, in which sizes may be symbolic. types: of its inputs, with the
    same symbols; when the layer runs they get the sizes of the data.
    """

    def __init__(self, op: Op, types: Sequence[TensorType] = (), name: str | None = None) -> None:
        super().__init__(name=name or naming.unique_name(op.name))
        self.op, self.types = op, tuple(types)
        settings = [getattr(op, field.name) for field in fields(op)]
        leaves = [leaf for value in settings for leaf in tree.flatten(value)]
        self._symbols = symbols_of([leaf for leaf in leaves if isinstance(leaf, Size)])
        self.built = True

    def _cast_inputs(self, values: Any) -> Any:
        return values  # the op was recorded with the casts that it needs

    def _mark(self, inputs: Any, outputs: Any, mask: Any) -> None:
        """As in Keras, masks end at single ops."""

    def call(self, *inputs: Any) -> Any:
        """The op's value."""
        return apply(self._bound(inputs), *inputs)

    def _bound(self, inputs: Sequence[Any]) -> Op:
        if not self._symbols:
            return self.op
        sizes = _KNOWN.sizes | solve(self.types, [t.shape for t in inputs])
        missing = [s for s in self._symbols if s not in sizes]
        if missing:
            raise TraceError(
                f"the layer {self.name}",
                received=f"a size {missing[0]} that its inputs do not tell",
                expected="sizes that follow from the inputs of the model",
                fix="do it in the call method of a layer",
            )
        return substituted(self.op, sizes)

    def get_config(self) -> dict[str, Any]:
        raise ArgumentError(
            f"get_config of {self.name}",
            received=f"the op {self.op.name}",
            expected="a layer",
            fix="take the config of the whole model",
        )

    def __repr__(self) -> str:
        return f"<OpLayer name={self.name}, op={self.op}>"


def substituted(op: Op, sizes: Sizes) -> Op:
    """The op with sizes in place of the symbols in its settings."""

    def one(value: Any) -> Any:
        return substitute(value, sizes) if isinstance(value, Size) else value

    settings = {f.name: getattr(op, f.name) for f in fields(op)}
    return type(op)(
        **{
            k: tree.map_structure(one, v) if tree.is_nested(v) else one(v)
            for k, v in settings.items()
        }
    )


def record(op: Op, inputs: Sequence[Any]) -> Any:
    """The symbolic outputs of an op on inputs of which at least one is symbolic.

    Raises ArgumentError for a Variable among the inputs, which a model has through its layers, and
    for random numbers.
    """
    for tensor in inputs:
        value = tensor._value
        if not isinstance(tensor, KerasTensor) and type(value) is not Traced:
            _refuse_variable(op, value)
            _refuse_random_state(op, value)
    types = [type_of(t) for t in inputs]
    result: Any = with_trusted_sizes(lambda found: op.infer(*found), types)
    call = Call(OpLayer(op, types), tuple(inputs), {})
    outputs = [
        KerasTensor(t.shape, t.dtype, call, i)
        for i, t in enumerate(result if isinstance(result, tuple) else (result,))
    ]
    call.outputs += outputs
    call.structure = tuple(outputs) if isinstance(result, tuple) else outputs[0]
    return call.structure


def _refuse_random_state(op: Op, value: Any) -> None:
    """The state of a generator, uint32[4], would be the same in every call of the model."""
    if value.dtype != uint32 or value.shape != (4,):
        return
    raise ArgumentError(
        f"{op.name} of a symbolic tensor",
        received="random numbers, drawn once while the model is made",
        expected="random numbers that each call of the model draws anew",
        fix="use a layer such as keras.layers.Dropout, or draw in the call method of a layer",
    )


def _refuse_variable(op: Op, value: Any) -> None:
    if not devices.is_lent(value):
        return
    raise ArgumentError(
        f"{op.name} of a symbolic tensor",
        received="a Variable, or a part of one, as the other operand",
        expected="symbolic tensors, tensors and numbers",
        fix="make a layer that has the Variable as its weight, and call that",
    )


set_recorder(record)
