"""SwapEMAWeights: evaluate and save with the running means of the weights."""

from __future__ import annotations

from typing import Any

from graphnn.keras.callbacks.base import Callback, Logs
from graphnn.runtime.errors import StateError


class SwapEMAWeights(Callback):
    """Put the running means of the weights in their place for evaluations, and take them out again.

    swap_on_epoch: whether they stay in place from the validation to the start of the next epoch, so
    that callbacks after this one in the list (ModelCheckpoint, say) save them; training ends with
    them in place. Without it they are there during evaluations and predictions only. Raises
    StateError for a model whose optimizer keeps no means: make it with use_ema=True.
    """

    _kept = ("_swapped", "_means")

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._swapped = False
        self._means: list[Any] = []

    def _swap(self, wanted: bool) -> None:
        """Exchange weights and means, unless what is wanted in the weights is there already."""
        if wanted == self._swapped:
            return
        optimizer = _unwrapped(self.model.optimizer)
        if not getattr(optimizer, "use_ema", False):
            raise StateError(
                "SwapEMAWeights",
                received="an optimizer that keeps no running means",
                expected="one made with use_ema=True",
                fix="for example keras.optimizers.Adam(use_ema=True)",
            )
        if not optimizer.built:
            return
        for weight, average in self._pairs():
            old = weight.numpy().copy()
            weight.assign(average.value())
            average.assign(old)
        self._means = [w.numpy().copy() for w, _ in self._pairs()] if wanted else []
        self._swapped = wanted

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Each weight that is trained, and the Variable that keeps its mean."""
        optimizer = _unwrapped(self.model.optimizer)
        return [(w, optimizer.slot("average", w)) for w in self.model.trainable_weights]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self.swap_on_epoch:
            self._swap(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._swap(self.swap_on_epoch)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._swapped:
            # The end of `fit` has put into the weights what it took for their means.
            for (weight, average), mean in zip(self._pairs(), self._means, strict=True):
                weight.assign(mean)
                average.assign(mean)
        self._swapped, self._means = False, []

    def _release(self) -> None:
        self._swap(False)


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer that keeps the slots, also below a LossScaleOptimizer."""
    return getattr(optimizer, "inner_optimizer", optimizer)
