"""Sums over GPUs by NCCL, through CuPy: all of one call in one group, from one thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

Array = Any
Member = tuple[Any, Any, Array]
"""A GPU's backend, its stream, and its array, which gets the sum."""

_NAMES = {
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "float32": "FLOAT32",
    "float64": "FLOAT64",
}
_lock = threading.Lock()
_communicators: dict[tuple[int, ...], list[Any]] = {}
_refused: dict[tuple[int, ...], str] = {}


def why_not(indices: tuple[int, ...] = ()) -> str:
    """Why NCCL is not used, or the empty string.

    indices: numbers of the GPUs that are to work together, which makes their communicators.
    """
    if indices in _communicators:
        return ""
    try:
        from cupy.cuda import nccl
    except ImportError as error:
        return f"CuPy has no NCCL: {error}"
    if not getattr(nccl, "available", False):
        return "CuPy finds no NCCL: pip install nvidia-nccl-cu13 (or nvidia-nccl-cu12)"
    if not indices:
        return ""
    with _lock:
        if indices not in _communicators and indices not in _refused:
            try:
                _communicators[indices] = nccl.NcclCommunicator.initAll(list(indices))
            except nccl.NcclError as error:
                _refused[indices] = f"NCCL refuses GPUs {', '.join(map(str, indices))}: {error}"
    return _refused.get(indices, "")


def forget() -> None:
    """Drop all communicators: the GPUs are others now."""
    with _lock:
        _communicators.clear()
        _refused.clear()


def all_reduce(groups: Sequence[Sequence[Member]]) -> None:
    """Replace the arrays of each group by their sum, all in one launch for each GPU.

    The arrays of a group have one dtype and size, and are on different GPUs. Everything is ordered
    with the streams given; nothing waits. Equal inputs give equal bits, the same ones on all GPUs.
    """
    from cupy.cuda import nccl

    nccl.groupStart()
    try:
        for members in groups:
            found = _communicators[tuple(backend.index for backend, _, _ in members)]
            for (backend, stream, array), own in zip(members, found, strict=True):
                kind = getattr(nccl, f"NCCL_{_NAMES[array.dtype.name]}")
                place = array.data.ptr
                with backend.scope():
                    own.allReduce(place, place, array.size, kind, nccl.NCCL_SUM, stream.ptr)
    finally:
        nccl.groupEnd()
