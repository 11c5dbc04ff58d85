"""Optimizer: from gradients to changed Variables; subclasses state the rule for one Variable."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphnn import ops
from graphnn.compiler.ir.types import as_dtype
from graphnn.distribute.training import apply_together, scope_of
from graphnn.keras import initializers, naming
from graphnn.keras.arena import lay_out
from graphnn.keras.optimizers import schedules
from graphnn.keras.optimizers.clipping import clipped
from graphnn.keras.optimizers.schedules import LearningRateSchedule
from graphnn.keras.registry import Registry
from graphnn.logical import on_backend
from graphnn.runtime import devices
from graphnn.runtime.errors import (
    ArgumentError,
    GradientError,
    StateError,
    missing_method,
    warn_user,
)
from graphnn.state import init_scope, no_tapes, state
from graphnn.variable import Variable

registry = Registry("optimizers")
get, serialize, deserialize = registry.get, registry.serialize, registry.deserialize

Pairs = list[tuple[Any, Any]]  # a gradient and its Variable


def is_schedule(rate: Any) -> bool:
    """Whether a learning rate is a function and not a number."""
    return callable(rate) and not hasattr(rate, "dtype")


class Optimizer:
    """Base of optimizers: subclasses name their slots and define `update_step`.

    learning_rate: a number, a LearningRateSchedule, or a function without arguments.
    weight_decay: share of each weight taken off per step, times the learning rate.
    clipnorm: largest norm of one gradient; global_clipnorm: largest norm of all together;
    clipvalue: largest size of an element.
    use_ema: keep a running mean of each weight, `ema_momentum` of the old and the rest of the new,
    put in place of the weights every `ema_overwrite_frequency` steps, or at the end of `fit`.
    loss_scale_factor: losses were multiplied by this (see `scale_loss`), gradients are divided.
    gradient_accumulation_steps: change weights once in so many steps, by the mean gradient.
    Raises ArgumentError for settings out of range, and for more than one way of clipping.
    """

    slots: tuple[Any, ...] = ()  # names of Variables like each weight; in a tuple: made in turns
    slot_starts: dict[str, float]  # values that slots start from, where it is not 0

    def __init__(
        self,
        learning_rate: Any = 0.001,
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
        subject = type(self).__name__
        ways = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        chosen = {k: v for k, v in ways.items() if v is not None}
        if len(chosen) > 1 or any(v <= 0 for v in chosen.values()):
            raise ArgumentError(
                subject,
                received=", ".join(f"{k}={v}" for k, v in chosen.items()),
                expected="at most one way of clipping, with a positive limit",
                fix="keep one of them",
            )
        check_range(subject, "ema_momentum", ema_momentum, 0, 1)
        check_range(subject, "ema_overwrite_frequency", ema_overwrite_frequency, 1)
        check_range(subject, "gradient_accumulation_steps", gradient_accumulation_steps or None, 2)
        self.name = name or naming.unique_name(type(self).__name__)
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.use_ema, self.ema_momentum = use_ema, ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._index: dict[int, int] = {}
        self._trained: list[Any] = []
        self._slots: dict[str, list[Any]] = {}
        self._state: list[Any] = []  # all Variables in the order in which Keras saves them
        self._undecayed: list[Any] = []
        self._undecayed_names: tuple[str, ...] = ()
        self._shared: dict[Any, Any] | None = None  # what all weights of one step have in common
        with init_scope():
            self._iterations = self._kept(np.zeros((), np.int64), "iteration")
            self._learning_rate = self._rate_holder(learning_rate)

    def _kept(self, value: Any, name: str) -> Any:
        """A new Variable of the state."""
        variable = Variable(value, trainable=False, name=f"{self.name}/{name}")
        self._state.append(variable)
        return variable

    def _rate_holder(self, rate: Any) -> Any:
        return rate if is_schedule(rate) else self._kept(np.float32(rate), "learning_rate")

    # ---- the learning rate --------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """The rate: a Variable that may be assigned, or the schedule's value at this step."""
        return self._current_rate()

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        held = self._learning_rate
        if is_schedule(rate):
            self._learning_rate = rate
            self._state = [v for v in self._state if v is not held]
        elif isinstance(held, LearningRateSchedule):
            raise StateError(
                f"learning_rate of {self.name}",
                received=f"a number, while {type(held).__name__} sets the rate",
                expected="an optimizer made with a number as learning_rate",
                fix="make the optimizer without a schedule",
            )
        elif isinstance(held, Variable):
            held.assign(rate)
        else:
            self._learning_rate = self._rate_holder(rate)

    lr = learning_rate

    def _current_rate(self) -> Any:
        rate = self._learning_rate
        if isinstance(rate, Variable):
            return rate
        value = rate(self._iterations) if isinstance(rate, LearningRateSchedule) else rate()
        return ops.cast(ops.asarray(value), "float32")

    @property
    def iterations(self) -> Any:
        """Number of updates made so far: with gradient accumulation, of those that changed weights.
        A Variable, or a tensor with accumulation."""
        steps = self.gradient_accumulation_steps
        return self._iterations // steps if steps else self._iterations

    # ---- state --------------------------------------------------------------------------

    @property
    def variables(self) -> list[Any]:
        """All state: the step count, the learning rate if it is a Variable, and the slots."""
        return list(self._state)

    @property
    def built(self) -> bool:
        """Whether the slots exist."""
        return bool(self._trained)

    def build(self, variables: Iterable[Any]) -> None:
        """Make the slots of Variables; those that are known keep theirs.

        The Variables of one dtype, and the slots of one kind and dtype, come to lie back to back in
        memory: a compiled step updates all of them in one sweep.
        """
        new = [v for v in {id(v): v for v in variables}.values() if id(v) not in self._index]
        if not new:
            return
        with init_scope(), scope_of(new[0]):
            for variable in new:
                self._index[id(variable)] = len(self._trained)
                self._trained.append(variable)
            for group in self._slot_groups():
                self._make_slots(new, group)
            lay_out(self._trained)
            for slots in self._slots.values():
                lay_out(slots)

    def _slot_groups(self) -> list[tuple[str, ...]]:
        own = [(group,) if isinstance(group, str) else tuple(group) for group in self.slots]
        averages = [("average",)] if self.use_ema else []
        sums = [("gradient_accumulator",)] if self.gradient_accumulation_steps else []
        return [*averages, *sums, *own]

    def _make_slots(self, variables: Sequence[Any], names: tuple[str, ...]) -> None:
        starts = getattr(self, "slot_starts", {})
        for variable in variables:
            for name in names:
                start = starts.get(name)
                initializer = "zeros" if start is None else initializers.Constant(start)
                slot = self.add_variable_from_reference(variable, name, initializer)
                self._slots.setdefault(name, []).append(slot)

    def add_variable(
        self, shape: Any, initializer: Any = "zeros", dtype: Any = None, name: str | None = None
    ) -> Any:
        """A new Variable of the state."""
        with init_scope():
            start = initializers.get(initializer)(tuple(shape), dtype=as_dtype(dtype or "float32"))
            return self._kept(start, name or f"variable_{len(self._state)}")

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """A new Variable with the shape and dtype of another one."""
        label = f"{reference_variable.name}_{name or 'slot'}"
        kind, shape = reference_variable.dtype, reference_variable.shape
        with on_backend(devices.backend_of(reference_variable._buffer) if devices.used else None):
            return self.add_variable(shape, initializer, kind, label)

    def add_optimizer_variables(
        self, trainable_variables: Sequence[Any], name: Any, initializer: Any = "zeros"
    ) -> Any:
        """For each name one list of new Variables, one like each weight; one list for one name."""
        names = [name] if isinstance(name, str) else list(name)
        many = isinstance(initializer, list | tuple)
        starts = list(initializer) if many else [initializer] * len(names)
        made: list[list[Any]] = [[] for _ in names]
        for variable in trainable_variables:
            for slots, label, start in zip(made, names, starts, strict=True):
                slots.append(self.add_variable_from_reference(variable, label, start))
        for slots in made:
            lay_out(slots)
        return made[0] if isinstance(name, str) else tuple(made)

    def _get_variable_index(self, variable: Any) -> int:
        if id(variable) in self._index:
            return self._index[id(variable)]
        raise StateError(
            f"update_step of {self.name}",
            received=f"{variable.name}, for which no slots were made",
            expected="one of the Variables given to build",
            fix="call optimizer.build(variables) with all of them first",
        )

    def slot(self, name: str, variable: Any) -> Any:
        """The Variable that keeps `name` for a weight. Raises StateError for a weight that the
        optimizer does not know."""
        return self._slots[name][self._get_variable_index(variable)]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # after a copy the Variables are others
        self._index = {id(v): i for i, v in enumerate(self._trained)}

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a mapping, under "0", "1", ..."""
        for number, variable in enumerate(self.variables):
            store[str(number)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Take the state from such a mapping. Raises StateError if the number does not fit."""
        variables = self.variables
        if len(store.keys()) != len(variables):
            raise StateError(
                f"the state of {self.name}",
                received=f"{len(store.keys())} arrays",
                expected=f"{len(variables)}, one for each Variable of the optimizer",
                fix="build the optimizer first, with the settings it was saved with",
            )
        for number, variable in enumerate(variables):
            variable.assign(np.asarray(store[str(number)]).astype(variable.dtype))

    # ---- the update ---------------------------------------------------------------------

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one Variable by its gradient; subclasses state the rule here.

        gradient: a tensor of the Variable's shape and dtype. learning_rate: a 0-d tensor of the
        Variable's dtype. `self.slot(name, variable)` gives the slots.
        """
        raise missing_method(self, "update_step(self, gradient, variable, learning_rate)")

    def begin_step(self) -> None:
        """Called once before the `update_step` of all weights; for what they share."""

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value that all weights of one step have in common, made once."""
        if self._shared is None:
            return make()
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def assign(self, variable: Any, value: Any) -> None:
        """Set a Variable: Keras 3's spelling in `update_step`."""
        variable.assign(value)

    def assign_add(self, variable: Any, value: Any) -> None:
        """Add to a Variable: Keras 3's spelling in `update_step`."""
        variable.assign_add(value)

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Subtract from a Variable: Keras 3's spelling in `update_step`."""
        variable.assign_sub(value)

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the loss scale, for gradients in half precision; as it is without one."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

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
        if state.replica is not None:
            apply_together(f"apply of {self.name}", self.apply, grads, variables)
            return self._iterations
        if any(id(v) not in self._index for v in variables):
            with init_scope():
                self.build(variables)
        pairs = self._with_gradient(list(zip(grads, variables, strict=True)))
        with no_tapes():
            self._apply(pairs)
        return self._iterations

    def _with_gradient(self, pairs: Pairs) -> Pairs:
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
            warn_user(f"no gradient for {missing}: left unchanged")
        return found

    def _apply(self, pairs: Pairs) -> None:
        if self.loss_scale_factor is not None:
            pairs = [(g * (1.0 / self.loss_scale_factor), v) for g, v in pairs]
        if self.gradient_accumulation_steps:
            self._accumulate(pairs, self.gradient_accumulation_steps)
        else:
            self._update(pairs)
        if self.use_ema:
            self._average()
        for _, variable in pairs:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.value()))
        self._iterations.assign_add(1)

    def _update(self, pairs: Pairs) -> None:
        gradients = clipped(self, [g for g, _ in pairs])
        rates: dict[Any, Any] = {}
        self._shared = {}
        try:
            self.begin_step()
            for gradient, (_, variable) in zip(gradients, pairs, strict=True):
                dtype = variable.dtype
                if dtype not in rates:
                    rates[dtype] = ops.cast(self._current_rate(), dtype)
                if self.weight_decay and self._decays(variable):
                    variable.assign(variable - variable * self.weight_decay * rates[dtype])
                self.update_step(ops.cast(gradient, dtype), variable, rates[dtype])
        finally:
            self._shared = None

    def _accumulate(self, pairs: Pairs, steps: int) -> None:
        """Add up gradients; in every last of so many steps, update by their mean."""
        sums = [self.slot("gradient_accumulator", v) for _, v in pairs]
        totals = [s + ops.cast(g, s.dtype) for s, (g, _) in zip(sums, pairs, strict=True)]
        means = [(t * (1.0 / steps), v) for t, (_, v) in zip(totals, pairs, strict=True)]
        due = (self._iterations + 1) % steps == 0
        kept = {id(s) for s in self._slots["gradient_accumulator"]} | {id(self._iterations)}
        touched = [v for v in self._state if id(v) not in kept]
        only_if(due, [*touched, *(v for _, v in pairs)], lambda: self._update(means))
        for slot, total in zip(sums, totals, strict=True):
            slot.assign(ops.where(due, ops.zeros_like(total), total))

    # ---- the mean of weights over time --------------------------------------------------

    def _average(self) -> None:
        # Before the first update there is no mean yet: it starts as the weights.
        share = ops.cast(self.iterations != 0, "float32") * self.ema_momentum
        averages = self._slots["average"]
        for variable, average in zip(self._trained, averages, strict=True):
            kept = ops.cast(share, variable.dtype)
            average.assign(average * kept + variable * (1.0 - kept))
        if self.ema_overwrite_frequency:
            due = (self.iterations + 1) % self.ema_overwrite_frequency == 0
            for variable, average in zip(self._trained, averages, strict=True):
                variable.assign(ops.where(due, average.value(), variable.value()))

    def finalize_variable_values(self, var_list: Iterable[Any]) -> None:
        """With `use_ema`, put the running means in place of weights; `fit` does so at its end."""
        if not self.use_ema:
            return
        for variable in var_list:
            if id(variable) in self._index:
                variable.assign(self.slot("average", variable).value())

    # ---- weight decay -------------------------------------------------------------------

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Keep Variables out of weight decay: these, and those in whose name one of the regular
        expressions is found."""
        self._undecayed += list(var_list or ())
        self._undecayed_names += tuple(var_names or ())

    def _decays(self, variable: Any) -> bool:
        if any(variable is v for v in self._undecayed):
            return False
        return not any(re.search(pattern, variable.name) for pattern in self._undecayed_names)

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

    # ---- configs ------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor; a Variable learning rate with its value now."""
        rate = self._learning_rate
        if isinstance(rate, LearningRateSchedule):
            kept: Any = schedules.serialize(rate)
        else:
            kept = float(rate) if isinstance(rate, Variable) else float(rate())
        return {
            "name": self.name,
            "learning_rate": kept,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Optimizer:
        """An equal optimizer, without state."""
        rate = config.get("learning_rate")
        if isinstance(rate, dict):
            config = {**config, "learning_rate": schedules.deserialize(rate)}
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def check_range(
    subject: str, setting: str, value: float | None, low: float, high: float = float("inf")
) -> None:
    """Raise ArgumentError for a number outside of low to high; None is fine."""
    if value is None or low <= value <= high:
        return
    limits = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
    raise ArgumentError(
        subject,
        received=f"{setting}={value}",
        expected=f"a number {limits}",
        fix=f"leave {setting} out for its default",
    )


def only_if(condition: Any, variables: Sequence[Any], action: Callable[[], None]) -> None:
    """Do what changes Variables if a 0-d tensor of booleans is True.

    In a trace both values are computed and one is chosen; so the update stays one sweep.
    """
    if state.trace is None:
        if bool(condition):
            action()
        return
    before = [v.value() for v in variables]
    action()
    for variable, old in zip(variables, before, strict=True):
        variable.assign(ops.where(condition, variable.value(), old))
