"""Elements of a dataset: tuples, dicts and dataclasses of arrays, wrapped in Tensors for users.

Inside a pipeline a leaf is a NumPy array (0-d for a single value), a string one of NumPy's
`StringDType`. Users see Tensors. A list is one array, as in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
from numpy.dtypes import StringDType

from graphnn import tree
from graphnn.compiler.ir.types import ALL, describe, float32, int32
from graphnn.runtime.errors import ArgumentError, DTypeError
from graphnn.tensor import Operand, Tensor

STRING: Any = StringDType()
_SUPPORTED = frozenset(ALL)
_INT32 = np.iinfo(np.int32)

Array = np.ndarray[Any, Any]


def is_string(array: Any) -> bool:
    """Whether an array holds strings."""
    return isinstance(array.dtype, StringDType)


def to_array(value: Any) -> Array:
    """The array of one leaf. Python numbers become float32 and int32 as in TensorFlow; text of any
    kind becomes `StringDType`. Raises DTypeError for what is neither numbers nor text.

    >>> to_array([1.5, 2.0]).dtype, to_array(["a", "bcd"]).dtype
    (dtype('float32'), StringDType())
    """
    if type(value) is np.ndarray:
        array = value
    elif isinstance(value, Operand):
        # A read-only array is a Variable's buffer, which the next assign overwrites.
        array = value._tensor()._array("use in a Dataset")
        return array if array.flags.writeable else array.copy()
    elif isinstance(value, float):
        return np.asarray(value, getattr(value, "dtype", float32))
    else:
        array = _from_python(value)
    return array if array.dtype in _SUPPORTED else _text(array, value)


def _from_python(value: Any) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ArgumentError(
            "the data of a Dataset",
            received=f"a list of lists of different lengths, or of different things: {error}",
            expected="values that form one array",
            fix="use Dataset.from_generator for elements of different shapes",
        ) from None
    if array.dtype == np.float64 and _is_plain(value):
        return array.astype(np.float32)
    if array.dtype == np.int64 and _is_plain(value) and _fits_int32(array):
        return array.astype(int32)
    return array


def _is_plain(value: Any) -> bool:
    """Whether the first number in nested lists is a Python number, whose dtype is weak."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return not hasattr(value, "dtype")


def _fits_int32(array: Array) -> bool:
    if not array.size:
        return True
    return bool(_INT32.min <= array.min() and array.max() <= _INT32.max)


def _text(array: Array, value: Any) -> Array:
    """Strings as StringDType, whatever they came as."""
    if is_string(array):
        return array
    if array.dtype.kind == "U":
        return array.astype(STRING)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8").astype(STRING)
    if array.dtype.kind == "O" and array.size and all(isinstance(v, str) for v in array.flat):
        return array.astype(STRING)
    raise DTypeError(
        "the data of a Dataset",
        received=f"{type(value).__name__} of dtype {array.dtype}",
        expected="numbers, booleans or text",
        fix="convert it with NumPy first; None and other objects cannot be elements",
    )


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with `function(leaf)` at each leaf; lists are leaves.

    >>> map_leaves(lambda x: x + 1, {"a": 1, "b": (2, 3)})
    {'a': 2, 'b': (3, 4)}
    """
    kind = type(structure)
    if kind is np.ndarray:
        return function(structure)
    if kind is tuple:
        return tuple([map_leaves(function, value) for value in structure])
    if kind is dict:
        return {key: map_leaves(function, value) for key, value in structure.items()}
    if not is_container(structure):
        return function(structure)
    values = [map_leaves(function, value) for _, value in tree.children(structure)]
    return tree.rebuild(structure, values)


def is_container(value: Any) -> bool:
    """Whether a value is walked into: tuples, mappings and dataclasses are, lists are not."""
    if isinstance(value, tuple | Mapping):
        return True
    return is_dataclass(value) and not isinstance(value, type | Operand)


def leaves(structure: Any) -> Iterator[Any]:
    """The leaves, left to right.

    >>> list(leaves((1, {"a": 2, "b": [3, 4]})))
    [1, 2, [3, 4]]
    """
    if not is_container(structure):
        yield structure
        return
    for _, child in tree.children(structure):
        yield from leaves(child)


def zip_leaves(function: Callable[..., Any], *structures: Any) -> Any:
    """The first structure with `function(leaf, leaf, ...)` at each leaf of structures alike.

    Raises ArgumentError if the structures differ.

    >>> zip_leaves(max, (1, {"a": 5}), (2, {"a": 4}))
    (2, {'a': 5})
    """
    first, *others = structures
    if not is_container(first):
        if any(is_container(other) for other in others):
            raise _different(structures)
        return function(*structures)
    labels = [label for label, _ in tree.children(first)]
    for other in others:
        if not is_container(other) or [label for label, _ in tree.children(other)] != labels:
            raise _different(structures)
    columns = zip(*([v for _, v in tree.children(s)] for s in structures), strict=True)
    return tree.rebuild(first, [zip_leaves(function, *column) for column in columns])


def _different(structures: tuple[Any, ...]) -> ArgumentError:
    return ArgumentError(
        "a Dataset",
        received="elements " + " and ".join(describe_element(s) for s in structures[:2]),
        expected="the same structure of tuples and dicts in all elements",
        fix="return the same structure from each call of your function",
    )


def wrap(leaf: Any) -> Any:
    """What users get for a leaf: a Tensor."""
    return Tensor(leaf)


def to_numpy(leaf: Any) -> Any:
    """What `as_numpy_iterator` gives for a leaf: a read-only array, or a scalar."""
    if not leaf.ndim:
        return leaf[()]
    view = leaf.view()
    view.flags.writeable = False
    return view


def describe_element(element: Any) -> str:
    """Dtypes and shapes, for messages.

    >>> describe_element((np.zeros(3, "float32"), {"label": np.array("x", STRING)}))
    "(float32[3], {'label': string[]})"
    """
    kind = type(element)
    if kind is tuple:
        inner = ", ".join(map(describe_element, element))
        return f"({inner},)" if len(element) == 1 else f"({inner})"
    if isinstance(element, Mapping):
        return "{" + ", ".join(f"{k!r}: {describe_element(v)}" for k, v in element.items()) + "}"
    if is_container(element):
        return (
            f"{kind.__name__}({', '.join(describe_element(v) for _, v in tree.children(element))})"
        )
    if not hasattr(element, "dtype") or not hasattr(element, "shape"):
        return kind.__name__
    if is_string(element):
        return f"string[{','.join(map(str, element.shape))}]"
    return describe(element.dtype, tuple(element.shape))
