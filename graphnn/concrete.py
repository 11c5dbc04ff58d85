"""One trace of a `@function`, compiled: a graph, what it reads from outside, and how to call it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.apply import apply, convert, node_of
from graphnn.build import GPU, Compiled, passes_for
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ops.call import Call, backward_graph
from graphnn.compiler.passes.gradient import connected
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.trace import Trace
from graphnn.draws import Draws, RandomState
from graphnn.placement import bring, compile_for
from graphnn.runtime import devices
from graphnn.runtime.cuda import memory as cuda_memory
from graphnn.runtime.devices import dense
from graphnn.runtime.errors import ArgumentError, hide_own_frames
from graphnn.runtime.later import Later
from graphnn.signature import Signature, TensorLeaf, TensorSpec, Walk
from graphnn.state import state
from graphnn.tensor import Operand, Tensor
from graphnn.variable import EPOCH, Variable

Pack = Callable[[list[Any]], Any]

_inspection = Later("graphnn.inspection")


class Slot:
    """Stands in a result's structure for an output of the graph."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Results:
    """Turns what the Python function returned into graph outputs, and arrays back into that."""

    def __init__(self, result: Any, trace: Trace) -> None:
        self.nodes: list[Node] = []
        self.trace = trace
        self.template = self._slots(result)

    def _slots(self, value: Any) -> Any:
        if isinstance(value, Operand):
            return self._slot(value._tensor())
        if isinstance(value, bool | int | float | np.ndarray | np.generic | Size):
            return self._slot(convert(value))
        if tree.is_leaf(value):
            return value
        return tree.rebuild(value, [self._slots(child) for _, child in tree.children(value)])

    def _slot(self, tensor: Tensor) -> Slot:
        self.nodes.append(node_of(tensor, self.trace))
        return Slot(len(self.nodes) - 1)

    def pack(self) -> Pack:
        """The function that puts tensors in the places of the result."""
        template = self.template
        if isinstance(template, Slot):
            return lambda values: values[0]
        if type(template) in (tuple, list) and all(isinstance(v, Slot) for v in template):
            return type(template)
        return lambda values: fill(template, values)


def fill(template: Any, values: Sequence[Any]) -> Any:
    """The structure with a value in each slot."""
    if isinstance(template, Slot):
        return values[template.position]
    if tree.is_leaf(template):
        return template
    return tree.rebuild(template, [fill(child, values) for _, child in tree.children(template)])


class PureProgram:
    """A graph as a function without side effects: new values of Variables are further outputs.

    backend: the device that it runs on.
    """

    def __init__(self, graph: Graph, backend: Any = devices.host) -> None:
        outputs = (*graph.outputs, *(value for _, value in graph.updates))
        self.graph = Graph(graph.name, graph.inputs, outputs, (), graph.effects)
        self.backend = backend
        self._lock = threading.Lock()
        self._executable: Compiled | None = None
        self._backward: PureProgram | None = None
        self._reached: list[bool] | None = None

    def evaluate(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Arrays of the outputs."""
        with self._lock:
            if self._executable is None:
                self._executable = compile_for(self.graph, self.backend)
            return tuple(self._executable.run(list(map(dense, arrays))))

    def backward(self) -> PureProgram:
        """The program of the gradients."""
        with self._lock:
            if self._backward is None:
                self._backward = PureProgram(backward_graph(self.graph), self.backend)
            return self._backward

    def reached(self) -> list[bool]:
        """For each float input, whether a gradient of the outputs reaches it."""
        if self._reached is None:
            outputs = self.backward().graph.outputs
            node = outputs[0].inputs[0] if outputs else None
            self._reached = [] if node is None else connected(node.op, node.inputs)  # type: ignore[arg-type]
        return self._reached


class ConcreteFunction:
    """A `@function` for one signature. Made by `get_concrete_function`; call it with tensors.

    graph: as traced. signature: of the arguments, with symbolic sizes. captures: eager tensors
    that it reads, by reference. variables: Variables that it reads or assigns. device: name of the
    device that it runs on.
    """

    def __init__(
        self,
        graph: Graph,
        trace: Trace,
        signature: Signature,
        pack: Pack,
        backend: Any = None,
    ) -> None:
        self.name, self.graph, self.signature = graph.name, graph, signature
        self.captures: list[Tensor] = [c.source for c in trace.captures.values()]
        self.variables: list[Variable] = [c.source for c in trace.variables.values()]
        assigned = {node for node, _ in graph.updates}
        nodes = [c.node for c in trace.variables.values()]
        self._updated = [v for v, n in zip(self.variables, nodes, strict=True) if n in assigned]
        self._outside = bool(self.captures or self.variables)
        self._backend = _home(backend, [*self.captures, *self.variables])
        # With the copies that a strategy keeps on other devices.
        self._changed = [c for v in self._updated for c in (v, *getattr(v, "copies", ())[1:])]
        self._guests: list[Guest] = []
        self._homes: dict[int, tuple[str, ...]] = {}  # of Variables, in a program on several GPUs
        self._wanted: dict[int, Any] = {}  # where such a program wants other inputs
        self._arguments = len(graph.inputs) - len(nodes) - len(self.captures)
        self._copied: dict[int, Any] = {}  # captured tensors of other devices, by position
        self._bound = (None,) * len(self.variables)  # the program knows their buffers
        first = len(graph.inputs) - len(nodes)
        inputs = enumerate(self.variables, first)
        self._random = [(i, v) for i, v in inputs if isinstance(v, RandomState)]
        self._pack = pack
        self._lock = threading.Lock()
        self._executable: Compiled | None = None
        self._epoch = -1
        self._narrowed: list[tuple[int, Variable]] = []  # with copies in a narrower dtype
        self._seen: list[Any] = []  # their versions when the copies were right
        self._pure: PureProgram | None = None

    # ---- running ---------------------------------------------------------------------

    def run(self, arrays: list[Any]) -> Any:
        """The results for arrays of the tensor arguments, which fit the signature."""
        with self._lock:
            if self._epoch != EPOCH[0]:
                self._bind()
            if devices.used:
                return self._pack(list(map(Tensor, self._run_placed(arrays))))
            if self._narrowed:
                self._renew(self._stale())
            version = object()  # tapes must not take what they have read for the new value
            for variable in self._changed:
                variable._version = version
                if variable._handles and variable._detach_reads():
                    arrays = _apart(arrays, variable)
            if self._outside:
                arrays = [*arrays, *[dense(t._value) for t in self.captures], *self._bound]
            if self._random and state.draws is not None:
                values = self._run_with(state.draws, arrays)
            else:
                values = self._executable.run(arrays)  # type: ignore[union-attr]
            if self._narrowed:
                self._seen = [v._version for _, v in self._narrowed]
        return self._pack(list(map(Tensor, values)))

    def _stale(self) -> list[int]:
        """Inputs whose narrow copies are out of date; after a failed run all are."""
        seen, self._seen = self._seen or [None] * len(self._narrowed), []
        pairs = zip(self._narrowed, seen, strict=True)
        return [p for (p, variable), version in pairs if variable._version is not version]

    def _renew(self, positions: list[int]) -> None:
        for position in positions:
            self._executable.narrow.renew(position)  # type: ignore[union-attr]

    def _bind(self) -> None:
        """Compile at the first call, and tell the program where the Variables' buffers are."""
        if self._executable is None:
            self._compile()
        if devices.used:
            self._bind_guests()
        epoch = EPOCH[0]
        first = len(self.graph.inputs) - len(self.variables)
        guests = {guest.position: guest.own for guest in self._guests}
        for position, variable in enumerate(self.variables, first):
            self._bind_variable(position, variable, guests.get(position))
        narrow = self._executable.narrow  # type: ignore[union-attr]
        sources = narrow.sources if narrow is not None else ()
        self._narrowed = [(p, v) for p, v in enumerate(self.variables, first) if p in sources]
        self._seen = []
        self._epoch = epoch

    def _bind_variable(self, position: int, variable: Variable, guest: Any) -> None:
        program: Any = self._executable
        if guest is not None:
            program.bind(position, guest)
        elif position in self._homes:
            program.bind_copies(position, variable._places())
        else:
            program.bind(position, variable._on(self._backend))

    # ---- running where a GPU is in use -------------------------------------------------

    @property
    def device(self) -> str:
        """Name of the device that it runs on."""
        return str(self._backend.name)

    def _compile(self) -> None:
        """Make the program. On several GPUs each Variable is used where it is, or on each GPU that
        has a copy, and arguments are wanted where they are read."""
        first = len(self.graph.inputs) - len(self.variables)
        if devices.used:
            gpus = {n.device for n in self.graph.nodes if n.device.startswith(GPU)}
            if len(gpus) > 1 or any(len(v._places()) > 1 for v in self._updated):
                for position, variable in enumerate(self.variables, first):
                    if devices.is_device_array(variable._buffer):
                        self._homes[position] = tuple(variable._places())
        self._executable = compile_for(self.graph, self._backend, self._homes)
        wanted_at = getattr(self._executable, "wanted_at", None)
        if wanted_at is not None:
            self._wanted = {p: devices.named(wanted_at(p)) for p in range(first)}
            if self._backend is devices.host:
                self._backend = devices.named(self._executable.device)

    def _bind_guests(self) -> None:
        """Memory for Variables of other devices; random states move here for good."""
        self._guests = []
        first = len(self.graph.inputs) - len(self.variables)
        for position, variable in enumerate(self.variables, first):
            if devices.backend_of(variable._on(self._backend)) is self._backend:
                continue
            if position in self._homes:
                continue
            if isinstance(variable, RandomState) and self._backend is not devices.host:
                variable._move(self._backend)
                continue
            own = self._backend.empty(variable._buffer.shape, variable._buffer.dtype)
            updated = any(variable is v for v in self._updated)
            self._guests.append(Guest(position, variable, own, updated))

    def _run_placed(self, arrays: list[Any]) -> list[Any]:
        """Arrays of the results: what lies on other devices is copied here, and the copy noted."""
        backend, name = self._backend, self.name
        stale = self._stale() if self._narrowed else []
        version = object()
        for variable in self._changed:
            variable._version = version
            if variable._handles and variable._detach_reads():
                arrays = _apart(arrays, variable)
        given = [
            a
            if devices.backend_of(a) is (wanted := self._wanted.get(i, backend))
            else bring(a, wanted, f"argument {i} of {name}")
            for i, a in enumerate(arrays)
        ]
        if self._outside:
            given += [self._captured(i, t) for i, t in enumerate(self.captures)]
            given += self._bound
        for guest in self._guests:
            guest.enter(name)
        try:
            with backend.scope():
                self._renew(stale)
                values = self._run_here(given)
        except Exception as error:
            if backend is devices.host or not backend.is_exhausted(error):
                raise
            raise cuda_memory.exhausted(backend, error, f"the compiled function {name}") from None
        if self._narrowed:
            self._seen = [v._version for _, v in self._narrowed]
        for guest in self._guests:
            guest.leave(name)
        for value in values:
            if value.nbytes >= cuda_memory.LARGE and type(value) is not np.ndarray:
                cuda_memory.note(value, f"a result of {name}")
        return values

    def _run_here(self, arrays: list[Any]) -> list[Any]:
        if self._random and state.draws is not None:
            return self._run_with(state.draws, arrays)  # type: ignore[no-any-return]
        return self._executable.run(arrays)  # type: ignore[union-attr]

    def _captured(self, position: int, tensor: Tensor) -> Any:
        """The array of a captured tensor here; it cannot change, so one copy serves all calls."""
        value = tensor._value
        wanted = self._wanted.get(self._arguments + position, self._backend)
        if devices.backend_of(value) is wanted:
            return dense(value)
        if position not in self._copied:
            what = f"a tensor that {self.name} captures"
            self._copied[position] = dense(bring(value, wanted, what))
        return self._copied[position]

    def _run_with(self, draws: Draws, arrays: list[Any]) -> Any:
        """Run with random states that belong to a pipeline's element."""
        program: Any = self._executable
        here = self._backend
        lent = [
            (i, v, devices.move(draws.words(v), here)) for i, v in self._random if draws.covers(v)
        ]
        guests = {guest.position: guest.own for guest in self._guests}
        for position, _, words in lent:
            program.bind(position, words)
        try:
            return program.run(arrays)
        finally:
            for position, random_state, words in lent:
                program.bind(position, guests.get(position, random_state._buffer))
                draws.goes_on(random_state, devices.on_host(words))

    def run_recorded(self, tensors: Sequence[Tensor]) -> Any:
        """The results as the recording tapes see them: one step, whose gradient is compiled."""
        if not self._is_watched(tensors):
            return self.run([dense(t._value) for t in tensors])
        if self._pure is None:
            self._pure = PureProgram(self.graph, self._backend)
        reads = [_read(v) for v in self.variables]
        found = apply(Call(program=self._pure), *tensors, *self.captures, *reads)
        count = len(self.graph.outputs)
        for variable, value in zip(self._updated, found[count:], strict=True):
            _write(variable, value)
        return self._pack(list(found[:count]))

    def _is_watched(self, tensors: Sequence[Tensor]) -> bool:
        return any(
            any(id(t) in tape.watched for t in (*tensors, *self.captures))
            or any(map(tape.watches, self.variables))
            for tape in state.tapes
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The results for tensors in the order of the signature; other arguments are ignored.

        Raises ArgumentError for tensors that do not fit.
        """
        walk = Walk()
        for position, value in enumerate(args):
            walk.visit(f"{position}", value)
        for name, value in kwargs.items():
            walk.visit(name, value)
        tensors = walk.tensors
        shapes = tuple(tuple(t.shape) for t in tensors)
        if [t.dtype for t in tensors] != self._dtypes() or not self.accepts(shapes):
            raise ArgumentError(
                f"the concrete function {self.name}",
                received=", ".join(str(v) for _, v in walk.leaves),
                expected=", ".join(self.signature.lines().values()),
                fix="call the @function itself, which traces again where that is needed",
            )
        if state.busy:
            return self.run_recorded(walk.owned())
        try:
            return self.run([dense(t._value) for t in tensors])
        except Exception as error:
            raise hide_own_frames(error)  # noqa: B904

    def _dtypes(self) -> list[Any]:
        return [v.dtype for _, v in self.signature.leaves if isinstance(v, TensorLeaf)]

    # ---- matching --------------------------------------------------------------------

    def accepts(self, shapes: Sequence[tuple[Any, ...]]) -> bool:
        """Whether arguments with these shapes are served: a symbol is one size of at least 2.

        None is any such size, as in a TensorSpec.
        """
        known: dict[Size, Any] = {}
        for own, shape in zip(self.signature.shapes, shapes, strict=True):
            if len(own) != len(shape):
                return False
            for size, extent in zip(own, shape, strict=True):
                if not isinstance(size, Size):
                    fits = size == extent
                elif extent is None:
                    fits = True
                else:
                    fits = extent >= 2 and known.setdefault(size, extent) == extent
                if not fits:
                    return False
        return True

    # ---- looking inside --------------------------------------------------------------

    @property
    def inputs(self) -> list[TensorSpec]:
        """Specs of the tensor arguments; None for symbolic sizes."""
        return [
            TensorSpec([None if isinstance(s, Size) else s for s in v.shape], v.dtype, path)
            for path, v in self.signature.leaves
            if isinstance(v, TensorLeaf)
        ]

    @property
    def outputs(self) -> list[TensorSpec]:
        """Specs of the tensors in the result, in order."""
        return [
            TensorSpec([None if isinstance(s, Size) else s for s in o.shape], o.dtype)
            for o in self.graph.outputs
        ]

    @property
    def trainable_variables(self) -> tuple[Variable, ...]:
        """The trainable ones of the Variables."""
        return tuple(v for v in self.variables if v.trainable)

    def stages(self) -> list[tuple[str, Graph]]:
        """("trace", graph as traced), then the graph after each pass; computed when asked for."""
        return Pipeline(passes_for(self.device)).stages(self.graph)

    @property
    def compiled(self) -> Compiled:
        """The program; compiled now if it has not run yet."""
        with self._lock:
            if self._executable is None:
                self._compile()
            return self._executable  # type: ignore[return-value]

    def dump(
        self,
        stage: str = "summary",
        format: str = "text",
        *,
        device: str | None = None,
        **options: Any,
    ) -> str:
        """What became of this trace, as text; the arguments are those of `fn.dump`."""
        parts = getattr(self.compiled, "programs", ()) if device is None else ()
        if parts:
            found = [_inspection.inspect_program(p) for p in parts]
            texts = [_inspection.text_of(f, stage, format, **options) for f in found]
            return "\n".join([*self.compiled.lines(), *texts])  # type: ignore[attr-defined]
        if device is None:
            found = _inspection.inspect_program(self.compiled)
        else:
            sizes = self._executable.executable.sizes if self._executable else {}
            found = _inspection.inspect_for(self.graph, device, sizes)
        return str(_inspection.text_of(found, stage, format, **options))

    def __repr__(self) -> str:
        leaves = ", ".join(f"{path}: {text}" for path, text in self.signature.lines().items())
        return f"<ConcreteFunction {self.name}({leaves})>"


def _read(variable: Variable) -> Tensor:
    """The value that a recorded run begins with."""
    draws = state.draws
    if draws is None or not isinstance(variable, RandomState) or not draws.covers(variable):
        return variable._tensor()
    return Tensor(draws.words(variable))


def _write(variable: Variable, value: Tensor) -> None:
    """Keep the value that a recorded run ends with."""
    draws = state.draws
    if draws is None or not isinstance(variable, RandomState) or not draws.covers(variable):
        variable.assign(value)
    else:
        draws.goes_on(variable, value.numpy())


def _apart(arrays: list[Any], variable: Variable) -> list[Any]:
    """Arguments, copied where they are the buffer that is about to be overwritten."""
    buffer = variable._buffer
    return [devices.duplicate(a) if devices.share_memory(a, buffer) else a for a in arrays]


def _home(backend: Any, outside: Sequence[Any]) -> Any:
    """The device of a function: the one it was traced for; if that is None, a GPU on which it finds
    a tensor or Variable, else the host."""
    if backend is not None or not devices.used:
        return backend or devices.host
    arrays = [o._body() for o in outside]
    found = (devices.backend_of(a) for a in arrays if devices.is_device_array(a))
    return next(found, devices.host)


class Guest:
    """A Variable of another device in a program: copied in before a run, and back if it changed."""

    def __init__(self, position: int, variable: Variable, own: Any, updated: bool) -> None:
        self.position, self.variable, self.own, self.updated = position, variable, own, updated

    def enter(self, name: str) -> None:
        """Bring the value to the program. name: of the function, for the report."""
        variable, here = self.variable, devices.backend_of(self.own)
        value = bring(variable._buffer, here, f"Variable {variable.name!r} for {name}")
        here.copy(self.own, value)

    def leave(self, name: str) -> None:
        """Take a new value back."""
        if self.updated:
            variable, home = self.variable, devices.backend_of(self.variable._buffer)
            value = bring(self.own, home, f"the new value of Variable {variable.name!r} of {name}")
            home.copy(variable._buffer, value)
