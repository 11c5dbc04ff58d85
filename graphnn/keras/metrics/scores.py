"""F scores, the coefficient of determination, and overlaps of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn import ops
from graphnn.compiler.ir.types import is_float
from graphnn.keras.losses.base import EPSILON, float_targets, weight_like
from graphnn.keras.metrics.base import Metric, ratio, registry
from graphnn.keras.shapes import count_of
from graphnn.runtime.errors import ArgumentError, ShapeError


def _width(subject: str, *tensors: Any) -> int:
    """The known last size of tensors (examples, outputs). Raises ShapeError for other shapes."""
    if all(len(t.shape) == 2 and isinstance(t.shape[-1], int) for t in tensors):
        return int(tensors[0].shape[-1])
    raise ShapeError(
        subject,
        received=", ".join(str(tuple(t.shape)) for t in tensors),
        expected="shapes (examples, outputs) with a known number of outputs",
        fix="add an axis of size 1, or reshape",
    )


@registry.register()
class FBetaScore(Metric):
    """`(1 + beta ** 2) * precision * recall / (beta ** 2 * precision + recall)` of each class.

    y_true: 0 or 1, shape (examples, classes). y_pred: the same shape. threshold: above it a
    prediction means 1; without it, the largest of each example does. average: None for one score
    per class, "micro" for one over all decisions, "macro" for the mean of the classes, "weighted"
    for a mean weighted by the number of targets. Raises ArgumentError for other settings.

    >>> metric = FBetaScore(beta=2.0, threshold=0.5)
    >>> y_true = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    >>> y_pred = [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]]
    >>> [round(f, 4) for f in metric(y_true, y_pred).numpy().tolist()]
    [0.3846, 0.9091, 0.8333]
    """

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        if average not in (None, "micro", "macro", "weighted"):
            raise self._wrong("average", average, 'None, "micro", "macro" or "weighted"')
        if beta <= 0:
            raise self._wrong("beta", beta, "a number above 0")
        if threshold is not None and not 0 < threshold <= 1:
            raise self._wrong("threshold", threshold, "None, or a number above 0 and up to 1")
        super().__init__(dtype, name)
        self.average, self.beta, self.threshold = average, beta, threshold
        self._built = False

    def _wrong(self, setting: str, value: Any, expected: str) -> ArgumentError:
        return ArgumentError(
            type(self).__name__,
            received=f"{setting}={value!r}",
            expected=expected,
            fix=f"leave {setting} out for its default",
        )

    def _build(self, classes: int) -> None:
        shape = () if self.average == "micro" else (classes,)
        self.true_positives = self.add_variable(shape, name="true_positives")
        self.false_positives = self.add_variable(shape, name="false_positives")
        self.false_negatives = self.add_variable(shape, name="false_negatives")
        self.intermediate_weights = self.add_variable(shape, name="intermediate_weights")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (ops.cast(ops.asarray(y), self._dtype) for y in (y_true, y_pred))
        classes = _width(self.name, y_pred, y_true)
        if not self._built:
            self._build(classes)
        if self.threshold is None:
            largest = y_pred >= ops.max(y_pred, axis=-1, keepdims=True)
            guess = ops.logical_and(largest, ops.abs(y_pred) > 1e-9)
        else:
            guess = y_pred > self.threshold
        guess = ops.cast(guess, self._dtype)
        axis = None if self.average == "micro" else 0
        weight = 1.0 if sample_weight is None else weight_like(sample_weight, y_pred)
        for variable, counted in (
            (self.true_positives, guess * y_true),
            (self.false_positives, guess * (1.0 - y_true)),
            (self.false_negatives, (1.0 - guess) * y_true),
            (self.intermediate_weights, y_true),
        ):
            variable.assign_add(ops.sum(counted * weight, axis=axis))

    def result(self) -> Any:
        if not self._built:
            return ops.zeros((), dtype=self._dtype)
        found = self.true_positives.value()
        precision = found / (found + self.false_positives + EPSILON)
        recall = found / (found + self.false_negatives + EPSILON)
        square = self.beta**2
        score = precision * recall / (precision * square + recall + EPSILON) * (1.0 + square)
        if self.average == "weighted":
            weights = self.intermediate_weights.value()
            return ops.sum(score * weights / (ops.sum(weights) + EPSILON))
        return score if self.average is None else ops.mean(score)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "average": self.average,
            "beta": self.beta,
            "threshold": self.threshold,
        }


@registry.register()
class F1Score(FBetaScore):
    """Harmonic mean of precision and recall: `FBetaScore` with beta = 1.

    >>> metric = F1Score(average="micro", threshold=0.5)
    >>> round(float(metric([[1, 1], [1, 0]], [[0.2, 0.6], [0.7, 0.6]])), 4)
    0.6667
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "beta"}


@registry.register()
class R2Score(Metric):
    """Coefficient of determination: 1 minus squared errors over squared deviations from the mean.

    y_true, y_pred: shape (examples, outputs). class_aggregation: "uniform_average" of the outputs,
    "variance_weighted_average", or None for one value each. num_regressors: with a number, adjusted
    for so many inputs. An output with constant targets gives 0. Raises ArgumentError for others.

    >>> metric = R2Score()
    >>> round(float(metric([[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]])), 4)
    0.5714
    """

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ) -> None:
        allowed = (None, "uniform_average", "variance_weighted_average")
        if class_aggregation not in allowed or num_regressors < 0:
            raise ArgumentError(
                "R2Score",
                received=f"{class_aggregation=}, {num_regressors=}",
                expected=f"one of {', '.join(map(repr, allowed))}, and a number of at least 0",
                fix="leave them out for their defaults",
            )
        super().__init__(dtype, name)
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self.num_samples = self.add_variable(name="num_samples")
        self._built = False

    def _build(self, outputs: int) -> None:
        self.squared_sum = self.add_variable((outputs,), name="squared_sum")
        self.sum = self.add_variable((outputs,), name="sum")
        self.total_mse = self.add_variable((outputs,), name="residual")
        self.count = self.add_variable((outputs,), name="count")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (
            ops.cast(y, self._dtype) for y in float_targets(y_true, y_pred, self.name)
        )
        outputs = _width(self.name, y_true, y_pred)
        if not self._built:
            self._build(outputs)
        weight = ops.ones_like(y_true)
        if sample_weight is not None:
            weight = weight * weight_like(sample_weight, y_true)
        weighted = y_true * weight
        self.sum.assign_add(ops.sum(weighted, axis=0))
        self.squared_sum.assign_add(ops.sum(y_true * weighted, axis=0))
        self.total_mse.assign_add(ops.sum(ops.square(y_true - y_pred) * weight, axis=0))
        self.count.assign_add(ops.sum(weight, axis=0))
        self.num_samples.assign_add(count_of(y_true, self._dtype))

    def result(self) -> Any:
        if not self._built:
            return ops.zeros((), dtype=self._dtype)
        spread = self.squared_sum - self.sum * ratio(self.sum.value(), self.count.value())
        constant = spread == 0
        one = ops.ones_like(spread)
        scores = 1.0 - self.total_mse / ops.where(constant, one, spread)
        scores = ops.where(constant, ops.zeros_like(scores), scores)
        if self.class_aggregation == "uniform_average":
            scores = ops.mean(scores)
        elif self.class_aggregation is not None:
            scores = ratio(ops.sum(spread * scores), ops.sum(spread))
        if not self.num_regressors:
            return scores
        n = self.num_samples.value()
        left = n - (self.num_regressors + 1.0)
        usable = left > 0  # with too few examples there is nothing to adjust
        adjusted = 1.0 - (1.0 - scores) * (n - 1.0) / ops.where(usable, left, ops.ones_like(left))
        return ops.where(usable, adjusted, scores)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "class_aggregation": self.class_aggregation,
            "num_regressors": self.num_regressors,
        }


@registry.register("iou", "IoU")
class IoU(Metric):
    """Mean over some classes of: examples of the class and predicted so, over those of either.

    num_classes: number of classes. target_class_ids: those that count. ignore_class: a target whose
    examples are left out. sparse_y_true, sparse_y_pred: whether they are class numbers, or
    have values for each class along `axis`. Class numbers outside of the classes are left out.
    dtype: of the counts, int64 by default, so that weights are cut to whole numbers.
    Raises ArgumentError for a target class outside of the classes.

    >>> metric = IoU(num_classes=2, target_class_ids=[0])
    >>> round(float(metric([0, 0, 1, 1], [0, 1, 0, 1])), 4)
    0.3333
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(dtype or "int64", name)
        if max(target_class_ids) >= num_classes:
            raise ArgumentError(
                type(self).__name__,
                received=f"target class {max(target_class_ids)}",
                expected=f"class numbers from 0 to {num_classes - 1}",
                fix="raise num_classes",
            )
        self.num_classes, self.target_class_ids = num_classes, list(target_class_ids)
        self.ignore_class, self.axis = ignore_class, axis
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        shape = (num_classes, num_classes)
        self.total_cm = self.add_variable(shape, name="total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true = self._numbers(y_true, self.sparse_y_true)
        pred = self._numbers(y_pred, self.sparse_y_pred)
        weight = ops.ones_like(true) if sample_weight is None else ops.asarray(sample_weight)
        weight = ops.cast(weight, self._dtype)
        weight = ops.reshape(weight, (-1,)) if len(weight.shape) > 1 else weight
        valid = ops.logical_and(self._inside(true), self._inside(pred))
        if self.ignore_class is not None:
            valid = ops.logical_and(valid, true != self.ignore_class)
        zero = ops.zeros_like(true)
        cell = ops.where(valid, true * self.num_classes + pred, zero)
        counted = ops.where(valid, weight, ops.cast(zero, self._dtype))
        empty = ops.zeros((self.num_classes**2,), dtype=self._dtype)
        found = ops.scatter(empty, cell, counted)
        self.total_cm.assign_add(ops.reshape(found, self.total_cm.shape))

    def _numbers(self, y: Any, sparse: bool) -> Any:
        y = ops.asarray(y)
        return ops.reshape(ops.cast(y if sparse else ops.argmax(y, axis=self.axis), "int64"), (-1,))

    def _inside(self, numbers: Any) -> Any:
        return ops.logical_and(numbers >= 0, numbers < self.num_classes)

    def result(self) -> Any:
        work = self._dtype if is_float(self._dtype) else "float32"
        matrix = ops.cast(self.total_cm.value(), work)
        both = ops.diagonal(matrix)
        either = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - both
        chosen = ops.asarray(self.target_class_ids)
        both, either = ops.take(both, chosen, axis=0), ops.take(either, chosen, axis=0)
        seen = ops.cast(either > 1e-9, work)
        return ops.sum(both / (either + EPSILON) * seen) / (ops.sum(seen) + EPSILON)

    _settings: tuple[str, ...] = (
        "num_classes",
        "target_class_ids",
        "ignore_class",
        "sparse_y_true",
        "sparse_y_pred",
        "axis",
    )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {name: getattr(self, name) for name in self._settings}


@registry.register("mean_iou")
class MeanIoU(IoU):
    """`IoU` with all classes as targets.

    >>> round(float(MeanIoU(num_classes=2)([0, 0, 1, 1], [0, 1, 0, 1])), 4)
    0.3333
    """

    _settings: tuple[str, ...] = (
        "num_classes",
        "ignore_class",
        "sparse_y_true",
        "sparse_y_pred",
        "axis",
    )

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        ids = list(range(num_classes))
        super().__init__(
            num_classes, ids, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis
        )


@registry.register("binary_iou")
class BinaryIoU(IoU):
    """`IoU` of two classes, with predictions at or above a threshold as class 1.

    >>> round(float(BinaryIoU(threshold=0.3)([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.7])), 4)
    0.3333
    """

    _settings = ("target_class_ids", "threshold")

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        guess = ops.cast(ops.asarray(y_pred) >= self.threshold, "int64")
        super().update_state(y_true, guess, sample_weight)


@registry.register("one_hot_iou")
class OneHotIoU(IoU):
    """`IoU` with one-hot targets.

    >>> metric = OneHotIoU(num_classes=2, target_class_ids=[0])
    >>> round(float(metric([[1, 0], [0, 1]], [[0.9, 0.1], [0.8, 0.2]])), 4)
    0.5
    """

    _settings = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis
        )


@registry.register("one_hot_mean_iou")
class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` with one-hot targets.

    >>> metric = OneHotMeanIoU(num_classes=2)
    >>> round(float(metric([[1, 0], [0, 1]], [[0.9, 0.1], [0.8, 0.2]])), 4)
    0.25
    """

    _settings = ("num_classes", "ignore_class", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
