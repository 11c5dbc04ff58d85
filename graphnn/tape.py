"""GradientTape: writes down what is done to watched tensors, and plays it backwards.

In eager mode the gradient rules run at once. While tracing, `gradient` leaves one `gradient` node
in the graph, which the gradient pass expands with the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from graphnn import tree
from graphnn.apply import TENSOR_OPS, apply, cast, convert, node_of, record
from graphnn.compiler.gradients import Step, backpropagate, differentiable
from graphnn.compiler.ir.types import describe, is_float
from graphnn.compiler.ops.base import Op
from graphnn.compiler.ops.core import CustomGradient, Gradient, Identity, Input
from graphnn.compiler.passes.gradient import connected
from graphnn.runtime.errors import ArgumentError, GradientError, ShapeError, StateError, warn_user
from graphnn.state import mode, state
from graphnn.tensor import Operand, Tensor, Traced

READ = Identity()  # from a Variable to a tensor with its value
Steps = list[tuple[Op, tuple[Any, ...], Any]]


class UnconnectedGradients:
    """What the gradient of a source is on which the target does not depend.

    NONE: None. ZERO: a tensor of zeros. Either is accepted as a string, too.
    """

    NONE = "none"
    ZERO = "zero"


class GradientTape:
    """Records operations for differentiation; used as a context manager.

    Trainable Variables that are read are watched by themselves; other tensors by `watch`. Tapes
    can be nested to any order: an outer tape also records what an inner one computes.

    persistent: `gradient` may be called more than once; otherwise the record is dropped with the
    first call. watch_accessed_variables: False to watch Variables by `watch` only.

    >>> x = graphnn.constant(3.0)
    >>> with graphnn.GradientTape() as tape:
    ...     tape.watch(x)
    ...     y = x * x
    >>> tape.gradient(y, x)
    Tensor(6.0, shape=(), dtype=float32)
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self.steps: Steps = []
        self.watched: set[int] = set()  # ids; the objects live in `steps` and `_kept`
        self._kept: dict[int, Any] = {}
        self._reads: dict[int, tuple[Any, Tensor]] = {}  # Variable id: (version, its tensor)
        self._variables: dict[int, Any] = {}
        self._hidden: list[Tensor] = []  # what inner tapes saw and this one did not
        self._persistent = persistent
        self._auto = watch_accessed_variables
        self._used = False

    # ---- recording -----------------------------------------------------------------------

    def __enter__(self) -> GradientTape:
        if self._recording:
            raise StateError(
                "GradientTape",
                received="a tape that is recording already",
                expected="one `with` for one recording",
                fix="open another tape",
            )
        state.set(state.trace, (*state.tapes, self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def _recording(self) -> bool:
        return any(tape is self for tape in state.tapes)

    def _stop(self) -> None:
        state.set(state.trace, tuple(t for t in state.tapes if t is not self))

    def watch(self, tensor: Any) -> None:
        """Record what is done to tensors or Variables from here on; nested structures as well.

        Raises ArgumentError for other things. Only floating-point tensors can be differentiated;
        for others there is a warning.
        """
        for value in tree.flatten(tensor):
            _check_operand(value, "watch")
            if not is_float(value.dtype):
                warn_user(
                    f"a tensor of dtype {value.dtype.name} is watched, but only floating-point "
                    "tensors have gradients"
                )
            self.watched.add(id(value))
            self._kept[id(value)] = value
            if not isinstance(value, Tensor):
                self._variables[id(value)] = value

    def watches(self, variable: Any) -> bool:
        """Whether reads of a Variable are written down."""
        return (self._auto and variable.trainable) or id(variable) in self.watched

    def known_read(self, variable: Any, version: Any) -> Tensor | None:
        """The tensor that stands for a Variable's value on this tape, if it was read before."""
        known = self._reads.get(id(variable))
        return known[1] if known is not None and known[0] is version else None

    def record_read(self, variable: Any, version: Any, value: Tensor) -> None:
        """Write down that a tensor is a Variable's value."""
        self._reads[id(variable)] = (version, value)
        if not self.watches(variable):
            return
        self._variables[id(variable)] = variable
        self.steps.append((READ, (variable,), value))
        self.watched.add(id(value))

    @contextmanager
    def stop_recording(self) -> Iterator[None]:
        """Leave out what is done inside the context."""
        if not self._recording:
            raise StateError(
                "GradientTape.stop_recording",
                received="a tape that is not recording",
                expected="a call inside the tape's `with`",
                fix="leave it out",
            )
        with mode(state.trace, tuple(t for t in state.tapes if t is not self)):
            yield

    def reset(self) -> None:
        """Forget everything that was recorded and watched."""
        self.__init__(self._persistent, self._auto)  # type: ignore[misc]

    def watched_variables(self) -> tuple[Any, ...]:
        """The Variables that are watched, in the order in which they were first read."""
        return tuple(self._variables.values())

    # ---- gradients -----------------------------------------------------------------------

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: str = "none",
    ) -> Any:
        """Gradients of the sum of the targets' elements, in the structure of `sources`.

        target: a tensor or a nested structure. sources: tensors or Variables, nested at will.
        output_gradients: weights of the targets' elements, in the structure of `target`; default
        ones. unconnected_gradients: "none" or "zero", see UnconnectedGradients. Raises StateError
        for the second call of a tape that is not persistent, ShapeError for weights that do not
        fit.
        """
        self._begin("gradient")
        results = self._differentiate(
            tree.flatten(target),
            tree.flatten(sources),
            _weights(target, output_gradients),
            _check_unconnected(unconnected_gradients),
        )
        self._end()
        return tree.unflatten(sources, results)

    def jacobian(self, target: Any, sources: Any, unconnected_gradients: str = "none") -> Any:
        """Derivatives of each element of the target: shape target.shape + source.shape.

        One backward run for each element of the target. Raises as `gradient`.
        """
        self._begin("jacobian")
        y, flat = convert(target), tree.flatten(sources)
        count = _static_count(tuple(y.shape), "jacobian")
        rows = [
            self._differentiate([y], flat, [_one_hot(y, i)], unconnected_gradients)
            for i in range(count)
        ]
        self._end()
        results = [
            _stacked([row[k] for row in rows], tuple(y.shape), s) for k, s in enumerate(flat)
        ]
        return tree.unflatten(sources, results)

    def batch_jacobian(self, target: Any, source: Any, unconnected_gradients: str = "none") -> Any:
        """Derivatives of each example by itself: shape (batch,) + target rest + source rest.

        target, source: the first axis counts examples, and target[i] depends on source[i] only.
        Raises ShapeError if the first axes differ.
        """
        self._begin("batch_jacobian")
        y = convert(target)
        if not y.shape or not source.shape or y.shape[0] != source.shape[0]:
            raise ShapeError(
                "batch_jacobian",
                received=f"target {describe(y.dtype, y.shape)}, source "
                f"{describe(source.dtype, source.shape)}",
                expected="the same number of examples on the first axes",
                fix="use jacobian",
            )
        rest, own = tuple(y.shape)[1:], tuple(source.shape)
        columns = []
        for i in range(_static_count(rest, "batch_jacobian")):
            seed = TENSOR_OPS.broadcast_to(_one_hot_of(rest, i, y), shape=tuple(y.shape))
            columns.append(self._differentiate([y], [source], [seed], unconnected_gradients)[0])
        self._end()
        if any(c is None for c in columns):
            return None
        if not columns:
            return TENSOR_OPS.full(shape=(own[0], *rest, *own[1:]), dtype=y.dtype.name, value=0)
        wide = TENSOR_OPS.stack(*columns, axis=1)
        return TENSOR_OPS.reshape(wide, shape=(own[0], *rest, *own[1:]))

    def _begin(self, what: str) -> None:
        if self._used:
            raise StateError(
                f"GradientTape.{what}",
                received="a second call on a tape that is not persistent",
                expected="one call, after which the record is dropped",
                fix="ask for all gradients at once, or make it GradientTape(persistent=True)",
            )
        if not self._persistent:
            self._stop()

    def _end(self) -> None:
        if not self._persistent:
            self.reset()
            self._used = True

    def _differentiate(
        self,
        targets: Sequence[Any],
        sources: Sequence[Any],
        weights: Sequence[Any] | None,
        unconnected: str,
    ) -> list[Any]:
        for source in sources:
            _check_operand(source, "sources of gradient")
        pairs = _seeds([self._target(t) for t in targets], weights)
        if any(type(t._value) is Traced for t, _ in pairs) and not self._meets():
            found = self._traced_gradient(pairs, sources)
        else:
            steps = [Step(*s) for s in self.steps]
            wanted = [s for s in sources if self._is_source(s)]
            gradients = backpropagate(TENSOR_OPS, steps, pairs, wanted)
            found = [gradients.get(id(s)) if self._is_source(s) else None for s in sources]
        if unconnected == UnconnectedGradients.ZERO:
            return [
                TENSOR_OPS.zeros_like(s._tensor()) if g is None else g
                for s, g in zip(sources, found, strict=True)
            ]
        return found

    def _meets(self) -> bool:
        """Whether gradients of other replicas are needed, which only rules that run now can get."""
        return any(isinstance(s[0], CustomGradient) and s[0].across for s in self.steps)

    def _is_source(self, value: Any) -> bool:
        """Whether a value was watched, or computed from watched ones."""
        known = id(value) in self.watched or id(value) in self._variables
        return known and is_float(value.dtype)

    def _target(self, value: Any) -> Any:
        """The tensor that was recorded for a target; a Variable's is its value."""
        if isinstance(value, Tensor):
            return value
        known = self._reads.get(id(value))
        return known[1] if known is not None else convert(value)

    # ---- while tracing -------------------------------------------------------------------

    def _traced_gradient(
        self, pairs: list[tuple[Tensor, Tensor]], sources: Sequence[Any]
    ) -> list[Any]:
        """One `gradient` node; a Variable's gradient adds up those of its reads."""
        needed = _needed(self.steps, [t for t, _ in pairs])
        values = [self._values_of(s, needed) if self._is_source(s) else [] for s in sources]
        flat = list({id(v): v for group in values for v in group}.values())
        if not flat:
            return [None] * len(sources)
        constants = self._constants()
        targets, seeds = [t for t, _ in pairs], [g for _, g in pairs]
        if any(type(op) is Gradient for op, _, _ in self.steps):
            flat = _connected(targets, flat, constants, seeds)
            if not flat:
                return [None] * len(sources)
        op = Gradient(targets=len(targets), sources=len(flat), constants=len(constants))
        inputs = (*targets, *flat, *constants, *seeds)
        hidden = self._outputs()
        for tape in state.tapes:
            tape._hidden += [v for v in hidden if id(v) not in tape.watched]
        out = apply(op, *inputs)
        by_id = {id(v): g for v, g in zip(flat, out, strict=True)}
        return [_total([by_id[id(v)] for v in group if id(v) in by_id]) for group in values]

    def _values_of(self, source: Any, needed: set[Any]) -> list[Tensor]:
        """The tensors that stand for a source, as far as the targets depend on them."""
        if isinstance(source, Tensor):
            return [source] if _key(source) in needed else []
        reads = [out for op, (value, *_), out in self.steps if op is READ and value is source]
        return [r for r in reads if _key(r) in needed]

    def _outputs(self) -> list[Tensor]:
        return [v for _, _, out in self.steps for v in (out if type(out) is tuple else (out,))]

    def _constants(self) -> list[Tensor]:
        """Values that were computed, but not under this tape: paths end there."""
        own = {_key(v) for v in (*self._outputs(), *self._kept.values())}
        read = [i for op, inputs, _ in self.steps if op is not READ for i in inputs]
        found = {_key(v): v for v in (*read, *self._hidden) if _key(v) not in own}
        return [v for v in found.values() if _is_computed(v)]


def _key(value: Any) -> Any:
    """What a tensor is in a trace: its node, since two tensors may stand for one."""
    body = getattr(value, "_value", None)
    return body.node if type(body) is Traced else id(value)


def _is_computed(value: Any) -> bool:
    body = value._value
    return type(body) is Traced and not isinstance(body.node.op, Input) and bool(body.node.inputs)


def _needed(steps: Steps, targets: Sequence[Any]) -> set[Any]:
    """Keys of the values on which the targets depend differentiably."""
    needed = {_key(t) for t in targets}
    for op, inputs, out in reversed(steps):
        if not differentiable(op):
            continue
        outs = out if type(out) is tuple else (out,)
        if any(_key(o) in needed and is_float(o.dtype) for o in outs):
            needed.update(_key(i) for i in inputs if is_float(i.dtype))
    return needed


def _connected(
    targets: list[Tensor], sources: list[Tensor], constants: list[Tensor], seeds: list[Tensor]
) -> list[Tensor]:
    """The sources that a gradient of gradients reaches: that of 3 * x does not depend on x."""
    op = Gradient(targets=len(targets), sources=len(sources), constants=len(constants))
    nodes = [node_of(t, state.trace) for t in (*targets, *sources, *constants, *seeds)]
    return [s for s, some in zip(sources, connected(op, nodes), strict=True) if some]


def _total(gradients: list[Tensor]) -> Tensor | None:
    if not gradients:
        return None
    total = gradients[0]
    for other in gradients[1:]:
        total = TENSOR_OPS.add(total, other)
    return total


def _weights(target: Any, given: Any) -> list[Any] | None:
    """The weights of the targets; a list of numbers is the weight of a single target."""
    if given is None:
        return None
    leaves = tree.flatten(given)
    return [given] if isinstance(target, Operand) and len(leaves) != 1 else leaves


def _seeds(targets: list[Tensor], weights: Sequence[Any] | None) -> list[tuple[Tensor, Tensor]]:
    """(target, its gradient) pairs; targets that are not floats have none."""
    if weights is not None and len(weights) != len(targets):
        raise ArgumentError(
            "output_gradients",
            received=f"{len(weights)} values for {len(targets)} targets",
            expected="one for each target",
            fix="give them in the structure of the target",
        )
    pairs = []
    for target, weight in zip(targets, weights or [None] * len(targets), strict=True):
        if target is None or not is_float(target.dtype):
            continue
        if weight is None:
            pairs.append((target, TENSOR_OPS.ones_like(target)))
            continue
        seed = cast(convert(weight), target.dtype)
        if tuple(seed.shape) != tuple(target.shape):
            raise ShapeError(
                "output_gradients",
                received=f"shape {seed.shape} for a target of shape {target.shape}",
                expected="equal shapes",
                fix="broadcast it to the shape of the target",
            )
        pairs.append((target, seed))
    return pairs


def _check_operand(value: Any, what: str) -> None:
    if not isinstance(value, Operand):
        raise ArgumentError(
            what,
            received=f"{type(value).__name__} {value!r:.60}",
            expected="Tensors or Variables",
            fix="make it a tensor with graphnn.constant first, and compute with that one",
        )


def _check_unconnected(value: Any) -> str:
    text = str(getattr(value, "value", value)).lower()
    if text not in (UnconnectedGradients.NONE, UnconnectedGradients.ZERO):
        raise ArgumentError(
            "gradient",
            received=f"unconnected_gradients={value!r}",
            expected="'none' or 'zero'",
            fix="choose one of them",
        )
    return text


# ---- jacobians ------------------------------------------------------------------------------


def _static_count(shape: tuple[Any, ...], what: str) -> int:
    count = 1
    for extent in shape:
        if not isinstance(extent, int):
            raise GradientError(
                what,
                received=f"a target with a symbolic size {extent}",
                expected="sizes that are known while tracing",
                fix="give the axis a fixed size in input_signature, or use batch_jacobian",
            )
        count *= extent
    return count


def _one_hot(y: Tensor, i: int) -> Tensor:
    return _one_hot_of(tuple(y.shape), i, y)


def _one_hot_of(shape: tuple[int, ...], i: int, y: Tensor) -> Tensor:
    """1 at the i-th element in row-major order, else 0."""
    count = _static_count(shape, "jacobian")
    row = TENSOR_OPS.one_hot(convert(i), depth=count, dtype=y.dtype.name, axis=0)
    return TENSOR_OPS.reshape(row, shape=shape)  # type: ignore[no-any-return]


def _stacked(rows: list[Any], shape: tuple[Any, ...], source: Any) -> Any:
    if any(r is None for r in rows):
        return None
    full = (*shape, *source.shape)
    if not rows:
        return TENSOR_OPS.full(shape=full, dtype=source.dtype.name, value=0)
    return TENSOR_OPS.reshape(TENSOR_OPS.stack(*rows, axis=0), shape=full)


__all__ = ["GradientTape", "UnconnectedGradients", "record"]
