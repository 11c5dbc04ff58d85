"""Reverse-mode differentiation: one driver for the tape (tensors) and the gradient pass (nodes).

It asks each op's `grad` rule, adds up what reaches a value twice and undoes broadcasting, so that
no rule has to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.types import is_float
from graphnn.compiler.ops.base import Op
from graphnn.runtime.errors import GradientError, Loc


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded application: `out` is a value, or a tuple of values (None where unused)."""

    op: Op
    inputs: tuple[Any, ...]
    out: Any
    loc: Loc | None = None
    device: str = ""

    @property
    def outs(self) -> tuple[Any, ...]:
        """The results as a tuple."""
        return self.out if isinstance(self.out, tuple) else (self.out,)


def backpropagate(
    ops: Any,
    steps: Sequence[Step],
    seeds: Iterable[tuple[Any, Any]],
    wanted: Iterable[Any],
    at: Callable[[Step], None] = lambda step: None,
) -> dict[int, Any]:
    """Gradients of values by `id`, from the seeds of the targets back through the steps.

    ops: the namespace in which rules build values. steps: in the order in which they ran.
    seeds: (target, gradient) pairs. wanted: values whose gradients are asked for; only steps on a
    path from one of them are visited. at: told each step before its rule runs.
    """
    useful = _reachable(steps, wanted)
    gradients: dict[int, Any] = {}
    for value, seed in seeds:
        _accumulate(ops, gradients, value, seed)
    for step in reversed(steps):
        if not any(id(o) in gradients for o in step.outs if o is not None):
            continue
        if not any(id(i) in useful for i in step.inputs):
            continue
        at(step)
        for value, g in zip(step.inputs, _apply_rule(ops, step, gradients), strict=True):
            if g is not None and id(value) in useful:
                _accumulate(ops, gradients, value, g)
    return gradients


def differentiable(op: Op) -> bool:
    """Whether any gradient can flow through an op."""
    return op.gradient is None


def _reachable(steps: Sequence[Step], wanted: Iterable[Any]) -> set[int]:
    """Ids of values that depend differentiably on a wanted one."""
    useful = {id(w) for w in wanted}
    for step in steps:
        if differentiable(step.op) and any(id(i) in useful for i in step.inputs):
            useful.update(id(o) for o in step.outs if o is not None and is_float(o.dtype))
    return useful


def _apply_rule(ops: Any, step: Step, gradients: dict[int, Any]) -> Sequence[Any]:
    if not differentiable(step.op):
        return [None] * len(step.inputs)
    if isinstance(step.out, tuple):
        g: Any = tuple(None if o is None else gradients.get(id(o)) for o in step.out)
        g = tuple(
            ops.zeros_like(o) if gi is None and o is not None else gi
            for o, gi in zip(step.out, g, strict=True)
        )
    else:
        g = gradients[id(step.out)]
    if not step.op.has("grad"):
        raise GradientError(
            step.op.name,
            received="an op without a gradient rule",
            expected="a rule, or a stated reason why there is none",
            fix="wrap it in custom_gradient, or stop the gradient before it",
            loc=step.loc,
        )
    found: Sequence[Any] = step.op.grad(ops, *step.inputs, out=step.out, g=g)
    return found


def _accumulate(ops: Any, gradients: dict[int, Any], value: Any, g: Any) -> None:
    g = unbroadcast(ops, g, tuple(value.shape))
    known = gradients.get(id(value))
    gradients[id(value)] = g if known is None else ops.add(known, g)


def unbroadcast(ops: Any, g: Any, shape: tuple[Any, ...]) -> Any:
    """Sum a gradient over the axes along which its value was stretched."""
    have = tuple(g.shape)
    if have == shape:
        return g
    extra = len(have) - len(shape)
    if extra < 0:
        return ops.broadcast_to(g, shape=shape)
    stretched = [i for i, s in enumerate(shape) if s == 1 and have[i + extra] != 1]
    if extra and not stretched:
        g = ops.sum(g, axes=tuple(range(extra)))
        return g if tuple(g.shape) == shape else ops.broadcast_to(g, shape=shape)
    axes = (*range(extra), *(i + extra for i in stretched))
    g = ops.sum(g, axes=axes, keepdims=True) if axes else g
    if extra:
        g = ops.reshape(g, shape=shape)
    return g if tuple(g.shape) == shape else ops.broadcast_to(g, shape=shape)
