"""Runs a Program: memory and addresses prepared once, then one native call per run."""

from __future__ import annotations

import ctypes
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.runtime import memory
from graphnn.runtime.cpu import blas, jit, runner
from graphnn.runtime.program import Layout, Program, Step, StepSizes

Array = np.ndarray[Any, Any]
Plan = tuple[int, bool, tuple[int, ...] | None]
HOST = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
MAX_INSTANCES = 16  # combinations of sizes whose tables and arena are kept
SIZES_BEFORE = 2  # words before the symbols in a step's sizes: failed check, its value


class Executable:
    """A program with its machine code; safe to call from several threads, one runs at a time."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._library: jit.Library | None = None
        self._instances: dict[tuple[int, ...], _Instance] = {}
        self._bound: dict[int, Array] = {}
        self._lock = threading.Lock()
        self._only: _Instance | None = None

    @property
    def library(self) -> jit.Library:
        """The machine code, compiled at first use."""
        if self._library is None:
            symbols = {}
            for word, address_of in (("gemm", blas.gemm_address), ("gemv", blas.gemv_address)):
                for letter, dtype in (("s", np.float32), ("d", np.float64)):
                    name = f"gnn_{letter}{word}"
                    address = address_of(dtype) if self._uses(name) else None
                    if address is not None:
                        symbols[name] = address
            self._library = jit.compile_library(self.program.modules, symbols)
        return self._library

    @property
    def sizes(self) -> dict[str, int]:
        """Values of the symbolic sizes in the newest combination; {} before the first call."""
        newest = next(reversed(self._instances), ())
        return dict(zip(self.program.symbols, newest, strict=bool(newest)))

    def _uses(self, name: str) -> bool:
        return any(f"@{name}(" in text for _, text in self.program.modules)

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input (a Variable's buffer) for all following runs."""
        with self._lock:
            self._bound[position] = array
            for instance in self._instances.values():
                instance.bind(position, array)

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """The outputs for inputs in order; None stands for a bound one.

        Arrays are dense and row-major, of the dtypes of the graph's inputs. Inputs with new values
        are overwritten in place.
        """
        with self._lock:
            instance = self._only
            if instance is None:
                instance = self._instance(arrays)
            return instance.run(arrays)

    def times(self, arrays: Sequence[Array | None], repeats: int = 10) -> list[float]:
        """Median seconds of each step over some runs; Variables change as in as many runs."""
        with self._lock:
            instance = self._instance(arrays)
            runs = [instance.times(arrays) for _ in range(repeats)]
        return [statistics.median(step) for step in zip(*runs, strict=True)]

    def layout(self, arrays: Sequence[Array | None]) -> Layout:
        """The numbers of a call with these arrays."""
        with self._lock:
            return self._instance(arrays).layout

    def _instance(self, arrays: Sequence[Array | None]) -> _Instance:
        sizes = []
        for position, axis in self.program.symbol_sources:
            array = arrays[position]
            sizes.append((self._bound[position] if array is None else array).shape[axis])
        key = tuple(sizes)
        instance = self._instances.pop(key, None) or _Instance(self, key)
        self._instances[key] = instance  # the last one used is the last to go
        if len(self._instances) > MAX_INSTANCES:
            del self._instances[next(iter(self._instances))]
        if not key:
            self._only = instance
        return instance


class _Instance:
    """The tables of one program for one combination of sizes."""

    def __init__(self, owner: Executable, sizes: tuple[int, ...]) -> None:
        program = self.program = owner.program
        self.layout = layout = program.layout(sizes)
        self.library = owner.library
        self.sizes = dict(zip(program.symbols, sizes, strict=True))
        self.failure: BaseException | None = None
        self.slots = (ctypes.c_int64 * max(1, len(program.slots)))()
        self.keep: list[Any] = []
        self.arena = memory.empty((layout.arena,), np.dtype(np.uint8))
        base = memory.address(self.arena)
        for index, offset in enumerate(layout.offsets):
            if offset >= 0:
                self.slots[index] = base + offset
        self.current: list[Array | None] = [None] * len(program.slots)
        self.inputs = tuple(enumerate(program.inputs))
        fresh = dict.fromkeys(s for s in program.outputs if program.slots[s].role == "output")
        self.fresh = tuple((s, layout.shapes[s], program.slots[s].dtype) for s in fresh)
        self.outputs = self._output_plan()
        self.passed = tuple(slot for slot, copied, _ in self.outputs if copied)
        self.links: list[tuple[int, int]] = []
        self.table = self._program_table()
        self.table_address = ctypes.addressof(self.table)
        self.call = runner.run_function()
        for position, array in owner._bound.items():
            self.bind(position, array)

    # ---- tables ------------------------------------------------------------------------

    def _program_table(self) -> Any:
        words: list[int] = []
        self.size_blocks: list[Any] = []
        host = HOST(self._host) if any(s.host for s in self.program.steps) else None
        self.keep.append(host)
        for number, (step, sizes) in enumerate(
            zip(self.program.steps, self.layout.steps, strict=True)
        ):
            words += self._step_words(number, step, sizes, host)
        steps = self._words(words)
        links = self._words([w for link in self.links for w in link])
        slots = ctypes.addressof(self.slots)
        count = len(self.program.steps)
        return self._words(
            [len(self.links), ctypes.addressof(links), count, ctypes.addressof(steps), slots]
        )

    def _words(self, values: Sequence[int]) -> Any:
        array = (ctypes.c_int64 * max(1, len(values)))(*values)
        self.keep.append(array)
        return array

    def _step_words(self, number: int, step: Step, sizes: StepSizes, host: Any) -> list[int]:
        block = self._words([0] * SIZES_BEFORE + [self.sizes[s] for s in step.symbols])
        self.size_blocks.append(block)
        if step.host is not None:
            address = ctypes.cast(host, ctypes.c_void_p).value or 0
            return [0, 0, 0, 0, ctypes.addressof(block), 0, 1, 1, address, number]
        kernel = self.library.address(step.kernel)
        start = self.library.address(f"{step.kernel}.start") if step.starts else 0
        finish = self.library.address(f"{step.kernel}.finish") if step.finishes else 0
        tables = [self._buffer_table(s.slots) for s in step.segments]
        rows = sum(sizes.rows)
        # What runs around a kernel's parts wants its own buffers, not a table of segments.
        alone = bool(step.starts or step.finishes or not step.outputs)
        updates = not alone and all(self.program.slots[s].role == "input" for s in step.outputs)
        if len(tables) == 1 and not updates:
            function, buffers = kernel, ctypes.addressof(tables[0])
        else:
            function = runner.segments_address(updates)
            buffers = self._segment_table(kernel, tables, sizes.rows)
        own = ctypes.addressof(block)
        return [function, start, finish, buffers, own, rows, sizes.grain, sizes.parts, 0, number]

    def _buffer_table(self, slots: Sequence[int]) -> Any:
        table = self._words([self.slots[s] for s in slots])
        base = ctypes.addressof(table)
        for position, slot in enumerate(slots):
            if self.program.slots[slot].role != "temp":
                self.links.append((base + 8 * position, slot))
        return table

    def _segment_table(self, kernel: int, tables: Sequence[Any], rows: Sequence[int]) -> int:
        words, first = [kernel, len(tables)], 0
        for table, count in zip(tables, rows, strict=True):
            words += [first, first + count, ctypes.addressof(table)]
            first += count
        return ctypes.addressof(self._words(words))

    def _output_plan(self) -> tuple[Plan, ...]:
        """(slot, whether a copy must be given out, other shape than the slot's or None)."""
        slots, shapes = self.program.slots, self.layout
        return tuple(
            (s, slots[s].role == "input", None if shape == shapes.shapes[s] else shape)
            for s, shape in zip(self.program.outputs, shapes.outputs, strict=True)
        )

    # ---- running -----------------------------------------------------------------------

    def bind(self, position: int, array: Array) -> None:
        slot = self.program.inputs[position]
        self.current[slot] = array
        self.slots[slot] = memory.address(array)

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        self._prepare(arrays)
        code = self.call(self.table_address)
        if code:
            self._release(arrays)
            self._raise(code - 1)
        return self._results(arrays)

    def times(self, arrays: Sequence[Array | None]) -> list[float]:
        """Seconds of each step in one run, step by step."""
        self._prepare(arrays)
        table, clock = self.table, time.perf_counter
        found = []
        for number in range(table[2]):
            step = table[3] + 8 * runner.STEP_WORDS * number
            alone = self._words([table[0], table[1], 1, step, table[4]])
            start = clock()
            code = self.call(ctypes.addressof(alone))
            found.append(clock() - start)
            self.keep.pop()
            if code:
                self._release(arrays)
                self._raise(number)
        self._results(arrays)
        return found

    def _prepare(self, arrays: Sequence[Array | None]) -> None:
        slots, current, address = self.slots, self.current, memory.address
        for position, slot in self.inputs:
            array = arrays[position]
            if array is not None:
                current[slot] = array
                slots[slot] = address(array)
        for slot, shape, dtype in self.fresh:
            array = memory.empty(shape, dtype)
            current[slot] = array
            slots[slot] = address(array)

    def _results(self, arrays: Sequence[Array | None]) -> list[Array]:
        # A result in an input's memory: what was written there in place, or, before the copies,
        # the input itself.
        passed = {s: self.array(s).copy() for s in self.passed} if self.passed else {}
        if self.program.copies:
            self._copy()
        results = [self._result(plan, passed) for plan in self.outputs]
        self._release(arrays)
        return results

    def _release(self, arrays: Sequence[Array | None]) -> None:
        """Results and the caller's arrays are not ours to keep."""
        current = self.current
        for slot, _, _ in self.fresh:
            current[slot] = None
        for position, slot in self.inputs:
            if arrays[position] is not None:
                current[slot] = None

    def _result(self, plan: Plan, passed: dict[int, Array]) -> Array:
        slot, copied, shape = plan
        array = passed[slot] if copied else self.current[slot]
        if array is None:  # an output that lives in the arena because a later step needs it
            array = self.array(slot).copy()
        return array if shape is None else array.reshape(shape)

    def array(self, slot: int) -> Array:
        """The memory of a slot as an array."""
        known = self.current[slot]
        shape, dtype = self.layout.shapes[slot], self.program.slots[slot].dtype
        if known is not None:
            return known.reshape(shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        offset = self.layout.offsets[slot]
        return self.arena[offset : offset + nbytes].view(dtype).reshape(shape)

    def _copy(self) -> None:
        pairs = [(self.array(a).copy(), self.array(b)) for a, b in self.program.copies]
        for source, target in pairs:
            np.copyto(target, source.reshape(target.shape))

    def _host(self, number: int) -> int:
        step = self.program.steps[number]
        try:
            arrays = [self.array(s) for s in step.inputs]
            result = step.host(arrays, self.sizes)  # type: ignore[misc]
            results = result if isinstance(result, tuple) else (result,)
            for slot, value in zip(step.outputs, results, strict=True):
                np.copyto(self.array(slot), value)
        except BaseException as error:
            self.failure = error
            return 1
        return 0

    def _raise(self, number: int) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        block = self.size_blocks[number]
        code, value = block[0], block[1]
        block[0] = 0
        site = self.program.steps[number].checks[code - 1]
        raise site.check.error(value, site.loc)
