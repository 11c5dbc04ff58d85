"""Applying an op to tensors: at once, or as a node while tracing; tapes write it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphnn import strings
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import (
    DEFAULT_FLOAT,
    DType,
    TensorType,
    as_dtype,
    describe,
    promote,
    scalar_dtype,
)
from graphnn.compiler.ops.base import REGISTRY, BaseHandler, Composite, Op, Ops
from graphnn.compiler.ops.core import Constant
from graphnn.compiler.trace import SMALL, Trace
from graphnn.dtypes import default_float
from graphnn.runtime import devices
from graphnn.runtime.errors import ArgumentError, DTypeError, GraphnnError, hide_own_frames
from graphnn.state import state
from graphnn.tensor import Operand, Symbolic, Tensor, Traced, raise_leak

_ndarray = np.ndarray


# ---- one op -------------------------------------------------------------------------------


def apply(op: Op, *inputs: Tensor) -> Any:
    """The op's value on tensors whose dtypes already fit: a Tensor, or a tuple of Tensors.

    Raises the errors of the op's `infer` rule; the frames inside of here are left out of a
    traceback.
    """
    try:
        if state.busy:
            return _apply_watched(op, inputs)
        return _wrap(_run(op, inputs))
    except GraphnnError as error:
        raise hide_own_frames(error)  # noqa: B904


def _apply_watched(op: Op, inputs: tuple[Tensor, ...]) -> Any:
    trace, tapes = state.trace, state.tapes
    if tapes and isinstance(op, Composite) and not op.has("grad") and _is_watched(inputs):
        return op.decompose(TENSOR_OPS, *inputs)
    if trace is None:
        out = _wrap(_run(op, inputs))
    elif any(isinstance(t._value, Symbolic) for t in inputs):
        return next(t for t in inputs if isinstance(t._value, Symbolic))._value.record(op, inputs)
    else:
        out = _wrap_node(trace.apply(op, tuple(node_of(t, trace) for t in inputs)), trace)
    if tapes:
        record(op, inputs, out)
    return out


def _is_watched(inputs: Sequence[Any]) -> bool:
    return any(id(i) in tape.watched for tape in state.tapes for i in inputs)


def record(op: Op, inputs: tuple[Any, ...], out: Any) -> None:
    """Write a step down on each recording tape that watches one of the inputs.

    out: a Tensor or a tuple of Tensors. An op without a gradient is not written down.
    """
    if op.gradient is not None:
        return
    for tape in state.tapes:
        watched = tape.watched
        if any(id(i) in watched for i in inputs):
            tape.steps.append((op, inputs, out))
            watched.update(map(id, out) if type(out) is tuple else (id(out),))


def run_on_host(op: Op, inputs: tuple[Tensor, ...]) -> Any:
    """Arrays of the results, by NumPy."""
    try:
        return state.quiet(op.eager, np, *[t._value for t in inputs])
    except Exception as error:
        failed = error
    try:  # out of the handler: the designed error is not one "during handling" of another
        return _second_try(op, inputs, failed)
    finally:
        del failed


Runner = Callable[[Op, tuple[Tensor, ...]], Any]
_run: Runner = run_on_host


def set_runner(runner: Runner) -> None:
    """Let another function than `run_on_host` compute eager ops: the one that knows GPUs."""
    global _run
    _run = runner


def _second_try(op: Op, inputs: tuple[Tensor, ...], error: Exception) -> Any:
    """Raise the designed error; or run the op again where only our silence went wrong."""
    for tensor in inputs:
        if type(tensor._value) is Traced:
            raise_leak(tensor._value)
        if isinstance(tensor._value, Symbolic):
            return tensor._value.record(op, inputs)
    if isinstance(error, GraphnnError):
        raise error
    if isinstance(error, RuntimeError) and "already entered" in str(error):
        with np.errstate(all="ignore"):  # called from inside an op, e.g. by a finaliser
            return op.eager(np, *[t._value for t in inputs])
    op.infer(*map(type_of, inputs))
    raise error


def _wrap(result: Any) -> Any:
    if type(result) is tuple:
        return tuple(map(_wrap, result))
    if type(result) is not _ndarray:
        if isinstance(result, Tensor):
            return result  # of symbolic inputs
        if not isinstance(result, devices.ARRAYS):
            result = np.asarray(result)
    elif result.base is not None and not result.flags.writeable:
        result = result.copy()  # a view of a Variable's buffer, which the next assign overwrites
    return Tensor(result)


def _wrap_node(result: Any, trace: Trace) -> Any:
    if type(result) is tuple:
        return tuple(Tensor(Traced(node, trace)) for node in result)
    return Tensor(Traced(result, trace))


def node_of(tensor: Tensor, trace: Trace) -> Node:
    """The tensor's node in the trace; an eager tensor becomes an input of the graph.

    Raises LeakError for a tensor of another trace.
    """
    value = tensor._value
    if type(value) is not Traced:
        if value.dtype.kind == "T":
            text = describe(value.dtype, value.shape)
            raise strings.no_trace("use in a compiled program", text)
        return trace.capture(tensor, value)
    if value.trace is not trace:
        raise_leak(value)
    return value.node


def from_node(node: Node, trace: Trace | None = None) -> Tensor:
    """The tensor that stands for a node of a trace (by default the current one)."""
    return Tensor(Traced(node, trace if trace is not None else state.trace))


def type_of(tensor: Any) -> TensorType:
    """The type of a tensor or Variable."""
    return TensorType(tuple(tensor.shape), tensor.dtype)


# ---- gradient rules and decompositions on tensors -----------------------------------------


class TensorHandler(BaseHandler):
    """Applying an op calls `apply`: so tapes and traces see what rules and composites do."""

    def apply(self, op: Op, inputs: Sequence[Tensor]) -> Any:
        """The op's value."""
        return apply(op, *inputs)

    def lift(self, op: Op, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Inputs with Python numbers made constants."""
        for value in inputs:
            if type(value) is not Tensor:
                return super().lift(op, inputs)
        return tuple(inputs)

    def type(self, value: Any) -> TensorType:
        """Type of a tensor."""
        return type_of(value)

    def constant(self, value: Any, dtype: DType) -> Tensor:
        return constant_of(value, dtype)


class TensorOps(Ops):
    """The registry as functions on tensors. Ops without settings are made once."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = super().__getattr__(name)
        cls = REGISTRY[name]
        if cls.__dataclass_fields__:
            return call
        op = cls()

        def fast(*inputs: Any) -> Any:
            for value in inputs:
                if type(value) is not Tensor:
                    return call(*inputs)
            return apply(op, *inputs)

        self.__dict__[name] = fast
        return fast


TENSOR_OPS = TensorOps(TensorHandler())


# ---- making tensors -----------------------------------------------------------------------


def constant_of(value: Any, dtype: DType) -> Tensor:
    """A tensor with the values of a Python number or an array, which is copied.

    While tracing a small one is a constant of the graph, a symbolic size becomes a 0-d tensor. A
    0-d one stays on the host, from where it goes wherever the other inputs of an op are.
    """
    trace = state.trace
    if isinstance(value, Size):
        if trace is None:
            return Tensor(np.asarray(int(value), dtype))
        return from_node(trace.constant(value, dtype), trace)
    array = _as_array(value, dtype)
    if trace is not None and array.size <= SMALL:
        return from_node(trace.apply(Constant.of(array), ()), trace)
    return Tensor(_placed(array) if devices.used and array.ndim else array)


def _placed(array: Any) -> Any:
    """A new array on the device of the context, or on the default one."""
    if state.draws is not None and state.device is None:
        return array  # in a function that a Dataset calls
    return devices.move(array, state.device or devices.default())


def _as_array(value: Any, dtype: DType) -> np.ndarray[Any, Any]:
    try:
        return np.array(value, dtype)
    except OverflowError:
        raise ArgumentError(
            "conversion to a tensor",
            received=f"a number that {dtype.name} cannot hold: {value!r:.60}",
            expected=f"numbers in the range of {dtype.name}",
            fix="give a wider dtype, e.g. dtype='int64'",
        ) from None
    except (TypeError, ValueError) as error:
        raise _cannot_convert(value, str(error)) from None


def _cannot_convert(value: Any, why: str = "") -> DTypeError:
    return DTypeError(
        "conversion to a tensor",
        received=f"{type(value).__name__} {value!r:.60}" + (f" ({why})" if why else ""),
        expected="a number, a tensor, an array, or nested lists of these with equal lengths",
        fix="convert the data to a NumPy array of numbers first",
    )


def convert(value: Any, dtype: DType | None = None) -> Tensor:
    """Anything that means a tensor, as a Tensor; arrays are copied, tensors are not.

    dtype: wanted dtype; tensors and arrays are cast. Without it Python floats give float32, ints
    int32, arrays keep theirs. Raises DTypeError for what cannot be converted.
    """
    if isinstance(value, Operand):
        tensor = value._tensor()
        return tensor if dtype is None or tensor.dtype == dtype else cast(tensor, dtype)
    kind = type(value)
    if kind is float or kind is int or kind is bool or isinstance(value, Size):
        tensor = constant_of(value, _kind(value) if dtype is None else dtype)
        return _alone(tensor) if devices.used else tensor
    if strings.looks_like_text(value):
        if dtype is not None and dtype.kind != "T":
            raise _cannot_convert(value)
        return Tensor(strings.text_array(value).copy())
    if isinstance(value, list | tuple):
        return _convert_sequence(value, dtype)
    if hasattr(value, "__cuda_array_interface__"):
        tensor = from_gpu(value, copy=True)
        return tensor if dtype is None else cast(tensor, dtype)
    array = _foreign_array(value)
    tensor = constant_of(array, as_dtype(array.dtype) if dtype is None else dtype)
    return _alone(tensor) if devices.used else tensor


def _alone(tensor: Tensor) -> Tensor:
    """A 0-d tensor that the user made, on the device where new tensors go."""
    value = tensor._value
    return Tensor(_placed(value)) if type(value) is _ndarray and not value.ndim else tensor


def from_gpu(value: Any, copy: bool) -> Tensor:
    """An array of another library on a GPU as a tensor there. copy: False shares its memory.

    Raises DTypeError for dtypes that graphnn lacks, DeviceError without CuPy.
    """
    where = getattr(value, "device", None)
    backend = devices.gpu(int(getattr(where, "id", None) or getattr(where, "index", None) or 0))
    with backend.scope():
        array = backend.xp.asarray(value)
    as_dtype(array.dtype)
    return Tensor(backend.duplicate(array) if copy else array)


def from_gpu_dlpack(value: Any, copy: bool) -> Tensor:
    """The same for an object with `__dlpack__` on a GPU."""
    backend = devices.gpu(value.__dlpack_device__()[1])
    with backend.scope():
        array = backend.xp.from_dlpack(value)
    as_dtype(array.dtype)
    return Tensor(backend.duplicate(array) if copy else array)


def _foreign_array(value: Any) -> np.ndarray[Any, Any]:
    if not isinstance(value, np.ndarray | np.generic | bool | int | float | range):
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        if not hasattr(value, "__array__") and not hasattr(value, "__array_interface__"):
            raise _cannot_convert(value)
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "USMmc":
        raise _cannot_convert(value, f"NumPy dtype {array.dtype}")
    if isinstance(value, range):
        return array.astype(as_dtype(int))
    return array


def _convert_sequence(value: list[Any] | tuple[Any, ...], dtype: DType | None) -> Tensor:
    leaves = list(_leaves(value))
    if any(isinstance(leaf, Operand | Size) for leaf in leaves):
        items = [convert(v, dtype) for v in value]
        common = items[0].dtype if dtype is None else dtype
        for item in items[1:] if dtype is None else ():
            common = promote(common, item.dtype)
        items = [cast(item, common) for item in items]
        columns = [TENSOR_OPS.expand_dims(item, axes=(0,)) for item in items]
        return TENSOR_OPS.concat(*columns, axis=0) if len(columns) > 1 else columns[0]  # type: ignore[no-any-return]
    if dtype is None:
        dtype = _sequence_dtype(value, leaves)
    return constant_of(value, dtype)


def _leaves(value: Any) -> Any:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _sequence_dtype(value: Any, leaves: list[Any]) -> DType:
    """float32, int32 or bool for Python numbers; arrays among them keep their dtype."""
    if not leaves:
        return DEFAULT_FLOAT
    kinds = {type(leaf) for leaf in leaves}
    if kinds <= {bool, int, float}:
        return as_dtype(float if float in kinds else int if int in kinds else bool)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise _cannot_convert(value, str(error)) from None
    if array.dtype == object or array.dtype.kind in "USMmc":
        raise _cannot_convert(value)
    return as_dtype(array.dtype)


def cast(tensor: Tensor, dtype: DType) -> Tensor:
    """The tensor in another dtype; itself if it has that one."""
    if tensor.dtype == dtype:
        return tensor
    if "T" in (tensor.dtype.kind, dtype.kind):
        raise strings.mixed("a cast")
    return TENSOR_OPS.cast(tensor, dtype=dtype.name)  # type: ignore[no-any-return]


# ---- promotion ----------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """Whether a value is a weak number: it takes the dtype of the tensors beside it."""
    return isinstance(value, bool | int | float | np.generic | Size)


def promoted(
    values: Sequence[Any], promotes: str = "common", fixed: tuple[int, ...] = ()
) -> tuple[Tensor, ...]:
    """Arguments of an op as tensors of one dtype; Python numbers are weak.

    promotes: "common", "float" (integers and bools become float32 as well) or "none" (each value
    is converted alone). fixed: positions that take no part in it.
    """
    if promotes == "none":
        return tuple(convert(v) for v in values)
    if fixed:
        rest = [v for i, v in enumerate(values) if i not in fixed]
        others = iter(promoted(rest, promotes))
        return tuple(convert(v) if i in fixed else next(others) for i, v in enumerate(values))
    strong = [None if is_number(v) else convert(v) for v in values]
    dtype = _common_dtype(values, strong)
    if promotes == "float":
        dtype = default_float(dtype)
    return tuple(
        constant_of(v, dtype) if t is None else cast(t, dtype)
        for v, t in zip(values, strong, strict=True)
    )


def _common_dtype(values: Sequence[Any], strong: Sequence[Tensor | None]) -> DType:
    dtypes = [t.dtype for t in strong if t is not None]
    if not dtypes:
        return _numbers_dtype(values)
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = promote(dtype, other)
    for value, tensor in zip(values, strong, strict=True):
        if tensor is None:
            dtype = _beside_number(value, dtype)
    return dtype


def _beside_number(value: Any, dtype: DType) -> DType:
    if dtype.kind == "T":
        raise strings.mixed("an operation")
    if isinstance(value, np.generic):
        value = value.item()
    return dtype if isinstance(value, Size) else promote(dtype, scalar_dtype(value, dtype))


def _numbers_dtype(values: Sequence[Any]) -> DType:
    kinds = [v.dtype if isinstance(v, np.generic) else _kind(v) for v in values]
    dtype = kinds[0]
    for other in kinds[1:]:
        dtype = promote(dtype, other)
    return dtype


def _kind(value: Any) -> DType:
    kind: Any = int if isinstance(value, Size) else type(value)
    return as_dtype(kind)
