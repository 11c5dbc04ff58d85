"""Scalar bodies of sin, cos, tan, asin, acos, atan and atan2.

Arguments are reduced in quarter turns over the whole range of the type, without branches:
x * 2/pi modulo 4, with the bits of 2/pi that give whole turns left out (Payne and Hanek 1983).
The polynomials are own fits (see llvm_math_exp).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

from graphnn.compiler.codegen.llvm_math_body import Body, Value

# (sin(r)/r - 1)/r**2 and (cos(r) - 1 + r**2/2)/r**4 in r**2, |r| <= pi/4:
# 32: 2**-28.0, 2**-33.1; 64: 2**-57.9, 2**-64.2
SIN = {
    32: (-0.16666655, 0.008332191, -1.9518605e-04),
    64: (
        -0.16666666666666632,
        0.008333333333322486,
        -0.0001984126982983662,
        2.7557313693000927e-06,
        -2.5050757103901312e-08,
        1.5896678854614965e-10,
    ),
}
COS = {
    32: (0.041666646, -0.0013887301, 2.443066e-05),
    64: (
        0.0416666666666666,
        -0.001388888888887447,
        2.480158728966677e-05,
        -2.7557314399317863e-07,
        2.087572902971221e-09,
        -1.1359921153413619e-11,
    ),
}
# The same in double for tan in float: 2**-37.6, 2**-43.2
SIN_TAN_32 = (
    -0.16666666641626546,
    0.008333329385498967,
    -0.00019839334469170912,
    2.7183058627793895e-06,
)
COS_TAN_32 = (
    0.04166666662279598,
    -0.0013888883750444645,
    2.4799519206215427e-05,
    -2.721017077545712e-07,
)
# (atan(t)/t - 1)/t**2 in t**2, |t| <= 2/3: 2**-30.2, 2**-58.7
ATAN = {
    32: (
        -0.33333322,
        0.19999309,
        -0.14271125,
        0.10964622,
        -0.082863,
        0.05120558,
        -0.017481044,
    ),
    64: (
        -0.33333333333333215,
        0.199999999999718,
        -0.14285714283355316,
        0.11111111010915235,
        -0.0909090655033867,
        0.0769226559767604,
        -0.0666618461857981,
        0.05878396157743401,
        -0.05239317998460455,
        0.0465488969917086,
        -0.03986889897197641,
        0.030814665630973116,
        -0.019337060271397,
        0.008384758433405883,
        -0.0018189709267631255,
    ),
}
# (asin(s)/s - 1)/s**2 in s**2, |s| <= 1/2: 2**-27.6, 2**-55.7
ASIN = {
    32: (0.16666754, 0.07495252, 0.045476038, 0.0241522, 0.042211406),
    64: (
        0.16666666666665383,
        0.07500000000342946,
        0.04464285682352548,
        0.030381959330898562,
        0.022371753505871658,
        0.017359771542078954,
        0.013884594992443787,
        0.012173282356503223,
        0.006510969667229138,
        0.019573165870752578,
        -0.01629221254262161,
        0.03195721912184924,
    ),
}
HALF_PI = {
    32: (1.5707963705062866, -4.371139e-08),
    64: (1.5707963267948966, 6.123233995736766e-17),
}


@cache
def two_over_pi(bits: int) -> int:
    """floor(2**bits * 2 / pi), with Machin's formula for pi in integers."""
    one = 1 << (bits + 32)
    pi = 4 * (4 * _inverse_tangent(5, one) - _inverse_tangent(239, one))
    return (2 * one * one // pi) >> 32


def _inverse_tangent(n: int, one: int) -> int:
    """one * atan(1 / n)"""
    total, power, k = 0, one // n, 1
    while power:
        total += power // k if k % 4 == 1 else -(power // k)
        power //= n * n
        k += 2
    return total


_BITS = 1300


def quarter_turns(shift: int, parts: int) -> list[float]:
    """2**shift * 2/pi modulo 4, in [-2, 2), as a sum of doubles."""
    left = (two_over_pi(_BITS) << shift) % (4 << _BITS)
    left -= (4 << _BITS) if left >= (2 << _BITS) else 0
    result = []
    for _ in range(parts):
        part = left / (1 << _BITS)
        result.append(part)
        left -= int(Fraction(part) * (1 << _BITS))
    return result


# For x >= lowest: multiples of 2**shift only, so that 2**shift * 2/pi counts modulo 4.
# The product with x stays below 2**44.6, so that n is sure.
FLOAT_CLASSES = ((2.0**45, 19), (2.0**66, 43), (2.0**86, 63), (2.0**107, 84))
TABLE_STEP, TABLE_ROWS, TABLE_PARTS = 32, 31, 4


def turns_table() -> list[float]:
    """Row g: the parts of quarter_turns(32 g), for doubles that are multiples of 2**(32 g)."""
    rows = (quarter_turns(TABLE_STEP * g, TABLE_PARTS) for g in range(TABLE_ROWS))
    return [part for row in rows for part in row]


def reduce_32(b: Body, x: Value) -> tuple[Value, Value]:
    """(r as double, q as i32) with x = r + q pi/2 modulo 2 pi, |r| <= pi/4, for a float x."""
    size = b.abs(x)
    high, low = (b.const(c, "double") for c in quarter_turns(0, 2))
    for lowest, shift in FLOAT_CLASSES:
        inside = size >= lowest
        first, second = quarter_turns(shift, 2)
        high = inside.select(first * 2.0**-shift, high)
        low = inside.select(second * 2.0**-shift, low)
    wide = b.extend(x)
    turns = wide * high
    rest = b.fma(wide, low, b.fma(wide, high, -turns))
    n, n_int = b.round_to_int(turns)
    return ((turns - n) + rest) * (math.pi / 2), b.cast("trunc", n_int, "i32")


def reduce_64(b: Body, x: Value) -> tuple[Value, Value, Value]:
    """(r, r_low, q) as in reduce_32, r as a pair, q as i64, for a double x."""
    exponent = ((b.to_bits(x) >> 52) & 0x7FF) - 1075
    group = (exponent > 0).select(exponent, 0) >> 5
    x = x * b.power_of_two(-(group << 5))
    parts = [b.load("quarter_turns", (group << 2) + i) for i in range(TABLE_PARTS)]
    # Whole turns leave each product without error, so the sum starts below 2 * 4.
    p, p_low = b.two_product(x, parts[0])
    q, q_low = b.two_product(x, parts[1])
    s, s_low = b.two_product(x, parts[2])
    high, rest = b.two_sum(modulo_4(b, p), modulo_4(b, p_low))
    high, rest_2 = b.two_sum(high, modulo_4(b, q))
    n, n_int = b.round_to_int(high)
    high, rest = b.two_sum(high - n, rest + rest_2)
    high, rest_2 = b.two_sum(high, q_low)
    high, rest_3 = b.two_sum(high, s)
    low = b.fma(x, parts[3], s_low) + ((rest + rest_2) + rest_3)
    high, low = b.fast_two_sum(high, low)
    r, r_low = b.two_product(high, HALF_PI[64][0])
    r_low = b.fma(high, HALF_PI[64][1], b.fma(low, HALF_PI[64][0], r_low))
    return r, r_low, n_int


def modulo_4(b: Body, x: Value) -> Value:
    return b.fma(b.intrinsic("rint", x * 0.25), -4.0, x)


def sine_cosine(b: Body, x: Value) -> tuple[Value, Value, Value]:
    """(sin r, cos r, q) after the reduction of x."""
    if x.bits == 32:
        wide, q = reduce_32(b, x)
        r = b.truncate(wide)
        z = r * r
        # The last step in double: rounding r costs half an ulp, and more next to 1/4 and 1/2.
        sine = b.fma(wide, b.extend(z * b.poly(z, SIN[32])), wide)
        return b.truncate(sine), b.fma(z, b.fma(z, b.poly(z, COS[32]), -0.5), 1.0), q
    r, r_low, q = reduce_64(b, x)
    s, s_low, c, c_low = sine_cosine_pairs(b, r, r_low)
    return s + s_low, c + c_low, q


def sine_cosine_pairs(b: Body, r: Value, r_low: Value) -> tuple[Value, Value, Value, Value]:
    """sin and cos of r + r_low, each as high + low."""
    z = r * r
    half = z * 0.5
    cosine, rest = b.fast_two_sum(b.const(1.0), -half)
    sine_low = b.fma(r * z, b.poly(z, SIN[64]), b.fma(r_low, -half, r_low))
    cosine_low = rest + b.fma(z * z, b.poly(z, COS[64]), -(r * r_low))
    return r, sine_low, cosine, cosine_low


def pick_quarter(b: Body, sine: Value, cosine: Value, q: Value) -> Value:
    """sin(r + q pi/2) from sin r and cos r."""
    value = (q & 1).equal(0).select(sine, cosine)
    return (q & 2).equal(0).select(value, -value)


def sin(b: Body, x: Value) -> Value:
    sine, cosine, q = sine_cosine(b, x)
    return is_tiny(b, x).select(x, pick_quarter(b, sine, cosine, q))


def is_tiny(b: Body, x: Value) -> Value:
    """Where sin x and tan x are x; the reduction would lose bits of denormals and -0."""
    return b.abs(x) < {32: 2.0**-13, 64: 2.0**-27}[x.bits]


def cos(b: Body, x: Value) -> Value:
    sine, cosine, q = sine_cosine(b, x)
    return pick_quarter(b, sine, cosine, q + 1)


def tan(b: Body, x: Value) -> Value:
    return is_tiny(b, x).select(x, tan_32(b, x) if x.bits == 32 else tan_64(b, x))


def tan_32(b: Body, x: Value) -> Value:
    r, q = reduce_32(b, x)
    z = r * r
    sine = b.fma(r * z, b.poly(z, SIN_TAN_32), r)
    cosine = b.fma(z, b.fma(z, b.poly(z, COS_TAN_32), -0.5), 1.0)
    even = (q & 1).equal(0)
    return b.truncate(even.select(sine, -cosine) / even.select(cosine, sine))


def tan_64(b: Body, x: Value) -> Value:
    r, r_low, q = reduce_64(b, x)
    s, s_low, c, c_low = sine_cosine_pairs(b, r, r_low)
    (s, s_low), (c, c_low) = b.fast_two_sum(s, s_low), b.fast_two_sum(c, c_low)
    even = (q & 1).equal(0)
    top, top_low = even.select(s, -c), even.select(s_low, -c_low)
    bottom, bottom_low = even.select(c, s), even.select(c_low, s_low)
    value, low = b.pair_divide(top, top_low, bottom, bottom_low)
    return value + low


def arc_sine_parts(b: Body, x: Value) -> tuple[Value, Value, Value]:
    """(big, s, p): asin|x| is s + p, or pi/2 - 2 (s + p) where `big` (|x| > 1/2)."""
    size = b.abs(x)
    big = size > 0.5
    z = big.select((1.0 - size) * 0.5, size * size)
    s = big.select(b.sqrt(z), size)
    return big, s, s * z * b.poly(z, ASIN[x.bits])


def asin(b: Body, x: Value) -> Value:
    big, s, p = arc_sine_parts(b, x)
    high, low = HALF_PI[x.bits]
    total, rest = b.fast_two_sum(b.const(high, x.type), -(s + s))
    large = total + (rest - ((p + p) - low))
    return b.copysign(big.select(large, s + p), x)


def acos(b: Body, x: Value) -> Value:
    big, s, p = arc_sine_parts(b, x)
    high, low = HALF_PI[x.bits]
    negative = x < 0.0
    half = s + p
    double = half + half
    from_pi = 2.0 * (high - (s + (p - low)))
    s, p = negative.select(-s, s), negative.select(-p, p)
    small = high - (s + (p - low))
    return big.select(negative.select(from_pi, double), small)


def atan(b: Body, x: Value) -> Value:
    """atan(t) + 0, pi/4 or pi/2 with t = x, (x - 1)/(x + 1) or -1/x for |x|."""
    size = b.abs(x)
    middle, far = size > 0.66, size > 1.5
    top = far.select(-1.0, middle.select(size - 1.0, size))
    bottom = far.select(size, middle.select(size + 1.0, 1.0))
    high, low = HALF_PI[x.bits]
    zero = b.const(0.0, x.type)
    offset = far.select(high, middle.select(high / 2, zero))
    offset_low = far.select(low, middle.select(low / 2, zero))
    t = top / bottom
    z = t * t
    rest = b.fma(t * z, b.poly(z, ATAN[x.bits]), offset_low)
    return b.copysign(offset + (t + rest), x)


def atan2(b: Body, y: Value, x: Value) -> Value:
    """k pi/4 +- atan(t), t = a/c or (a - c)/(a + c), a and c the smaller and larger of |x|, |y|."""
    small, large, steep = ordered_sizes(b, y, x)
    near = small > large * 0.66
    total, rest = b.fast_two_sum(large, small)
    top = near.select(small - large, small)
    bottom = near.select(total, large)
    t = top / bottom
    off = b.fma(-t, near.select(rest, 0.0), b.fma(-t, bottom, top))
    z = t * t
    part = b.fma(t * z, b.poly(z, ATAN[x.bits]), off / bottom)
    # The angle is k pi/4 + sign * atan(t); reflect it for steep and for negative x.
    k = near.select(b.const(1.0, x.type), 0.0)
    k = steep.select(2.0 - k, k)
    backward = b.copysign(b.const(1.0, x.type), x) < 0.0
    k = backward.select(4.0 - k, k)
    turned = steep ^ backward
    t, part = turned.select(-t, t), turned.select(-part, part)
    high, low = HALF_PI[x.bits]
    base, base_low = b.two_product(k, high / 2)
    return b.copysign(base + (t + (part + b.fma(k, low / 2, base_low))), y)


def ordered_sizes(b: Body, y: Value, x: Value) -> tuple[Value, Value, Value]:
    """(smaller, larger, |y| > |x|) of the sizes, scaled so that their sum is normal."""
    rows, columns = b.abs(y), b.abs(x)
    steep = rows > columns
    small, large = steep.select(columns, rows), steep.select(rows, columns)
    limit, step = {32: (100, 30), 64: (900, 100)}[x.bits]
    factor = (large < 2.0**-limit).select(b.const(2.0**step, x.type), 1.0)
    factor = (large > 2.0**limit).select(2.0**-step, factor)
    endless = large.equal(math.inf)
    flat = endless.select(small.equal(math.inf).select(b.const(1.0, x.type), 0.0), small * factor)
    # NaN must stay in both; two zeros divide as 0/1.
    large = (endless | large.equal(0.0)).select(1.0, large * factor)
    return small.is_nan().select(small, flat), large, steep
