"""Batches for the training loop from what gives them one by one: Datasets, generators, other
iterables, and objects that are asked for a batch by its number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from graphnn import ops, tree
from graphnn.keras.models.batches import BatchSource, Leaves, State, as_array
from graphnn.keras.seeds import new_seed
from graphnn.runtime.errors import ArgumentError, StateError, warn_user
from graphnn.tensor import Operand, Tensor

Change = Callable[[Any], Any]


def _as_tensor(value: Any) -> Any:
    if isinstance(value, Operand):
        return value._tensor()
    return ops.asarray(as_array(value))


def _leaves(batch: Any) -> Leaves:
    if type(batch) is tuple and all(type(leaf) is Tensor for leaf in batch):
        return batch
    return tuple(_as_tensor(leaf) for leaf in tree.flatten(batch) if leaf is not None)


def _is_dataset(batches: Any) -> bool:
    """Whether the position of an iterator over these batches can be saved and restored."""
    # Asked of the class: a Dataset's element_spec may call the user's functions.
    return hasattr(type(batches), "iterator") and hasattr(type(batches), "element_spec")


class IterableData(BatchSource):
    """Batches from a Dataset, a generator or any other iterable.

    Without `limit` an epoch is one pass. With it a pass may serve several epochs, and the next pass
    begins where one has ended. An iterator has one pass only. steps: batches per epoch. change:
    applied to each batch. restart: begin each epoch anew, as evaluations do. reuse: whether a batch
    of a Dataset may be overwritten by the next one. Raises ArgumentError without a batch.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        steps: int | None = None,
        change: Change | None = None,
        restart: bool = False,
        reuse: bool = False,
    ) -> None:
        self._batches, self._change, self._reuse = batches, change, reuse
        self._once = isinstance(batches, Iterator)
        self._restart = restart and not self._once
        self._ahead: list[Any] = []
        self._passes, self._taken = 0, 0
        self._iterator: Iterator[Any] | None = None
        self.steps = steps if steps is not None else _length(batches)
        if not self.ready():
            raise ArgumentError(
                "the data of a model",
                received="an iterable without a batch",
                expected="at least one batch",
                fix="check what the generator yields; an exhausted one gives nothing again",
            )
        self.structure = self._normal(self._ahead[0])
        self.example = _leaves(self.structure)
        self._passes = 0

    def _normal(self, batch: Any) -> Any:
        batch = tuple(batch) if isinstance(batch, list) else batch
        return self._change(batch) if self._change is not None else batch

    def _begin(self) -> None:
        """Begin a pass."""
        self.close()
        self._iterator = self._opened() if _is_dataset(self._batches) else iter(self._batches)
        self._taken = 0

    def _opened(self, position: State | None = None) -> Iterator[Any]:
        """An iterator over the Dataset."""
        return self._batches.iterator(position, reuse=self._reuse)  # type: ignore[attr-defined,no-any-return]

    def _look(self) -> bool:
        """Whether this pass has another batch, which is then held ahead."""
        if self._iterator is None:
            return False
        if not self._ahead:
            self._ahead.extend(batch for batch in [next(self._iterator, None)] if batch is not None)
        return bool(self._ahead)

    def ready(self) -> bool:
        if self._restart and self._taken:
            self._begin()
        if self._look():
            return True
        if self._once and self._iterator is not None:
            return False
        if self._iterator is not None:
            self._passes += 1
        self._begin()
        return self._look()

    def epoch(self, limit: int | None = None, first: int = 0) -> Iterator[Leaves]:
        number = first
        leaves: Leaves | None = None
        while limit is None or number < limit:
            batch = self._take()
            if batch is None:
                break
            if batch is not leaves:  # a tuple of tensors may come again, with other numbers
                if type(batch) is list or self._change is not None:
                    batch = self._normal(batch)
                leaves = _leaves(batch)
            yield leaves
            number += 1
        if limit is not None and first < number < limit:
            ran_out(number, limit)

    def _take(self) -> Any:
        """The next batch of this pass, or None."""
        if self._ahead:
            batch = self._ahead.pop()
        else:
            batch = next(self._iterator, None) if self._iterator is not None else None
        if batch is not None:
            self._taken += 1
        return batch

    # ---- positions ----------------------------------------------------------------------

    def state(self, batch: int) -> State:
        found: State = {"kind": "iterable", "passes": self._passes, "taken": self._taken}
        if _is_dataset(self._batches) and self._iterator is not None:
            found["iterator"] = self._iterator.state()  # type: ignore[attr-defined]
        return found

    def restore(self, state: State) -> None:
        check_kind(state, "iterable")
        if "iterator" in state:
            self.close()
            self._iterator = self._opened(state["iterator"])
            self._passes, self._taken = state["passes"], state["taken"]
        else:
            self._run_up_to(state["passes"], state["taken"])

    def _run_up_to(self, passes: int, taken: int) -> None:
        """Run from the beginning, where the first batch is held ahead, to a position."""
        while self._passes < passes:
            while self._take() is not None:
                pass
            self._passes += 1
            self._begin()
        for _ in range(taken):
            if self._take() is None:
                raise StateError(
                    "the position in the data",
                    received=f"a pass of {self._taken} batches",
                    expected=f"at least {taken}, where the backup was made",
                    fix="give the same data as before",
                )

    def close(self) -> None:
        self._ahead.clear()
        if _is_dataset(self._batches) and self._iterator is not None:
            self._iterator.close()  # type: ignore[attr-defined]
            self._iterator = None


class SequenceData(BatchSource):
    """Batches from an object with `__len__` and `__getitem__(number)`, such as a PyDataset.

    shuffle: ask for the batches in random order. `on_epoch_begin` and `on_epoch_end` of the object
    are called around each epoch, if it has them. Raises ArgumentError without a batch.
    """

    def __init__(self, batches: Any, shuffle: bool = False, change: Change | None = None) -> None:
        self._batches, self._change = batches, change
        self.steps = _length(batches)
        if not self.steps:
            raise ArgumentError(
                "the data of a model",
                received=f"a {type(batches).__name__} of length {self.steps}",
                expected="at least one batch",
                fix="let __len__ give the number of batches",
            )
        self.structure = self._normal(batches[0])
        self.example = _leaves(self.structure)
        self._order = np.random.default_rng(new_seed()) if shuffle else None
        self._before: Any = None

    def _normal(self, batch: Any) -> Any:
        batch = tuple(batch) if isinstance(batch, list) else batch
        return self._change(batch) if self._change is not None else batch

    def epoch(self, limit: int | None = None, first: int = 0) -> Iterator[Leaves]:
        getattr(self._batches, "on_epoch_begin", lambda: None)()
        count = int(self.steps or 0)
        order: Any = range(count)
        if self._order is not None:
            self._before = self._order.bit_generator.state
            order = self._order.permutation(count)
        stop = count if limit is None else min(count, limit)
        for number in range(first, stop):
            yield _leaves(self._normal(self._batches[int(order[number])]))
        if limit is not None and limit > count:
            ran_out(count, limit)
        getattr(self._batches, "on_epoch_end", lambda: None)()
        self.steps = _length(self._batches)

    def state(self, batch: int) -> State:
        rng = None
        if self._order is not None:
            rng = self._before if batch else self._order.bit_generator.state
        return {"kind": "sequence", "rng": rng}

    def restore(self, state: State) -> None:
        check_kind(state, "sequence")
        if self._order is not None:
            self._order.bit_generator.state = state["rng"]


def ran_out(number: int, limit: int) -> None:
    """Warn that an epoch ended before its time."""
    warn_user(
        f"the data ended after {number} of {limit} steps of an epoch; give more batches "
        "(Dataset.repeat() makes it endless) or fewer steps"
    )


def check_kind(state: State, kind: str) -> None:
    """Raise StateError if a position is one in other data."""
    if state.get("kind") != kind:
        raise StateError(
            "the position in the data",
            received=f"a position in data of the kind {state.get('kind')!r}",
            expected=f"one in data of the kind {kind!r}",
            fix="give fit the same data as before, or delete the backup",
        )


def is_sequence(x: Any) -> bool:
    """Whether x is asked for batches by number: it has a length and items, and is no container."""
    if isinstance(x, list | tuple | dict | str | bytes) or hasattr(x, "__array__"):
        return False
    return hasattr(x, "__getitem__") and hasattr(x, "__len__") and not _is_dataset(x)


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except (TypeError, StateError, NotImplementedError):
        return None
