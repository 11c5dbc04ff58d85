"""Losses of margins and of overlaps: hinge, squared, categorical; Dice and Tversky."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras.losses.base import EPSILON, LossFunctionWrapper, float_targets, registry

REDUCED = "sum_over_batch_size"


def _signs(y_true: Any) -> Any:
    """Targets of 0 and 1 as -1 and 1; others as they are."""
    are_bits = ops.all(ops.logical_or(y_true == 0, y_true == 1))
    return ops.where(are_bits, 2.0 * y_true - 1.0, y_true)


@registry.register()
def hinge(y_true: Any, y_pred: Any) -> Any:
    """`mean(max(1 - y_true * y_pred, 0))` over the last axis.

    y_true: -1 and 1, or 0 and 1, shape (..., d). y_pred: the same shape. Returns: shape (...).

    >>> float(hinge([[-1.0, 1.0]], [[0.5, 0.5]])[0])
    1.0
    """
    y_true, y_pred = float_targets(y_true, y_pred, "hinge")
    return ops.mean(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0), axis=-1)


@registry.register()
def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """`mean(max(1 - y_true * y_pred, 0) ** 2)` over the last axis.

    y_true: -1 and 1, or 0 and 1, shape (..., d). y_pred: the same shape. Returns: shape (...).

    >>> float(squared_hinge([[-1.0, 1.0]], [[0.5, 0.5]])[0])
    1.25
    """
    y_true, y_pred = float_targets(y_true, y_pred, "squared_hinge")
    return ops.mean(ops.square(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0)), axis=-1)


@registry.register()
def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """`max(best of the wrong classes - prediction of the right one + 1, 0)`.

    y_true: one-hot, shape (..., classes). y_pred: the same shape. Returns: shape (...).

    >>> round(float(categorical_hinge([[0.0, 1.0]], [[0.6, 0.4]])[0]), 4)
    1.2
    """
    y_true, y_pred = float_targets(y_true, y_pred, "categorical_hinge")
    right = ops.sum(y_true * y_pred, axis=-1)
    wrong = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - right + 1.0, 0.0)


@registry.register()
def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """`1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred))` over axes, all by default.

    y_true, y_pred: shares from 0 to 1, one shape. Returns: the shape without these axes.

    >>> round(float(dice([[1.0, 0.0]], [[1.0, 1.0]])), 4)
    0.3333
    """
    y_true, y_pred = float_targets(y_true, y_pred, "dice")
    both = ops.sum(y_true * y_pred, axis=axis)
    return 1.0 - 2.0 * both / (ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis) + EPSILON)


@registry.register()
def tversky(
    y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None
) -> Any:
    """`1 - both / (both + alpha * missed + beta * surplus)` over axes, all by default.

    With both = sum(y_true * y_pred), missed = sum(y_true * (1 - y_pred)), surplus =
    sum((1 - y_true) * y_pred); alpha = beta = 0.5 is Dice (Salehi et al., 2017). Alpha weighs what
    Keras weighs with it.

    y_true, y_pred: shares from 0 to 1, one shape. Returns: the shape without these axes.

    >>> round(float(tversky([[1.0, 0.0]], [[1.0, 1.0]], beta=1.0)), 4)
    0.5
    """
    y_true, y_pred = float_targets(y_true, y_pred, "tversky")
    both = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum(y_true * (1.0 - y_pred), axis=axis)
    surplus = ops.sum((1.0 - y_true) * y_pred, axis=axis)
    return 1.0 - both / (both + missed * alpha + surplus * beta + EPSILON)


@registry.register()
class Hinge(LossFunctionWrapper):
    """Mean of `max(1 - y_true * y_pred, 0)`; targets are -1 and 1, or 0 and 1.

    >>> float(Hinge()([[-1.0, 1.0]], [[0.5, 0.5]]))
    1.0
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "hinge",
        dtype: Any = None,
    ) -> None:
        super().__init__(hinge, reduction, name, dtype)


@registry.register()
class SquaredHinge(LossFunctionWrapper):
    """Mean of `max(1 - y_true * y_pred, 0) ** 2`; targets are -1 and 1, or 0 and 1.

    >>> float(SquaredHinge()([[-1.0, 1.0]], [[0.5, 0.5]]))
    1.25
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "squared_hinge",
        dtype: Any = None,
    ) -> None:
        super().__init__(squared_hinge, reduction, name, dtype)


@registry.register()
class CategoricalHinge(LossFunctionWrapper):
    """Mean of how far the right class is from leading by 1; targets are one-hot.

    >>> round(float(CategoricalHinge()([[0.0, 1.0]], [[0.6, 0.4]])), 4)
    1.2
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "categorical_hinge",
        dtype: Any = None,
    ) -> None:
        super().__init__(categorical_hinge, reduction, name, dtype)


@registry.register()
class Dice(LossFunctionWrapper):
    """1 minus the Dice overlap of two masks, of all values together or along axes.

    >>> round(float(Dice()([[1.0, 0.0]], [[1.0, 1.0]])), 4)
    0.3333
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "dice",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(dice, reduction, name, dtype, axis=axis)


@registry.register()
class Tversky(LossFunctionWrapper):
    """1 minus the Tversky overlap of two masks, of all values together or along axes.

    >>> round(float(Tversky(beta=1.0)([[1.0, 0.0]], [[1.0, 1.0]])), 4)
    0.5
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = REDUCED,
        name: str | None = "tversky",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)
