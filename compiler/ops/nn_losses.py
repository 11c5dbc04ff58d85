"""Cross-entropies from logits, one loss per example; the losses of Keras are built on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphnn.compiler.ir.sizes import substitute
from graphnn.compiler.ir.types import FLOATS, INTEGERS, TensorType, describe, int64, is_integer
from graphnn.compiler.ops.arrays import Formula, cast_op, wide_op
from graphnn.compiler.ops.base import Composite, Elementwise, NoGradient, Sample
from graphnn.compiler.ops.nn import shifted_exp
from graphnn.runtime.errors import DTypeError, Loc, OutOfRangeError, ShapeError


@dataclass(frozen=True)
class LabelCheck:
    """A label must be one of `classes` classes: 0 <= label < classes."""

    classes: Any

    def bind(self, env: dict[Any, Any]) -> LabelCheck:
        """The check with symbolic sizes replaced by numbers."""
        return LabelCheck(substitute(self.classes, env))

    def error(self, value: Any, loc: Loc | None = None) -> OutOfRangeError:
        """The error for a wrong label; without `loc` it names the user's current line."""
        return OutOfRangeError(
            "sparse_softmax_cross_entropy",
            received=f"label {int(value)} for {self.classes} classes",
            expected=f"0 <= label < {self.classes}",
            fix="check the labels, or give the last layer one unit for each class",
            loc=loc,
        )


class CheckedLabels(Elementwise):
    """The labels, checked to be classes: 0 <= label < classes. Raises OutOfRangeError.

    labels: integers. classes: their number, symbolic in a trace. Returns: same shape and dtype.
    """

    name, accepts, promotes = "checked_labels", INTEGERS, "none"
    gradient = NoGradient("labels are integers")
    classes: Any
    samples = (
        Sample((("i", (3, 4), 0, 5),), {"classes": 5}),
        Sample((("i", (), 0, 2),), {"classes": 2}),
        Sample((("i", (0,)),), {"classes": 3}),
    )

    def eager(self, xp: Any, labels: Any) -> Any:
        wrong = (labels < 0) | (labels.astype(int64) >= int(self.classes))
        if wrong.any():
            raise LabelCheck(self.classes).error(labels.reshape(-1)[xp.argmax(wrong.reshape(-1))])
        return labels

    def scalar(self, emit: Any, label: Any) -> Any:
        wide = emit.cast(label, int64)
        above = emit.compare("ge", wide, 0)
        ok = emit.bitwise("and", above, emit.compare("lt", wide, emit.index(self.classes)))
        return emit.cast(emit.check(ok, wide, LabelCheck(self.classes)), label.dtype)


class SparseSoftmaxCrossEntropy(Composite):
    """-log(softmax(logits)[label]) along the last axis, without overflow.

    logits: floats (..., classes). labels: integers (...). Returns: (...), dtype of the logits.
    Raises OutOfRangeError for a label that is no class, ShapeError where the shapes do not fit.

    >>> loss = graphnn.nn.sparse_softmax_cross_entropy([[0.0, 0.0]], [1])
    >>> [f"{v:.4f}" for v in loss.numpy().tolist()]
    ['0.6931']
    """

    name, promotes = "sparse_softmax_cross_entropy", "none"
    samples = (
        Sample((("f", (3, 4)), ("i", (3,), 0, 4))),
        Sample((("f", (2, 3, 5)), ("i", (2, 3), 0, 5))),
        Sample((("f", (4,)), ("i", (), 0, 4))),
        Sample((("f", (0, 4)), ("i", (0,), 0, 4))),
    )

    def infer(self, *types: TensorType) -> TensorType:
        logits, labels = types
        self.check_dtypes(types[:1])
        if not is_integer(labels.dtype):
            raise DTypeError(
                self.name,
                received=f"labels {describe(labels.dtype, labels.shape)}",
                expected="integer labels",
                fix="cast them to int32, or use softmax_cross_entropy for one-hot targets",
            )
        if not logits.ndim or labels.shape != logits.shape[:-1]:
            raise ShapeError(
                self.name,
                received=f"logits {describe(logits.dtype, logits.shape)}, "
                f"labels {describe(labels.dtype, labels.shape)}",
                expected="labels of the shape of the logits without their last axis",
                fix="squeeze the labels, or use softmax_cross_entropy for one-hot targets",
            )
        return logits.with_shape(labels.shape)

    def decompose(self, ops: Any, logits: Any, labels: Any) -> Any:
        x = wide_op(ops, logits)
        last = (len(x.shape) - 1,)
        _, _, s = shifted_exp(ops, x, last)
        at = ops.checked_labels(labels, classes=x.shape[-1])
        at = ops.expand_dims(at, axes=last)
        chosen = ops.take_along_axis(x, at, axis=last[0])
        chosen = ops.subtract(chosen, ops.max(x, axes=last, keepdims=True))
        loss = ops.squeeze(ops.subtract(ops.log(s), chosen), axes=last)
        return cast_op(ops, loss, logits.dtype)

    def grad(self, ops: Any, logits: Any, labels: Any, *, out: Any, g: Any) -> Any:
        x = wide_op(ops, logits)
        last = (len(x.shape) - 1,)
        _, e, s = shifted_exp(ops, x, last)
        chosen = ops.one_hot(labels, depth=x.shape[-1], dtype="bool")
        g = ops.expand_dims(cast_op(ops, g, x.dtype), axes=last)
        # g * (e / s - target), with one division for all classes
        slope = ops.subtract(ops.multiply(e, ops.divide(g, s)), ops.where(chosen, g, 0.0))
        return cast_op(ops, slope, logits.dtype), None


class SoftmaxCrossEntropy(Composite):
    """-sum(targets * log(softmax(logits))) along the last axis, without overflow.

    logits, targets: floats of one shape (..., classes). Returns: (...), dtype of the logits.
    Raises ShapeError where the shapes differ.

    >>> loss = graphnn.nn.softmax_cross_entropy([[0.0, 0.0]], [[0.0, 1.0]])
    >>> [f"{v:.4f}" for v in loss.numpy().tolist()]
    ['0.6931']
    """

    name = "softmax_cross_entropy"
    samples = (
        Sample((("f", (3, 4)), ("f", (3, 4), 0.0, 1.0))),
        Sample((("f", (5,)), ("f", (5,), 0.0, 1.0))),
    )

    def infer(self, *types: TensorType) -> TensorType:
        self.check_dtypes(types)
        logits, targets = types
        if logits.shape != targets.shape or not logits.ndim:
            raise ShapeError(
                self.name,
                received=" and ".join(describe(t.dtype, t.shape) for t in types),
                expected="logits and targets of one shape, with at least one axis",
                fix="use sparse_softmax_cross_entropy for integer labels",
            )
        return logits.with_shape(logits.shape[:-1])

    def decompose(self, ops: Any, logits: Any, targets: Any) -> Any:
        x, t = wide_op(ops, logits), wide_op(ops, targets)
        last = (len(x.shape) - 1,)
        z, _, s = shifted_exp(ops, x, last)
        surprise = ops.subtract(ops.log(s), z)
        loss = ops.sum(ops.multiply(cast_op(ops, t, x.dtype), surprise), axes=last)
        return cast_op(ops, loss, logits.dtype)

    def grad(self, ops: Any, logits: Any, targets: Any, *, out: Any, g: Any) -> Any:
        x, t = wide_op(ops, logits), wide_op(ops, targets)
        last = (len(x.shape) - 1,)
        z, e, s = shifted_exp(ops, x, last)
        t = cast_op(ops, t, x.dtype)
        g = ops.expand_dims(cast_op(ops, g, x.dtype), axes=last)
        weight = ops.sum(t, axes=last, keepdims=True)
        slope = ops.subtract(ops.multiply(ops.divide(e, s), weight), t)
        of_targets = ops.multiply(g, ops.subtract(ops.log(s), z))
        return (
            cast_op(ops, ops.multiply(g, slope), logits.dtype),
            cast_op(ops, of_targets, targets.dtype),
        )


class SigmoidCrossEntropy(Formula):
    """-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)) of each element, without overflow.

    logits x, targets t: floats, with broadcasting. Returns: their common dtype.

    >>> f"{graphnn.nn.sigmoid_cross_entropy(0.0, 1.0).numpy().item():.4f}"
    '0.6931'
    """

    name, arity, accepts, promotes = "sigmoid_cross_entropy", 2, FLOATS, "float"
    samples = (
        Sample((("f", (3, 4), -4.0, 4.0), ("f", (3, 4), 0.0, 1.0))),
        Sample((("f", (3, 1)), ("f", (), 0.0, 1.0))),
    )

    def grad(self, ops: Any, x: Any, t: Any, *, out: Any, g: Any) -> Any:
        slope = ops.subtract(ops.sigmoid(x), t)
        return ops.multiply(g, slope), ops.negative(ops.multiply(g, x))

    def scalar(self, emit: Any, x: Any, t: Any) -> Any:
        small = emit.call("exp", -emit.unary("abs", x))
        positive = emit.maximum(x, emit.constant(0.0, x.dtype))
        return positive - x * t + emit.call("log1p", small)
