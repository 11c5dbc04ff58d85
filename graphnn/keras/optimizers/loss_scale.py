"""Loss scaling for float16: small gradients are kept, steps that overflow are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.distribute.training import apply_together
from graphnn.keras.optimizers.base import Optimizer, deserialize, only_if, registry, serialize
from graphnn.runtime.errors import ArgumentError
from graphnn.state import no_tapes, state


@registry.register("loss_scale_optimizer")
class LossScaleOptimizer(Optimizer):
    """An optimizer whose losses are multiplied by a scale that finds its own size.

    A step with a gradient that is not finite changes no weight and halves the scale; after
    `dynamic_growth_steps` steps without one the scale doubles (Micikevicius et al., Mixed Precision
    Training, 2018). `compile` wraps optimizers so under the policy "mixed_float16".

    inner_optimizer: an Optimizer, which sees gradients without the scale.

    >>> w = graphnn.Variable([1.0])
    >>> inner = graphnn.keras.optimizers.SGD(0.1)
    >>> optimizer = LossScaleOptimizer(inner, initial_scale=8.0)
    >>> float(optimizer.scale_loss(graphnn.constant(2.0)))
    16.0
    >>> _ = optimizer.apply([graphnn.constant([16.0])], [w])
    >>> round(float(w[0]), 4)
    0.8
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
    ) -> None:
        if not isinstance(inner_optimizer, Optimizer):
            raise ArgumentError(
                "LossScaleOptimizer",
                received=f"{inner_optimizer!r} of type {type(inner_optimizer).__name__}",
                expected="an Optimizer",
                fix="for example LossScaleOptimizer(keras.optimizers.Adam())",
            )
        super().__init__(0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.initial_scale, self.dynamic_growth_steps = initial_scale, dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None  # there is one scale only
        self.step_counter = self._kept(np.zeros((), np.int64), "step_counter")
        self.dynamic_scale = self._kept(np.float32(initial_scale), "dynamic_scale")

    @property
    def variables(self) -> list[Any]:
        """The scale and its step count, then the state of the inner optimizer."""
        return [*self._state, *self.inner_optimizer.variables]

    @property
    def built(self) -> bool:
        """Whether the slots exist."""
        return self.inner_optimizer.built

    @property
    def iterations(self) -> Any:
        """Number of steps that changed weights."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """That of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        self.inner_optimizer.learning_rate = rate

    lr = learning_rate

    def build(self, variables: Iterable[Any]) -> None:
        """Make the slots of the inner optimizer."""
        self.inner_optimizer.build(variables)

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the scale."""
        return loss * ops.cast(self.dynamic_scale, loss.dtype)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> Any:
        """Take one step if all gradients are finite. grads: those of the scaled loss."""
        inner = self.inner_optimizer
        if state.replica is not None:
            weights = list(trainable_variables or inner._trained)
            apply_together(f"apply of {self.name}", self.apply, grads, weights)
            return inner.iterations
        if trainable_variables is not None:
            self.build(trainable_variables)
        weights = list(trainable_variables or inner._trained)
        found = [g for g in grads if g is not None]
        with no_tapes():
            finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in found]))
            factor = 1.0 / self.dynamic_scale
            true = [None if g is None else ops.cast(g, "float32") * factor for g in grads]
            only_if(finite, [*inner.variables, *weights], lambda: self._inner_apply(true, weights))
            self._rescale(finite)
        return inner.iterations

    def _inner_apply(self, grads: Sequence[Any], weights: Sequence[Any]) -> None:
        self.inner_optimizer.apply(grads, weights)

    def _rescale(self, finite: Any) -> None:
        count, scale = self.step_counter.value(), self.dynamic_scale.value()
        grown = count == self.dynamic_growth_steps - 1
        factor = ops.where(finite, ops.where(grown, 2.0, 1.0), 0.5)
        self.dynamic_scale.assign(scale * ops.cast(factor, scale.dtype))
        going_on = ops.logical_and(finite, ops.logical_not(grown))
        self.step_counter.assign(ops.where(going_on, count + 1, ops.zeros_like(count)))

    def finalize_variable_values(self, var_list: Iterable[Any]) -> None:
        """As the inner optimizer."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """As the inner optimizer."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Optimizer:
        """An equal optimizer, without state. Other settings of Keras' config have no effect."""
        kept = ("name", "initial_scale", "dynamic_growth_steps")
        inner = deserialize(config["inner_optimizer"])
        return cls(inner, **{k: config[k] for k in kept if k in config})


def with_loss_scale(optimizer: Optimizer) -> LossScaleOptimizer:
    """The optimizer, wrapped in a LossScaleOptimizer unless it is one."""
    return optimizer if isinstance(optimizer, LossScaleOptimizer) else LossScaleOptimizer(optimizer)
