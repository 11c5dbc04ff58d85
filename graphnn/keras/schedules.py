"""Learning rates that change with the number of steps taken."""

from __future__ import annotations

from typing import Any

__all__ = ["LearningRateSchedule"]


class LearningRateSchedule:
    """Base: subclasses define `__call__(step)`, which gives the rate as a number or 0-d tensor.

    step: the number of updates made so far, a 0-d int64 tensor; computed inside the compiled step.
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        """An equal schedule."""
        return cls(**config)
