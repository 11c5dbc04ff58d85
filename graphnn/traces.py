"""The traces of one Python function: which one serves a call, and how a new one is made."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphnn import tree
from graphnn.apply import from_node
from graphnn.compiler.ir.sizes import Size, symbol
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.trace import WISH, Trace
from graphnn.concrete import ConcreteFunction, Results
from graphnn.logical import on_backend
from graphnn.placement import backend_now
from graphnn.retrace import Retrace, nearest
from graphnn.runtime import devices
from graphnn.runtime.devices import dense
from graphnn.runtime.errors import (
    ArgumentError,
    ShapeError,
    StateError,
    TraceError,
    user_loc,
)
from graphnn.signature import (
    FLAGS,
    NotQuick,
    Parameters,
    Signature,
    TensorLeaf,
    TensorSpec,
    Walk,
    check_spec,
    is_tensor_leaf,
    is_value,
    quick_key,
)
from graphnn.state import mode, on_create_variable, state

QUICK_LIMIT = 4096  # remembered exact calls; more would be a leak, not a cache
SIZE_ERRORS = (ShapeError, TraceError, ArgumentError)  # what a symbolic size can be the cause of


class _Eager:
    """Whether functions run as plain Python."""

    on = False


EAGER = _Eager()

# ---- tracing --------------------------------------------------------------------------------


@dataclass
class FunctionTrace(Trace):
    """A trace of a `@function`. created: Variables made on the way; may_create: whether any may."""

    may_create: bool = True
    created: list[Any] = field(default_factory=list)


def _on_create(variable: Any) -> None:
    trace = state.trace
    if not isinstance(trace, FunctionTrace):
        return
    if not trace.may_create:
        raise StateError(
            f"creation of a Variable in {trace.name}",
            received="a Variable created on a call after the first",
            expected="Variables that are created once, on the first call",
            fix="create it outside of the function, or keep it and create it only if it is None",
        )
    trace.created.append(variable)


on_create_variable.append(_on_create)


@dataclass
class Group:
    """Calls that differ in sizes only. open: (tensor, axis) whose size has changed.

    general: traces with symbolic sizes. exact: which trace serves a tuple of shapes. rigid: why
    no size can be symbolic, if that has been found out.
    """

    exact: dict[Any, ConcreteFunction] = field(default_factory=dict)
    general: list[ConcreteFunction] = field(default_factory=list)
    seen: list[tuple[tuple[Any, ...], ...]] = field(default_factory=list)
    open: set[tuple[int, int]] = field(default_factory=set)
    rigid: str = ""

    def find(self, shapes: tuple[tuple[Any, ...], ...]) -> ConcreteFunction | None:
        """The trace that serves these shapes."""
        found = self.exact.get(shapes)
        if found is None:
            found = next((c for c in self.general if c.accepts(shapes)), None)
            if found is not None and len(self.exact) < QUICK_LIMIT:
                self.exact[shapes] = found
        return found

    def widen(self, shapes: tuple[tuple[Any, ...], ...]) -> None:
        """Open the axes that differ from the nearest earlier call, if both sizes are 2 or more."""
        changed = [
            [
                (i, axis, old, new)
                for i, (a, b) in enumerate(zip(known, shapes, strict=True))
                for axis, (old, new) in enumerate(zip(a, b, strict=True))
                if old != new
            ]
            for known in self.seen
        ]
        for i, axis, old, new in min(changed, key=len, default=[]):
            if _at_least_two(old) and _at_least_two(new):
                self.open.add((i, axis))

    def add(self, shapes: tuple[tuple[Any, ...], ...], concrete: ConcreteFunction) -> None:
        """Remember a new trace and the call that caused it."""
        self.seen.append(shapes)
        if any(isinstance(s, Size) for shape in concrete.signature.shapes for s in shape):
            self.general.append(concrete)
        if not any(s is None for shape in shapes for s in shape):
            self.exact[shapes] = concrete


def _at_least_two(size: Any) -> bool:
    return size is None or size >= 2


def _names() -> Any:
    yield from "nmkpqrstuvw"
    yield from (f"n{i}" for i in range(2, 1 << 30))


def symbolic(
    shapes: Sequence[tuple[Any, ...]], open: set[tuple[int, int]], share: str
) -> tuple[tuple[Any, ...], ...]:
    """Shapes with symbols on the open axes.

    share: "apart" gives each axis its own symbol, "across" one symbol to axes of different tensors
    that have one size now, "all" to axes of one tensor as well. A size of None counts as equal to
    that of the same axis of another tensor.
    """
    names = _names()
    symbols: dict[Any, list[Size]] = {}
    result = []
    for i, shape in enumerate(shapes):
        sizes = list(shape)
        used: list[Size] = []
        for axis, size in enumerate(shape):
            if (i, axis) not in open or not _at_least_two(size):
                continue
            known = symbols.setdefault(("axis", axis) if size is None else size, [])
            free = [s for s in known if share != "across" or s not in used]
            if share == "apart" or not free:
                free = [symbol(next(names))]
                known += free
            sizes[axis] = free[0]
            used.append(free[0])
        result.append(tuple(sizes))
    return tuple(result)


# ---- the function ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What `@function(...)` was given. max_traces: more raise StateError."""

    name: str
    input_signature: tuple[Any, ...] | None = None
    max_traces: int | None = None


class Traces:
    """The traces of one Python function, for one owner if it is a method.

    Calls go: quick key of the arguments -> trace; or else the whole signature -> trace; or else a
    new trace.
    """

    def __init__(
        self, python: Callable[..., Any], options: Options, owner: Any = None, method: bool = False
    ) -> None:
        self.python, self.options = python, options
        self.records: list[Retrace] = []
        self.concretes: list[ConcreteFunction] = []
        self._parameters = Parameters(python, method, options.name)
        self._owner = owner  # a function that gives the instance, or None
        self._groups: dict[Hashable, Group] = {}
        self._quick: dict[Any, ConcreteFunction] = {}
        self._version = FLAGS.version
        self._lock = threading.RLock()

    # ---- calling ---------------------------------------------------------------------

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call."""
        if not state.busy and self._version == FLAGS.version:
            arrays: list[Any] = []
            try:
                concrete = self._quick.get(self._key(args, kwargs, arrays))
            except NotQuick:
                concrete = None
            if concrete is not None:
                return concrete.run(arrays)
        return self._call(args, kwargs)

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any], arrays: list[Any]) -> Any:
        key: Any = quick_key(args, arrays)
        if kwargs:
            ordered = self._parameters.sorted_keywords(kwargs)
            key = key, tuple(ordered), quick_key(ordered.values(), arrays)
        return (key, backend_now().name, state.device is None) if devices.used else key

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if EAGER.on or state.trace is not None:
            return self._inline(args, kwargs)
        concrete, walk = self.concrete_for(args, kwargs)
        if state.busy:
            return concrete.run_recorded(walk.owned())
        return concrete.run([dense(t._value) for t in walk.tensors])

    def _inline(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Plain Python: becomes part of the trace in force, if there is one."""
        if self.options.input_signature is not None:
            bound = self._checked(args, kwargs)
            args, kwargs = bound.args, bound.kwargs
        return self.python(*self._self(), *args, **kwargs)

    def _self(self) -> tuple[Any, ...]:
        return () if self._owner is None else (self._owner(),)

    # ---- finding the trace -----------------------------------------------------------

    def concrete_for(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ConcreteFunction, Walk]:
        """The trace that serves a call, made if there is none, and the flattened arguments."""
        with self._lock:
            if self._version != FLAGS.version:
                self._quick.clear()
                self._version = FLAGS.version
            bound = self._checked(args, kwargs)
            walk = Walk()
            for name, value in bound.arguments.items():
                walk.visit(name, value)
            if devices.used:
                walk.backend = _backend_for(walk)
            signature = Signature(tuple(walk.leaves), _flags(walk.backend))
            group = self._groups.get(signature.group)
            concrete = group.find(signature.shapes) if group is not None else None
            if concrete is None:
                concrete = self._new(signature, walk, bound, group or Group())
            self._remember(args, kwargs, walk, concrete)
            return concrete, walk

    def _remember(self, args: Any, kwargs: Any, walk: Walk, concrete: ConcreteFunction) -> None:
        arrays: list[Any] = []
        try:
            key = self._key(args, kwargs, arrays)
        except NotQuick:
            return
        same = len(arrays) == len(walk.tensors) and all(
            getattr(t, "_value", None) is a for t, a in zip(walk.tensors, arrays, strict=True)
        )
        if same:
            if len(self._quick) >= QUICK_LIMIT:
                self._quick.clear()
            self._quick[key] = concrete

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Arguments by parameter; with an input signature they are cast and checked."""
        bound = self._parameters.bind(args, kwargs)
        specs = self.options.input_signature
        if specs is None:
            return bound
        values = [*bound.args, *bound.kwargs.values()]
        if len(specs) > len(values):
            raise ArgumentError(
                self.options.name,
                received=f"{len(values)} arguments",
                expected=f"{len(specs)} arguments by input_signature",
                fix="pass one argument for each entry of input_signature",
            )
        rest = iter(specs)
        for name, value in bound.arguments.items():
            if self._parameters.is_variadic(name):
                rows = enumerate(zip(value, rest, strict=False))
                fitted = [_fit(f"{name}[{i}]", spec, v) for i, (v, spec) in rows]
                bound.arguments[name] = (*fitted, *value[len(fitted) :])
            elif (spec := next(rest, None)) is not None:
                bound.arguments[name] = _fit(name, spec, value)
        return bound

    # ---- a new trace -----------------------------------------------------------------

    def _new(self, signature: Signature, walk: Walk, bound: Any, group: Group) -> ConcreteFunction:
        loc = user_loc()
        against, changed = nearest(self.records, signature)
        limit = self.options.max_traces
        if limit is not None and len(self.records) >= limit:
            found = "\n".join(f"    {d}" for d in changed)
            raise StateError(
                self.options.name,
                received=f"a call that needs trace {len(self.records) + 1}; it differs from trace "
                f"{against} in\n{found}",
                expected=f"at most {limit} trace{'s' if limit > 1 else ''} (max_traces)",
                fix="pass tensors instead of changing Python values, give None sizes in "
                "input_signature, or raise max_traces",
            )
        shapes = signature.shapes
        if self.options.input_signature is not None:
            group.open |= _none_axes(self.options.input_signature)
        group.open |= {(i, a) for i, s in enumerate(shapes) for a, n in enumerate(s) if n is None}
        group.widen(shapes)
        concrete, notes = self._attempt(signature, walk, bound, group)
        number = len(self.records) + 1
        traced = concrete.signature
        against, changed = nearest(self.records, traced)
        self.records.append(Retrace(number, traced, loc, against, changed, notes))
        self.concretes.append(concrete)
        group.add(shapes, concrete)
        self._groups[signature.group] = group
        return concrete

    def _attempt(
        self, signature: Signature, walk: Walk, bound: Any, group: Group
    ) -> tuple[ConcreteFunction, tuple[str, ...]]:
        """Trace with as few equal sizes as possible; with fixed sizes if that does not work."""
        shapes = signature.shapes
        candidates = dict.fromkeys(symbolic(shapes, group.open, s) for s in ("across", "all"))
        if any(s is None for shape in shapes for s in shape):
            candidates = dict.fromkeys(symbolic(shapes, group.open, s) for s in ("across", "apart"))
        elif group.rigid:
            candidates = {shapes: None}
        else:
            candidates[shapes] = None
        failed = ""
        for k, sizes in enumerate(candidates):
            try:
                concrete = self._trace(signature.with_shapes(sizes), walk, bound)
            except SIZE_ERRORS as error:
                if k == len(candidates) - 1:
                    raise
                failed = error.text()
                continue
            return concrete, self._notes(group, shapes, sizes, failed)
        raise TypeError("no shapes to trace with")

    def _notes(self, group: Group, shapes: Any, sizes: Any, failed: str) -> tuple[str, ...]:
        found = {
            str(s): n
            for a, b in zip(sizes, shapes, strict=True)
            for s, n in zip(a, b, strict=True)
            if isinstance(s, Size)
        }
        if found:
            text = ", ".join(f"{s} (now {n})" if n is not None else s for s, n in found.items())
            return (f"symbolic sizes: {text}; any sizes of 2 or more are served",)
        if failed:
            group.rigid = failed
            return ("no size can be symbolic: " + "; ".join(failed.splitlines()),)
        return ()

    def _trace(self, signature: Signature, walk: Walk, bound: Any) -> ConcreteFunction:
        may_create = not self.records
        trace, results = self._record(signature, walk, bound, may_create)
        if trace.created:
            # As in TensorFlow: a second trace shows whether Variables are created only once.
            trace, results = self._record(signature, walk, bound, False)
        graph = trace.finish(results.nodes)
        return ConcreteFunction(graph, trace, signature, results.pack(), walk.backend)

    def _record(
        self, signature: Signature, walk: Walk, bound: Any, may_create: bool
    ) -> tuple[FunctionTrace, Results]:
        name = self.options.name
        trace = FunctionTrace(name, may_create=may_create)
        try:
            with mode(trace), _traced_for(walk.backend):
                tensors = iter([from_node(n, trace) for n in _arguments(trace, signature)])
                placed = {n: _placed(value, tensors) for n, value in bound.arguments.items()}
                call = inspect.BoundArguments(bound.signature, placed)
                result = self.python(*self._self(), *call.args, **call.kwargs)
                return trace, Results(result, trace)
        except RecursionError:
            raise TraceError(
                f"the trace of {name}",
                received="Python calls within one another without end",
                expected="a recursion that a Python condition ends while tracing",
                fix="end it on a Python number; a tensor has no value yet while tracing",
            ) from None
        finally:
            trace.closed = True

    # ---- looking inside --------------------------------------------------------------

    def latest(self) -> ConcreteFunction:
        """The newest trace. Raises StateError if there is none yet."""
        if not self.concretes:
            raise StateError(
                self.options.name,
                received="a function that has not been called yet",
                expected="at least one trace",
                fix="call it, or get_concrete_function(*args), first",
            )
        return self.concretes[-1]

    def forget(self) -> None:
        """Drop all traces."""
        with self._lock:
            self.records, self.concretes = [], []
            self._groups, self._quick = {}, {}


def _backend_for(walk: Walk) -> Any:
    """The device of a call: that of the context, a GPU that holds an argument, or the default GPU;
    None where it is the host because nothing says otherwise."""
    if state.device is not None:
        return state.device
    for tensor in walk.tensors:
        value = getattr(tensor, "_value", None)
        if devices.is_device_array(value):
            return devices.backend_of(value)
    backend = backend_now()
    return None if backend is devices.host and state.draws is None else backend


def _flags(backend: Any) -> tuple[tuple[str, Hashable], ...]:
    """Settings that are part of a signature; the device as well if it is no CPU."""
    flags = FLAGS.values()
    on_gpu = backend is not None and backend is not devices.host
    return (*flags, ("device", backend.name)) if on_gpu else flags


@contextmanager
def _traced_for(backend: Any) -> Iterator[None]:
    """What a traced function makes eagerly is on its device, which no node has to wish for."""
    before = WISH.device
    WISH.device = ""
    try:
        with on_backend(backend):
            yield
    finally:
        WISH.device = before


def _arguments(trace: Trace, signature: Signature) -> list[Any]:
    return [
        trace.argument(path, TensorType(leaf.shape, leaf.dtype))
        for path, leaf in signature.leaves
        if isinstance(leaf, TensorLeaf)
    ]


def _placed(value: Any, tensors: Iterator[Any]) -> Any:
    """An argument with the traced tensors in the places of its tensors."""
    if is_tensor_leaf(value):
        return next(tensors)
    if is_value(value):
        return value
    children = [child for _, child in tree.children(value)]
    placed = [_placed(child, tensors) for child in children]
    if all(new is old for new, old in zip(placed, children, strict=True)):
        return value
    return tree.rebuild(value, placed)


def _fit(path: str, spec: Any, value: Any) -> Any:
    """An argument as its part of the input signature asks for."""
    if isinstance(spec, TensorSpec):
        return check_spec(path, spec, value)
    if spec is None or is_value(spec):
        return value
    tree.same_structure(spec, value) if not is_value(value) else None
    rows = zip(tree.children(spec), tree.children(value), strict=True)
    return tree.rebuild(value, [_fit(f"{path}[{k!r}]", s, v) for (k, s), (_, v) in rows])


def _none_axes(specs: Sequence[Any]) -> set[tuple[int, int]]:
    """(tensor, axis) of each None; the tensors of the input signature come first."""
    leaves = [s for s in tree.flatten(list(specs)) if isinstance(s, TensorSpec)]
    return {(i, a) for i, s in enumerate(leaves) for a, n in enumerate(s.shape) if n is None}
