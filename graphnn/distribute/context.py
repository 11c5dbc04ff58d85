"""What a replica knows of itself and of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphnn import tree
from graphnn.apply import cast, convert, record
from graphnn.compiler.ir.types import is_float
from graphnn.compiler.ops.core import CustomGradient
from graphnn.distribute.enums import ReduceOp
from graphnn.distribute.lockstep import Combine, Lockstep
from graphnn.distribute.reductions import gather, reduce_structure
from graphnn.distribute.values import regroup, select
from graphnn.runtime.errors import StateError
from graphnn.signature import FLAGS
from graphnn.state import mode, state


class ReplicaContext:
    """One replica inside of `Strategy.run`; `graphnn.distribute.get_replica_context()` gives it.

    strategy: the strategy. replica_id_in_sync_group: number of the replica, from 0.

    >>> strategy = graphnn.distribute.MirroredStrategy(["CPU:0"])
    >>> strategy.run(lambda: graphnn.distribute.get_replica_context().replica_id_in_sync_group)
    0
    """

    def __init__(self, strategy: Any, replica: int, share: Any = None) -> None:
        self.strategy, self.replica_id_in_sync_group = strategy, replica
        # In `fit`: the part of the global batch that is this replica's, a 0-d tensor. There losses
        # stay means over the replica's own examples and gradients are weighted by the share.
        self.share = share
        self._lockstep: Lockstep | None = None

    @property
    def num_replicas_in_sync(self) -> int:
        """Number of replicas of the strategy."""
        return self.strategy.num_replicas_in_sync  # type: ignore[no-any-return]

    @property
    def active(self) -> int:
        """Number of replicas that take part in this step."""
        return 1 if self._lockstep is None else self._lockstep.count

    @property
    def devices(self) -> tuple[str, ...]:
        """Name of the device of this replica, in a tuple."""
        return (self.strategy.devices[self.replica_id_in_sync_group],)

    def meet(self, name: str, value: Any, combine: Combine) -> Any:
        """Wait for all replicas, and get this one's part of `combine([value of each])`."""
        if self._lockstep is None or state.replica is not self:
            raise StateError(
                name,
                received="a replica context outside of its replica",
                expected="the context of the replica that runs now",
                fix="ask graphnn.distribute.get_replica_context() inside of the function given to "
                "strategy.run",
            )
        return self._lockstep.meet(self.replica_id_in_sync_group, name, value, combine)

    def merge_call(
        self, merge_fn: Callable[..., Any], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run `merge_fn(strategy, *args)` once for all replicas, with a PerReplica for each
        argument; each replica gets its part of what that returns."""

        def combine(brought: list[Any]) -> list[Any]:
            positional, named = regroup(brought)
            result = merge_fn(self.strategy, *positional, **named)
            return [select(result, i) for i in range(len(brought))]

        return self.meet("merge_call", (tuple(args), dict(kwargs or {})), combine)

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """The sum or mean over replicas of a tensor, or of each one in a structure.

        Its gradient is the sum or mean over replicas of their gradients, so that the gradients of
        all replicas, added up, are those of the sum of their losses. All replicas must ask their
        tapes then. Raises ShapeError if the shapes differ.
        """
        kind = ReduceOp.of(reduce_op, "all_reduce")
        value = tree.map_structure(convert, value)
        result = self.meet("all_reduce", value, lambda v: [self._reduced(kind, v)] * len(v))
        own = self._own_tapes()
        if own and self.active > 1:
            self._record(own, kind, tree.flatten(value), tree.flatten(result))
        return result

    def _reduced(self, kind: ReduceOp, values: list[Any]) -> Any:
        """The values of all replicas combined; tapes around all of them see how."""
        tapes = () if self._lockstep is None else self._lockstep.tapes
        with mode(state.trace, tapes):
            return reduce_structure(kind, values)

    def _own_tapes(self) -> tuple[Any, ...]:
        """Tapes that were opened in this replica."""
        outer = () if self._lockstep is None else self._lockstep.tapes
        return tuple(t for t in state.tapes if all(t is not o for o in outer))

    def _record(self, tapes: Any, kind: ReduceOp, before: list[Any], after: list[Any]) -> None:
        """Let tapes know the gradient of what `all_reduce` has made of values."""
        pairs = [(b, a) for b, a in zip(before, after, strict=True) if is_float(b.dtype)]
        inputs, outputs = tuple(b for b, _ in pairs), tuple(a for _, a in pairs)
        op = CustomGradient(count=len(pairs), rule=AllReduceGradient(self, kind), across=True)
        with mode(state.trace, tapes):
            record(op, inputs, outputs)

    def all_gather(self, value: Any, axis: int, options: Any = None) -> Any:
        """The tensors of all replicas one after the other along an axis."""
        return self.meet("all_gather", value, lambda v: [_gathered(v, axis)] * len(v))

    def __repr__(self) -> str:
        number, count = self.replica_id_in_sync_group, self.num_replicas_in_sync
        return f"<ReplicaContext {number} of {count}>"


@dataclass(frozen=True, eq=False)
class AllReduceGradient:
    """Gradients of what an all-reduce has given, as gradients of what a replica gave to it.

    In `fit` gradients are weighted by the replicas' shares of the batch: here before they are added
    up, and later again as gradients of weights, so that this weight is divided out.
    """

    context: ReplicaContext
    kind: ReduceOp

    def __call__(self, ops: Any, inputs: Any, outs: Any, gs: Any) -> list[Any]:
        share = self.context.share
        if share is None:
            return self.context.all_reduce(self.kind, list(gs))  # type: ignore[no-any-return]
        weights = [cast(share, g.dtype) for g in gs]
        weighted = [g * w for g, w in zip(gs, weights, strict=True)]
        found = self.context.all_reduce(self.kind, weighted)
        return [g / w for g, w in zip(found, weights, strict=True)]


def _gathered(values: list[Any], axis: int) -> Any:
    rows = zip(*map(tree.flatten, values), strict=True)
    return tree.unflatten(values[0], [gather(row, axis) for row in rows])


class SingleContext(ReplicaContext):
    """The only replica, where no strategy is in force."""

    def meet(self, name: str, value: Any, combine: Combine) -> Any:
        return combine([value])[0]


def replicate(
    strategy: Any, function: Callable[..., Any], calls: Sequence[Any], shares: Any = None
) -> list[Any]:
    """Results of `function(*args, **kwargs)` of each replica.

    calls: (args, kwargs) for each replica that takes part. shares: see ReplicaContext.
    """
    contexts = [
        ReplicaContext(strategy, i, None if shares is None else shares[i])
        for i in range(len(calls))
    ]
    lockstep = Lockstep(strategy, contexts)
    for context in contexts:
        context._lockstep = lockstep
    return lockstep.run([_bound(function, args, kwargs) for args, kwargs in calls])


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[[], Any]:
    return lambda: function(*args, **kwargs)


def _replica_number() -> int | None:
    return None if state.replica is None else state.replica.replica_id_in_sync_group


# A @function that a replica runs by itself refers to the replica's copies of Variables.
FLAGS.register("replica", _replica_number)
