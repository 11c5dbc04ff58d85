"""Adam and its kin: AdamW, Adamax, Nadam, Lamb."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnn import ops
from graphnn.compiler.ir.types import as_dtype
from graphnn.keras.optimizers.base import Optimizer, registry
from graphnn.keras.optimizers.clipping import norm_of


class Moments(Optimizer):
    """What these optimizers share: decaying means, and corrections for having started at zero."""

    beta_1: float
    beta_2: float
    epsilon: float

    def power(self, base: float, dtype: Any, ahead: int = 1) -> Any:
        """`base ** (iterations + ahead)`, made once a step, in the precision of the weights."""
        # Half precision cannot tell 0.999 from 1.
        work = as_dtype("float64" if dtype == "float64" else "float32")

        def make() -> Any:
            t = ops.cast(self.iterations + ahead, work)
            return ops.power(ops.asarray(np.asarray(base, work)), t)

        return self.shared(("power", base, work, ahead), make)

    def moments(self, gradient: Any, variable: Any) -> tuple[Any, Any]:
        """The means of gradients and of their squares, with this gradient taken in."""
        m, v = self.slot("momentum", variable), self.slot("velocity", variable)
        mean = m + (gradient - m) * (1.0 - self.beta_1)
        square = v + (ops.square(gradient) - v) * (1.0 - self.beta_2)
        m.assign(mean)
        v.assign(square)
        return mean, square

    def get_config(self) -> dict[str, Any]:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return super().get_config() | own


@registry.register("adam")
class Adam(Moments):
    """Adaptive moments (Kingma and Ba, 2015, the form at the end of their section 2).

    Rule, at step t: `m += (g - m) * (1 - beta_1); v += (g ** 2 - v) * (1 - beta_2);
    w -= rate * sqrt(1 - beta_2 ** t) / (1 - beta_1 ** t) * m / (sqrt(v) + epsilon)`; amsgrad
    (Reddi et al., 2018) takes the largest v so far.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Adam(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
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
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad
        self.slots = (("momentum", "velocity"), *(["velocity_hat"] if amsgrad else []))
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
        dtype = variable.dtype
        rate = self.shared(("rate", dtype), lambda: self._corrected(learning_rate, dtype))
        mean, square = self.moments(gradient, variable)
        if self.amsgrad:
            largest = self.slot("velocity_hat", variable)
            square = ops.maximum(largest.value(), square)
            largest.assign(square)
        variable.assign(variable - mean * rate / (ops.sqrt(square) + self.epsilon))

    def _corrected(self, learning_rate: Any, dtype: Any) -> Any:
        first, second = self.power(self.beta_1, dtype), self.power(self.beta_2, dtype)
        return learning_rate * ops.cast(ops.sqrt(1.0 - second) / (1.0 - first), dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"amsgrad": self.amsgrad}


@registry.register("adamw")
class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019).

    >>> w = graphnn.Variable([1.0])
    >>> _ = AdamW(0.1, weight_decay=0.5).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.85
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
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
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
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


@registry.register("adamax")
class Adamax(Moments):
    """Adam with the largest decayed gradient in place of the mean square (Kingma and Ba, 2015,
    section 7).

    Rule, at step t: `m += (g - m) * (1 - beta_1); u = max(beta_2 * u, |g|);
    w -= rate / (1 - beta_1 ** t) * m / (u + epsilon)`.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Adamax(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.9
    """

    slots = (("momentum", "norm"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
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
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
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
        dtype = variable.dtype
        correction = ops.cast(1.0 - self.power(self.beta_1, dtype), dtype)
        rate = self.shared(("rate", dtype), lambda: learning_rate / correction)
        m, u = self.slot("momentum", variable), self.slot("norm", variable)
        mean = m + (gradient - m) * (1.0 - self.beta_1)
        largest = ops.maximum(u * self.beta_2, ops.abs(gradient))
        m.assign(mean)
        u.assign(largest)
        variable.assign(variable - mean * rate / (largest + self.epsilon))


@registry.register("nadam")
class Nadam(Moments):
    """Adam with Nesterov momentum (Dozat, 2016), with his schedule of momenta.

    Rule, at step t, with `u_t = beta_1 * (1 - 0.96 ** t / 2)` and their product U_t:
    `m_hat = u_(t+1) * m / (1 - U_(t+1)) + (1 - u_t) * g / (1 - U_t); v_hat = v / (1 - beta_2 ** t);
    w -= rate * m_hat / (sqrt(v_hat) + epsilon)`; m and v as in Adam.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Nadam(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.8937
    """

    slots = (("momentum", "velocity"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
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
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self._u_product: Any = None
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

    def build(self, variables: Any) -> None:
        """Make the slots, and the product of momenta that all weights share."""
        super().build(variables)
        if self._u_product is None:
            dtype = "float64" if self._trained[0].dtype == "float64" else "float32"
            self._u_product = self.add_variable((), "ones", dtype, "u_product")

    def _momentum_at(self, ahead: int) -> Any:
        decayed = self.power(0.96, self._u_product.dtype, ahead)
        return (1.0 - decayed * 0.5) * self.beta_1

    def begin_step(self) -> None:
        """Take this step's momentum into the product."""
        self._u_product.assign(self._u_product * self._momentum_at(1))

    def _factors(self, dtype: Any) -> tuple[Any, Any]:
        """What the mean and the gradient are multiplied with."""
        product, now, following = self._u_product, self._momentum_at(1), self._momentum_at(2)
        mean_factor = following / (1.0 - product * following)
        gradient_factor = (1.0 - now) / (1.0 - product)
        return ops.cast(mean_factor, dtype), ops.cast(gradient_factor, dtype)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        dtype = variable.dtype
        a, b = self.shared(("factors", dtype), lambda: self._factors(dtype))
        below = ops.cast(1.0 - self.power(self.beta_2, dtype), dtype)
        mean, square = self.moments(gradient, variable)
        step = (mean * a + gradient * b) * learning_rate
        variable.assign(variable - step / (ops.sqrt(square / below) + self.epsilon))


@registry.register("lamb")
class Lamb(Moments):
    """Adam with each weight's step scaled to the size of the weight (You et al., 2020), for very
    large batches.

    Rule: `s = m / (1 - beta_1 ** t) / (sqrt(v / (1 - beta_2 ** t)) + epsilon);
    w -= rate * norm(w) / norm(s) * s`, the ratio 1 where one of the norms is 0.

    >>> w = graphnn.Variable([1.0])
    >>> _ = Lamb(0.1).apply([graphnn.constant([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.9
    """

    slots = (("momentum", "velocity"),)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
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
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
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
        dtype = variable.dtype
        first = ops.cast(1.0 - self.power(self.beta_1, dtype), dtype)
        second = ops.cast(1.0 - self.power(self.beta_2, dtype), dtype)
        mean, square = self.moments(gradient, variable)
        step = mean / first / (ops.sqrt(square / second) + self.epsilon)
        weight_norm, step_norm = norm_of([variable.value()]), norm_of([step])
        usable = ops.logical_and(weight_norm > 0, step_norm > 0)
        one = ops.ones_like(step_norm)
        ratio = ops.where(usable, weight_norm / ops.where(usable, step_norm, one), one)
        variable.assign(variable - step * (ratio * learning_rate))
