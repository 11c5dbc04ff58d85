"""Shuffle: random order through a buffer, the same for single elements and for columns."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np

from graphnn.data.blocks import Block, count, cut, join, pick, row
from graphnn.data.elements import Array, map_leaves, zip_leaves
from graphnn.data.ordering import Keeping
from graphnn.data.seeds import Passes, fresh_seed
from graphnn.data.stage import Cursor, Stage, State
from graphnn.runtime.errors import StateError

DRAWS = 1024  # random slots are drawn this many at a time, whoever asks and however often
_AT_ONCE = 8 * DRAWS  # columns are exchanged for as many: beside a training step, calls are cold
_TAIL = 2**32  # the number of the draw that orders what is left at the end


class _Random(threading.local):
    """A generator for each thread: moving one to another place is eight times as fast as making
    one, which asks the system for entropy."""

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox(0))


_random = _Random()


def _generator(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Random numbers that depend on nothing but their place: no state to keep. To be used before
    the next call."""
    generator = _random.generator
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([0, 0, number, 0], np.uint64),
            "key": np.array([seed & (2**64 - 1), epoch], np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,  # nothing is left of it
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator


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
        self.passes = Passes(int(reshuffle))

    def open(self) -> Cursor:
        kind = _ColumnShuffle if self.columnar else _ElementShuffle
        return kind(self, self.child.open())

    def settings(self) -> str:
        return str(self.buffer)


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
        self.epoch = stage.passes.take()
        self._begin()

    def _begin(self) -> None:
        self.drawn, self.ended = 0, False
        self.held = self.out = None

    def _slots(self, number: int) -> Array:
        """Slots of the next draws."""
        first, start = divmod(self.drawn, DRAWS)
        last = (self.drawn + number - 1) // DRAWS
        buffer = self.stage.buffer
        parts = [_draw(self.seed, self.epoch, n, buffer) for n in range(first, last + 1)]
        slots = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return slots[start : start + number]

    def _last(self, size: int) -> Array:
        """The order of what is left in the buffer at the end."""
        return _generator(self.seed, self.epoch, _TAIL).permutation(size)

    def _unread(self) -> Block | None:
        return self.out

    def restart(self) -> None:
        super().restart()
        self.epoch = self.stage.passes.take()
        self._begin()

    def save(self) -> State:
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "drawn": self.drawn,
            "ended": self.ended,
            "held": _copied(self.held),
            "out": _copied(self._unread()),
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
        self.stage.passes.go_on_after(self.epoch)


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
                    slot = int(self._slots(1)[0])
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
    """at: how many of `out` were asked for."""

    at: int

    def _begin(self) -> None:
        super()._begin()
        self.at = 0

    def _unread(self) -> Block | None:
        return None if self.out is None else cut(self.out, self.at)

    def restore(self, state: State) -> None:
        super().restore(state)
        self.at = 0

    def next(self) -> Any:
        block = self.block(1)
        if block is None:
            raise StopIteration
        return row(block, 0)

    def block(self, most: int) -> Block | None:
        while self.out is None or self.at >= count(self.out):
            if self.ended:
                return None
            self.out, self.at = self._more(), 0
        start, self.at = self.at, self.at + most
        return cut(self.out, start, self.at)

    def _more(self) -> Block | None:
        """Elements that leave the buffer: some for as many that come in, or all at the end."""
        self._fill()
        block = self.child.block(_AT_ONCE) if self.held is not None else None
        if block is None:
            self.ended = True
            held, self.held = self.held, None
            return None if held is None else pick(held, self._last(count(held)))
        slots = self._slots(count(block))
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
    # By slot, then by arrival: keys that differ sort faster than equal ones in stable order.
    size = len(slots)
    keys = np.sort(slots * size + np.arange(size))
    taken = keys // size
    order = keys - taken * size
    again = np.flatnonzero(taken[1:] == taken[:-1])
    later, earlier = order[again + 1], order[again]

    def swap(kept: Array, new: Array) -> Array:
        out = kept[slots]
        out[later] = new[earlier]
        kept[slots] = new  # the last of several arrivals in one slot stays
        return out

    return zip_leaves(swap, held, coming)
