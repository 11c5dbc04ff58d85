"""One program for one combination of sizes: addresses and launches, started one by one.

`captures` has what replays graphs instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphnn.runtime.cuda.arena import Arena, shared_arena
from graphnn.runtime.cuda.captures import Captures
from graphnn.runtime.cuda.pieces import Arguments, Piece, passed, pieces_of
from graphnn.runtime.device import AttentionRun, KernelRun, ProductRun
from graphnn.runtime.program import Step

if TYPE_CHECKING:
    from graphnn.runtime.cuda.execute import DeviceExecutable

Array = Any
ALIGN = 16  # bytes; kernels read packs of this size, so every buffer starts at a multiple
STATUS_WORDS = 2  # of a step with checks: number of the failed check, the value it saw


class Instance:
    """Memory and launches of one program for one combination of sizes."""

    def __init__(self, owner: DeviceExecutable, sizes: tuple[int, ...]) -> None:
        self.owner, self.driver = owner, owner.driver
        program = self.program = owner.device.program
        self.layout = program.layout(sizes)
        self.plan = owner.device.plan(sizes)
        self.sizes = dict(zip(program.symbols, sizes, strict=True))
        self.pieces = pieces_of(program, self.plan, owner.captured)
        self.current: list[Array | None] = [None] * len(program.slots)
        self.bound: dict[int, int] = {}  # slot -> address
        self.arenas: dict[int, Arena] = {}
        self.arena, self.generation = Arena(), -1
        self.runs = 0
        self._prepare_results(owner)
        self._choose_inputs()
        self._prepare_launches()
        self.captures = Captures(self)
        for position, array in owner.bound.items():
            self.bind(position, array)

    # ---- prepared once -----------------------------------------------------------------------

    def _prepare_results(self, owner: DeviceExecutable) -> None:
        program, slots = self.program, self.program.slots
        distinct = dict.fromkeys(program.outputs)
        self.fresh = tuple(s for s in distinct if slots[s].role == "output")
        self.passed = tuple(passed(program))
        self.results = {
            s: (self.layout.shapes[s], slots[s].dtype) for s in (*self.fresh, *self.passed)
        }
        fixed = owner.fixed.items()
        kinds = self.results
        self.fixed = {
            s: a for s, a in fixed if s in kinds and (tuple(a.shape), a.dtype) == kinds[s]
        }
        self.outputs = tuple(zip(program.outputs, self.layout.outputs, strict=True))
        # In the host's memory: values that its steps make, and inputs that are results.
        self.host_made = tuple(s.index for s in slots if s.role == "host")
        self.host_kept = tuple(s for s in distinct if slots[s].host)
        self.has_host = any(s.host or s.role == "host" for s in slots)
        self.has_host |= any(p.host for p in self.pieces)
        self.kept: dict[int, Any] = {}
        written = {slot for step in program.steps for slot in step.outputs}
        self.written = written | {target for _, target in program.copies}
        pairs = [(a, b, slots[b].host) for a, b in program.copies]
        self.copies = [(a, b) for a, b, host in pairs if not host]
        self.host_copies = [(a, b) for a, b, host in pairs if host]
        self.spare: dict[int, Array] = {}

    def _choose_inputs(self) -> None:
        """Inputs that each call gives: on the device, and in the host's memory."""
        slots = self.program.slots
        free = [(p, s) for p, s in enumerate(self.program.inputs) if s not in self.bound]
        self.free = tuple((p, s) for p, s in free if not slots[s].host)
        self.free_host = tuple((p, s) for p, s in free if slots[s].host)

    def _prepare_launches(self) -> None:
        """Argument blocks of all launches; addresses are those in `cells` when a launch starts."""
        program = self.program
        self.cells = (ctypes.c_uint64 * max(1, len(program.slots)))()
        self.references = [
            ctypes.c_void_p.from_buffer(self.cells, 8 * k) for k in range(len(program.slots))
        ]
        self.functions = self.owner.functions(self.plan.wide)
        self.index = ctypes.c_int64 if self.plan.wide else ctypes.c_int32
        self.status: Any = None
        status = 0
        if any(s.checks for s in program.steps):
            shape = (len(program.steps), STATUS_WORDS)
            self.status, status = self.driver.shared(shape, np.dtype(np.int64))
        self.tables: dict[tuple[int, ...], Array] = {}
        self.make_tables: list[Callable[[], Array]] = []
        self.work: list[Callable[[], None]] = []
        for number, (step, run) in enumerate(zip(program.steps, self.plan.steps, strict=True)):
            if isinstance(run, KernelRun):
                self.work.append(self._kernels(number, step, run, status))
            elif run is not None:
                self.work.append(partial(self._library, step, run))
            else:
                self.work.append(partial(self._host, number, step))

    def _kernels(self, number: int, step: Step, run: KernelRun, status: int) -> Callable[[], None]:
        """What starts the kernels of a step."""
        sizes: list[Any] = [self.index(v) for v in run.sizes]
        if step.checks:
            sizes.append(ctypes.c_void_p(status + 8 * STATUS_WORDS * number))
        table: Callable[[], Array] | None = None
        if run.firsts:
            cell = ctypes.c_void_p()
            given = Arguments([cell, self.index(len(run.rows)), *sizes])
            table = partial(self._table, number, step, run, cell)
            self.make_tables.append(table)
        else:
            (segment,) = step.segments
            addresses = [self.references[s] for s in segment.slots]
            given = Arguments([*addresses, self.index(run.rows[0]), *sizes])
        launch = self.driver.launch
        calls = [
            partial(launch, self.functions[e.entry], e.blocks, e.threads, e.shared, given)
            for e in run.launches
        ]

        def start() -> None:
            if table is not None:
                table()
            for call in calls:
                call()

        return start

    def _table(self, number: int, step: Step, run: KernelRun, cell: Any) -> Array:
        """The table of a step with several segments; made again when memory moves."""
        words: list[int] = []
        for first, rows, segment in zip(run.firsts, run.rows, step.segments, strict=False):
            words += [first, rows, *(int(self.cells[s]) for s in segment.slots)]
        words.append(run.firsts[-1])
        key = (number, *words)
        table = self.tables.get(key)
        if table is None:
            table = self.driver.empty((len(words),), np.dtype(np.int64))
            self.driver.upload(table, np.array(words, np.int64))
            self.tables = {k: t for k, t in self.tables.items() if k[0] != number}
            self.tables[key] = table
        cell.value = self.driver.address(table)
        return table

    def _library(self, step: Step, run: ProductRun | AttentionRun) -> None:
        (segment,) = step.segments
        self.driver.library(run, [int(self.cells[segment.slots[k]]) for k in run.operands])

    # ---- where memory is -----------------------------------------------------------------------

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input."""
        slot = self.program.inputs[position]
        first = slot not in self.bound
        self.current[slot] = array
        self.bound[slot] = 0 if self.program.slots[slot].host else self.driver.address(array)
        self.cells[slot] = self.bound[slot]
        if first:
            self._choose_inputs()
            self.captures.places.clear()
        self.generation = -1  # the graphs at hand have the old address

    def _settle(self) -> Arena:
        """The arena of the current stream."""
        stream = self.driver.stream
        arena = self.arenas.get(stream)
        if arena is None:
            # Python that the host runs in between may run other programs.
            alone = self.has_host or not self.layout.arena
            arena = self.arenas[stream] = Arena() if alone else shared_arena(self.driver, stream)
        if self.status is not None:
            self.driver.pending[self] = stream
        return arena

    def _move(self, arena: Arena) -> None:
        """Use an arena that is another one or has moved, or Variables that have moved."""
        arena.fit(self.driver, self.layout.arena)
        self.arena, self.generation = arena, arena.generation
        for slot, offset in enumerate(self.layout.offsets):
            if offset >= 0:
                self.cells[slot] = arena.address + offset
        self.captures.at(id(arena), arena.generation, tuple(self.bound.values()))

    def array(self, slot: int) -> Array:
        """The memory of a slot."""
        known = self.current[slot]
        if known is not None:
            return known
        shape, dtype = self.layout.shapes[slot], self.program.slots[slot].dtype
        if 0 in shape:
            return self.driver.empty(shape, dtype)
        return self.driver.view(self.arena.memory, self.layout.offsets[slot], shape, dtype)

    def put(self, slot: int, array: Array) -> None:
        """An input or result is in this memory from now on."""
        self.current[slot] = array
        self.cells[slot] = self.driver.address(array)

    def put_host(self, arrays: Sequence[Array | None]) -> None:
        """Inputs in the host's memory."""
        for position, slot in self.free_host:
            self.current[slot] = arrays[position]

    def release(self) -> None:
        """Hold no array of the caller's, and no result."""
        current = self.current
        for _, slot in self.free:
            current[slot] = None
        for slot in self.fresh:
            current[slot] = None
        if self.has_host:
            for slot in (*self.host_made, *(s for _, s in self.free_host)):
                current[slot] = None
            self.kept = {}

    # ---- running ---------------------------------------------------------------------------------

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """The outputs; see `DeviceExecutable.run`."""
        arena = self._settle()
        with arena.lock:
            if arena is not self.arena or arena.generation != self.generation:
                self._move(arena)
            self.runs += 1
            if self.captures.wanted:
                # The first run compiles and tunes; a program that runs again is worth a capture.
                if self.runs > 1:
                    return self.captures.run(arrays)
                self.captures.note(arrays)
            return self.plain(arrays)

    def plain(self, arrays: Sequence[Array | None]) -> list[Array]:
        """Launches one by one, with results in new memory."""
        try:
            results = self._put_plainly(arrays)
            for work in self.work:
                work()
            return self._plain_results(arrays, results)
        finally:
            self.release()

    def _put_plainly(self, arrays: Sequence[Array | None]) -> dict[int, Array]:
        results: dict[int, Array] = dict(self.fixed)
        for slot, kind in self.results.items():
            if slot not in results:
                results[slot] = self.driver.empty(*kind)
        for position, slot in self.free:
            self.put(slot, self._aligned(arrays[position]))
        self.put_host(arrays)
        for slot in self.fresh:
            self.put(slot, results[slot])
        # All memory is there before anything starts: a run without enough of it can be repeated.
        for make in self.make_tables:
            make()
        self.spares()
        return results

    def _plain_results(
        self, arrays: Sequence[Array | None], results: dict[int, Array]
    ) -> list[Array]:
        self.copy_results(lambda slot: results[slot])
        self.finish_host()
        for position, slot in self.free:  # new values of inputs that were moved
            if slot in self.written and self.current[slot] is not arrays[position]:
                self.driver.copy(arrays[position], self.current[slot])
        return self.gathered(lambda slot, shape: shaped(results[slot], shape))

    def _aligned(self, array: Array) -> Array:
        if self.driver.address(array) % ALIGN == 0:
            return array
        moved = self.driver.empty(array.shape, array.dtype)
        self.driver.copy(moved, array)
        return moved

    def start(self, piece: Piece) -> None:
        """Start the steps of a piece."""
        for number in piece.steps:
            self.work[number]()

    def gathered(self, result: Callable[[int, tuple[int, ...]], Array]) -> list[Array]:
        """The outputs in order: of the device by `result`, of the host as they are."""
        if not self.has_host:
            return [result(slot, shape) for slot, shape in self.outputs]
        found = []
        for slot, shape in self.outputs:
            if slot in self.results:
                found.append(result(slot, shape))
            else:
                found.append(shaped(self.kept.get(slot, self.current[slot]), shape))
        return found

    # ---- after the steps -------------------------------------------------------------------------

    def spares(self) -> dict[int, Array]:
        """Memory for values that are copied while another copy may overwrite their source."""
        if len(self.copies) > 1 and not self.spare:
            layout, slots = self.layout, self.program.slots
            sources = dict.fromkeys(a for a, _ in self.copies)
            self.spare = {a: self.driver.empty(layout.shapes[a], slots[a].dtype) for a in sources}
        return self.spare

    def copy_results(self, result: Callable[[int], Array]) -> None:
        """Copy results out of memory that is not theirs, then new values to their Variables."""
        copy = self.driver.copy
        for slot in self.passed:
            copy(result(slot), self.array(slot))
        spare = self.spares()
        for slot, own in spare.items():
            copy(own, self.array(slot))
        for source, target in self.copies:
            copy(self.array(target), spare[source] if spare else self.array(source))

    def finish_host(self) -> None:
        """The same in the host's memory, whose results are given out as they are."""
        if not self.has_host:
            return
        self.kept = {s: np.array(self.current[s]) for s in self.host_kept}
        values = [(np.array(self.current[a]), b) for a, b in self.host_copies]
        for value, target in values:
            own: Any = self.current[target]
            np.copyto(own, value.reshape(own.shape))

    # ---- the host's steps --------------------------------------------------------------------

    def _host(self, number: int, step: Step) -> None:
        """A step of the host: arrays go there and results come back."""
        if step.host is None:
            raise TypeError(f"{step.title} has no code for this device")
        found = step.host([self._on_host(s) for s in step.inputs], self.sizes)
        if number in self.owner.regions:
            found = self.owner.regions[number].run(found)
        results = found if isinstance(found, tuple | list) else (found,)
        for slot, value in zip(step.outputs, results, strict=True):
            self._take(slot, value)

    def _on_host(self, slot: int) -> Any:
        kind = self.program.slots[slot]
        if kind.host or kind.role == "host":
            return self.current[slot]
        return self.driver.download(self.array(slot))

    def _take(self, slot: int, value: Any) -> None:
        kind = self.program.slots[slot]
        if kind.role == "host":
            self.current[slot] = np.asarray(value)
            return
        own = self.array(slot)
        value = np.ascontiguousarray(value).reshape(own.shape)
        if kind.host:
            np.copyto(own, value)
        else:
            self.driver.upload(own, value)

    # ---- checks and times ------------------------------------------------------------------------

    def failure(self) -> BaseException | None:
        """The error of the first step whose check failed; the next run starts clean."""
        if self.status is None:
            return None
        words = np.array(self.status)
        failed = np.flatnonzero(words[:, 0])
        if not len(failed):
            return None
        self.status[...] = 0
        number = int(failed[0])
        code, value = (int(v) for v in words[number])
        site = self.program.steps[number].checks[code - 1]
        check = site.check.bind(self.sizes) if hasattr(site.check, "bind") else site.check
        error: BaseException = check.error(value, site.loc)
        return error

    def times(self, arrays: Sequence[Array | None]) -> list[float]:
        """Seconds of each step in one run, started one by one."""
        arena = self._settle()
        with arena.lock:
            if arena is not self.arena or arena.generation != self.generation:
                self._move(arena)
            self.runs += 1
            try:
                results = self._put_plainly(arrays)
                found = self.driver.times(self.work, not self.has_host)
                self._plain_results(arrays, results)
                return found
            finally:
                self.release()


def shaped(array: Array, shape: tuple[int, ...]) -> Array:
    """The array with a shape of as many elements."""
    return array if tuple(array.shape) == shape else array.reshape(shape)
