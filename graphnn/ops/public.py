"""Public functions made from op classes: names, settings and docstring come from the class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from graphnn.apply import apply, promoted, type_of
from graphnn.compiler.ir.types import bool_, is_float
from graphnn.compiler.ops.base import Elementwise, Op
from graphnn.compiler.ops.logic import Where
from graphnn.compiler.ops.math import Add
from graphnn.runtime.errors import GraphnnError, hide_own_frames
from graphnn.strings import is_string
from graphnn.tensor import Operand, Tensor

_EMPTY = inspect.Parameter.empty


def call(cls: type[Op], inputs: Sequence[Any], settings: dict[str, Any] | None = None) -> Any:
    """An op on anything that can be converted: dtypes are promoted as the class says.

    Raises DTypeError for a dtype that the op does not take, and the errors of its `infer` rule.
    """
    op = cls(**settings) if settings else plain(cls)
    return call_op(op, inputs)


def call_op(op: Op, inputs: Sequence[Any]) -> Any:
    """The same for an op object."""
    fitting = ready(op, inputs)
    if fitting is not None:
        return apply(op, *fitting)
    fixed = op.fixed_inputs if isinstance(op, Elementwise) else ()
    tensors = promoted(inputs, op.promotes, fixed)
    if op.promotes == "none":
        op.infer(*map(type_of, tensors))
    elif any(t.dtype not in op.accepts for t in tensors) and not _takes_text(op, tensors):
        op.check_dtypes([type_of(t) for t in tensors])
    return apply(op, *tensors)


def _takes_text(op: Op, tensors: Sequence[Tensor]) -> bool:
    """Whether it is a comparison of strings, a choice between them, or `+`, which joins them."""
    fixed = op.fixed_inputs if isinstance(op, Elementwise) else ()
    text = all(is_string(t) for i, t in enumerate(tensors) if i not in fixed)
    return text and (isinstance(op, Add | Where) or getattr(op, "result", None) == bool_)


def ready(op: Op, inputs: Sequence[Any]) -> list[Tensor] | None:
    """The inputs as tensors where nothing has to be converted or checked; None otherwise."""
    cls: Any = type(op)
    accepted = _accepted(cls)
    tensors, first = [], None
    for value in inputs:
        tensor = value if type(value) is Tensor else None
        if tensor is None:
            if not isinstance(value, Operand):
                return None
            tensor = value._tensor()
        dtype = tensor._value.dtype
        if first is None:
            first = dtype
            if dtype not in accepted:
                return None
        elif dtype is not first:
            return None
        tensors.append(tensor)
    return tensors


@cache
def _accepted(cls: type[Op]) -> frozenset[Any]:
    """Dtypes that an op takes as they are, when all inputs have one."""
    if cls.promotes == "none" or (issubclass(cls, Elementwise) and cls.fixed_inputs):
        return frozenset()
    return frozenset(d for d in cls.accepts if cls.promotes == "common" or is_float(d))


_PLAIN: dict[type[Op], Op] = {}


def plain(cls: type[Op]) -> Op:
    """The op with all settings at their defaults; made once."""
    op = _PLAIN.get(cls)
    if op is None:
        op = _PLAIN[cls] = cls()
    return op


def input_names(cls: type[Op], arity: int) -> list[str]:
    """Names of the inputs: as the class spells them in one of its rules."""
    for rule, skip in (("eager", 2), ("grad", 2), ("scalar", 2), ("decompose", 2)):
        function = getattr(cls, rule, None)
        if function is None:
            continue
        parameters = list(inspect.signature(function).parameters.values())[skip:]
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(names) == arity and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return names
    return ["x", "y", "z"][:arity]


def public(cls: type[Op], arity: int) -> Callable[..., Any]:
    """The public function of an op: inputs by position or name, settings by keyword.

    `name` is accepted and ignored, for TensorFlow code that names its operations.
    """
    names = input_names(cls, arity)
    settings = fields(cls)
    fast = plain(cls) if all(f.default is not MISSING for f in settings) else None
    accepts = frozenset(cls.accepts)

    def function(*inputs: Any, **keywords: Any) -> Any:
        try:
            if fast is None or keywords or len(inputs) != arity:
                return _with_keywords(cls, names, inputs, keywords)
            if arity == 1 and type(inputs[0]) is Tensor and inputs[0].dtype in accepts:
                return apply(fast, inputs[0])
            return call_op(fast, inputs)
        except GraphnnError as error:
            raise hide_own_frames(error)  # noqa: B904

    kind = inspect.Parameter
    parameters = [kind(n, kind.POSITIONAL_OR_KEYWORD) for n in names]
    parameters += [
        kind(f.name, kind.KEYWORD_ONLY, default=_EMPTY if f.default is MISSING else f.default)
        for f in settings
    ]
    function.__name__ = function.__qualname__ = cls.name
    function.__doc__ = cls.__doc__
    function.__module__ = "graphnn.ops"
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _with_keywords(
    cls: type[Op], names: list[str], inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    keywords.pop("name", None)
    given = list(inputs)
    for name in names[len(given) :]:
        if name not in keywords:
            raise TypeError(f"{cls.name}() needs the argument {name!r}")
        given.append(keywords.pop(name))
    if len(given) > len(names):
        raise TypeError(f"{cls.name}() takes {len(names)} inputs but {len(given)} were given")
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(keywords) - known)
    if unknown:
        have = ", ".join(sorted(known)) or "none"
        raise TypeError(f"{cls.name}() has no setting {unknown[0]!r}; it has {have}")
    return call(cls, given, keywords)
