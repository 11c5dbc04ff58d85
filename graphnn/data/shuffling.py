"""Shuffle: random order through a buffer, the same for single elements and for columns."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np

from graphnn.data.blocks import Block, count, cut, join, pick, row
from graphnn.data.elements import Array, map_leaves, zip_leaves
from graphnn.data.ordering import Keeping
from graphnn.data.stage import Cursor, Stage, State
from graphnn.random import get_global_generator
from graphnn.runtime.errors import StateError
from graphnn.state import init_scope

DRAWS = 1024  # random slots are drawn this many at a time, whoever asks and however often
_TAIL = 2**32  # the number of the draw that orders what is left at the end


def fresh_seed() -> int:
    """A seed from graphnn.random's stream, so that `set_seed` makes it reproducible."""
    with init_scope():
        words = np.asarray(get_global_generator().next()).tolist()
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def _generator(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Random numbers that depend on nothing but their place: no state to keep."""
    key = np.array([seed & (2**64 - 1), epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, number, 0]))


class Shuffle(Keeping):
    """Random order through a buffer: each element leaves a random slot, the next one fills it.

    The slots depend on seed, epoch and place alone: the order is the same for single elements and
    for columns, whatever runs in parallel. epoch: raised with each pass where `reshuffle` is set.
    """

    name = "shuffle"

    def __init__(self, child: Stage, buffer: int, seed: int | None, reshuffle: bool) -> None:
        super().__init__(child)
        self.buffer, self.reshuffle = buffer, reshuffle
        self.seed = fresh_seed() if seed is None else seed
        self._epoch = 0
        self._lock = threading.Lock()

    def open(self) -> Cursor:
        kind = _ColumnShuffle if self.columnar else _ElementShuffle
        return kind(self, self.child.open())

    def settings(self) -> str:
        return str(self.buffer)

    def take_epoch(self) -> int:
        """The number of a new pass."""
        with self._lock:
            epoch = self._epoch
            self._epoch += self.reshuffle
            return epoch

    def goes_on_after(self, epoch: int) -> None:
        """The next new pass comes after this one."""
        with self._lock:
            self._epoch = epoch + self.reshuffle


class _Shuffle(Cursor):
    """What both kinds share.

    drawn: elements that have left through a random slot. held: the buffer. out: elements that have
    left it and were not asked for yet (those of a finished pass are all in `out`).
    """

    held: Any
    out: Any

    def __init__(self, stage: Shuffle, child: Cursor) -> None:
        super().__init__(child)
        self.stage, self.child, self.seed = stage, child, stage.seed
        self.epoch = stage.take_epoch()
        self._begin()

    def _begin(self) -> None:
        self.drawn, self.ended = 0, False
        self.held = self.out = None

    def _slots(self) -> Array:
        """Slots of the next draws, up to a multiple of DRAWS."""
        slots = _draw(self.seed, self.epoch, self.drawn // DRAWS, self.stage.buffer)
        return slots[self.drawn % DRAWS :]

    def _last(self, size: int) -> Array:
        """The order of what is left in the buffer at the end."""
        return _generator(self.seed, self.epoch, _TAIL).permutation(size)

    def restart(self) -> None:
        super().restart()
        if self.stage.reshuffle:
            self.epoch += 1
            self.stage.goes_on_after(self.epoch)
        self._begin()

    def save(self) -> State:
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "drawn": self.drawn,
            "ended": self.ended,
            "held": _copied(self.held),
            "out": _copied(self.out),
            **super().save(),
        }

    def restore(self, state: State) -> None:
        super().restore(state)
        if state["held"] is not None and count(state["held"]) > self.stage.buffer:
            raise StateError("Dataset.iterator", received="more elements than the buffer holds")
        self.seed, self.epoch, self.drawn = state["seed"], state["epoch"], state["drawn"]
        self.ended, self.held, self.out = (
            state["ended"],
            *map(_copied, (state["held"], state["out"])),
        )
        self.stage.goes_on_after(self.epoch)


@lru_cache(maxsize=64)
def _draw(seed: int, epoch: int, number: int, slots: int) -> Array:
    return _generator(seed, epoch, number).integers(0, slots, DRAWS)


def _copied(block: Block | None) -> Block | None:
    """A saved buffer must not change when the iterator goes on."""
    if block is None or type(block) is list:
        return None if block is None else list(block)
    return map_leaves(np.copy, block)


class _ElementShuffle(_Shuffle):
    def next(self) -> Any:
        if not self.ended:
            if self.held is None:
                self.held = []
            while len(self.held) < self.stage.buffer:
                if not self._pull_into(self.held.append):
                    break
            else:
                out: list[Any] = []
                if self._pull_into(out.append):
                    slot = int(self._slots()[0])
                    self.drawn += 1
                    element, self.held[slot] = self.held[slot], out[0]
                    return element
        return self._from_rest()

    def _pull_into(self, put: Any) -> bool:
        try:
            put(self.child.next())
        except StopIteration:
            self.ended = True
            held, self.held = self.held, []
            self.out = [held[i] for i in self._last(len(held))[::-1]]
            return False
        return True

    def _from_rest(self) -> Any:
        if not self.out:
            raise StopIteration
        return self.out.pop()


class _ColumnShuffle(_Shuffle):
    def next(self) -> Any:
        block = self.block(1)
        if block is None:
            raise StopIteration
        return row(block, 0)

    def block(self, most: int) -> Block | None:
        while self.out is None or not count(self.out):
            if self.ended:
                return None
            self.out = self._more()
        block = cut(self.out, 0, most)
        self.out = cut(self.out, most) if most < count(self.out) else None
        return block

    def _more(self) -> Block | None:
        """Elements that leave the buffer: some for as many that come in, or all at the end."""
        self._fill()
        slots = self._slots()
        block = self.child.block(len(slots)) if self.held is not None else None
        if block is None:
            self.ended = True
            held, self.held = self.held, None
            return None if held is None else pick(held, self._last(count(held)))
        slots = slots[: count(block)]
        self.drawn += len(slots)
        return _exchange(self.held, block, slots)

    def _fill(self) -> None:
        if self.drawn or (self.held is not None and count(self.held) == self.stage.buffer):
            return
        parts = [] if self.held is None else [self.held]
        parts += self.child.blocks(self.stage.buffer - sum(map(count, parts)))
        if parts:
            # A copy: the buffer is written to, and the block may be a view of the source.
            self.held = join(parts) if len(parts) > 1 else map_leaves(np.copy, parts[0])


def _exchange(held: Block, coming: Block, slots: Array) -> Block:
    """Each arrival goes to its slot and sends off what was there; as if one after the other.

    An element that arrives in a slot which is drawn again among these slots leaves at once.
    """
    order = np.argsort(slots, kind="stable")
    again = np.flatnonzero(slots[order[1:]] == slots[order[:-1]])
    later, earlier = order[again + 1], order[again]

    def swap(kept: Array, new: Array) -> Array:
        out = kept[slots]
        out[later] = new[earlier]
        kept[slots] = new  # the last of several arrivals in one slot stays
        return out

    return zip_leaves(swap, held, coming)
