"""Runs of an instance as captured graphs: which one fits the inputs at hand and the free results.

A graph has addresses in it. It is replayed when the inputs are where they were when it was captured
(a training loop reuses memory), else inputs are copied to memory of the instance's own. Results are
written to memory that is given out; while somebody has it, another set of results is used, and
graphs are captured for each set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graphnn.runtime.cuda.execute import Buffer
    from graphnn.runtime.cuda.instance import Instance

Array = Any
ALIGN = 16  # bytes at which inputs have to start
MAX_SETS = 3  # sets of results that are given out in turn, before they are copied
MAX_SET_BYTES = 256 << 20  # of all sets but the first
MAX_DIRECT = 4  # combinations of input addresses with graphs of their own
MAX_PLACES = 4  # combinations of an arena and Variables' addresses whose graphs are kept
REMEMBERED = 64  # combinations of input addresses that are remembered
OLD = 32  # runs after which a combination that has not come back makes room


class Results:
    """Memory for all results of a run. number: names it among those of an instance."""

    def __init__(self, number: int, buffers: dict[int, Buffer]) -> None:
        self.number, self.buffers = number, buffers
        self.checks = tuple(b.held for b in buffers.values())

    def held(self) -> bool:
        """Whether somebody still has one of the results."""
        for held in self.checks:
            if held():
                return True
        return False


class FixedBuffer:
    """Memory that a result is always written to; whoever chose it knows that it is overwritten."""

    def __init__(self, array: Array, address: int) -> None:
        self.array, self.address = array, address

    def lend(self, shape: tuple[int, ...]) -> Array:
        """The array, in this shape."""
        array = self.array
        return array if tuple(array.shape) == shape else array.reshape(shape)

    def held(self) -> bool:
        """Never: it is written over and over."""
        return False


@dataclass
class Captured:
    """Graphs of the pieces (None: started one by one), and what must live as long as they do."""

    graphs: list[Any]
    keep: list[Any]


@dataclass
class Variant:
    """Graphs for inputs at some addresses, by the number of their results.

    static: own memory that inputs are copied to, by position; None: inputs are read where they are.
    used: number of the last run.
    """

    static: dict[int, Array] | None = None
    runs: dict[int, Captured] = field(default_factory=dict)
    used: int = 0


class Captures:
    """The graphs of one instance. wanted: whether there is anything to capture."""

    def __init__(self, instance: Instance) -> None:
        self.instance, self.driver = instance, instance.driver
        self.wanted = any(p.graph for p in instance.pieces)
        self.exact = all(p.graph for p in instance.pieces)  # a run is nothing but graphs
        kinds = [k for s, k in instance.results.items() if s not in instance.fixed]
        nbytes = [int(np.prod(s)) * d.itemsize for s, d in kinds]
        self.most_sets = min(MAX_SETS, 1 + MAX_SET_BYTES // max(1, sum(nbytes)))
        # Memory for results, by arena: each stream has one, and streams run side by side.
        self.own: dict[int, list[Results]] = {}
        self.sets: list[Results] = []
        self.privates: dict[int, Results] = {}  # never given out
        self.arena = 0
        self.places: dict[Any, dict[Any, Variant]] = {}
        self.variants: dict[Any, Variant] = {}
        self.seen: dict[Any, None] = {}

    def at(self, arena: int, generation: int, bound: tuple[int, ...]) -> None:
        """Use the graphs for an arena, of which only the newest memory is left, and Variables."""
        self.arena, self.sets = arena, self.own.setdefault(arena, [])
        key = (arena, generation, bound)
        gone = [k for k in self.places if k[0] == arena and k[1] != generation]
        for old in gone:
            del self.places[old]
        self.variants = self.places.pop(key, {})
        self.places[key] = self.variants
        if len(self.places) > MAX_PLACES:
            del self.places[next(iter(self.places))]

    # ---- inputs ------------------------------------------------------------------------------

    def _key(self, arrays: Sequence[Array | None]) -> tuple[int, ...]:
        address = self.driver.address
        return tuple([address(arrays[position]) for position, _ in self.instance.free])

    def note(self, arrays: Sequence[Array | None]) -> None:
        """Remember where inputs were: graphs of their own are for what comes again."""
        self._remember(self._key(arrays))

    def _remember(self, key: tuple[int, ...]) -> None:
        self.seen[key] = None
        if len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]

    def _variant(self, key: tuple[int, ...], arrays: Sequence[Array | None]) -> Variant:
        """A new variant for addresses that have come again, else the one that copies."""
        direct = [k for k in self.variants if k is not None]
        if len(direct) >= MAX_DIRECT:
            oldest = min(direct, key=lambda k: self.variants[k].used)
            if self.variants[oldest].used < self.instance.runs - OLD:
                direct.remove(oldest)
                del self.variants[oldest]
        aligned = not any(a % ALIGN for a in key)
        if aligned and len(direct) < MAX_DIRECT and (not key or key in self.seen):
            variant = self.variants[key] = Variant()
            return variant
        self._remember(key)
        if None not in self.variants:
            static: dict[int, Array] = {}
            for position, _ in self.instance.free:
                given: Any = arrays[position]
                static[position] = self.driver.empty(given.shape, given.dtype)
            self.variants[None] = Variant(static)
        return self.variants[None]

    # ---- results -----------------------------------------------------------------------------

    def _free_results(self) -> Results | None:
        """Memory for results that nobody has any more; None if there is none."""
        for known in self.sets:
            if not known.held():
                return known
        if len(self.sets) >= self.most_sets:
            return None
        made = self._new_results(len(self.sets))
        self.sets.append(made)
        return made

    def _new_results(self, number: int) -> Results:
        buffer, fixed = self.driver.buffer, self.instance.fixed
        made: dict[int, Buffer] = {
            s: FixedBuffer(a, self.driver.address(a)) for s, a in fixed.items()
        }
        for slot, kind in self.instance.results.items():
            if slot not in made:
                made[slot] = buffer(*kind)
        return Results(number, made)

    def _copied(self, array: Array) -> Array:
        fresh = self.driver.empty(array.shape, array.dtype)
        self.driver.copy(fresh, array)
        return fresh

    # ---- running -------------------------------------------------------------------------------

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """The outputs, by graphs that are captured where they are missing."""
        key = self._key(arrays)
        variant = self.variants.get(key) or self._variant(key, arrays)
        variant.used = self.instance.runs
        results = self._free_results()
        if results is not None:
            return self._run(variant, results, arrays, False)
        if self.most_sets < MAX_SETS:  # large results: a copy would cost more than launches do
            return self.instance.plain(arrays)
        private = self.privates.get(self.arena)
        if private is None:
            private = self.privates[self.arena] = self._new_results(-1)
        return self._run(variant, private, arrays, True)

    def _run(
        self, variant: Variant, results: Results, arrays: Sequence[Array | None], copied: bool
    ) -> list[Array]:
        run = variant.runs.get(results.number)
        if run is None:
            run = variant.runs[results.number] = self._capture(variant, results, arrays)
        if variant.static is not None:
            for position, own in variant.static.items():
                self.driver.copy(own, arrays[position])
        if not self.exact:
            return self._run_mixed(run, variant, results, arrays, copied)
        replay = self.driver.replay
        for graph in run.graphs:
            replay(graph)
        self._give_back(variant, arrays)
        return self._outputs(results, copied)

    def _run_mixed(
        self,
        run: Captured,
        variant: Variant,
        results: Results,
        arrays: Sequence[Array | None],
        copied: bool,
    ) -> list[Array]:
        """Graphs in turn with single launches and the host's steps."""
        instance = self.instance
        try:
            self._put(variant, results, arrays)
            for position, graph in enumerate(run.graphs):
                if graph is None:
                    self._start(position, results)
                else:
                    self.driver.replay(graph)
            instance.finish_host()
            self._give_back(variant, arrays)
            return self._outputs(results, copied)
        finally:
            instance.release()

    def _give_back(self, variant: Variant, arrays: Sequence[Array | None]) -> None:
        """New values of inputs that were copied go to the caller's memory."""
        if variant.static is None:
            return
        for position, slot in self.instance.free:
            if slot in self.instance.written:
                self.driver.copy(arrays[position], variant.static[position])

    def _outputs(self, results: Results, copied: bool) -> list[Array]:
        buffers, instance = results.buffers, self.instance
        if copied:
            return instance.gathered(lambda s, shape: self._copied(buffers[s].lend(shape)))
        if instance.has_host:
            return instance.gathered(lambda s, shape: buffers[s].lend(shape))
        return [buffers[slot].lend(shape) for slot, shape in instance.outputs]

    # ---- capturing -------------------------------------------------------------------------------

    def _put(self, variant: Variant, results: Results, arrays: Sequence[Array | None]) -> None:
        instance, static = self.instance, variant.static
        for position, slot in instance.free:
            instance.put(slot, arrays[position] if static is None else static[position])
        instance.put_host(arrays)
        for slot in instance.fresh:
            instance.put(slot, results.buffers[slot].lend(instance.layout.shapes[slot]))

    def _capture(
        self, variant: Variant, results: Results, arrays: Sequence[Array | None]
    ) -> Captured:
        """Graphs of all pieces; an error leaves nothing behind."""
        instance = self.instance
        try:
            self._put(variant, results, arrays)
            # What a capture may not make: tables, memory.
            keep = [make() for make in instance.make_tables]
            keep.append(instance.spares())
            graphs = [
                self.driver.capture(partial(self._start, position, results))
                if piece.graph
                else None
                for position, piece in enumerate(instance.pieces)
            ]
        finally:
            instance.release()
        self.exact = self.exact and None not in graphs
        return Captured(graphs, keep)

    def _start(self, position: int, results: Results) -> None:
        instance = self.instance
        instance.start(instance.pieces[position])
        if position == len(instance.pieces) - 1 and not instance.pieces[position].host:
            shapes, buffers = instance.layout.shapes, results.buffers
            instance.copy_results(lambda slot: buffers[slot].lend(shapes[slot]))
