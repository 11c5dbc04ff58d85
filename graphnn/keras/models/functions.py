"""make_train_function and its brothers: how a model's steps become what the training loop runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from graphnn import tree
from graphnn.keras.models.data import rebuild

StepFunction = Callable[[Iterator[Any]], Any]


class StepFunctions:
    """Base of Trainer: functions that take the next batch from an iterator and run a step on it.

    Override `make_train_function`, `make_test_function` or `make_predict_function` to run the steps
    in another way; it returns a function that takes one batch from an iterator, and which `fit`,
    `evaluate` or `predict` then call for each batch.
    """

    train_function: StepFunction | None = None
    test_function: StepFunction | None = None
    predict_function: StepFunction | None = None

    def make_train_function(self, force: bool = False) -> StepFunction:
        """A function from an iterator of batches to the logs of one `train_step`; kept as
        `train_function`. force: make it anew."""
        return self._kept("train", force)

    def make_test_function(self, force: bool = False) -> StepFunction:
        """The same for `test_step`."""
        return self._kept("test", force)

    def make_predict_function(self, force: bool = False) -> StepFunction:
        """The same for `predict_step`; it gives the outputs."""
        return self._kept("predict", force)

    def _kept(self, kind: str, force: bool) -> StepFunction:
        known: StepFunction | None = getattr(self, f"{kind}_function")
        if known is not None and not force:
            return known
        stepper = self._stepper(kind)  # type: ignore[attr-defined]

        def run(iterator: Iterator[Any]) -> Any:
            data = next(iterator)
            leaves = tuple(leaf for leaf in tree.flatten(data) if leaf is not None)
            return stepper.bind(data, leaves)(leaves)

        self.__dict__[f"{kind}_function"] = run
        return run

    def _own_function(self, kind: str, structure: Any) -> Callable[[Any], Any] | None:
        """What a subclass makes of a step, as a function of the leaves of one batch; None if it
        leaves that to this class."""
        name = f"make_{kind}_function"
        if getattr(type(self), name) is getattr(StepFunctions, name):
            return None
        made = getattr(self, f"{kind}_function")
        if made is None:
            made = getattr(self, name)() or getattr(self, f"{kind}_function")
            self.__dict__[f"{kind}_function"] = made
        return lambda leaves: made(iter([rebuild(structure, leaves)]))

    def _forget_functions(self) -> None:
        for kind in ("train", "test", "predict"):
            self.__dict__.pop(f"{kind}_function", None)
