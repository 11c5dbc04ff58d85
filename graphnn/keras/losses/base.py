"""Loss: values per example, weighted, masked and reduced to one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import ops
from graphnn.distribute.training import part_of_mean, part_of_ratio, part_of_sum
from graphnn.keras import naming
from graphnn.keras.masks import mask_of
from graphnn.keras.registry import Registry
from graphnn.keras.shapes import count_of
from graphnn.runtime.errors import ArgumentError, ShapeError, missing_method

HALF = ("float16", "bfloat16")
EPSILON = 1e-7  # probabilities and divisors are kept this far from 0, as in Keras
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "none", "mean_with_sample_weight", "auto", None)

registry = Registry("losses")
get, serialize, deserialize = registry.get, registry.serialize, registry.deserialize


def same_rank(a: Any, b: Any) -> tuple[Any, Any]:
    """Two tensors of one rank, where their ranks differ by a trailing axis of size 1.

    A vector beside a column becomes a column; else the axis is squeezed from the first tensor, or
    added to it to be like the second.
    """
    if len(a.shape) == len(b.shape) + 1 and a.shape[-1] == 1:
        if len(b.shape) == 1:
            return a, ops.expand_dims(b, axis=-1)
        return ops.squeeze(a, axis=-1), b
    if len(b.shape) == len(a.shape) + 1 and b.shape[-1] == 1:
        return ops.expand_dims(a, axis=-1), b
    return a, b


def weight_like(weight: Any, values: Any) -> Any:
    """Weights in the dtype of the values, reshaped so that they broadcast against them."""
    weight = ops.asarray(weight)
    weight = weight if weight.dtype == values.dtype else ops.cast(weight, values.dtype)
    missing = len(values.shape) - len(weight.shape)
    if missing == -1 and weight.shape[-1] == 1:
        return ops.squeeze(weight, axis=-1)
    if missing > 0 and len(weight.shape):
        # One weight per example stands for all values of that example.
        weight = ops.expand_dims(weight, axis=tuple(range(-missing, 0)))
    return weight


def weight_with_mask(
    sample_weight: Any, mask: Any, values: Any, reduction: str | None = "sum"
) -> Any:
    """Weights that are 0 where a mask is False; None where there is neither.

    With a mean as reduction the others grow, so that the mean is that of the values not masked.
    """
    if mask is None:
        return None if sample_weight is None else weight_like(sample_weight, values)
    kept = weight_like(mask, values)
    if reduction in ("mean", "sum_over_batch_size"):
        kept = kept * _ratio(count_of(kept, kept.dtype), ops.sum(kept))
    return kept if sample_weight is None else kept * weight_like(sample_weight, values)


def _ratio(x: Any, y: Any) -> Any:
    """x / y, and 0 where y is 0."""
    nothing = y == 0
    return ops.where(nothing, ops.zeros_like(x), x / ops.where(nothing, ops.ones_like(y), y))


def reduce_weighted(
    values: Any, sample_weight: Any = None, reduction: str | None = "mean", mask: Any = None
) -> Any:
    """Values times weights, reduced.

    values: one per example, any shape. sample_weight: broadcasts against the values; a trailing
    axis of size 1 is squeezed or added. reduction: "sum_over_batch_size" or "mean" (divided by the
    number of values), "mean_with_sample_weight" (by the sum of weights), "sum", "none". mask:
    booleans of the values' leading axes; values where it is False do not count.
    """
    weight = weight_with_mask(sample_weight, mask, values, reduction)
    weighted = values if weight is None else values * weight
    if reduction in (None, "none"):
        return weighted
    if reduction == "sum":
        return part_of_sum(ops.sum(weighted))
    if reduction == "mean_with_sample_weight" and weight is not None:
        total = ops.sum(ops.broadcast_to(weight, values.shape))
        return part_of_ratio(_ratio(ops.sum(weighted), total), total)
    if mask is not None and reduction != "mean_with_sample_weight":
        return part_of_ratio(ops.mean(weighted), ops.sum(weight_like(mask, values)))
    return part_of_mean(ops.mean(weighted), values.size)


class Loss:
    """Base of losses: subclasses define `call(y_true, y_pred)` giving one value per example.

    reduction: "sum_over_batch_size" (or "mean"), "sum", "mean_with_sample_weight", "none".
    dtype: computed in this dtype; by default that of the predictions, half precision in float32.
    Raises ArgumentError for other reductions.
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        if reduction not in REDUCTIONS:
            raise ArgumentError(
                type(self).__name__,
                received=f"reduction={reduction!r}",
                expected="one of " + ", ".join(repr(r) for r in REDUCTIONS[:-2]),
                fix='leave it out for the mean, "none" for one value per example',
            )
        self.name = name or naming.unique_name(type(self).__name__)
        self.reduction = "sum_over_batch_size" if reduction == "auto" else reduction
        self.dtype = dtype

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss: a scalar, or one value per example without reduction.

        y_true, y_pred: targets and predictions, shapes as `call` takes them; a mask that travels
        with the predictions leaves padding out. sample_weight: optional weights, broadcast against
        the values per example.
        """
        y_pred, y_true = ops.asarray(y_pred), ops.asarray(y_true)
        mask = mask_of(y_pred)
        if self.dtype is not None:
            y_pred = ops.cast(y_pred, self.dtype)
        elif y_pred.dtype.name in HALF:
            y_pred = ops.cast(y_pred, "float32")  # a sum over a batch needs more digits
        values = ops.asarray(self.call(y_true, y_pred))
        own = mask_of(values)
        if own is not None:
            mask = own if mask is None else ops.logical_and(mask, own)
        return reduce_weighted(values, sample_weight, self.reduction, mask)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per example."""
        raise missing_method(self, "call(self, y_true, y_pred)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """An equal loss."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class LossFunctionWrapper(Loss):
    """A loss from a function `fn(y_true, y_pred, **settings)` that gives one value per example."""

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", "loss"), reduction, dtype)
        self.fn, self.settings = fn, settings

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred, **self.settings)

    def get_config(self) -> dict[str, Any]:
        own = {"fn": serialize(self.fn)} if type(self) is LossFunctionWrapper else {}
        return super().get_config() | own | self.settings

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """An equal loss."""
        return cls(**({**config, "fn": get(config["fn"])} if "fn" in config else config))


def float_targets(y_true: Any, y_pred: Any, subject: str) -> tuple[Any, Any]:
    """Targets and predictions in the predictions' dtype and of one rank.

    Integer predictions become float32. Raises ShapeError if the ranks differ.
    """
    y_pred, y_true = ops.asarray(y_pred), ops.asarray(y_true)
    if not y_pred.dtype.name.startswith(("float", "bfloat")):
        y_pred = ops.cast(y_pred, "float32")
    if y_true.dtype != y_pred.dtype:
        y_true = ops.cast(y_true, y_pred.dtype)
    y_true, y_pred = same_rank(y_true, y_pred)
    if len(y_true.shape) != len(y_pred.shape):
        raise ShapeError(
            subject,
            received=f"targets of shape {tuple(y_true.shape)}, "
            f"predictions of shape {tuple(y_pred.shape)}",
            expected="targets and predictions of one shape",
            fix="for class numbers take the sparse form of this loss or metric"
            if subject.startswith("categorical") and len(y_true.shape) < len(y_pred.shape)
            else "reshape the targets",
        )
    return y_true, y_pred


def integer_labels(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Class numbers, int32 or int64, with a class axis of size 1 beside the predictions' rank
    squeezed. Raises ShapeError for one-hot targets."""
    labels = ops.asarray(y_true)
    if labels.dtype != "int64" and labels.dtype != "int32":
        labels = ops.cast(labels, "int32")
    if len(labels.shape) == len(y_pred.shape) and labels.shape[axis] == 1:
        labels = ops.squeeze(labels, axis=axis)
    if tuple(labels.shape) == tuple(y_pred.shape) and len(labels.shape) > 1:
        raise ShapeError(
            "class numbers",
            received=f"targets of shape {tuple(y_true.shape)}, "
            f"predictions of shape {tuple(y_pred.shape)}",
            expected="one class number for each vector of predictions",
            fix='for one-hot targets take "categorical_crossentropy" or "categorical_accuracy", '
            "without sparse",
        )
    return labels
