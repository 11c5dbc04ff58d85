"""Stages that read from several datasets: zip, and interleave with flat_map."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from graphnn.data.calls import Call, failure
from graphnn.data.elements import leaves, map_leaves
from graphnn.data.seeds import Place
from graphnn.data.sources import Gather, Zipped
from graphnn.data.stage import INFINITE, UNKNOWN, Cursor, Stage, State, failed_ahead
from graphnn.data.threads import Pool
from graphnn.runtime.errors import DTypeError


def zipped(stages: Any) -> Stage:
    """Elements side by side; whole tables are put side by side themselves."""
    flat = list(leaves(stages))
    if all(isinstance(s, Gather) and s.is_whole for s in flat):
        return Gather(Zipped(map_leaves(lambda s: s.table, stages)))
    return Zip(stages, flat)


class Zip(Stage):
    """One element of each dataset at a time, until the first of them ends."""

    name = "zip"

    def __init__(self, structure: Any, flat: list[Stage]) -> None:
        super().__init__(*flat)
        self.structure = structure

    def open(self) -> Cursor:
        return _ZipCursor(self.structure, [child.open() for child in self.children])

    def size(self) -> int:
        sizes = [child.size() for child in self.children if child.size() != INFINITE]
        if not sizes:
            return INFINITE
        return 0 if 0 in sizes else UNKNOWN if UNKNOWN in sizes else min(sizes)

    def spec(self) -> Any:
        return map_leaves(lambda s: s.spec(), self.structure)

    def example(self, rows: int) -> Any:
        return map_leaves(lambda s: s.example(rows), self.structure)


class _ZipCursor(Cursor):
    def __init__(self, structure: Any, cursors: list[Cursor]) -> None:
        super().__init__(*cursors)
        self.structure = structure

    def next(self) -> Any:
        rest: Iterator[Any] = iter([child.next() for child in self.children])
        return map_leaves(lambda _: next(rest), self.structure)


class Interleave(Stage):
    """The elements of datasets that a function makes from elements, `block` at a time in turn.

    cycle: datasets that are open at once. workers: threads that read ahead in them (0: none).
    """

    name = "interleave"

    def __init__(self, child: Stage, call: Call, cycle: int, block: int, workers: int) -> None:
        super().__init__(child)
        self.child, self.call = child, call
        self.cycle, self.block, self.workers = cycle, block, workers

    def open(self) -> Cursor:
        return (_ParallelInterleave if self.workers else _InterleaveCursor)(self)

    def size(self) -> int:
        return 0 if self.child.size() == 0 else UNKNOWN

    def spec(self) -> Any:
        return self.made(self.child.example(1), 0).spec()

    def example(self, rows: int) -> Any:
        return self.made(self.child.example(rows), 0).example(rows)

    def settings(self) -> str:
        return f"{self.cycle}, {self.block}"

    def made(self, element: Any, index: int, place: Place | None = None) -> Stage:
        """The stage of the dataset that the function makes."""
        dataset = self.call(element, index, place)
        stage = getattr(dataset, "_stage", None)
        if isinstance(stage, Stage):
            return stage
        error = DTypeError(
            self.call.what,
            received=f"a function that returned a {type(dataset).__name__}",
            expected="a function that returns a Dataset",
            fix="return e.g. graphnn.data.Dataset.from_tensor_slices(x), or use map",
        )
        raise failure(error, self.call.what, index, self.call.function, element)


class _Slot:
    """One open dataset: the element it was made from, its cursor, and what was read ahead."""

    def __init__(self, index: int, element: Any, cursor: Cursor) -> None:
        self.index, self.element, self.cursor = index, element, cursor
        self.ahead: deque[Any] = deque()
        self.ended = False  # whether `ahead` is all that is left
        self.error: Exception | None = None  # comes after `ahead`
        self.task: Future[Any] | None = None


class _InterleaveCursor(Cursor):
    """Slots take turns; an ended one is refilled when its turn comes again."""

    def __init__(self, stage: Interleave) -> None:
        self.stage, self.child = stage, stage.child.open()
        super().__init__(self.child)
        self.run = stage.call.begin()
        self._begin()

    def _begin(self) -> None:
        self.slots: list[_Slot | None] = [None] * self.stage.cycle
        self.turn, self.used, self.at, self.ended = 0, 0, 0, False

    def next(self) -> Any:
        while not self.ended or any(self.slots):
            slot = self.slots[self.turn] or self._open(self.turn)
            if slot is None:
                self._advance()
                continue
            try:
                element = self._pull(slot)
            except StopIteration:
                slot.cursor.close()
                self.slots[self.turn] = None
                self._on_end(self.turn)
                self._advance()
                continue
            self.used += 1
            if self.used == self.stage.block:
                self._advance()
            return element
        raise StopIteration

    def _advance(self) -> None:
        self.turn, self.used = (self.turn + 1) % self.stage.cycle, 0

    def _open(self, turn: int) -> _Slot | None:
        if self.ended:
            return None
        try:
            element = self.child.next()
        except StopIteration:
            self.ended = True
            return None
        self.at += 1
        slot = self._slot(self.at - 1, element)
        self.slots[turn] = slot
        return slot

    def _slot(self, index: int, element: Any) -> _Slot:
        return _Slot(index, element, self.stage.made(element, index, self.run.place).open())

    def _pull(self, slot: _Slot) -> Any:
        if slot.ahead:
            return slot.ahead.popleft()
        if slot.ended:
            raise StopIteration
        return slot.cursor.next()

    def _on_end(self, turn: int) -> None:
        """Hook: a dataset has ended."""

    def restart(self) -> None:
        self._close_slots()
        super().restart()
        self.run.restart()
        self._begin()

    def save(self) -> State:
        names = ("turn", "used", "at", "ended")
        own = {**self.run.save(), **{name: getattr(self, name) for name in names}}
        return {**own, "slots": [self._save(slot) for slot in self.slots], **super().save()}

    def _save(self, slot: _Slot | None) -> State | None:
        if slot is None:
            return None
        return {
            "index": slot.index,
            "element": slot.element,
            "ahead": list(slot.ahead),
            "ended": slot.ended,
            "cursor": None if slot.ended else slot.cursor.save(),
        }

    def restore(self, state: State) -> None:
        self._close_slots()
        super().restore(state)
        self.run.restore(state)
        self.turn, self.used = state["turn"], state["used"]
        self.at, self.ended = state["at"], state["ended"]
        self.slots = [self._restored(saved) for saved in state["slots"]]

    def _restored(self, saved: State | None) -> _Slot | None:
        if saved is None:
            return None
        slot = self._slot(saved["index"], saved["element"])
        slot.ahead.extend(saved["ahead"])
        slot.ended = saved["ended"]
        if not slot.ended:
            slot.cursor.restore(saved["cursor"])
        return slot

    def _close_slots(self) -> None:
        slots, self.slots = self.slots, [None] * self.stage.cycle
        for slot in slots:
            if slot is not None:
                slot.cursor.close()

    def close(self) -> None:
        self._close_slots()
        super().close()


def _read(cursor: Cursor, most: int) -> tuple[list[Any], bool, Exception | None]:
    """Up to `most` elements, whether these were the last ones, and what came after them."""
    elements = []
    for _ in range(most):
        try:
            elements.append(cursor.next())
        except StopIteration:
            return elements, True, None
        except Exception as error:
            return elements, False, error
    return elements, False, None


class _ParallelInterleave(_InterleaveCursor):
    """The same order; each open dataset has its next block read by a thread.

    Datasets are opened by the thread that iterates, in the order of their elements, so that what
    they draw on opening does not depend on the threads.
    """

    def __init__(self, stage: Interleave) -> None:
        self.pool = Pool(stage.workers, "interleave")
        super().__init__(stage)
        self.fresh = True

    def next(self) -> Any:
        if self.fresh:
            self.fresh = False
            for turn, slot in enumerate(self.slots):
                if slot is None:
                    self._open(turn)
        return super().next()

    def _open(self, turn: int) -> _Slot | None:
        slot = super()._open(turn)
        if slot is not None:
            self._ask(slot)
        return slot

    def _ask(self, slot: _Slot) -> None:
        if slot.task is None and slot.error is None and not slot.ended:
            slot.task = self.pool.submit(_read, slot.cursor, self.stage.block)

    def _pull(self, slot: _Slot) -> Any:
        if not slot.ahead:
            self._ask(slot)
            self._collect(slot)
        if not slot.ahead:
            error, slot.error = slot.error, None
            raise error if error is not None else StopIteration
        element = slot.ahead.popleft()
        if not slot.ahead:
            self._ask(slot)
        return element

    def _collect(self, slot: _Slot) -> None:
        task, slot.task = slot.task, None
        if task is not None:
            elements, slot.ended, slot.error = task.result()
            slot.ahead.extend(elements)

    def _on_end(self, turn: int) -> None:
        self._open(turn)

    def restart(self) -> None:
        super().restart()
        self.fresh = True

    def _save(self, slot: _Slot | None) -> State | None:
        if slot is not None:
            self._collect(slot)
            if slot.error is not None:
                raise failed_ahead(slot.error)
        return super()._save(slot)

    def restore(self, state: State) -> None:
        super().restore(state)
        self.fresh = not self.at

    def _close_slots(self) -> None:
        tasks = [slot.task for slot in self.slots if slot is not None and slot.task is not None]
        if self.pool.close(tasks):
            super()._close_slots()
