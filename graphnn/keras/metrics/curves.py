"""Areas under curves, and the best of one rate while another is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn import nn, ops
from graphnn.keras.losses.base import EPSILON
from graphnn.keras.metrics.base import ratio, registry
from graphnn.keras.metrics.confusion import Confusion, evenly_spaced
from graphnn.keras.serialization import deserialize_keras_object
from graphnn.runtime.errors import ArgumentError

CURVES = ("ROC", "PR", "PRGAIN")
SUMMATIONS = ("interpolation", "minoring", "majoring")


def _one_of(setting: str, value: str, allowed: tuple[str, ...]) -> str:
    for name in allowed:
        if str(value).lower() == name.lower():
            return name
    raise ArgumentError(
        "AUC",
        received=f"{setting}={value!r}",
        expected=f"one of {', '.join(map(repr, allowed))}",
        fix=f"leave {setting} out for {allowed[0]!r}",
    )


def _steps(count: int) -> list[float]:
    """The thresholds between 0 and 1 that cut it into equal parts."""
    if count < 2:
        raise ArgumentError(
            "a metric over thresholds",
            received=f"num_thresholds={count}",
            expected="at least 2",
            fix="200 is usual",
        )
    return [(i + 1) / (count - 1) for i in range(count - 2)]


@registry.register()
class AUC(Confusion):
    """Area under the curve of two rates while the threshold goes from 0 to 1, as a Riemann sum.

    y_true: 0 or 1. y_pred: probabilities (log-odds with `from_logits`), the same shape.
    num_thresholds: how many points of the curve, in equal steps unless `thresholds` gives those
    between 0 and 1. curve: "ROC" (recall over false positive rate), "PR" (precision over recall) or
    "PRGAIN" (their gains over guessing). summation_method: "interpolation" (trapezoids; for "PR" as
    Davis and Goadrich, 2006), "minoring" or "majoring" (the lower or higher end of each step).
    multi_label: an area for each label, then their mean, weighted by label_weights; without it
    label_weights weigh the labels' predictions. num_labels: their number, if it is known already.

    >>> metric = AUC()
    >>> round(float(metric([0, 0, 1, 1], [0.1, 0.5, 0.3, 0.9])), 4)
    0.75
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        if num_labels and not multi_label:
            raise ArgumentError(
                "AUC",
                received=f"num_labels={num_labels} with multi_label=False",
                expected="num_labels together with multi_label=True",
                fix="leave num_labels out, or set multi_label",
            )
        self._own_thresholds = thresholds is not None
        inner = _steps(num_thresholds) if thresholds is None else sorted(map(float, thresholds))
        # The ends lie just outside, so that predictions of 0 and 1 fall between thresholds.
        cuts = [-EPSILON, *inner, 1.0 + EPSILON]
        super().__init__(cuts, name, dtype, even=evenly_spaced([0.0, *inner, 1.0]))
        self.num_thresholds = len(cuts)
        self.curve = _one_of("curve", curve, CURVES)
        self.summation_method = _one_of("summation_method", summation_method, SUMMATIONS)
        self.multi_label, self.num_labels, self.from_logits = multi_label, num_labels, from_logits
        weights = None if label_weights is None else np.asarray(label_weights, self._dtype)
        self.label_weights = weights
        self._built = False
        if num_labels or not multi_label:
            self._build(num_labels)

    @property
    def thresholds(self) -> list[float]:
        """All thresholds, the ends included."""
        return [float(t) for t in self._cuts]

    def _build(self, labels: int | None) -> None:
        self.labels = labels
        self.add_counts()
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = ops.asarray(y_pred)
        if not self._built:
            self._build(int(y_pred.shape[-1]))
        y_pred = nn.sigmoid(y_pred) if self.from_logits else y_pred
        label_weights = None if self.multi_label else self.label_weights
        self.count(y_true, y_pred, sample_weight, label_weights)

    def result(self) -> Any:
        if not self._built:
            return ops.zeros((), dtype=self._dtype)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._over_labels(self._interpolated_pr())
        x, y = self._rates()
        low, high = y[:-1], y[1:]
        heights = {
            "interpolation": lambda: (low + high) * 0.5,
            "minoring": lambda: ops.minimum(low, high),
            "majoring": lambda: ops.maximum(low, high),
        }[self.summation_method]()
        return self._over_labels((x[:-1] - x[1:]) * heights)

    def _rates(self) -> tuple[Any, Any]:
        """The two rates of the curve, x and y, for each threshold."""
        if self.curve == "ROC":
            false = self.false_positives.value()  # type: ignore[attr-defined]
            return ratio(false, false + self.true_negatives), self.recall()  # type: ignore[attr-defined]
        if self.curve == "PR":
            return self.recall(), self.precision()
        tp, fp, tn, fn = (
            getattr(self, f"{kind}s").value()
            for kind in ("true_positive", "false_positive", "true_negative", "false_negative")
        )
        odds = ratio(tp + fn, tn + fp)
        none = tp == 0
        recall_gain = ops.where(none, ops.zeros_like(tp), 1.0 - odds * ratio(fn, tp))
        precision_gain = ops.where(none, ops.ones_like(tp), 1.0 - odds * ratio(fp, tp))
        return ops.maximum(recall_gain, 0.0), precision_gain

    def _interpolated_pr(self) -> Any:
        """Areas between thresholds, precision interpolated through the counts (Davis and Goadrich,
        The Relationship Between Precision-Recall and ROC Curves, 2006)."""
        tp, fp = self.true_positives.value(), self.false_positives.value()  # type: ignore[attr-defined]
        both = tp + fp
        gained = tp[:-1] - tp[1:]
        slope = ratio(gained, ops.maximum(both[:-1] - both[1:], 0.0))
        intercept = tp[1:] - slope * both[1:]
        usable = ops.logical_and(both[:-1] > 0, both[1:] > 0)
        one = ops.ones_like(slope)
        growth = ops.where(usable, both[:-1], one) / ops.where(usable, both[1:], one)
        area = slope * (gained + intercept * ops.log(growth))
        return ratio(area, ops.maximum(tp[1:] + self.false_negatives[1:], 0.0))  # type: ignore[attr-defined]

    def _over_labels(self, areas: Any) -> Any:
        total = ops.sum(areas, axis=0)
        if not self.multi_label:
            return total
        if self.label_weights is None:
            return ops.mean(total)
        weights = ops.asarray(self.label_weights)
        return ratio(ops.sum(total * weights), ops.sum(weights))

    def get_config(self) -> dict[str, Any]:
        weights = None if self.label_weights is None else self.label_weights.tolist()
        own = {"thresholds": self.thresholds[1:-1]} if self._own_thresholds else {}
        return super().get_config() | {
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": weights,
            "from_logits": self.from_logits,
            **own,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AUC:
        """An equal metric, without batches."""
        weights = config.get("label_weights")
        if isinstance(weights, dict):  # Keras writes them down as a tensor
            config = {**config, "label_weights": deserialize_keras_object(weights)}
        return cls(**config)


class _BestWhile(Confusion):
    """The best of one rate over all thresholds at which another is at least a value."""

    setting: str

    def __init__(
        self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: Any
    ) -> None:
        if not 0 <= value <= 1:
            raise ArgumentError(
                type(self).__name__,
                received=f"{self.setting}={value}",
                expected="a number from 0 to 1",
                fix="give a share, not percent",
            )
        cuts = [0.5] if num_thresholds == 1 else [0.0, *_steps(num_thresholds), 1.0]
        super().__init__(cuts, name, dtype, class_id=class_id, even=num_thresholds > 1)
        self.value, self.num_thresholds = value, num_thresholds
        self.add_counts()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.count(y_true, y_pred, sample_weight)

    def _best(self, wanted: Any, kept: Any) -> Any:
        return ops.max(ops.where(kept >= self.value, wanted, ops.zeros_like(wanted)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            self.setting: self.value,
            "num_thresholds": self.num_thresholds,
            "class_id": self.class_id,
        }


@registry.register()
class SensitivityAtSpecificity(_BestWhile):
    """Best share of targets 1 found while at least `specificity` of the targets 0 are.

    >>> metric = SensitivityAtSpecificity(0.5)
    >>> float(metric([0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8]))
    0.5
    """

    setting = "specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self._best(self.recall(), self.specificity())


@registry.register()
class SpecificityAtSensitivity(_BestWhile):
    """Best share of targets 0 found while at least `sensitivity` of the targets 1 are.

    >>> metric = SpecificityAtSensitivity(0.5)
    >>> round(float(metric([0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8])), 4)
    0.6667
    """

    setting = "sensitivity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self._best(self.specificity(), self.recall())


@registry.register()
class PrecisionAtRecall(_BestWhile):
    """Best precision while recall is at least `recall`.

    >>> metric = PrecisionAtRecall(0.5)
    >>> float(metric([0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8]))
    0.5
    """

    setting = "recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self._best(self.precision(), self.recall())


@registry.register()
class RecallAtPrecision(_BestWhile):
    """Best recall while precision is at least `precision`.

    >>> metric = RecallAtPrecision(0.8)
    >>> float(metric([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9]))
    0.5
    """

    setting = "precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self._best(self.recall(), self.precision())
