"""Losses between probability distributions: crossentropies, focal ones, KL divergence, Poisson."""

from __future__ import annotations

from typing import Any

from graphnn import nn, ops
from graphnn.keras.losses.base import (
    EPSILON,
    LossFunctionWrapper,
    float_targets,
    integer_labels,
    registry,
)
from graphnn.keras.masks import set_mask
from graphnn.runtime.errors import ArgumentError

REDUCED = "sum_over_batch_size"


def _inside(p: Any) -> Any:
    """Probabilities kept away from 0 and 1, so that their logarithms are finite."""
    return ops.clip(p, EPSILON, 1.0 - EPSILON)


def _shares(p: Any) -> Any:
    """Values over their sum along the last axis, kept away from 0 and 1."""
    return _inside(p / ops.sum(p, axis=-1, keepdims=True))


def _class_axis_last(x: Any, axis: int) -> Any:
    return x if axis in (-1, len(x.shape) - 1) else ops.moveaxis(x, axis, -1)


def _smoothed(y_true: Any, smoothing: float, classes: Any) -> Any:
    return y_true * (1.0 - smoothing) + smoothing / classes if smoothing else y_true


@registry.register()
def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """`-log(p[y_true])` of integer labels.

    y_true: class numbers, shape (...) or (..., 1). y_pred: shape (..., classes): probabilities
    (rescaled to sum to 1), or with `from_logits` unscaled log-probabilities; axis: that of the
    classes. ignore_class: a label whose examples give 0 and do not count in a mean.
    Returns: shape (...). Raises OutOfRangeError for a label outside the classes.

    >>> round(float(sparse_categorical_crossentropy([1], [[0.5, 0.25, 0.25]])[0]), 4)
    1.3863
    """
    y_pred = ops.asarray(y_pred)
    labels = integer_labels(y_true, y_pred, axis)
    y_pred = _class_axis_last(y_pred, axis)
    ignored = None
    if ignore_class is not None:
        ignored = labels == ignore_class
        labels = ops.where(ignored, ops.zeros_like(labels), labels)
    # The logarithm of probabilities is a valid set of logits.
    logits = y_pred if from_logits else ops.log(_shares(y_pred))
    loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if ignored is None:
        return loss
    loss = ops.where(ignored, ops.zeros_like(loss), loss)
    set_mask(loss, ops.logical_not(ignored))
    return loss


@registry.register()
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
    distribution mixed into y_true. axis: that of the classes. Returns: the shape without it.

    >>> round(float(categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])[0]), 4)
    0.6931
    """
    y_true, y_pred = float_targets(y_true, y_pred, "categorical_crossentropy")
    y_true, y_pred = _class_axis_last(y_true, axis), _class_axis_last(y_pred, axis)
    y_true = _smoothed(y_true, label_smoothing, y_pred.shape[-1])
    if from_logits:
        return nn.softmax_cross_entropy_with_logits(labels=y_true, logits=y_pred)
    return -ops.sum(y_true * ops.log(_shares(y_pred)), axis=-1)


@registry.register()
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`-sum(alpha * (1 - p) ** gamma * y_true * log(p))`: examples that are right count little.

    Arguments as `categorical_crossentropy`; alpha: one weight or one per class (Lin et al., Focal
    Loss for Dense Object Detection, 2017). Returns: the shape without the class axis.

    >>> round(float(categorical_focal_crossentropy([[0.0, 1.0]], [[0.5, 0.5]], alpha=1.0)[0]), 4)
    0.1733
    """
    y_true, y_pred = float_targets(y_true, y_pred, "categorical_focal_crossentropy")
    y_true, y_pred = _class_axis_last(y_true, axis), _class_axis_last(y_pred, axis)
    y_true = _smoothed(y_true, label_smoothing, y_pred.shape[-1])
    p = _shares(nn.softmax(y_pred) if from_logits else y_pred)
    return -ops.sum(ops.power(1.0 - p, gamma) * alpha * y_true * ops.log(p), axis=-1)


def _bits_of(y_true: Any, y_pred: Any, label_smoothing: float, subject: str) -> tuple[Any, Any]:
    y_true, y_pred = float_targets(y_true, y_pred, subject)
    return _smoothed(y_true, label_smoothing, 2.0), y_pred


def _binary(y_true: Any, p: Any) -> Any:
    p = _inside(p)
    return -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))


@registry.register("bce", "BCE")
def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`mean(-y log(p) - (1 - y) log(1 - p))` over an axis, the last by default.

    y_true, y_pred: shape (..., d); y_pred are probabilities, or with `from_logits` log-odds.
    label_smoothing: 0 to 1, how far targets are moved to one half. Returns: shape (...).

    >>> round(float(binary_crossentropy([[1.0]], [[0.5]])[0]), 4)
    0.6931
    """
    y_true, y_pred = _bits_of(y_true, y_pred, label_smoothing, "binary_crossentropy")
    if from_logits:
        loss = nn.sigmoid_cross_entropy_with_logits(labels=y_true, logits=y_pred)
    else:
        loss = _binary(y_true, y_pred)
    return ops.mean(loss, axis=axis)


@registry.register()
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Binary crossentropy times `(1 - p of the right side) ** gamma`, mean over an axis.

    Arguments as `binary_crossentropy`. apply_class_balancing: weigh targets of 1 with alpha, those
    of 0 with 1 - alpha (Lin et al., Focal Loss for Dense Object Detection, 2017).

    >>> round(float(binary_focal_crossentropy([[1.0]], [[0.5]])[0]), 4)
    0.1733
    """
    y_true, y_pred = _bits_of(y_true, y_pred, label_smoothing, "binary_focal_crossentropy")
    p = nn.sigmoid(y_pred) if from_logits else y_pred
    right = y_true * p + (1.0 - y_true) * (1.0 - p)
    loss = ops.power(1.0 - right, gamma) * _binary(y_true, p)
    if apply_class_balancing:
        loss = loss * (y_true * alpha + (1.0 - y_true) * (1.0 - alpha))
    return ops.mean(loss, axis=axis)


@registry.register()
def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Any:
    """`(1 - p[y_true] ** q) / q` of integer labels: robust against wrong ones.

    y_true: class numbers, shape (...). y_pred: probabilities, shape (..., classes). q: 0 to 1; near
    0 it is crossentropy, at 1 the absolute error (Zhang and Sabuncu, 2018). Returns: shape (...).

    >>> categorical_generalized_cross_entropy([1], [[0.75, 0.25]], q=0.5).numpy().tolist()
    [1.0]
    """
    y_pred = ops.asarray(y_pred)
    labels = integer_labels(y_true, y_pred)
    hot = ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
    return (1.0 - ops.power(ops.sum(y_pred * hot, axis=-1), q)) / q


@registry.register("kld", "KLD", "kullback_leibler_divergence")
def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """`sum(y_true * log(y_true / y_pred))` over the last axis; both are kept in 1e-7 to 1.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> round(float(kl_divergence([[1.0, 0.0]], [[0.5, 0.5]])[0]), 4)
    0.6931
    """
    y_true, y_pred = float_targets(y_true, y_pred, "kl_divergence")
    y_true, y_pred = ops.clip(y_true, EPSILON, 1.0), ops.clip(y_pred, EPSILON, 1.0)
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


@registry.register()
def poisson(y_true: Any, y_pred: Any) -> Any:
    """`mean(y_pred - y_true * log(y_pred + 1e-7))` over the last axis.

    y_true: counts, shape (..., d). y_pred: expected counts, the same shape. Returns: shape (...).

    >>> float(poisson([[2.0]], [[1.0]])[0])
    0.9999997615814209
    """
    y_true, y_pred = float_targets(y_true, y_pred, "poisson")
    return ops.mean(y_pred - y_true * ops.log(y_pred + EPSILON), axis=-1)


@registry.register()
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
        reduction: str | None = REDUCED,
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **settings)


@registry.register()
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
        reduction: str | None = REDUCED,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **settings)


@registry.register()
class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """Crossentropy in which examples that are right count little.

    >>> round(float(CategoricalFocalCrossentropy(alpha=1.0)([[0.0, 1.0]], [[0.5, 0.5]])), 4)
    0.1733
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = REDUCED,
        name: str | None = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings: dict[str, Any] = {
            "alpha": alpha,
            "gamma": gamma,
            "from_logits": from_logits,
            "label_smoothing": label_smoothing,
            "axis": axis,
        }
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, **settings)


@registry.register()
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
        reduction: str | None = REDUCED,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **settings)


@registry.register()
class BinaryFocalCrossentropy(LossFunctionWrapper):
    """Binary crossentropy in which examples that are right count little.

    >>> round(float(BinaryFocalCrossentropy()([[1.0]], [[0.5]])), 4)
    0.1733
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = REDUCED,
        name: str | None = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        settings: dict[str, Any] = {
            "apply_class_balancing": apply_class_balancing,
            "alpha": alpha,
            "gamma": gamma,
            "from_logits": from_logits,
            "label_smoothing": label_smoothing,
            "axis": axis,
        }
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **settings)


@registry.register()
class CategoricalGeneralizedCrossEntropy(LossFunctionWrapper):
    """`(1 - p ** q) / q` of the right class: robust against wrong labels.

    q: above 0, below 1; near 0 it is crossentropy.

    >>> float(CategoricalGeneralizedCrossEntropy()([1], [[0.75, 0.25]]))
    1.0
    """

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = REDUCED,
        name: str | None = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0 < q < 1:
            raise ArgumentError(
                "CategoricalGeneralizedCrossEntropy",
                received=f"q={q}",
                expected="a number above 0 and below 1",
                fix="0.5 is usual; for 0 use SparseCategoricalCrossentropy",
            )
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


@registry.register()
class KLDivergence(LossFunctionWrapper):
    """Mean of `sum(y_true * log(y_true / y_pred))`.

    >>> round(float(KLDivergence()([[1.0, 0.0]], [[0.5, 0.5]])), 4)
    0.6931
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "kl_divergence",
        dtype: Any = None,
    ) -> None:
        super().__init__(kl_divergence, reduction, name, dtype)


@registry.register()
class Poisson(LossFunctionWrapper):
    """Mean of `y_pred - y_true * log(y_pred)`: the loss of counts.

    >>> float(Poisson()([[0.0]], [[1.0]]))
    1.0
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "poisson",
        dtype: Any = None,
    ) -> None:
        super().__init__(poisson, reduction, name, dtype)
