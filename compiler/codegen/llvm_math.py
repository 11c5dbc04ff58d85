"""The maths functions of the CPU target as LLVM IR text: own, pure, branch-free scalar code.

Loops over them are turned into vector code by LLVM once they are inlined. Nothing here calls
libm, so results are equal on all systems with fused multiply-add.

Error bounds over the whole range of arguments (ulp of the exact result), denormals, signed
zeros, infinities and NaN included: 1.5 for float, 2 for double. Exceptions, for double only and
also against large terms that cancel: lgamma and digamma of negative arguments near their roots,
where the error is relative to 1 + |terms|.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache

from graphnn.compiler.codegen import llvm_math_exp as _exp
from graphnn.compiler.codegen import llvm_math_log as _log
from graphnn.compiler.codegen import llvm_math_special as _special
from graphnn.compiler.codegen import llvm_math_trig as _trig
from graphnn.compiler.codegen.llvm_math_body import Body, Value, symbol

__all__ = ["ARITY", "EXTERNALS", "FUNCTIONS", "definitions", "symbol"]

_BUILDERS: dict[str, Callable[..., Value]] = {
    build.__name__: build
    for build in (
        *(_exp.exp, _exp.exp2, _exp.expm1, _exp.sigmoid, _exp.sinh, _exp.cosh, _exp.tanh),
        *(_log.log, _log.log2, _log.log10, _log.log1p, _log.pow, _log.cbrt),
        *(_log.asinh, _log.acosh, _log.atanh),
        *(_trig.sin, _trig.cos, _trig.tan, _trig.asin, _trig.acos, _trig.atan, _trig.atan2),
        *(_special.erf, _special.erfc, _special.erfinv, _special.lgamma, _special.digamma),
    )
}
# Their float version calls the double version.
_THROUGH_DOUBLE = frozenset({"erfc", "lgamma", "digamma"})
_TABLES = {"quarter_turns": _trig.turns_table}

FUNCTIONS: frozenset[str] = frozenset(_BUILDERS)
ARITY: dict[str, int] = {
    name: len(inspect.signature(build).parameters) - 1 for name, build in _BUILDERS.items()
}
# Functions of the process that the text declares: none, all code is our own.
EXTERNALS: tuple[str, ...] = ()


def definitions(wanted: Iterable[tuple[str, int]]) -> str:
    """LLVM IR text of the wanted functions and all they need, each once, in a stable order.

    wanted: pairs of a name in FUNCTIONS and 32 or 64 bits.
    Raises KeyError for another name, ValueError for another size.

    >>> definitions([("exp", 32)]).split("(")[0]
    'define internal float @gnn.exp.f32'
    """
    functions: dict[tuple[str, int], str] = {}
    tables: set[str] = set()
    queue = list(wanted)
    while queue:
        key = queue.pop()
        if key in functions:
            continue
        functions[key], calls, used = _function(*key)
        tables.update(used)
        queue.extend(calls)
    texts = [_table(name) for name in sorted(tables)]
    return "\n".join(texts + [functions[key] for key in sorted(functions)])


@cache
def _function(name: str, bits: int) -> tuple[str, tuple[tuple[str, int], ...], tuple[str, ...]]:
    """(text, functions called, tables read)"""
    if name not in _BUILDERS:
        raise KeyError(f"no maths function {name!r}; there are {', '.join(sorted(FUNCTIONS))}")
    if bits not in (32, 64):
        raise ValueError(f"maths functions have 32 or 64 bits, not {bits}")
    build = _BUILDERS[name]
    body = Body(name, bits, list(inspect.signature(build).parameters)[1:])
    if bits == 32 and name in _THROUGH_DOUBLE:
        wide = (body.extend(p) for p in body.parameters)
        result = body.truncate(body.call(name, *wide))
    else:
        result = build(body, *body.parameters)
    return body.finish(result), tuple(body.calls), tuple(body.tables)


@cache
def _table(name: str) -> str:
    body = Body("", 64, ())
    values = [f"double {body.const(v).text}" for v in _TABLES[name]()]
    listed = ", ".join(values)
    return f"@gnn.{name} = internal unnamed_addr constant [{len(values)} x double] [{listed}]\n"
