"""Runs ops on arrays while recording them, to differentiate special cases in the op tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn.compiler.gradients import Step, backpropagate
from graphnn.compiler.ops.base import ArrayHandler, Composite, Op, Ops


class Recorder(ArrayHandler):
    """Eager NumPy values; composites without their own gradient are recorded as their parts."""

    def __init__(self) -> None:
        super().__init__(np)
        self.steps: list[Step] = []
        self.ops = Ops(self)

    def apply(self, op: Op, inputs: Any) -> Any:
        if isinstance(op, Composite) and not op.has("grad") and op.gradient is None:
            return op.decompose(self.ops, *inputs)
        value = op.eager(np, *inputs)
        # A fresh view each time, since values are told apart by identity.
        out = tuple(map(_fresh, value)) if isinstance(value, tuple) else _fresh(value)
        self.steps.append(Step(op, tuple(inputs), out))
        return out

    def gradients(self, out: Any, seed: Any, *wanted: Any) -> list[Any]:
        """Gradients of sum(out * seed); zeros where there is no path."""
        seed = np.broadcast_to(np.asarray(seed, out.dtype), out.shape)
        found = backpropagate(self.ops, list(self.steps), [(out, seed)], wanted)
        return [np.asarray(found.get(id(w), np.zeros_like(w))) for w in wanted]


def _fresh(value: Any) -> Any:
    return np.asarray(value).view()
