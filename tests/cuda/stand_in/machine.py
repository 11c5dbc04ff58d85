"""The hardware: memory of devices, streams of jobs and captures, on the host.

A job is a Python call. In the plain mode it runs when it is started; in the lazy mode it waits
until somebody waits for its stream, and then only what that needs is run, so that a missing wait or
a missing dependency between streams shows. Memory holds 0xFF before it is written and after it was
freed, and lies between guards.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

POISON = 0xFF
GUARD = 64  # bytes on both sides of an allocation that nobody may touch
UNIT = 512  # bytes; what CuPy rounds sizes up to, and the alignment of an allocation
_HANDLES = itertools.count(0x10000, 16)
Work = Callable[[], None]
Span = tuple[int, int]  # an address and a number of bytes

ERRORS = {
    1: ("cudaErrorInvalidValue", "invalid argument"),
    2: ("cudaErrorMemoryAllocation", "out of memory"),
    34: ("cudaErrorStubLibrary", "CUDA driver is a stub library"),
    100: ("cudaErrorNoDevice", "no CUDA-capable device is detected"),
    101: ("cudaErrorInvalidDevice", "invalid device ordinal"),
    400: ("cudaErrorInvalidResourceHandle", "invalid resource handle"),
    600: ("cudaErrorNotReady", "device not ready"),
    700: ("cudaErrorIllegalAddress", "an illegal memory access was encountered"),
    900: (
        "cudaErrorStreamCaptureUnsupported",
        "operation not permitted when stream is capturing",
    ),
    901: (
        "cudaErrorStreamCaptureInvalidated",
        "operation failed due to a previous error during capture",
    ),
    903: (
        "cudaErrorStreamCaptureUnmatched",
        "capture was not ended in the same stream as it began",
    ),
    904: ("cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"),
    905: (
        "cudaErrorStreamCaptureIsolation",
        "dependency created on uncaptured work in another stream",
    ),
    906: (
        "cudaErrorStreamCaptureImplicit",
        "operation would make the legacy stream depend on a capturing blocking stream",
    ),
    907: (
        "cudaErrorCapturedEvent",
        "operation not permitted on an event last recorded in a capturing stream",
    ),
}


class Fault(AssertionError):
    """What a real GPU would not report, or not at once: a use of freed memory, a wait where none
    may be, a write outside an array."""


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime, with its number."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(": ".join(ERRORS[status]))


class Block:
    """An allocation. wanted: bytes asked for; what follows up to `size` is guarded as well."""

    def __init__(self, device: int, size: int, wanted: int | None = None) -> None:
        self.device, self.size = device, size
        self.wanted = size if wanted is None else wanted
        self.raw = np.full(size + 2 * GUARD + UNIT, POISON, np.uint8)
        self.first = GUARD + -(self.raw.ctypes.data + GUARD) % UNIT
        self.start = int(self.raw.ctypes.data) + self.first
        self.live, self.uses = True, 0

    @property
    def bytes(self) -> np.ndarray[Any, Any]:
        """What may be used."""
        return self.raw[self.first : self.first + self.wanted]

    def poison(self) -> None:
        self.raw[self.first : self.first + self.size] = POISON

    def check(self, who: str) -> None:
        """Raise Fault if somebody wrote beside the memory."""
        # What is queued may still write into the longer array that was here before.
        last = self.first + (self.size if gpu.lazy else self.wanted)
        before, after = self.raw[: self.first], self.raw[last:]
        if before.min(initial=POISON) != POISON or after.min(initial=POISON) != POISON:
            before[:], after[:] = POISON, POISON  # it is said once
            raise Fault(f"{who} wrote outside its arrays, at one of {self.wanted} bytes")


@dataclass(eq=False)
class Job:
    """Work on a stream, after what it needs. time: seconds at which it was done."""

    number: int
    name: str
    work: Work
    needs: list[Job] = field(default_factory=list)
    done: bool = False
    time: float = 0.0


@dataclass(eq=False)
class Capture:
    """Work that is recorded instead of run. forked: other streams whose work was not joined."""

    origin: Queue
    mode: int
    nodes: list[tuple[str, Work, list[tuple[Block, int]]]] = field(default_factory=list)
    forked: set[Queue] = field(default_factory=set)
    invalid: bool = False


@dataclass(eq=False)
class Queue:
    """A stream. legacy: the stream 0. blocking: whether it keeps order with stream 0."""

    ptr: int
    device: int
    blocking: bool = True
    last: Job | None = None
    capture: Capture | None = None
    waits: list[Job] = field(default_factory=list)
    held: bool = False  # whether work waits for a function of the host

    @property
    def legacy(self) -> bool:
        return self.ptr in (0, 1)


@dataclass(eq=False)
class Mark:
    """An event."""

    ptr: int
    timed: bool = True
    job: Job | None = None
    capture: Capture | None = None
    queue: Queue | None = None


@dataclass(frozen=True)
class Chip:
    """What a device says of itself."""

    name: str = "NVIDIA H100 80GB HBM3 (emulated)"
    capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 3  # few, so that small arrays have several parts
    shared_bytes: int = 227 << 10
    memory_bytes: int = 2 << 30


class Machine:
    """All devices with their streams. `gpu` is the one of this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.local = threading.local()
        self.reset()

    def reset(self, devices: int = 1, lazy: bool = False, chip: Chip = Chip()) -> None:
        """Start anew. devices: their number. lazy: whether work waits until it is waited for."""
        self.chip, self.devices, self.lazy = chip, devices, lazy
        self.peers = False  # whether devices may reach each other's memory
        self.queues: dict[tuple[int, int], Queue] = {}
        self.marks: dict[int, Mark] = {}
        self.graphs: dict[int, Capture] = {}
        self.handles = _HANDLES  # objects of a machine before may still be dropped
        self.numbers = itertools.count(1)
        self.starts: list[int] = []  # of blocks and pinned memory, in order
        self.blocks: dict[int, Block] = {}
        self.pinned: set[int] = set()
        self.allocated = [0] * devices
        self.launches: list[str] = []  # names of kernels and copies, as they are started
        self.waits: list[str] = []  # why the host waited
        self.uploads = self.downloads = 0  # bytes
        self.forbidden = ""  # why nobody may wait now
        self.local = threading.local()

    # ---- devices -----------------------------------------------------------------------------

    @property
    def device(self) -> int:
        """The current device of this thread."""
        return getattr(self.local, "device", 0)

    @device.setter
    def device(self, index: int) -> None:
        if not 0 <= index < self.devices:
            raise CUDARuntimeError(101)
        self.local.device = index

    # ---- memory ------------------------------------------------------------------------------

    def allocate(self, size: int, wanted: int | None = None, pinned: bool = False) -> Block:
        """Memory of the current device, or pinned memory of the host."""
        with self.lock:
            device = self.device
            if not pinned:
                self._unsafe()
                if self.allocated[device] + size > self.chip.memory_bytes:
                    raise CUDARuntimeError(2)
                self.allocated[device] += size
            block = Block(-1 if pinned else device, size, wanted)
            bisect.insort(self.starts, block.start)
            self.blocks[block.start] = block
            if pinned:
                self.pinned.add(block.start)
            return block

    def release(self, block: Block) -> None:
        """Give memory back; waits for the device, as cudaFree does."""
        with self.lock:
            if self.blocks.pop(block.start, None) is None:
                return  # of a machine that was reset
            self.starts.remove(block.start)
            if block.start in self.pinned:
                self.pinned.discard(block.start)
            else:
                self.allocated[block.device] -= block.size
                self._drain(q.last for q in self.queues.values())
            block.check("somebody")
            block.live = False
            block.poison()

    def find(self, address: int, nbytes: int = 1) -> Block | None:
        """The allocation that holds these bytes; None for memory of the host."""
        with self.lock:
            at = bisect.bisect_right(self.starts, address) - 1
            if at < 0:
                return None
            block = self.blocks[self.starts[at]]
        if address >= block.start + block.size:
            return None
        if address + nbytes > block.start + block.wanted:
            raise Fault(f"{nbytes} bytes at {address:#x} go beyond an array of {block.wanted}")
        return block

    def memory(self, address: int, nbytes: int) -> np.ndarray[Any, Any]:
        """Bytes of a device or of pinned memory."""
        if not nbytes:
            return np.empty(0, np.uint8)
        block = self.find(address)
        if block is None or address + nbytes > block.start + block.size:
            raise CUDARuntimeError(700)
        return block.raw[block.first + address - block.start :][:nbytes]

    def host(self, address: int, nbytes: int) -> np.ndarray[Any, Any]:
        """Bytes of any memory of this process."""
        return np.frombuffer((ctypes.c_ubyte * nbytes).from_address(address), np.uint8)

    def touch(self, name: str, spans: Sequence[Span]) -> list[tuple[Block, int]]:
        """The allocations with these bytes. Raises Fault if one was freed."""
        found = []
        for address, nbytes in spans:
            block = self.find(address, nbytes) if nbytes else None
            if block is None:
                if nbytes:
                    raise CUDARuntimeError(700)
                continue
            if not block.live:
                raise Fault(f"{name} uses memory that was freed, {nbytes} bytes at {address:#x}")
            found.append((block, block.uses))
        return found

    # ---- streams -----------------------------------------------------------------------------

    def queue(self, ptr: int) -> Queue:
        """The stream with a handle; 0, 1 and 2 are the default streams of the current device."""
        with self.lock:
            device = self.device if ptr in (0, 1, 2) else -1
            key = (device, 0 if ptr == 1 else ptr)
            if key not in self.queues:
                if device < 0:
                    raise CUDARuntimeError(400)
                self.queues[key] = Queue(key[1], device)
            return self.queues[key]

    def create(self, blocking: bool) -> int:
        """A new stream on the current device."""
        with self.lock:
            ptr = next(self.handles)
            self.queues[-1, ptr] = Queue(ptr, self.device, blocking)
            return ptr

    def kernel(self, name: str, work: Work, spans: Sequence[Span] = (), stream: int = 0) -> None:
        """Start work on a stream. spans: memory it touches, which must be alive and stay so."""
        with self.lock:
            queue = self.queue(stream)
            if queue.device != self.device:
                raise CUDARuntimeError(400)
            used = self.touch(name, spans)
            self.launches.append(name)
            self.submit(queue, name, work, used)

    def submit(
        self, queue: Queue, name: str, work: Work, used: Sequence[tuple[Block, int]] = ()
    ) -> Job | None:
        """Run, queue or record work."""
        with self.lock:
            if queue.capture is not None:
                queue.capture.nodes.append((name, work, list(used)))
                return None
            self._implicit(queue)
            job = Job(next(self.numbers), name, work, self._needs(queue))
            if self.lazy or queue.held or job.needs:
                queue.last = job
            else:
                self._run(job)
            return job

    def together(
        self, name: str, work: Work, queues: Sequence[Queue], spans: Sequence[Span]
    ) -> None:
        """Start work that several streams, of different devices, do together."""
        with self.lock:
            if any(q.capture is not None for q in queues):
                raise Fault(f"{name}: the emulation does not capture work of several devices")
            self.touch(name, spans)
            self.launches.append(name)
            needs = []
            for queue in queues:
                self._implicit(queue)
                needs += self._needs(queue)
            job = Job(next(self.numbers), name, work, needs)
            if self.lazy or needs or any(q.held for q in queues):
                for queue in queues:
                    queue.last = job
            else:
                self._run(job)

    def host_function(self, queue: Queue, work: Work) -> None:
        """Call the host when a stream comes to it, which is not before somebody waits."""
        with self.lock:
            queue.held = True
            self.submit(queue, "host function", work)

    def deferred(self, ptr: int) -> bool:
        """Whether work on a stream is not run at once."""
        queue = self.queue(ptr)
        return self.lazy or queue.held or queue.capture is not None

    def _implicit(self, queue: Queue) -> None:
        """Raise if work on stream 0 would have to wait for a capture."""
        others = (q for q in self.queues.values() if queue.legacy and q.device == queue.device)
        for other in others:
            if other.capture is not None and other.blocking:
                other.capture.invalid = True
                raise CUDARuntimeError(906)

    def _needs(self, queue: Queue) -> list[Job]:
        needs, queue.waits = queue.waits, []
        before = [queue.last]
        for other in self.queues.values():
            ordered = other.blocking and queue.blocking and other.legacy != queue.legacy
            if ordered and other.device == queue.device:
                before.append(other.last)
        return needs + [j for j in before if j is not None and not j.done]

    def _run(self, job: Job) -> None:
        job.done, job.needs = True, []
        job.work()
        job.time = time.perf_counter()

    def _drain(self, jobs: Any) -> None:
        """Run jobs and all that they need, in the order in which they were started."""
        todo, found = [j for j in jobs if j is not None], set()
        while todo:
            job = todo.pop()
            if not job.done and job not in found:
                found.add(job)
                todo += job.needs
        for job in sorted(found, key=lambda j: j.number):
            self._run(job)
        for queue in self.queues.values():
            queue.held = queue.held and queue.last is not None and not queue.last.done

    # ---- waiting -----------------------------------------------------------------------------

    def _wait(self, why: str) -> None:
        if self.forbidden:
            raise Fault(f"{why} waits for the device: {self.forbidden}")
        self.waits.append(why)

    def wait_queue(self, queue: Queue, why: str) -> None:
        """Wait for a stream."""
        with self.lock:
            if queue.capture is not None:
                queue.capture.invalid = True
                raise CUDARuntimeError(900)
            self._implicit(queue)
            self._wait(why)
            self._drain([queue.last, *queue.waits, *(self._needs(queue) if queue.legacy else ())])

    def wait_device(self, why: str) -> None:
        """Wait for all streams of the current device."""
        with self.lock:
            mine = [q for q in self.queues.values() if q.device == self.device]
            for queue in mine:
                if queue.capture is not None:
                    queue.capture.invalid = True
                    raise CUDARuntimeError(900)
            self._wait(why)
            self._drain(q.last for q in mine)

    def _unsafe(self) -> None:
        """Calls that a capture in the mode `global` (0) forbids everywhere."""
        for queue in self.queues.values():
            if queue.capture is not None and queue.capture.mode == 0:
                queue.capture.invalid = True
                raise CUDARuntimeError(900)

    # ---- events ------------------------------------------------------------------------------

    def record(self, mark: Mark, queue: Queue) -> None:
        """Set an event on a stream."""
        with self.lock:
            mark.capture, mark.queue = queue.capture, queue
            mark.job = self.submit(queue, "event", lambda: None)

    def wait_mark(self, mark: Mark) -> None:
        """Wait for an event."""
        with self.lock:
            if mark.capture is not None:
                raise CUDARuntimeError(907)
            self._wait("Event.synchronize")
            self._drain([mark.job])

    def after(self, queue: Queue, mark: Mark) -> None:
        """Let a stream wait for an event; a captured event takes the stream into its capture."""
        with self.lock:
            if mark.capture is not None:
                if queue.capture is None:
                    queue.capture = mark.capture
                    mark.capture.forked.add(queue)
                elif mark.queue is not None:
                    mark.capture.forked.discard(mark.queue)
            elif queue.capture is not None and mark.job is not None:
                queue.capture.invalid = True
                raise CUDARuntimeError(905)
            elif mark.job is not None and not mark.job.done:
                queue.waits.append(mark.job)

    # ---- captures ----------------------------------------------------------------------------

    def begin(self, queue: Queue, mode: int) -> None:
        """Record a stream's work from now on."""
        with self.lock:
            if queue.capture is not None:
                raise CUDARuntimeError(1)
            queue.capture = Capture(queue, mode)

    def end(self, queue: Queue) -> int:
        """The handle of what was recorded."""
        with self.lock:
            capture = queue.capture
            if capture is None:
                raise CUDARuntimeError(1)
            if capture.origin is not queue:
                raise CUDARuntimeError(903)
            for other in self.queues.values():
                if other.capture is capture:
                    other.capture = None
            if capture.invalid:
                raise CUDARuntimeError(901)
            if capture.forked:
                raise CUDARuntimeError(904)
            handle = next(self.handles)
            self.graphs[handle] = capture
            return handle

    def replay(self, handle: int, queue: Queue) -> None:
        """Start the recorded work again, with the recorded addresses."""
        # Memory that was freed and is somebody's again may well be the input at hand: whoever
        # replays a graph looks at addresses.
        nodes = [
            (name, part, [(block, block.uses) for block, _ in used])
            for name, part, used in self.graphs[handle].nodes
        ]
        for name, _, used in nodes:
            if not all(block.live for block, _ in used):
                raise Fault(f"a graph replays {name} on memory that was freed since")

        def work() -> None:
            for _, part, _ in nodes:
                part()

        everything = [pair for _, _, used in nodes for pair in used]
        with self.lock:
            self.launches.append(f"graph of {len(nodes)}")
            self.submit(queue, "graph", work, everything)

    # ---- copies ------------------------------------------------------------------------------

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """cudaMemcpyAsync. Pageable memory of the host is read at once, and written only when
        the host waits, as the runtime does; pinned memory when the copy is due."""
        if not nbytes:
            return
        with self.lock:
            queue = self.queue(stream)
            into, out_of = self.find(target, nbytes), self.find(source, nbytes)
            if into is None and out_of is None:
                raise CUDARuntimeError(1)
            used = self.touch("a copy", [(a, nbytes) for a in (target, source) if self.find(a)])
            if queue.capture is not None and (into is None or out_of is None):
                raise Fault("a graph records an address of pageable host memory")
            self._count(into, out_of, nbytes)
            given = self.host(source, nbytes)
            given = given.copy() if out_of is None else given
            there = self.host(target, nbytes)
            self.submit(queue, "copy", lambda: there.__setitem__(..., given), used)
            if into is None:
                self.wait_queue(queue, "a copy to pageable memory")

    def _count(self, into: Block | None, out_of: Block | None, nbytes: int) -> None:
        to_device = into is not None and into.device >= 0
        from_device = out_of is not None and out_of.device >= 0
        self.launches.append(f"copy {'D' if from_device else 'H'}to{'D' if to_device else 'H'}")
        self.uploads += nbytes if to_device and not from_device else 0
        self.downloads += nbytes if from_device and not to_device else 0

    # ---- what tests ask ----------------------------------------------------------------------

    @contextlib.contextmanager
    def no_waits(self, why: str = "nothing may wait here") -> Iterator[None]:
        """Raise Fault where the host waits for a device."""
        before, self.forbidden = self.forbidden, why
        try:
            yield
        finally:
            self.forbidden = before

    def check(self) -> None:
        """Run everything that is queued and check all guards."""
        with self.lock:
            self._drain([q.last for q in self.queues.values()])
            for block in list(self.blocks.values()):
                block.check("somebody")


def ended(finalizing: Callable[[], bool] = sys.is_finalizing) -> bool:
    """Whether the interpreter ends; bound early, since modules are emptied then."""
    return finalizing()


gpu = Machine()
