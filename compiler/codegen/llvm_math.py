"""The maths functions of the CPU target as LLVM IR text: own, pure, branch-free scalar code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from graphnn.compiler.codegen import llvm_math_exp as _exp
from graphnn.compiler.codegen.llvm_math_body import Body, Value, symbol

Builder = Callable[..., Value]

_BUILDERS: dict[str, Builder] = {
    "exp": _exp.exp,
    "exp2": _exp.exp2,
    "expm1": _exp.expm1,
    "sigmoid": _exp.sigmoid,
    "sinh": _exp.sinh,
    "cosh": _exp.cosh,
    "tanh": _exp.tanh,
}
FUNCTIONS = frozenset(_BUILDERS)


def definitions(wanted: Iterable[tuple[str, int]]) -> str:
    texts = {}
    queue = list(wanted)
    while queue:
        name, bits = queue.pop()
        if (name, bits) in texts:
            continue
        build = _BUILDERS[name]
        ps = list(inspect.signature(build).parameters)[1:]
        body = Body(name, bits, ps)
        texts[name, bits] = body.finish(build(body, *body.parameters))
        queue.extend(body.calls)
    return "\n".join(texts[k] for k in sorted(texts))
