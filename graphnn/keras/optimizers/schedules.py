"""Learning rates that change with the number of steps taken, computed inside the compiled step."""

from __future__ import annotations

import math
from typing import Any

from graphnn import ops
from graphnn.keras.registry import Registry
from graphnn.runtime.errors import ArgumentError, missing_method

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]

_registry = Registry("optimizers.schedules")
serialize, deserialize = _registry.serialize, _registry.deserialize


class LearningRateSchedule:
    """Base: subclasses define `__call__(step)`, which gives the rate as a number or 0-d tensor.

    step: the number of updates made so far, a 0-d int64 tensor; computed inside the compiled step.
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        raise missing_method(self, "__call__(self, step)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        """An equal schedule."""
        return cls(**config)


class _Settings(LearningRateSchedule):
    """A schedule whose constructor's arguments are its attributes."""

    _names: tuple[str, ...]

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}


def _number(step: Any) -> Any:
    return ops.cast(ops.asarray(step), "float32")


def _check_steps(subject: str, name: str, steps: float) -> None:
    if steps <= 0:
        raise ArgumentError(
            subject,
            received=f"{name}={steps}",
            expected="a number of steps above 0",
            fix="give the number of updates that the decay takes",
        )


class _Decay(_Settings):
    """Rates that fall with step / decay_steps, of which staircase takes whole numbers only."""

    _names = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str | None = None,
    ) -> None:
        _check_steps(type(self).__name__, "decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase = decay_rate, staircase
        self.name = name or type(self).__name__

    def _done(self, step: Any) -> Any:
        done = _number(step) / self.decay_steps
        return ops.floor(done) if self.staircase else done


@_registry.register()
class ExponentialDecay(_Decay):
    """`initial_learning_rate * decay_rate ** (step / decay_steps)`; staircase: whole powers only.

    >>> round(float(ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20)), 4)
    0.025
    """

    def __call__(self, step: Any) -> Any:
        done = self._done(step)
        return ops.power(ops.full_like(done, self.decay_rate), done) * self.initial_learning_rate


@_registry.register()
class PiecewiseConstantDecay(_Settings):
    """values[k] from after step boundaries[k - 1] up to and with step boundaries[k].

    Raises ArgumentError unless there is one value more than boundaries.

    >>> rate = PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.25])
    >>> [float(rate(step)) for step in (10, 11, 21)]
    [1.0, 0.5, 0.25]
    """

    _names = ("boundaries", "values", "name")

    def __init__(
        self, boundaries: list[Any], values: list[float], name: str = "PiecewiseConstant"
    ) -> None:
        if len(boundaries) != len(values) - 1:
            raise ArgumentError(
                "PiecewiseConstantDecay",
                received=f"{len(boundaries)} boundaries and {len(values)} values",
                expected="one value more than boundaries",
                fix="give the value after the last boundary too",
            )
        self.boundaries, self.values, self.name = boundaries, values, name

    def __call__(self, step: Any) -> Any:
        step = ops.asarray(step)
        rate = ops.asarray(float(self.values[0]))
        for boundary, value in zip(self.boundaries, self.values[1:], strict=True):
            rate = ops.where(step > boundary, float(value), rate)
        return rate


@_registry.register()
class PolynomialDecay(_Settings):
    """From the initial to `end_learning_rate` in `decay_steps`, as `(1 - step / steps) ** power`.

    cycle: start again with a longer decay each time the end is reached.

    >>> round(float(PolynomialDecay(0.1, 10, end_learning_rate=0.0)(5)), 4)
    0.05
    """

    _names = ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _check_steps("PolynomialDecay", "decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.end_learning_rate, self.power = end_learning_rate, power
        self.cycle, self.name = cycle, name

    def __call__(self, step: Any) -> Any:
        step, span = _number(step), float(self.decay_steps)
        if self.cycle:
            rounds = ops.ceil(step / span)
            done = step / (ops.where(step == 0, 1.0, rounds) * span)
        else:
            done = ops.minimum(step, span) / span
        height = self.initial_learning_rate - self.end_learning_rate
        return ops.power(1.0 - done, self.power) * height + self.end_learning_rate


@_registry.register()
class InverseTimeDecay(_Decay):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`; staircase: whole steps only.

    >>> float(InverseTimeDecay(1.0, decay_steps=10, decay_rate=1.0)(30))
    0.25
    """

    def __call__(self, step: Any) -> Any:
        done = self._done(step)
        return self.initial_learning_rate / (done * self.decay_rate + 1.0)


def _half_cosine(done: Any) -> Any:
    """From 1 at 0 to 0 at 1, along half a period of the cosine."""
    return (ops.cos(done * math.pi) + 1.0) * 0.5


@_registry.register()
class CosineDecay(_Settings):
    """From the initial rate to `alpha` times it in `decay_steps`, along half a cosine (Loshchilov
    and Hutter, SGDR, 2017).

    warmup_target: with it, the rate first grows from the initial one to the target in a straight
    line of `warmup_steps`, and decays from there.

    >>> round(float(CosineDecay(0.1, 10)(5)), 4)
    0.05
    """

    _names = (
        "initial_learning_rate",
        "decay_steps",
        "alpha",
        "name",
        "warmup_target",
        "warmup_steps",
    )

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        _check_steps("CosineDecay", "decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.alpha, self.name = alpha, name
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def __call__(self, step: Any) -> Any:
        step, span, start = _number(step), float(self.decay_steps), self.initial_learning_rate
        if self.warmup_target is None:
            return self._decayed(ops.minimum(step, span) / span, start)
        warm = float(self.warmup_steps)
        decayed = self._decayed(ops.clip(step - warm, 0.0, span) / span, self.warmup_target)
        rise = (self.warmup_target - start) / max(warm, 1.0)
        return ops.where(step < warm, step * rise + start, decayed)

    def _decayed(self, done: Any, top: float) -> Any:
        return (_half_cosine(done) * (1.0 - self.alpha) + self.alpha) * top


@_registry.register()
class CosineDecayRestarts(_Settings):
    """Cosine decays one after the other, the first of `first_decay_steps` (Loshchilov and Hutter,
    SGDR, 2017).

    t_mul: each is so many times as long as the one before; m_mul: and starts so many times as high.
    alpha: the least rate, as a share of the initial one.

    >>> rate = CosineDecayRestarts(0.1, 10)
    >>> [round(float(rate(step)), 4) for step in (5, 10, 20)]
    [0.05, 0.1, 0.05]
    """

    _names = ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _check_steps("CosineDecayRestarts", "first_decay_steps", first_decay_steps)
        self.initial_learning_rate, self.first_decay_steps = (
            initial_learning_rate,
            first_decay_steps,
        )
        self.t_mul, self.m_mul, self.alpha, self.name = t_mul, m_mul, alpha, name

    def __call__(self, step: Any) -> Any:
        done = _number(step) / self.first_decay_steps
        if self.t_mul == 1.0:
            restarts = ops.floor(done)
            share = done - restarts
        else:
            # The lengths are a geometric series: n of them have (1 - t ** n) / (1 - t) in sum.
            ratio = self.t_mul
            # The bit added keeps a quotient that is a whole number from being rounded below it.
            exact = ops.log(1.0 - done * (1.0 - ratio)) / math.log(ratio)
            restarts = ops.floor(exact + 1e-6)
            longer = ops.power(ops.full_like(done, ratio), restarts)
            share = (done - (1.0 - longer) / (1.0 - ratio)) / longer
        height = ops.power(ops.full_like(done, self.m_mul), restarts)
        cosine = _half_cosine(share) * height
        return (cosine * (1.0 - self.alpha) + self.alpha) * self.initial_learning_rate
