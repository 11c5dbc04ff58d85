"""What preprocessing layers share: reading data of any kind in `adapt`, and ways of encoding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.trace import Trace
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.preprocess_host import HostTensor
from graphnn.keras.layers.symbolic import Call, KerasTensor
from graphnn.runtime.errors import ArgumentError, DTypeError, StateError
from graphnn.tensor import Operand, Tensor, Traced

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 20  # elements of a large array that `adapt` works on at once
_OLD_NAMES = {"binary": "multi_hot", "tf-idf": "tf_idf"}  # of output modes, before Keras 3


class Preprocessing(Layer):
    """A layer that prepares data: callable on tensors, arrays and nested lists."""

    @property
    def output_dtype(self) -> Any:
        """Dtype of the results where the layer can be called symbolically before it has been
        adapted; None where it need not be adapted."""
        return None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The prepared data, a tensor."""
        if isinstance(inputs, KerasTensor) and self.output_dtype is not None:
            return self._described(inputs)
        if isinstance(inputs, list | tuple | str | bytes | int | float):
            inputs = ops.convert_to_tensor(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def _described(self, inputs: KerasTensor) -> Any:
        """The symbolic result: shape and dtype are known without data."""
        shape = self.compute_output_shape(tuple(inputs.sizes))
        sizes = tuple(symbol(f"{self.name}_{i}") if s is None else s for i, s in enumerate(shape))
        trace = Trace(f"the shape of {self.name}")
        node = trace.argument(inputs.name, TensorType(sizes, self.output_dtype))
        trace.closed = True
        self.built = True
        return Call(self, (inputs,), {}).finish(Tensor(Traced(node, trace)))


def as_tensor(value: Any) -> Any:
    """An array as a tensor of its own dtype; what is no array as it is."""
    return ops.convert_to_tensor(value) if hasattr(value, "__array__") else value


class HostLayer(Preprocessing):
    """A layer that works on the host: its inputs are text, and cannot be values of a graph.

    It can be called eagerly, in `Dataset.map`, and in a model; when the model is compiled, the
    layer runs before the compiled program does.
    """

    on_host = True
    input_dtype = "string"

    @property
    def compute_dtype(self) -> str:
        """Name of the dtype of the inputs."""
        return self.input_dtype

    def _cast_inputs(self, values: Any) -> Any:
        return values  # text has no dtype to be cast to

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The prepared data, a tensor."""
        if isinstance(inputs, HostTensor):
            return inputs.through(self, kwargs)
        return super().__call__(inputs, *args, **kwargs)


# ---- settings -------------------------------------------------------------------------------


def choice(subject: str, name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """The value of a setting. Raises ArgumentError unless it is one of the allowed ones."""
    value = _OLD_NAMES.get(value, value) if isinstance(value, str) else value
    if value in allowed:
        return value
    raise ArgumentError(
        subject,
        received=f"{name}={value!r}",
        expected="one of " + ", ".join(map(repr, allowed)),
        fix="choose one of these",
    )


def refuse_sparse(subject: str, **flags: bool) -> None:
    """Raise ArgumentError where `sparse=True` or `ragged=True` is asked for."""
    for name, value in flags.items():
        if value:
            raise ArgumentError(
                subject,
                received=f"{name}=True",
                expected=f"{name}=False: there are dense tensors only",
                fix="leave it out",
            )


def at_least(subject: str, name: str, value: Any, low: int) -> int:
    """An integer of at least `low`. Raises ArgumentError for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < low:
        raise ArgumentError(
            subject,
            received=f"{name}={value!r}",
            expected=f"an integer of at least {low}",
            fix=f"for example {name}={max(low, 10)}",
        )
    return int(value)


def plain(value: Any) -> Any:
    """Tensors and arrays as Python lists and numbers, so that a config can be written down."""
    return value.tolist() if hasattr(value, "tolist") else value


# ---- data for `adapt` -----------------------------------------------------------------------


def is_whole(data: Any) -> bool:
    """Whether data are all there at once: a tensor, an array, or nested lists of values."""
    if isinstance(data, str | bytes | Operand | np.ndarray):
        return True
    if isinstance(data, list | tuple):
        return not data or not hasattr(_innermost(data), "__array__")
    return hasattr(data, "__array__")


def _innermost(data: Any) -> Any:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return data


def batches_of(data: Any, subject: str, steps: int | None = None) -> Iterator[Any]:
    """The batches of a Dataset, generator, or list of arrays, one at a time.

    Of an element that is a tuple, the first item: the features. steps: how many at most. Raises
    ArgumentError for no batch at all, for dicts, and for what cannot be iterated over.
    """
    if not isinstance(data, Iterable):
        if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
            raise ArgumentError(
                f"adapt of {subject}",
                received=f"a {type(data).__name__}",
                expected="an array, a tensor, nested lists, a Dataset, or an iterable of batches",
                fix="give the data themselves",
            )
        data = (data[i] for i in range(len(data)))
    found = False
    for batch in itertools.islice(data, steps):
        found = True
        yield _features(batch, subject)
    if not found:
        raise ArgumentError(
            f"adapt of {subject}",
            received="no batch",
            expected="at least one",
            fix="a generator can be used only once; make a new one",
        )


def _features(batch: Any, subject: str) -> Any:
    if isinstance(batch, tuple) and batch and hasattr(batch[0], "shape"):
        batch = batch[0]
    if isinstance(batch, dict):
        raise ArgumentError(
            f"adapt of {subject}",
            received=f"elements that are dicts with the keys {', '.join(map(str, batch))}",
            expected="arrays",
            fix="choose one column: layer.adapt(dataset.map(lambda x: x['name']))",
        )
    return batch


def numbers(value: Any, subject: str) -> Array:
    """The array of a batch of numbers. Raises DTypeError for anything else."""
    if isinstance(value, Operand):
        return np.asarray(value)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DTypeError(
            f"adapt of {subject}",
            received=f"{type(value).__name__} of dtype {array.dtype}",
            expected="numbers",
            fix="convert the data to numbers first; text goes to StringLookup or TextVectorization",
        )
    return array


def chunks(array: Array) -> Iterator[Array]:
    """Parts of an array along its first axis, of a bounded number of elements."""
    if array.ndim == 0 or array.size <= _CHUNK:
        yield array
        return
    rows = max(1, _CHUNK * len(array) // array.size)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


# ---- searching and encoding, the same numbers eagerly and compiled ----------------------------


def count_not_above(table: Array, values: Any) -> Any:
    """How many entries of a sorted table are not greater than each value; NaN is above all.

    table: 1-D, ascending. values: a tensor of the table's dtype. Result: int32, the shape of
    `values`. While tracing this is a binary search in ops, which fuse into one kernel.
    """
    count = len(table)
    if not values.is_traced:
        found = np.searchsorted(table, np.asarray(values), side="right")
        return Tensor(np.asarray(found, np.int32))
    place = ops.zeros_like(values, dtype="int32")
    if not count:
        return place
    entries, step = ops.convert_to_tensor(table), 1 << (count.bit_length() - 1)
    while step:
        ahead = place + step
        entry = ops.take(entries, ops.minimum(ahead, count) - 1)
        fits = ops.logical_and(ahead <= count, ops.logical_not(values < entry))
        place = ops.where(fits, ahead, place)
        step //= 2
    return place


def encode(indices: Any, mode: str, depth: int, dtype: Any, weights: Any = None) -> Any:
    """Indices as they are ("int"), or as vectors of `depth` entries.

    "one_hot": one vector for each index; a last axis of size 1 is dropped first. "multi_hot",
    "count": one vector for the last axis, which says whether, or how often, each index occurs. An
    index out of range counts for nothing. weights: what each index counts, in mode "count".
    """
    if mode == "int":
        return ops.cast(indices, dtype)
    if not indices.ndim:
        indices = ops.expand_dims(indices, 0)
    if mode == "one_hot":
        if indices.ndim > 1 and indices.shape[-1] == 1:
            indices = ops.squeeze(indices, -1)
        return ops.one_hot(indices, depth, dtype=dtype)
    if not indices.is_traced and weights is None:
        return Tensor(counted(np.asarray(indices), mode, depth, dtype))
    hot = ops.one_hot(indices, depth, dtype="bool")
    if mode == "multi_hot":
        return ops.cast(ops.any(hot, axis=-2), dtype)
    ones = ops.cast(hot, dtype)
    if weights is not None:
        ones = ones * ops.expand_dims(weights, -1)
    return ops.cast(ops.sum(ones, axis=-2), dtype)


def counted(indices: Array, mode: str, depth: int, dtype: Any) -> Array:
    """`encode` of an array in the modes "multi_hot" and "count", without one-hot vectors."""
    lead, length = indices.shape[:-1], indices.shape[-1]
    count = math.prod(lead)
    rows = np.repeat(np.arange(count), length)
    result = counted_rows(rows, indices.reshape(-1), mode, count, depth, dtype)
    return result.reshape(*lead, depth)


def counted_rows(
    rows: Array, indices: Array, mode: str, count: int, depth: int, dtype: Any
) -> Array:
    """Shape (count, depth): how often, or whether, each index occurs in each row."""
    inside = (indices >= 0) & (indices < depth)
    codes = rows[inside] * depth + indices[inside]
    result: Array = np.bincount(codes, minlength=count * depth).reshape(count, depth)
    if mode == "multi_hot":
        result = result > 0
    return result.astype(dtype)


def encoded_shape(shape: Any, mode: str, depth: int | None) -> tuple[int | None, ...]:
    """The shape of what `encode` returns."""
    sizes: tuple[int | None, ...] = tuple(shape)
    if mode == "int":
        return sizes
    if mode != "one_hot":
        return (*sizes[:-1], depth)
    return (*(sizes[:-1] if len(sizes) > 1 and sizes[-1] == 1 else sizes), depth)


def not_adapted(layer: Any, what: str) -> StateError:
    """The error for a call of a layer that has not seen data."""
    return StateError(
        f"a call of {layer.name}",
        received=f"a {type(layer).__name__} without {what}",
        expected="a layer that has been adapted",
        fix=f"call {layer.name}.adapt(data) first, or give {what} to the constructor",
    )
