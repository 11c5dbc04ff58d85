"""Indexing as CuPy does it: indices beyond an axis wrap around, a mask makes the host wait, and of
several values for one place it is not the last that stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cuda.stand_in.arrays import ndarray
from tests.cuda.stand_in.machine import gpu


def _basic(key: Any) -> bool:
    keys = key if isinstance(key, tuple) else (key,)
    plain = (int, np.integer, slice, type(None), type(Ellipsis))
    return all(isinstance(k, plain) and not isinstance(k, bool) for k in keys)


def get(a: ndarray, key: Any) -> Any:
    """`a[key]`: a view for numbers and slices, else a copy."""
    from tests.cuda.stand_in import functions

    host = a._alive()
    if _basic(key):
        keys = key if isinstance(key, tuple) else (key,)
        found = host[keys if Ellipsis in keys else (*keys, Ellipsis)]
        return ndarray._made(found, a)
    used: list[ndarray] = [a]
    wait_for_masks(key)
    where = host_key(key, a.shape, used)
    if not functions.deferred():
        with gpu.lock:
            gpu.launches.append("cupy.getitem")
            return functions._new(np.asarray(host[where]))
    shape = _shape(a, key)
    own = ndarray(shape, a.dtype)
    late = lambda: host_key(key, a.shape, [])  # noqa: E731
    functions.start("getitem", lambda: own._host.__setitem__(..., host[late()]), used, [own])
    return own


def _shape(a: ndarray, key: Any) -> tuple[int, ...]:
    """The shape of a part, from indices that are all 0."""
    keys = key if isinstance(key, tuple) else (key,)
    zeros = tuple(
        np.zeros(k.shape, int) if isinstance(k, ndarray) and k.dtype != bool else _plain(k)
        for k in keys
    )
    return np.broadcast_to(np.int8(0), a.shape)[zeros].shape


def _plain(k: Any) -> Any:
    return k._host if isinstance(k, ndarray) else k


def put(a: ndarray, key: Any, value: Any) -> None:
    """`a[key] = value`."""
    from tests.cuda.stand_in import functions

    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        value = functions.array(value, a.dtype)
    used: list[ndarray] = [a]
    given = functions.unwrap(value, used)
    host = a._alive()
    if not _basic(key):
        wait_for_masks(key)
    host_key(key, a.shape, used)

    def work() -> None:
        where = host_key(key, a.shape, [])
        with np.errstate(all="ignore"):
            own = np.asarray(given).astype(a.dtype)
            host[where] = own
            if not _basic(key):
                _first_stays(host, where, own)

    functions.start("setitem", work, used, [a])


def _first_stays(host: Any, where: Any, value: Any) -> None:
    """Store again in the other order, so that nothing can depend on which value stays."""
    if not host.flags.c_contiguous:
        return
    places = np.arange(host.size).reshape(host.shape)[where].reshape(-1)
    values = np.broadcast_to(value, np.shape(host[where])).reshape(-1)
    host.reshape(-1)[places[::-1]] = values[::-1]


def wait_for_masks(key: Any) -> None:
    """CuPy counts the elements of a mask on the host."""
    from tests.cuda.stand_in import functions

    keys = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, ndarray | np.ndarray) and k.dtype == bool for k in keys):
        gpu.wait_queue(gpu.queue(functions._stream()), "a mask as an index")


def host_key(key: Any, shape: tuple[int, ...], used: list[ndarray]) -> Any:
    """The key for NumPy, with indices inside the axes."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [np.asarray(k) if isinstance(k, list) else k for k in keys]
    taken = sum(_axes(k) for k in keys)
    axis, found = 0, []
    for k in keys:
        if isinstance(k, ndarray):
            used.append(k)
            k = k._alive()
        if isinstance(k, np.ndarray) and k.dtype.kind in "iu" and k.size:
            k = k % shape[axis] if shape[axis] else k
        axis += len(shape) - taken if k is Ellipsis else _axes(k)
        found.append(k)
    return tuple(found)


def _axes(k: Any) -> int:
    if k is None or k is Ellipsis or isinstance(k, bool):
        return 0
    mask = isinstance(k, ndarray | np.ndarray) and k.dtype == bool
    return k.ndim if mask else 1
