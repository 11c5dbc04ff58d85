"""How often predictions are right: equal, on the right side, the likeliest class, among the k
likeliest."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras import losses
from graphnn.keras.metrics.base import MeanMetricWrapper, registry


def _aligned(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    return losses.same_rank(ops.asarray(y_true), ops.asarray(y_pred))


def _as_numbers(equal: Any) -> Any:
    return ops.cast(equal, "float32")


@registry.register()
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where prediction and target are equal, else 0.

    >>> accuracy([1, 2], [1, 3]).numpy().tolist()
    [1.0, 0.0]
    """
    y_true, y_pred = _aligned(y_true, y_pred)
    return _as_numbers(ops.cast(y_true, y_pred.dtype) == y_pred)


@registry.register()
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """1 where `y_pred > threshold` is the target, 0 or 1, else 0.

    >>> binary_accuracy([[1.0, 0.0]], [[0.7, 0.6]]).numpy().tolist()
    [[1.0, 0.0]]
    """
    y_true, y_pred = _aligned(y_true, y_pred)
    guess = ops.cast(y_pred > threshold, y_pred.dtype)
    return _as_numbers(ops.cast(y_true, y_pred.dtype) == guess)


@registry.register()
def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where target and prediction have their largest value at the same class, else 0.

    >>> categorical_accuracy([[0.0, 1.0]], [[0.2, 0.8]]).numpy().tolist()
    [1.0]
    """
    y_true, y_pred = ops.asarray(y_true), ops.asarray(y_pred)
    return _as_numbers(ops.argmax(y_true, axis=-1) == ops.argmax(y_pred, axis=-1))


@registry.register()
def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where the class number is that of the largest prediction, else 0.

    >>> sparse_categorical_accuracy([1, 0], [[0.2, 0.8], [0.2, 0.8]]).numpy().tolist()
    [1.0, 0.0]
    """
    y_pred = ops.asarray(y_pred)
    labels = ops.cast(losses.integer_labels(y_true, y_pred), "int64")
    return _as_numbers(labels == ops.argmax(y_pred, axis=-1))


def _among_best(labels: Any, y_pred: Any, k: int) -> Any:
    """Whether fewer than k classes are likelier than the label's; a NaN is never among the best."""
    own = ops.take_along_axis(y_pred, ops.expand_dims(labels, axis=-1), axis=-1)
    likelier = ops.count_nonzero(y_pred > own, axis=-1)
    return _as_numbers(ops.logical_and(likelier < k, ops.squeeze(own == own, axis=-1)))


@registry.register()
def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """1 where the target's class is among the k likeliest, ties included, else 0.

    y_true: one-hot, shape (..., classes). y_pred: the same shape. Returns: shape (...).

    >>> top_k_categorical_accuracy([[0, 0, 1]], [[0.5, 0.1, 0.4]], k=2).numpy().tolist()
    [1.0]
    """
    y_true, y_pred = ops.asarray(y_true), ops.asarray(y_pred)
    return _among_best(ops.argmax(y_true, axis=-1), y_pred, k)


@registry.register()
def sparse_top_k_categorical_accuracy(
    y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False
) -> Any:
    """1 where the class number is among the k likeliest, ties included, else 0.

    y_true: class numbers, shape (...). y_pred: shape (..., classes); with `from_sorted_ids` not
    probabilities but class numbers, the likeliest first. Returns: shape (...). Raises
    OutOfRangeError for a class number outside of the classes.

    >>> sparse_top_k_categorical_accuracy([2], [[0.5, 0.1, 0.4]], k=2).numpy().tolist()
    [1.0]
    """
    y_pred = ops.asarray(y_pred)
    labels = losses.integer_labels(y_true, y_pred)
    if not from_sorted_ids:
        return _among_best(labels, y_pred, k)
    own = ops.cast(ops.expand_dims(labels, axis=-1), y_pred.dtype)
    return _as_numbers(ops.any(own == y_pred[..., :k], axis=-1))


@registry.register()
class Accuracy(MeanMetricWrapper):
    """Share of predictions that equal their target.

    >>> float(Accuracy()([1, 2], [1, 3]))
    0.5
    """

    def __init__(self, name: str | None = "accuracy", dtype: Any = None) -> None:
        super().__init__(accuracy, name, dtype)


@registry.register()
class BinaryAccuracy(MeanMetricWrapper):
    """Share of predictions on the right side of a threshold.

    >>> float(BinaryAccuracy()([[1.0], [0.0]], [[0.7], [0.6]]))
    0.5
    """

    def __init__(
        self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5
    ) -> None:
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


@registry.register()
class CategoricalAccuracy(MeanMetricWrapper):
    """Share of examples whose likeliest class is that of the (one-hot) target.

    >>> float(CategoricalAccuracy()([[0.0, 1.0]], [[0.2, 0.8]]))
    1.0
    """

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


@registry.register()
class SparseCategoricalAccuracy(MeanMetricWrapper):
    """Share of examples whose likeliest class is the target class number.

    >>> float(SparseCategoricalAccuracy()([1, 0], [[0.2, 0.8], [0.2, 0.8]]))
    0.5
    """

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


@registry.register()
class TopKCategoricalAccuracy(MeanMetricWrapper):
    """Share of examples whose (one-hot) target is among the k likeliest classes.

    >>> float(TopKCategoricalAccuracy(k=2)([[0, 0, 1]], [[0.5, 0.1, 0.4]]))
    1.0
    """

    def __init__(
        self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None
    ) -> None:
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)


@registry.register()
class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """Share of examples whose target class number is among the k likeliest classes.

    >>> float(SparseTopKCategoricalAccuracy(k=2)([2, 1], [[0.5, 0.1, 0.4], [0.5, 0.1, 0.4]]))
    0.5
    """

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        sorted_ids = {"from_sorted_ids": True} if from_sorted_ids else {}
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, **sorted_ids)
