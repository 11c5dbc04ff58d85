"""The array namespace: NumPy or CuPy, and the functions that both lack.

Each function takes the namespace first and computes in float64 for a float64 array, else rounds a
float64 result to the array's dtype. Series were fitted with mpmath at Chebyshev nodes; each states
its interval and greatest error. No SciPy is needed; CuPy arrays go to `cupyx.scipy.special`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

CHUNK = 8192  # elements computed at a time, so that intermediate arrays stay in the cache

# erf(x) / x - 1 in x*x on [0, 1]; error 2e-17.
_ERF = (
    0.1283791670955126,
    -0.3761263890318375,
    0.11283791670954879,
    -0.026866170645076792,
    0.0052239776248180145,
    -0.000854832698083379,
    0.0001205533111164271,
    -1.4925595266831182e-05,
    1.6461000484121368e-06,
    -1.6350312701054695e-07,
    1.4659775274047436e-08,
    -1.1372848856791674e-09,
    5.957176147748911e-11,
)
# (1 + 2x) exp(x*x) erfc(x) in (x - 4) / (x + 4) for x on [1/2, 28]; error 6e-17. The form is
# that of M. Shepherd and J. Laframboise, Mathematics of Computation 36 (1981).
_ERFCX = (
    1.2329951186255526,
    -0.1396211168405625,
    0.015379652102619901,
    0.06809705425468844,
    -0.1010390660363143,
    0.09373283499853434,
    -0.06633036581196795,
    0.03716751553379472,
    -0.016197734061059108,
    0.00503197001856426,
    -0.0007577732634973155,
    -0.00019925696553927866,
    0.00015062155590137163,
    -2.4398057333996413e-05,
    -1.1221668942295945e-05,
    5.706494720146254e-06,
    2.9313186423696087e-07,
    -8.195085083459565e-07,
    7.540467350144586e-08,
    1.03256669073015e-07,
    -1.8406671051403966e-08,
    -9.652213521087604e-09,
    1.9717656765049794e-09,
)
# lgamma(1 + z) / z on [-1/2, 1/2]; error 1e-17.
_LGAMMA_1 = (
    -0.5772156649015329,
    0.8224670334241132,
    -0.4006856343865307,
    0.27058080842778387,
    -0.2073855510288846,
    0.16955717699761294,
    -0.1440498967441441,
    0.1255096695007263,
    -0.11133426738296036,
    0.10009945898417442,
    -0.09095396147817056,
    0.08335378642428555,
    -0.07693384797749431,
    0.07143424085913012,
    -0.0666469660070385,
    0.06247981994150854,
    -0.059073275414740396,
    0.055798122160668526,
    -0.05059570584998663,
    0.048020858519722875,
    -0.059467630506988924,
    0.056971969494995923,
    0.004945338328244218,
    -0.005399712296235696,
    -0.17396451715070047,
    0.1686556126817108,
    0.19472176853583203,
    -0.18947756655876552,
    -0.24025245552681862,
    0.2331921266866054,
)
# lgamma(2 + z) / z on [-1/2, 1/2]; error 2e-17.
_LGAMMA_2 = (
    0.42278433509846713,
    0.3224670334241132,
    -0.06735230105319814,
    0.02058080842778457,
    -0.0073855510286681535,
    0.002890510330738737,
    -0.0011927539120010226,
    0.0005096695248853096,
    -0.00022315475074520367,
    9.945750909889392e-05,
    -4.4926351103833334e-05,
    2.050726741605779e-05,
    -9.438458716242811e-06,
    4.374374916915131e-06,
    -2.0449201467015115e-06,
    9.578663334114758e-07,
    -4.303558760359961e-07,
    2.0304806751615227e-07,
    -1.3412819758517287e-07,
    6.379047507619774e-08,
)
# B(2k) / (2k (2k - 1)): Stirling's series of lgamma.
_STIRLING = tuple(
    n / d
    for n, d in (
        (1, 12),
        (-1, 360),
        (1, 1260),
        (-1, 1680),
        (1, 1188),
        (-691, 360360),
        (1, 156),
        (-3617, 122400),
    )
)
# B(2k) / 2k: the asymptotic series of digamma.
_DIGAMMA = tuple(
    n / d
    for n, d in (
        (1, 12),
        (-1, 120),
        (1, 252),
        (-1, 240),
        (1, 132),
        (-691, 32760),
        (1, 12),
        (-3617, 8160),
    )
)
# M. Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988): the normal quantile as
# numerator and denominator in three ranges; relative error about 1e-16.
PPND16 = (
    (
        (
            3.3871328727963666080e0,
            1.3314166789178437745e2,
            1.9715909503065514427e3,
            1.3731693765509461125e4,
            4.5921953931549871457e4,
            6.7265770927008700853e4,
            3.3430575583588128105e4,
            2.5090809287301226727e3,
        ),
        (
            1.0,
            4.2313330701600911252e1,
            6.8718700749205790830e2,
            5.3941960214247511077e3,
            2.1213794301586595867e4,
            3.9307895800092710610e4,
            2.8729085735721942674e4,
            5.2264952788528545610e3,
        ),
    ),
    (
        (
            1.42343711074968357734e0,
            4.63033784615654529590e0,
            5.76949722146069140550e0,
            3.64784832476320460504e0,
            1.27045825245236838258e0,
            2.41780725177450611770e-1,
            2.27238449892691845833e-2,
            7.74545014278341407640e-4,
        ),
        (
            1.0,
            2.05319162663775882187e0,
            1.67638483018380384940e0,
            6.89767334985100004550e-1,
            1.48103976427480074590e-1,
            1.51986665636164571966e-2,
            5.47593808499534494600e-4,
            1.05075007164441684324e-9,
        ),
    ),
    (
        (
            6.65790464350110377720e0,
            5.46378491116411436990e0,
            1.78482653991729133580e0,
            2.96560571828504891230e-1,
            2.65321895265761230930e-2,
            1.24266094738807843860e-3,
            2.71155556874348757815e-5,
            2.01033439929228813265e-7,
        ),
        (
            1.0,
            5.99832206555887937690e-1,
            1.36929880922735805310e-1,
            1.48753612908506148525e-2,
            7.86869131145613259100e-4,
            1.84631831751005468180e-5,
            1.42151175831644588870e-7,
            2.04426310338993978564e-15,
        ),
    ),
)


def horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """The polynomial with these coefficients, lowest first; x is anything with + and *."""
    result = coefficients[-1] * x + coefficients[-2]
    for c in coefficients[-3::-1]:
        result = result * x + c
    return result


def _special(cupy_name: str) -> Callable[[Callable[[Any], Any]], Callable[[Any, Any], Any]]:
    """A function of a flat float64 NumPy array as one of (xp, array of any float dtype)."""

    def wrap(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def call(xp: Any, x: Any) -> Any:
            if xp is not np:
                from cupyx.scipy import special

                return getattr(special, cupy_name)(x).astype(x.dtype, copy=False)
            x = np.asarray(x)
            flat, out = x.reshape(-1), np.empty(x.size, x.dtype)
            with np.errstate(all="ignore"):
                for begin in range(0, x.size, CHUNK):
                    part = flat[begin : begin + CHUNK].astype(np.float64)
                    out[begin : begin + CHUNK] = function(part)
            return out.reshape(x.shape)

        call.__doc__, call.__name__ = function.__doc__, function.__name__
        return call

    return wrap


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow and with full precision in the left tail."""
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, xp.asarray(1, x.dtype), small) / (1 + small)


def _erf_core(x: Any) -> Any:
    """erf for |x| <= 1."""
    return x + x * horner(_ERF, x * x)


def _erfc_tail(x: Any) -> Any:
    """erfc for 1/2 <= x: the bell by an exact square of the leading bits, times erfcx."""
    x = np.minimum(x, 28.0)
    head = x.astype(np.float32).astype(np.float64)
    bell = np.exp(-head * head) * np.exp((head - x) * (head + x))
    return bell * (horner(_ERFCX, (x - 4.0) / (x + 4.0)) / (1.0 + 2.0 * x))


@_special("erf")
def erf(x: Any) -> Any:
    """Error function; at most 2 ulp."""
    size = np.abs(x)
    core = _erf_core(np.where(size <= 1, x, 0.0))
    if np.max(size, initial=0.0) <= 1:
        return core
    tail = np.copysign(1.0 - _erfc_tail(np.maximum(size, 1.0)), x)
    return np.where(size <= 1, core, tail)


@_special("erfc")
def erfc(x: Any) -> Any:
    """1 - erf(x); at most 4 ulp."""
    size = np.abs(x)
    near = (x >= -1) & (x <= 0.5)
    core = 1.0 - _erf_core(np.where(near, x, 0.0))
    tail = _erfc_tail(np.maximum(size, 0.5))
    return np.where(near, core, np.where(x < 0, 2.0 - tail, tail))


@_special("erfinv")
def erfinv(x: Any) -> Any:
    """Inverse of erf: AS 241 and one step of Halley's method; at most 2 ulp."""
    size = np.abs(x)
    rest = 1.0 - size
    q, r = size / 2, np.sqrt(-np.log(rest / 2))
    parts = ((0.180625 - q * q, q), (r - 1.6, 1.0), (r - 5.0, 1.0))
    near, middle, far = (
        factor * horner(top, at) / horner(bottom, at)
        for (at, factor), (top, bottom) in zip(parts, PPND16, strict=True)
    )
    y = np.where(q <= 0.425, near, np.where(r <= 5, middle, far)) / math.sqrt(2)
    inner = _erf_core(np.minimum(y, 1.0)) - size
    outer = rest - _erfc_tail(np.maximum(y, 1.0))
    step = np.where(y < 1, inner, outer) * (math.sqrt(math.pi) / 2) * np.exp(y * y)
    y = np.where((size > 0) & (size < 1), y - step / (1.0 + y * step), y)
    y = np.where(size == 1, np.inf, np.where(size == 0, 0.0, y))
    return np.copysign(np.where(size <= 1, y, np.nan), x)


def _lgamma_right(x: Any) -> Any:
    """lgamma for x >= 1/2."""
    y, product = np.minimum(x, 8.0), np.ones_like(x)
    for _ in range(6):
        big = y >= 2.5
        y = np.where(big, y - 1, y)
        product = np.where(big, product * y, product)
    first, second = y - 1, y - 2
    near = np.where(
        y < 1.5,
        first * horner(_LGAMMA_1, np.where(y < 1.5, first, 0.0)),
        second * horner(_LGAMMA_2, np.where(y < 1.5, 0.0, second)),
    )
    inverse = 1 / np.maximum(x, 8.0)
    series = inverse * horner(_STIRLING, inverse * inverse)
    far = (x - 0.5) * (np.log(x) - 1) + (series + (math.log(2 * math.pi) - 1) / 2)
    return np.where(x < 8, near + np.log(product), far)


@_special("gammaln")
def lgamma(x: Any) -> Any:
    """Logarithm of |gamma(x)|; 4 ulp of max(|result|, 1), infinite at the poles."""
    size = np.abs(x)
    small = np.where(size < 0.5, x, 0.0)
    near_zero = small * horner(_LGAMMA_1, small) - np.log(size)
    right = _lgamma_right(np.where(size < 0.5, 1.0, size))
    wave = np.abs(np.sin(math.pi * (size - np.rint(size))))
    left = math.log(math.pi) - np.log(size * wave) - right
    result = np.where(size < 0.5, near_zero, np.where(x < 0, left, right))
    pole = (x <= 0) & (x == np.floor(x))
    return np.where(pole | np.isinf(x), np.inf, result)


@_special("digamma")
def digamma(x: Any) -> Any:
    """Derivative of lgamma; -inf at 0, +inf at -0, NaN at the other poles, as SciPy has it."""
    left = x < 0.5
    y = np.where(left, 1 - x, x)
    total = np.zeros_like(x)
    for _ in range(10):
        low = y < 10
        total = np.where(low, total - 1 / y, total)
        y = np.where(low, y + 1, y)
    inverse = 1 / (y * y)
    series = inverse * horner(_DIGAMMA, inverse)
    right = total + (np.log(y) - 0.5 / y - series)
    result = np.where(left, right - math.pi / np.tan(math.pi * (x - np.rint(x))), right)
    result = np.where((x < 0) & (x == np.floor(x)), np.nan, result)
    return np.where(x == 0, -np.copysign(np.inf, x), result)
