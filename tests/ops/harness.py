"""The generic harness: every op with samples is run through everything an op must do.

`CASES` lists (op class, number of the sample); the functions `check_*` each take one of them.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphnn.compiler.ops  # noqa: F401  (fills the registry)
from graphnn.build import compile_graph
from graphnn.compiler.gradients import Step, backpropagate
from graphnn.compiler.ir.sizes import Size, symbol
from graphnn.compiler.ir.types import (
    ALL,
    FLOATS,
    INTEGERS,
    DType,
    TensorType,
    as_dtype,
    bool_,
    float32,
    float64,
    int32,
    is_float,
)
from graphnn.compiler.ops.base import (
    REGISTRY,
    BaseHandler,
    Elementwise,
    Op,
    Ops,
    Sample,
)
from graphnn.compiler.ops.division import Division
from graphnn.compiler.trace import Trace
from graphnn.runtime.errors import GraphnnError
from tests.ops.scalar_eval import element_value

Case = tuple[type[Op], int]
KINDS = {"f": (float32, FLOATS), "i": (int32, INTEGERS), "b": (bool_, (bool_,))}


def cases(registry: dict[str, type[Op]] = REGISTRY) -> list[Case]:
    """Every op of the registry with each of its samples."""
    ordered = sorted(registry.values(), key=lambda c: c.name)
    return [(op, number) for op in ordered for number in range(len(op.samples))]


def label(case: Case) -> str:
    """Name of a case for pytest."""
    return f"{case[0].name}-{case[1]}"


# ---- data ---------------------------------------------------------------------------------


def make_array(spec: Any, dtype: DType, rng: np.random.Generator) -> Any:
    """An array for an input of a sample: (kind, shape[, low, high]), or an array as it is.

    Floats lie in [low, high), by default [-2, 2); integers in low to high - 1, by default -5 to 5,
    cut to what the dtype holds.
    """
    if isinstance(spec, np.ndarray):
        return spec.astype(dtype)
    _, shape, *limits = spec
    if dtype == bool_:
        return rng.integers(0, 2, shape).astype(bool_)
    if is_float(dtype):
        low, high = limits or (-2.0, 2.0)
        return np.asarray(rng.uniform(low, high, shape)).astype(dtype)
    info = np.iinfo(dtype)
    if not limits and spec[0] not in KINDS:  # a fixed dtype such as the state of a generator
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    low, high = limits or (-5, 6)
    low, high = max(low, int(info.min)), min(high, int(info.max) + 1)
    return np.asarray(rng.integers(low, max(high, low + 1), shape)).astype(dtype)


def dtypes_of(op: type[Op], sample: Sample) -> Iterator[tuple[DType, ...]]:
    """Dtypes for the inputs: each kind in turn through all the dtypes that the op takes."""
    kinds = [_kind(spec) for spec in sample.inputs]
    main = kinds[0] if kinds else ""
    seen = set()
    for varied in dict.fromkeys(("", *kinds)):
        if varied and varied not in KINDS:
            continue
        allowed = KINDS[varied][1] if varied else (None,)
        if varied == main or (varied and any(d in op.accepts for d in allowed)):
            allowed = tuple(d for d in allowed if d in op.accepts)
        for dtype in allowed:
            chosen = tuple(_default(op, k) if k != varied else dtype for k in kinds)
            if chosen not in seen:
                seen.add(chosen)
                yield chosen  # type: ignore[misc]


def _kind(spec: Any) -> str:
    return spec.dtype.name if isinstance(spec, np.ndarray) else str(spec[0])


def _default(op: type[Op], kind: str) -> DType:
    if kind not in KINDS:
        return as_dtype(kind)
    first, others = KINDS[kind]
    if first in op.accepts:
        return first
    return next((d for d in others if d in op.accepts), first)


@dataclass(frozen=True)
class Call:
    """An op with arrays to call it on."""

    op: Op
    sample: Sample
    arrays: tuple[Any, ...]

    @property
    def types(self) -> tuple[TensorType, ...]:
        """Types of the arrays."""
        return tuple(TensorType(a.shape, a.dtype) for a in self.arrays)

    def eager(self) -> Any:
        """The op's value."""
        return self.op.eager(np, *self.arrays)


def call_of(case: Case, dtypes: Sequence[DType]) -> Call:
    """A case with data of the given dtypes; the same data every time."""
    op, number = case
    sample = op.samples[number]
    rng = np.random.default_rng(zlib.crc32(label(case).encode()))
    arrays = tuple(make_array(s, d, rng) for s, d in zip(sample.inputs, dtypes, strict=True))
    return Call(op(**sample.settings), sample, arrays)


def calls_of(case: Case) -> Iterator[Call]:
    """A case in every combination of dtypes that is tried."""
    op, number = case
    for dtypes in dtypes_of(op, op.samples[number]):
        yield call_of(case, dtypes)


FLOAT_VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, 1.5, -2.5, 3.0, 88.5, -104.0, 1e4, -1e4, 1e-5)
INTEGER_VALUES = (0, 1, -1, 2, 3, -7, 31, 64, 100)


def special_values(dtype: DType) -> Any:
    """Zeros, infinities, NaN, bounds, and some ordinary numbers of a dtype."""
    if dtype == bool_:
        return np.array([False, True])
    if not is_float(dtype):
        info = np.iinfo(dtype)
        values = {*INTEGER_VALUES, int(info.min), int(info.max)}
        return np.array(sorted(v for v in values if info.min <= v <= info.max), dtype)
    wide = np.array([*FLOAT_VALUES, np.inf, -np.inf, np.nan, 1e-30, -1e30], float64)
    with np.errstate(all="ignore"):
        return wide.astype(dtype)


def elementwise(registry: dict[str, type[Op]] = REGISTRY) -> list[type[Op]]:
    """All element-wise ops with samples."""
    found = [op for op in registry.values() if issubclass(op, Elementwise) and op.samples]
    return sorted(found, key=lambda op: op.name)


def special_calls(op: type[Op]) -> Iterator[Call]:
    """An element-wise op on all combinations of special values, in every dtype it accepts."""
    sample = op.samples[0]
    if op.name == "checked_labels":  # refuses most of them
        return
    for dtype in op.accepts:
        count = len(sample.inputs)
        dtypes = [bool_ if k in getattr(op, "fixed_inputs", ()) else dtype for k in range(count)]
        grid = np.meshgrid(*map(special_values, dtypes), indexing="ij")
        arrays = tuple(a.reshape(-1).astype(d) for a, d in zip(grid, dtypes, strict=True))
        if issubclass(op, Division) and not is_float(dtype):  # refuses 0
            arrays = tuple(a[arrays[1] != 0] for a in arrays)
        for settings in {repr(s.settings): s.settings for s in op.samples}.values():
            yield Call(op(**settings), sample, arrays)


# ---- checks -------------------------------------------------------------------------------


def check_eager(call: Call) -> None:
    """`eager` gives exactly the inferred shapes and dtypes."""
    expected = call.op.infer(*call.types)
    value = call.eager()
    if not isinstance(expected, tuple):
        expected, value = (expected,), (value,)
    for t, v in zip(expected, value, strict=True):
        assert TensorType(tuple(v.shape), v.dtype) == t, call.op
        assert not np.ma.isMaskedArray(v)


def check_wrong_dtype(case: Case) -> None:
    """An input of a dtype that the op does not take is refused with the designed error."""
    op = case[0]
    call = next(calls_of(case))
    refused = [d for d in ALL if d not in op.accepts]
    if not refused or not call.types or is_checked_elsewhere(op):
        return
    for dtype in refused:
        types = (call.types[0].with_dtype(dtype), *call.types[1:])
        try:
            call.op.infer(*types)
        except GraphnnError as error:
            assert op.name in str(error) and dtype.name in str(error)
        else:
            raise AssertionError(f"{op.name} takes {dtype}, which is not in `accepts`")


def is_checked_elsewhere(op: type[Op]) -> bool:
    """Ops whose first input is not the one that `accepts` speaks of."""
    return op.name in ("where",)


def check_symbolic(call: Call) -> bool:
    """`infer` with symbols for sizes agrees with `infer` with numbers.

    Returns: whether the op accepted the symbols (an op whose settings state sizes may refuse).
    """
    env: dict[Any, int] = {}
    types = tuple(_symbolic(t, env) for t in call.types)
    concrete = call.op.infer(*call.types)
    try:
        result = call.op.infer(*types)
    except GraphnnError:
        assert not isinstance(call.op, Elementwise), "element-wise ops take any sizes"
        return False
    first = concrete if isinstance(concrete, tuple) else (concrete,)
    second = result if isinstance(result, tuple) else (result,)
    for t, s in zip(first, second, strict=True):
        assert s.bind(env) == t, f"{call.op}: {s} for {t}"
    return True


def _symbolic(type: TensorType, env: dict[Any, int]) -> TensorType:
    shape = []
    for size in type.shape:
        if size >= 2:
            env[f"n{size}"] = size
        shape.append(symbol(f"n{size}") if size >= 2 else size)
    return type.with_shape(tuple(shape))


def check_element(call: Call) -> None:
    """The `scalar` or `element` rule gives the value of `eager`."""
    out = call.op.infer(*call.types)
    assert isinstance(out, TensorType)
    settings = call.op.settings().values()
    assert not any(isinstance(s, Size) for s in settings)
    assert_close(element_value(call.op, out, call.arrays), call.eager(), call)


def has_element(op: type[Op]) -> bool:
    """Whether the op states how one element is computed."""
    if issubclass(op, Elementwise):
        return True
    rule = getattr(op, "element", None)
    return rule is not None and op.fusion in ("map", "view")


def check_compiled(call: Call) -> None:
    """Compiled code gives the value of `eager`."""
    expected, value = call.eager(), compiled_value(call.op, call.arrays)
    if not isinstance(expected, tuple):
        expected, value = (expected,), (value,)
    for e, v in zip(expected, value, strict=True):
        assert_close(v, e, call)


def compiled_value(op: Op, arrays: Sequence[Any]) -> Any:
    """The op's value by compiled code: an array or a tuple of arrays."""
    trace = Trace(op.name)
    inputs = [trace.argument(f"x{k}", TensorType(a.shape, a.dtype)) for k, a in enumerate(arrays)]
    out = trace.apply(op, inputs)
    outputs = out if isinstance(out, tuple) else (out,)
    values = compile_graph(trace.finish(outputs)).run(
        [np.ascontiguousarray(a).reshape(a.shape) for a in arrays]
    )
    return tuple(values) if isinstance(out, tuple) else values[0]


def assert_close(value: Any, expected: Any, call: Call) -> None:
    """Equal type; equal value, or within the sample's ulp for floats.

    By default 4 ulp of each element; a number that a sample states is in ulp of the element or
    of 1, whichever is greater, for results that lose digits by cancellation.
    """
    value, expected = np.asarray(value), np.asarray(expected)
    assert (value.shape, value.dtype) == (expected.shape, expected.dtype)
    if not is_float(value.dtype):
        np.testing.assert_array_equal(value, expected)
        return
    ulp = 4.0 if call.sample.ulp is None else call.sample.ulp
    eps = float(_epsilon(value.dtype))
    a, b = value.astype(float64), expected.astype(float64)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    least = float(np.finfo(float64).tiny) if call.sample.ulp is None else ulp * eps
    np.testing.assert_allclose(a, b, rtol=ulp * eps, atol=least, err_msg=str(call.op))
    if call.sample.ulp == 0:
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


def _epsilon(dtype: DType) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


# ---- gradients ----------------------------------------------------------------------------


class Value:
    """One recorded value; an object of its own even where two ops return the same array."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)
        self.shape, self.dtype = self.array.shape, self.array.dtype


class Recorder(BaseHandler):
    """Runs ops at once and remembers the steps, as a tape does."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.ops = Ops(self)

    def type(self, value: Value) -> TensorType:
        return TensorType(value.shape, value.dtype)

    def constant(self, value: Any, dtype: DType) -> Value:
        return Value(np.asarray(value, dtype))

    def apply(self, op: Op, inputs: Sequence[Value]) -> Any:
        """The op's value; composites without a rule of their own are recorded as their parts."""
        if op.has("decompose") and not op.has("grad") and op.gradient is None:
            return op.decompose(self.ops, *inputs)
        expected = op.infer(*(self.type(v) for v in inputs))
        result = op.eager(np, *(v.array for v in inputs))
        if isinstance(expected, tuple):
            out: Any = tuple(map(Value, result))
        else:
            out = Value(result)
            assert self.type(out) == expected, f"{op}: {self.type(out)}, inferred {expected}"
        self.steps.append(Step(op, tuple(inputs), out))
        return out


def gradients(recorder: Recorder, targets: Any, weights: Any, inputs: Sequence[Value]) -> list[Any]:
    """Gradients of sum(target * weight) for some inputs; zeros where nothing depends."""
    found = backpropagate(
        recorder.ops, list(recorder.steps), list(zip(targets, weights, strict=True)), inputs
    )
    return [found.get(id(i)) or Value(np.zeros(i.shape, i.dtype)) for i in inputs]


class Function:
    """An op on float64 data as a function of its float inputs, and its gradients."""

    def __init__(self, call: Call) -> None:
        self.op, self.arrays = call.op, call.arrays
        self.wanted = [k for k, a in enumerate(call.arrays) if a.dtype == float64]
        rng = np.random.default_rng(5)
        outs = [o for o in self.outputs(Recorder(), self.inputs(call.arrays)) if is_float(o.dtype)]
        self.weights = [rng.uniform(0.5, 1.5, o.shape).astype(o.dtype) for o in outs]
        self.directions = [rng.uniform(-1, 1, self.arrays[k].shape) for k in self.wanted]

    def inputs(self, arrays: Sequence[Any]) -> list[Value]:
        """Fresh values."""
        return [Value(a) for a in arrays]

    def outputs(self, recorder: Recorder, inputs: Sequence[Value]) -> list[Value]:
        """Float results of the op."""
        out = recorder.apply(self.op, inputs)
        outs = out if isinstance(out, tuple) else (out,)
        return [o for o in outs if is_float(o.dtype)]

    def first(self, recorder: Recorder, inputs: Sequence[Value]) -> list[Value]:
        """Gradients of the weighted sum of the results."""
        outs = self.outputs(recorder, inputs)
        weights = self.inputs(self.weights)
        return gradients(recorder, outs, weights, [inputs[k] for k in self.wanted])

    def sum_at(self, arrays: Sequence[Any], order: int) -> Any:
        """The weighted sum (order 0), or its derivative along the directions (order 1)."""
        recorder, inputs = Recorder(), self.inputs(arrays)
        if order == 0:
            pairs: Any = zip(self.outputs(recorder, inputs), self.weights, strict=True)
        else:
            pairs = zip(self.first(recorder, inputs), self.directions, strict=True)
        return sum(float(np.sum(v.array.astype(float64) * w)) for v, w in pairs)

    def slopes(self, order: int) -> list[Any]:
        """Gradients of `sum_at`, by the rules."""
        recorder, inputs = Recorder(), self.inputs(self.arrays)
        wanted = [inputs[k] for k in self.wanted]
        if order == 0:
            return [v.array for v in self.first(recorder, inputs)]
        firsts = self.first(recorder, inputs)
        found = gradients(recorder, firsts, self.inputs(self.directions), wanted)
        return [v.array for v in found]


STEP = 1e-5


def check_gradient(call: Call, order: int) -> None:
    """Gradients (order 0) or second derivatives (order 1) against central differences."""
    function = Function(call)
    rng = np.random.default_rng(6)
    for k, slope in zip(function.wanted, function.slopes(order), strict=True):
        assert slope.shape == call.arrays[k].shape and slope.dtype == float64
        for _ in range(2):
            direction = rng.uniform(-1, 1, slope.shape)
            above, below = list(call.arrays), list(call.arrays)
            above[k] = np.asarray(call.arrays[k] + STEP * direction)
            below[k] = np.asarray(call.arrays[k] - STEP * direction)
            numeric = (function.sum_at(above, order) - function.sum_at(below, order)) / (2 * STEP)
            exact = float(np.sum(slope * direction))
            scale = 1.0 + float(np.sum(np.abs(slope * direction)))
            assert abs(numeric - exact) <= 2e-6 * scale, (
                f"{call.op} input {k}: rule {exact}, differences {numeric}"
            )


def gradient_call(case: Case) -> Call | None:
    """The case in float64, or None where the op has no gradient there."""
    op, number = case
    sample = op.samples[number]
    kinds = [_kind(s) for s in sample.inputs]
    if op.gradient is not None or not sample.differentiable or "f" not in kinds:
        return None
    if float64 not in op.accepts:
        return None
    dtypes = [float64 if k == "f" else _default(op, k) for k in kinds]
    call = call_of(case, dtypes)
    out = call.op.infer(*call.types)
    outs = out if isinstance(out, tuple) else (out,)
    return call if any(is_float(o.dtype) for o in outs) else None


def check_docstring(op: type[Op]) -> None:
    """The class has a docstring of its own."""
    text = inspect.getdoc(op) or ""
    assert text and not text.startswith(f"{op.__name__}("), f"{op.name} has no docstring"
