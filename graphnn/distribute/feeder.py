"""The replicas' parts of batches on their way to their GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn.runtime import devices
from graphnn.runtime.later import Later
from graphnn.tensor import Tensor

_staging = Later("graphnn.runtime.cuda.staging")


class Feeder:
    """Sends each replica's tensors straight to its GPU, through pinned memory.

    backends: a GPU for each replica, or nothing: then tensors stay where they are.
    """

    def __init__(self, backends: Sequence[Any]) -> None:
        self._backends = tuple(backends)
        self._stagers: list[Any] = []

    def __call__(self, parts: Sequence[Any]) -> list[Any]:
        """The leaves of each replica on its GPU; text, numbers and traced tensors stay."""
        if not self._backends:
            return list(parts)
        if not self._stagers:
            self._stagers = [_staging.Stager(b) for b in self._backends]
        rows = zip(self._backends, self._stagers, parts, strict=False)
        return [_sent(leaves, backend, stager) for backend, stager, leaves in rows]


def _sent(leaves: Sequence[Any], backend: Any, stager: Any) -> tuple[Any, ...]:
    bodies = [getattr(leaf, "_value", None) for leaf in leaves]
    places = [i for i, b in enumerate(bodies) if devices.travels(b)]
    arrived = dict(zip(places, stager.send([bodies[i] for i in places]), strict=True))
    for i, body in enumerate(bodies):
        if devices.is_device_array(body):
            arrived[i] = devices.dense(devices.move(body, backend))
    return tuple(Tensor(arrived[i]) if i in arrived else leaf for i, leaf in enumerate(leaves))
