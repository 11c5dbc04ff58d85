"""Random numbers as pure functions of a state, equal bit for bit in eager and compiled code.

A state is uint32[4]: (seed_lo, seed_hi, count_lo, count_hi). The seed is Philox's key; element i
of a tensor takes word i % 4 of block i // 4, whose counter is (block_lo, block_hi, count_lo,
count_hi). 64-bit numbers take two words, the first as the low half. Each draw needs a count of its
own: `graphnn.random.Generator` sees to that.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.sizes import ravel
from graphnn.compiler.ir.types import (
    ALL,
    FLOATS,
    INTEGERS,
    DType,
    TensorType,
    as_dtype,
    describe,
    int64,
    uint32,
    uint64,
)
from graphnn.compiler.ops.arrays import ArrayEmit, quiet
from graphnn.compiler.ops.base import Composite, NoGradient, Op, Opaque, Sample, normalize_axis
from graphnn.compiler.ops.philox import block, integer, join, normal, truncated_normal, uniform
from graphnn.runtime.errors import ArgumentError, ShapeError

_STATE = ("uint32", (4,))
CHUNK = 8192  # blocks computed at a time, so that intermediate arrays stay in the cache


def check_state(state: TensorType, subject: str) -> None:
    """Raise ShapeError or DTypeError unless a type is uint32[4]."""
    if state.shape != (4,) or state.dtype != uint32:
        raise ShapeError(
            subject,
            received=f"state {describe(state.dtype, state.shape)}",
            expected="uint32[4]: the seed and the count, two words each",
            fix="use graphnn.random.Generator, which keeps such a state",
        )


def check_member(dtype: str, allowed: tuple[DType, ...], subject: str) -> DType:
    """The dtype of that name; raises ArgumentError unless it is an allowed one."""
    if as_dtype(dtype) not in allowed:
        raise ArgumentError(
            subject,
            received=f"dtype {dtype}",
            expected=", ".join(d.name for d in allowed),
            fix="draw in one of these dtypes and cast the result",
        )
    return as_dtype(dtype)


def words(xp: Any, state: Any, count: int) -> Any:
    """The first `count` uint32 words of a state, as a flat array."""
    emit, parts = ArrayEmit(xp), tuple(state[k : k + 1] for k in range(4))
    blocks = -(-count // 4)
    result = xp.empty((blocks, 4), uint32)
    for begin in range(0, blocks, CHUNK):
        numbers = xp.arange(begin, min(begin + CHUNK, blocks), dtype=int64)
        for k, word in enumerate(block(emit, parts, numbers)):
            result[begin : begin + CHUNK, k] = word
    return result.reshape(-1)[:count]


class Draw(Op):
    """Template of tensors of random numbers: `number` makes one from its bits.

    shape: sizes of the result. dtype: name of its dtype.
    """

    fusion, accepts = "map", (uint32,)
    gradient = NoGradient("random numbers depend on no tensor but their state")
    allowed: ClassVar[tuple[DType, ...]] = FLOATS
    shape: tuple[Any, ...]

    def result_dtype(self) -> DType:
        """The dtype that the setting `dtype` of each op names."""
        return check_member(self.settings()["dtype"], self.allowed, self.name)

    def infer(self, *types: TensorType) -> TensorType:
        check_state(types[0], self.name)
        return TensorType(tuple(self.shape), self.result_dtype())

    def is_wide(self) -> bool:
        """Whether a number needs 64 bits instead of 32."""
        return self.result_dtype().itemsize == 8

    def number(self, emit: Any, bits: Any, dtype: DType) -> Any:
        """The number made of 32 or 64 random bits; halves as float32."""
        raise TypeError(f"{self.name} does not say how numbers are made of bits")

    def eager(self, xp: Any, state: Any) -> Any:
        shape, dtype = tuple(int(s) for s in self.shape), self.result_dtype()
        count = math.prod(shape)
        emit, result = ArrayEmit(xp), xp.empty(count, dtype)
        bits = words(xp, xp.asarray(state), count * (1 + self.is_wide()))
        if self.is_wide():
            bits = join(emit, bits[0::2], bits[1::2])
        for begin in range(0, count, CHUNK):
            part = slice(begin, begin + CHUNK)
            result[part] = quiet(self.number, emit, bits[part], dtype)
        return result.reshape(shape)

    def element(self, emit: Any, out: TensorType, index: Any, loads: Any) -> Any:
        linear = ravel(index, out.shape)
        state = tuple(loads[0]((k,)) for k in range(4))
        per_block = 2 if self.is_wide() else 4
        a, b, c, d = block(emit, state, emit.index(linear // per_block))
        place = emit.index(linear % per_block)
        if self.is_wide():
            first = emit.compare("eq", place, 0)
            bits = join(emit, emit.select(first, a, c), emit.select(first, b, d))
        else:
            bits = d
            for k, word in ((2, c), (1, b), (0, a)):
                bits = emit.select(emit.compare("eq", place, k), word, bits)
        return emit.cast(self.number(emit, bits, out.dtype), out.dtype)


class RandomBits(Draw):
    """Random bits: every value of the dtype is equally likely.

    state: uint32[4]. shape: sizes. dtype: "uint32" or "uint64". It has no gradient.
    """

    name, allowed = "random_bits", (uint32, uint64)
    shape: tuple[Any, ...]
    dtype: str = "uint32"
    samples = (
        Sample((_STATE,), {"shape": (3, 5)}, ulp=0),
        Sample((_STATE,), {"shape": (7,), "dtype": "uint64"}, ulp=0),
        Sample((_STATE,), {"shape": ()}, ulp=0),
        Sample((_STATE,), {"shape": (0, 2)}, ulp=0),
    )

    def number(self, emit: Any, bits: Any, dtype: DType) -> Any:
        return bits


_DRAWS = (
    Sample((_STATE,), {"shape": (3, 5)}, ulp=0),
    Sample((_STATE,), {"shape": (2, 1, 3), "dtype": "float64"}, ulp=0),
    Sample((_STATE,), {"shape": (9,), "dtype": "bfloat16"}, ulp=0),
    Sample((_STATE,), {"shape": (), "dtype": "float16"}, ulp=0),
    Sample((_STATE,), {"shape": (0,)}, ulp=0),
)


class RandomUniform(Draw):
    """Numbers from 0 to below 1, all multiples of 2^-24 (2^-53 in float64) equally likely.

    In float16 and bfloat16 they are rounded down. state: uint32[4]. shape: sizes. dtype: a float
    dtype. It has no gradient.
    """

    name, samples = "random_uniform", _DRAWS
    shape: tuple[Any, ...]
    dtype: str = "float32"

    def number(self, emit: Any, bits: Any, dtype: DType) -> Any:
        return uniform(emit, bits, dtype)


class RandomNormal(Draw):
    """Standard normal numbers, by inversion of the distribution function (AS 241).

    In float32 they reach to 6.2, in float64 to 9.1; float16 and bfloat16 are rounded float32.
    state: uint32[4]. shape: sizes. dtype: a float dtype. It has no gradient.
    """

    name, samples = "random_normal", _DRAWS
    shape: tuple[Any, ...]
    dtype: str = "float32"

    def number(self, emit: Any, bits: Any, dtype: DType) -> Any:
        return normal(emit, bits)


class TruncatedNormal(Draw):
    """Standard normal numbers conditioned on lying between -2 and 2.

    state: uint32[4]. shape: sizes. dtype: a float dtype. It has no gradient.
    """

    name, samples = "truncated_normal", _DRAWS
    shape: tuple[Any, ...]
    dtype: str = "float32"

    def number(self, emit: Any, bits: Any, dtype: DType) -> Any:
        return truncated_normal(emit, bits, dtype)


class RandomIntegers(Draw):
    """Integers from low to below high: low + floor(bits * (high - low) / 2^64) of 64 random bits.

    state: uint32[4]. shape: sizes. low, high: Python integers within the dtype. dtype: an integer
    dtype. It has no gradient. Raises ArgumentError for an empty range or one beyond the dtype.
    """

    name, allowed = "randint", INTEGERS
    shape: tuple[Any, ...]
    low: int
    high: int
    dtype: str = "int32"
    samples = (
        Sample((_STATE,), {"shape": (3, 5), "low": -3, "high": 10}, ulp=0),
        Sample((_STATE,), {"shape": (8,), "low": 0, "high": 2**64, "dtype": "uint64"}, ulp=0),
        Sample((_STATE,), {"shape": (8,), "low": -(2**40), "high": 2**41, "dtype": "int64"}, ulp=0),
        Sample((_STATE,), {"shape": (8,), "low": 0, "high": 256, "dtype": "uint8"}, ulp=0),
    )

    def infer(self, *types: TensorType) -> TensorType:
        result = super().infer(*types)
        info = np.iinfo(result.dtype)
        if not int(info.min) <= self.low < self.high <= int(info.max) + 1:
            raise ArgumentError(
                self.name,
                received=f"low {self.low} and high {self.high} for {result.dtype.name}",
                expected=f"{info.min} <= low < high <= {int(info.max) + 1}",
                fix="give a range with at least one number that the dtype holds",
            )
        return result

    def is_wide(self) -> bool:
        return True

    def number(self, emit: Any, bits: Any, dtype: DType) -> Any:
        return integer(emit, bits, self.low, self.high, dtype)


class Bernoulli(Composite):
    """1 (or True) with probability p, else 0: whether `random_uniform` is below p.

    state: uint32[4]. shape: sizes. p: the probability. dtype: any dtype. It has no gradient.
    """

    name, accepts, promotes = "bernoulli", (uint32,), "none"
    gradient: ClassVar[NoGradient | None] = NoGradient("the result is a choice")
    shape: tuple[Any, ...]
    p: float = 0.5
    dtype: str = "bool"
    samples = (
        Sample((_STATE,), {"shape": (3, 5), "p": 0.3}, ulp=0),
        Sample((_STATE,), {"shape": (4,), "dtype": "float32"}, ulp=0),
    )

    def decompose(self, ops: Any, state: Any) -> Any:
        check_member(self.dtype, ALL, self.name)
        hit = ops.less(ops.random_uniform(state, shape=self.shape), float(self.p))
        return hit if self.dtype == "bool" else ops.cast(hit, dtype=self.dtype)


class Permutation(Opaque):
    """The numbers 0 to size - 1 in random order: the stable order of 64-bit random keys.

    state: uint32[4]. size: their number. dtype: an integer dtype. inverse: the inverse permutation
    instead. It has no gradient.
    """

    name, accepts = "permutation", (uint32,)
    gradient = NoGradient("the result is integers")
    size: Any
    dtype: str = "int64"
    inverse: bool = False
    samples = (
        Sample((_STATE,), {"size": 7}, ulp=0),
        Sample((_STATE,), {"size": 0, "dtype": "int32"}, ulp=0),
        Sample((_STATE,), {"size": 9, "inverse": True}, ulp=0),
    )

    def infer(self, *types: TensorType) -> TensorType:
        check_state(types[0], self.name)
        return TensorType((self.size,), check_member(self.dtype, INTEGERS, self.name))

    def eager(self, xp: Any, state: Any) -> Any:
        size = int(self.size)
        bits = words(xp, xp.asarray(state), 2 * size)
        order = xp.argsort(join(ArrayEmit(xp), bits[0::2], bits[1::2]), kind="stable")
        if self.inverse:
            order = xp.argsort(order, kind="stable")
        return order.astype(as_dtype(self.dtype))


class Shuffle(Composite):
    """The slices of x along an axis in random order, that of `permutation`.

    x: any dtype, at least one axis. state: uint32[4]. axis: the axis. Returns: type of x.
    """

    name, accepts, promotes = "shuffle", ALL, "none"
    axis: int = 0
    samples = (
        Sample((("f", (5, 2)), _STATE)),
        Sample((("i", (2, 6)), _STATE), {"axis": -1}),
    )

    def _take(self, ops: Any, x: Any, state: Any, inverse: bool) -> Any:
        axis = normalize_axis(self.axis, len(x.shape), self.name)
        order = ops.permutation(state, size=x.shape[axis], inverse=inverse)
        return ops.take(x, order, axis=axis)

    def decompose(self, ops: Any, x: Any, state: Any) -> Any:
        return self._take(ops, x, state, False)

    def grad(self, ops: Any, x: Any, state: Any, *, out: Any, g: Any) -> Any:
        return self._take(ops, g, state, True), None
