"""Differentiation of functions: grad, value_and_grad, vjp, jvp, custom and recomputed gradients."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphnn import tree
from graphnn.apply import TENSOR_OPS, apply, convert, from_node, is_number, node_of
from graphnn.compiler.ir.graph import Node, topological
from graphnn.compiler.ir.types import describe, is_float
from graphnn.compiler.ops.core import CustomGradient, Input
from graphnn.runtime.errors import ArgumentError, GradientError, ShapeError
from graphnn.state import mode, no_tapes, state
from graphnn.tape import GradientTape
from graphnn.tensor import Operand, Tensor

__all__ = [
    "custom_gradient",
    "grad",
    "hessian",
    "jacobian",
    "jvp",
    "recompute_grad",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]

_keys = itertools.count(1)


def stop_gradient(input: Any, name: Any = None) -> Tensor:
    """The tensor itself, through which no gradient flows.

    >>> x = graphnn.constant(2.0)
    >>> graphnn.grad(lambda x: x * graphnn.stop_gradient(x))(x)
    Tensor(2.0, shape=(), dtype=float32)
    """
    return TENSOR_OPS.stop_gradient(convert(input))  # type: ignore[no-any-return]


# ---- functions of functions -------------------------------------------------------------------


def _chosen(args: Sequence[Any], argnums: int | Sequence[int], subject: str) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    if any(not -len(args) <= n < len(args) for n in numbers):
        raise ArgumentError(
            subject,
            received=f"argnums={argnums} for {len(args)} arguments",
            expected=f"positions from 0 to {len(args) - 1}",
            fix="name positional arguments by their positions",
        )
    return [n % len(args) for n in numbers]


def _as_sources(value: Any, subject: str) -> Any:
    """Leaves as new tensors, so that only their use as an argument counts; Variables stay.

    A list of nothing but numbers is one tensor.
    """
    if isinstance(value, list) and value and all(map(is_number, tree.flatten(value))):
        return _as_source(value, subject)
    return tree.map_structure(lambda leaf: _as_source(leaf, subject), value)


def _as_source(leaf: Any, subject: str) -> Any:
    if isinstance(leaf, Operand) and not isinstance(leaf, Tensor):
        return leaf
    tensor = convert(leaf)
    if is_float(tensor.dtype):
        return TENSOR_OPS.identity(tensor)
    raise GradientError(
        subject,
        received=f"an argument {describe(tensor.dtype, tensor.shape)}",
        expected="a floating-point tensor",
        fix="pass a float, e.g. 3.0 instead of 3, or name other arguments with argnums",
    )


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns (value, gradient) of a function with a scalar result.

    argnums: the positional arguments (tensors or nested structures) to differentiate by; for a
    sequence the gradients are a tuple. has_aux: the function returns (result, anything else).
    Raises GradientError for a result that is not a float scalar. Where the result does not depend
    on an argument its gradient is zeros.

    >>> value, g = graphnn.value_and_grad(lambda x: x * x)(3.0)
    >>> float(value), float(g)
    (9.0, 6.0)
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        numbers = _chosen(args, argnums, "value_and_grad")
        changed = list(args)
        for n in numbers:
            changed[n] = _as_sources(args[n], "grad")
        sources = [changed[n] for n in numbers]
        with GradientTape() as tape:
            tape.watch(sources)
            result = function(*changed, **keywords)
        value = result[0] if has_aux else result
        _check_scalar(value)
        found = tape.gradient(value, sources, unconnected_gradients="zero")
        return result, found[0] if isinstance(argnums, int) else tuple(found)

    return wrapper


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of a function with a scalar result.

    Arguments as in `value_and_grad`; with has_aux the result is (gradient, anything else).

    >>> graphnn.grad(graphnn.sin)(0.0)
    Tensor(1.0, shape=(), dtype=float32)
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        result, found = both(*args, **keywords)
        return (found, result[1]) if has_aux else found

    return wrapper


def _check_scalar(value: Any) -> None:
    if isinstance(value, Operand) and not value.shape and is_float(value.dtype):
        return
    if isinstance(value, Operand):
        received = f"a result {describe(value.dtype, value.shape)}"
    else:
        received = f"a result of type {type(value).__name__}"
    raise GradientError(
        "grad",
        received=received,
        expected="a float scalar, or a weight for each element of the result",
        fix="reduce it, e.g. with graphnn.sum, or use graphnn.vjp with a cotangent, or "
        "GradientTape.gradient(..., output_gradients=...)",
    )


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """(result, pullback): pullback(cotangent) gives the gradients of all arguments, a tuple.

    cotangent: in the structure of the result. The pullback may be called more than once.

    >>> y, pullback = graphnn.vjp(lambda x: x * x, graphnn.constant([1.0, 2.0]))
    >>> pullback(graphnn.constant([1.0, 10.0]))[0].numpy()
    array([ 2., 40.], dtype=float32)
    """
    sources = [_as_sources(p, "vjp") for p in primals]
    with GradientTape(persistent=True) as tape:
        tape.watch(sources)
        result = function(*sources)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return tuple(tape.gradient(result, sources, cotangent, "zero"))

    return result, pullback


def jvp(
    function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Any, Any]:
    """(result, its change along the tangents): forward-mode differentiation.

    primals: positional arguments. tangents: their changes, in the same structure. Computed as the
    gradient of the gradient with respect to its weights, which is linear in them; so each op needs
    only its one gradient rule. Raises ArgumentError or ShapeError where tangents do not fit.

    >>> y, dy = graphnn.jvp(graphnn.sin, (0.0,), (2.0,))
    >>> float(dy)
    2.0
    """
    sources, changes = (
        [_as_sources(p, "jvp") for p in primals],
        [_as_sources(t, "jvp") for t in tangents],
    )
    tree.same_structure(sources, changes)
    for x, dx in zip(tree.flatten(sources), tree.flatten(changes), strict=True):
        if tuple(x.shape) != tuple(dx.shape):
            raise ShapeError(
                "jvp",
                received=f"a tangent of shape {dx.shape} for an argument of shape {x.shape}",
                expected="equal shapes",
                fix="give one change for each element",
            )
    with GradientTape() as outer:
        with GradientTape() as inner:
            inner.watch(sources)
            result = function(*sources)
        weights = tree.map_structure(lambda y: TENSOR_OPS.zeros_like(convert(y)), result)
        outer.watch(weights)
        pulled = inner.gradient(result, sources, weights, "zero")
    return result, outer.gradient(pulled, weights, changes, "zero")


def jacobian(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns all derivatives of a function: result.shape + argument.shape.

    >>> graphnn.jacobian(lambda x: x * x)([1.0, 2.0]).numpy().tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        numbers = _chosen(args, argnums, "jacobian")
        changed = list(args)
        for n in numbers:
            changed[n] = _as_sources(args[n], "jacobian")
        sources = [changed[n] for n in numbers]
        with GradientTape() as tape:
            tape.watch(sources)
            result = function(*changed, **keywords)
        found = tape.jacobian(result, sources)
        return found[0] if isinstance(argnums, int) else tuple(found)

    return wrapper


def hessian(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns the second derivatives of a scalar function of one tensor.

    >>> graphnn.hessian(lambda x: graphnn.sum(x * x * x))([1.0, 2.0]).numpy().tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacobian(grad(function))


# ---- gradients that the user states -------------------------------------------------------------


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the function returns (result, gradient function), and that one is used.

    The gradient function gets one gradient per result and returns one per tensor argument (a tuple
    or list if there are several). If it takes a keyword `variables` it must return a second value:
    the gradients of the trainable Variables that the function reads, in that order.

    >>> @graphnn.custom_gradient
    ... def clipped(x):
    ...     return x, lambda g: graphnn.clip(g, -1.0, 1.0)
    >>> graphnn.grad(lambda x: 5.0 * clipped(x))(graphnn.constant(2.0))
    Tensor(1.0, shape=(), dtype=float32)
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        sources = [a for a in tree.flatten(list(args)) if isinstance(a, Operand)]
        if not state.busy:
            return function(*args, **keywords)[0]
        with _Watcher() as watcher:
            result, rule = function(*args, **keywords)
        variables = [v for v in watcher.watched_variables() if all(v is not s for s in sources)]
        return _attach(result, _gradient_call(rule, variables), [*sources, *variables])

    return wrapper


def _gradient_call(rule: Callable[..., Any], variables: list[Any]) -> Callable[..., list[Any]]:
    """rule as a function from the results' gradients to a list: arguments', then Variables'."""

    def call(*gradients: Any) -> list[Any]:
        if not variables or not _takes_variables(rule):
            return [*_listed(rule(*gradients)), *[None] * len(variables)]
        of_arguments, of_variables = rule(*gradients, variables=variables)
        return [*_listed(of_arguments), *_listed(of_variables)]

    return call


def _takes_variables(rule: Callable[..., Any]) -> bool:
    code = getattr(rule, "__code__", None)
    if code is None:
        return False
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return "variables" in names or bool(code.co_flags & 0x08)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _attach(result: Any, call: Callable[..., list[Any]], sources: list[Any]) -> Any:
    """The result as new tensors, whose gradient is what `call` says."""
    raw = [convert(r) for r in tree.flatten(result)]
    tensors = [s._tensor() for s in sources]
    if state.trace is None:
        op = CustomGradient(count=len(tensors), rule=_EagerRule(call, len(tensors)))
    else:
        rule, residuals = _template(call, raw, tensors)
        tensors += residuals
        op = CustomGradient(count=len(tensors), rule=rule)
    return tree.unflatten(result, list(apply(op, *tensors, *raw)))


@dataclass(frozen=True, eq=False)
class _EagerRule:
    """Runs the user's gradient function on tensors."""

    call: Callable[..., list[Any]]
    count: int

    def __call__(self, ops: Any, inputs: Any, outs: Any, gs: Any) -> list[Any]:
        found = self.call(*gs)
        _check_count(found, self.count)
        return [None if g is None else convert(g) for g in found]


def _check_count(found: list[Any], count: int) -> None:
    if len(found) != count:
        raise GradientError(
            "custom_gradient",
            received=f"{len(found)} gradients",
            expected=f"one for each of {count} tensor arguments",
            fix="return a tuple with one gradient, or None, per argument",
        )


@dataclass(frozen=True, eq=False)
class _TracedRule:
    """The gradient function, traced once: a small graph that is copied wherever it is needed.

    seeds: stand-ins for the results' gradients. inputs: nodes that the graph reads, arguments
    first. nodes: in order. results: one per argument, None for no gradient.
    """

    seeds: tuple[Node, ...]
    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    results: tuple[Node | None, ...]

    def __call__(self, ops: Any, inputs: Any, outs: Any, gs: Any) -> list[Any]:
        values: dict[Node, Any] = dict(zip(self.seeds, gs, strict=True))
        values |= zip(self.inputs, inputs, strict=True)
        handler = ops._handler
        for node in self.nodes:
            if node in values:
                continue
            if node.op.name == "item":
                values[node] = values[node.inputs[0]][node.op.settings()["index"]]
            else:
                values[node] = handler.apply(node.op, tuple(values[i] for i in node.inputs))
        found = [None if r is None else values[r] for r in self.results]
        return [*found, *[None] * (len(self.inputs) - len(found))]


def _template(
    call: Callable[..., list[Any]], raw: list[Tensor], sources: list[Tensor]
) -> tuple[_TracedRule, list[Tensor]]:
    """The gradient function as a graph, and the tensors besides the arguments that it reads."""
    trace = state.trace
    seeds = [
        Node(Input(label=f"gradient{i}"), (), node_of(r, trace).type) for i, r in enumerate(raw)
    ]
    made: set[Node] = set()
    plain_apply = trace.apply

    def remembering(op: Any, inputs: Any) -> Any:
        out = plain_apply(op, inputs)
        made.update(out if isinstance(out, tuple) else (out,))
        made.update(out[0].inputs if isinstance(out, tuple) and out else ())
        return out

    trace.apply = remembering
    try:
        with no_tapes():
            found = call(*(from_node(s, trace) for s in seeds))
            _check_count(found, len(sources))
            results = [None if g is None else node_of(convert(g), trace) for g in found]
    finally:
        del trace.apply
    own = [node_of(s, trace) for s in sources]
    stops = {*seeds, *own}
    order = _inside([r for r in results if r is not None], made, stops)
    inside = set(order)
    residuals: dict[Node, None] = {}
    for node in (*order, *(r for r in results if r is not None)):
        for i in (node,) if node not in inside else node.inputs:
            if i not in inside and i not in stops:
                residuals[i] = None
    rule = _TracedRule(tuple(seeds), (*own, *residuals), tuple(order), tuple(results))
    return rule, [from_node(n, trace) for n in residuals]


def _inside(roots: list[Node], made: set[Node], stops: set[Node]) -> list[Node]:
    """The nodes that the gradient function made, as far as its results need them, in order."""
    return [n for n in topological(roots) if n in made and n not in stops]


# ---- recomputation ------------------------------------------------------------------------------


def recompute_grad(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: nothing inside the function is kept for its gradient; it is computed again.

    Trades time for memory in deep models. Gradients flow to tensor arguments and to the trainable
    Variables that the function reads.

    >>> block = graphnn.recompute_grad(lambda x: graphnn.exp(graphnn.sin(x)))
    >>> graphnn.grad(block)(0.0)
    Tensor(1.0, shape=(), dtype=float32)
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        if not state.busy:
            return function(*args, **keywords)
        flat = tree.flatten(list(args))
        sources = [a for a in flat if isinstance(a, Operand)]
        held = [s._tensor() for s in sources]
        watcher = _Watcher()
        with mode(state.trace), watcher:
            result = function(*args, **keywords)
        variables = [v for v in watcher.watched_variables() if all(v is not s for s in sources)]

        def again(*gradients: Any) -> list[Any]:
            key = next(_keys)
            copies = [TENSOR_OPS.barrier(t, key=key) for t in held]
            fill = iter(copies)
            leaves = [next(fill) if isinstance(a, Operand) else a for a in flat]
            with GradientTape() as tape:
                tape.watch(copies)
                value = function(*tree.unflatten(list(args), leaves), **keywords)
            return tape.gradient(value, [*copies, *variables], list(gradients))  # type: ignore[no-any-return]

        return _attach(result, again, [*sources, *variables])

    return wrapper


class _Watcher(GradientTape):
    """Only notes which Variables are read."""

    def record_read(self, variable: Any, version: Any, value: Tensor) -> None:
        """Note the Variable, but watch nothing."""
        self._reads[id(variable)] = (version, value)
        if variable.trainable:
            self._variables[id(variable)] = variable
