"""What goes from GPU to GPU between the parts of a program: copies, and sums over devices.

Nothing here waits on the host. Work of each device is put on its current stream; where one device
reads what another has written, the streams wait for each other. Sums are made by the library for
collectives where it is there, in one group of calls, else on the first device in the order of the
devices. Either way all devices get the same bits, and each run the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from operator import is_
from typing import Any

from graphnn.runtime.cuda import nccl

Array = Any
ALIGN = 16  # bytes at which each tensor in an arena begins
Add = Callable[[Any, Array, Array], Array]
"""The sum of two flat arrays on a backend, as an array there."""


class Links:
    """The ways between some devices. backends: by the names of the devices; several names may
    stand for one GPU."""

    def __init__(self, backends: Mapping[str, Any], add: Add) -> None:
        self.backends, self._add = dict(backends), add
        self._events: dict[tuple[str, int], Any] = {}

    # ---- order ---------------------------------------------------------------------------------

    def stream(self, device: str) -> Any:
        """The current stream of a device."""
        backend = self.backends[device]
        return backend.xp.cuda.get_current_stream(backend.index)

    def follow(self, later: str, earlier: str) -> None:
        """Let all that starts on one device from now on wait for what was started on another."""
        first, second = self.backends[earlier], self.backends[later]
        if first is second:
            return  # one stream
        with first.scope():
            event = first.xp.cuda.Event(disable_timing=True)
            event.record(self.stream(earlier))
        with second.scope():
            self.stream(later).wait_event(event)

    # ---- copies --------------------------------------------------------------------------------

    def send(
        self, moves: Sequence[tuple[Array, str, str]], into: Sequence[Array | None] = ()
    ) -> list[Array]:
        """Copies of arrays. moves: array, its device, the one that gets a copy. into: memory for
        the copies, which is used where it fits; the rest is new."""
        pairs = dict.fromkeys((a, b) for _, a, b in moves)
        for source, target in pairs:
            self.follow(target, source)
        rows = zip_longest(moves, into)
        found = [self._copied(array, target, own) for (array, _, target), own in rows]
        for source, target in pairs:
            self.follow(source, target)  # what is sent may be overwritten, but not before
        return found

    def _copied(self, array: Array, target: str, own: Array | None) -> Array:
        backend, made = self.backends[target], own
        if made is None or made.shape != array.shape:
            made = backend.empty(tuple(array.shape), array.dtype)
        with backend.scope():
            if array.nbytes:
                made.data.copy_from_device_async(array.data, array.nbytes)
        return made

    # ---- sums ----------------------------------------------------------------------------------

    def library(self, devices: Sequence[str]) -> bool:
        """Whether the library for collectives can add up over these devices."""
        indices = [self.backends[d].index for d in devices]
        return len(set(indices)) == len(indices) and not nccl.why_not(tuple(indices))

    def add(self, sums: Sequence[tuple[Sequence[str], Sequence[Array]]]) -> None:
        """Sums over devices, in place. sums: the devices of each, and a flat array on each."""
        together = [(d, a) for d, a in sums if self.library(d)]
        if together:
            nccl.all_reduce(
                [
                    [
                        (self.backends[n], self.stream(n), a)
                        for n, a in zip(names, arrays, strict=True)
                    ]
                    for names, arrays in together
                ]
            )
        for names, arrays in sums:
            if not self.library(names):
                self._add_at_first(names, arrays)

    def _add_at_first(self, names: Sequence[str], arrays: Sequence[Array]) -> None:
        first, *others = names
        sent = self.send([(a, n, first) for n, a in zip(others, arrays[1:], strict=True)])
        backend, total = self.backends[first], arrays[0]
        for value in sent:
            total = self._add(backend, total, value)
        with backend.scope():
            arrays[0].data.copy_from_device_async(total.data, total.nbytes)
        for name, array in zip(others, arrays[1:], strict=True):
            self.follow(name, first)
            target = self.backends[name]
            with target.scope():
                array.data.copy_from_device_async(total.data, total.nbytes)
            self.follow(first, name)


class Arena:
    """Flat memory on each of some devices, in which tensors that are added up lie back to back.

    views: the tensors of each device. flats: the memory of each.
    """

    def __init__(self, links: Links, devices: Sequence[str], arrays: Sequence[Array]) -> None:
        dtype = arrays[0].dtype
        step = max(1, ALIGN // dtype.itemsize)
        starts, total = [], 0
        for array in arrays:
            starts.append(total)
            total += -(-array.size // step) * step
        self.shapes = [tuple(a.shape) for a in arrays]
        self.flats: list[Array] = []
        self.views: list[list[Array]] = []
        for name in devices:
            backend = links.backends[name]
            flat = backend.empty((max(total, 2),), dtype)
            with backend.scope():
                flat.data.memset_async(0, flat.nbytes)  # gaps are added, too
                parts = [
                    flat[start : start + array.size].reshape(array.shape)
                    for start, array in zip(starts, arrays, strict=True)
                ]
            self.flats.append(flat)
            self.views.append(parts)

    def fits(self, arrays: Sequence[Array]) -> bool:
        """Whether tensors have the shapes that it was made for."""
        return self.shapes == [tuple(a.shape) for a in arrays]

    def holds(self, rows: Sequence[Sequence[Array]]) -> bool:
        """Whether these tensors were written here."""
        pairs = zip(rows, self.views, strict=True)
        return all(len(r) == len(v) and all(map(is_, r, v)) for r, v in pairs)

    def fill(self, links: Links, devices: Sequence[str], rows: Sequence[Sequence[Array]]) -> None:
        """Copy each device's tensors into its memory, but for those that are there already."""
        for name, views, row in zip(devices, self.views, rows, strict=True):
            with links.backends[name].scope():
                for view, array in zip(views, row, strict=True):
                    if array.nbytes and array.data.ptr != view.data.ptr:
                        view.data.copy_from_device_async(array.data, array.nbytes)
