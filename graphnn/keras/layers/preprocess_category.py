"""CategoryEncoding and Hashing: categories as vectors, and strings or integers as bins."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn import ops, strings
from graphnn.compiler.ir.types import INTEGERS, as_dtype
from graphnn.keras.layers.preprocess import (
    Array,
    HostLayer,
    Preprocessing,
    as_tensor,
    at_least,
    choice,
    encode,
    encoded_shape,
    refuse_sparse,
)
from graphnn.keras.layers.preprocess_hash import buckets, number_buckets, text_buckets
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError, DTypeError
from graphnn.tensor import Operand, Tensor

_UINT64 = 1 << 64


@register()
class CategoryEncoding(Preprocessing):
    """Integers from 0 to num_tokens - 1 as vectors.

    num_tokens: the length of the vectors. output_mode: "multi_hot" (1 for each integer that occurs
    in the last axis), "one_hot" (a vector for each integer; a last axis of size 1 is dropped) or
    "count" (how often each integer occurs in the last axis). Raises ArgumentError for another mode
    and for `sparse=True`. An integer out of range counts for nothing.

    >>> layer = graphnn.keras.layers.CategoryEncoding(num_tokens=4)
    >>> layer([[0, 1], [3, 3]]).numpy().tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """

    def __init__(
        self,
        num_tokens: int | None = None,
        output_mode: str = "multi_hot",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_sparse("CategoryEncoding", sparse=sparse)
        self.num_tokens = at_least("CategoryEncoding", "num_tokens", num_tokens, 1)
        modes = ("count", "one_hot", "multi_hot")
        self.output_mode = choice("CategoryEncoding", "output_mode", output_mode, modes)

    def _cast_input(self, value: Any) -> Any:
        return as_tensor(value)  # a low precision would merge large integers

    def call(self, inputs: Any, count_weights: Any = None) -> Any:
        if count_weights is not None and self.output_mode != "count":
            raise ArgumentError(
                f"a call of {self.name}",
                received=f"count_weights in output_mode={self.output_mode!r}",
                expected="count_weights only in mode 'count'",
                fix="leave them out, or use output_mode='count'",
            )
        inputs, weights = ops.convert_to_tensor(inputs), count_weights
        if inputs.dtype not in INTEGERS:
            inputs = ops.cast(inputs, "int64")
        if weights is not None:
            weights = ops.convert_to_tensor(weights, self.compute_dtype)
        return encode(inputs, self.output_mode, self.num_tokens, self.dtype, weights)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return encoded_shape(input_shape or (1,), self.output_mode, self.num_tokens)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_tokens": self.num_tokens,
            "output_mode": self.output_mode,
        }


def salt_of(salt: Any, subject: str) -> list[int] | None:
    """A salt as two integers. Raises ArgumentError for anything but one or two integers."""
    if salt is None:
        return None
    pair = [salt, salt] if isinstance(salt, int) else list(salt)
    if len(pair) != 2 or not all(isinstance(k, int) and 0 <= k < _UINT64 for k in pair):
        raise ArgumentError(
            subject,
            received=f"salt={salt!r}",
            expected="an integer of 0 or more, or two of them",
            fix="for example salt=[133, 137]",
        )
    return pair


def hashed(array: Array, count: int, salt: list[int] | None, subject: str) -> Array:
    """A number from 0 to count - 1 for each entry of an array, row-major.

    What is hashed: text in UTF-8, integers in decimal digits, floats without their fraction. Raises
    DTypeError for other data.
    """
    if strings.is_string(array):
        return text_buckets(array, count, salt)
    if array.dtype.kind not in "biuf":
        raise DTypeError(
            subject,
            received=f"an array of dtype {array.dtype}",
            expected="strings or numbers",
            fix="convert the data first",
        )
    whole = array.astype(np.int64) if array.dtype.kind == "f" else array
    if whole.dtype.kind == "b":
        names = buckets([b"false", b"true"], count, salt)
        return names[whole.reshape(-1).astype(np.int64)]
    return number_buckets(whole, count, salt)


@register()
class Hashing(HostLayer):
    """A bin from 0 to num_bins - 1 for each string or integer, by a hash: without a vocabulary.

    mask_value: what is put into bin 0, which holds nothing else then. salt: one or two integers
    that make another hash function (SipHash64 instead of FarmHash64). output_mode: "int", or
    vectors "one_hot", "multi_hot" or "count" over the last axis. dtype: int64 by default, float32
    for vectors. Raises ArgumentError for bad settings. Bins are those of Keras. Runs on the host.

    >>> graphnn.keras.layers.Hashing(num_bins=3)([["A"], ["B"], ["E"]]).numpy().tolist()
    [[1], [0], [2]]
    """

    def __init__(
        self,
        num_bins: int,
        mask_value: Any = None,
        salt: Any = None,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse_sparse("Hashing", sparse=sparse)
        modes = ("int", "one_hot", "multi_hot", "count")
        self.output_mode = choice("Hashing", "output_mode", output_mode, modes)
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = "int64" if self.output_mode == "int" else "float32"
        super().__init__(**kwargs)
        if self.output_mode == "int" and self.dtype not in ("int32", "int64"):
            raise ArgumentError(
                "Hashing",
                received=f"dtype={self.dtype!r} with output_mode='int'",
                expected="int32 or int64",
                fix="leave dtype out",
            )
        self.num_bins = at_least("Hashing", "num_bins", num_bins, 1)
        self.mask_value, self.salt = mask_value, salt_of(salt, "Hashing")

    @property
    def output_dtype(self) -> Any:
        """Dtype of the results."""
        return as_dtype(self.dtype)

    def call(self, inputs: Any) -> Any:
        array = self._array(inputs)
        bins = Tensor(self._bins(array).reshape(array.shape))
        return encode(bins, self.output_mode, self.num_bins, self.dtype)

    def _array(self, inputs: Any) -> Array:
        subject = f"a call of {self.name}"
        if strings.looks_like_text(inputs):
            return strings.text_array(inputs, subject)
        if isinstance(inputs, Operand):
            return strings.host_array(inputs, subject)
        return np.asarray(inputs)

    def _bins(self, array: Array) -> Array:
        subject = f"a call of {self.name}"
        if self.mask_value is None or self.num_bins == 1:
            return hashed(array, self.num_bins, self.salt, subject)
        masked = np.asarray(array == self.mask_value).reshape(-1)
        return np.where(masked, 0, hashed(array, self.num_bins - 1, self.salt, subject) + 1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return encoded_shape(input_shape, self.output_mode, self.num_bins)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_bins": self.num_bins,
            "salt": self.salt,
            "mask_value": self.mask_value,
            "output_mode": self.output_mode,
            "sparse": False,
        }
