"""Local rewriting: named rules, and the builder that applies them until none fits any more.

A rule looks at one application before its node is made. What it builds goes through the same
builder, so a graph rebuilt once in order is at its fixed point: one sweep, linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.types import TensorType, TupleType, Type
from graphnn.compiler.ops.base import Op, Ops
from graphnn.compiler.ops.core import Input, Item
from graphnn.compiler.trace import GraphHandler
from graphnn.runtime.errors import GraphError

STEP_LIMIT = 64  # rewrites within one another; real chains are a few steps deep


@dataclass(frozen=True, slots=True)
class Application:
    """An op about to be applied: what a rule sees."""

    op: Op
    inputs: tuple[Node, ...]
    type: Type


Rule = Callable[["Builder", Application], Node | None]
"""rule(builder, application) -> the node that stands for it, or None where it does not fit."""


class Builder(GraphHandler):
    """Makes nodes: each application is rewritten by the rules and merged with an equal one."""

    def __init__(self, rules: Sequence[Rule], merge: bool = True) -> None:
        super().__init__()
        self.rules, self.merge = tuple(rules), merge
        self.ops = Ops(self)
        self._known: dict[Any, Node] = {}
        self._order: dict[Node, int] = {}
        self._depth = 0

    def apply(self, op: Op, inputs: Sequence[Node]) -> Any:
        type = op.infer(*(n.type for n in inputs))  # type: ignore[arg-type]
        if not isinstance(type, tuple):
            return self.make(Application(op, tuple(inputs), type))
        node = self.make(Application(op, tuple(inputs), TupleType(type)))
        return tuple(self.make(Application(Item(i), (node,), t)) for i, t in enumerate(type))

    def make(self, new: Application, old: Node | None = None) -> Node:
        """The node of an application whose type is known. `old` is taken if nothing changes."""
        for rule in self.rules:
            found = self._try(rule, new)
            if found is not None:
                return found
        return self._merged(new, old)

    def _try(self, rule: Rule, new: Application) -> Node | None:
        self._depth += 1
        if self._depth > STEP_LIMIT:
            raise self._loops(rule, new)
        found = rule(self, new)
        if self.device and found in new.inputs and found.device != self.device:
            found = None  # a copy to the device that the user wants it on
        if found is not None and found.type != new.type:
            found = self._fitted(found, rule, new)
        self._depth -= 1
        return found

    def _fitted(self, found: Node, rule: Rule, new: Application) -> Node:
        """What a rule gave, stretched to the result's shape, so that no rule has to do it."""
        if isinstance(new.type, TensorType) and found.dtype == new.type.dtype:
            return self.ops.broadcast_to(found, shape=new.type.shape)  # type: ignore[no-any-return]
        raise GraphError(
            f"simplify rule {rule.__name__} on {new.op.name}",
            received=f"a result of type {found.type}",
            expected=f"type {new.type}",
            fix="mend the rule: it must keep the type",
            loc=self.loc,
        )

    def _loops(self, rule: Rule, new: Application) -> GraphError:
        return GraphError(
            f"simplify rule {rule.__name__} on {new.op.name}",
            received=f"{STEP_LIMIT} rewrites within one another",
            expected="rules that end",
            fix=f"mend {rule.__name__}, or {type(new.op).__name__}.fold: they undo each other",
            loc=self.loc,
        )

    def _merged(self, new: Application, old: Node | None) -> Node:
        if not self.merge or not mergeable(new.op):
            return self._node(new, old)
        inputs = new.inputs
        if new.op.commutative:
            inputs = tuple(sorted(inputs, key=self._number))
        key = (new.op, inputs, self.device)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._node(new, old)
        elif not identical(known.op, new.op):
            return self._node(new, old)
        return known

    def _number(self, node: Node) -> int:
        return self._order.setdefault(node, len(self._order))

    def _node(self, new: Application, old: Node | None) -> Node:
        if old is not None and old.op is new.op and old.inputs == new.inputs:
            return old
        return Node(new.op, new.inputs, new.type, self.loc, self.device)


def mergeable(op: Op) -> bool:
    """Whether two equal applications are one value."""
    return not (op.effect or isinstance(op, Input))


def identical(a: Op, b: Op) -> bool:
    """Whether two equal ops are the same to the last bit: 0.0 == -0.0 and 1 == True are not."""
    if a is b:
        return True
    old, new = a.settings(), b.settings()
    return all(_identical(old[k], new[k]) for k in old)


def _identical(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_identical, a, b))
    if type(a) is not type(b):
        return False
    return bool(a == b) and (not isinstance(a, float) or str(a) == str(b))


def is_small(type: Type, limit: int) -> bool:
    """Whether a result has a known size of at most `limit` elements."""
    return isinstance(type, TensorType) and type.is_static and bool(type.size <= limit)
