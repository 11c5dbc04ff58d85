"""The modules that `install` puts in place."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.cuda.stand_in import cuda, functions, memory, nccl, package
from tests.cuda.stand_in.arrays import ndarray
from tests.cuda.stand_in.ufuncs import ufunc

CONSTANTS = "e euler_gamma inf nan newaxis pi".split()
TYPES = (
    "bool_ complex128 complex64 complexfloating dtype float16 float32 float64 floating generic "
    "inexact int16 int32 int64 int8 int_ integer intp number signedinteger uint16 uint32 uint64 "
    "uint8 unsignedinteger finfo iinfo".split()
)
CUDA = "Device Event ExternalStream Function Graph Module Stream get_current_stream " \
       "get_elapsed_time is_available alloc_pinned_memory runtime driver".split()  # fmt: skip
MEMORY = "BaseMemory Memory MemoryPointer MemoryPool PinnedMemory PinnedMemoryPointer " \
         "PinnedMemoryPool UnownedMemory alloc get_allocator set_allocator " \
         "using_allocator".split()  # fmt: skip


def build() -> dict[str, types.ModuleType]:
    """All modules by name."""
    found = _cupy()
    found |= _nvmath()
    if importlib.util.find_spec("tests.cuda.stand_in.cudnn") is not None:
        found |= importlib.import_module("tests.cuda.stand_in.cudnn").modules()
    return found


def _cupy() -> dict[str, types.ModuleType]:
    pool, pinned = memory.MemoryPool(), memory.PinnedMemoryPool()
    memory._State.allocator = pool.malloc
    low: dict[str, Any] = {n: getattr(memory, n) for n in MEMORY}
    low |= {n: getattr(cuda, n) for n in CUDA}
    of_streams = "Event ExternalStream Stream get_current_stream get_elapsed_time".split()
    stream = package("cupy.cuda.stream", **{n: low[n] for n in of_streams})
    of_memory = [n for n in MEMORY if "inned" not in n and n != "using_allocator"]
    kept = package("cupy.cuda.memory", **{n: low[n] for n in of_memory})
    kept.OutOfMemoryError = memory.OutOfMemoryError  # type: ignore[attr-defined]
    kept.PooledMemory = memory.PooledMemory  # type: ignore[attr-defined]
    runtime = package("cupy.cuda.runtime", **_public(cuda.runtime))
    driver = package("cupy.cuda.driver", **_public(cuda.driver))
    nccl_module = package("cupy.cuda.nccl", **_public(nccl))
    low |= {"runtime": runtime, "driver": driver, "memory": kept, "stream": stream}
    low["nccl"] = nccl_module
    cuda_module = package("cupy.cuda", **low)
    linalg = package("cupy.linalg", **_some(functions.names()["cupy.linalg"], functions.linalg),
                     LinAlgError=np.linalg.LinAlgError)  # fmt: skip
    cupy = package("cupy", **_namespace(), cuda=cuda_module, linalg=linalg, is_stand_in=True)
    cupy.__version__ = "14.2.0"  # type: ignore[attr-defined]
    cupy.get_default_memory_pool = lambda: pool  # type: ignore[attr-defined]
    cupy.get_default_pinned_memory_pool = lambda: pinned  # type: ignore[attr-defined]
    special = package(
        "cupyx.scipy.special", **_some(functions.names()["cupyx.scipy.special"], functions.special)
    )
    scipy = package("cupyx.scipy", special=special)
    cupyx = package("cupyx", scipy=scipy, errstate=_errstate, empty_pinned=_empty_pinned)
    modules = (cupy, cuda_module, linalg, runtime, driver, kept, stream, nccl_module, cupyx, scipy,
               special)  # fmt: skip
    return {m.__name__: m for m in modules}


def _namespace() -> dict[str, Any]:
    found = _some(functions.names()["cupy"], functions.lookup)
    found |= {n: getattr(np, n) for n in CONSTANTS + TYPES}
    found |= {"bool": np.bool_, "ndarray": ndarray, "ufunc": ufunc}
    return found


def _some(names: dict[str, str], lookup: Any) -> dict[str, Any]:
    found = {n: lookup(n) for n in names if "." not in n}
    return {n: f for n, f in found.items() if f is not None}


def _public(owner: Any) -> dict[str, Any]:
    return {n: getattr(owner, n) for n in dir(owner) if not n.startswith("_")}


def _empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    pointer = cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(pointer, dtype, count).reshape(shape, order=order)  # type: ignore


@contextlib.contextmanager
def _errstate(**kinds: Any) -> Iterator[None]:
    """What CuPy does about errors; the emulation always goes on, which is the default."""
    yield


def _nvmath() -> dict[str, types.ModuleType]:
    if importlib.util.find_spec("tests.cuda.stand_in.cublaslt") is None:
        return {}
    return importlib.import_module("tests.cuda.stand_in.cublaslt").modules()  # type: ignore
