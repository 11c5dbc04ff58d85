"""What an op is: one frozen dataclass, settings as fields, rules as methods.

The templates (`Elementwise`, `Reduce`, `Move`, `Source`, `Contract`, `Composite`, `Opaque`) supply
what a family shares. Defining a subclass registers it; nothing else lists ops.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, dataclass_transform

import numpy as np

from graphnn.compiler.ir.sizes import Size, product, substitute
from graphnn.compiler.ir.types import (
    ALL,
    FLOATS,
    SHORT,
    DType,
    TensorType,
    Type,
    broadcast,
    describe,
    is_float,
)
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError

REGISTRY: dict[str, type[Op]] = {}


@dataclass(frozen=True)
class NoGradient:
    """States that an op has no gradient, and why."""

    reason: str


@dataclass(frozen=True)
class Sample:
    """Arguments for the generic tests: arrays (or (shape, dtype, low, high)) and settings."""

    inputs: tuple[Any, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    differentiable: bool = True
    ulp: float | None = None


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True, eq=False, repr=False)
class Op:
    """Base of all ops. Inputs by position, settings by keyword (dataclass fields)."""

    name: ClassVar[str]
    accepts: ClassVar[tuple[DType, ...]] = ALL
    promotes: ClassVar[str] = "none"  # "common": inputs to one dtype; "float": to a float dtype
    commutative: ClassVar[bool] = False
    fusion: ClassVar[str] = "none"  # "map", "reduce", "view", "scan", "scatter": its loop form
    effect: ClassVar[bool] = False
    samples: ClassVar[Sequence[Sample]] = ()
    gradient: ClassVar[NoGradient | None] = None
    for_gradients: ClassVar[bool] = False  # the input itself, once gradients are written out
    rearranges: ClassVar[bool] = False  # the result holds elements of the one input, no others
    stretches: ClassVar[bool] = False  # it only broadcasts its one input
    apart: ClassVar[bool] = False  # its readers share no kernel with what computes its input

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        own = inspect.get_annotations(cls).values()
        if not all(str(a).startswith("ClassVar") for a in own):  # making a dataclass takes 0.5 ms
            dataclass(frozen=True, eq=False, repr=False)(cls)
        if "name" not in cls.__dict__:
            return
        known = REGISTRY.get(cls.name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"two ops are named {cls.name}: {known} and {cls}")
        REGISTRY[cls.name] = cls

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        words = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items())
        return f"{type(self).__name__}({words})"

    # ---- rules; templates and ops override what they need -------------------------------

    def infer(self, *types: TensorType) -> Type | tuple[TensorType, ...]:
        """Result type from input types; raises ShapeError or DTypeError."""
        raise TypeError(f"{self.name} states no infer rule")

    def eager(self, xp: Any, *arrays: Any) -> Any:
        """The value with NumPy or CuPy; by default the decomposition is run."""
        return self.decompose(Ops(ArrayHandler(xp)), *arrays)

    def grad(self, ops: Any, *inputs: Any, **results: Any) -> Any:
        """One gradient per input (None: no dependence), from the results `out` and `g`.

        Broadcasting is undone by the driver.
        """
        raise TypeError(f"{self.name} states no gradient rule")

    def decompose(self, ops: Any, *inputs: Any) -> Any:
        """The op said in other ops."""
        raise TypeError(f"{self.name} states no decomposition")

    def fold(self, ops: Any, *inputs: Any) -> Any:
        """A simpler node with the same value, or None; the driver broadcasts it to the result.

        Must keep NaN, infinities and signed zeros. Helpers: `graphnn.compiler.ops.algebra`.
        """
        return None

    def on_sizes(self, *values: Any) -> Any:
        """The result for arrays of ints and symbolic sizes, as such an array; None: not known."""
        return None

    def uniform(self) -> Any:
        """The number that all elements of the result are, if the settings say so."""
        return None

    @property
    def epilogue(self) -> str:
        """What a library's product can do to its result in the place of this op: "add", "cast",
        "relu" or "gelu" (by tanh); "" for nothing."""
        return ""

    # ---- how the text form shows settings -----------------------------------------------

    def text_settings(self) -> dict[str, Any]:
        """Settings as literals; those at their default are left out."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.default is MISSING or not _same_literal(getattr(self, f.name), f.default)
        }

    @classmethod
    def from_text(cls, settings: dict[str, Any]) -> Op:
        """The op back from `text_settings`."""
        return cls(**settings)

    # ---- what passes ask --------------------------------------------------------------

    @classmethod
    def has(cls, rule: str) -> bool:
        """Whether the op (or its template) states a rule itself."""
        return getattr(cls, rule) is not getattr(Op, rule)

    def settings(self) -> dict[str, Any]:
        """Field values by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def bind(self, env: dict[Any, Any]) -> Op:
        """The op with symbolic sizes in its settings replaced by numbers."""
        old = self.settings()
        new = {k: _bind(v, env) for k, v in old.items()}
        return self if new == old else type(self)(**new)

    def check_dtypes(self, types: Sequence[TensorType]) -> None:
        """Raise DTypeError for an input the op does not take."""
        for position, t in enumerate(types):
            if t.dtype not in self.accepts:
                raise DTypeError(
                    self.name,
                    received=f"input {position} {describe(t.dtype, t.shape)}",
                    expected="dtype " + ", ".join(d.name for d in self.accepts),
                    fix="cast the input first, e.g. graphnn.cast(x, "
                    f"{self.accepts[-2 if len(self.accepts) > 1 else 0].name!r})",
                )


def _same_literal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and repr(value) == repr(default)


def _bind(value: Any, env: dict[Any, Any]) -> Any:
    if isinstance(value, Size):
        return substitute(value, env)
    if isinstance(value, tuple):
        return tuple(_bind(v, env) for v in value)
    return value


def normalize_axis(axis: int, ndim: int, subject: str) -> int:
    """A non-negative axis; raises ArgumentError out of range."""
    if not -ndim <= axis < max(ndim, 1):
        raise ArgumentError(
            subject,
            received=f"axis {axis} for a tensor with {ndim} axes",
            expected=f"an axis from {-ndim} to {ndim - 1}",
            fix="give an axis the tensor has",
        )
    return axis % ndim if ndim else 0


class Elementwise(Op):
    """One result element from one element of each input, with broadcasting.

    `scalar(emit, *elements)` says the element; both code generators run it.
    """

    fusion = "map"
    arity: ClassVar[int] = 1
    promotes = "common"
    result: ClassVar[DType | None] = None  # None: the dtype of the inputs
    fixed_inputs: ClassVar[tuple[int, ...]] = ()  # these keep their dtype in promotions

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        dtypes = {t.dtype for t in types}
        if len(dtypes) > 1:
            raise DTypeError(
                self.name,
                received=" and ".join(describe(t.dtype, t.shape) for t in types),
                expected="inputs of one dtype",
                fix="cast one of them",
            )
        shape = broadcast(tuple(t.shape for t in types), self.name)
        return TensorType(shape, self.result or types[0].dtype)

    def scalar(self, emit: Any, *elements: Any) -> Any:
        """The element of the result."""
        raise TypeError(f"{self.name} states no scalar rule")

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        """The result element at an index tuple, from functions that load input elements."""
        return self.scalar(emit, *(load(broadcast_index(index, load.shape)) for load in loads))


class Load:
    """Loads one element of an input: call it with an index tuple. `shape`, `dtype` are its type."""

    def __init__(self, type: TensorType, load: Callable[[tuple[Any, ...]], Any]) -> None:
        self.type, self._load = type, load
        self.shape, self.dtype = type.shape, type.dtype

    def __call__(self, index: tuple[Any, ...]) -> Any:
        return self._load(index)


def broadcast_index(index: tuple[Any, ...], shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index into an input of `shape` for the index of the broadcast result."""
    own = index[len(index) - len(shape) :]
    return tuple(0 if s == 1 else i for i, s in zip(own, shape, strict=True))


class Move(Op):
    """Each result element is one input element (or a fill value) at another index."""

    fusion = "view"

    def on_sizes(self, *values: Any) -> Any:
        return self.eager(np, *values)  # NumPy moves symbolic sizes as objects

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        """The result element at an index tuple."""
        raise TypeError(f"{self.name} states no element rule")


class Source(Op):
    """A tensor made from nothing but its index: fill, iota."""

    fusion = "map"

    def element(self, emit: Any, out: TensorType, index: Any, loads: Sequence[Load]) -> Any:
        """The result element at an index tuple."""
        raise TypeError(f"{self.name} states no element rule")


class Reduce(Op):
    """Combines the elements over `axes` with an associative operation.

    `monoid` is the scalar operation ("add", "mul", "max", "min", "or", "and").
    """

    fusion = "reduce"
    monoid: ClassVar[str]
    axes: tuple[int, ...]
    keepdims: bool

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        (x,) = types
        axes = tuple(normalize_axis(a, x.ndim, self.name) for a in self.axes)
        if len(set(axes)) != len(axes):
            raise ArgumentError(
                self.name, received=f"axes {self.axes}", expected="each axis once", fix="drop one"
            )
        return TensorType(reduced_shape(x.shape, axes, self.keepdims), self.result_dtype(x.dtype))

    def result_dtype(self, dtype: DType) -> DType:
        """Dtype of the result."""
        return dtype

    def initial(self, dtype: DType) -> Any:
        """The neutral element."""
        return neutral(self.monoid, dtype)


def reduced_shape(shape: tuple[Any, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[Any, ...]:
    """Shape after reducing some (non-negative) axes."""
    if keepdims:
        return tuple(1 if i in axes else s for i, s in enumerate(shape))
    return tuple(s for i, s in enumerate(shape) if i not in axes)


def neutral(monoid: str, dtype: DType) -> Any:
    """The neutral element of a scalar operation: 0, 1, or the least or greatest value."""
    if monoid in ("add", "or"):
        return 0
    if monoid in ("mul", "and"):
        return 1
    if is_float(dtype):
        return -np.inf if monoid == "max" else np.inf
    if dtype == np.bool_:
        return monoid == "min"
    info = np.iinfo(dtype)
    return int(info.min if monoid == "max" else info.max)


class Composite(Op):
    """Said in other ops by `decompose`; keeps its own `grad` where a better one is known."""

    promotes = "float"
    accepts: ClassVar[tuple[DType, ...]] = FLOATS

    def infer(self, *types: TensorType) -> Type | tuple[TensorType, ...]:
        self.check_dtypes(types)
        result = self.decompose(Ops(TypeHandler()), *map(TypeValue, types))
        if isinstance(result, tuple):
            return tuple(r.type for r in result)
        return result.type  # type: ignore[no-any-return]


class Opaque(Op):
    """No loop form: a library call (`library`) or a call back to `eager` on the host."""


# ---- handlers: what "apply an op" means ---------------------------------------------------


class Ops:
    """The registry as functions: `ops.mul(a, b)`, `ops.sum(x, axes=(0,), keepdims=False)`."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def __getattr__(self, name: str) -> Callable[..., Any]:
        cls = REGISTRY.get(name)
        if cls is None:
            raise AttributeError(f"no op is named {name}")
        handler = self._handler

        def call(*inputs: Any, **settings: Any) -> Any:
            op = cls(**settings)
            return handler.apply(op, handler.lift(op, inputs))

        self.__dict__[name] = call
        return call

    def type(self, value: Any) -> TensorType:
        """Type of a value of this handler."""
        return self._handler.type(value)  # type: ignore[no-any-return]


def is_scalar(value: Any) -> bool:
    """Whether a value is a Python (or 0-d NumPy) number that takes the other operand's dtype."""
    return isinstance(value, bool | int | float | np.generic | Size)


class BaseHandler:
    """Lifts Python numbers to constants of the other operand's dtype."""

    def lift(self, op: Op, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Inputs with Python numbers made constants."""
        if not any(is_scalar(v) for v in inputs):
            return tuple(inputs)
        dtypes = [self.type(v).dtype for v in inputs if not is_scalar(v)]
        dtype = next((d for d in dtypes if d != np.bool_), dtypes[0] if dtypes else None)
        if dtype is None:
            raise TypeError(f"{op.name} got only Python numbers")
        return tuple(self.constant(v, dtype) if is_scalar(v) else v for v in inputs)

    def type(self, value: Any) -> TensorType:
        """Type of a value."""
        raise TypeError("handler without types")

    def constant(self, value: Any, dtype: DType) -> Any:
        """A 0-d constant."""
        raise TypeError("handler without constants")


class ArrayHandler(BaseHandler):
    """Runs ops at once on NumPy or CuPy arrays."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def apply(self, op: Op, inputs: Sequence[Any]) -> Any:
        """The op's value: an array, also where NumPy gives a scalar for 0-d inputs."""
        value = op.eager(self.xp, *inputs)
        if isinstance(value, tuple):
            return tuple(map(np.asarray, value)) if self.xp is np else value
        return np.asarray(value) if isinstance(value, np.generic) else value

    def type(self, value: Any) -> TensorType:
        return TensorType(tuple(value.shape), value.dtype)

    def constant(self, value: Any, dtype: DType) -> Any:
        return np.asarray(value, dtype) if self.xp is np else self.xp.full((), value, dtype)


class TypeValue:
    """Stands for a value of which only the type is known."""

    def __init__(self, type: TensorType) -> None:
        self.type, self.shape, self.dtype = type, type.shape, type.dtype


class TypeHandler(BaseHandler):
    """Runs ops on types only: how composites infer."""

    def apply(self, op: Op, inputs: Sequence[Any]) -> Any:
        """The result's type (or tuple of types) as values."""
        result = op.infer(*(v.type for v in inputs))
        if isinstance(result, tuple):
            return tuple(map(TypeValue, result))
        return TypeValue(result)  # type: ignore[arg-type]

    def type(self, value: Any) -> TensorType:
        return value.type  # type: ignore[no-any-return]

    def constant(self, value: Any, dtype: DType) -> Any:
        return TypeValue(TensorType((), dtype))


def camel_to_snake(name: str) -> str:
    """How a class name would be spelled as an op name.

    >>> camel_to_snake("LogSoftmax")
    'log_softmax'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def signature(op: type[Op]) -> str:
    """One line: name, fusion class and dtypes; the op table of the dump tool."""
    return f"{op.name} ({op.fusion}): {', '.join(SHORT[d] for d in op.accepts)}"


def element_count(shape: Sequence[Any]) -> Any:
    """Number of elements of a shape."""
    return product(shape)


def check_same_shape(a: TensorType, b: TensorType, subject: str) -> None:
    """Raise ShapeError unless two tensors have one shape."""
    if a.shape != b.shape:
        raise ShapeError(
            subject,
            received=f"{describe(a.dtype, a.shape)} and {describe(b.dtype, b.shape)}",
            expected="tensors of one shape",
            fix="reshape or broadcast one of them",
        )
