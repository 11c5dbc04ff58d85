"""A model's step on all replicas of a strategy, as one program for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphnn import tree
from graphnn.apply import TENSOR_OPS, convert
from graphnn.compiler.ir.types import as_dtype, is_float
from graphnn.distribute.context import replicate
from graphnn.distribute.datasets import check_batch, split_leaves
from graphnn.distribute.reductions import gather
from graphnn.distribute.training import check_variables
from graphnn.distribute.variables import DistributedVariable
from graphnn.keras.models.data import Leaves
from graphnn.keras.shapes import shape_of
from graphnn.runtime.errors import StateError
from graphnn.signature import TensorSpec
from graphnn.tensor import Operand

Python = Callable[[Any], Any]


def make_step(kind: str, model: Any, make: Any, step: Python) -> Any:
    """The form in which `fit` and its brothers run a step.

    kind: "train", "test" or "predict". make: Step or EagerStep. Raises StateError for a model that
    was made or compiled outside of its strategy's scope.
    """
    name, strategy = f"{kind}_step", model._strategy
    known = [*model.weights, *(v for m in model.metrics for v in m.variables)]
    known += model.optimizer.variables if model.optimizer is not None else []
    if strategy is not None:
        check_variables(f"{kind} of {model.name}", known, strategy)
        if strategy.num_replicas_in_sync > 1:
            return ReplicaStep(kind, model.name, make, step, strategy)
        alone = make(lambda data: replicate(strategy, step, [((data,), {})])[0], name)
        return alone if not strategy.backends else SingleStep(alone, strategy)
    elif kind != "predict":
        _check_compiled_in_scope(kind, model, known)
    return make(step, name)


def _check_compiled_in_scope(kind: str, model: Any, known: Sequence[Any]) -> None:
    owned = [v for v in known if isinstance(v, DistributedVariable)]
    if any(v.strategy.num_replicas_in_sync > 1 for v in owned):
        raise StateError(
            f"{kind} of {model.name}",
            received="a model made in the scope of a strategy and compiled outside of it",
            expected="both in the same scope",
            fix="call model.compile(...) inside of `with strategy.scope():` too",
        )


class SingleStep:
    """The step of the only replica of a strategy, on its GPU."""

    def __init__(self, step: Any, strategy: Any) -> None:
        self._step, self._strategy = step, strategy

    def bind(self, structure: Any, leaves: Leaves) -> Any:
        """The step for data of one structure."""
        run, strategy = self._step.bind(structure, leaves), self._strategy

        def on_gpu(leaves: Leaves) -> Any:
            with strategy.at_home():
                return run(strategy.feed([leaves])[0])

        return on_gpu

    def graph(self) -> Any:
        """The graph of the latest trace after all passes, or None before the first step."""
        return self._step.graph()


class ReplicaStep:
    """`step(data)` of all replicas: the batch is split, and the replicas run in one program.

    Like Step, it is compiled once for batches of every size.
    """

    def __init__(self, kind: str, model: str, make: Any, step: Python, strategy: Any) -> None:
        self._subject, self.strategy = f"{kind} of {model}", strategy
        self._python, self._gathers = step, kind == "predict"
        self._step = make(self._together, f"{kind}_step")
        self._runs: dict[Any, Any] = {}

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.strategy.num_replicas_in_sync  # type: ignore[no-any-return]

    def bind(self, structure: Any, leaves: Leaves) -> BoundReplicas:
        """The step for data of one structure: a function of the tuple of leaves (without None).

        Raises ArgumentError for a batch with fewer examples than replicas.
        """
        check_batch(leaves, self.replicas, self._subject)
        return BoundReplicas(self, structure, leaves)

    def part(self, structure: Any, parts: Sequence[Leaves]) -> Any:
        """The step for as many replicas as there are parts, and their leaves in one tuple."""
        flat = tuple(leaf for part in parts for leaf in part)
        run = self._step.bind((structure,) * len(parts), flat)
        if hasattr(run, "get_concrete_function") and run not in self._runs:
            self._runs[run] = None
            run.get_concrete_function(_apart(parts))
        return run, flat

    def graph(self) -> Any:
        """The graph of the latest trace after all passes, or None before the first step."""
        return self._step.graph()

    def _together(self, batches: tuple[Any, ...]) -> Any:
        """The step on all replicas, whose data stand side by side."""
        calls: list[Any] = [((batch,), {}) for batch in batches]
        if len(calls) == 1:
            return replicate(self.strategy, self._python, calls)[0]
        sizes = [_examples(batch) for batch in batches]
        whole = convert(sum(sizes), as_dtype("float32"))
        shares = [convert(size, whole.dtype) / whole for size in sizes]
        results = replicate(self.strategy, self._python, calls, shares)
        columns = zip(*map(tree.flatten, results), strict=True)
        joined = [gather(c, 0) if self._gathers else _mean(c, shares) for c in columns]
        return tree.unflatten(results[0], joined)


class BoundReplicas:
    """The step of all replicas for data of one structure."""

    def __init__(self, step: ReplicaStep, structure: Any, example: Leaves) -> None:
        self._step, self._structure, self._example = step, structure, example

    def __call__(self, leaves: Leaves) -> Any:
        """Split the batch and run the replicas; fewer, if it has fewer examples."""
        strategy, parts = self._step.strategy, split_leaves(leaves, self._step.replicas)
        if not strategy.backends:
            run, flat = self._step.part(self._structure, parts)
            return run(flat)
        parts = strategy.feed(parts)
        with strategy.at_home():
            run, flat = self._step.part(self._structure, parts)
            return run(flat)

    def get_concrete_function(self) -> Any:
        """Trace the step now, which makes weights, slots and metrics."""
        parts = split_leaves(self._example, self._step.replicas)
        with self._step.strategy.at_home():
            return self._step.part(self._structure, parts)[0]


def _apart(parts: Sequence[Leaves]) -> tuple[TensorSpec, ...]:
    """Specs with another batch size for each replica, so that each gets a symbol of its own."""
    specs = []
    for replica, leaves in enumerate(parts):
        for leaf in leaves:
            shape = shape_of(leaf)
            sizes = (2 + replica, *shape[1:]) if shape and shape[0] != 1 else shape
            specs.append(TensorSpec(sizes, leaf.dtype))
    return tuple(specs)


def _examples(batch: Any) -> Any:
    """Number of examples of one replica, symbolic in a trace; 1 without a batch axis."""
    shapes = (leaf.shape for leaf in tree.flatten(batch) if leaf is not None)
    return next((shape[0] for shape in shapes if len(shape)), 1)


def _mean(column: Sequence[Any], shares: Sequence[Any]) -> Any:
    """One log from those of the replicas: what all have in common, or the mean over examples."""
    first = column[0]
    if all(value is first for value in column) or not isinstance(first, Operand):
        return first
    values = [value._tensor() for value in column]
    if not is_float(first.dtype) or len(first.shape):
        return first
    total = values[0] * shares[0]
    for value, share in zip(values[1:], shares[1:], strict=True):
        total = total + value * TENSOR_OPS.cast(share, dtype=value.dtype.name)
    return total
