"""Ops over replicas: values of several replicas combined into one that all of them get."""

from __future__ import annotations

from typing import Any, ClassVar

from graphnn.compiler.ir.types import NUMBERS, DType, TensorType, describe, is_float
from graphnn.compiler.ops.base import Op, Sample
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError


class AllReduce(Op):
    """Sums or means over replicas, of several tensors at once.

    inputs: the tensors of replica 0, those of replica 1 in the same order, and so on; the same type
    on all replicas. kind: "sum" or "mean" (floats only). replicas: how many there are. Added in the
    order of the replicas. Returns: one tensor for each tensor of a replica. Raises ShapeError or
    DTypeError if the replicas' types differ.

    Replicas that share one memory need no more than additions, which fuse with what uses them.

    >>> strategy = graphnn.distribute.MirroredStrategy(["CPU:0"])
    >>> strategy.reduce("sum", graphnn.distribute.PerReplica((graphnn.constant([1.0, 2.0]),)))
    Tensor([1. 2.], shape=(2,), dtype=float32)
    """

    name = "all_reduce"
    accepts: ClassVar[tuple[DType, ...]] = NUMBERS
    kind: str
    replicas: int
    samples = (
        Sample((("f", (2, 3)), ("f", (2, 3))), {"kind": "sum", "replicas": 2}),
        Sample((("f", (3,)), ("f", ()), ("f", (3,)), ("f", ())), {"kind": "mean", "replicas": 2}),
        Sample((("i", (0,)), ("i", (0,)), ("i", (0,))), {"kind": "sum", "replicas": 3}),
    )

    def __post_init__(self) -> None:
        if self.kind not in ("sum", "mean") or self.replicas < 1:
            raise ArgumentError(
                self.name,
                received=f"kind={self.kind!r}, replicas={self.replicas}",
                expected='kind "sum" or "mean", at least one replica',
                fix="choose one of them",
            )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self.check_dtypes(types)
        count, rest = divmod(len(types), self.replicas)
        if rest:
            raise ArgumentError(
                self.name,
                received=f"{len(types)} tensors of {self.replicas} replicas",
                expected="the same number of tensors from each replica",
                fix="bring the same structure on all replicas",
            )
        first = types[:count]
        for place, type in enumerate(types):
            self._check(first[place % count], type, place // count)
        return first

    def _check(self, first: TensorType, type: TensorType, replica: int) -> None:
        if self.kind == "mean" and not is_float(type.dtype):
            raise DTypeError(
                self.name,
                received=f"a mean of {describe(type.dtype, type.shape)}",
                expected="floating-point tensors",
                fix="cast to float32 first, or take the sum",
            )
        if first == type:
            return
        error = ShapeError if first.dtype == type.dtype else DTypeError
        raise error(
            self.name,
            received=f"{describe(first.dtype, first.shape)} from replica 0, "
            f"{describe(type.dtype, type.shape)} from replica {replica}",
            expected="tensors of one shape and dtype from all replicas",
            fix="reduce over the examples first, or gather the values instead",
        )

    def grad(self, ops: Any, *inputs: Any, out: Any, g: Any) -> tuple[Any, ...]:
        shares = g if self.kind == "sum" else tuple(ops.divide(gi, self.replicas) for gi in g)
        return tuple(shares) * self.replicas

    def decompose(self, ops: Any, *inputs: Any) -> tuple[Any, ...]:
        count = len(inputs) // self.replicas
        return tuple(self._total(ops, inputs[place::count]) for place in range(count))

    def _total(self, ops: Any, values: tuple[Any, ...]) -> Any:
        total = values[0]
        for value in values[1:]:
            total = ops.add(total, value)
        return total if self.kind == "sum" else ops.divide(total, self.replicas)
