"""The maths functions: error bounds over the whole range, special values, vector code."""

from __future__ import annotations

import ctypes
import math
import platform
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphnn.compiler.codegen import llvm_math

Array = np.ndarray[Any, Any]
TYPES = {32: np.dtype(np.float32), 64: np.dtype(np.float64)}
BOUND = {32: 1.5, 64: 2.0}
CORE = "exp exp2 expm1 log log2 log10 log1p sin cos tanh erf sigmoid pow atan".split()
X86 = platform.machine().lower() in ("x86_64", "amd64")

LOOP = """
define void @loop.{name}.f{bits}({pointers}, ptr noalias %out, i64 %n) {{
entry:
  br label %body
body:
  %i = phi i64 [0, %entry], [%next, %body]
{loads}
  %y = call {type} @{symbol}({arguments})
  %q = getelementptr {type}, ptr %out, i64 %i
  store {type} %y, ptr %q, align 4
  %next = add nuw nsw i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %body, label %exit
exit:
  ret void
}}
"""


def loop_text(name: str, bits: int) -> str:
    """A loop that calls the function on each element of its arrays."""
    type = {32: "float", 64: "double"}[bits]
    places = range(llvm_math.ARITY[name])
    loads = "\n".join(
        f"  %p{k} = getelementptr {type}, ptr %a{k}, i64 %i\n"
        f"  %x{k} = load {type}, ptr %p{k}, align 4"
        for k in places
    )
    return LOOP.format(
        name=name,
        bits=bits,
        type=type,
        symbol=llvm_math.symbol(name, bits),
        pointers=", ".join(f"ptr noalias %a{k}" for k in places),
        loads=loads,
        arguments=", ".join(f"{type} %x{k}" for k in places),
    )


def optimised(text: str, cpu: str | None = None) -> tuple[Any, Any]:
    """(module, target machine) after LLVM's usual passes."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = "" if cpu else llvm.get_host_cpu_features().flatten()
    machine = target.create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3
    )
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module, machine


@cache
def engine() -> Any:
    """All functions in both sizes, compiled once."""
    keys = [(name, bits) for name in sorted(llvm_math.FUNCTIONS) for bits in (32, 64)]
    text = llvm_math.definitions(keys) + "".join(loop_text(*key) for key in keys)
    module, machine = optimised(text)
    result = llvm.create_mcjit_compiler(module, machine)
    result.finalize_object()
    return result


def evaluate(name: str, bits: int, *arrays: Array) -> Array:
    arrays = tuple(np.ascontiguousarray(a, TYPES[bits]) for a in arrays)
    out = np.empty_like(arrays[0])
    signature = [ctypes.c_void_p] * (len(arrays) + 1) + [ctypes.c_int64]
    address = engine().get_function_address(f"loop.{name}.f{bits}")
    pointers = [a.ctypes.data for a in (*arrays, out)]
    ctypes.CFUNCTYPE(None, *signature)(address)(*pointers, out.size)
    return out


def by_element(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of the math module on arrays, with the limits of C instead of exceptions."""

    def safe(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.inf if function is math.lgamma else math.nan

    return lambda x: np.array([safe(v) for v in x.tolist()], x.dtype)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


NUMPY: dict[str, Callable[..., Array]] = {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "pow": np.power,
    "sigmoid": sigmoid,
}
SPECIAL: dict[str, Callable[..., Array]] = {
    "erf": by_element(math.erf),
    "erfc": by_element(math.erfc),
    "lgamma": by_element(math.lgamma),
    # Checked against mpmath below in double.
    "erfinv": lambda x: evaluate("erfinv", 64, x),
    "digamma": lambda x: evaluate("digamma", 64, x),
}


def reference(name: str) -> Callable[..., Array]:
    return SPECIAL.get(name) or NUMPY.get(name) or getattr(np, name)


def ulps(y: Array, exact: Array) -> Array:
    """|y - exact| in units of the last place of y's type at `exact`; 0 for equal specials."""
    limit = np.finfo(y.dtype).max
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        unit = np.spacing(np.minimum(np.abs(rounded), limit)).astype(exact.dtype)
        error = np.abs(y.astype(exact.dtype) - exact) / unit
    same = (y == rounded) & np.isinf(rounded) | np.isnan(y) & np.isnan(exact) | (y == exact)
    # Next to the largest number infinity is one step away.
    close = np.isinf(y) & (np.abs(exact) >= limit) & (np.sign(y) == np.sign(exact))
    return np.where(same | close, 0.0, np.where(np.isnan(error), np.inf, error)).astype(float)


def check(name: str, y: Array, exact: Array, arrays: tuple[Array, ...], bound: float) -> None:
    error = ulps(y, exact)
    worst = int(error.argmax())
    at = [a[worst] for a in arrays]
    assert error[worst] <= bound, (
        f"{name}{at}: {y[worst]!r}, {error[worst]} ulp of {exact[worst]!r}"
    )


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample_32() -> Array:
    """Floats of all exponents and both signs, and more of them where functions bend."""
    bits = np.arange(0, 1 << 32, 19993, dtype=np.uint32).view(np.float32)
    dense = random().uniform(-12, 12, 60_000).astype(np.float32)
    return np.concatenate([bits, dense, 1 + dense / 1000])


def sample_64(count: int) -> Array:
    rng = random()
    bits = rng.integers(0, 1 << 64, count, np.uint64, endpoint=False).view(np.float64)
    dense = rng.uniform(-12, 12, count)
    return np.concatenate([bits, dense, dense / 10, dense * 60, 1 + dense * 1e-3])


UNARY = sorted(name for name, count in llvm_math.ARITY.items() if count == 1)


@pytest.mark.parametrize("name", UNARY)
def test_float_error_over_the_whole_range(name: str) -> None:
    x = sample_32()
    with np.errstate(all="ignore"):
        exact = reference(name)(x.astype(np.float64))
    check(name, evaluate(name, 32, x), exact, (x,), BOUND[32])


LONG = np.finfo(np.longdouble).nmant >= 63
IN_LONG_DOUBLE = sorted(set(UNARY) - set(SPECIAL))


@pytest.mark.skipif(not LONG, reason="long double is no wider than double here")
@pytest.mark.parametrize("name", IN_LONG_DOUBLE)
def test_double_error_against_long_double(name: str) -> None:
    x = sample_64(3000)
    with np.errstate(all="ignore"):
        exact = reference(name)(x.astype(np.longdouble))
    check(name, evaluate(name, 64, x), exact, (x,), BOUND[64])


def binary_sample(name: str, bits: int, count: int) -> tuple[Array, Array]:
    """Arguments of all sizes; for pow such that most results are finite."""
    rng, top = random(1), {32: 122, 64: 1018}[bits]
    a = 2.0 ** rng.uniform(-top, top, count) * rng.choice([-1.0, 1.0], count)
    b = a * 2.0 ** rng.uniform(-3, 3, count)
    if name == "pow":
        a = np.concatenate([np.abs(a), 1 + rng.uniform(-0.01, 0.01, count)])
        a = a.astype(TYPES[bits]).astype(float)
        logs = np.log(a)
        b = rng.uniform(-0.72, 0.72, a.size) * top / np.where(logs == 0, 1, logs)
    return a.astype(TYPES[bits]), b.astype(TYPES[bits])


@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_error_of_two_arguments(name: str) -> None:
    for bits, wide in ((32, np.float64), (64, np.longdouble)):
        if bits == 64 and not LONG:
            continue
        a, b = binary_sample(name, bits, 30_000)
        with np.errstate(all="ignore"):
            exact = reference(name)(a.astype(wide), b.astype(wide))
        check(name, evaluate(name, bits, a, b), exact, (a, b), BOUND[bits])


def exact_inverse_erf(mp: Any, x: float) -> Any:
    return mp.erfinv(x) if abs(x) <= 1 else mp.nan


def exact_lgamma(mp: Any, x: float) -> Any:
    if x <= 0 and x == math.floor(x):
        return mp.inf
    return mp.re(mp.loggamma(x))


def exact_digamma(mp: Any, x: float) -> Any:
    return mp.nan if x < 0 and x == math.floor(x) else mp.digamma(x)


def special_sample(name: str) -> Array:
    rng = random(2)
    near = rng.uniform(0, 4, 150)
    if name == "erfinv":
        return np.concatenate([near / 4, -near / 4, 1 - 2.0 ** rng.uniform(-53, -1, 60), near - 2])
    sizes = 2.0 ** rng.uniform(-60, 60, 60)
    if name in ("erf", "erfc"):
        return np.concatenate([near, -near, near * 6.8, 2.0 ** rng.uniform(-1070, 1, 60)])
    return np.concatenate([near, sizes, 1 + near * 1e-6, 2 - near * 1e-6, near * 10])


@pytest.mark.parametrize("name", sorted(SPECIAL))
def test_double_error_of_special_functions(name: str) -> None:
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.prec = 160
    functions = {
        "erf": mp.erf,
        "erfc": mp.erfc,
        "erfinv": lambda x: exact_inverse_erf(mp, x),
        "lgamma": lambda x: exact_lgamma(mp, x),
        "digamma": lambda x: exact_digamma(mp, x),
    }
    x = special_sample(name)
    y = evaluate(name, 64, x)
    for at, got in zip(x.tolist(), y.tolist(), strict=True):
        exact = functions[name](at)
        if mp.isnan(exact) or mp.isinf(exact):
            assert (math.isnan(got) and mp.isnan(exact)) or got == exact, at
            continue
        error = abs(mp.mpf(got) - exact) / math.ulp(float(exact))
        assert error <= BOUND[64], f"{name}({at!r}): {got!r}, {float(error)} ulp"


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_gamma_functions_of_negative_arguments(name: str) -> None:
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.prec = 160
    exact = {"lgamma": exact_lgamma, "digamma": exact_digamma}[name]
    x = -np.concatenate([random(3).uniform(0, 10, 200), np.arange(1.0, 9.0)])
    for at, got in zip(x.tolist(), evaluate(name, 64, x).tolist(), strict=True):
        want = float(exact(mp, at))
        assert got == pytest.approx(want, rel=1e-14, abs=1e-14, nan_ok=True), at


EDGES = [0.0, 1.0, 0.5, 2.0, 3.0, 1e-3, 100.0, 1e30, math.inf, math.nan]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", sorted(set(UNARY) - {"erfinv", "digamma"}))
def test_special_values(name: str, bits: int) -> None:
    tiny = float(np.finfo(TYPES[bits]).smallest_subnormal)
    x = np.array([*EDGES, tiny, 3 * tiny, -tiny, *(-e for e in EDGES)], TYPES[bits])
    with np.errstate(all="ignore"):
        exact = reference(name)(x.astype(np.float64))
        want = exact.astype(TYPES[bits])
    got = evaluate(name, bits, x)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(TYPES[bits]).eps, atol=2 * tiny)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_special_values_of_two_arguments(name: str, bits: int) -> None:
    big = float(np.finfo(TYPES[bits]).max)
    values = [*EDGES, *(-e for e in EDGES), big, -big, 2.0**24 + 2, -(2.0**23) - 1, 1 - 2.0**-20]
    a, b = (v.ravel().astype(TYPES[bits]) for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = reference(name)(a.astype(np.float64), b.astype(np.float64)).astype(TYPES[bits])
    got = evaluate(name, bits, a, b)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(TYPES[bits]).eps)


@pytest.mark.parametrize("bits", [32, 64])
def test_special_values_without_a_library_twin(bits: int) -> None:
    inf, nan = math.inf, math.nan
    x = np.array([0.0, -0.0, 1.0, -1.0, 1.5, -2.0, inf, nan])
    got = evaluate("erfinv", bits, x)
    np.testing.assert_array_equal(got, [0.0, 0.0, inf, -inf, nan, nan, nan, nan])
    np.testing.assert_array_equal(np.signbit(got[:2]), [False, True])
    x = np.array([0.0, -0.0, -1.0, -7.0, inf, -inf, nan])
    got = evaluate("digamma", bits, x)
    np.testing.assert_array_equal(got, [-inf, inf, nan, nan, inf, nan, nan])


def test_sine_of_the_double_next_to_a_multiple_of_half_pi() -> None:
    """The hardest case of the reduction: the result has 61 leading zero bits."""
    x = np.array([6381956970095103.0 * 2.0**797])
    assert evaluate("cos", 64, x)[0] == pytest.approx(-4.687165924254624e-19, rel=1e-15)
    assert evaluate("sin", 64, x)[0] == 1.0


def loop_body(module: Any, name: str) -> str:
    text = str(module)
    start = text.index(f"@loop.{name}.f32(")
    return text[start : text.index("\n}", start)]


@pytest.mark.parametrize("name", CORE)
def test_core_becomes_vector_code(name: str) -> None:
    text = llvm_math.definitions([(name, 32)]) + loop_text(name, 32)
    module, _ = optimised(text, "haswell" if X86 else None)
    body = loop_body(module, name)
    # pow computes in double, where eight floats are four doubles.
    wanted = r"<(\d+) x (?:float|double)>"
    widths = [int(w) for w in re.findall(wanted, body)]
    assert max(widths, default=0) >= ((4 if name == "pow" else 8) if X86 else 2)
    calls = set(re.findall(r"call [^@]*@([\w.]+)\(", body))
    assert all(c.startswith("llvm.") for c in calls), calls


@pytest.mark.parametrize("bits", [32, 64])
def test_every_function_is_branch_free_and_complete(bits: int) -> None:
    for name in sorted(llvm_math.FUNCTIONS):
        text = llvm_math.definitions([(name, bits)])
        assert "br " not in text and "phi " not in text and "declare" not in text
        called = set(re.findall(r"call \w+ @([\w.]+)\(", text))
        defined = set(re.findall(r"define internal \w+ @([\w.]+)\(", text))
        assert all(c.startswith("llvm.") or c in defined for c in called)
    assert llvm_math.EXTERNALS == ()


def test_definitions_are_complete_stable_and_given_once() -> None:
    keys = [("lgamma", 32), ("sin", 64), ("exp", 32), ("sin", 64), ("lgamma", 64)]
    text = llvm_math.definitions(keys)
    assert text == llvm_math.definitions(reversed(keys))
    names = re.findall(r"define internal \w+ @([\w.]+)\(", text)
    assert names == ["gnn.exp.f32", "gnn.lgamma.f32", "gnn.lgamma.f64", "gnn.sin.f64"]
    assert text.count("@gnn.quarter_turns = ") == 1
    assert llvm_math.definitions([]) == ""


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(KeyError, match="no maths function 'gamma'"):
        llvm_math.definitions([("gamma", 32)])
    with pytest.raises(ValueError, match="32 or 64 bits, not 16"):
        llvm_math.definitions([("exp", 16)])
