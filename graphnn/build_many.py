"""Programs over several GPUs: one program for each GPU and stage, and what they exchange.

Loaded when the first one is made.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from graphnn.build import Compiled, compile_graph
from graphnn.build_device import DeviceCompiled
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.sizes import Size, symbol
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.passes.decompose import Decompose
from graphnn.compiler.passes.gradient import ExpandGradients
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.passes.place import Placement
from graphnn.compiler.passes.spread import Exchange, Part, Reduction, Spread, spread
from graphnn.compiler.trace import Trace
from graphnn.runtime import devices
from graphnn.runtime.collectives import Arena, Links

Array = Any  # a CuPy array
GPU = "/device:GPU:"


class PartCompiled(DeviceCompiled):
    """The program of one GPU in one stage. Its Variables are written by another one, as a rule, so
    it keeps no narrow copies of them."""

    narrows = False


class _Step:
    """A part with its program: where its inputs come from and its results go."""

    def __init__(self, part: Part, program: Compiled, backend: Any) -> None:
        self.part, self.program, self.backend = part, program, backend


class ManyCompiled(Compiled):
    """A graph over several GPUs, compiled; used like a program for one.

    device: the first GPU, where the results are. homes: devices of inputs by position (Variables
    have a copy on each). cut: the parts and exchanges. programs: those of the parts, in order.
    """

    def __init__(
        self,
        traced: Graph,
        pipeline: Pipeline,
        target: Target,
        device: str,
        homes: Mapping[int, tuple[str, ...]],
    ) -> None:
        self.traced, self.pipeline, self.target, self.device = traced, pipeline, target, device
        first = Pipeline((Decompose(keep_rules=True), ExpandGradients()), self.pipeline.callback)
        self.graph = first.run(self.traced)
        self.cut: Spread = spread(self.graph, device, homes)
        self.backends = {name: devices.named(name) for name in self.cut.devices}
        self.links = Links(self.backends, add_on)
        self.stages: list[list[_Step]] = []
        for parts in self.cut.stages:
            self.stages.append([self._compiled(part) for part in parts])
        self.programs = [step.program for steps in self.stages for step in steps]
        self.built = self.executable = None
        self.narrow = None
        self._bound: dict[int, Mapping[str, Array]] = {}
        self._arenas: dict[tuple[int, int], Arena] = {}
        self._arrived: dict[int, Array] = {}  # memory for what is sent; nobody else sees it
        self._constants: dict[int, tuple[Array, Array]] = {}
        self._empty: dict[tuple[str, int], Array] = {}
        self._sizes = _symbol_sources(self.graph)

    def _compiled(self, part: Part) -> _Step:
        backend = self.backends[part.device]
        name = f"{GPU}{backend.index}"
        program = PartCompiled(part.graph, self.pipeline, self.target, name, backend.index)
        return _Step(part, program, backend)

    @property
    def placement(self) -> Placement | None:
        """None: each program has its own."""
        return None

    @property
    def sizes(self) -> dict[str, int]:
        """Values of the symbolic sizes in the newest run of the first program."""
        return dict(self.programs[0].executable.sizes) if self.programs else {}

    def wanted_at(self, position: int) -> str:
        """The device on which an input is to be given."""
        return next(iter(self.cut.given[position]))

    # ---- Variables -------------------------------------------------------------------------

    def bind(self, position: int, array: Array) -> None:
        """Fix the memory of an input that has one device."""
        self.bind_copies(position, {self.wanted_at(position): array})

    def bind_copies(self, position: int, arrays: Mapping[str, Array]) -> None:
        """Fix the memory of an input on each of its devices, by their names."""
        self._bound[position] = dict(arrays)
        for steps in self.stages:
            for step in steps:
                for own, whole in step.part.variables.items():
                    if whole == position:
                        step.program.bind(own, arrays[step.part.device])

    # ---- running ---------------------------------------------------------------------------

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """Outputs for the inputs in order, on the first GPU; None stands for a bound input.

        Each array is on the device that `wanted_at` says. Returns before the results are there.
        """
        values: list[Any] = [None] * self.cut.count
        for position, (array, places) in enumerate(zip(arrays, self.cut.given, strict=True)):
            for device, key in places.items():
                if array is None:
                    values[key] = self._bound[position][device]
                else:
                    values[key] = devices.move(array, self.backends[device])
        sizes = {
            name: int(self._given(arrays, position).shape[axis])
            for name, (position, axis) in self._sizes.items()
        }
        for number, (exchange, steps) in enumerate(
            zip(self.cut.exchanges, self.stages, strict=True)
        ):
            self._exchange(number, exchange, values)
            for step in steps:
                self._run(step, values, sizes)
        self._join()
        return [values[key] for key in self.cut.outputs]

    def _given(self, arrays: Sequence[Array | None], position: int) -> Array:
        array = arrays[position]
        return next(iter(self._bound[position].values())) if array is None else array

    def _run(self, step: _Step, values: list[Any], sizes: Mapping[str, int]) -> None:
        part = step.part
        given = [None if key is None else values[key] for key in part.inputs]
        given += [self._sized(step, size, sizes) for size in part.sizes]
        with step.backend.scope():
            found = step.program.run(given)
        for key, array in zip(part.outputs, found, strict=True):
            values[key] = array

    def _sized(self, step: _Step, size: Size, sizes: Mapping[str, int]) -> Array:
        """An empty array that tells a program a size."""
        key = step.part.device, sizes[str(size)]
        if key not in self._empty:
            if len(self._empty) > 256:
                self._empty.clear()
            self._empty[key] = step.backend.empty((key[1], 0), np.dtype(np.bool_))
        return self._empty[key]

    def _exchange(self, number: int, exchange: Exchange, values: list[Any]) -> None:
        sums = []
        for place, reduction in enumerate(exchange.reductions):
            arena = self._filled((number, place), reduction, values)
            sums.append((reduction.devices, arena.flats))
        if sums:
            self.links.add(sums)
        transfers = exchange.transfers
        news = [t for t in transfers if not (t.constant and self._known(t.source, values))]
        source = self._device_of
        moves = [(values[t.source], source(t.source), t.device) for t in news]
        into = [None if t.constant else self._arrived.get(t.target) for t in news]
        for transfer, array in zip(
            news, self.links.send(moves, into) if moves else (), strict=True
        ):
            values[transfer.target] = self._arrived[transfer.target] = array
            if transfer.constant:
                self._constants[transfer.target] = (values[transfer.source], array)
        for transfer in transfers:
            if transfer.constant:
                values[transfer.target] = self._constants[transfer.target][1]

    def _known(self, key: int, values: list[Any]) -> bool:
        targets = [t for e in self.cut.exchanges for t in e.transfers if t.source == key]
        kept = [self._constants.get(t.target) for t in targets]
        return all(k is not None and k[0] is values[key] for k in kept)

    @functools.cached_property
    def _owners(self) -> dict[int, str]:
        """The device of each value that is sent."""
        found = {key: device for places in self.cut.given for device, key in places.items()}
        for parts in self.cut.stages:
            found |= {key: part.device for part in parts for key in part.outputs}
        for exchange in self.cut.exchanges:
            for reduction in exchange.reductions:
                for device, row in zip(reduction.devices, reduction.outputs, strict=True):
                    found |= dict.fromkeys(row, device)
        return found

    @functools.cached_property
    def _uses(self) -> Counter[int]:
        """How often each value is read, by parts, in exchanges and as a result."""
        found = Counter(self.cut.outputs)
        for parts in self.cut.stages:
            for part in parts:
                found.update(key for key in part.inputs if key is not None)
        for exchange in self.cut.exchanges:
            found.update(t.source for t in exchange.transfers)
            for reduction in exchange.reductions:
                for row in reduction.inputs:
                    found.update(row)
        return found

    def _device_of(self, key: int) -> str:
        return self._owners[key]

    def _filled(self, key: tuple[int, int], reduction: Reduction, values: list[Any]) -> Arena:
        """The arena of a reduction, with its tensors; `values` gets where the sums will be."""
        rows = [[values[k] for k in row] for row in reduction.inputs]
        arena = self._arenas.get(key)
        if arena is None or not (arena.holds(rows) or arena.fits(rows[0])):
            first = arena is None
            arena = self._arenas[key] = Arena(self.links, reduction.devices, rows[0])
            if first:
                self._fix_results(reduction, arena)
        if not arena.holds(rows):
            arena.fill(self.links, reduction.devices, rows)
        for keys, views in zip(reduction.outputs, arena.views, strict=True):
            for place, view in zip(keys, views, strict=True):
                values[place] = view
        return arena

    def _fix_results(self, reduction: Reduction, arena: Arena) -> None:
        """Let programs write what is added up where it is added up, from the next run on. The sum
        overwrites it, so nobody else may read it."""
        views = {
            key: view
            for keys, own in zip(reduction.inputs, arena.views, strict=True)
            for key, view in zip(keys, own, strict=True)
            if self._uses[key] == 1
        }
        for step in (s for steps in self.stages for s in steps):
            for position, key in enumerate(step.part.outputs):
                if key in views:
                    step.program.executable.fix(position, views[key])

    def _join(self) -> None:
        """Whoever waits for the first GPU waits for all, and sees the checks that failed."""
        first, *others = self.cut.devices
        home = self.backends[first].driver
        own = {program.executable for program in self.programs}
        for name in others:
            self.links.follow(first, name)
            there = self.backends[name].driver
            if there is not home and there.pending:
                stream = home.stream
                failing = [i for i in there.pending if i.owner in own]
                home.pending.update(dict.fromkeys(failing, stream))

    def lines(self) -> list[str]:
        """What runs where and what is exchanged, one line each, in the order of a run."""
        found = []
        for number, (exchange, steps) in enumerate(
            zip(self.cut.exchanges, self.stages, strict=True)
        ):
            for reduction in exchange.reductions:
                count, names = len(reduction.inputs[0]), ", ".join(reduction.devices)
                found.append(f"sum      {count} tensors of {reduction.dtype} over {names}")
            for transfer in exchange.transfers:
                found.append(f"copy     {self._device_of(transfer.source)} -> {transfer.device}")
            for step in steps:
                nodes = len(step.part.graph.nodes) - len(step.part.graph.inputs)
                found.append(f"stage {number}  {step.part.device}: {nodes} nodes")
        return found

    def wait(self) -> None:
        """Wait for the runs on the current streams; raises the error of a check that failed."""
        for program in self.programs:
            program.wait()

    def times(self, arrays: Sequence[Array | None], repeats: int = 10) -> list[float]:
        """Raises TypeError: the steps of several GPUs have no one order."""
        raise TypeError("a program over several GPUs has no times of single steps")


def _symbol_sources(graph: Graph) -> dict[str, tuple[int, int]]:
    """An input and an axis that tell each symbolic size."""
    found: dict[str, tuple[int, int]] = {}
    for position, node in enumerate(graph.inputs):
        for axis, size in enumerate(node.shape):
            if isinstance(size, Size) and str(size) in graph.symbols:
                found.setdefault(str(size), (position, axis))
    return found


def add_on(backend: Any, a: Array, b: Array) -> Array:
    """The sum of two flat arrays of at least two elements on a GPU, by the op's own program."""
    known = _additions.setdefault(backend, {})
    if a.dtype not in known:
        known[a.dtype] = _addition(a.dtype, backend.name)
    (total,) = known[a.dtype].run([a, b])
    return total


_additions: WeakKeyDictionary[Any, dict[Any, Compiled]] = WeakKeyDictionary()


def _addition(dtype: Any, device: str) -> Compiled:
    trace = Trace("add")
    type = TensorType((symbol("n"),), dtype)
    a, b = trace.argument("a", type), trace.argument("b", type)
    return compile_graph(trace.finish([Ops(trace).add(a, b)]), device=device)
