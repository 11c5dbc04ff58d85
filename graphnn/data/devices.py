"""Elements of a Dataset on a GPU: copied there while the program before is running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn.data.dataset import Dataset
from graphnn.data.elements import map_leaves
from graphnn.data.iterator import DatasetIterator, read_position
from graphnn.data.stage import Stage
from graphnn.logical import backend_for
from graphnn.runtime import devices
from graphnn.runtime.cuda.staging import Stager
from graphnn.tensor import Tensor


class DeviceDataset(Dataset):
    """A Dataset whose elements come as tensors on a GPU; text stays on the CPU. What is made from
    it by further methods is a Dataset on the CPU again. backend: of the GPU."""

    def __init__(self, stage: Stage, backend: Any) -> None:
        super().__init__(stage)
        self._backend = backend

    def __iter__(self) -> DatasetIterator:
        return self.iterator()

    def iterator(self, state: Any = None, reuse: bool = False) -> DatasetIterator:
        """As `Dataset.iterator`; the position is that of the elements given."""
        return _DeviceIterator(self._stage, read_position(state), self._backend)


class _DeviceIterator(DatasetIterator):
    """Copies each element when it is asked for: the GPU is then still busy with those before."""

    def __init__(self, stage: Stage, position: Any, backend: Any) -> None:
        super().__init__(stage, position, reuse=True)  # elements are copied at once
        self._stager = Stager(backend)

    def __next__(self) -> Any:
        with self._lock:
            element = super().__next__()
            arrays: list[Any] = []
            map_leaves(
                lambda t: arrays.append(t._value) if devices.travels(t._value) else None, element
            )
            sent = iter(self._stager.send(arrays))
            # What stays here is copied too: the pipeline makes the next element in its memory.
            return map_leaves(
                lambda t: Tensor(next(sent) if devices.travels(t._value) else t._value.copy()),
                element,
            )

    def close(self) -> None:
        super().close()
        self._stager.close()


def prefetch_to_device(device: Any, buffer_size: int | None = None) -> Callable[[Dataset], Dataset]:
    """The last step of a pipeline, for `Dataset.apply`: elements come as tensors on a device.

    Copies to a GPU go through pinned memory and overlap with what it computes. `Model.fit` does the
    same by itself. buffer_size: elements that a thread makes ahead, 2 by default. Raises as
    `graphnn.device`.

    >>> dataset = graphnn.data.Dataset.range(4).batch(2)
    >>> ready = dataset.apply(graphnn.data.experimental.prefetch_to_device("/CPU:0"))
    >>> [x.numpy().tolist() for x in ready]
    [[0, 1], [2, 3]]
    """
    backend = backend_for(device)

    def transform(dataset: Dataset) -> Dataset:
        ahead = dataset.prefetch(buffer_size)
        return ahead if backend is devices.host else DeviceDataset(ahead._stage, backend)

    return transform


def copy_to_device(target_device: Any, source_device: Any = "/cpu:0") -> Callable[..., Dataset]:
    """As `prefetch_to_device`, without a thread that works ahead.

    >>> dataset = graphnn.data.Dataset.range(2)
    >>> [int(x) for x in dataset.apply(graphnn.data.experimental.copy_to_device("/CPU:0"))]
    [0, 1]
    """
    return prefetch_to_device(target_device, 0)
