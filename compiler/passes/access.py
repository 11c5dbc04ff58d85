"""Which elements a node reads: linear indices of its inputs for a linear index of its result."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from graphnn.compiler.codegen.scalar import Emit, Scalar, compute_dtype, expressions
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import (
    Size,
    Var,
    atom,
    atoms,
    product,
    ravel,
    substitute,
    unravel,
)
from graphnn.compiler.ir.types import TensorType, TupleType
from graphnn.compiler.ops.base import Elementwise, Load, Op, broadcast_index

USUAL_SIZE = 64  # what a symbolic size is taken for

Access = tuple[int, Any]  # (position of the input, linear index into it)


def accesses(node: Node, linear: Any) -> tuple[Access, ...]:
    """The elements of its inputs that a map or view node reads for element `linear`."""
    types = tuple(i.tensor for i in node.inputs)
    return _accesses(node.op, types, node.tensor, linear)


@lru_cache(maxsize=1 << 16)
def _accesses(
    op: Op, types: tuple[TensorType, ...], out: TensorType, linear: Any
) -> tuple[Access, ...]:
    if isinstance(op, Elementwise):
        return tuple(_elementwise(types, out, linear))
    found: list[Access] = []
    emit = Emit()

    def probe(position: int, type: TensorType) -> Load:
        def load(index: tuple[Any, ...]) -> Scalar:
            at = ravel(index, type.shape)
            found.append((position, at))
            return emit.make("probe", (), compute_dtype(type.dtype), (position, at))

        return Load(type, load)

    loads = [probe(k, t) for k, t in enumerate(types)]
    op.element(emit, out, unravel(linear, out.shape), loads)  # type: ignore[attr-defined]
    return tuple(dict.fromkeys(found))


def _elementwise(types: tuple[TensorType, ...], out: TensorType, linear: Any) -> Iterator[Access]:
    index: tuple[Any, ...] | None = None
    for position, type in enumerate(types):
        if type.shape == out.shape:
            yield position, linear
        elif product(type.shape) == 1:
            yield position, 0
        else:
            index = unravel(linear, out.shape) if index is None else index
            yield position, ravel(broadcast_index(index, type.shape), type.shape)


@lru_cache(maxsize=1 << 12)
def _weight(op: Op, types: tuple[TensorType, ...], out: TensorType) -> int:
    emit = Emit()

    def load(position: int, type: TensorType) -> Load:
        probe = emit.make("probe", (), compute_dtype(type.dtype), (position,))
        return Load(type, lambda index: probe)

    loads = [load(k, t) for k, t in enumerate(types)]
    value = op.element(emit, out, (0,) * out.ndim, loads)  # type: ignore[attr-defined]
    words = [e.op for e in expressions((value,))]
    return sum(8 if w == "call" else w not in ("probe", "constant") for w in words)


def weight(node: Node) -> int:
    """Scalar operations for one element of a map or view node; a function counts 8."""
    return _weight(node.op, tuple(i.tensor for i in node.inputs), node.tensor)


def flat_index(size: Any) -> Any:
    """A loop index over all elements of a tensor."""
    return atom(Var("i", size))


def is_alias(node: Node) -> bool:
    """Whether a view has its input's elements in its input's order, so that memory is shared."""
    if node.op.fusion != "view" or len(node.inputs) != 1:
        return False
    source = node.inputs[0].tensor
    if source.dtype != node.dtype or source.size != node.tensor.size:
        return False
    linear = flat_index(node.tensor.size)
    return accesses(node, linear) == ((0, linear),)


def nbytes(node: Node) -> int:
    """Bytes of a value; symbolic sizes are taken for the usual one."""
    if isinstance(node.type, TupleType):
        return 0  # its items are counted
    return int(_estimate(node.type))


def _estimate(type: TensorType) -> Any:
    size = type.nbytes
    if not isinstance(size, Size):
        return size
    return substitute(size, dict.fromkeys(atoms(size), USUAL_SIZE))
