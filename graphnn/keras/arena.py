"""Variables of one dtype laid back to back in one array, so that one sweep updates them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.runtime import memory


def lay_out(variables: Sequence[Any]) -> None:
    """Move the Variables' buffers, in order, into one new array for each dtype.

    Values, shapes and the Variables themselves stay; buffers do not move again afterwards.
    """
    by_dtype: dict[Any, list[Any]] = {}
    for variable in {id(v): v for v in variables}.values():
        by_dtype.setdefault(variable.dtype, []).append(variable)
    for dtype, group in by_dtype.items():
        sizes = [int(np.prod(v.shape, dtype=np.int64)) for v in group]
        arena = memory.empty((sum(sizes),), dtype)
        start = 0
        for variable, size in zip(group, sizes, strict=True):
            view = arena[start : start + size].reshape(tuple(variable.shape))
            view[...] = variable._buffer
            variable._rebind(view)
            start += size
