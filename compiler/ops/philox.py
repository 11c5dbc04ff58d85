"""Philox 4x32-10 and what is made of its bits, as formulas that arrays and kernels share.

J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
Each function takes an `emit`: `codegen.scalar.Emit` builds scalar code, `arrays.ArrayEmit` computes
at once. Only operations that IEEE 754 rounds correctly are used, in one order, so that both give
the same bits.
"""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint32,
    uint64,
)
from graphnn.runtime.xp import PPND16, horner

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def _product(emit: Any, a: Any, factor: int) -> tuple[Any, Any]:
    """High and low 32 bits of the product of a uint32 and a constant."""
    wide = emit.cast(a, uint64) * emit.constant(factor, uint64)
    high = emit.bitwise("shr", wide, emit.constant(32, uint64))
    return emit.cast(high, uint32), emit.cast(wide, uint32)


def philox(emit: Any, counter: tuple[Any, ...], key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Four random uint32 words for a counter of four words and a key of two."""
    a, b, c, d = counter
    k, m = key
    for step in range(ROUNDS):
        if step:
            k = k + emit.constant(_KEY_STEPS[0], uint32)
            m = m + emit.constant(_KEY_STEPS[1], uint32)
        high, low = _product(emit, a, _MULTIPLIERS[0])
        high2, low2 = _product(emit, c, _MULTIPLIERS[1])
        a, b = emit.bitwise("xor", emit.bitwise("xor", high2, b), k), low2
        c, d = emit.bitwise("xor", emit.bitwise("xor", high, d), m), low
    return a, b, c, d


def block(emit: Any, state: tuple[Any, ...], number: Any) -> tuple[Any, ...]:
    """The four words of block `number` (int64) of a state: seed and count, low words first."""
    low = emit.cast(number, uint32)
    high = emit.cast(emit.bitwise("shr", number, emit.constant(32, int64)), uint32)
    return philox(emit, (low, high, state[2], state[3]), (state[0], state[1]))


def join(emit: Any, low: Any, high: Any) -> Any:
    """Two uint32 words as one uint64."""
    high = emit.bitwise("shl", emit.cast(high, uint64), emit.constant(32, uint64))
    return emit.bitwise("or", high, emit.cast(low, uint64))


# ---- numbers from bits ----------------------------------------------------------------------


def uniform(emit: Any, bits: Any, dtype: DType) -> Any:
    """A number in [0, 1): 53 bits of a uint64 for float64, else 24 bits of a uint32.

    float16 and bfloat16 are the float32 number with its last bits cut off, so that 1 is never
    reached; the value is returned as float32.
    """
    if dtype == float64:
        whole = emit.bitwise("shr", bits, emit.constant(11, uint64))
        return emit.cast(emit.cast(whole, int64), float64) * 2.0**-53
    whole = emit.bitwise("shr", bits, emit.constant(8, uint32))
    value = emit.cast(emit.cast(whole, int32), float32) * 2.0**-24
    if dtype == float32:
        return value
    kept = {float16: 0xFFFFE000, bfloat16: 0xFFFF0000}[dtype]
    mask = emit.constant(kept, uint32)
    return emit.bitcast(emit.bitwise("and", emit.bitcast(value, uint32), mask), float32)


# PPND7 of algorithm AS 241 for float32 (relative error 1e-7); its last range lies beyond 2^-33.
_PPND7 = (
    (
        (3.3871327179e0, 5.0434271938e1, 1.5929113202e2, 5.9109374720e1),
        (1.0, 1.7895169469e1, 7.8757757664e1, 6.7187563600e1),
    ),
    (
        (1.4234372777e0, 2.7568153900e0, 1.3067284816e0, 1.7023821103e-1),
        (1.0, 7.3700164250e-1, 1.2021132975e-1),
    ),
)
_HALF_WIDTH = 0.4772498680518208  # probability of 0 < x < 2 under the normal distribution
# The greatest number below 2 of each dtype.
_BELOW_2 = {d: 2 - 2.0**-n for d, n in ((float16, 10), (bfloat16, 7), (float32, 23), (float64, 52))}


def _quantile(emit: Any, q: Any, p: Any) -> Any:
    """The positive normal quantile that leaves the probability p = 1/2 - q above it."""
    tables = PPND16 if q.dtype == float64 else _PPND7
    (near, below), *tails = tables
    r = 0.180625 - q * q
    center = q * (horner(near, r) / horner(below, r))
    r = emit.unary("sqrt", -_log(emit, p))
    tail = horner(tails[0][0], r - 1.6) / horner(tails[0][1], r - 1.6)
    if len(tails) > 1:
        far = horner(tails[1][0], r - 5.0) / horner(tails[1][1], r - 5.0)
        tail = emit.select(emit.compare("le", r, 5.0), tail, far)
    return emit.select(emit.compare("le", q, 0.425), center, tail)


_SQRT_HALF = {float32: 0x3F3504F3, float64: 0x3FE6A09E667F3BCD}
_LOG_TERMS = {float32: 5, float64: 12}
LOG_2 = 0.693147180559945309417232121458


def _log(emit: Any, x: Any) -> Any:
    """Logarithm of a normal positive number by 2 atanh(s), s = (m - 1) / (m + 1)."""
    dtype = x.dtype
    whole, digits = (int32, 23) if dtype == float32 else (int64, 52)
    bits = emit.bitcast(x, whole)
    offset = bits - emit.constant(_SQRT_HALF[dtype], whole)
    exponent = emit.bitwise("shr", offset, emit.constant(digits, whole))
    shifted = emit.bitwise("shl", exponent, emit.constant(digits, whole))
    f = emit.bitcast(bits - shifted, dtype) - 1.0
    s = f / (f + 2.0)
    series = horner(tuple(1.0 / (2 * k + 1) for k in range(_LOG_TERMS[dtype])), s * s)
    return emit.cast(exponent, dtype) * LOG_2 + (s + s) * series


def _sides(emit: Any, bits: Any) -> tuple[Any, Any, Any]:
    """(whether negative, distance from the middle, distance from the end), both of 0 to 1/2.

    The lowest bit is the sign; the others, n of them, a whole number t: the distances are
    (t + 1/2) / 2**(n + 1) and (2**n - 1 - t + 1/2) / 2**(n + 1), each rounded.
    """
    wide = bits.dtype == uint64
    whole, dtype, n = (int64, float64, 63) if wide else (int32, float32, 31)
    one = emit.constant(1, bits.dtype)
    negative = emit.compare("ne", emit.bitwise("and", bits, one), emit.constant(0, bits.dtype))
    t = emit.cast(emit.bitwise("shr", bits, one), whole)
    rest = emit.constant(2**n - 1, whole) - t
    step, half = 2.0 ** -(n + 1), 2.0 ** -(n + 2)
    q, p = (emit.cast(v, dtype) * step + half for v in (t, rest))
    return negative, q, p


def normal(emit: Any, bits: Any) -> Any:
    """A standard normal number by inversion: float32 from a uint32, float64 from a uint64."""
    negative, q, p = _sides(emit, bits)
    x = _quantile(emit, q, p)
    return emit.select(negative, -x, x)


def truncated_normal(emit: Any, bits: Any, dtype: DType) -> Any:
    """A standard normal number conditioned on |x| < 2, by inversion; halves as float32."""
    negative, q, _ = _sides(emit, bits)
    q = q * (2 * _HALF_WIDTH)
    x = _quantile(emit, q, 0.5 - q)
    x = emit.minimum(x, emit.constant(_BELOW_2[dtype], x.dtype))
    return emit.select(negative, -x, x)


def _high_product(emit: Any, bits: Any, factor: int) -> Any:
    """floor(bits * factor / 2**64) for a uint64 and a number below 2**64."""
    low_mask, shift = emit.constant(0xFFFFFFFF, uint64), emit.constant(32, uint64)
    high, low = emit.bitwise("shr", bits, shift), emit.bitwise("and", bits, low_mask)
    by_low = emit.constant(factor & 0xFFFFFFFF, uint64)
    first = high * by_low + emit.bitwise("shr", low * by_low, shift)
    if factor < 2**32:
        return emit.bitwise("shr", first, shift)
    by_high = emit.constant(factor >> 32, uint64)
    second = low * by_high + emit.bitwise("and", first, low_mask)
    carry = emit.bitwise("shr", first, shift) + emit.bitwise("shr", second, shift)
    return high * by_high + carry


def integer(emit: Any, bits: Any, low: int, high: int, dtype: DType) -> Any:
    """low + floor(bits * (high - low) / 2**64) for a uint64, in an integer dtype.

    No number is more likely than another by more than (high - low) / 2**64.
    """
    count = high - low
    offset = bits if count == 2**64 else _high_product(emit, bits, count)
    return emit.cast(offset + emit.constant(low % 2**64, uint64), dtype)
