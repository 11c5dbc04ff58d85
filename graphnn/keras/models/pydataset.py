"""PyDataset: batches that are asked for by number."""

from __future__ import annotations

from typing import Any

from graphnn.runtime.errors import missing_method


class PyDataset:
    """Base of data that give each batch by its number, for `fit`, `evaluate` and `predict`.

    Subclasses define `__len__`, the number of batches, and `__getitem__(number)`, a batch (x, y) or
    (x, y, sample_weight). `fit` asks for them in random order if `shuffle` is True, calls
    `on_epoch_begin` and `on_epoch_end` around each epoch, and asks for the length again after it.
    workers, use_multiprocessing, max_queue_size: accepted; batches are made in the order in which
    they are used, in one thread. A Dataset reads ahead in threads.

    >>> class Squares(graphnn.keras.utils.PyDataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, number):
    ...         x = np.full((8, 1), float(number))
    ...         return x, x * x
    >>> model = graphnn.keras.Sequential([graphnn.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> int(model.fit(Squares(), epochs=2, verbose=0).model.optimizer.iterations)
    8
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        self.workers, self.use_multiprocessing = workers, use_multiprocessing
        self.max_queue_size = max_queue_size

    def __len__(self) -> int:
        """Number of batches."""
        raise missing_method(self, "__len__(self)")

    @property
    def num_batches(self) -> int:
        """Number of batches."""
        return len(self)

    def __getitem__(self, number: int) -> Any:
        """A batch."""
        raise missing_method(self, "__getitem__(self, index)")

    def on_epoch_begin(self) -> None:
        """Called before each epoch."""

    def on_epoch_end(self) -> None:
        """Called after each epoch."""
