"""What optimizers, losses and metrics do where replicas train together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from graphnn.apply import TENSOR_OPS, cast, convert
from graphnn.distribute.enums import ReduceOp
from graphnn.distribute.reductions import all_reduce
from graphnn.distribute.variables import DistributedVariable
from graphnn.runtime.errors import StateError
from graphnn.state import state

Update = Callable[[list[Any], list[Any]], Any]


def apply_together(name: str, update: Update, gradients: Any, variables: Any) -> None:
    """One update for all replicas: their gradients are added up first, in one all-reduce.

    update: called once, outside of the replicas, with gradients and Variables. In `fit` the
    gradients are weighted by the replicas' shares of the batch. Raises StateError for Variables
    that were made outside of the strategy's scope.
    """
    context = state.replica
    check_variables(name, variables, context.strategy)
    weighted = [_weighted(g, context.share) for g in gradients]

    def combine(brought: list[Any]) -> list[None]:
        update(_summed(brought), list(variables))
        return [None] * len(brought)

    context.meet(name, weighted, combine)


def _weighted(gradient: Any, share: Any) -> Any:
    return gradient if gradient is None or share is None else gradient * cast(share, gradient.dtype)


def _summed(rows: list[list[Any]]) -> list[Any]:
    """The sum of each gradient over replicas; None where no replica has one."""
    columns = list(zip(*rows, strict=True))
    everywhere = [i for i, c in enumerate(columns) if all(g is not None for g in c)]
    found = all_reduce(ReduceOp.SUM, [[row[i] for i in everywhere] for row in rows])
    sums = dict(zip(everywhere, found, strict=True))
    return [sums.get(i, _partial(c)) for i, c in enumerate(columns)]


def _partial(column: Sequence[Any]) -> Any:
    known = [[g] for g in column if g is not None]
    return all_reduce(ReduceOp.SUM, known)[0] if known else None


def scope_of(variable: Any) -> AbstractContextManager[Any]:
    """The scope of the strategy that a Variable was made in, for what goes with it; nothing for
    other Variables, and where a strategy is in force already."""
    strategy = getattr(variable, "strategy", None)
    if strategy is None or state.strategy is not None or state.replica is not None:
        return nullcontext()
    scope: AbstractContextManager[Any] = strategy.scope()
    return scope


def check_variables(what: str, variables: Sequence[Any], strategy: Any) -> None:
    """Raise StateError unless all Variables were made in the strategy's scope."""
    outside = [v for v in variables if getattr(v, "strategy", None) is not strategy]
    if not outside:
        return
    shown = ", ".join(repr(v.name) for v in outside[:3]) + (", ..." if len(outside) > 3 else "")
    other = isinstance(outside[0], DistributedVariable)
    raise StateError(
        what,
        received=f"{shown}, made {'under another strategy' if other else 'outside of the scope'}",
        expected="Variables made in the scope of the strategy that trains them",
        fix="make the model, the optimizer and the metrics inside of `with strategy.scope():`",
    )


def merged(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method without arguments that runs once for all replicas, outside of them.

    So it sees the combined values of Variables that each replica has a copy of.
    """

    @functools.wraps(method)
    def wrapper(self: Any) -> Any:
        if state.replica is None:
            return method(self)
        name = f"{method.__name__} of {getattr(self, 'name', type(self).__name__)}"
        return state.replica.meet(name, None, lambda v: [method(self)] * len(v))

    return wrapper


# ---- losses ---------------------------------------------------------------------------------
# In `run`, gradients of the replicas are added up: so a loss must be this replica's part of the
# loss of the global batch. In `fit` gradients are weighted by the replicas' shares, and a loss must
# be such that its weighted sum is that of the global batch; a plain mean is so already.


def _context() -> Any:
    """The replica that runs, if there are others."""
    context = state.replica
    return None if context is None or context.active == 1 else context


def part_of_mean(mean: Any, count: Any) -> Any:
    """A mean over `count` values of this replica, as a part of the mean over all replicas."""
    context = _context()
    if context is None or context.share is not None:
        return mean
    return part_of_ratio(mean, convert(count, mean.dtype))


def part_of_sum(total: Any) -> Any:
    """A sum over this replica's values, as a part of the sum over all replicas."""
    context = _context()
    if context is None or context.share is None:
        return total
    return total / cast(context.share, total.dtype)


def part_of_ratio(ratio: Any, below: Any) -> Any:
    """A quotient of sums, as a part of the quotient of the sums over all replicas.

    below: the replica's own denominator, a 0-d tensor.
    """
    context = _context()
    if context is None:
        return ratio
    whole = context.all_reduce(ReduceOp.SUM, below)
    safe = TENSOR_OPS.where(whole == 0, TENSOR_OPS.ones_like(whole), whole)
    return part_of_sum(ratio * cast(below / safe, ratio.dtype))


def compute_average_loss(
    per_example_loss: Any, sample_weight: Any = None, global_batch_size: Any = None
) -> Any:
    """The replica's part of the mean loss over the examples of all replicas, a scalar.

    per_example_loss: one value per example. sample_weight: weights that broadcast against it.
    global_batch_size: examples of all replicas; by default they are counted. Without a strategy it
    is the mean.

    >>> float(graphnn.nn.compute_average_loss([1.0, 3.0], global_batch_size=2))
    2.0
    """
    values = convert(per_example_loss)
    if sample_weight is not None:
        values = values * cast(convert(sample_weight), values.dtype)
    total = TENSOR_OPS.sum(values, axes=tuple(range(values.ndim)))
    if global_batch_size is not None:
        return part_of_sum(total / cast(convert(global_batch_size), values.dtype))
    count = values.shape[0] if values.ndim else 1
    return part_of_mean(total / convert(count, values.dtype), count)


def scale_regularization_loss(regularization_loss: Any) -> Any:
    """The replica's part of a loss that is the same on all replicas, or the sum of a list of them.

    >>> float(graphnn.nn.scale_regularization_loss(graphnn.constant(2.0)))
    2.0
    """
    items = regularization_loss
    total, *rest = list(items) if isinstance(items, list | tuple) else [items]
    for item in rest:
        total = total + item
    context = _context()
    if context is None or context.share is not None:
        return convert(total)
    return convert(total) / context.active
