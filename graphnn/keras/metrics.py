"""Metrics: running values over many batches, in Variables that compiled steps can update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from graphnn import ops
from graphnn.compiler.ir.types import as_dtype
from graphnn.keras import initializers, losses, naming
from graphnn.keras.registry import Registry
from graphnn.keras.shapes import count_of
from graphnn.runtime.errors import StateError
from graphnn.state import init_scope
from graphnn.variable import Variable

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "Mean",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "Metric",
    "SparseCategoricalAccuracy",
    "Sum",
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "deserialize",
    "get",
    "serialize",
    "sparse_categorical_accuracy",
]

_registry = Registry("metrics")
get, serialize, deserialize = _registry.get, _registry.serialize, _registry.deserialize


class Metric:
    """Base of metrics: subclasses make Variables with `add_variable`, and define `update_state`
    and `result`.

    name: as logs show it. dtype: of the Variables, float32 by default.
    """

    _variables: list[Any]
    _starts: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.__dict__.update(_variables=[], _starts=[], _ready=False)
        return self

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = name or naming.unique_name(type(self).__name__)
        self._dtype = as_dtype(dtype or "float32")
        self._ready = True

    @property
    def dtype(self) -> str:
        """Name of the dtype of the Variables."""
        return self._dtype.name

    @property
    def variables(self) -> list[Any]:
        """The state."""
        return list(self._variables)

    def add_variable(
        self,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        name: str | None = None,
    ) -> Any:
        """A new Variable of the state; `reset_state` gives it its initial value again."""
        if not self._ready:
            raise StateError(
                f"add_variable of {type(self).__name__}",
                received="a metric whose base class was not initialised",
                expected="super().__init__() to have been called",
                fix=f"call super().__init__(name=...) first in {type(self).__name__}.__init__",
            )
        kind = as_dtype(dtype or self._dtype)
        label = f"{self.name}/{name or f'variable_{len(self._variables)}'}"
        with init_scope():
            start = initializers.get(initializer)(tuple(shape), dtype=kind)
            variable = Variable(start, dtype=kind, trainable=False, name=label)
        self._variables.append(variable)
        self._starts.append(start)
        return variable

    def add_weight(
        self,
        name: str | None = None,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
    ) -> Any:
        """The same as `add_variable`, with the arguments in Keras 2's order."""
        if isinstance(name, tuple | list):  # Keras 3's order: the shape first
            name, shape = None, name
        return self.add_variable(shape, initializer, dtype, name)

    def update_state(self, *args: Any, **kwargs: Any) -> Any:
        """Take in one batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define update_state")

    def result(self) -> Any:
        """The value now, a tensor."""
        raise NotImplementedError(f"{type(self).__name__} does not define result")

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable, start in zip(self._variables, self._starts, strict=True):
            variable.assign(start)

    def reset_states(self) -> None:
        """The same as `reset_state`."""
        self.reset_state()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take in one batch and give the value now."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """An equal metric, without batches."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


@_registry.register()
class Sum(Metric):
    """Sum of all (weighted) values.

    >>> metric = Sum()
    >>> metric.update_state([1.0, 2.0])
    >>> float(metric([3.0], sample_weight=2.0))
    9.0
    """

    def __init__(self, name: str | None = "sum", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values = ops.cast(ops.asarray(values), self._dtype)
        weighted = losses.reduce_weighted(values, sample_weight, "none")
        self.total.assign_add(ops.sum(weighted))

    def result(self) -> Any:
        return self.total.value()


@_registry.register()
class Mean(Metric):
    """Weighted mean of all values; 0 before the first.

    >>> metric = Mean()
    >>> metric.update_state([1.0, 3.0])
    >>> float(metric(8.0, sample_weight=2.0))
    5.0
    """

    def __init__(self, name: str | None = "mean", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values = ops.cast(ops.asarray(values), self._dtype)
        if sample_weight is None:
            self.total.assign_add(ops.sum(values))
            self.count.assign_add(count_of(values, self._dtype))
            return
        weight = losses.weight_like(sample_weight, values)
        self.total.assign_add(ops.sum(values * weight))
        self.count.assign_add(ops.sum(ops.broadcast_to(weight, values.shape)))

    def result(self) -> Any:
        count = self.count.value()
        # Nothing counted means nothing added up: 0 / 1.
        return self.total.value() / ops.where(count == 0, ops.ones_like(count), count)


class MeanMetricWrapper(Mean):
    """Mean of a function `fn(y_true, y_pred, **settings)` that gives one value per example."""

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **settings: Any
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", None), dtype)
        self._fn, self._settings = fn, settings

    def update_state(  # type: ignore[override]
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        super().update_state(self._fn(y_true, y_pred, **self._settings), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self._settings


def _aligned(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    return losses.same_rank(ops.asarray(y_true), ops.asarray(y_pred))


def _as_numbers(equal: Any) -> Any:
    return ops.cast(equal, "float32")


@_registry.register()
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where prediction and target are equal, else 0.

    >>> accuracy([1, 2], [1, 3]).numpy().tolist()
    [1.0, 0.0]
    """
    y_true, y_pred = _aligned(y_true, y_pred)
    return _as_numbers(ops.cast(y_true, y_pred.dtype) == y_pred)


@_registry.register()
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """Share of the last axis where `y_pred > threshold` is the target, 0 or 1.

    >>> binary_accuracy([[1.0, 0.0]], [[0.7, 0.6]]).numpy().tolist()
    [0.5]
    """
    y_true, y_pred = _aligned(y_true, y_pred)
    guess = ops.cast(y_pred > threshold, y_pred.dtype)
    equal = _as_numbers(ops.cast(y_true, y_pred.dtype) == guess)
    return ops.mean(equal, axis=-1) if len(equal.shape) else equal


@_registry.register()
def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where target and prediction have their largest value at the same class, else 0.

    >>> categorical_accuracy([[0.0, 1.0]], [[0.2, 0.8]]).numpy().tolist()
    [1.0]
    """
    y_true, y_pred = ops.asarray(y_true), ops.asarray(y_pred)
    return _as_numbers(ops.argmax(y_true, axis=-1) == ops.argmax(y_pred, axis=-1))


@_registry.register()
def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where the class number is that of the largest prediction, else 0.

    >>> sparse_categorical_accuracy([1, 0], [[0.2, 0.8], [0.2, 0.8]]).numpy().tolist()
    [1.0, 0.0]
    """
    y_pred = ops.asarray(y_pred)
    labels = ops.cast(losses.integer_labels(y_true, y_pred), "int64")
    return _as_numbers(labels == ops.argmax(y_pred, axis=-1))


@_registry.register()
class Accuracy(MeanMetricWrapper):
    """Share of predictions that equal their target.

    >>> float(Accuracy()([1, 2], [1, 3]))
    0.5
    """

    def __init__(self, name: str | None = "accuracy", dtype: Any = None) -> None:
        super().__init__(accuracy, name, dtype)


@_registry.register()
class BinaryAccuracy(MeanMetricWrapper):
    """Share of predictions on the right side of a threshold.

    >>> float(BinaryAccuracy()([[1.0], [0.0]], [[0.7], [0.6]]))
    0.5
    """

    def __init__(
        self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5
    ) -> None:
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


@_registry.register()
class CategoricalAccuracy(MeanMetricWrapper):
    """Share of examples whose likeliest class is that of the (one-hot) target.

    >>> float(CategoricalAccuracy()([[0.0, 1.0]], [[0.2, 0.8]]))
    1.0
    """

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


@_registry.register()
class SparseCategoricalAccuracy(MeanMetricWrapper):
    """Share of examples whose likeliest class is the target class number.

    >>> float(SparseCategoricalAccuracy()([1, 0], [[0.2, 0.8], [0.2, 0.8]]))
    0.5
    """

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


@_registry.register()
class MeanSquaredError(MeanMetricWrapper):
    """Mean of squared differences.

    >>> float(MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]]))
    2.5
    """

    def __init__(self, name: str | None = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(losses.mean_squared_error, name, dtype)


for _name, _function in (
    ("mse", losses.mean_squared_error),
    ("mae", losses.mean_absolute_error),
    ("MSE", losses.mean_squared_error),
    ("MAE", losses.mean_absolute_error),
):
    _registry.alias(_name, _function)
