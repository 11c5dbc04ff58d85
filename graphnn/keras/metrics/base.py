"""Metric: a running value over many batches, in Variables that compiled steps can update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from graphnn import ops
from graphnn.compiler.ir.types import as_dtype
from graphnn.distribute.training import merged
from graphnn.keras import initializers, losses, naming
from graphnn.keras.masks import mask_of
from graphnn.keras.registry import Registry
from graphnn.keras.shapes import batch_size_of
from graphnn.runtime.errors import StateError, missing_method
from graphnn.state import init_scope
from graphnn.variable import Variable

registry = Registry("metrics")
get, serialize, deserialize = registry.get, registry.serialize, registry.deserialize


class Metric:
    """Base of metrics: subclasses make Variables with `add_variable`, and define `update_state`
    and `result`.

    name: as logs show it. dtype: of the Variables, float32 by default.
    """

    _variables: list[Any]
    _starts: list[Any]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "result" in cls.__dict__:  # of all replicas together, where there are several
            cls.result = merged(cls.result)  # type: ignore[method-assign]

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
        """The state, and that of metrics kept in attributes."""
        return [*self._variables, *(v for m in self._inner() for v in m.variables)]

    def _inner(self) -> list[Metric]:
        return [value for value in vars(self).values() if isinstance(value, Metric)]

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
            variable = Variable(
                start,
                dtype=kind,
                trainable=False,
                name=label,
                synchronization="on_read",  # each replica takes in its part of a batch
                aggregation="sum",
            )
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
        raise missing_method(self, "update_state(self, y_true, y_pred, sample_weight=None)")

    def result(self) -> Any:
        """The value now, a tensor."""
        raise missing_method(self, "result(self)")

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable, start in zip(self._variables, self._starts, strict=True):
            variable.assign(start)
        for metric in self._inner():
            metric.reset_state()

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


def ratio(x: Any, y: Any) -> Any:
    """x / y, and 0 where y is 0."""
    nothing = y == 0
    return ops.where(nothing, ops.zeros_like(x), x / ops.where(nothing, ops.ones_like(y), y))


def by_example(
    values: Any, sample_weight: Any, reduce: Callable[..., Any], dtype: Any
) -> tuple[Any, Any]:
    """Values times weights, one per example, and the weights, one per example (or None).

    Axes beyond those of the weights are reduced first, then all but the first axis.
    """
    values = ops.cast(ops.asarray(values), dtype)
    if sample_weight is None:
        return _first_axis(values, reduce), None
    weight = ops.cast(ops.asarray(sample_weight), dtype)
    values, weight = losses.same_rank(values, weight)
    extra = len(values.shape) - len(weight.shape)
    if extra > 0 and len(weight.shape):
        values = reduce(values, axis=tuple(range(-extra, 0)))
    weight = ops.broadcast_to(weight, values.shape)
    return _first_axis(values * weight, reduce), _first_axis(weight, ops.mean)


def _first_axis(values: Any, reduce: Callable[..., Any]) -> Any:
    axes = tuple(range(1, len(values.shape)))
    return reduce(values, axis=axes) if axes else values


@registry.register()
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
        weighted, _ = by_example(values, sample_weight, ops.sum, self._dtype)
        self.total.assign_add(ops.sum(weighted))

    def result(self) -> Any:
        return self.total.value()


@registry.register()
class Mean(Metric):
    """Weighted mean over examples; 0 before the first. Each example counts as the mean of its
    values.

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
        weighted, weight = by_example(values, sample_weight, ops.mean, self._dtype)
        self.total.assign_add(ops.sum(weighted))
        examples = batch_size_of(weighted, self._dtype) if weight is None else ops.sum(weight)
        self.count.assign_add(examples)

    def result(self) -> Any:
        return ratio(self.total.value(), self.count.value())


class MeanMetricWrapper(Mean):
    """Mean of a function `fn(y_true, y_pred, **settings)` that gives one value per example.

    A mask that travels with the predictions leaves padding out.
    """

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **settings: Any
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", None), dtype)
        self._fn, self._settings = fn, settings

    def update_state(  # type: ignore[override]
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        values = self._fn(y_true, y_pred, **self._settings)
        mask = mask_of(y_pred)
        if mask is not None:
            mask = ops.cast(mask, self._dtype)
            sample_weight = mask if sample_weight is None else _masked(sample_weight, mask)
        super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        own = {"fn": losses.serialize(self._fn)} if type(self) is MeanMetricWrapper else {}
        return super().get_config() | own | self._settings

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """An equal metric, without batches."""
        fn = config.get("fn")
        return cls(**(config if fn is None or callable(fn) else {**config, "fn": losses.get(fn)}))


def _masked(sample_weight: Any, mask: Any) -> Any:
    return mask * losses.weight_like(sample_weight, mask)
