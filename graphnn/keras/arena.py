"""Variables of one dtype laid back to back in one array, so that one sweep updates them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.runtime import devices

GPU_ALIGN = 16  # bytes: kernels on a GPU read packs of this size from the start of each buffer


def lay_out(variables: Sequence[Any]) -> None:
    """Move the Variables' buffers, in order, into one new array for each device and dtype.

    Values, shapes and the Variables themselves stay; buffers do not move again afterwards.
    """
    groups: dict[Any, list[Any]] = {}
    copies = [c for v in variables for c in (v, *getattr(v, "copies", ())[1:])]
    for variable in {id(v): v for v in copies}.values():
        key = devices.backend_of(variable._buffer), variable.dtype
        groups.setdefault(key, []).append(variable)
    for (backend, dtype), group in groups.items():
        sizes = [int(np.prod(v.shape, dtype=np.int64)) for v in group]
        step = 1 if backend is devices.host else GPU_ALIGN // dtype.itemsize
        spaces = [-(-size // step) * step for size in sizes]
        arena = backend.empty((sum(spaces),), dtype)
        start = 0
        for variable, size, space in zip(group, sizes, spaces, strict=True):
            with backend.scope():
                part = arena[start : start + size].reshape(tuple(variable.shape))
            variable._rebind(part)
            start += space
