"""SGD, RMSprop, Lion: steps along the gradient, its running mean, or their sign."""

from __future__ import annotations

from typing import Any

from graphnn import ops
from graphnn.keras.optimizers.base import Optimizer, check_range, registry


@registry.register("sgd")
class SGD(Optimizer):
    """Gradient descent, with momentum on request.

    Rule: `w -= rate * g`; with momentum `v = momentum * v - rate * g; w += v`, with nesterov
    `w += momentum * v - rate * g` (Sutskever et al., 2013).

    >>> w = graphnn.Variable([1.0])
    >>> _ = SGD(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.8
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
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
        check_range("SGD", "momentum", momentum, 0, 1)
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("momentum",) if momentum else ()
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
        step = gradient * learning_rate
        if not self.momentum:
            variable.assign(variable - step)
            return
        slot = self.slot("momentum", variable)
        velocity = slot * self.momentum - step
        slot.assign(velocity)
        change = velocity * self.momentum - step if self.nesterov else velocity
        variable.assign(variable + change)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}


@registry.register("rmsprop")
class RMSprop(Optimizer):
    """Gradients divided by a running root mean square of themselves (Hinton, 2012).

    Rule: `v = rho * v + (1 - rho) * g ** 2; w -= rate * g / sqrt(v + epsilon)`; `centered` takes
    the square of a running mean off v, momentum smooths the step.

    >>> w = graphnn.Variable([1.0])
    >>> _ = RMSprop(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.6838
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
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
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered
        more = (("momentum", momentum), ("average_gradient", centered))
        self.slots = ("velocity", *(name for name, wanted in more if wanted))
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
        velocity = self.slot("velocity", variable)
        mean_square = velocity * self.rho + ops.square(gradient) * (1.0 - self.rho)
        velocity.assign(mean_square)
        below = mean_square
        if self.centered:
            average = self.slot("average_gradient", variable)
            mean = average * self.rho + gradient * (1.0 - self.rho)
            average.assign(mean)
            below = mean_square - ops.square(mean)
        step = gradient * learning_rate / ops.sqrt(below + self.epsilon)
        if self.momentum:
            slot = self.slot("momentum", variable)
            step = slot * self.momentum + step
            slot.assign(step)
        variable.assign(variable - step)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


@registry.register("lion")
class Lion(Optimizer):
    """Steps of one size along the sign of a mean of gradients (Chen et al., 2023).

    Rule: `w -= rate * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g`.
    Half the memory of Adam; the rate is usually 3 to 10 times smaller. Raises ArgumentError for
    beta_1 outside 0 to 1.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Lion(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.9
    """

    slots = ("momentum",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
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
        check_range("Lion", "beta_1", beta_1, 0, 1)
        self.beta_1, self.beta_2 = beta_1, beta_2
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
        slot = self.slot("momentum", variable)
        mean = slot.value()
        way = ops.sign(mean * self.beta_1 + gradient * (1.0 - self.beta_1))
        variable.assign(variable - way * learning_rate)
        slot.assign(mean * self.beta_2 + gradient * (1.0 - self.beta_2))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2}
