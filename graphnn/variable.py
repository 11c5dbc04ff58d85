"""Variable: a tensor that can be assigned. It owns one buffer, which is changed in place."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from graphnn import tree
from graphnn.apply import TENSOR_OPS, cast, convert, from_node, is_number, node_of, type_of
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph, Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import DType, TensorType, as_dtype, describe, is_float
from graphnn.compiler.ops.core import Input
from graphnn.logical import on_backend
from graphnn.placement import backend_now, is_trifle
from graphnn.runtime import copies, devices, memory
from graphnn.runtime.cuda import memory as cuda_memory
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError, StateError, TraceError
from graphnn.state import init_scope, on_create_variable, state
from graphnn.tensor import Operand, Shape, Tensor, Traced

# Grows when a buffer moves: compiled programs look here whether their pointers still hold.
EPOCH = [0]

_ndarray = np.ndarray
_MANY_READS = 16  # from here on the list of handed-out tensors is cleaned


class Variable(Operand):
    """A tensor whose values can be changed by `assign`.

    initial_value: anything that means a tensor, or a function without arguments that returns it.
    trainable: whether tapes watch it by themselves and layers list it among their weights; by
    default True. dtype: by default that of the value. constraint: a function that optimizers apply
    to the value after an update. shape: checked against the value. synchronization, aggregation:
    what the replicas of a distribution strategy have in common, see `graphnn.distribute`.

    Operators and functions take a Variable as they take a tensor. A tensor that was read keeps its
    values when the Variable is assigned.

    >>> v = graphnn.Variable([1.0, 2.0], name="v")
    >>> before = v.value()
    >>> v.assign_add([10.0, 10.0]).numpy()
    array([11., 12.], dtype=float32)
    >>> before.numpy()
    array([1., 2.], dtype=float32)
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_buffer",
        "_handles",
        "_type",
        "_version",
        "_view",
        "constraint",
        "name",
        "trainable",
    )

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """A Variable; under the scope of a strategy one of the strategy's own kind."""
        if cls is not Variable or state.strategy is None:
            return object.__new__(cls)
        kind: Any = state.strategy.kind_of_variable(Variable, kwargs.get("synchronization"))
        return object.__new__(kind)  # type: ignore[no-any-return]

    def __init__(
        self,
        initial_value: Any = None,
        trainable: bool | None = None,
        *,
        name: str | None = None,
        dtype: Any = None,
        constraint: Callable[[Any], Any] | None = None,
        shape: Any = None,
        validate_shape: bool = True,
        synchronization: Any = None,
        aggregation: Any = None,
        caching_device: Any = None,
    ) -> None:
        if initial_value is None:
            raise ArgumentError(
                "Variable",
                received="no initial value",
                expected="a tensor, an array, numbers, or a function that makes one",
                fix="give one, e.g. graphnn.Variable(graphnn.zeros((2, 3)))",
            )
        self.name = name or "Variable"
        self.trainable = True if trainable is None else bool(trainable)
        self.constraint = constraint
        array = _initial_array(initial_value, None if dtype is None else as_dtype(dtype))
        if shape is not None:
            _check_initial_shape(array, tuple(shape))
        self._handles: list[weakref.ref[Tensor]] = []
        self._version = object()
        self._type = TensorType(tuple(array.shape), array.dtype)
        if devices.used:
            self._begin_on(_home_of(array), array)
        else:
            self._place(memory.empty(tuple(array.shape), array.dtype))
            np.copyto(self._buffer, array)
        if state.trace is not None:
            for hook in on_create_variable:
                hook(self)

    # ---- the buffer ----------------------------------------------------------------------

    def _place(self, buffer: Any) -> None:
        if (guard := self.__dict__.pop("_guard", None)) is not None:
            guard()
        self._buffer = buffer
        if type(buffer) is _ndarray:
            view = buffer.view()
            view.flags.writeable = False  # marks tensors that share memory with a Variable
            self._view = view
        else:
            self._view = buffer
            guard = self.__dict__["_guard"] = weakref.finalize(self, devices.guard(buffer))
            guard.atexit = False

    def _begin_on(self, backend: Any, array: Any) -> None:
        """Take memory on a device for the first value."""
        buffer = backend.empty(tuple(array.shape), array.dtype)
        backend.copy(buffer, devices.move(array, backend))
        self._place(buffer)
        if backend is not devices.host:
            cuda_memory.note(buffer, f"Variable {self.name!r}")

    def _rebind(self, buffer: Any) -> None:
        """Move to another buffer of the same shape and dtype, whose content is overwritten."""
        self._detach_reads()
        if type(buffer) is _ndarray and type(self._buffer) is _ndarray:
            np.copyto(buffer, self._buffer, casting="no")
        else:
            backend = devices.backend_of(buffer)
            backend.copy(buffer, devices.move(self._buffer, backend))
        self._place(buffer)
        EPOCH[0] += 1

    def _places(self) -> dict[str, Any]:
        """The buffers by the names of their devices: one, but for Variables of a strategy."""
        return {devices.backend_of(self._buffer).name: self._buffer}

    def _on(self, backend: Any) -> Any:
        """The buffer on a device, or else the one that there is."""
        return self._buffer

    def _move(self, backend: Any) -> None:
        """Live on another device from now on."""
        if devices.backend_of(self._buffer) is not backend:
            self._rebind(backend.empty(self._buffer.shape, self._buffer.dtype))

    def _detach_reads(self) -> bool:
        """Before the buffer changes: give tensors that were read a copy. Whether there were any."""
        self._version = object()
        if not self._handles:
            return False
        alive = [h for h in (ref() for ref in self._handles) if h is not None]
        self._handles.clear()
        if alive:
            copy = devices.duplicate(self._buffer) if devices.used else self._buffer.copy()
            for handle in alive:
                if handle._value is self._view:  # it has not got memory of its own yet
                    handle._value = copy
        return bool(alive)

    # ---- reading -------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return Shape(self._buffer.shape)

    @property
    def dtype(self) -> DType:
        """Dtype of the elements."""
        return self._type.dtype

    def value(self) -> Tensor:
        """The current value; a tape that watches the Variable writes the read down."""
        return self._tensor()

    read_value = value

    def _tensor(self) -> Tensor:
        if state.busy:
            return self._watched_read()
        return self._handle()

    def _handle(self) -> Tensor:
        """A tensor on the buffer, which `_detach_reads` will find."""
        tensor = Tensor(self._view)
        handles = self._handles
        if len(handles) >= _MANY_READS:
            handles[:] = [h for h in handles if h() is not None]
        handles.append(weakref.ref(tensor))
        return tensor

    def _watched_read(self) -> Tensor:
        """The value in a trace or under tapes: under one tape one tensor for one value."""
        trace, tapes = state.trace, state.tapes
        first = trace is not None and id(self) not in trace.current
        node = None if trace is None else trace.read(self, self.name, self._type)
        version: Any = self._version if node is None else node
        if not tapes:
            return self._handle() if node is None else from_node(node, trace)
        known: Tensor | None = tapes[-1].known_read(self, version)
        if known is not None:
            return known
        if node is None:
            tensor = self._handle()
        else:
            tensor = from_node(node if first else _apart(node, trace), trace)
        for tape in tapes:
            tape.record_read(self, version, tensor)
        return tensor

    def _array(self, what: str) -> np.ndarray[Any, Any]:
        if state.trace is None:
            return devices.on_host(self._view)  # type: ignore[no-any-return]
        raise TraceError(
            what,
            received=f"Variable {self.name!r} in a trace, where its value is not known yet",
            expected="a value, which exists only when the compiled program runs",
            fix="read it outside of the function, or return v.value() from it",
        )

    def _body(self) -> Any:
        return self._view

    @property
    def initial_value(self) -> Tensor:
        """The current value as a tensor of its own (the first one is not kept)."""
        return Tensor(devices.duplicate(self._buffer))

    # ---- writing -------------------------------------------------------------------------

    def assign(
        self, value: Any, use_locking: bool = False, name: Any = None, read_value: bool = True
    ) -> Variable:
        """Set the value, in place. Returns the Variable.

        value: a tensor of the same dtype, or numbers and arrays that can be cast to it (no float
        to an integer). Raises ShapeError or DTypeError if it does not fit; then nothing has
        changed.
        """
        if state.trace is not None:
            self._traced_assign(self._fitting(value, "assign"))
            return self
        array = self._fitting_array(value, "assign")
        self._write(array)
        return self

    def assign_add(
        self, delta: Any, use_locking: bool = False, name: Any = None, read_value: bool = True
    ) -> Variable:
        """Add to the value, in place. Returns the Variable. Raises as `assign`."""
        return self._combine("add", np.add, delta)

    def assign_sub(
        self, delta: Any, use_locking: bool = False, name: Any = None, read_value: bool = True
    ) -> Variable:
        """Subtract from the value, in place. Returns the Variable. Raises as `assign`."""
        return self._combine("subtract", np.subtract, delta)

    def _combine(self, name: str, ufunc: Any, delta: Any) -> Variable:
        subject = f"assign_{name[:3]}"
        if state.trace is not None:
            change = self._fitting(delta, subject, stretch=True)
            self._traced_assign(getattr(TENSOR_OPS, name)(self._quiet_read(), change))
            return self
        array = self._fitting_array(delta, subject, stretch=True)
        if devices.used and not (type(array) is type(self._buffer) is _ndarray):
            backend = devices.backend_of(self._buffer)
            value = self._brought(array, backend, f"the change of Variable {self.name!r}")
            with on_backend(backend):
                changed = getattr(TENSOR_OPS, name)(Tensor(self._buffer), Tensor(value))
            self._write(changed._value)
            return self
        self._detach_reads()
        state.quiet(ufunc, self._buffer, array, self._buffer)
        return self

    def _write(self, array: Any) -> None:
        """Put an array of the right shape and dtype into the buffer."""
        self._detach_reads()
        if devices.used and not (type(array) is type(self._buffer) is _ndarray):
            backend = devices.backend_of(self._buffer)
            value = self._brought(array, backend, f"the new value of Variable {self.name!r}")
            backend.copy(self._buffer, value)
        else:
            np.copyto(self._buffer, array)

    def _brought(self, array: Any, backend: Any, what: str) -> Any:
        """An array on the Variable's device; the copy is written down."""
        source = devices.backend_of(array)
        if source is not backend and not is_trifle(array):
            copies.note(what, array.nbytes, source.name, backend.name)
        return devices.move(array, backend)

    def _traced_assign(self, value: Tensor) -> None:
        trace = state.trace
        trace.assign(self, self.name, self._type, node_of(value, trace))

    def _quiet_read(self) -> Tensor:
        """The value, for a change of itself: no tape writes it down."""
        trace = state.trace
        if trace is None:
            return self._handle()
        return from_node(trace.read(self, self.name, self._type), trace)

    def _fitting(self, value: Any, subject: str, stretch: bool = False) -> Tensor:
        """A value as a tensor of this dtype whose shape fits."""
        tensor = self._of_my_dtype(value)
        self._check(type_of(tensor), subject, stretch)
        return tensor

    def _of_my_dtype(self, value: Any) -> Tensor:
        """A value as a tensor, of this dtype if it may be cast to it."""
        return convert(value, self.dtype if _is_castable(value, self.dtype) else None)

    def _fitting_array(self, value: Any, subject: str, stretch: bool = False) -> Any:
        if isinstance(value, Tensor) and type(value._value) is not Traced:
            self._check(TensorType(value._value.shape, value._value.dtype), subject, stretch)
            return value._value
        tensor = self._fitting(value, subject, stretch)
        body = tensor._body()
        return tensor._array(subject) if body is None else body

    def _check_dtype(self, type: TensorType, subject: str) -> None:
        if type.dtype != self.dtype:
            raise DTypeError(
                f"{subject} of Variable {self.name!r}",
                received=f"{describe(type.dtype, type.shape)} for {self._text()}",
                expected=f"dtype {self.dtype.name}",
                fix=f"cast the value first, e.g. graphnn.cast(x, {self.dtype.name!r})",
            )

    def _check(self, type: TensorType, subject: str, stretch: bool) -> None:
        self._check_dtype(type, subject)
        if type.shape != self._buffer.shape and not (stretch and _stretches(type, self._type)):
            raise ShapeError(
                f"{subject} of Variable {self.name!r}",
                received=f"{describe(type.dtype, type.shape)} for {self._text()}",
                expected=f"shape {self.shape}",
                fix="reshape or broadcast the value, or make a Variable of another shape",
            )

    def _text(self) -> str:
        return describe(self.dtype, self._buffer.shape)

    # ---- writing at indices --------------------------------------------------------------

    def _scatter(self, sparse: Any, updates: Any, mode: str) -> Variable:
        """Rows of the first axis."""
        if updates is None:
            sparse, updates = sparse.indices, sparse.values
        index = convert(sparse)
        values = self._updates(updates)
        wanted = (*index.shape, *self.shape[1:])
        if tuple(values.shape) != wanted:
            values = TENSOR_OPS.broadcast_to(values, shape=wanted)
        base = self._quiet_read()
        return self.assign(TENSOR_OPS.scatter(base, index, values, axes=(0,), at=0, mode=mode))

    def _updates(self, updates: Any) -> Tensor:
        """Updates of rows as a tensor of this dtype; a tensor is cast too, but no float to an
        integer."""
        tensor = self._of_my_dtype(updates)
        if _kind_of(tensor) <= _kind_of(self):
            return cast(tensor, self.dtype)
        self._check_dtype(type_of(tensor), "an update of rows")
        return tensor

    def scatter_update(self, sparse_delta: Any, updates: Any = None) -> Variable:
        """Set rows: v[indices] = updates. Takes IndexedSlices, or indices and updates.

        Raises OutOfRangeError for an index outside the first axis.

        >>> v = graphnn.Variable([0.0, 0.0, 0.0])
        >>> v.scatter_update([2, 0], [5.0, 7.0]).numpy()
        array([7., 0., 5.], dtype=float32)
        """
        return self._scatter(sparse_delta, updates, "set")

    def scatter_add(self, sparse_delta: Any, updates: Any = None) -> Variable:
        """Add to rows; rows named twice get both. Arguments as in `scatter_update`."""
        return self._scatter(sparse_delta, updates, "add")

    def scatter_sub(self, sparse_delta: Any, updates: Any = None) -> Variable:
        """Subtract from rows. Arguments as in `scatter_update`."""
        if updates is None:
            sparse_delta, updates = sparse_delta.indices, sparse_delta.values
        return self._scatter(sparse_delta, TENSOR_OPS.negative(self._updates(updates)), "add")

    def scatter_mul(self, sparse_delta: Any, updates: Any = None) -> Variable:
        """Multiply rows. Arguments as in `scatter_update`."""
        return self._scatter(sparse_delta, updates, "mul")

    def scatter_max(self, sparse_delta: Any, updates: Any = None) -> Variable:
        """The greater of rows and updates. Arguments as in `scatter_update`."""
        return self._scatter(sparse_delta, updates, "max")

    def scatter_min(self, sparse_delta: Any, updates: Any = None) -> Variable:
        """The lesser of rows and updates. Arguments as in `scatter_update`."""
        return self._scatter(sparse_delta, updates, "min")

    def _scatter_nd(self, indices: Any, updates: Any, mode: str) -> Variable:
        base, values = self._quiet_read(), self._updates(updates)
        return self.assign(TENSOR_OPS.scatter_nd(base, convert(indices), values, mode=mode))

    def scatter_nd_update(self, indices: Any, updates: Any) -> Variable:
        """Set elements or slices: the last axis of indices holds index vectors.

        >>> v = graphnn.Variable([[0.0, 0.0], [0.0, 0.0]])
        >>> v.scatter_nd_update([[1, 0]], [9.0]).numpy().tolist()
        [[0.0, 0.0], [9.0, 0.0]]
        """
        return self._scatter_nd(indices, updates, "set")

    def scatter_nd_add(self, indices: Any, updates: Any) -> Variable:
        """Add to elements or slices. Arguments as in `scatter_nd_update`."""
        return self._scatter_nd(indices, updates, "add")

    def scatter_nd_sub(self, indices: Any, updates: Any) -> Variable:
        """Subtract from elements or slices. Arguments as in `scatter_nd_update`."""
        negative = TENSOR_OPS.negative(self._updates(updates))
        return self._scatter_nd(indices, negative, "add")

    # ---- the rest ------------------------------------------------------------------------

    def __repr__(self) -> str:
        text = f"shape={self.shape}, dtype={self.dtype.name}"
        if state.trace is not None:
            return f"<Variable {self.name!r} {text}>"
        value = self._buffer
        if type(value) is not _ndarray:
            value, text = devices.on_host(value), f"{text}, device={self.device!r}"
        return f"<Variable {self.name!r} {text}, value={value!s}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Variable:
        with on_backend(devices.backend_of(self._buffer) if devices.used else None):
            copy = Variable(
                Tensor(self._buffer), self.trainable, name=self.name, constraint=self.constraint
            )
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        value = np.array(devices.on_host(self._buffer))
        return _restore, (value, self.trainable, self.name, self.constraint)


def _home_of(array: Any) -> Any:
    """Where a new Variable lives: on the device of the context, else on the GPU on which its value
    is, else on the default device."""
    if state.device is None and devices.is_device_array(array):
        return devices.backend_of(array)
    return backend_now()


def _restore(array: Any, trainable: bool, name: str, constraint: Any) -> Variable:
    return Variable(array, trainable, name=name, constraint=constraint)


def _apart(node: Node, trace: Any) -> Node:
    """A node of its own for a read under a tape, so that earlier reads are no part of it."""
    name = "identity" if isinstance(node.op, Input) else "stop_gradient"
    tensor = getattr(TENSOR_OPS, name)(from_node(node, trace))
    return node_of(tensor, trace)


def _is_castable(value: Any, dtype: DType) -> bool:
    """Whether a value takes the Variable's dtype: numbers, lists, and arrays of the same kind.

    Numbers lose nothing by it: a float does not become an integer, nor an integer a bool.
    """
    if isinstance(value, Operand):
        return False
    if is_float(dtype):
        return True
    if hasattr(value, "dtype") and not is_number(value):
        return np.can_cast(value.dtype, dtype, "same_kind")
    return all(_kind_of(leaf) <= _KINDS[dtype.kind] for leaf in tree.flatten(value))


_KINDS = {"b": 0, "i": 1, "u": 1}


def _kind_of(number: Any) -> int:
    """0 for bools, 1 for integers (and what is no number), 2 for floats."""
    if hasattr(number, "dtype"):
        return 2 if is_float(number.dtype) else _KINDS.get(number.dtype.kind, 2)
    return 2 if isinstance(number, float) else int(type(number) is not bool)


def _stretches(type: TensorType, to: TensorType) -> bool:
    """Whether a shape broadcasts to another without changing it."""
    if type.ndim > to.ndim:
        return False
    pairs = zip(reversed(type.shape), reversed(to.shape), strict=False)
    return all(a == 1 or a == b for a, b in pairs)


def _check_initial_shape(array: Any, shape: tuple[Any, ...]) -> None:
    fits = len(shape) == array.ndim and all(
        a is None or a == b for a, b in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            "Variable",
            received=f"an initial value of shape {array.shape}",
            expected=f"shape {shape}",
            fix="make the value of that shape, or leave shape out",
        )


def _initial_array(value: Any, dtype: DType | None) -> Any:
    if callable(value) and not isinstance(value, Operand):
        with init_scope():
            return _initial_array(value(), dtype)
    if isinstance(value, Tensor) and type(value._value) is Traced:
        array = _evaluated(value)
        return array if dtype is None else array.astype(dtype)
    with init_scope():
        array = convert(value, dtype)._value
    as_dtype(array.dtype)  # strings cannot be in a Variable
    return array


def _evaluated(tensor: Tensor) -> Any:
    """The value of a traced tensor now; made of constants, captures and Variables only.

    So a Variable can be made from graphnn.zeros(...) inside a function that is being traced.
    """
    trace = state.trace
    node = node_of(tensor, trace)
    graph = Graph("initial value", (), (node,))
    inputs = [n for n in graph.nodes if isinstance(n.op, Input)]
    known = {c.node: c.source for c in (*trace.captures.values(), *trace.variables.values())}
    if any(n not in known for n in inputs) or any(isinstance(s, Size) for s in node.shape):
        raise StateError(
            "Variable",
            received="an initial value that depends on the arguments of the traced function",
            expected="a value that is known when the Variable is made",
            fix="make the Variable outside of the function, or give a function for its value",
        )
    sources = [known[n] for n in inputs]
    arrays = [s._buffer if isinstance(s, Variable) else s._value for s in sources]
    arrays = list(map(devices.on_host, arrays))
    outputs, _ = state.quiet(interpret, Graph("initial value", tuple(inputs), (node,)), arrays)
    return outputs[0]


class IndexedSlices:
    """Rows of a tensor: values, and where on the first axis they belong.

    What `Variable.scatter_update` and its relatives take.
    """

    def __init__(self, values: Any, indices: Any, dense_shape: Any = None) -> None:
        self.values, self.indices = convert(values), convert(indices)
        self.dense_shape = dense_shape

    @property
    def dtype(self) -> DType:
        """Dtype of the values."""
        return self.values.dtype


__all__ = ["EPOCH", "IndexedSlices", "Variable"]
