"""Ops that structure a graph: inputs, constants, tuple items, gradients, barriers, checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.sizes import substitute
from graphnn.compiler.ir.types import DType, TensorType, Type, as_dtype, int64, is_float
from graphnn.compiler.ops.base import Elementwise, NoGradient, Op, Opaque, Sample, Source

MOST_SHOWN = 64  # elements of a constant that the text form shows


class Input(Op):
    """A value that a graph is given: an argument, a captured tensor or a Variable's value.

    Two inputs are never the same, whatever their settings; `type` is kept by the node.
    """

    name = "input"
    label: str
    kind: str = "argument"  # "argument", "capture" or "variable"
    gradient = NoGradient("an input has no inputs")


class Constant(Source):
    """A small fixed tensor.

    bits: the row-major bytes; shape, dtype: its type.
    """

    name = "constant"
    gradient = NoGradient("a constant has no inputs")
    bits: bytes
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, value: Any, dtype: DType | None = None) -> Constant:
        """The constant with the value of an array or number."""
        array = np.asarray(value, dtype)
        return cls(bits=array.tobytes(), shape=array.shape, dtype=array.dtype.name)

    @property
    def value(self) -> Any:
        """The array, read-only."""
        return np.frombuffer(self.bits, as_dtype(self.dtype)).reshape(self.shape)

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.shape, as_dtype(self.dtype))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return xp.asarray(self.value)

    def uniform(self) -> Any:
        # Equal bytes, so that 0.0 and -0.0 differ.
        width = as_dtype(self.dtype).itemsize
        first = self.bits[:width]
        if not first or first * (len(self.bits) // width) != self.bits:
            return None
        return self.value.reshape(-1)[0].item()

    def text_settings(self) -> dict[str, Any]:
        array = self.value
        if array.size > MOST_SHOWN:
            return {"bits": self.bits, "shape": self.shape, "dtype": self.dtype}
        settings = {"value": _shortest(array), "dtype": self.dtype}
        return settings if array.size else settings | {"shape": self.shape}

    @classmethod
    def from_text(cls, settings: dict[str, Any]) -> Op:
        if "bits" in settings:
            return cls(**settings)
        array = np.asarray(settings["value"], as_dtype(settings["dtype"]))
        return cls.of(array.reshape(settings.get("shape", array.shape)))

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        values = self.value.reshape(-1)
        result = emit.constant(values[-1] if len(values) else 0, out.dtype)
        if len(values) <= 1:
            return result
        linear: Any = 0
        for i, extent in zip(index, self.shape, strict=True):
            linear = linear * extent + i
        at = emit.index(linear)
        for position in range(len(values) - 2, -1, -1):
            here = emit.compare("eq", at, emit.constant(position, int64))
            result = emit.select(here, emit.constant(values[position], out.dtype), result)
        return result


def _shortest(array: Any) -> Any:
    """Nested lists of Python numbers, floats with as few digits as their dtype needs."""
    if array.ndim:
        return [_shortest(item) for item in array]
    return float(str(array)) if is_float(array.dtype) else array.item()


class SizeOf(Source):
    """A symbolic size as a 0-d integer tensor."""

    name = "size_of"
    gradient = NoGradient("a size is an integer")
    size: Any
    dtype: str = "int32"

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType((), as_dtype(self.dtype))

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return xp.asarray(int(substitute(self.size, {})), as_dtype(self.dtype))

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        return emit.cast(emit.index(self.size), out.dtype)


class Item(Op):
    """One result of an op with several."""

    name = "item"
    index: int

    def infer(self, *types: Any) -> TensorType:
        return types[0].items[self.index]  # type: ignore[no-any-return]

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return arrays[0][self.index]


class Gradient(Op):
    """Gradients of targets with respect to sources, until the gradient pass expands it.

    Inputs: `targets` nodes, `sources` nodes, `constants` nodes (where the tape was not recording,
    so that paths end there), then one seed per target. Results: one tensor per source.
    """

    name = "gradient"
    targets: int
    sources: int
    constants: int = 0

    def infer(self, *types: TensorType) -> Type | tuple[TensorType, ...]:
        return types[self.targets : self.targets + self.sources]


class Identity(Elementwise):
    """The input itself; a new name for the same value."""

    name, fusion = "identity", "map"
    samples = (Sample((("f", (3, 4)),)),)

    def eager(self, xp: Any, x: Any) -> Any:
        return x

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (g,)

    def on_sizes(self, *values: Any) -> Any:
        return values[0]

    def scalar(self, emit: Any, x: Any) -> Any:
        return x

    def fold(self, ops: Any, x: Any) -> Any:
        return x


class StopGradient(Elementwise):
    """The input itself, through which no gradient flows."""

    name = "stop_gradient"
    gradient = NoGradient("stop_gradient ends every path")
    for_gradients = True
    samples = (Sample((("f", (3, 4)),), differentiable=False),)

    def eager(self, xp: Any, x: Any) -> Any:
        return x

    def on_sizes(self, *values: Any) -> Any:
        return values[0]

    def scalar(self, emit: Any, x: Any) -> Any:
        return x


class Barrier(Elementwise):
    """The input itself, kept apart from equal expressions: what hangs on it is recomputed."""

    name = "barrier"
    apart = True
    key: int
    samples = (Sample((("f", (3, 4)),), settings={"key": 1}),)

    def eager(self, xp: Any, x: Any) -> Any:
        return x

    def grad(self, ops: Any, x: Any, *, out: Any, g: Any) -> Any:
        return (g,)

    def scalar(self, emit: Any, x: Any) -> Any:
        return x


class CustomGradient(Op):
    """Several tensors passed through, with a gradient that the user states.

    Inputs: the function's inputs (`count` of them), then its results. Results: the results.
    rule(ops, inputs, outs, gs) gives one gradient per input of the function. across: whether the
    rule waits for other replicas; then it must run when a tape is asked, not in a pass.
    """

    name = "custom_gradient"
    count: int
    rule: Callable[..., Any]
    across: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return types[self.count :]

    def eager(self, xp: Any, *arrays: Any) -> Any:
        return arrays[self.count :]

    def grad(self, ops: Any, *inputs: Any, out: Any, g: Any) -> Any:
        gradients = self.rule(ops, inputs[: self.count], out, g)
        return (*gradients, *[None] * (len(inputs) - self.count))

    def decompose(self, ops: Any, *inputs: Any) -> Any:
        return tuple(ops.identity(x) for x in inputs[self.count :])


class HostCall(Opaque):
    """A Python function called on arrays on the host, in the middle of a program.

    function(*arrays) -> tuple of arrays of the stated `types`.
    """

    name, effect = "host_call", True  # two calls may differ, so they are never merged
    gradient: ClassVar[NoGradient | None] = NoGradient("the function is unknown to the compiler")
    function: Callable[..., Any]
    types: tuple[TensorType, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return self.types

    def eager(self, xp: Any, *arrays: Any) -> Any:
        results = self.function(*arrays)
        return tuple(
            np.asarray(r, t.dtype).reshape(t.shape)
            for r, t in zip(results, self.types, strict=True)
        )
