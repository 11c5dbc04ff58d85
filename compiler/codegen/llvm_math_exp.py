"""Scalar bodies of the exponential family: exp, exp2, expm1, sigmoid, sinh, cosh, tanh.

The polynomials are own fits (Remez exchange in 200-bit arithmetic; coefficients rounded one
after the other, the rest refitted each time). Each comment gives interval and relative error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphnn.compiler.codegen.llvm_math_body import Body, Value


@dataclass(frozen=True)
class ExpConstants:
    """ln 2 in two parts, the arguments where results end (0 and infinity), and the fits."""

    ln2_high: float
    ln2_low: float
    lowest: float
    highest: float
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r**2
    expm1: tuple[float, ...]  # the same
    exp2: tuple[float, ...]  # (2**r - 1) / r
    lowest2: float
    highest2: float


_EXP_64 = (
    0.5,
    0.16666666666666677,
    0.041666666666666685,
    0.008333333333321811,
    0.0013888888888894835,
    0.00019841269885290978,
    2.4801587274715872e-05,
    2.7557245206224745e-06,
    2.7557334604340667e-07,
    2.5108668818850613e-08,
    2.089197186270979e-09,
)
# |r| <= ln(2)/2 (exp2: 1/2). Relative errors of exp, expm1 and exp2 for 32: 2**-28.2, 2**-28.1,
# 2**-26.2; for 64: 2**-61.6 (of expm1, so of exp too) and 2**-57.1.
EXP = {
    32: ExpConstants(
        ln2_high=0.693147182464599609375,
        ln2_low=-1.904654299957768e-09,
        lowest=-104.0,
        highest=89.0,
        exp=(0.49999994, 0.16666517, 0.041668102, 0.008369197, 0.0013839018),
        expm1=(0.5, 0.16666636, 0.04166651, 0.00834151, 0.0013930545, 1.5046373e-04),
        exp2=(0.6931472, 0.24022594, 0.055503663, 0.009625446, 0.0013387932, 1.3332431e-04),
        lowest2=-151.0,
        highest2=129.0,
    ),
    64: ExpConstants(
        ln2_high=0.693147180559945286,
        ln2_low=2.319046813846299558e-17,
        lowest=-746.0,
        highest=710.0,
        exp=_EXP_64,
        expm1=_EXP_64,
        exp2=(
            0.6931471805599453,
            0.24022650695910172,
            0.055504108664824574,
            0.009618129107577079,
            0.0013333558145567472,
            0.0001540353047884588,
            1.5252734738054918e-05,
            1.3215424485494777e-06,
            1.0177656026252418e-07,
            7.075616686013704e-09,
            4.5193282958654696e-10,
        ),
        lowest2=-1076.0,
        highest2=1025.0,
    ),
}

# (tanh(x)/x - 1)/x**2 in x**2, |x| <= 0.625: 2**-27.8
TANH_32 = (-0.33333284, 0.13331483, -0.053742774, 0.020648057, -0.0057140426)
# (sinh(x)/x - 1)/x**2 in x**2, |x| <= 1: 2**-31.5 and 2**-61.7
SINH = {
    32: (0.16666667, 0.008333311, 1.9842635e-04, 2.7839258e-06),
    64: (
        0.16666666666666669,
        0.008333333333332915,
        0.00019841269841589253,
        2.75573191084699e-06,
        2.505213068282402e-08,
        1.6056685885233334e-10,
        7.775756275892302e-13,
    ),
}


def reduce_exp(b: Body, x: Value) -> tuple[Value, Value, Value]:
    """(n as float, n as integer, r) with x = n ln 2 + r, |r| <= ln(2)/2."""
    c = EXP[x.bits]
    n, n_int = b.round_to_int(x, 1.0 / math.log(2.0))
    r = b.fma(n, -c.ln2_low, b.fma(n, -c.ln2_high, x))
    return n, n_int, r


def exp_rest(b: Body, x: Value, low: Value | None) -> tuple[Value, Value]:
    """(exp(r) - 1, n) with x + low = r + n ln 2; x must be clamped."""
    _, n, r = reduce_exp(b, x)
    r = r if low is None else r + low
    return b.fma(r * r, b.poly(r, EXP[x.bits].exp), r), n


def exp_parts(b: Body, x: Value, low: Value | None = None) -> tuple[Value, Value]:
    """(m, n) with exp(x + low) = m * 2**n and m about 1; x must be clamped."""
    rest, n = exp_rest(b, x, low)
    return 1.0 + rest, n


def exp_split(b: Body, x: Value, low: Value | None = None) -> tuple[Value, Value, Value]:
    """(m, m_low, n) with exp(x + low) = (m + m_low) * 2**n; x must be clamped."""
    rest, n = exp_rest(b, x, low)
    return *b.fast_two_sum(b.const(1.0, x.type), rest), n


def exp_pair(b: Body, x: Value, lower: int = 0) -> tuple[Value, Value]:
    """exp(x) / 2**lower as an unevaluated sum, for clamped x."""
    m, m_low, n = exp_split(b, x)
    return b.scale(m, n - lower), b.scale(m_low, n - lower)


def clamp(b: Body, x: Value) -> Value:
    return b.at_most(b.at_least(x, EXP[x.bits].lowest), EXP[x.bits].highest)


def exp(b: Body, x: Value) -> Value:
    return b.scale(*exp_parts(b, clamp(b, x)))


def exp2(b: Body, x: Value) -> Value:
    c = EXP[x.bits]
    x = b.at_most(b.at_least(x, c.lowest2), c.highest2)
    n, n_int = b.round_to_int(x)
    r = x - n
    return b.scale(b.fma(r, b.poly(r, c.exp2), 1.0), n_int)


def expm1_sum(b: Body, s: Value, top: Value, r: Value) -> tuple[Value, Value]:
    """s (exp(r) - 1) + top as high + low, low at most a quarter of high.

    |top| >= |s r| or top == 0, so the error of the first sum is known exactly.
    """
    high = b.fma(s, r, top)
    rest = b.fma(s, r, top - high)
    return high, b.fma(s * (r * r), b.poly(r, EXP[r.bits].expm1), rest)


def expm1_pair(b: Body, x: Value) -> tuple[Value, Value]:
    """exp(x) - 1 as high + low, for clamped x where 2**n is a normal number."""
    _, n, r = reduce_exp(b, x)
    s = b.power_of_two(n)
    return b.fast_two_sum(*expm1_sum(b, s, s - 1.0, r))


def expm1(b: Body, x: Value) -> Value:
    """Computed at half size, so that 2**(n - 1) is finite where the result is."""
    low, tiny = {32: (-25.0, 2.0**-25), 64: (-50.0, 2.0**-54)}[x.bits]
    _, n, r = reduce_exp(b, b.at_most(b.at_least(x, low), EXP[x.bits].highest))
    half = b.power_of_two(n - 1)
    high, low_part = expm1_sum(b, half, half - 0.5, r)
    result = high + low_part
    return (b.abs(x) < tiny).select(x, result + result)


def sigmoid(b: Body, x: Value) -> Value:
    """e / (1 + e) or 1 / (1 + e) with e = exp(-|x|): right down to the denormals."""
    e, e_low = exp_pair(b, b.at_least(-b.abs(x), EXP[x.bits].lowest))
    total, rest = b.fast_two_sum(b.const(1.0), e)
    negative = x < 0.0
    top, top_low = negative.select(e, 1.0), negative.select(e_low, 0.0)
    q, q_low = b.pair_divide(top, top_low, total, rest + e_low)
    return q + q_low


def half_exp(b: Body, x: Value) -> tuple[Value, Value, Value]:
    """exp(|x|)/2 as a pair, and exp(-|x|)/2; the first overflows only where cosh does."""
    half, low = exp_pair(b, b.at_most(b.abs(x), EXP[x.bits].highest + 1.0), 1)
    return half, low, 0.25 / half


def cosh(b: Body, x: Value) -> Value:
    half, low, inverse = half_exp(b, x)
    return half + (inverse + low)


def sinh(b: Body, x: Value) -> Value:
    half, low, inverse = half_exp(b, x)
    size = b.abs(x)
    z = x * x
    small = b.fma(size * z, b.poly(z, SINH[x.bits]), size)
    return b.copysign((size < 1.0).select(small, half - (inverse - low)), x)


def tanh(b: Body, x: Value) -> Value:
    return tanh_32(b, x) if x.bits == 32 else tanh_64(b, x)


def tanh_32(b: Body, x: Value) -> Value:
    """A polynomial for |x| < 0.625, else 1 - 2/(exp(2|x|) + 1)."""
    size = b.abs(x)
    m, n = exp_parts(b, b.at_most(size + size, 20.0))
    large = 1.0 - 2.0 / b.fma(m, b.power_of_two(n), 1.0)
    z = x * x
    small = b.fma(size * z, b.poly(z, TANH_32), size)
    return b.copysign((size < 0.625).select(small, large), x)


def tanh_64(b: Body, x: Value) -> Value:
    """e / (e + 2) with e = expm1(2|x|), numerator and denominator as pairs."""
    size = b.abs(x)
    e, e_low = expm1_pair(b, b.at_most(size + size, 44.0))
    total, rest = b.two_sum(e, b.const(2.0))
    q, q_low = b.pair_divide(e, e_low, total, rest + e_low)
    return b.copysign(q + q_low, x)
