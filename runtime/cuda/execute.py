"""Runs a `DeviceProgram`: memory and addresses prepared once, then launches in order or, from the
second run on, captured graphs of them.

What touches a device goes through a `Driver`: `driver.py` has the real one, the tests run the same
code on one that emulates the device on the host. Calls return before the device is done; a failed
check is raised at `wait`, or when the driver is next asked for failures.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from graphnn.runtime.cuda.instance import ALIGN, Instance
from graphnn.runtime.cuda.pieces import Piece, pieces_of
from graphnn.runtime.device import AttentionRun, DeviceProgram, ProductRun
from graphnn.runtime.execute import MAX_INSTANCES, Executable
from graphnn.runtime.program import Layout

Array = Any  # an array of the driver: a CuPy array on a GPU


class Buffer(Protocol):
    """Memory that a program writes results to, again and again, and gives out in between."""

    address: int

    def lend(self, shape: tuple[int, ...]) -> Array:
        """An array of that memory for somebody else."""

    def held(self) -> bool:
        """Whether somebody else still has an array, or a view of an array, of that memory."""


class Driver(Protocol):
    """What running a program asks of a device. Everything happens in the order of the calls, on
    the calling thread's current stream.

    pending: instances whose checks may have failed, and on which stream they ran. many: whether
    there are other devices, so that this one has to be made the current one.
    """

    pending: dict[Any, int]
    many: bool

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which this device is the current one."""

    @property
    def stream(self) -> int:
        """The current stream; that which will replay, while a graph is captured."""

    def compile(self, texts: Sequence[str], entries: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions with these names, from CUDA C: a prelude, then kernels. wide: with 64-bit
        indices."""

    def launch(
        self, function: Any, blocks: int, threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Start a kernel. arguments: `pieces.Arguments`, in the order of its parameters."""

    def library(self, run: ProductRun | AttentionRun, addresses: Sequence[int]) -> None:
        """Start a library call; addresses of its operands."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array on the device."""

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """Memory for results."""

    def shared(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, int]:
        """Zeroed memory of the host that kernels can write: the array, the device's address."""

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

    def synchronize(self) -> None:
        """Wait for the current stream."""

    def times(self, works: Sequence[Callable[[], None]], gated: bool) -> list[float]:
        """Seconds that the device takes for each of some works in a row. gated: whether all may be
        started before the first one runs."""


class DeviceExecutable:
    """A program with its machine code on a device; one thread runs at a time.

    captured: whether runs after the first one replay graphs, where that gains something.
    """

    def __init__(self, device: DeviceProgram, driver: Driver, captured: bool = True) -> None:
        self.device, self.driver, self.captured = device, driver, captured
        self.regions = {
            number: Executable(step.region)
            for number, step in enumerate(device.program.steps)
            if step.region is not None
        }
        self._instances: dict[tuple[int, ...], Instance] = {}
        self._only: Instance | None = None
        self._functions: dict[bool, dict[str, Any]] = {}
        self.bound: dict[int, Array] = {}
        self.fixed: dict[int, Array] = {}  # where results are always written, by slot
        self._lock = threading.Lock()

    def functions(self, wide: bool) -> dict[str, Any]:
        """The entries by name, compiled at first use."""
        if wide not in self._functions:
            names = entry_names(self.device)
            found = self.driver.compile(self.device.texts, names, wide) if names else {}
            self._functions[wide] = found
        return self._functions[wide]

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input (a Variable's buffer) for all following runs.

        Raises ValueError if an array of the device does not start at a multiple of 16 bytes.
        """
        program = self.device.program
        on_host = program.slots[program.inputs[position]].host
        if not on_host and self.driver.address(array) % ALIGN:
            raise ValueError(f"a Variable's memory must start at a multiple of {ALIGN} bytes")
        with self._lock:
            self.bound[position] = array
            for instance in self._instances.values():
                instance.bind(position, array)

    def fix(self, position: int, array: Array) -> None:
        """Write an output to this memory in all following runs that give it the same shape.

        Each run overwrites it then. An output in the host's memory, or one that is another output
        as well, may be elsewhere still: look at what a run gives.
        """
        slot = self.device.program.outputs[position]
        with self._lock:
            self.fixed.setdefault(slot, array)
            self._instances.clear()
            self._only = None

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """The outputs for inputs in order; None stands for a bound one.

        Arrays are dense, row-major and of the dtypes of the graph's inputs; NumPy arrays for inputs
        and from outputs in the host's memory. Inputs with new values are overwritten in place.
        Returns before the device is done.
        """
        with self._lock:
            if not self.driver.many:
                return (self._only or self._instance(arrays)).run(arrays)
            with self.driver.scope():
                return (self._only or self._instance(arrays)).run(arrays)

    def wait(self) -> None:
        """Wait for the runs on the current stream; raises the error of a check that failed."""
        with self.driver.scope():
            self.driver.synchronize()
        with self._lock:
            for instance in self._instances.values():
                raise_failure(self.driver, instance)

    # ---- looking inside ------------------------------------------------------------------------

    @property
    def sizes(self) -> dict[str, int]:
        """Values of the symbolic sizes in the newest combination; {} before the first call."""
        newest = next(reversed(self._instances), ())
        return dict(zip(self.device.program.symbols, newest, strict=bool(newest)))

    def layout(self, arrays: Sequence[Array | None]) -> Layout:
        """The numbers of a call with these arrays."""
        with self._lock, self.driver.scope():
            return self._instance(arrays).layout

    def pieces(self, sizes: tuple[int, ...] | None = None) -> list[Piece]:
        """The program as graphs, launches and host steps in turn, each with its reason.

        sizes: values of the symbols; by default those of the newest run.
        """
        if sizes is None:
            sizes = next(reversed(self._instances), ())
        if len(sizes) != len(self.device.program.symbols):
            raise ValueError("the numbers of launches need the values of the symbolic sizes")
        return pieces_of(self.device.program, self.device.plan(sizes), self.captured)

    def times(self, arrays: Sequence[Array | None], repeats: int = 10) -> list[float]:
        """Median seconds of each step over some runs; Variables change as in as many runs."""
        with self._lock, self.driver.scope():
            instance = self._instance(arrays)
            runs = [instance.times(arrays) for _ in range(repeats)]
        return [statistics.median(step) for step in zip(*runs, strict=True)]

    def _instance(self, arrays: Sequence[Array | None]) -> Instance:
        sizes = []
        for position, axis in self.device.program.symbol_sources:
            array = arrays[position]
            sizes.append(int((self.bound[position] if array is None else array).shape[axis]))
        key = tuple(sizes)
        instance = self._instances.pop(key, None) or Instance(self, key)
        self._instances[key] = instance  # the last one used is the last to go
        if len(self._instances) > MAX_INSTANCES:
            del self._instances[next(iter(self._instances))]
        if not key:
            self._only = instance
        return instance


def raise_failure(driver: Driver, instance: Instance) -> None:
    """Raise the error of an instance's failed check; call it once its runs are over."""
    driver.pending.pop(instance, None)
    error = instance.failure()
    if error is not None:
        raise error


def raise_failed(driver: Driver, everything: bool = False) -> None:
    """Raise the error of the first failed check of programs that ran on the current stream.

    everything: on any stream. Call it after waiting for what it asks about.
    """
    stream = driver.stream
    for instance, ran_on in list(driver.pending.items()):
        if everything or ran_on == stream:
            raise_failure(driver, instance)


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
    return f"{hosts[0].removeprefix('host: ').split()[0]} runs on the host" if hosts else ""
