"""Batches and a model's Variables on the GPU on which the model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphnn.keras.models.batches import Leaves
from graphnn.runtime import devices
from graphnn.runtime.cuda.staging import Stager
from graphnn.state import state
from graphnn.tensor import Tensor


def device_of(model: Any) -> Any:
    """Where a model's steps run: the device of the context, else that of its first weight, else the
    default device."""
    if state.device is not None:
        return state.device
    weights = model.weights if model.built else ()
    for variable in weights:
        return devices.backend_of(variable._buffer)
    return devices.default()


def gather(model: Any) -> Any:
    """The GPU of a model's steps, or None; its metrics and optimizer move to where they run."""
    if not devices.used or model._strategy is not None or state.strategy is not None:
        return None
    backend = device_of(model)
    for owner in (model.optimizer, *model.metrics):
        for variable in getattr(owner, "variables", ()):
            variable._move(backend)
    return None if backend is devices.host else backend


def on_device(batches: Iterator[Leaves], backend: Any) -> Iterator[Leaves]:
    """The batches where the steps run; backend: None for the host."""
    return batches if backend is None else staged(batches, backend)


def staged(batches: Iterator[Leaves], backend: Any) -> Iterator[Leaves]:
    """The batches on a GPU, copied there while the steps before are computing.

    Text stays on the host, and what is on a GPU already stays there.
    """
    stager = Stager(backend)
    try:
        for leaves in batches:
            places = [i for i, leaf in enumerate(leaves) if devices.travels(leaf._value)]
            arrays = iter(stager.send([leaves[i]._value for i in places]))
            yield tuple(
                Tensor(next(arrays)) if i in places else leaf for i, leaf in enumerate(leaves)
            )
    finally:
        stager.close()


def sent(leaves: Leaves, backend: Any) -> Leaves:
    """One batch where a step runs; backend: None for the host."""
    if backend is None:
        return leaves
    return tuple(
        Tensor(backend.upload(leaf._value)) if devices.travels(leaf._value) else leaf
        for leaf in leaves
    )
