"""Counts of right and wrong decisions at thresholds: true and false positives and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.keras import losses
from graphnn.keras.metrics.base import Metric, ratio, registry
from graphnn.runtime.errors import ArgumentError, ShapeError

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")
NEVER = -1e10  # below every threshold


def checked_thresholds(thresholds: Any, default: float, subject: str) -> list[float]:
    """Thresholds as a list. Raises ArgumentError for one outside of 0 to 1."""
    if thresholds is None:
        return [default]
    many = list(thresholds) if isinstance(thresholds, list | tuple | np.ndarray) else [thresholds]
    wrong = [t for t in many if t is None or not 0 <= t <= 1]
    if not wrong:
        return [float(t) for t in many]
    raise ArgumentError(
        subject,
        received=f"thresholds={thresholds}",
        expected="numbers from 0 to 1",
        fix="apply a sigmoid to log-odds first",
    )


def evenly_spaced(thresholds: Sequence[float]) -> bool:
    """Whether thresholds are those of equal steps from 0 to 1, to within 1e-7."""
    count = len(thresholds)
    return count >= 3 and np.allclose(thresholds, np.linspace(0, 1, count), rtol=1e-5, atol=1e-7)


def only_best(y_pred: Any, k: int) -> Any:
    """Predictions with all but the k likeliest of each example out of reach of any threshold."""
    classes = y_pred.shape[-1]
    rest, kept = y_pred, ops.zeros_like(y_pred)
    for _ in range(k):
        best = ops.one_hot(ops.argmax(rest, axis=-1), classes, dtype=y_pred.dtype)
        kept = kept + best
        rest = ops.where(best > 0, ops.full_like(rest, float("-inf")), rest)
    return ops.where(kept > 0, y_pred, ops.full_like(y_pred, NEVER))


def one_class(y: Any, class_id: int, subject: str) -> Any:
    """The values of one class, with an axis of size 1. Raises ShapeError without classes."""
    if len(y.shape) < 2:
        raise ShapeError(
            subject,
            received=f"class_id={class_id} with predictions of shape {tuple(y.shape)}",
            expected="predictions of shape (examples, classes)",
            fix="leave class_id out",
        )
    return y[..., class_id : class_id + 1]


class Confusion(Metric):
    """Base of what is computed from these counts; `kept` names those that it needs.

    y_true: 0 or 1. y_pred: probabilities, the same shape; above a threshold they mean 1.
    """

    kept: tuple[str, ...] = COUNTS

    def __init__(
        self,
        thresholds: Sequence[float],
        name: str | None,
        dtype: Any,
        *,
        top_k: int | None = None,
        class_id: int | None = None,
        even: bool | None = None,
    ) -> None:
        super().__init__(dtype, name)
        self._cuts = np.asarray(thresholds, np.float64)
        self._even = evenly_spaced(thresholds) if even is None else even
        self.top_k, self.class_id = top_k, class_id
        self.labels: int | None = None  # with a number, each label is counted on its own

    def add_counts(self) -> None:
        """Make the Variables, named in attributes like the counts."""
        shape = (len(self._cuts),) if self.labels is None else (len(self._cuts), self.labels)
        for name in self.kept:
            setattr(self, name, self.add_variable(shape, name=name))

    def count(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, label_weights: Any = None
    ) -> None:
        """Take in one batch."""
        y_pred = ops.cast(ops.asarray(y_pred), self._dtype)
        y_true = ops.cast(ops.asarray(y_true), self._dtype)
        y_pred, y_true = losses.same_rank(y_pred, y_true)
        if self.top_k is not None:
            y_pred = only_best(y_pred, self.top_k)
        if self.class_id is not None:
            y_true = one_class(y_true, self.class_id, self.name)
            y_pred = one_class(y_pred, self.class_id, self.name)
        weight = ops.ones_like(y_pred)
        if sample_weight is not None:
            weight = weight * losses.weight_like(sample_weight, y_pred)
        if label_weights is not None:
            weight = weight * label_weights
        positive = ops.where(y_true != 0, weight, ops.zeros_like(weight))
        self._add(positive, weight - positive, y_pred)

    def _add(self, positive: Any, negative: Any, y_pred: Any) -> None:
        """Add the weights of targets 1 and 0 to the counts."""
        flat = (-1,) if self.labels is None else (-1, self.labels)
        positive, negative, y_pred = (ops.reshape(x, flat) for x in (positive, negative, y_pred))
        sums = self._by_buckets if self._even else self._by_thresholds
        above = dict(zip(("p", "n"), sums((positive, negative), y_pred), strict=True))
        for name in self.kept:
            side = "p" if name in ("true_positives", "false_negatives") else "n"
            found = above[side]
            if name.endswith("negatives"):
                found = ops.sum(positive if side == "p" else negative, axis=0) - found
            getattr(self, name).assign_add(found)

    def _by_thresholds(self, weights: tuple[Any, ...], y_pred: Any) -> list[Any]:
        """For each threshold the sum of weights of predictions above it."""
        cuts = ops.asarray(self._cuts.astype(self._dtype))
        cuts = ops.reshape(cuts, (-1,) + (1,) * len(y_pred.shape))
        above = ops.cast(ops.expand_dims(y_pred, axis=0) > cuts, self._dtype)
        return [ops.sum(above * ops.expand_dims(w, axis=0), axis=1) for w in weights]

    def _by_buckets(self, weights: tuple[Any, ...], y_pred: Any) -> list[Any]:
        """The same for thresholds in equal steps: each prediction falls between two of them, so one
        pass and running sums from the end are enough."""
        steps = len(self._cuts) - 1
        bucket = ops.ceil(ops.clip(y_pred, 0.0, 1.0) * float(steps)) - 1.0
        below_all = bucket < 0
        if self._cuts[0] < 0:  # the first threshold lies below 0, so that 0 is above it
            below_all = ops.zeros_like(below_all)
        index = ops.cast(ops.maximum(bucket, 0.0), "int32")
        kept = [ops.where(below_all, ops.zeros_like(w), w) for w in weights]
        if self.labels is None:
            sums = [self._scattered(w, index, steps + 1) for w in kept]
        else:
            column = ops.arange(self.labels, dtype="int32")
            index = ops.reshape(index * self.labels + column, (-1,))
            size = (steps + 1) * self.labels
            flat = [self._scattered(ops.reshape(w, (-1,)), index, size) for w in kept]
            sums = [ops.reshape(s, (steps + 1, self.labels)) for s in flat]
        return [ops.flip(ops.cumsum(ops.flip(s, axis=0), axis=0), axis=0) for s in sums]

    def _scattered(self, weight: Any, index: Any, size: int) -> Any:
        return ops.scatter(ops.zeros((size,), dtype=self._dtype), index, weight)

    def one_or_all(self, value: Any) -> Any:
        """A scalar if there is one threshold, else one value for each."""
        return value[0] if len(self._cuts) == 1 else value

    # Ratios of the counts, one value for each threshold.

    def recall(self) -> Any:
        """Share of the targets 1 that were found."""
        found = self.true_positives.value()  # type: ignore[attr-defined]
        return ratio(found, found + self.false_negatives)  # type: ignore[attr-defined]

    def precision(self) -> Any:
        """Share of the predictions 1 that were right."""
        found = self.true_positives.value()  # type: ignore[attr-defined]
        return ratio(found, found + self.false_positives)  # type: ignore[attr-defined]

    def specificity(self) -> Any:
        """Share of the targets 0 that were found."""
        found = self.true_negatives.value()  # type: ignore[attr-defined]
        return ratio(found, found + self.false_positives)  # type: ignore[attr-defined]


class _Count(Confusion):
    """One of the counts."""

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        cuts = checked_thresholds(thresholds, 0.5, type(self).__name__)
        super().__init__(cuts, name, dtype)
        self.init_thresholds, self.thresholds = thresholds, cuts
        self.add_counts()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.count(y_true, y_pred, sample_weight)

    def result(self) -> Any:
        return self.one_or_all(getattr(self, self.kept[0]).value())

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"thresholds": self.init_thresholds}


@registry.register()
class TruePositives(_Count):
    """(Weighted) number of predictions above a threshold, or above each of several, that are right.

    >>> float(TruePositives()([0, 1, 1], [0.9, 0.8, 0.3]))
    1.0
    """

    kept = ("true_positives",)


@registry.register()
class FalsePositives(_Count):
    """(Weighted) number of predictions above a threshold, or above each of several, that are wrong.

    >>> FalsePositives(thresholds=[0.5, 0.95])([0, 1, 1], [0.9, 0.8, 0.3]).numpy().tolist()
    [1.0, 0.0]
    """

    kept = ("false_positives",)


@registry.register()
class TrueNegatives(_Count):
    """(Weighted) number of predictions not above a threshold, or each of several, that are right.

    >>> float(TrueNegatives()([0, 0, 1], [0.9, 0.2, 0.3]))
    1.0
    """

    kept = ("true_negatives",)


@registry.register()
class FalseNegatives(_Count):
    """(Weighted) number of predictions not above a threshold, or each of several, that are wrong.

    >>> float(FalseNegatives()([0, 0, 1], [0.9, 0.2, 0.3]))
    1.0
    """

    kept = ("false_negatives",)


class _Share(Confusion):
    """Precision or recall."""

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        default = 0.5 if top_k is None else NEVER
        cuts = checked_thresholds(thresholds, default, type(self).__name__)
        super().__init__(cuts, name, dtype, top_k=top_k, class_id=class_id)
        self.init_thresholds, self.thresholds = thresholds, cuts
        self.add_counts()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.count(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "thresholds": self.init_thresholds,
            "top_k": self.top_k,
            "class_id": self.class_id,
        }


@registry.register()
class Precision(_Share):
    """Share of the predictions 1 that are right.

    thresholds: above it a prediction means 1, by default 0.5; several give several values. top_k:
    only the k likeliest classes of an example mean 1. class_id: look at one class only.

    >>> round(float(Precision()([0, 1, 1, 1], [0.9, 0.8, 0.3, 0.7])), 4)
    0.6667
    """

    kept = ("true_positives", "false_positives")

    def result(self) -> Any:
        return self.one_or_all(self.precision())


@registry.register()
class Recall(_Share):
    """Share of the targets 1 that were predicted.

    Arguments as `Precision`.

    >>> round(float(Recall()([0, 1, 1, 1], [0.9, 0.8, 0.3, 0.7])), 4)
    0.6667
    """

    kept = ("true_positives", "false_negatives")

    def result(self) -> Any:
        return self.one_or_all(self.recall())
