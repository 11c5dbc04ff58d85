"""The host allocator: reuse, lifetimes, limits, and the ends of processes."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphnn.runtime import memory

F32 = np.dtype(np.float32)
LARGE = (1 << 20,)  # 4 MiB of f32


@pytest.fixture(autouse=True)
def start_empty() -> Iterator[None]:
    gc.collect()
    memory.empty_cache()
    yield


def large(fill: float | None = None) -> np.ndarray[Any, Any]:
    array = memory.empty(LARGE, F32)
    if fill is not None:
        array[:] = fill
    return array


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int8", "bool", "complex64", "M8[ns]", ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7, 5), (2000, 300), (3, 1 << 19)])
def test_is_an_ordinary_array(dtype: Any, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(dtype)
    array = memory.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[...] = np.zeros((), dtype)
    assert (array == np.zeros((), dtype)).all()


def test_objects_never_share_memory() -> None:
    array = memory.empty((1 << 18,), np.dtype(object))
    assert array[0] is None


def test_large_arrays_are_aligned() -> None:
    assert memory.address(large()) % (2 << 20) == 0
    assert memory.address(memory.empty((1 << 17,), F32)) % 4096 == 0


def test_block_comes_back() -> None:
    array = large()
    place = memory.address(array)
    hits = memory.memory_stats()["hits"]
    del array
    # A size a little smaller shares the block.
    again = memory.empty((LARGE[0] - 1000,), F32)
    assert memory.address(again) == place
    assert memory.memory_stats()["hits"] == hits + 1


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[5:],
        lambda a: a.reshape(1024, -1).T,
        lambda a: a[::2][::2].view(np.int32),
        lambda a: memoryview(a),
        lambda a: memoryview(a)[10:],
        lambda a: np.from_dlpack(a),
        lambda a: np.frombuffer(a, np.uint8),
        lambda a: a.base,
        lambda a: np.asarray(a.view(np.recarray)),
    ],
)
def test_views_keep_memory(view: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    array = large(1)
    place = memory.address(array)
    kept = view(array)
    del array
    gc.collect()
    other = large(2)
    assert memory.address(other) != place
    if isinstance(kept, np.ndarray) and kept.dtype == F32:
        assert (kept == 1).all()
    del kept
    gc.collect()
    assert memory.address(large()) == place


def test_cycles_are_collected() -> None:
    array = large()
    place = memory.address(array)
    holder: list[Any] = [array]
    holder.append(holder)
    del array, holder
    gc.collect()
    assert memory.address(large()) == place


def test_stats_and_emptying() -> None:
    before = memory.memory_stats()
    arrays = [large() for _ in range(3)]
    size = memory.memory_stats()["in_use"] - before["in_use"]
    assert size >= 3 * 4 * LARGE[0]
    del arrays
    stats = memory.memory_stats()
    assert stats["in_use"] == before["in_use"]
    assert stats["idle"] == size
    assert memory.empty_cache() == size
    assert memory.memory_stats()["idle"] == 0


def test_idle_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    large()
    monkeypatch.setattr(memory._arena, "idle_limit", 10 << 20)
    arrays = [large() for _ in range(8)]
    del arrays
    assert 0 < memory.memory_stats()["idle"] <= 10 << 20
    monkeypatch.setattr(memory._arena, "idle_limit", 0)
    large()
    assert memory.memory_stats()["idle"] == 0


def test_finaliser_does_not_wait_for_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    array = large()
    monkeypatch.setattr(memory._arena, "idle_limit", 0)
    with memory._arena.lock:
        del array  # as when the garbage collector runs inside the allocator
    assert memory.memory_stats()["idle"] > 0
    assert memory.empty_cache() > 0


def test_too_large_raises() -> None:
    with pytest.raises(MemoryError):
        memory.empty((1 << 60,), np.dtype(np.uint8))
    with pytest.raises(ValueError, match="negative"):
        memory.empty((-1, 5), F32)


def test_threads() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for i in range(200):
            sizes = ((1 << 17) + 4096 * (i % 5), 1 << 18)
            arrays = [memory.empty((size,), F32) for size in sizes]
            for array in arrays:
                array[::1024] = number
            if any((array[::1024] != number).any() for array in arrays):
                wrong.append(number)
            if i % 50 == 0:
                memory.empty_cache()

    before = memory.memory_stats()["in_use"]
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.memory_stats()["in_use"] == before


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("0", 0),
        ("0.5", 0.5),
        ("800M", 800 << 20),
        ("1.5GB", 3 << 29),
        ("123456", 123456),
        ("", 0.25),
        ("a lot", 0.25),
        ("nan", 0.25),
        ("-1", 0.25),
    ],
)
def test_limit_setting(setting: str, limit: float) -> None:
    total = memory._system_memory()
    wanted = int(limit * total) if isinstance(limit, float) else limit
    assert memory._idle_limit(setting) == wanted


def test_size_classes_waste_little() -> None:
    for nbytes in (262144, 262145, 300_000, 1 << 20, (2 << 20) + 1, 123_456_789, 1 << 40):
        size = memory._size_class(nbytes)
        assert nbytes <= size <= nbytes * 1.13 + 4096
        assert memory._size_class(size) == size


def test_address() -> None:
    for array in (np.zeros(3), np.zeros((4, 5))[1:, ::2], np.array(1.0), large(), np.zeros(0)):
        assert memory.address(array) == array.ctypes.data
    read_only = np.arange(3)
    read_only.flags.writeable = False
    assert memory.address(read_only) == read_only.ctypes.data


def test_arrays_outlive_the_interpreter(run_python: Callable[..., str]) -> None:
    code = """
import atexit, sys, numpy as np
from graphnn.runtime import memory
f32 = np.dtype("float32")
sys.kept = memory.empty((1 << 20,), f32)
class Late:
    def __del__(self):
        self.array = None
late = Late()
late.array = memory.empty((1 << 20,), f32)
late.self = late
atexit.register(lambda: memory.empty((1 << 20,), f32).fill(1))
gone = memory.empty((1 << 20,), f32)
del gone
"""
    assert run_python(code, GRAPHNN_CACHE_MEMORY="0") == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_write_into_its_parent() -> None:
    array = large(1)
    child = os.fork()
    if child == 0:
        array[:] = 2
        fresh = large(3)
        os._exit(0 if fresh[0] == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 1).all()
