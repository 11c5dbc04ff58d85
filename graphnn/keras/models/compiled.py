"""The losses and metrics of `compile`, matched to the outputs of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import ops
from graphnn.keras import losses, metrics
from graphnn.keras.models.outputs import BY_SHAPES, metrics_of, outputs_of, spec_of
from graphnn.keras.shapes import batch_size_of
from graphnn.runtime.errors import ArgumentError


def as_loss(identifier: Any, target: Any, prediction: Any) -> Any:
    """A Loss object from a name, function or object."""
    found = None
    if identifier in ("crossentropy", "ce"):
        found = _by_shapes(identifier, ops.asarray(target), prediction)
    found = found or losses.get(identifier)
    if found is None or isinstance(found, losses.Loss):
        return found
    return losses.LossFunctionWrapper(found)


class CompiledLoss:
    """The loss of `compile`: called with targets and predictions, gives one scalar.

    It also keeps the running mean that logs show as "loss", as Keras 2's `compiled_loss` does.
    """

    def __init__(self, loss: Any, loss_weights: Any, tracker: metrics.Mean) -> None:
        self.loss, self.loss_weights, self._tracker = loss, loss_weights, tracker
        self._made: dict[str, Any] = {}
        self._trackers: dict[str, metrics.Mean] = {}
        self.output_names: list[str] | None = None

    @property
    def metrics(self) -> list[Any]:
        """The mean of each output's loss, where a model has several outputs."""
        return list(self._trackers.values())

    def _loss(self, row: int, rows: int, name: str, y: Any, y_pred: Any) -> Any:
        if name not in self._made:
            spec = spec_of("loss", self.loss, row, name, rows)
            self._made[name] = as_loss(spec, y, y_pred)
        return self._made[name]

    def total(self, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The weighted sum of all outputs' losses, or None if there is no loss."""
        rows = outputs_of(y, y_pred, sample_weight, self.output_names)
        total = None
        for number, (name, target, prediction, weight) in enumerate(rows):
            loss = self._loss(number, len(rows), name, target, prediction)
            if loss is None:
                continue
            if target is None:
                raise _no_target(name)
            value = loss(target, prediction, weight)
            value = value if len(value.shape) == 0 else ops.mean(value)
            if len(rows) > 1:
                self._track(name, value, prediction)
            share = spec_of("loss_weights", self.loss_weights, number, name, len(rows))
            value = value if share is None else value * share
            total = value if total is None else total + value
        return total

    def _track(self, name: str, value: Any, prediction: Any) -> None:
        if name not in self._trackers:
            self._trackers[name] = metrics.Mean(name=f"{name}_loss")
        self._trackers[name].update_state(value, sample_weight=batch_size_of(prediction))

    def __call__(
        self, y: Any, y_pred: Any, sample_weight: Any = None, regularization_losses: Any = None
    ) -> Any:
        """The loss with regularization added; its running mean is updated."""
        parts = [self.total(y, y_pred, sample_weight), *(regularization_losses or ())]
        loss = summed([part for part in parts if part is not None])
        self._tracker.update_state(loss, sample_weight=batch_size_of(y_pred))
        return loss


def _no_target(name: str) -> ArgumentError:
    return ArgumentError(
        "the loss of a model",
        received=f"no targets for the output {name!r}" if name else "no targets",
        expected="targets to compare the outputs with",
        fix="give y beside x, or let Datasets and generators give (x, y)",
    )


def summed(parts: list[Any]) -> Any:
    """The sum of scalars. Raises ArgumentError if there are none."""
    if not parts:
        raise ArgumentError(
            "the loss of a model",
            received="no loss in compile() and none added by a layer",
            expected="at least one loss",
            fix='for example model.compile(optimizer="adam", loss="mse")',
        )
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _is_class_numbers(target: Any, prediction: Any) -> bool:
    shorter = len(target.shape) < len(prediction.shape)
    return shorter or (target.shape[-1] == 1 and prediction.shape[-1] != 1)


def _by_shapes(name: str, target: Any, prediction: Any) -> Callable[..., Any] | None:
    """The function that "accuracy" or "crossentropy" means for these shapes."""
    kinds: tuple[Callable[..., Any], ...]
    if BY_SHAPES.get(name) == "accuracy":
        kinds = (
            metrics.binary_accuracy,
            metrics.sparse_categorical_accuracy,
            metrics.categorical_accuracy,
        )
    elif BY_SHAPES.get(name) == "crossentropy":
        kinds = (
            losses.binary_crossentropy,
            losses.sparse_categorical_crossentropy,
            losses.categorical_crossentropy,
        )
    else:
        return None
    if len(prediction.shape) and prediction.shape[-1] == 1:
        return kinds[0]
    return kinds[1] if _is_class_numbers(target, prediction) else kinds[2]


def as_metric(identifier: Any, target: Any, prediction: Any, prefix: str) -> Any:
    """A Metric object from a name, function or object; a function gives the mean of its values."""
    if isinstance(identifier, metrics.Metric):
        return identifier
    chosen = _by_shapes(identifier, target, prediction) if isinstance(identifier, str) else None
    if chosen is not None:
        return metrics.MeanMetricWrapper(chosen, name=prefix + identifier)
    found = metrics.get(identifier)
    if isinstance(found, metrics.Metric):
        found.name = prefix + (identifier if isinstance(identifier, str) else found.name)
        return found
    label = identifier if isinstance(identifier, str) else getattr(found, "__name__", "metric")
    return metrics.MeanMetricWrapper(found, name=prefix + label)


class CompiledMetrics:
    """The metrics of `compile`: updated together, listed one by one once the outputs are known."""

    def __init__(self, plain: Any, weighted: Any) -> None:
        self._specs = (plain, weighted)
        self._made: dict[str, tuple[list[Any], list[Any]]] = {}
        self.output_names: list[str] | None = None

    @property
    def metrics(self) -> list[Any]:
        """All Metric objects so far."""
        return [m for groups in self._made.values() for group in groups for m in group]

    def _groups(self, row: int, rows: int, name: str, y: Any, y_pred: Any) -> Any:
        if name not in self._made:
            prefix = f"{name}_" if name else ""
            plain, weighted = (
                [as_metric(m, y, y_pred, prefix) for m in metrics_of(spec, row, name, rows)]
                for spec in self._specs
            )
            self._made[name] = plain, weighted
        return self._made[name]

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in one batch."""
        rows = outputs_of(y, y_pred, sample_weight, self.output_names)
        for number, (name, target, prediction, weight) in enumerate(rows):
            if target is None:
                continue
            target = ops.asarray(target)
            plain, weighted = self._groups(number, len(rows), name, target, prediction)
            for metric in plain:
                metric.update_state(target, prediction)
            for metric in weighted:
                metric.update_state(target, prediction, sample_weight=weight)
