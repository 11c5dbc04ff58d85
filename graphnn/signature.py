"""What a call of a `@function` depends on: structure, dtypes, shapes, Python values, flags."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from graphnn import tree
from graphnn.apply import convert
from graphnn.compiler.ir.types import DType, as_dtype, describe
from graphnn.runtime import devices
from graphnn.runtime.errors import ArgumentError, DTypeError
from graphnn.strings import dtype_name, is_string_dtype, no_trace, string
from graphnn.tensor import Operand, Tensor, Traced, raise_leak

ndarray = np.ndarray
SCALARS = frozenset({int, bool, str, type(None)})


class TensorSpec:
    """Shape and dtype of a tensor argument; None stands for a size that may change.

    shape: sizes and Nones. dtype: any dtype, float32 by default; that of strings is for Datasets
    only. name: for messages.

    >>> graphnn.TensorSpec([None, 3])
    TensorSpec(shape=(None, 3), dtype=float32)
    """

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, shape: Any, dtype: Any = "float32", name: str | None = None) -> None:
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        bad = [s for s in sizes if s is not None and (not isinstance(s, int) or s < 0)]
        if bad:
            raise ArgumentError(
                "TensorSpec",
                received=f"size {bad[0]!r}",
                expected="sizes of 0 or more, None for one that may change",
                fix="give e.g. TensorSpec([None, 784])",
            )
        self.shape: tuple[int | None, ...] = sizes
        self.dtype: DType = string if is_string_dtype(dtype) else as_dtype(dtype)
        self.name = name

    @classmethod
    def from_tensor(cls, tensor: Any, name: str | None = None) -> TensorSpec:
        """The spec with the shape and dtype of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype, name)

    def is_compatible_with(self, value: Any) -> bool:
        """Whether a tensor or spec has this dtype and fits this shape."""
        return value.dtype == self.dtype and self.fits(tuple(value.shape))

    def fits(self, shape: tuple[Any, ...]) -> bool:
        """Whether a shape has the fixed sizes."""
        return len(shape) == len(self.shape) and all(
            a is None or a == b for a, b in zip(self.shape, shape, strict=True)
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TensorSpec)
            and self.shape == other.shape
            and self.dtype == other.dtype
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        name = f", name={self.name!r}" if self.name else ""
        return f"TensorSpec(shape={self.shape}, dtype={dtype_name(self.dtype)}{name})"


# ---- flags: global settings that traced code depends on -------------------------------------


class Flags:
    """Settings outside of the arguments that change what a trace computes (a dtype policy, ...).

    Whoever owns one registers how to read it and calls `changed` when it changes.
    """

    def __init__(self) -> None:
        self.version = 0
        self._read: dict[str, Callable[[], Hashable]] = {}

    def register(self, name: str, read: Callable[[], Hashable]) -> None:
        """Make a setting part of every signature."""
        self._read[name] = read
        self.changed()

    def changed(self) -> None:
        """Tell that some setting may have another value."""
        self.version += 1

    def values(self) -> tuple[tuple[str, Hashable], ...]:
        """Names and values of all settings; one that is None is not in force."""
        pairs = ((name, read()) for name, read in self._read.items())
        return tuple(pair for pair in pairs if pair[1] is not None)


FLAGS = Flags()

# ---- leaves --------------------------------------------------------------------------------


class ById:
    """An object compared by identity, without keeping it alive where that is possible."""

    __slots__ = ("_get", "_hash", "text")

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        self.text = f"{type(value).__name__} object"
        try:
            self._get: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ById) or self._hash != other._hash:
            return False
        mine = self._get()
        return mine is not None and mine is other._get()

    def __repr__(self) -> str:
        return f"{self.text} at {self._hash:#x}"


@dataclass(frozen=True)
class TensorLeaf:
    """A tensor argument; sizes are ints, or symbolic in the signature of a trace."""

    shape: tuple[Any, ...]
    dtype: DType

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


@dataclass(frozen=True)
class ValueLeaf:
    """A Python value in the signature: equal in type and value, floats in their text."""

    type: type
    value: Hashable

    def __str__(self) -> str:
        return str(self.value) if self.type in (float, ById) else repr(self.value)


@dataclass(frozen=True)
class NodeLeaf:
    """A container: its kind, and its length, keys or fields."""

    kind: str
    keys: Hashable

    def __str__(self) -> str:
        if isinstance(self.keys, int):
            return f"{self.kind} of {self.keys}"
        return f"{self.kind} with {', '.join(map(str, self.keys))}"  # type: ignore[call-overload]


Leaf = TensorLeaf | ValueLeaf | NodeLeaf


@dataclass(frozen=True)
class Signature:
    """Leaves with their paths, and flags; what decides which trace serves a call."""

    leaves: tuple[tuple[str, Leaf], ...]
    flags: tuple[tuple[str, Hashable], ...] = ()

    @property
    def shapes(self) -> tuple[tuple[Any, ...], ...]:
        """Shapes of the tensors in order."""
        return tuple(v.shape for _, v in self.leaves if isinstance(v, TensorLeaf))

    @property
    def group(self) -> Hashable:
        """The signature without sizes: calls that differ in sizes only have equal ones."""
        leaves = tuple(
            (path, (len(v.shape), v.dtype) if isinstance(v, TensorLeaf) else v)
            for path, v in self.leaves
        )
        return leaves, self.flags

    def with_shapes(self, shapes: Sequence[tuple[Any, ...]]) -> Signature:
        """The signature with other sizes."""
        rest = iter(shapes)
        leaves = tuple(
            (path, TensorLeaf(tuple(next(rest)), v.dtype) if isinstance(v, TensorLeaf) else v)
            for path, v in self.leaves
        )
        return Signature(leaves, self.flags)

    def lines(self) -> dict[str, str]:
        """Text of each leaf by path."""
        found = {path: str(leaf) for path, leaf in self.leaves}
        return found | {f"({name})": str(value) for name, value in self.flags}


class Walk:
    """Flattens the arguments of one call into leaves and the arrays of its tensors."""

    def __init__(self) -> None:
        self.leaves: list[tuple[str, Leaf]] = []
        self.tensors: list[Any] = []
        self.borrowed: set[int] = set()  # positions of arrays that the caller may change later
        self.backend: Any = None  # where the call runs; None: the CPU, for lack of another wish

    def visit(self, path: str, value: Any) -> None:
        """Add a value and what is inside it."""
        if isinstance(value, Tensor):
            self._tensor(path, value, value._value)
        elif isinstance(value, TensorSpec):
            if is_string_dtype(value.dtype):
                raise no_trace(f"argument {path}", repr(value))
            self.tensors.append(value)
            self.leaves.append((path, TensorLeaf(value.shape, value.dtype)))
        elif is_tensor_leaf(value):
            self.borrowed.add(len(self.tensors))
            array = value if isinstance(value, devices.ARRAYS) else np.asarray(value)
            self._tensor(path, Tensor(array), value)
        elif is_value(value):
            self.leaves.append((path, value_leaf(value)))
        else:
            self._container(path, value)

    def owned(self) -> list[Tensor]:
        """The tensors, with copies of borrowed arrays."""
        return [
            Tensor(devices.duplicate(t._value)) if i in self.borrowed else t
            for i, t in enumerate(self.tensors)
        ]

    def _tensor(self, path: str, tensor: Tensor, value: Any) -> None:
        if type(value) is Traced:
            raise_leak(value)
        if value.dtype.kind in "TUS":
            raise no_trace(f"argument {path}", f"strings of shape {tuple(value.shape)}")
        try:
            dtype = as_dtype(value.dtype)
        except (DTypeError, TypeError):
            raise DTypeError(
                f"argument {path}",
                received=f"an array of dtype {value.dtype}",
                expected="numbers or booleans",
                fix="convert it to a numeric dtype first",
            ) from None
        self.tensors.append(tensor)
        self.leaves.append((path, TensorLeaf(tuple(value.shape), dtype)))

    def _container(self, path: str, value: Any) -> None:
        pairs = tree.children(value)
        self.leaves.append((path, NodeLeaf(*_kind(value, pairs))))
        for label, child in pairs:
            by_name = is_dataclass(value) or hasattr(value, "_fields")
            name = f".{_field(value, label)}" if by_name else f"[{label!r}]"
            self.visit(path + name, child)


def _field(value: Any, label: Any) -> Any:
    return value._fields[label] if isinstance(label, int) else label


def _kind(value: Any, pairs: list[tuple[Any, Any]]) -> tuple[str, Hashable]:
    kind = type(value).__qualname__
    if isinstance(value, Mapping):
        return kind, tuple(k for k, _ in pairs)
    if is_dataclass(value):
        return kind, tuple(f.name for f in fields(value))
    return kind, len(pairs)


def is_tensor_leaf(value: Any) -> bool:
    """Whether an argument becomes an input of the graph."""
    known = isinstance(value, Tensor | TensorSpec | ndarray | np.generic)
    return known or isinstance(value, devices.ARRAYS)


def is_value(value: Any) -> bool:
    """Whether an argument is a Python value and not a tensor or container of arguments."""
    return isinstance(value, Operand) or tree.is_leaf(value)


def value_leaf(value: Any) -> ValueLeaf:
    """The leaf of a Python value: by value if that is how it compares, else by identity."""
    kind = type(value)
    if kind is float:
        return ValueLeaf(float, repr(value))  # so 0.0 and -0.0 differ and nan equals nan
    if kind in SCALARS or kind in (bytes, complex):
        return ValueLeaf(kind, value)
    by_identity: tuple[Any, ...] = (None, object.__hash__)
    if isinstance(value, Operand) or kind.__hash__ in by_identity:
        return ValueLeaf(ById, ById(value))
    try:
        hash(value)
    except TypeError:
        return ValueLeaf(ById, ById(value))
    return ValueLeaf(kind, value)


# ---- the quick key: for calls that have been seen ------------------------------------------


class NotQuick(Exception):
    """The arguments need the whole walk."""


def quick_key(values: Any, arrays: list[Any]) -> tuple[Any, ...]:
    """A hashable key of arguments, whose arrays are appended in the order of `Walk`.

    Equal keys mean equal signatures. Raises NotQuick for values it does not know.
    """
    key: list[Any] = []
    for value in values:
        kind = value.__class__
        if kind is Tensor:
            array = value._value
            if array.__class__ is not ndarray:
                if not isinstance(array, devices.ARRAYS):
                    raise NotQuick
                key.append(array.data.device_id)  # type: ignore[attr-defined]
            if not array.flags.c_contiguous:
                raise NotQuick
            arrays.append(array)
            key.append(array.shape)
            key.append(array.dtype)
        elif kind is ndarray and value.flags.c_contiguous:
            arrays.append(value)
            key.append(value.shape)
            key.append(value.dtype)
        elif kind in SCALARS:
            key.append(kind)
            key.append(value)
        elif kind is tuple or kind is list:
            key.append(kind)
            key.append(quick_key(value, arrays))
        elif kind is dict:
            names = tree.keys_of(value)
            key.append(tuple(names))
            key.append(quick_key([value[n] for n in names], arrays))
        elif kind is float:
            key.append(float)
            key.append(value.hex())
        else:
            raise NotQuick
    return tuple(key)


# ---- binding -------------------------------------------------------------------------------


class Parameters:
    """The parameters of a Python function: one order for arguments however they are passed."""

    def __init__(self, python: Callable[..., Any], skip_first: bool, subject: str) -> None:
        signature = inspect.signature(python)
        parameters = list(signature.parameters.values())[int(skip_first) :]
        self.signature = signature.replace(parameters=parameters)
        self.subject = subject
        kinds = {p.kind for p in parameters}
        self.simple = not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        self.order = {p.name: i for i, p in enumerate(parameters)}
        # A default that is a tensor is no argument: the trace takes it by reference.
        self.defaults = [p.name for p in parameters if not _is_tensor_like(p.default)]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """Arguments by parameter, defaults filled in."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.subject}() {error}") from None
        given = bound.arguments
        for name in self.defaults:
            parameter = self.signature.parameters[name]
            if name not in given and parameter.default is not inspect.Parameter.empty:
                given[name] = parameter.default
        bound.arguments = {n: given[n] for n in self.order if n in given}
        return bound

    def is_variadic(self, name: str) -> bool:
        """Whether a parameter takes all further positional arguments."""
        return self.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL

    def sorted_keywords(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments in the order of the parameters, extra ones by name."""
        last = len(self.order)
        return dict(sorted(kwargs.items(), key=lambda kv: (self.order.get(kv[0], last), kv[0])))


def _is_tensor_like(value: Any) -> bool:
    return isinstance(value, Operand | ndarray)


def check_spec(path: str, spec: TensorSpec, value: Any) -> Tensor:
    """An argument as the tensor that the input signature asks for.

    Python numbers, lists and NumPy arrays are cast; a tensor must have the dtype.
    """
    if isinstance(value, TensorSpec):
        return value  # type: ignore[return-value]
    tensor = value._tensor() if isinstance(value, Operand) else convert(value, spec.dtype)
    if not spec.is_compatible_with(tensor):
        raise ArgumentError(
            f"argument {path}",
            received=describe(tensor.dtype, tuple(tensor.shape)),
            expected=f"{describe(spec.dtype, spec.shape)} by input_signature",
            fix="pass a tensor of that dtype and shape, or change input_signature",
        )
    return tensor
