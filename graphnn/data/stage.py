"""What a pipeline is made of: stages describe it, cursors run it.

A `Dataset` holds one stage, which holds the stages that it reads from. Each iteration opens a
cursor for each stage. Cursors give single elements (`next`) or several at once (`block`); the
stages with `columnar` set give blocks of arrays and do so without touching single elements.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from graphnn.data.blocks import Block, count, join, stack
from graphnn.data.elements import map_leaves
from graphnn.data.specs import spec_of
from graphnn.runtime.errors import StateError

INFINITE = -1
UNKNOWN = -2

State = dict[str, Any]


class Stage(ABC):
    """One step of a pipeline. Immutable, but for counters of epochs and filled caches.

    children: the stages it reads from. columnar: whether the blocks of its cursors are columns.
    """

    columnar: bool = False
    name: ClassVar[str] = ""

    def __init__(self, *children: Stage) -> None:
        self.children = children

    @abstractmethod
    def open(self) -> Cursor:
        """A cursor at the beginning."""

    def size(self) -> int:
        """Number of elements, INFINITE or UNKNOWN."""
        return self.children[0].size()

    def spec(self) -> Any:
        """The structure of the elements, with a spec at each leaf."""
        return self.children[0].spec()

    def example(self, rows: int) -> Any:
        """An element for finding shapes out; `rows` is used as the size of batches."""
        return self.children[0].example(rows)

    def settings(self) -> str:
        """The arguments that matter for the position of an iterator."""
        return ""

    def __str__(self) -> str:
        """The pipeline in one line, which a saved position must match."""
        own = f"{self.name}({self.settings()})"
        if not self.children:
            return own
        inside = ", ".join(map(str, self.children))
        return f"{inside}.{own}" if len(self.children) == 1 else f"({inside}).{own}"


class Cursor(ABC):
    """A running stage.

    `save` gives plain data: dicts, lists, tuples, numbers, strings, None and arrays.
    """

    def __init__(self, *children: Cursor) -> None:
        self.children = children

    @abstractmethod
    def next(self) -> Any:
        """The next element. Raises StopIteration at the end, and again each time after it."""

    def block(self, most: int) -> Block | None:
        """At least one and at most `most` elements; None at the end."""
        elements = []
        for _ in range(most):
            try:
                elements.append(self.next())
            except StopIteration:
                break
        return elements or None

    def skip(self, number: int) -> int:
        """Pass over elements; returns how many there were."""
        left = number
        while left:
            block = self.block(min(left, 1024))
            if block is None:
                break
            left -= count(block)
        return number - left

    def blocks(self, number: int) -> list[Block]:
        """Blocks of `number` elements in all; of fewer at the end."""
        found: list[Block] = []
        while number:
            block = self.block(number)
            if block is None:
                break
            found.append(block)
            number -= count(block)
        return found

    def together(self, number: int) -> Block | None:
        """One block of `number` elements; of fewer at the end, and None after it."""
        block = self.block(number)
        if block is None or (size := count(block)) == number:
            return block
        return join([block, *self.blocks(number - size)])

    def lend(self, lent: bool = True) -> None:  # noqa: B027
        """From now on the reader is done with what `next` or `together` gave before it asks for
        more, so that arrays may be used again; or no longer so. Stages that keep elements, or show
        them to users' functions, do not pass this on."""

    def restart(self) -> None:
        """Go back to the beginning, for the next epoch."""
        for child in self.children:
            child.restart()

    def save(self) -> State:
        """The position."""
        return {"children": [child.save() for child in self.children]}

    def restore(self, state: State) -> None:
        """Go to a saved position."""
        for child, saved in zip(self.children, state["children"], strict=True):
            child.restore(saved)

    def close(self) -> None:
        """End threads and close files. The cursor cannot give elements afterwards."""
        for child in self.children:
            child.close()


class CountingCursor(Cursor):
    """A cursor whose position is given by attributes that are numbers and flags.

    starts: these attributes, with their values at the beginning.
    """

    def __init__(self, *children: Cursor, **starts: int) -> None:
        super().__init__(*children)
        self._starts = starts
        self.__dict__.update(starts)

    def restart(self) -> None:
        super().restart()
        self.__dict__.update(self._starts)

    def save(self) -> State:
        return {**{name: getattr(self, name) for name in self._starts}, **super().save()}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.__dict__.update({name: state[name] for name in self._starts})


def first_element(stage: Stage) -> Any:
    """The first element of a stage, read from a cursor of its own.

    Raises StateError if there is none.
    """
    cursor = stage.open()
    try:
        return cursor.next()
    except StopIteration:
        raise StateError(
            "Dataset.element_spec",
            received=f"the dataset {stage}, which has no element",
            expected="at least one element, whose shape shows the others'",
            fix="give from_generator an output_signature, or check the data",
        ) from None
    finally:
        cursor.close()


def example_or_zeros(stage: Stage) -> Any:
    """The first element; zeros and empty text where there is none."""
    try:
        return first_element(stage)
    except StateError:
        return map_leaves(lambda s: np.zeros(s.shape, s.dtype), stage.spec())


class Source(Stage):
    """Base of stages that read from no other and find their spec in the first element."""

    def __init__(self) -> None:
        super().__init__()
        self._spec: Any = None

    def size(self) -> int:
        return UNKNOWN

    def spec(self) -> Any:
        if self._spec is None:
            self._spec = spec_of(self.example(1))
        return self._spec

    def example(self, rows: int) -> Any:
        return first_element(self)


def failed_ahead(error: BaseException | None) -> StateError:
    """Why a position cannot be saved: an element failed that nobody has asked for yet."""
    return StateError(
        "the position of an iterator",
        received=f"an element that was made ahead and failed: {type(error).__name__}: {error}",
        expected="elements without errors in the buffers",
        fix="read on until the error is raised, or correct the function",
    )


def repeated(element: Any, rows: int) -> Any:
    """A batch of copies of one element."""
    return stack([element] * rows)
