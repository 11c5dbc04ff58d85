"""The training loop that a user writes by hand, shared by all frameworks."""

from collections.abc import Callable
from typing import Any

from benchmarks import data
from benchmarks.clock import Epochs


def hand_loop(train_batch: Callable[[data.FloatArray, data.IntArray], Any]) -> Epochs:
    """Shuffle, index, step; the losses are read once, at the end of the epoch.

    train_batch(x (n, 784), labels (n,)): one step; returns the loss in the framework's own form.
    """
    x, labels, _ = data.fit()

    def run(number: int) -> float:
        losses = [train_batch(x[rows], labels[rows]) for rows in data.epoch_batches(number)]
        return sum(float(loss) for loss in losses) / len(losses)

    return Epochs(run, len(data.epoch_batches(0)))
