"""Tensor: one face, two bodies. The body is a NumPy array, or a node of the graph being traced."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import DType, bfloat16, describe, is_integer
from graphnn.runtime import devices
from graphnn.runtime.errors import ArgumentError, DTypeError, LeakError, TraceError
from graphnn.state import state

WAYS_OUT = (
    "choose on the device with graphnn.where, or return the tensor and convert it "
    "outside, or call graphnn.run_functions_eagerly(True) to run Python line by line"
)


class Shape(tuple[Any, ...]):
    """The sizes of a tensor: a tuple, with TensorFlow's names for questions about it.

    While tracing, a size that changes from call to call is symbolic: it can be computed with, but
    it is not a number.

    >>> graphnn.zeros((2, 3)).shape.as_list()
    [2, 3]
    """

    __slots__ = ()

    def as_list(self) -> list[int | None]:
        """The sizes, None where one is symbolic."""
        return [None if isinstance(s, Size) or s is None else int(s) for s in self]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self)

    ndims = rank

    @property
    def dims(self) -> list[int | None]:
        """The sizes, None where one is symbolic."""
        return self.as_list()

    def num_elements(self) -> int | None:
        """Number of elements, None where a size is symbolic."""
        sizes = self.as_list()
        return None if None in sizes else int(np.prod(sizes, dtype=np.int64))  # type: ignore[arg-type]

    def is_fully_defined(self) -> bool:
        """Whether all sizes are numbers."""
        return None not in self.as_list()


class Traced:
    """The body of a tensor while tracing: a node, and the trace that made it."""

    __slots__ = ("node", "trace")
    __array_ufunc__ = None  # NumPy must refuse it, so that fast paths fall through to the checks

    def __init__(self, node: Node, trace: Any) -> None:
        self.node, self.trace = node, trace

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the node."""
        return self.node.shape

    @property
    def dtype(self) -> DType:
        """Dtype of the node."""
        return self.node.dtype  # type: ignore[no-any-return]


class Symbolic(ABC):
    """The body of a tensor that stands for data of a model under construction.

    NumPy and all else that looks into it gets a TypeError, and `apply` then asks `record`.
    """

    __slots__ = ("dtype",)
    __array_ufunc__ = None

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    @abstractmethod
    def record(self, op: Any, inputs: Sequence[Any]) -> Any:
        """The outputs of an op on inputs of which one has this body."""

    def __array__(self, *args: Any, **keywords: Any) -> Any:
        raise TypeError("a symbolic tensor has no numbers")

    __array_function__ = __array__

    def __getattr__(self, name: str) -> Any:
        raise TypeError(f"a symbolic tensor has no {name} outside of the model that it describes")


class Operand:
    """What Tensors and Variables share: operators and methods.

    They are defined in `graphnn.operators` and `graphnn.methods`, which come after the functions
    that they call.
    """

    __slots__ = ()
    __array_priority__ = 1000  # numpy_array + tensor asks the tensor first
    __hash__ = object.__hash__  # identity, although == compares elements

    if TYPE_CHECKING:
        shape: Any
        dtype: Any

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __getitem__(self, key: Any) -> Tensor: ...

    def _tensor(self) -> Tensor:
        """The tensor to compute with."""
        raise TypeError(f"{type(self).__name__} has no value")

    def _array(self, what: str) -> np.ndarray[Any, Any]:
        """The value as a NumPy array: of a value on a GPU, which is waited for, a copy.

        Raises TraceError or LeakError for a traced tensor.
        """
        raise TypeError(f"{type(self).__name__} has no array: {what}")

    def _body(self) -> Any:
        """The array of the value where it is, on the host or a GPU; None while tracing."""
        raise TypeError(f"{type(self).__name__} has no body")

    # ---- leaving the world of tensors ----------------------------------------------------

    def numpy(self) -> Any:
        """A NumPy array with the values, which may be changed; a NumPy number if 0-d.

        Raises TraceError while tracing. Without a copy: `np.asarray(tensor)`, which is read-only.

        >>> graphnn.constant([1.0, 2.0]).numpy()
        array([1., 2.], dtype=float32)
        """
        array = self._array("numpy()")
        if devices.used and devices.is_device_array(self._body()):
            return array[()]  # a copy already
        return array.copy()[()]

    def item(self) -> Any:
        """The one element as a Python number. Raises ArgumentError unless there is just one."""
        return self._one("item()")

    def tolist(self) -> Any:
        """Nested Python lists of Python numbers."""
        return self._array("tolist()").tolist()

    def _one(self, what: str) -> Any:
        array = self._array(what)
        if array.size != 1:
            raise ArgumentError(
                what,
                received=f"{array.size} elements: {describe(array.dtype, array.shape)}",
                expected="one element",
                fix="reduce it first, e.g. with graphnn.sum, graphnn.any or graphnn.all",
            )
        return array.item()

    def __float__(self) -> float:
        return float(self._one("float(t)"))

    def __int__(self) -> int:
        return int(self._one("int(t)"))

    def __bool__(self) -> bool:
        return bool(self._one("bool(t)"))

    def __complex__(self) -> complex:
        return complex(self._one("complex(t)"))

    def __index__(self) -> int:
        if not is_integer(self.dtype) or self.ndim:
            raise DTypeError(
                "use of a tensor as an index",
                received=describe(self.dtype, self.shape),
                expected="a 0-d integer tensor",
                fix="cast it to int32, or take one element",
            )
        return int(self._one("use of a tensor as a Python index"))

    def __format__(self, spec: str) -> str:
        return str(self) if not spec else format(self._one("format(t)"), spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self._array("numpy.asarray(t)")
        wanted = array.dtype if dtype is None else np.dtype(dtype)
        # A read-only array is a Variable's buffer, which changes with the next assign.
        must = wanted != array.dtype or not array.flags.writeable
        if copy is False and must:
            raise ValueError("this tensor has no array that could be given away without a copy")
        if copy or must:
            return array.astype(wanted, copy=True)
        view = array.view()
        view.flags.writeable = False
        return view

    def __array_function__(self, function: Any, types: Any, inputs: Any, keywords: Any) -> Any:
        """NumPy's functions take the values and give arrays: `numpy.mean(t, axis=0)`."""
        if function in _ABOUT_SHAPE:  # also where there are no values, in a trace
            return function.__wrapped__(*inputs, **keywords)
        inputs, keywords = _as_arrays(inputs), {k: _as_arrays(v) for k, v in keywords.items()}
        return function(*inputs, **keywords)

    def __dlpack__(self, **keywords: Any) -> Any:
        body = self._body()
        if devices.is_device_array(body):
            body = devices.duplicate(body) if devices.is_guarded(body) else body
            return body.__dlpack__(**keywords)
        array = self._array("__dlpack__()")
        if array.dtype == bfloat16:
            raise DTypeError(
                "__dlpack__",
                received="a bfloat16 tensor",
                expected="a dtype that NumPy can export",
                fix="cast it to float32 first",
            )
        return (array if array.flags.writeable else array.copy()).__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        body = self._body()
        return (2, body.data.device_id) if devices.is_device_array(body) else (1, 0)  # CUDA, CPU

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules["graphnn"]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d tensor has no len()")
        return self.shape[0]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("a 0-d tensor cannot be iterated over")
        value, count = self._tensor(), self.shape[0]
        if isinstance(count, Size):
            raise TraceError(
                "iteration over a tensor",
                received=f"an axis of symbolic size {count}",
                expected="a size that is known while tracing",
                fix="work on the whole axis at once, or give it a fixed size in input_signature",
            )
        return (value[i] for i in range(count))

    # ---- questions -----------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Any:
        """Number of elements; symbolic where a size is."""
        total: Any = 1
        for extent in self.shape:
            total = total * extent
        return total

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> Any:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def device(self) -> str:
        """Full name of the device that holds the values, such as "/device:GPU:0"; for a traced
        tensor the one that the trace is for.

        >>> graphnn.constant([1.0]).cpu().device
        '/device:CPU:0'
        """
        body = self._body()
        backend = (state.device or devices.host) if body is None else devices.backend_of(body)
        return str(backend.name)

    def get_shape(self) -> Shape:
        """The shape."""
        return self.shape  # type: ignore[no-any-return]

    def ref(self) -> Reference:
        """A hashable stand-in that compares by identity, for dictionaries and sets."""
        return Reference(self)


_ABOUT_SHAPE = (np.shape, np.ndim, np.size)


def _as_arrays(value: Any) -> Any:
    """The arrays of the tensors in an argument of a NumPy function."""
    if isinstance(value, Operand):
        return np.asarray(value)
    if type(value) in (list, tuple):
        return type(value)(map(_as_arrays, value))
    return value


class Reference:
    """Stands for a Tensor or Variable where `==` must mean the same object; `deref()` gives it."""

    __slots__ = ("_operand",)

    def __init__(self, operand: Operand) -> None:
        self._operand = operand

    def deref(self) -> Operand:
        """The Tensor or Variable."""
        return self._operand

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other._operand is self._operand

    def __hash__(self) -> int:
        return id(self._operand)


class Tensor(Operand):
    """A multi-dimensional array of one dtype, which nobody can change.

    Made by `graphnn.constant`, `graphnn.zeros` and all other operations, not by calling the class.
    `==` compares elements; hashing goes by identity. Inside `@function` a tensor is a value of the
    graph: its shape and dtype are known, its numbers are not, so `float(t)`, `bool(t)` and
    `t.numpy()` raise TraceError.

    >>> graphnn.constant([1.0, 2.0]) * 3
    Tensor([3. 6.], shape=(2,), dtype=float32)
    """

    __slots__ = ("__weakref__", "_keras_mask", "_value")

    # np.ndarray (read-only if it is a Variable's buffer), cupy.ndarray, Traced or Symbolic
    _value: Any
    _keras_mask: Any  # set by Keras layers only: which time steps are no padding

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return Shape(self._value.shape)

    @property
    def dtype(self) -> DType:
        """Dtype of the elements."""
        return self._value.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._value.shape)

    @property
    def is_traced(self) -> bool:
        """Whether the tensor is a value of a graph, without numbers."""
        return type(self._value) is Traced

    def _tensor(self) -> Tensor:
        return self

    def _array(self, what: str) -> np.ndarray[Any, Any]:
        value = self._value
        if type(value) is not Traced:
            return devices.on_host(value)  # type: ignore[no-any-return]
        if value.trace is not state.trace:
            raise_leak(value)
        raise TraceError(
            what,
            received=f"a traced tensor {describe(value.dtype, value.shape)} made at "
            f"{value.node.loc or 'an unknown line'}",
            expected="a tensor with numbers, which it has only when the compiled program runs",
            fix=WAYS_OUT,
        )

    def _body(self) -> Any:
        value = self._value
        return None if type(value) is Traced or isinstance(value, Symbolic) else value

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        value = self._value
        if not devices.is_device_array(value):
            raise AttributeError("only a tensor on a GPU has __cuda_array_interface__")
        if devices.is_guarded(value):  # a Variable's memory, which will change
            self._value = value = devices.duplicate(value)
        return value.__cuda_array_interface__  # type: ignore[no-any-return]

    def set_shape(self, shape: Any) -> None:
        """Check that the shape fits a pattern in which None stands for any size."""
        fits = len(shape) == self.ndim and all(
            a is None or isinstance(b, Size) or a == b
            for a, b in zip(shape, self.shape, strict=True)
        )
        if not fits:
            raise ArgumentError(
                "set_shape",
                received=f"the pattern {tuple(shape)} for a tensor of shape {self.shape}",
                expected="the same number of axes and equal sizes",
                fix="reshape the tensor instead",
            )

    def __repr__(self) -> str:
        value = self._value
        name = "string" if self.dtype.kind == "T" else self.dtype.name
        tail = f"shape={self.shape}, dtype={name}"
        if type(value) is Traced:
            return f"Tensor({tail}, traced in {value.trace.name!r})"
        if devices.is_device_array(value):
            value, tail = devices.on_host(value), f"{tail}, device={self.device!r}"
        if not value.ndim:  # NumPy's printer does not know where numbers of foreign dtypes end
            return f"Tensor({value.item()!r}, {tail})"
        return f"Tensor({value}, {tail})"

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self if self.is_traced else Tensor(devices.duplicate(self._value))

    def __reduce__(self) -> Any:
        return Tensor, (np.array(self._array("pickling")),)


def raise_leak(value: Traced) -> NoReturn:
    """Raise LeakError for a traced tensor that is used outside of its trace."""
    name = value.trace.name
    raise LeakError(
        "a traced tensor",
        received=f"{describe(value.dtype, value.shape)}, made at "
        f"{value.node.loc or 'an unknown line'} while {name!r} was traced, used outside of it",
        expected="a tensor that is used in the trace that made it",
        fix=f"return the tensor from {name!r}, or keep the value in a graphnn.Variable",
    )


def is_tensor(value: Any) -> bool:
    """Whether a value is a Tensor or a Variable.

    >>> graphnn.is_tensor(graphnn.ones(2)), graphnn.is_tensor([1.0])
    (True, False)
    """
    return isinstance(value, Operand)
