"""Adagrad, Adadelta, Ftrl: rates that shrink with the gradients seen so far."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras.optimizers.base import Optimizer, check_range, registry


@registry.register("adagrad")
class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares (Duchi et al., 2011).

    Rule: `a += g ** 2; w -= rate * g / sqrt(a + epsilon)`; a starts as
    `initial_accumulator_value`.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Adagrad(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.9012
    """

    slots = ("accumulator",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon
        self.slot_starts = {"accumulator": initial_accumulator_value}
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        slot = self.slot("accumulator", variable)
        total = slot + ops.square(gradient)
        slot.assign(total)
        variable.assign(variable - gradient * learning_rate / ops.sqrt(total + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }


@registry.register("adadelta")
class Adadelta(Optimizer):
    """Gradients scaled by the ratio of running sizes of steps and of gradients (Zeiler, 2012).

    Rule, with `rms(x) = sqrt(x + epsilon)`: `a = rho * a + (1 - rho) * g ** 2;
    d = -rms(b) / rms(a) * g; b = rho * b + (1 - rho) * d ** 2; w += rate * d`.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Adadelta(100.0).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.8586
    """

    slots = (("accumulated_grad", "accumulated_delta_var"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        self.rho, self.epsilon = rho, epsilon
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        slots = [self.slot(name, variable) for name in self.slots[0]]
        seen, moved = (slot.value() for slot in slots)
        seen = seen * self.rho + ops.square(gradient) * (1.0 - self.rho)
        step = gradient * (ops.sqrt(moved + self.epsilon) / ops.sqrt(seen + self.epsilon))
        slots[0].assign(seen)
        slots[1].assign(moved * self.rho + ops.square(step) * (1.0 - self.rho))
        variable.assign(variable - step * learning_rate)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rho": self.rho, "epsilon": self.epsilon}


def _power(x: Any, exponent: float) -> Any:
    return ops.sqrt(x) if exponent == 0.5 else ops.power(x, exponent)


@registry.register("ftrl")
class Ftrl(Optimizer):
    """Follow the regularised leader (McMahan et al., 2013): weights with many exact zeros.

    Rule, with p = -learning_rate_power, s = l2_shrinkage, l2' = l2 + beta / (2 * rate):
    `n' = n + g ** 2; z += g + 2 * s * w - (n' ** p - n ** p) / rate * w;
    w = (clip(z, -l1, l1) - z) / (n' ** p / rate + 2 * l2'); n = n'`. Raises ArgumentError for
    strengths or an initial value below 0 and for a power above 0.

    >>> w = graphnn.Variable([0.0])
    >>> _ = Ftrl(0.1, l1_regularization_strength=0.5).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    -0.0741
    """

    slots = (("accumulator", "linear"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        self.own = {
            "learning_rate_power": learning_rate_power,
            "initial_accumulator_value": initial_accumulator_value,
            "l1_regularization_strength": l1_regularization_strength,
            "l2_regularization_strength": l2_regularization_strength,
            "l2_shrinkage_regularization_strength": l2_shrinkage_regularization_strength,
            "beta": beta,
        }
        check_range("Ftrl", "learning_rate_power", learning_rate_power, float("-inf"), 0)
        for setting in list(self.own)[1:5]:
            check_range("Ftrl", setting, self.own[setting], 0)
        self.slot_starts = {"accumulator": initial_accumulator_value}
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        own, rate = self.own, learning_rate
        accumulator, linear = (self.slot(name, variable) for name in self.slots[0])
        l1 = own["l1_regularization_strength"]
        l2 = own["beta"] / (rate * 2.0) + own["l2_regularization_strength"]
        old, weight = accumulator.value(), variable.value()
        new = old + ops.square(gradient)
        power = -own["learning_rate_power"]
        old_power, new_power = (_power(n, power) for n in (old, new))
        shrunk = gradient + weight * (2.0 * own["l2_shrinkage_regularization_strength"])
        z = linear + shrunk - (new_power - old_power) / rate * weight
        accumulator.assign(new)
        linear.assign(z)
        variable.assign((ops.clip(z, -l1, l1) - z) / (new_power / rate + l2 * 2.0))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.own
