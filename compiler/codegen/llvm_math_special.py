"""Scalar bodies of erf, erfc, erfinv, lgamma and digamma.

The polynomials are own fits (see llvm_math_exp); each comment gives what is fitted, in which
variable, where, and the relative error of the function.
"""

from __future__ import annotations

import math

from graphnn.compiler.codegen.llvm_math_body import Body, Value
from graphnn.compiler.codegen.llvm_math_exp import exp_parts, exp_split
from graphnn.compiler.codegen.llvm_math_log import (
    LOG_POW_32,
    log_fraction,
    split,
    split_normal,
    with_exponent,
)
from graphnn.compiler.codegen.llvm_math_trig import sine_cosine_pairs

# erf(x)/x - 1 in x**2, |x| <= 1: 2**-29.4
ERF_SMALL_32 = (
    0.12837917,
    -0.37612626,
    0.11283579,
    -0.026853347,
    0.005187162,
    -7.997853e-04,
    7.806906e-05,
)
# log(erfc(x)) in x, 1 <= x <= 4: 2**-29.8 of erf
ERF_TAIL_32 = (
    -3.4154183e-04,
    -1.1270891,
    -0.63814485,
    -0.103106804,
    0.021838125,
    -0.0029476837,
    1.8638275e-04,
)
# erf(x)/x - 1 in x**2, |x| <= 1: 2**-56.3
ERF_SMALL_64 = (
    0.1283791670955126,
    -0.376126389031841,
    0.11283791670971101,
    -0.026866170648032265,
    0.005223977652709588,
    -0.0008548328537139344,
    0.0001205538625592457,
    -1.4926883306295882e-05,
    1.6481094012538181e-06,
    -1.6557562378860851e-07,
    1.601654672887714e-08,
    -1.6479133410416038e-09,
    1.43705061555588e-10,
)
# (1 + 2 x) exp(x**2) erfc(x) in (x - 4)/(x + 4), 1/2 <= x <= 28: 2**-54.5
ERFCX = (
    1.2329951186255526,
    -0.13962111684056294,
    0.015379652102600923,
    0.06809705425475243,
    -0.10103906603501694,
    0.09373283499592294,
    -0.06633036584660656,
    0.03716751558223021,
    -0.01619773358606483,
    0.005031969528329665,
    -0.000757777068957459,
    -0.00019925400070172693,
    0.00015064059070763768,
    -2.440923994260886e-05,
    -1.128290456337953e-05,
    5.7330148127675685e-06,
    4.1986396996392625e-07,
    -8.579300907307638e-07,
    -8.769057881824176e-08,
    1.3431355928647643e-07,
    1.003735418871551e-07,
    -2.038202111253704e-08,
    -3.543557221716871e-08,
)
# erfinv(x)/x in w - 2.5, w = -log(1 - x**2) <= 5: 2**-28.7
ERFINV_CENTRE = (
    1.501409353524787,
    0.24664028764689858,
    -0.00417733949371979,
    -0.0012527446417319322,
    0.00021828276032729294,
    -4.961925102575454e-06,
    -3.4346777505919772e-06,
    4.658944389651712e-07,
    1.8050780385643457e-08,
    -8.772937266597643e-09,
    3.3457810853295946e-10,
)
# The same in sqrt(w) - 3, 5 <= w <= 16.7 (all floats): 2**-29.3
ERFINV_TAIL_32 = (
    2.832976801354952,
    1.001675236298477,
    0.00944530993545909,
    -0.007642751623168379,
    0.005687629788740074,
    -0.0035671818378875814,
    0.0014753599008060021,
    -0.00011983111351142567,
    -0.00027787431706358107,
    0.0001603944792184889,
    -2.929804287424216e-05,
)
# The same in sqrt(w) - 4, 5 <= w <= 36.5 (all doubles): 2**-21.3, a Halley step follows
ERFINV_TAIL_64 = (
    3.8397844304368856,
    1.0095012724872967,
    0.0012509302820270267,
    -0.0009139298692078036,
    0.00034519368244544086,
    -4.9392480145147726e-05,
    2.6837037685520693e-05,
    -7.277389904763373e-05,
    3.605108751771971e-05,
    -5.860710856894173e-07,
    -1.7960222028412502e-06,
)
# lgamma(2 + y)/y in y, |y| <= 1/2: 2**-56.0
LGAMMA = (
    0.42278433509846713,
    0.3224670334241133,
    -0.06735230105319491,
    0.02058080842776586,
    -0.007385551029010713,
    0.0028905103318180273,
    -0.0011927538980372732,
    0.0005096694964250197,
    -0.00022315503548291823,
    9.945791734677101e-05,
    -4.492309296039902e-05,
    2.0503816065658388e-05,
    -9.460341509141847e-06,
    4.392057540992496e-06,
    -1.9593137493221154e-06,
    9.038977617192607e-07,
    -6.108701850642072e-07,
    2.93345114752235e-07,
    2.4418301075170664e-08,
)
# x (lgamma(x) - (x - 1/2) log(x) + x - log(2 pi)/2) in 1/x**2, x >= 8: 2**-61.6
STIRLING = (
    0.0833333333333331,
    -0.002777777777362838,
    0.0007936505776998067,
    -0.0005951898392826454,
    0.000836467657722197,
    -0.0016336279169372214,
)
# digamma(1 + y)/(1 + y - root) in y - 1/2, 0 <= y <= 1: 2**-54.2
DIGAMMA = (
    0.9510558760318328,
    -0.42362742128146114,
    0.24054248424082936,
    -0.1484049230537217,
    0.09498872444605075,
    -0.06192213328934447,
    0.04076083437092519,
    -0.02697579610815433,
    0.01790723445945187,
    -0.01190823217006288,
    0.007927282069497728,
    -0.0052797786895160004,
    0.003515061465662931,
    -0.002346800874446963,
    0.0015862334822163366,
    -0.001029665876721895,
    0.0005807126171898602,
    -0.0005076055387471734,
    0.0006536775197127268,
    -0.0001061735873360312,
    -0.0004606480360804887,
    -0.00020775225398638445,
    0.0005252590790095275,
)
# x**2 (log(x) - 1/(2 x) - digamma(x)) in 1/x**2, x >= 4: 2**-62.1
DIGAMMA_LARGE = (
    0.08333333333333234,
    -0.008333333332527466,
    0.003968253740475082,
    -0.004166634563344868,
    0.007573125033531969,
    -0.020956402519218785,
    0.07864460030130918,
    -0.3326119418685557,
    1.1920056778577677,
    -2.3496420271255065,
)
DIGAMMA_ROOT = (0.46163214496836236, -1.5522348162858677e-17)  # + 1
LGAMMA_LOW = 4.942915152430645e-18  # rest of LGAMMA[0] = 1 - Euler's constant
HALF_LOG_2_PI = 0.4189385332046727  # log(2 pi)/2 - 1/2


def erf(b: Body, x: Value) -> Value:
    size = b.abs(x)
    z = x * x
    small = b.fma(size, b.poly(z, ERF_SMALL_32 if x.bits == 32 else ERF_SMALL_64), size)
    if x.bits == 32:
        m, n = exp_parts(b, b.poly(b.at_most(size, 4.0), ERF_TAIL_32))
        large = b.fma(-m, b.power_of_two(n), 1.0)
    else:
        large = 1.0 - b.scale(*erfc_parts(b, b.at_most(size, 6.0)))
    return b.copysign((size < 1.0).select(small, large), x)


def erfc(b: Body, x: Value) -> Value:
    """For double; floats go through double."""
    size = b.abs(x)
    large = b.scale(*erfc_parts(b, b.at_most(size, 28.0)))
    large = (x < 0.0).select(2.0 - large, large)
    small = (1.0 - x) - x * b.poly(x * x, ERF_SMALL_64)
    return (size < 0.5).select(small, large)


def erfc_parts(b: Body, x: Value) -> tuple[Value, Value]:
    """(m, n) with erfc(x) = m * 2**n, for 1/2 <= x <= 28."""
    top, top_low, bottom, bottom_low = scaled_erfc(b, x)
    g, g_low = b.pair_divide(top, top_low, bottom, bottom_low)
    square, square_low = b.two_product(x, x)
    m, m_low, n = exp_split(b, -square, -square_low)
    product, rest = b.two_product(m, g)
    return product + (rest + b.fma(m, g_low, m_low * g)), n


def scaled_erfc(b: Body, x: Value) -> tuple[Value, Value, Value, Value]:
    """exp(x**2) erfc(x) as (top + top_low) / (bottom + bottom_low), for x >= 1/2."""
    t = (x - 4.0) / (x + 4.0)
    top, top_low = b.fast_two_sum(b.const(ERFCX[0]), t * b.poly(t, ERFCX[1:]))
    bottom, bottom_low = b.two_sum(x + x, b.const(1.0))
    return top, top_low, bottom, bottom_low


def erfinv(b: Body, x: Value) -> Value:
    if x.bits == 32:
        result = b.truncate(erfinv_guess(b, b.extend(x), ERFINV_TAIL_32, 3.0))
    else:
        result = erfinv_refined(b, x)
    size = b.abs(x)
    result = size.equal(1.0).select(math.inf, result)
    return b.copysign((size > 1.0).select(math.nan, result), x)


def erfinv_guess(b: Body, x: Value, tail: tuple[float, ...], centre: float) -> Value:
    """|erfinv(x)| with the error of the polynomials, by w = -log(1 - x**2) (Giles 2010)."""
    size = b.abs(x)
    k, f = split_normal(b, (1.0 - size) * (1.0 + size))
    s = f / (f + 2.0)
    z = s * s
    log_f = s * b.fma(z, b.poly(z, LOG_POW_32), 2.0)
    w = -b.fma(b.int_to_float(k), math.log(2.0), log_f)
    far = b.poly(b.sqrt(b.at_least(w, 5.0)) - centre, tail)
    return size * (w < 5.0).select(b.poly(w - 2.5, ERFINV_CENTRE), far)


def erfinv_refined(b: Body, x: Value) -> Value:
    """One Halley step on erf(y) - |x|, or on erfc(y) - (1 - |x|) for |x| > 0.55."""
    size = b.abs(x)
    y = erfinv_guess(b, x, ERFINV_TAIL_64, 4.0)
    square, square_low = b.two_product(y, y)
    growth = b.scale(*exp_parts(b, b.at_most(square, 40.0), square_low))
    top, top_low, bottom, bottom_low = scaled_erfc(b, y)
    g, g_low = b.pair_divide(top, top_low, bottom, bottom_low)
    large = (g - (1.0 - size) * growth) + g_low
    small = (size - y) - y * b.poly(square, ERF_SMALL_64)
    step = (math.sqrt(math.pi) / 2) * (size > 0.55).select(large, small * growth)
    return y + b.fma(step * step, y, step)


def lgamma(b: Body, x: Value) -> Value:
    """log|gamma(x)|; infinite at the poles. For double; floats go through double.

    Stirling's series for |x| >= 8, else recurrence to 2 + y with |y| <= 1/2. Negative x by
    reflection: relative to 1 + |result| the error stays small, but not near the roots.
    """
    size = b.abs(x)
    large = size >= 8.0
    n, _ = b.round_to_int(b.at_most(size, 8.0))
    y = b.at_most(size, 8.0) - n
    product = b.const(1.0)
    for i in range(2, 8):
        product = (n > float(i)).select(product * (y + float(i)), product)
    lowest = n < 0.5
    down, down_rest = product_up(b, size)
    down = lowest.select(down, size)
    log, log_low = precise(b, large.select(size, (n < 1.5).select(down, product)))
    log_low = lowest.select(log_low + down_rest, log_low)
    sign = (n < 1.5).select(b.const(-1.0), 1.0)
    near, near_low = lgamma_near_2(b, y)
    head, rest = b.two_sum(sign * log, near)
    high, low = stirling(b, size, log, log_low)
    high, low = large.select(high, head), large.select(low, rest + b.fma(sign, log_low, near_low))
    mirrored, mirrored_low = reflection(b, size)
    head, rest = b.two_sum(-mirrored, -high)
    mirrored = head + (rest - (mirrored_low + low))
    # Next to 0 both signs agree, and the product in the reflection would underflow.
    result = (x < -(2.0**-60)).select(mirrored, high + low)
    pole = (x <= 0.0) & b.intrinsic("floor", x).equal(x)
    endless = pole | size.equal(math.inf) | high.equal(math.inf)
    return endless.select(math.inf, result)


def lgamma_near_2(b: Body, y: Value) -> tuple[Value, Value]:
    """lgamma(2 + y) as a pair: y times a polynomial, whose two lowest steps are pairs."""
    bend, bend_low = b.fast_two_sum(b.const(LGAMMA[1]), y * b.poly(y, LGAMMA[2:]))
    part, part_low = b.two_product(y, bend)
    slope, slope_low = b.fast_two_sum(b.const(LGAMMA[0]), part)
    slope_low = slope_low + (b.fma(y, bend_low, part_low) + LGAMMA_LOW)
    near, near_low = b.two_product(y, slope)
    return near, b.fma(y, slope_low, near_low)


def product_up(b: Body, x: Value) -> tuple[Value, Value]:
    """x (x + 1), and its rounding error as a part of it."""
    up, up_low = b.two_sum(b.const(1.0), x)
    product, rest = b.two_product(x, up)
    return product, b.fma(x, up_low, rest) / b.at_least(product, 2.0**-1000)


def stirling(b: Body, x: Value, log: Value, log_low: Value) -> tuple[Value, Value]:
    """(x - 1/2) (log(x) - 1) + log(2 pi)/2 - 1/2 + W(1/x**2)/x as a pair, for x >= 8."""
    inverse = 1.0 / x
    head, rest = b.fast_two_sum(log, -1.0)
    high, low = b.two_product(x - 0.5, head)
    low = b.fma(x - 0.5, rest + log_low, low)
    return high, low + b.fma(inverse, b.poly(inverse * inverse, STIRLING), HALF_LOG_2_PI)


def precise(b: Body, x: Value) -> tuple[Value, Value]:
    """log(x) as a pair, for positive finite x."""
    k, f = split(b, x)
    return b.fast_two_sum(*with_exponent(b, k, *log_fraction(b, f)))


def reflection(b: Body, size: Value) -> tuple[Value, Value]:
    """log(size |sin(pi size)| / pi) as a pair."""
    _, sine, _ = sine_cosine_of_turns(b, size)
    return precise(b, size * (sine * (1.0 / math.pi)))


def sine_cosine_of_turns(b: Body, x: Value) -> tuple[Value, Value, Value]:
    """(f, |sin(pi f)|, cos(pi f)) with f = x - round(x), so |f| <= 1/2."""
    f = x - b.intrinsic("rint", x)
    size = b.abs(f)
    swap = size > 0.25
    r, r_low = b.two_product(swap.select(0.5 - size, size), math.pi)
    s, s_low, c, c_low = sine_cosine_pairs(b, r, r_low)
    s, c = s + s_low, c + c_low
    return f, swap.select(c, s), swap.select(s, c)


def digamma(b: Body, x: Value) -> Value:
    """Derivative of lgamma; for double, floats go through double.

    As SciPy: -inf at 0, inf at -0, NaN at negative integers and at -inf.
    """
    positive = x > 0.0
    u = positive.select(x, 1.0 - x)
    value = (u < 4.0).select(digamma_near(b, u), digamma_large(b, u))
    f, sine, cosine = sine_cosine_of_turns(b, x)
    sine = b.copysign(sine, f.equal(0.0).select(x, f))
    cotangent = math.pi * (cosine / sine)
    value = positive.select(value, value - cotangent)
    undefined = (x < 0.0) & b.intrinsic("floor", x).equal(x)
    value = undefined.select(math.nan, value)
    return x.equal(math.inf).select(x, value)


def digamma_near(b: Body, x: Value) -> Value:
    """digamma(1 + y), - 1/y for x = y, + 1/(y + 1) for 2 + y, + 1/(y + 2) too for 3 + y."""
    x = b.at_most(x, 4.0)
    n = b.intrinsic("floor", x)
    y = x - n
    t = y - 0.5
    slope, slope_low = b.fast_two_sum(b.const(DIGAMMA[0]), t * b.poly(t, DIGAMMA[1:]))
    off, off_low = b.two_sum(y, b.const(-DIGAMMA_ROOT[0]))
    head, head_low = b.two_product(off, slope)
    head_low = b.fma(off, slope_low, b.fma(off_low - DIGAMMA_ROOT[1], slope, head_low))
    above, twice_above = y + 1.0, y + 2.0
    product, product_low = b.two_product(above, twice_above)
    lowest, top_one = n < 0.5, n > 2.5
    top = lowest.select(-1.0, (n > 1.5).select(b.const(1.0), 0.0))
    top = top_one.select(above + twice_above, top)
    bottom = top_one.select(product, lowest.select(y, above))
    # The parts cancel next to x = 2. For the smallest x the rest is NaN, and not needed.
    q, q_low = b.pair_divide(top, b.const(0.0), bottom, top_one.select(product_low, 0.0))
    total, rest = b.two_sum(q, head)
    return (x < 2.0**-1000).select(q, total + (rest + (head_low + q_low)))


def digamma_large(b: Body, x: Value) -> Value:
    k, f = split_normal(b, x)
    high, low = with_exponent(b, k, *log_fraction(b, f))
    inverse = 1.0 / x
    z = inverse * inverse
    rest = b.fma(inverse, -0.5, -(z * b.poly(z, DIGAMMA_LARGE)))
    return high + (low + rest)
