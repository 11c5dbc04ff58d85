"""Scalar bodies of the logarithms, pow, cbrt and the inverse hyperbolic functions.

All logarithms split u = m * 2**k with m in [sqrt(1/2), sqrt(2)) and f = m - 1. The polynomials
are own fits (see llvm_math_exp); each comment gives what is fitted and its relative error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphnn.compiler.codegen.llvm_math_body import Body, Value
from graphnn.compiler.codegen.llvm_math_exp import EXP, exp_parts

Pair = tuple[float, float]


@dataclass(frozen=True)
class LogConstants:
    """The high parts of ln 2 and log10(2) have so few bits that k * high is exact."""

    sqrt_half_bits: int
    mantissa: int
    smallest_normal: float
    denormal_shift: int
    ln2: Pair
    log10_2: Pair
    log2_e: Pair
    log10_e: Pair
    poly: tuple[float, ...]


LOG = {
    32: LogConstants(
        sqrt_half_bits=0x3F3504F3,
        mantissa=23,
        smallest_normal=2.0**-126,
        denormal_shift=25,
        ln2=(0.693145751953125, 1.4286068e-06),
        log10_2=(0.30103302001953125, -3.0243555e-06),
        log2_e=(1.4426950216293335, 1.925963e-08),
        log10_e=(0.4342944920063019, -1.010305e-08),
        # (log(1 + f) - f) / f**2: 2**-26
        poly=(
            -0.49999988,
            0.333336,
            -0.25001895,
            0.19984515,
            -0.16585803,
            0.14502078,
            -0.13763398,
            0.111040555,
            -0.041724622,
        ),
    ),
    64: LogConstants(
        sqrt_half_bits=0x3FE6A09E667F3BCD,
        mantissa=52,
        smallest_normal=2.0**-1022,
        denormal_shift=54,
        ln2=(0.6931471805601177, -1.7239444525614835e-13),
        log10_2=(0.3010299956640665, -8.532344317057107e-14),
        log2_e=(1.4426950408889634, 2.0355273740931033e-17),
        log10_e=(0.4342944819032518, 1.098319650216765e-17),
        # (log((1 + s) / (1 - s)) / s - 2) / s**2 in s**2: 2**-59.4
        poly=(
            0.6666666666666734,
            0.3999999999941652,
            0.28571428742213967,
            0.22222198568011353,
            0.18183565667607957,
            0.1531399187891006,
            0.1479675148066484,
        ),
    ),
}

# The same function for pow in float: 2**-37.6
LOG_POW_32 = (0.6666666564584938, 0.40000335104344625, 0.2853731028066202, 0.2358219862840383)
# (2**r - 1) / r, |r| <= 1/2, for pow in float: 2**-34.3
EXP2_POW_32 = (
    0.6931471807045376,
    0.24022651066896097,
    0.05550410366347945,
    0.00961803809876809,
    0.0013333935178965815,
    0.00015466765110862764,
    1.5196055575566003e-05,
)
# For pow in double: ((log((1 + s) / (1 - s)) / s - 2) / s**2 - 2/3) / s**2: 2**-73.5
LOG_POW_64 = (
    0.3999999999999998,
    0.2857142857144384,
    0.22222222217789595,
    0.1818181884403095,
    0.15384558424653066,
    0.13336264692210062,
    0.11675776023253155,
    0.11981797961290973,
)
TWO_THIRDS: Pair = (0.6666666666666666, 3.700743415417188e-17)
# (1 + f)**(-1/3): 2**-17.4
CBRT = (
    1.00000384721703,
    -0.3332607644362496,
    0.22160508444535706,
    -0.17582073291738684,
    0.16042484704774085,
    -0.10807850876214978,
)


def split(b: Body, x: Value) -> tuple[Value, Value]:
    """(k, f) with x = (1 + f) * 2**k, k an integer; x positive and finite, else anything."""
    c = LOG[x.bits]
    small = x < c.smallest_normal
    k, f = split_normal(b, small.select(x * 2.0**c.denormal_shift, x))
    return small.select(k - c.denormal_shift, k), f


def split_normal(b: Body, x: Value) -> tuple[Value, Value]:
    c = LOG[x.bits]
    bits = b.to_bits(x)
    k = (bits - c.sqrt_half_bits) >> c.mantissa
    return k, b.from_bits(bits - (k << c.mantissa)) - 1.0


def log_fraction(b: Body, f: Value) -> tuple[Value, Value]:
    """log(1 + f) as high + low, |low| much smaller than |high|."""
    c = LOG[f.bits]
    if f.bits == 32:
        return f, f * f * b.poly(f, c.poly)
    s = f / (f + 2.0)
    z = s * s
    half = 0.5 * f
    square, square_low = b.two_product(half, f)
    high, low = b.fast_two_sum(f, -square)
    return high, low + (b.fma(s, b.fma(z, b.poly(z, c.poly), square), -square_low))


def with_exponent(b: Body, k: Value, high: Value, low: Value) -> tuple[Value, Value]:
    """k ln 2 + high + low as high + low."""
    c = LOG[high.bits]
    total, rest = b.fast_two_sum(b.int_to_float(k) * c.ln2[0], high)
    return total, rest + b.fma(b.int_to_float(k), c.ln2[1], low)


def edges(b: Body, u: Value, result: Value) -> Value:
    """The logarithm's values at 0, infinity, NaN and for negative u."""
    wrong = u.equal(0.0).select(b.const(-math.inf, u.type), math.nan)
    inside = (u < math.inf).select(result, u)
    return (u > 0.0).select(inside, wrong)


def log(b: Body, x: Value) -> Value:
    k, f = split(b, x)
    if x.bits == 64:
        high, low = with_exponent(b, k, *log_fraction(b, f))
        return edges(b, x, high + low)
    n = b.int_to_float(k)
    high, low = log_fraction(b, f)
    ln2 = LOG[32].ln2
    return edges(b, x, b.fma(n, ln2[0], high + b.fma(n, ln2[1], low)))


def log2(b: Body, x: Value) -> Value:
    k, f = split(b, x)
    high, low = scaled_log(b, f, LOG[x.bits].log2_e)
    total, rest = b.fast_two_sum(b.int_to_float(k), high)
    return edges(b, x, total + (rest + low))


def log10(b: Body, x: Value) -> Value:
    k, f = split(b, x)
    n, step = b.int_to_float(k), LOG[x.bits].log10_2
    high, low = scaled_log(b, f, LOG[x.bits].log10_e)
    total, rest = b.fast_two_sum(n * step[0], high)
    return edges(b, x, total + (rest + b.fma(n, step[1], low)))


def scaled_log(b: Body, f: Value, factor: Pair) -> tuple[Value, Value]:
    """factor * log(1 + f) as high + low."""
    high, low = log_fraction(b, f)
    product, rest = b.two_product(high, factor[0])
    return product, rest + b.fma(low, factor[0], high * factor[1])


def log_sum(b: Body, u: Value, rest: Value, extra: Value | None = None) -> tuple[Value, Value]:
    """log(u + rest) (+ ln 2 if `extra`) as high + low; u normal, |rest| small against u."""
    k, f = split_normal(b, u)
    # For large u the rest does not matter, and 2**-k may be no normal number.
    part = (u < 2.0**60).select(rest * b.power_of_two(-k), 0.0)
    k = k if extra is None else extra.select(k + 1, k)
    f, f_low = b.fast_two_sum(f, part)
    high, low = log_fraction(b, f)
    return with_exponent(b, k, high, b.fma(f_low, 1.0 - f, low))


def log1p(b: Body, x: Value) -> Value:
    u, rest = b.two_sum(x, b.const(1.0, x.type))
    high, low = log_sum(b, u, rest)
    return b.copysign(edges(b, u, high + low), x)


def asinh(b: Body, x: Value) -> Value:
    """log1p(|x| + x**2 / (1 + sqrt(1 + x**2))), and log(2 |x|) for large |x|."""
    size = b.abs(x)
    large = size > {32: 2.0**13, 64: 2.0**28}[x.bits]
    z = x * x
    v, v_low = b.fast_two_sum(size, z / (b.sqrt(z + 1.0) + 1.0))
    return b.copysign(log1p_or_log(b, v, v_low, large, size), x)


def acosh(b: Body, x: Value) -> Value:
    """log1p(t + sqrt(t (t + 2))) with t = x - 1, and log(2 x) for large x."""
    large = x > {32: 2.0**13, 64: 2.0**28}[x.bits]
    t = x - 1.0
    square = b.fma(t, t, t + t)
    root = b.sqrt(square)
    off = b.fma(-root, root, square) + b.fma(t, t, (t + t) - square)
    root_low = off * (0.5 / b.at_least(root, LOG[x.bits].smallest_normal))
    v, v_low = b.two_sum(t, root)
    result = log1p_or_log(b, v, v_low + root_low, large, x)
    return (x < 1.0).select(math.nan, result)


def log1p_or_log(b: Body, v: Value, v_low: Value, large: Value, x: Value) -> Value:
    u, rest = b.two_sum(v, b.const(1.0, x.type))
    u, rest = large.select(x, u), large.select(0.0, rest + v_low)
    high, low = log_sum(b, u, rest, large)
    return edges(b, u, high + low)


def atanh(b: Body, x: Value) -> Value:
    """log1p(2|x| / (1 - |x|)) / 2."""
    size = b.abs(x)
    bottom, bottom_low = b.fast_two_sum(b.const(1.0, x.type), -size)
    v, v_low = b.pair_divide(size + size, b.const(0.0, x.type), bottom, bottom_low)
    u, rest = b.two_sum(v, b.const(1.0, x.type))
    high, low = log_sum(b, u, rest + v_low)
    result = edges(b, u, high + low)
    result = size.equal(1.0).select(math.inf, 0.5 * result)
    return b.copysign((size > 1.0).select(math.nan, result), x)


def cbrt(b: Body, x: Value) -> Value:
    """m**(-1/3) by polynomial and one step of order four, then a corrected m * r**2."""
    size = b.abs(x)
    k, f = split(b, size)
    _, n = b.round_to_int(b.int_to_float(k), 1.0 / 3.0)
    rest = k - n * 3
    a = (f + 1.0) * b.power_of_two(rest)
    root = (rest > 0).select(b.const(2.0 ** (-1 / 3), x.type), 1.0)
    root = (rest < 0).select(2.0 ** (1 / 3), root)
    r = b.poly(f, CBRT) * root
    e = b.fma(-(r * r), r * a, 1.0)
    r = b.fma(r * e, b.poly(e, (1 / 3, 2 / 9, 14 / 81)), r)
    y = a * (r * r)
    square, square_low = b.two_product(y, y)
    off = b.fma(square, y, -a) + square_low * y
    y = b.fma(off, r * r * (-1 / 3), y) * b.power_of_two(n)
    special = size.equal(0.0) | x.is_finite().logical_not()
    return special.select(x, b.copysign(y, x))


def pow(b: Body, x: Value, y: Value) -> Value:
    size = b.abs(x)
    # Any larger |y| over- or underflows as well, but this one keeps the products finite.
    bound = b.at_most(b.at_least(y, -(2.0**64)), 2.0**64)
    power = pow_32(b, size, bound) if x.bits == 32 else pow_64(b, size, bound)
    return pow_edges(b, x, y, power)


def pow_32(b: Body, x: Value, y: Value) -> Value:
    """2**(y log2(x)) in double, for positive finite x."""
    k, f = split_normal(b, b.extend(x))
    s = f / (f + 2.0)
    z = s * s
    log_f = s * b.fma(z, b.poly(z, LOG_POW_32), 2.0)
    t = b.extend(y) * b.fma(log_f, 1.0 / math.log(2.0), b.int_to_float(k))
    t = b.at_most(b.at_least(t, -160.0), 160.0)
    n, n_int = b.round_to_int(t)
    r = t - n
    return b.truncate(b.fma(r, b.poly(r, EXP2_POW_32), 1.0) * b.power_of_two(n_int))


def pow_64(b: Body, x: Value, y: Value) -> Value:
    """exp(y log(x)) with the logarithm as a pair of about 68 bits, for positive finite x."""
    log_x, log_low = precise_log(b, x)
    t, t_low = b.two_product(log_x, y)
    clamped = b.at_most(b.at_least(t, EXP[64].lowest), EXP[64].highest)
    low = clamped.equal(t).select(b.fma(log_low, y, t_low), 0.0)
    return b.scale(*exp_parts(b, clamped, low))


def precise_log(b: Body, x: Value) -> tuple[Value, Value]:
    """log(x) = k ln 2 + 2 s + s z (2/3 + z Q(z)), s = f/(2 + f), z = s**2, all in pairs."""
    k, f = split(b, x)
    d, d_low = b.fast_two_sum(b.const(2.0), f)
    s, s_low = b.fast_two_sum(*b.pair_divide(f, b.const(0.0), d, d_low))
    z, z_low = b.two_product(s, s)
    z_low = b.fma(s + s, s_low, z_low)
    a, a_low = b.fast_two_sum(b.const(TWO_THIRDS[0]), z * b.poly(z, LOG_POW_64))
    a_low = a_low + TWO_THIRDS[1]
    p, p_low = b.two_product(z, a)
    p_low = b.fma(z, a_low, b.fma(z_low, a, p_low))
    q, q_low = b.two_product(s, p)
    q_low = b.fma(s, p_low, b.fma(s_low, p, q_low))
    high, low = b.fast_two_sum(s + s, q)
    low = low + (q_low + (s_low + s_low))
    return b.fast_two_sum(*with_exponent(b, k, high, low))


def pow_edges(b: Body, x: Value, y: Value, power: Value) -> Value:
    """The rules of C's pow for zero, infinite, negative and NaN arguments."""
    size = b.abs(x)
    floor = b.intrinsic("floor", y)
    half = 0.5 * y
    whole = floor.equal(y)
    odd = whole & b.intrinsic("floor", half).equal(half).logical_not()
    grows = (size > 1.0) ^ (y < 0.0)
    edge = size.equal(0.0) | size.equal(math.inf)
    power = edge.select(grows.select(b.const(math.inf, x.type), 0.0), power)
    power = odd.select(b.copysign(power, x), power)
    undefined = (x < 0.0) & (x > -math.inf) & whole.logical_not()
    undefined = undefined | x.is_nan() | y.is_nan()
    one = x.equal(1.0) | y.equal(0.0)
    return one.select(1.0, undefined.select(math.nan, power))
