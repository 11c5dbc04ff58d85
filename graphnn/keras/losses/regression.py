"""Losses between real targets and predictions: squared, absolute, relative, robust, by angle."""

from __future__ import annotations

from math import log
from typing import Any

from graphnn import nn, ops
from graphnn.keras.losses.base import EPSILON, LossFunctionWrapper, float_targets, registry

REDUCED = "sum_over_batch_size"


@registry.register("mse", "MSE")
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """`mean((y_true - y_pred) ** 2)` over the last axis.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> float(mean_squared_error([[0.0, 1.0]], [[1.0, 3.0]])[0])
    2.5
    """
    y_true, y_pred = float_targets(y_true, y_pred, "mean_squared_error")
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


@registry.register("mae", "MAE")
def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """`mean(|y_true - y_pred|)` over the last axis.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> float(mean_absolute_error([[0.0, 1.0]], [[1.0, 3.0]])[0])
    1.5
    """
    y_true, y_pred = float_targets(y_true, y_pred, "mean_absolute_error")
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@registry.register("mape", "MAPE")
def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """`100 * mean(|y_true - y_pred| / |y_true|)` over the last axis; `|y_true|` is at least 1e-7.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> float(mean_absolute_percentage_error([[2.0, 4.0]], [[1.0, 4.0]])[0])
    25.0
    """
    y_true, y_pred = float_targets(y_true, y_pred, "mean_absolute_percentage_error")
    share = ops.abs((y_true - y_pred) / ops.maximum(ops.abs(y_true), EPSILON))
    return 100.0 * ops.mean(share, axis=-1)


@registry.register("msle", "MSLE")
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """`mean((log(1 + y_true) - log(1 + y_pred)) ** 2)` over the last axis; both are taken as at
    least 1e-7.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> round(float(mean_squared_logarithmic_error([[0.0]], [[1.0]])[0]), 4)
    0.4805
    """
    y_true, y_pred = float_targets(y_true, y_pred, "mean_squared_logarithmic_error")
    logs = [ops.log(ops.maximum(y, EPSILON) + 1.0) for y in (y_pred, y_true)]
    return ops.mean(ops.square(logs[0] - logs[1]), axis=-1)


@registry.register()
def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Half the squared error up to `delta`, straight beyond it; mean over the last axis.

    With e = |y_true - y_pred|: `e ** 2 / 2` where e <= delta, else `delta * e - delta ** 2 / 2`
    (Huber, Robust Estimation of a Location Parameter, 1964).

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> float(huber([[0.0, 0.0]], [[1.0, 3.0]])[0])
    1.5
    """
    y_true, y_pred = float_targets(y_true, y_pred, "huber")
    error = ops.abs(y_pred - y_true)
    straight = delta * error - 0.5 * delta * delta
    return ops.mean(ops.where(error <= delta, 0.5 * ops.square(error), straight), axis=-1)


@registry.register("logcosh")
def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """`mean(log(cosh(y_pred - y_true)))` over the last axis, without overflow.

    y_true, y_pred: shape (..., d). Returns: shape (...).

    >>> round(float(log_cosh([[0.0]], [[1.0]])[0]), 4)
    0.4338
    """
    y_true, y_pred = float_targets(y_true, y_pred, "log_cosh")
    error = y_pred - y_true
    # log(cosh(x)) = x + log(1 + exp(-2 x)) - log(2)
    return ops.mean(error + nn.softplus(error * -2.0) - log(2.0), axis=-1)


def normalized(x: Any, axis: int = -1) -> Any:
    """x over its Euclidean norm along an axis, the norm taken as at least 1e-7."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), EPSILON**2))


@registry.register()
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Minus the cosine of the angle between targets and predictions: -1 where they point the same
    way, 0 where one of them is zero.

    y_true, y_pred: shape (..., d). axis: that of the vectors. Returns: the shape without it.

    >>> round(float(cosine_similarity([[0.0, 2.0]], [[1.0, 1.0]])[0]), 4)
    -0.7071
    """
    y_true, y_pred = float_targets(y_true, y_pred, "cosine_similarity")
    return -ops.sum(normalized(y_true, axis) * normalized(y_pred, axis), axis=axis)


@registry.register()
class MeanSquaredError(LossFunctionWrapper):
    """Mean of squared differences.

    >>> float(MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]]))
    2.5
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "mean_squared_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


@registry.register()
class MeanAbsoluteError(LossFunctionWrapper):
    """Mean of absolute differences.

    >>> float(MeanAbsoluteError()([[0.0, 1.0]], [[1.0, 3.0]]))
    1.5
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "mean_absolute_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


@registry.register()
class MeanAbsolutePercentageError(LossFunctionWrapper):
    """Mean of absolute differences in percent of the targets.

    >>> float(MeanAbsolutePercentageError()([[2.0, 4.0]], [[1.0, 4.0]]))
    25.0
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "mean_absolute_percentage_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


@registry.register()
class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """Mean of squared differences of `log(1 + y)`.

    >>> round(float(MeanSquaredLogarithmicError()([[0.0]], [[1.0]])), 4)
    0.4805
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "mean_squared_logarithmic_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


@registry.register()
class Huber(LossFunctionWrapper):
    """Squared up to `delta`, straight beyond it: outliers pull less than in a squared loss.

    >>> float(Huber()([[0.0, 0.0]], [[1.0, 3.0]]))
    1.5
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = REDUCED,
        name: str | None = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)


@registry.register()
class LogCosh(LossFunctionWrapper):
    """Mean of the logarithm of the hyperbolic cosine of differences.

    >>> round(float(LogCosh()([[0.0]], [[1.0]])), 4)
    0.4338
    """

    def __init__(
        self,
        reduction: str | None = REDUCED,
        name: str | None = "log_cosh",
        dtype: Any = None,
    ) -> None:
        super().__init__(log_cosh, reduction, name, dtype)


@registry.register()
class CosineSimilarity(LossFunctionWrapper):
    """Minus the mean cosine of the angle between targets and predictions, -1 to 1.

    >>> round(float(CosineSimilarity()([[0.0, 2.0]], [[1.0, 1.0]])), 4)
    -0.7071
    """

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = REDUCED,
        name: str | None = "cosine_similarity",
        dtype: Any = None,
    ) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)
