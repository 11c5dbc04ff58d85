"""Where elements come from: arrays in memory, ranges of numbers, Python generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from graphnn.data.blocks import Block, Space, pick, row
from graphnn.data.calls import failure
from graphnn.data.elements import (
    Array,
    describe_element,
    leaves,
    map_leaves,
    to_array,
)
from graphnn.data.seeds import Pass, Passes, fresh_seed
from graphnn.data.specs import fit, spec_of, unbatched
from graphnn.data.stage import INFINITE, Cursor, Source, Stage, State, example_or_zeros
from graphnn.draws import Draws
from graphnn.runtime.errors import ArgumentError, ShapeError
from graphnn.state import state

_READ_AHEAD = 1024
_NO_ROWS = np.empty(0, np.int64)
ENDLESS = 2**62

Gatherer = Callable[[Array], Block]  # rows of a table by their numbers


# ---- tables: what row numbers point into ------------------------------------------------------


class Arrays:
    """A table of columns in memory. Raises ShapeError for columns of different lengths."""

    def __init__(self, structure: Any) -> None:
        self.columns = map_leaves(to_array, structure)
        self.count = _length(self.columns)

    def row(self, index: int) -> Any:
        """One element, as views."""
        return row(self.columns, index)

    def rows(self, numbers: Array, space: Space | None = None) -> Block:
        """Several elements: views where the numbers follow each other, else new arrays, or those
        of `space`."""
        first, size = numbers.item(0), len(numbers)
        if numbers.item(-1) - first == size - 1 and (np.diff(numbers) == 1).all():
            return map_leaves(lambda a: a[first : first + size], self.columns)
        return pick(self.columns, numbers) if space is None else space.pick(numbers)

    def lent(self) -> Gatherer:
        """`rows` for a reader that is done with a batch before it asks for the next."""
        return partial(self.rows, space=Space(self.columns))

    def spec(self) -> Any:
        """The specs of one row."""
        return unbatched(spec_of(self.columns))

    def __str__(self) -> str:
        return f"slices({self.count} x {describe_element(self.row(0)) if self.count else '()'})"


def _length(columns: Any) -> int:
    sizes = {a.shape[0] if a.ndim else None for a in leaves(columns)}
    if len(sizes) == 1 and None not in sizes:
        return int(sizes.pop() or 0)
    raise ShapeError(
        "Dataset.from_tensor_slices",
        received=describe_element(columns),
        expected="arrays with the same number of elements along the first axis",
        fix="cut them to one length; for a single element use from_tensors",
    )


class Steps:
    """A table of equally spaced integers that are computed, not stored."""

    def __init__(self, start: int, step: int, count: int, dtype: Any = np.int64) -> None:
        self.start, self.step, self.count, self.dtype = start, step, count, np.dtype(dtype)

    def row(self, index: int) -> Array:
        """One number."""
        return np.array(self.start + index * self.step, self.dtype)

    def rows(self, numbers: Array) -> Array:
        """Several numbers."""
        values: Array = (self.start + numbers * self.step).astype(self.dtype)
        return values

    def lent(self) -> Gatherer:
        """`rows`: there is little to save."""
        return self.rows

    def spec(self) -> Any:
        """The spec of one number."""
        return spec_of(np.zeros((), self.dtype))

    def __str__(self) -> str:
        return f"range({self.start}, {self.start + self.step * self.count}, {self.step})"


class Zipped:
    """Several tables side by side, as long as the shortest."""

    def __init__(self, tables: Any) -> None:
        self.tables = tables
        self.count = min(t.count for t in leaves(tables))

    def row(self, index: int) -> Any:
        """One row of each."""
        return map_leaves(lambda t: t.row(index), self.tables)

    def rows(self, numbers: Array) -> Block:
        """Several rows of each."""
        return map_leaves(lambda t: t.rows(numbers), self.tables)

    def lent(self) -> Gatherer:
        """`rows` for a reader that is done with a batch before it asks for the next."""
        gatherers = map_leaves(lambda t: t.lent(), self.tables)
        return lambda numbers: map_leaves(lambda rows: rows(numbers), gatherers)

    def spec(self) -> Any:
        """The specs of one row."""
        return map_leaves(lambda t: t.spec(), self.tables)

    def __str__(self) -> str:
        return f"zip({', '.join(str(t) for t in leaves(self.tables))})"


# ---- elements by row number -------------------------------------------------------------------


class Rows(Stage):
    """The numbers 0 to count - 1: the order of a table that nobody has changed."""

    columnar, name = True, "rows"

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def open(self) -> Cursor:
        return _RowsCursor(self.count)

    def size(self) -> int:
        return INFINITE if self.count >= ENDLESS else self.count

    def settings(self) -> str:
        return str(self.count)


class _RowsCursor(Cursor):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.at = count, 0

    def next(self) -> Any:
        numbers = self.block(1)
        if numbers is None:
            raise StopIteration
        return numbers[0]

    def block(self, most: int) -> Array | None:
        if self.at >= self.count:
            return None
        stop = min(self.at + most, self.count)
        numbers = np.arange(self.at, stop)
        self.at = stop
        return numbers

    def skip(self, number: int) -> int:
        passed = min(number, self.count - self.at)
        self.at += passed
        return passed

    def restart(self) -> None:
        self.at = 0

    def save(self) -> State:
        return {"at": self.at}

    def restore(self, state: State) -> None:
        self.at = state["at"]


class Gather(Stage):
    """Rows of a table in some order. Stages that only choose or reorder work on the row numbers."""

    columnar, name = True, "gather"

    def __init__(self, table: Any, order: Stage | None = None) -> None:
        self.table, self.order = table, order if order is not None else Rows(table.count)
        super().__init__(self.order)

    @property
    def is_whole(self) -> bool:
        """Whether the rows come once, in their own order."""
        return isinstance(self.order, Rows)

    def open(self) -> Cursor:
        return _GatherCursor(self.table, self.order.open())

    def size(self) -> int:
        return self.order.size()

    def spec(self) -> Any:
        return self.table.spec()

    def example(self, rows: int) -> Any:
        return self.table.row(0) if self.table.count else example_or_zeros(self)

    def __str__(self) -> str:
        return f"{self.table}.{self.order}"


class _GatherCursor(Cursor):
    def __init__(self, table: Any, order: Cursor) -> None:
        super().__init__(order)
        self.table, self.order = table, order
        self._rows: Gatherer = table.rows
        self._read_up_to(_NO_ROWS)

    def _read_up_to(self, ahead: Array) -> None:
        """Go on with row numbers that were read from the order before."""
        self._ahead, self._at = ahead, 0

    def _look(self) -> bool:
        """Whether there is another row. One block of the order is read ahead at a time, which ends
        where an epoch ends: the order does not begin another one before it is needed."""
        if self._at == len(self._ahead):
            self._read_up_to(_NO_ROWS)
            numbers = self.order.block(_READ_AHEAD)
            if numbers is None:
                return False
            self._read_up_to(numbers)
        return True

    def next(self) -> Any:
        if not self._look():
            raise StopIteration
        number = self._ahead.item(self._at)
        self._at += 1
        return self.table.row(number)

    def block(self, most: int) -> Block | None:
        numbers = self._numbers(most)
        return None if numbers is None else self.table.rows(numbers)

    def together(self, number: int) -> Block | None:
        numbers = self._numbers(number)
        return None if numbers is None else self._rows(numbers)

    def _numbers(self, most: int) -> Array | None:
        start, stop = self._at, self._at + most
        if stop <= len(self._ahead):
            self._at = stop
            return self._ahead[start:stop]
        parts = []
        while most and self._look():
            start = self._at
            numbers = self._ahead[start : start + most]
            self._at = start + len(numbers)
            most -= len(numbers)
            parts.append(numbers)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else None

    def lend(self, lent: bool = True) -> None:
        self._rows = self.table.lent() if lent else self.table.rows

    def skip(self, number: int) -> int:
        ahead = min(number, len(self._ahead) - self._at)
        self._at += ahead
        return ahead + self.order.skip(number - ahead)

    def restart(self) -> None:
        self._read_up_to(_NO_ROWS)
        self.order.restart()

    def save(self) -> State:
        return {"ahead": self._ahead[self._at :].copy(), "order": self.order.save()}

    def restore(self, state: State) -> None:
        self._read_up_to(state["ahead"])
        self.order.restore(state["order"])


# ---- one element, and generators --------------------------------------------------------------


class Single(Stage):
    """One element."""

    name = "tensors"

    def __init__(self, element: Any) -> None:
        super().__init__()
        self.element = map_leaves(to_array, element)

    def open(self) -> Cursor:
        return _SingleCursor(self.element)

    def size(self) -> int:
        return 1

    def spec(self) -> Any:
        return spec_of(self.element)

    def example(self, rows: int) -> Any:
        return self.element

    def settings(self) -> str:
        return describe_element(self.element)


class _SingleCursor(Cursor):
    def __init__(self, element: Any) -> None:
        super().__init__()
        self.element, self.done = element, False

    def next(self) -> Any:
        if self.done:
            raise StopIteration
        self.done = True
        return self.element

    def restart(self) -> None:
        self.done = False

    def save(self) -> State:
        return {"done": self.done}

    def restore(self, state: State) -> None:
        self.done = state["done"]


class FromGenerator(Source):
    """What a Python generator yields; each epoch calls the function again."""

    name = "generator"

    def __init__(self, make: Callable[..., Iterable[Any]], args: Any, signature: Any) -> None:
        super().__init__()
        if not callable(make):
            raise ArgumentError(
                "Dataset.from_generator",
                received=f"a {type(make).__name__}",
                expected="a function that gives a new generator for each epoch",
                fix="pass the function itself, or lambda: iterable",
            )
        self.make, self.args = make, args
        self.seed, self.passes = fresh_seed(), Passes()
        self._spec = signature
        self.signature = signature

    def open(self) -> Cursor:
        return _GeneratorCursor(self)


class _GeneratorCursor(Cursor):
    """A position is a number of elements: going back there runs the generator that far."""

    def __init__(self, stage: FromGenerator) -> None:
        super().__init__()
        self.stage, self.at, self.done = stage, 0, False
        self._run = Pass(stage.seed, stage.passes)
        self._draws = Draws(*self._run.place, 0)
        self._iterator: Iterator[Any] | None = None

    def next(self) -> Any:
        value = self._pull()
        subject = "Dataset.from_generator"
        element = map_leaves(to_array, value)
        if self.stage.signature is not None:
            element = fit(self.stage.signature, element, subject, self.at - 1)
        return element

    def _pull(self) -> Any:
        if self.done:
            raise StopIteration
        before, state.draws = state.draws, self._draws
        try:
            if self._iterator is None:
                self._iterator = iter(self.stage.make(*self.stage.args))
            value = next(self._iterator)
        except StopIteration:
            self.done = True
            raise
        except Exception as error:
            self.done = True  # a generator that raised is finished
            failure(error, "Dataset.from_generator", self.at, self.stage.make)
            raise
        finally:
            state.draws = before
        self.at += 1
        return value

    def skip(self, number: int) -> int:
        for passed in range(number):
            try:
                self._pull()
            except StopIteration:
                return passed
        return number

    def restart(self) -> None:
        self._run.restart()
        self._begin()

    def _begin(self) -> None:
        self.close()
        self._draws = Draws(*self._run.place, 0)
        self.at, self.done = 0, False

    def save(self) -> State:
        return {"at": self.at, "done": self.done, **self._run.save()}

    def restore(self, saved: State) -> None:
        self._run.restore(saved)
        self._begin()
        self.skip(saved["at"])
        self.done = saved["done"]

    def close(self) -> None:
        iterator, self._iterator = self._iterator, None
        self.done = True
        close = getattr(iterator, "close", None)
        if close is not None:
            close()  # runs the generator's finally blocks now, not at some later time
