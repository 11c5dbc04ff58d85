"""Losses: functions giving one value per example, and classes that weight and reduce them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import nn, ops
from graphnn.keras.registry import Registry
from graphnn.runtime.errors import ArgumentError, ShapeError

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "LossFunctionWrapper",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "deserialize",
    "get",
    "mean_absolute_error",
    "mean_squared_error",
    "serialize",
    "sparse_categorical_crossentropy",
]

HALF = ("float16", "bfloat16")
EPSILON = 1e-7  # probabilities are kept this far from 0 and 1, as in Keras
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "none", "mean_with_sample_weight", "auto", None)

_registry = Registry("losses")
get, serialize, deserialize = _registry.get, _registry.serialize, _registry.deserialize


def same_rank(a: Any, b: Any) -> tuple[Any, Any]:
    """Two tensors, where their ranks differ by one with a trailing axis of size 1 squeezed from the
    first, or added to it to be like the second."""
    if len(a.shape) == len(b.shape) + 1 and a.shape[-1] == 1:
        return ops.squeeze(a, axis=-1), b
    if len(b.shape) == len(a.shape) + 1 and b.shape[-1] == 1:
        return ops.expand_dims(a, axis=-1), b
    return a, b


def weight_like(weight: Any, values: Any) -> Any:
    """Weights in the dtype of the values, reshaped so that they broadcast against them."""
    weight = ops.asarray(weight)
    weight = weight if weight.dtype == values.dtype else ops.cast(weight, values.dtype)
    weight, _ = same_rank(weight, values)
    missing = len(values.shape) - len(weight.shape)
    if missing > 0 and len(weight.shape):
        # One weight per example stands for all values of that example.
        weight = ops.expand_dims(weight, axis=tuple(range(-missing, 0)))
    return weight


def reduce_weighted(values: Any, sample_weight: Any = None, reduction: str | None = "mean") -> Any:
    """Values times weights, reduced.

    values: one per example, any shape. sample_weight: broadcasts against the values; a trailing
    axis of size 1 is squeezed or added. reduction: "sum_over_batch_size" or "mean" (divided by the
    number of values), "mean_with_sample_weight" (by the sum of weights), "sum", "none".
    """
    weight = None if sample_weight is None else weight_like(sample_weight, values)
    weighted = values if weight is None else values * weight
    if reduction in (None, "none"):
        return weighted
    if reduction == "sum":
        return ops.sum(weighted)
    if reduction == "mean_with_sample_weight" and weight is not None:
        return ops.sum(weighted) / ops.sum(ops.broadcast_to(weight, values.shape))
    return ops.mean(weighted)


class Loss:
    """Base of losses: subclasses define `call(y_true, y_pred)` giving one value per example.

    reduction: "sum_over_batch_size" (or "mean"), "sum", "mean_with_sample_weight", "none".
    Raises ArgumentError for others.
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
        self.name = name or type(self).__name__
        self.reduction = "sum_over_batch_size" if reduction == "auto" else reduction
        self.dtype = dtype

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss: a scalar, or one value per example without reduction.

        y_true, y_pred: targets and predictions, shapes as `call` takes them.
        sample_weight: optional weights, broadcast against the values per example.
        """
        y_pred, y_true = ops.asarray(y_pred), ops.asarray(y_true)
        if y_pred.dtype.name in HALF:
            y_pred = ops.cast(y_pred, "float32")  # a sum over a batch needs more digits
        return reduce_weighted(self.call(y_true, y_pred), sample_weight, self.reduction)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per example."""
        raise NotImplementedError(f"{type(self).__name__} does not define call")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """An equal loss."""
        return cls(**config)


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
        return super().get_config() | self.settings


def _float_targets(y_true: Any, y_pred: Any, subject: str) -> tuple[Any, Any]:
    y_pred, y_true = ops.asarray(y_pred), ops.asarray(y_true)
    if y_true.dtype != y_pred.dtype:
        y_true = ops.cast(y_true, y_pred.dtype)
    y_true, y_pred = same_rank(y_true, y_pred)
    if len(y_true.shape) != len(y_pred.shape):
        raise ShapeError(
            subject,
            received=f"targets of shape {tuple(y_true.shape)}, "
            f"predictions of shape {tuple(y_pred.shape)}",
            expected="targets and predictions of one shape",
            fix="reshape the targets",
        )
    return y_true, y_pred


@_registry.register("mse", "MSE")
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """`mean((y_true - y_pred) ** 2)` over the last axis.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> float(mean_squared_error([[0.0, 1.0]], [[1.0, 3.0]])[0])
    2.5
    """
    y_true, y_pred = _float_targets(y_true, y_pred, "mean_squared_error")
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


@_registry.register("mae", "MAE")
def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """`mean(|y_true - y_pred|)` over the last axis.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> float(mean_absolute_error([[0.0, 1.0]], [[1.0, 3.0]])[0])
    1.5
    """
    y_true, y_pred = _float_targets(y_true, y_pred, "mean_absolute_error")
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def integer_labels(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Class numbers, int32 or int64, with a trailing axis of size 1 beside the predictions' rank
    squeezed."""
    labels = ops.asarray(y_true)
    if labels.dtype != "int64" and labels.dtype != "int32":
        labels = ops.cast(labels, "int32")
    if len(labels.shape) == len(y_pred.shape) and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    return labels


@_registry.register()
def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """`-log(p[y_true])` of integer labels.

    y_true: class numbers, shape (...) or (..., 1). y_pred: shape (..., classes): probabilities, or
    with `from_logits` unscaled log-probabilities. ignore_class: a label whose examples give 0.
    Returns: shape (...). Raises OutOfRangeError for a label outside the classes.

    >>> round(float(sparse_categorical_crossentropy([1], [[0.5, 0.25, 0.25]])[0]), 4)
    1.3863
    """
    y_pred = ops.asarray(y_pred)
    if axis not in (-1, len(y_pred.shape) - 1):
        y_pred = ops.moveaxis(y_pred, axis, -1)
    labels = integer_labels(y_true, y_pred)
    ignored = None
    if ignore_class is not None:
        ignored = labels == ignore_class
        labels = ops.where(ignored, ops.zeros_like(labels), labels)
    # The logarithm of (clipped) probabilities is a valid set of logits.
    logits = y_pred if from_logits else ops.log(ops.clip(y_pred, EPSILON, 1.0 - EPSILON))
    loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return loss if ignored is None else ops.where(ignored, ops.zeros_like(loss), loss)


def _smoothed(y_true: Any, smoothing: float, classes: Any) -> Any:
    return y_true * (1.0 - smoothing) + smoothing / classes if smoothing else y_true


@_registry.register()
def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`-sum(y_true * log(p))` of probability targets.

    y_true, y_pred: shape (..., classes); y_pred are probabilities (rescaled to sum to 1), or with
    `from_logits` unscaled log-probabilities. label_smoothing: 0 to 1, weight of the uniform
    distribution mixed into y_true. Returns: shape (...).

    >>> round(float(categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])[0]), 4)
    0.6931
    """
    y_true, y_pred = _float_targets(y_true, y_pred, "categorical_crossentropy")
    if axis not in (-1, len(y_pred.shape) - 1):
        y_true, y_pred = ops.moveaxis(y_true, axis, -1), ops.moveaxis(y_pred, axis, -1)
    y_true = _smoothed(y_true, label_smoothing, y_pred.shape[-1])
    if from_logits:
        return nn.softmax_cross_entropy_with_logits(labels=y_true, logits=y_pred)
    scaled = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
    return -ops.sum(y_true * ops.log(ops.clip(scaled, EPSILON, 1.0 - EPSILON)), axis=-1)


@_registry.register()
def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`mean(-y log(p) - (1 - y) log(1 - p))` over an axis, the last by default.

    y_true, y_pred: shape (..., d); y_pred are probabilities, or with `from_logits` log-odds.
    Returns: shape (...).

    >>> round(float(binary_crossentropy([[1.0]], [[0.5]])[0]), 4)
    0.6931
    """
    y_true, y_pred = _float_targets(y_true, y_pred, "binary_crossentropy")
    y_true = _smoothed(y_true, label_smoothing, 2.0)
    if from_logits:
        loss = nn.sigmoid_cross_entropy_with_logits(labels=y_true, logits=y_pred)
    else:
        p = ops.clip(y_pred, EPSILON, 1.0 - EPSILON)
        loss = -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))
    return ops.mean(loss, axis=axis)


@_registry.register()
class MeanSquaredError(LossFunctionWrapper):
    """Mean of squared differences.

    >>> float(MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]]))
    2.5
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_squared_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


@_registry.register()
class MeanAbsoluteError(LossFunctionWrapper):
    """Mean of absolute differences.

    >>> float(MeanAbsoluteError()([[0.0, 1.0]], [[1.0, 3.0]]))
    1.5
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


@_registry.register()
class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Crossentropy between integer labels and predictions.

    y_true: class numbers, shape (batch, ...). y_pred: shape (batch, ..., classes).

    >>> loss = SparseCategoricalCrossentropy(from_logits=True)
    >>> round(float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]])), 4)
    0.6931
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **settings)


@_registry.register()
class CategoricalCrossentropy(LossFunctionWrapper):
    """Crossentropy between probability targets (for example one-hot) and predictions.

    y_true, y_pred: shape (batch, ..., classes).

    >>> round(float(CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])), 4)
    0.6931
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **settings)


@_registry.register()
class BinaryCrossentropy(LossFunctionWrapper):
    """Crossentropy between 0/1 targets and probabilities or log-odds.

    y_true, y_pred: shape (batch, ..., d).

    >>> round(float(BinaryCrossentropy()([[1.0]], [[0.5]])), 4)
    0.6931
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **settings)
