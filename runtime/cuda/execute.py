"""Runs a `DeviceProgram`: memory and addresses prepared once, then launches in order.

What touches a device goes through a `Driver`: `cupy_driver` has the real one, the tests run the
same code on one that emulates the device on the host. Calls return before the device is done;
`wait` is the point where a failed check is raised.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from graphnn.runtime.device import DeviceProgram, KernelRun, ProductRun
from graphnn.runtime.program import Step

Array = Any  # an array of the driver: a CuPy array on a GPU
ALIGN = 16  # bytes; kernels read packs of this size, so every buffer starts at a multiple
STATUS_WORDS = 2  # of a step with checks: number of the failed check, the value it saw


class Driver(Protocol):
    """What running a program asks of a device. Everything happens in the order of the calls."""

    def compile(self, text: str, entries: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions with these names, from CUDA C. wide: with 64-bit indices."""

    def launch(
        self, function: Any, blocks: int, threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Start a kernel. arguments: ctypes values, in the order of its parameters."""

    def product(self, run: ProductRun, dtype: np.dtype[Any], addresses: Sequence[int]) -> None:
        """Multiply matrices; addresses of a, b and c."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array on the device."""

    def address(self, array: Array) -> int:
        """Where an array's first element is."""

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array inside an array of bytes."""

    def copy(self, target: Array, source: Array) -> None:
        """Copy on the device."""

    def upload(self, target: Array, source: np.ndarray[Any, Any]) -> None:
        """Copy from the host."""

    def download(self, source: Array) -> np.ndarray[Any, Any]:
        """Copy to the host, after everything before it."""

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` starts as one graph, without running it; None where that is not possible.
        A capture is ended on any exception."""

    def replay(self, graph: Any) -> None:
        """Run a captured graph."""


class DeviceExecutable:
    """A program with its machine code on a device; one thread runs at a time.

    captured: whether runs after the first one replay one graph, where the program allows it.
    """

    def __init__(self, device: DeviceProgram, driver: Driver, captured: bool = True) -> None:
        self.device, self.driver = device, driver
        self.captured = captured and not why_not_captured(device)
        self._instances: dict[tuple[int, ...], _Instance] = {}
        self._functions: dict[bool, dict[str, Any]] = {}
        self._bound: dict[int, Array] = {}
        self._lock = threading.Lock()

    def functions(self, wide: bool) -> dict[str, Any]:
        """The entries by name, compiled at first use."""
        if wide not in self._functions:
            names = entry_names(self.device)
            text = self.device.text
            found = self.driver.compile(text, names, wide) if names else {}
            self._functions[wide] = found
        return self._functions[wide]

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input (a Variable's buffer) for all following runs.

        Raises ValueError if the array does not start at a multiple of 16 bytes.
        """
        if self.driver.address(array) % ALIGN:
            raise ValueError(f"a Variable's memory must start at a multiple of {ALIGN} bytes")
        with self._lock:
            self._bound[position] = array
            for instance in self._instances.values():
                instance.bind(position, array)

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """The outputs for inputs in order; None stands for a bound one.

        Arrays are dense, row-major and of the dtypes of the graph's inputs. Inputs with new values
        are overwritten in place. Returns before the device is done.
        """
        with self._lock:
            return self._instance(arrays).run(arrays)

    def wait(self) -> None:
        """Wait for all runs; raises the error of a check that failed in one of them."""
        with self._lock:
            for instance in self._instances.values():
                instance.check()

    def _instance(self, arrays: Sequence[Array | None]) -> _Instance:
        sizes = []
        for position, axis in self.device.program.symbol_sources:
            array = arrays[position]
            sizes.append(int((self._bound[position] if array is None else array).shape[axis]))
        key = tuple(sizes)
        if key not in self._instances:
            self._instances[key] = _Instance(self, key)
        return self._instances[key]


def entry_names(device: DeviceProgram) -> list[str]:
    """Names of all kernels in a program's text."""
    marker = "__launch_bounds__("
    names = []
    for _, text in device.program.modules:
        for line in text.splitlines():
            if line.startswith('extern "C"') and marker in line:
                names.append(line.split(marker)[1].split(") ", 1)[1].split("(")[0])
    return names


def why_not_captured(device: DeviceProgram) -> str:
    """Why a program cannot be one graph, or the empty string."""
    hosts = [s.title for s in device.program.steps if s.host is not None]
    return f"{hosts[0].split()[0]} runs on the host" if hosts else ""


class _Instance:
    """Memory and launches of one program for one combination of sizes."""

    def __init__(self, owner: DeviceExecutable, sizes: tuple[int, ...]) -> None:
        self.owner, self.driver = owner, owner.driver
        program = self.program = owner.device.program
        self.layout = program.layout(sizes)
        self.plan = owner.device.plan(sizes)
        self.sizes = dict(zip(program.symbols, sizes, strict=True))
        self.functions = owner.functions(self.plan.wide)
        self.index = ctypes.c_int64 if self.plan.wide else ctypes.c_int32
        self.arena = self.driver.empty((max(1, self.layout.arena),), np.dtype(np.uint8))
        self.status = self._status()
        self.current: list[Array | None] = [None] * len(program.slots)
        self.static: dict[int, Array] = {}  # inputs and outputs of a captured graph
        self.tables: dict[int, tuple[tuple[int, ...], Array]] = {}
        self.spare: dict[int, Array] = {}
        written = {slot for step in program.steps for slot in step.outputs}
        self.written = written | {target for _, target in program.copies}
        self.graph: Any = None
        self.bound: set[int] = set()
        self.runs = 0
        for position, array in owner._bound.items():
            self.bind(position, array)

    # ---- memory ------------------------------------------------------------------------------

    def bind(self, position: int, array: Array) -> None:
        slot = self.program.inputs[position]
        self.current[slot] = array
        self.bound.add(slot)
        self.graph = None  # it holds the old address

    def _status(self) -> Array | None:
        if not any(s.checks for s in self.program.steps):
            return None
        status = self.driver.empty((len(self.program.steps), STATUS_WORDS), np.dtype(np.int64))
        self.driver.upload(status, np.zeros((len(self.program.steps), STATUS_WORDS), np.int64))
        return status

    def array(self, slot: int) -> Array:
        """The memory of a slot."""
        known = self.current[slot]
        if known is not None:
            return known
        shape, dtype = self.layout.shapes[slot], self.program.slots[slot].dtype
        return self.driver.view(self.arena, self.layout.offsets[slot], shape, dtype)

    def address(self, slot: int) -> int:
        """Where a slot's memory is."""
        known = self.current[slot]
        if known is not None:
            return self.driver.address(known)
        return self.driver.address(self.arena) + self.layout.offsets[slot]

    def _fresh(self) -> list[int]:
        slots = self.program.slots
        wanted = [s for s in self.program.outputs if slots[s].role == "output"]
        return list(dict.fromkeys(s for s in wanted if self.layout.offsets[s] < 0))

    def _new(self, slot: int) -> Array:
        return self.driver.empty(self.layout.shapes[slot], self.program.slots[slot].dtype)

    # ---- running -----------------------------------------------------------------------------

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        self.runs += 1
        # The first run compiles and tunes; a program that runs again is worth a capture.
        if self.owner.captured and self.runs > 1:
            return self._run_captured(arrays)
        for position, slot in enumerate(self.program.inputs):
            array = arrays[position]
            if array is not None:
                self.current[slot] = self._aligned(array)
        for slot in self._fresh():
            self.current[slot] = self._new(slot)
        self._enqueue()
        self._give_back(arrays)
        results = self._results()
        for slot in self._fresh():
            self.current[slot] = None
        return results

    def _aligned(self, array: Array) -> Array:
        if self.driver.address(array) % ALIGN == 0:
            return array
        moved = self.driver.empty(array.shape, array.dtype)
        self.driver.copy(moved, array)
        return moved

    def _give_back(self, arrays: Sequence[Array | None]) -> None:
        """New values of inputs that were moved go to the caller's memory."""
        for position, slot in enumerate(self.program.inputs):
            array = arrays[position]
            if array is None or array is self.current[slot] or slot not in self.written:
                continue
            self.driver.copy(array, self.current[slot])

    def _run_captured(self, arrays: Sequence[Array | None]) -> list[Array]:
        for position, slot in enumerate(self.program.inputs):
            array = arrays[position]
            if array is None:
                continue
            if slot not in self.static:
                self.static[slot] = self.driver.empty(array.shape, array.dtype)
            self.driver.copy(self.static[slot], array)
        for slot in self._fresh():
            if slot not in self.static:
                self.static[slot] = self._new(slot)
        for slot, own in self.static.items():
            if slot not in self.bound:
                self.current[slot] = own
        if self.graph is None:
            self._prepare()
            self.graph = self.driver.capture(self._enqueue)
        if self.graph is None:
            self._enqueue()
        else:
            self.driver.replay(self.graph)
        self._give_back(arrays)
        return [self._copied(r) for r in self._results(copied=True)]

    def _copied(self, array: Array) -> Array:
        fresh = self.driver.empty(array.shape, array.dtype)
        self.driver.copy(fresh, array)
        return fresh

    def _results(self, copied: bool = False) -> list[Array]:
        found = []
        for slot, shape in zip(self.program.outputs, self.layout.outputs, strict=True):
            array = self.array(slot)
            fresh = self.current[slot] is not None and self.program.slots[slot].role == "output"
            if not fresh and not copied:
                array = self._copied(array)
            found.append(array if tuple(array.shape) == shape else array.reshape(shape))
        return found

    def _enqueue(self) -> None:
        """Start all steps, then the copies of new values that could not be made in place."""
        runs = zip(self.program.steps, self.plan.steps, strict=True)
        for number, (step, run) in enumerate(runs):
            if isinstance(run, KernelRun):
                self._kernels(number, step, run)
            elif isinstance(run, ProductRun):
                self._product(step, run)
            else:
                self._host(step)
        self._copy()

    def _prepare(self) -> None:
        """Make what a capture may not make: tables on the device, memory for copies."""
        for number, (step, run) in enumerate(zip(self.program.steps, self.plan.steps, strict=True)):
            if isinstance(run, KernelRun) and run.firsts:
                self._table(number, step, run)
        self._spare()

    def _spare(self) -> dict[int, Array]:
        """Memory for values that are copied while another copy may overwrite their source."""
        if len(self.program.copies) > 1 and not self.spare:
            self.spare = {a: self._new(a) for a, _ in self.program.copies}
        return self.spare

    def _copy(self) -> None:
        sources = {a: self.array(a) for a, _ in self.program.copies}
        for slot, own in self._spare().items():
            self.driver.copy(own, sources[slot])
            sources[slot] = own
        for slot, target in self.program.copies:
            own = self.array(target)
            self.driver.copy(own, sources[slot].reshape(own.shape))

    def _product(self, step: Step, run: ProductRun) -> None:
        (segment,) = step.segments
        first, *rest, out = segment.slots  # where both operands are one buffer it is named once
        places = [self.address(s) for s in (first, *(rest or [first]), out)]
        self.driver.product(run, self.program.slots[out].dtype, places)

    def _kernels(self, number: int, step: Step, run: KernelRun) -> None:
        sizes: list[Any] = [self.index(v) for v in run.sizes]
        if self.status is not None and step.checks:
            place = self.driver.address(self.status) + 8 * STATUS_WORDS * number
            sizes.append(ctypes.c_void_p(place))
        if run.firsts:
            table = self._table(number, step, run)
            given = [ctypes.c_void_p(table), self.index(len(run.rows)), *sizes]
        else:
            (segment,) = step.segments
            addresses = [ctypes.c_void_p(self.address(s)) for s in segment.slots]
            given = [*addresses, self.index(run.rows[0]), *sizes]
        for launch in run.launches:
            function = self.functions[launch.entry]
            self.driver.launch(function, launch.blocks, launch.threads, launch.shared, given)

    def _table(self, number: int, step: Step, run: KernelRun) -> int:
        """Address of the table of a step with several segments; made again when memory moves."""
        words: list[int] = []
        for first, rows, segment in zip(run.firsts, run.rows, step.segments, strict=False):
            words += [first, rows, *(self.address(s) for s in segment.slots)]
        words.append(run.firsts[-1])
        key = tuple(words)
        known = self.tables.get(number)
        if known is None or known[0] != key:
            table = self.driver.empty((len(words),), np.dtype(np.int64))
            self.driver.upload(table, np.array(words, np.int64))
            known = self.tables[number] = (key, table)
        return self.driver.address(known[1])

    def _host(self, step: Step) -> None:
        """A call back to the host: arrays go there and results come back."""
        if step.host is None:
            raise TypeError(f"{step.title} has no code for this device")
        arrays = [self.driver.download(self.array(s)) for s in step.inputs]
        result = step.host(arrays, self.sizes)
        results = result if isinstance(result, tuple) else (result,)
        for slot, value in zip(step.outputs, results, strict=True):
            own = self.array(slot)
            self.driver.upload(own, np.ascontiguousarray(value).reshape(own.shape))

    # ---- checks ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the error of the first step whose check failed; the next run starts clean."""
        if self.status is None:
            return
        words = self.driver.download(self.status)
        failed = np.flatnonzero(words[:, 0])
        if not len(failed):
            return
        self.driver.upload(self.status, np.zeros_like(words))
        number = int(failed[0])
        code, value = (int(v) for v in words[number])
        site = self.program.steps[number].checks[code - 1]
        check = site.check.bind(self.sizes) if hasattr(site.check, "bind") else site.check
        raise check.error(value, site.loc)
