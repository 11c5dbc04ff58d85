"""Means of losses and of correlations, as metrics."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras import losses
from graphnn.keras.losses.base import EPSILON, float_targets
from graphnn.keras.losses.regression import normalized
from graphnn.keras.metrics.base import Mean, MeanMetricWrapper, registry


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Cosine of the angle between targets and predictions: 1 where they point the same way.

    >>> round(float(cosine_similarity([[0.0, 2.0]], [[1.0, 1.0]])[0]), 4)
    0.7071
    """
    y_true, y_pred = float_targets(y_true, y_pred, "cosine_similarity")
    return ops.sum(normalized(y_true, axis) * normalized(y_pred, axis), axis=axis)


@registry.register()
def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Correlation of targets and predictions along an axis, -1 to 1; NaN where one is constant.

    >>> round(float(pearson_correlation([[0.0, 1.0, 2.0]], [[5.0, 3.0, 1.0]])[0]), 4)
    -1.0
    """
    y_true, y_pred = float_targets(y_true, y_pred, "pearson_correlation")
    a, b = (y - ops.mean(y, axis=axis, keepdims=True) for y in (y_true, y_pred))
    spread = ops.mean(ops.square(a), axis=axis) * ops.mean(ops.square(b), axis=axis)
    return ops.mean(a * b, axis=axis) / ops.sqrt(spread)


@registry.register()
def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """`2 * cov / (var_true + var_pred + (mean_true - mean_pred) ** 2)` along an axis (Lin, 1989).

    >>> round(float(concordance_correlation([[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]])[0]), 4)
    1.0
    """
    y_true, y_pred = float_targets(y_true, y_pred, "concordance_correlation")
    means = [ops.mean(y, axis=axis, keepdims=True) for y in (y_true, y_pred)]
    a, b = y_true - means[0], y_pred - means[1]
    spread = ops.mean(ops.square(a), axis=axis) + ops.mean(ops.square(b), axis=axis)
    apart = ops.squeeze(ops.square(means[0] - means[1]), axis=axis)
    return 2.0 * ops.mean(a * b, axis=axis) / (spread + apart + EPSILON)


@registry.register()
class RootMeanSquaredError(Mean):
    """Square root of the mean of squared differences.

    >>> float(RootMeanSquaredError()([[0.0, 1.0]], [[1.0, 8.0]]))
    5.0
    """

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def update_state(  # type: ignore[override]
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        y_true, y_pred = float_targets(y_true, y_pred, self.name)
        super().update_state(ops.square(y_pred - y_true), sample_weight)

    def result(self) -> Any:
        return ops.sqrt(super().result())


@registry.register()
class MeanSquaredError(MeanMetricWrapper):
    """Mean of squared differences.

    >>> round(float(MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]])), 4)
    2.5
    """

    def __init__(self, name: str | None = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_squared_error, name, dtype)


@registry.register()
class MeanAbsoluteError(MeanMetricWrapper):
    """Mean of absolute differences.

    >>> round(float(MeanAbsoluteError()([[0.0, 1.0]], [[1.0, 3.0]])), 4)
    1.5
    """

    def __init__(self, name: str | None = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_absolute_error, name, dtype)


@registry.register()
class MeanAbsolutePercentageError(MeanMetricWrapper):
    """Mean of absolute differences in percent of the targets.

    >>> round(float(MeanAbsolutePercentageError()([[2.0, 4.0]], [[1.0, 4.0]])), 4)
    25.0
    """

    def __init__(
        self, name: str | None = "mean_absolute_percentage_error", dtype: Any = None
    ) -> None:
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


@registry.register()
class MeanSquaredLogarithmicError(MeanMetricWrapper):
    """Mean of squared differences of `log(1 + y)`.

    >>> round(float(MeanSquaredLogarithmicError()([[0.0]], [[1.0]])), 4)
    0.4805
    """

    def __init__(
        self, name: str | None = "mean_squared_logarithmic_error", dtype: Any = None
    ) -> None:
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


@registry.register()
class LogCoshError(MeanMetricWrapper):
    """Mean of the logarithm of the hyperbolic cosine of differences.

    >>> round(float(LogCoshError()([[0.0]], [[1.0]])), 4)
    0.4338
    """

    def __init__(self, name: str | None = "logcosh", dtype: Any = None) -> None:
        super().__init__(losses.log_cosh, name, dtype)


@registry.register()
class CosineSimilarity(MeanMetricWrapper):
    """Mean cosine of the angle between targets and predictions: 1 where they point the same way.

    >>> round(float(CosineSimilarity()([[0.0, 2.0]], [[1.0, 1.0]])), 4)
    0.7071
    """

    def __init__(
        self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1
    ) -> None:
        super().__init__(cosine_similarity, name, dtype, axis=axis)


@registry.register()
class Hinge(MeanMetricWrapper):
    """Mean of `max(1 - y_true * y_pred, 0)`.

    >>> round(float(Hinge()([[-1.0, 1.0]], [[0.5, 0.5]])), 4)
    1.0
    """

    def __init__(self, name: str | None = "hinge", dtype: Any = None) -> None:
        super().__init__(losses.hinge, name, dtype)


@registry.register()
class SquaredHinge(MeanMetricWrapper):
    """Mean of `max(1 - y_true * y_pred, 0) ** 2`.

    >>> round(float(SquaredHinge()([[-1.0, 1.0]], [[0.5, 0.5]])), 4)
    1.25
    """

    def __init__(self, name: str | None = "squared_hinge", dtype: Any = None) -> None:
        super().__init__(losses.squared_hinge, name, dtype)


@registry.register()
class CategoricalHinge(MeanMetricWrapper):
    """Mean of how far the right class is from leading by 1.

    >>> round(float(CategoricalHinge()([[0.0, 1.0]], [[0.6, 0.4]])), 4)
    1.2
    """

    def __init__(self, name: str | None = "categorical_hinge", dtype: Any = None) -> None:
        super().__init__(losses.categorical_hinge, name, dtype)


@registry.register()
class KLDivergence(MeanMetricWrapper):
    """Mean of `sum(y_true * log(y_true / y_pred))`.

    >>> round(float(KLDivergence()([[1.0, 0.0]], [[0.5, 0.5]])), 4)
    0.6931
    """

    def __init__(self, name: str | None = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(losses.kl_divergence, name, dtype)


@registry.register()
class Poisson(MeanMetricWrapper):
    """Mean of `y_pred - y_true * log(y_pred)`.

    >>> round(float(Poisson()([[0.0]], [[1.0]])), 4)
    1.0
    """

    def __init__(self, name: str | None = "poisson", dtype: Any = None) -> None:
        super().__init__(losses.poisson, name, dtype)


@registry.register()
class BinaryCrossentropy(MeanMetricWrapper):
    """Mean crossentropy of 0/1 targets.

    >>> round(float(BinaryCrossentropy()([[1.0]], [[0.5]])), 4)
    0.6931
    """

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            losses.binary_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
        )


@registry.register()
class CategoricalCrossentropy(MeanMetricWrapper):
    """Mean crossentropy of probability targets.

    >>> round(float(CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])), 4)
    0.6931
    """

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(
            losses.categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


@registry.register()
class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """Mean crossentropy of class numbers.

    >>> round(float(SparseCategoricalCrossentropy()([1], [[0.5, 0.5]])), 4)
    0.6931
    """

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(
            losses.sparse_categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )


@registry.register()
class PearsonCorrelation(MeanMetricWrapper):
    """Mean correlation of targets and predictions, -1 to 1.

    >>> round(float(PearsonCorrelation()([[0.0, 1.0, 2.0]], [[1.0, 3.0, 5.0]])), 4)
    1.0
    """

    def __init__(
        self, name: str | None = "pearson_correlation", dtype: Any = None, axis: int = -1
    ) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)


@registry.register()
class ConcordanceCorrelation(MeanMetricWrapper):
    """Mean concordance of targets and predictions: correlation that also asks for equal means and
    spreads, -1 to 1.

    >>> round(float(ConcordanceCorrelation()([[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]])), 4)
    1.0
    """

    def __init__(
        self, name: str | None = "concordance_correlation", dtype: Any = None, axis: int = -1
    ) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)


for _class, _aliases in (
    (MeanSquaredError, ("mse", "MSE")),
    (MeanAbsoluteError, ("mae", "MAE")),
    (MeanAbsolutePercentageError, ("mape", "MAPE")),
    (MeanSquaredLogarithmicError, ("msle", "MSLE")),
    (BinaryCrossentropy, ("bce", "BCE")),
    (KLDivergence, ("kld", "KLD")),
    (LogCoshError, ("log_cosh",)),
):
    for _alias in _aliases:
        registry.alias(_alias, _class)
registry.alias("huber", losses.huber)
