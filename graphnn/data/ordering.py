"""Stages that choose and reorder: they work on single elements and on columns alike."""

from __future__ import annotations

from typing import Any

from graphnn.data.blocks import Block, count, cut
from graphnn.data.specs import common
from graphnn.data.stage import INFINITE, UNKNOWN, CountingCursor, Cursor, Stage


class Keeping(Stage):
    """Base of stages with one input whose blocks are of the input's kind."""

    def __init__(self, child: Stage) -> None:
        super().__init__(child)
        self.child, self.columnar = child, child.columnar


class _PassingOn(CountingCursor):
    """A cursor whose elements are those of its children, seen by nobody else."""

    def lend(self, lent: bool = True) -> None:
        for child in self.children:
            child.lend(lent)


class Take(Keeping):
    """At most the first `count` elements."""

    name = "take"

    def __init__(self, child: Stage, count: int) -> None:
        super().__init__(child)
        self.count = count

    def open(self) -> Cursor:
        return _TakeCursor(self.child.open(), self.count)

    def size(self) -> int:
        size = self.child.size()
        if size == INFINITE or not self.count:
            return self.count
        return UNKNOWN if size == UNKNOWN else min(size, self.count)

    def settings(self) -> str:
        return str(self.count)


class _TakeCursor(_PassingOn):
    left: int

    def __init__(self, child: Cursor, count: int) -> None:
        super().__init__(child, left=count)
        self.child = child

    def next(self) -> Any:
        if not self.left:
            raise StopIteration
        element = self.child.next()
        self.left -= 1
        return element

    def block(self, most: int) -> Block | None:
        block = self.child.block(min(most, self.left)) if self.left else None
        if block is not None:
            self.left -= count(block)
        return block

    def skip(self, number: int) -> int:
        passed = self.child.skip(min(number, self.left))
        self.left -= passed
        return passed


class Skip(Keeping):
    """All but the first `count` elements."""

    name = "skip"

    def __init__(self, child: Stage, count: int) -> None:
        super().__init__(child)
        self.count = count

    def open(self) -> Cursor:
        return _SkipCursor(self.child.open(), self.count)

    def size(self) -> int:
        size = self.child.size()
        return size if size < 0 else max(0, size - self.count)

    def settings(self) -> str:
        return str(self.count)


class _SkipCursor(_PassingOn):
    pending: bool

    def __init__(self, child: Cursor, count: int) -> None:
        super().__init__(child, pending=True)
        self.child, self.count = child, count

    def _begin(self) -> None:
        if self.pending:
            self.pending = False
            self.child.skip(self.count)

    def next(self) -> Any:
        self._begin()
        return self.child.next()

    def block(self, most: int) -> Block | None:
        self._begin()
        return self.child.block(most)

    def skip(self, number: int) -> int:
        self._begin()
        return self.child.skip(number)


class Shard(Keeping):
    """Each `number`-th element, from the one at `index` on."""

    name = "shard"

    def __init__(self, child: Stage, number: int, index: int) -> None:
        super().__init__(child)
        self.number, self.index = number, index

    def open(self) -> Cursor:
        return _ShardCursor(self.child.open(), self.number, self.index)

    def size(self) -> int:
        size = self.child.size()
        return size if size < 0 else len(range(self.index, size, self.number))

    def settings(self) -> str:
        return f"{self.number}, {self.index}"


class _ShardCursor(_PassingOn):
    before: int  # elements of other shards before the next one of this

    def __init__(self, child: Cursor, number: int, index: int) -> None:
        super().__init__(child, before=index)
        self.child, self.number = child, number

    def next(self) -> Any:
        while self.before:
            self.child.next()
            self.before -= 1
        element = self.child.next()
        self.before = self.number - 1
        return element

    def block(self, most: int) -> Block | None:
        while True:
            block = self.child.block(self.before + 1 + (most - 1) * self.number)
            if block is None:
                return None
            size = count(block)
            mine = cut(block, self.before, None, self.number)
            self.before = (self.before - size) % self.number
            if count(mine):
                return mine


class Repeat(Keeping):
    """The elements `times` times, without end if times is INFINITE."""

    name = "repeat"

    def __init__(self, child: Stage, times: int) -> None:
        super().__init__(child)
        self.times = times

    def open(self) -> Cursor:
        return _RepeatCursor(self.child.open(), self.times)

    def size(self) -> int:
        size = self.child.size()
        if size == 0 or self.times == 0:
            return 0
        return INFINITE if self.times == INFINITE else size if size < 0 else size * self.times

    def settings(self) -> str:
        return "" if self.times == INFINITE else str(self.times)


class _RepeatCursor(_PassingOn):
    left: int  # epochs, with the one at hand
    empty: bool  # nothing in it yet

    def __init__(self, child: Cursor, times: int) -> None:
        super().__init__(child, left=times, empty=True)
        self.child = child

    def _another(self) -> bool:
        """Start the next epoch unless there is none, or the last one was empty."""
        self.left -= self.left > 0
        if self.empty or not self.left:
            self.left = 0
            return False
        self.child.restart()
        self.empty = True
        return True

    def next(self) -> Any:
        while self.left:
            try:
                element = self.child.next()
            except StopIteration:
                self._another()
                continue
            self.empty = False
            return element
        raise StopIteration

    def block(self, most: int) -> Block | None:
        while self.left:
            block = self.child.block(most)
            if block is not None:
                self.empty = False
                return block
            self._another()
        return None


class Concatenate(Stage):
    """All elements of one dataset, then all of another."""

    name = "concatenate"

    def open(self) -> Cursor:
        return _ConcatenateCursor(*(child.open() for child in self.children))

    def size(self) -> int:
        sizes = [child.size() for child in self.children]
        if INFINITE in sizes:
            return INFINITE
        return UNKNOWN if UNKNOWN in sizes else sum(sizes)

    def spec(self) -> Any:
        return common(*(child.spec() for child in self.children))


class _ConcatenateCursor(_PassingOn):
    at: int

    def __init__(self, *children: Cursor) -> None:
        super().__init__(*children, at=0)

    def next(self) -> Any:
        while self.at < len(self.children):
            try:
                return self.children[self.at].next()
            except StopIteration:
                self.at += 1
        raise StopIteration
