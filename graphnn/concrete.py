"""One trace of a `@function`, compiled: a graph, what it reads from outside, and how to call it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.apply import apply, convert, node_of
from graphnn.build import Compiled, compile_graph
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ops.call import Call, backward_graph
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.trace import Trace
from graphnn.inspection import dump
from graphnn.runtime.errors import ArgumentError, hide_own_frames
from graphnn.signature import Signature, TensorLeaf, TensorSpec, Walk
from graphnn.state import state
from graphnn.tensor import Operand, Tensor
from graphnn.variable import EPOCH, Variable

Pack = Callable[[list[Any]], Any]


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


def dense(array: Any) -> Any:
    """The array itself if it is row-major without gaps, else a copy that is."""
    return array if array.flags.c_contiguous else np.array(array, order="C")


class PureProgram:
    """A graph as a function without side effects: new values of Variables are further outputs."""

    def __init__(self, graph: Graph) -> None:
        outputs = (*graph.outputs, *(value for _, value in graph.updates))
        self.graph = Graph(graph.name, graph.inputs, outputs, (), graph.effects)
        self._lock = threading.Lock()
        self._executable: Compiled | None = None
        self._backward: PureProgram | None = None

    def evaluate(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Arrays of the outputs."""
        with self._lock:
            if self._executable is None:
                self._executable = compile_graph(self.graph)
            return tuple(self._executable.run(list(map(dense, arrays))))

    def backward(self) -> PureProgram:
        """The program of the gradients."""
        with self._lock:
            if self._backward is None:
                self._backward = PureProgram(backward_graph(self.graph))
            return self._backward


class ConcreteFunction:
    """A `@function` for one signature. Made by `get_concrete_function`; call it with tensors.

    graph: as traced. signature: of the arguments, with symbolic sizes. captures: eager tensors
    that it reads, by reference. variables: Variables that it reads or assigns.
    """

    def __init__(self, graph: Graph, trace: Trace, signature: Signature, pack: Pack) -> None:
        self.name, self.graph, self.signature = graph.name, graph, signature
        self.captures: list[Tensor] = [c.source for c in trace.captures.values()]
        self.variables: list[Variable] = [c.source for c in trace.variables.values()]
        assigned = {node for node, _ in graph.updates}
        nodes = [c.node for c in trace.variables.values()]
        self._updated = [v for v, n in zip(self.variables, nodes, strict=True) if n in assigned]
        self._outside = bool(self.captures or self.variables)
        self._bound = (None,) * len(self.variables)  # the program knows their buffers
        self._pack = pack
        self._lock = threading.Lock()
        self._executable: Compiled | None = None
        self._epoch = -1
        self._pure: PureProgram | None = None

    # ---- running ---------------------------------------------------------------------

    def run(self, arrays: list[Any]) -> Any:
        """The results for arrays of the tensor arguments, which fit the signature."""
        with self._lock:
            if self._epoch != EPOCH[0]:
                self._bind()
            version = object()  # tapes must not take what they have read for the new value
            for variable in self._updated:
                variable._version = version
                if variable._handles and variable._detach_reads():
                    arrays = _apart(arrays, variable)
            if self._outside:
                arrays = [*arrays, *[dense(t._value) for t in self.captures], *self._bound]
            values = self._executable.run(arrays)  # type: ignore[union-attr]
        return self._pack(list(map(Tensor, values)))

    def _bind(self) -> None:
        """Compile at the first call, and tell the program where the Variables' buffers are."""
        epoch = EPOCH[0]
        if self._executable is None:
            self._executable = compile_graph(self.graph)
        first = len(self.graph.inputs) - len(self.variables)
        for position, variable in enumerate(self.variables, first):
            self._executable.bind(position, variable._buffer)
        self._epoch = epoch

    def run_recorded(self, tensors: Sequence[Tensor]) -> Any:
        """The results as the recording tapes see them: one step, whose gradient is compiled."""
        if not self._is_watched(tensors):
            return self.run([dense(t._value) for t in tensors])
        if self._pure is None:
            self._pure = PureProgram(self.graph)
        reads = [v._tensor() for v in self.variables]
        found = apply(Call(program=self._pure), *tensors, *self.captures, *reads)
        count = len(self.graph.outputs)
        for variable, value in zip(self._updated, found[count:], strict=True):
            variable.assign(value)
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
        return Pipeline().stages(self.graph)

    @property
    def compiled(self) -> Compiled:
        """The program; compiled now if it has not run yet."""
        with self._lock:
            if self._executable is None:
                self._executable = compile_graph(self.graph)
            return self._executable

    def dump(self, stage: str = "summary", format: str = "text", **options: Any) -> str:
        """What became of this trace, as text; the arguments are those of `fn.dump`."""
        return dump(self.compiled, stage, format, **options)

    def __repr__(self) -> str:
        leaves = ", ".join(f"{path}: {text}" for path, text in self.signature.lines().items())
        return f"<ConcreteFunction {self.name}({leaves})>"


def _apart(arrays: list[Any], variable: Variable) -> list[Any]:
    """Arguments, copied where they are the buffer that is about to be overwritten."""
    buffer = variable._buffer
    return [np.array(a) if np.may_share_memory(a, buffer) else a for a in arrays]
