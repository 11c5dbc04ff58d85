"""Optimizers: how gradients change Variables. Each states its rule once, for one Variable."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.compiler.ir.types import as_dtype
from graphnn.keras import naming, schedules
from graphnn.keras.arena import lay_out
from graphnn.keras.registry import Registry
from graphnn.keras.schedules import LearningRateSchedule
from graphnn.runtime.errors import ArgumentError, GradientError, StateError
from graphnn.state import init_scope, no_tapes
from graphnn.variable import Variable

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]

_registry = Registry("optimizers")
get, serialize, deserialize = _registry.get, _registry.serialize, _registry.deserialize


class Optimizer:
    """Base of optimizers: subclasses name their slots and define `update_step`.

    learning_rate: a number, a LearningRateSchedule, or a function without arguments. weight_decay:
    share of each weight taken off per step, times the learning rate. clipnorm: largest norm of one
    gradient; global_clipnorm: largest norm of all together; clipvalue: largest size of an element.
    Raises ArgumentError for more than one way of clipping.
    """

    slots: tuple[str, ...] = ()  # Variables of each weight's shape, zero at first

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ) -> None:
        ways = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        chosen = {k: v for k, v in ways.items() if v is not None}
        if len(chosen) > 1 or any(v <= 0 for v in chosen.values()):
            raise ArgumentError(
                type(self).__name__,
                received=", ".join(f"{k}={v}" for k, v in chosen.items()),
                expected="at most one way of clipping, with a positive limit",
                fix="keep one of them",
            )
        self.name = name or naming.unique_name(type(self).__name__)
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self._index: dict[int, int] = {}
        self._trained: list[Any] = []
        self._slots: dict[str, list[Any]] = {name: [] for name in self.slots}
        self._undecayed: list[Any] = []
        self._shared: dict[Any, Any] | None = None  # what all weights of one step have in common
        with init_scope():
            self.iterations = Variable(
                np.zeros((), np.int64), trainable=False, name=f"{self.name}/iterations"
            )
            self._learning_rate = self._rate_holder(learning_rate)

    def _rate_holder(self, rate: Any) -> Any:
        if callable(rate) and not hasattr(rate, "dtype"):
            return rate
        value = np.asarray(float(rate), np.float32)
        return Variable(value, trainable=False, name=f"{self.name}/learning_rate")

    # ---- the learning rate --------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """The rate: a Variable that may be assigned, or the schedule's value at this step."""
        return self._current_rate()

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        held = self._learning_rate
        scheduled = not isinstance(held, Variable)
        if callable(rate) and not hasattr(rate, "dtype"):
            self._learning_rate = rate
            return
        if scheduled and isinstance(held, LearningRateSchedule):
            raise StateError(
                f"learning_rate of {self.name}",
                received=f"a number, while {type(held).__name__} sets the rate",
                expected="an optimizer made with a number as learning_rate",
                fix="make the optimizer without a schedule",
            )
        if scheduled:
            self._learning_rate = self._rate_holder(rate)
        else:
            held.assign(rate)

    lr = learning_rate

    def _current_rate(self) -> Any:
        rate = self._learning_rate
        if isinstance(rate, Variable):
            return rate
        value = rate(self.iterations) if isinstance(rate, LearningRateSchedule) else rate()
        return ops.cast(ops.asarray(value), "float32")

    # ---- state --------------------------------------------------------------------------

    @property
    def variables(self) -> list[Any]:
        """All state: the step count, the learning rate if it is a Variable, and the slots."""
        rate = [self._learning_rate] if isinstance(self._learning_rate, Variable) else []
        slots = [v for i in range(len(self._trained)) for v in self._slots_of(i)]
        return [self.iterations, *rate, *slots]

    @property
    def built(self) -> bool:
        """Whether the slots exist."""
        return bool(self._trained)

    def _slots_of(self, index: int) -> list[Any]:
        return [self._slots[name][index] for name in self.slots]

    def build(self, variables: Iterable[Any]) -> None:
        """Make the slots of Variables; those that are known keep theirs.

        The Variables of one dtype, and the slots of one kind and dtype, come to lie back to back in
        memory: a compiled step updates all of them in one sweep.
        """
        new = [v for v in {id(v): v for v in variables}.values() if id(v) not in self._index]
        if not new:
            return
        with init_scope():
            for variable in new:
                self._index[id(variable)] = len(self._trained)
                self._trained.append(variable)
                for name in self.slots:
                    slot = self.add_variable_from_reference(variable, name)
                    self._slots[name].append(slot)
            lay_out(self._trained)
            for slots in self._slots.values():
                lay_out(slots)

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """A new Variable with the shape and dtype of another one."""
        shape, dtype = tuple(reference_variable.shape), reference_variable.dtype
        value = np.zeros(shape, dtype) if initializer == "zeros" else initializer(shape, dtype)
        label = f"{self.name}/{reference_variable.name}_{name or 'slot'}"
        return Variable(value, trainable=False, dtype=dtype, name=label)

    def slot(self, name: str, variable: Any) -> Any:
        """The Variable that keeps `name` for a weight. Raises StateError for a weight that the
        optimizer does not know."""
        if id(variable) not in self._index:
            raise StateError(
                f"update_step of {self.name}",
                received=f"{variable.name}, for which no slots were made",
                expected="one of the Variables given to build",
                fix="call optimizer.build(variables) with all of them first",
            )
        return self._slots[name][self._index[id(variable)]]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # after a copy the Variables are others
        self._index = {id(v): i for i, v in enumerate(self._trained)}

    # ---- the update ---------------------------------------------------------------------

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one Variable by its gradient; subclasses state the rule here.

        gradient: a tensor of the Variable's shape and dtype. learning_rate: a 0-d tensor of the
        Variable's dtype. `self.slot(name, variable)` gives the slots.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update_step")

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> Any:
        """Take one step. grads_and_vars: pairs of a gradient and its Variable.

        A gradient of None leaves its Variable alone, with a warning. Raises GradientError if all
        are None. Returns: `iterations`.
        """
        pairs = list(grads_and_vars)
        return self.apply([g for g, _ in pairs], [v for _, v in pairs])

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> Any:
        """Take one step. grads: one for each of the Variables, or of those given to `build`."""
        variables = list(trainable_variables or self._trained)
        if len(grads) != len(variables):
            raise ArgumentError(
                f"apply of {self.name}",
                received=f"{len(grads)} gradients for {len(variables)} Variables",
                expected="one gradient for each Variable",
                fix="give the Variables in the order in which the gradients were taken",
            )
        self.build(variables)
        pairs = self._with_gradient(list(zip(grads, variables, strict=True)))
        with no_tapes():
            self._apply(pairs)
        return self.iterations

    def _with_gradient(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        found = [(g, v) for g, v in pairs if g is not None]
        if not found:
            raise GradientError(
                f"apply_gradients of {self.name}",
                received="no gradient for any Variable: "
                + (", ".join(str(v.name) for _, v in pairs) or "an empty list"),
                expected="at least one gradient",
                fix="compute the loss from these Variables inside the GradientTape",
            )
        if len(found) < len(pairs):
            missing = ", ".join(str(v.name) for g, v in pairs if g is None)
            warnings.warn(f"no gradient for {missing}: left unchanged", stacklevel=4)
        return found

    def _apply(self, pairs: list[tuple[Any, Any]]) -> None:
        gradients = self._clipped([g for g, _ in pairs])
        rates: dict[Any, Any] = {}
        self._shared = {}
        try:
            for gradient, (_, variable) in zip(gradients, pairs, strict=True):
                dtype = variable.dtype
                if dtype not in rates:
                    rates[dtype] = ops.cast(self._current_rate(), dtype)
                if self.weight_decay and not any(variable is v for v in self._undecayed):
                    variable.assign(variable - variable * self.weight_decay * rates[dtype])
                self.update_step(ops.cast(gradient, dtype), variable, rates[dtype])
        finally:
            self._shared = None
        for _, variable in pairs:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.value()))
        self.iterations.assign_add(1)

    def minimize(self, loss: Any, var_list: Sequence[Any], tape: Any = None) -> Any:
        """Take one step for a loss.

        loss: a scalar tensor recorded on `tape`. Raises ArgumentError without a tape.
        """
        if tape is None:
            raise ArgumentError(
                f"minimize of {self.name}",
                received="no tape",
                expected="the GradientTape in which the loss was computed",
                fix="optimizer.minimize(loss, variables, tape=tape)",
            )
        return self.apply_gradients(zip(tape.gradient(loss, var_list), var_list, strict=True))

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] = (), var_names: Sequence[str] = ()
    ) -> None:
        """Keep Variables out of weight decay: these, and of those given to `build` the ones whose
        name contains one of the words."""
        named = [v for v in self._trained if any(word in v.name for word in var_names)]
        self._undecayed += [*var_list, *named]

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        if self.clipvalue is not None:
            return [ops.clip(g, -self.clipvalue, self.clipvalue) for g in gradients]
        if self.clipnorm is not None:
            return [_limited(g, _norm([g]), self.clipnorm) for g in gradients]
        if self.global_clipnorm is not None:
            norm = _norm(gradients)
            return [_limited(g, norm, self.global_clipnorm) for g in gradients]
        return gradients

    # ---- configs ------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor; a Variable learning rate with its value now."""
        rate = self._learning_rate
        if isinstance(rate, LearningRateSchedule):
            kept: Any = {"class_name": type(rate).__name__, "config": rate.get_config()}
        else:
            kept = float(rate) if isinstance(rate, Variable) else float(rate())
        return {
            "name": self.name,
            "learning_rate": kept,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Optimizer:
        """An equal optimizer, without state."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _norm(gradients: Sequence[Any]) -> Any:
    """Euclidean norm of several tensors taken as one vector."""
    total = ops.sum(ops.square(gradients[0]))
    for gradient in gradients[1:]:
        total = total + ops.sum(ops.square(gradient))
    return ops.sqrt(total)


def _limited(gradient: Any, norm: Any, limit: float) -> Any:
    """The gradient scaled down so that a norm does not exceed a limit."""
    # Dividing by the larger of both leaves small gradients as they are, and zero stays zero.
    return gradient * (limit / ops.maximum(norm, limit))


@_registry.register("sgd")
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
        name: str | None = None,
    ) -> None:
        if not 0 <= momentum <= 1:
            raise ArgumentError(
                "SGD",
                received=f"momentum={momentum}",
                expected="a number from 0 to 1",
                fix="0.9 is usual",
            )
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("momentum",) if momentum else ()
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name
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


@_registry.register("rmsprop")
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
        name: str | None = None,
    ) -> None:
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered
        more = (("momentum", momentum), ("average_gradient", centered))
        self.slots = ("velocity", *(name for name, wanted in more if wanted))
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name
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


@_registry.register("adam")
class Adam(Optimizer):
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
        name: str | None = None,
    ) -> None:
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad
        self.slots = ("momentum", "velocity", *(["velocity_hat"] if amsgrad else []))
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        shared = {} if self._shared is None else self._shared
        if variable.dtype not in shared:
            correction = ops.cast(self._bias_correction(variable.dtype), variable.dtype)
            shared[variable.dtype] = learning_rate * correction
        m, v = self.slot("momentum", variable), self.slot("velocity", variable)
        mean = m + (gradient - m) * (1.0 - self.beta_1)
        square = v + (ops.square(gradient) - v) * (1.0 - self.beta_2)
        m.assign(mean)
        v.assign(square)
        if self.amsgrad:
            largest = self.slot("velocity_hat", variable)
            square = ops.maximum(largest.value(), square)
            largest.assign(square)
        step = mean * shared[variable.dtype] / (ops.sqrt(square) + self.epsilon)
        variable.assign(variable - step)

    def _bias_correction(self, dtype: Any) -> Any:
        # Half precision cannot tell 0.999 from 1.
        work = as_dtype("float64" if dtype == "float64" else "float32")
        t = ops.cast(self.iterations + 1, work)
        first, second = (ops.asarray(np.asarray(b, work)) for b in (self.beta_1, self.beta_2))
        return ops.sqrt(1.0 - ops.power(second, t)) / (1.0 - ops.power(first, t))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


@_registry.register("adamw")
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
            name,
        )
