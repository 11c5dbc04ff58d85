"""`cupy.cuda.nccl`: sums over devices, by communicators of one process.

What hangs on real GPUs is a Fault here: a call outside of a group where several devices take part,
a group that some devices of a clique do not join, or in which they ask for different things.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

import ml_dtypes
import numpy as np

from tests.cuda.stand_in.machine import Fault, gpu

available = True
NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN, NCCL_AVG = range(5)
NCCL_INT8 = NCCL_CHAR = 0
NCCL_UINT8 = 1
NCCL_INT32 = NCCL_INT = 2
NCCL_UINT32, NCCL_INT64, NCCL_UINT64 = 3, 4, 5
NCCL_FLOAT16 = NCCL_HALF = 6
NCCL_FLOAT32 = NCCL_FLOAT = 7
NCCL_FLOAT64 = NCCL_DOUBLE = 8
NCCL_BFLOAT16 = 9
_NUMBERS = "int8 uint8 int32 uint32 int64 uint64 float16 float32 float64".split()
_DTYPES = (*map(np.dtype, _NUMBERS), np.dtype(ml_dtypes.bfloat16))
_COMBINE = (np.add, np.multiply, np.maximum, np.minimum)
_STATUS = {
    1: ("NCCL_ERROR_UNHANDLED_CUDA_ERROR", "unhandled cuda error"),
    4: ("NCCL_ERROR_INVALID_ARGUMENT", "invalid argument"),
    5: ("NCCL_ERROR_INVALID_USAGE", "invalid usage"),
}
_cliques = itertools.count(1)
_own = threading.local()


class NcclError(RuntimeError):
    """An error of NCCL, with its number."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(": ".join(_STATUS[status]))


def get_version() -> int:
    return 22707


get_build_version = get_version


class _Call:
    """One device's part of a sum."""

    def __init__(
        self, comm: NcclCommunicator, send: int, recv: int, count: int, kind: int, op: int,
        stream: int,
    ) -> None:  # fmt: skip
        self.comm, self.send, self.recv, self.count = comm, send, recv, count
        self.kind, self.op = kind, op
        nbytes = count * _DTYPES[kind].itemsize
        self.queue = gpu.queue(stream)
        if self.queue.device != comm._device:
            raise NcclError(1)
        for address in (send, recv):
            block = gpu.find(address, nbytes)
            if block is None or block.device != comm._device:
                raise NcclError(4)
        self.spans = [(send, nbytes), (recv, nbytes)]
        self.bytes = gpu.memory(send, nbytes), gpu.memory(recv, nbytes)

    @property
    def asks(self) -> tuple[int, int, int]:
        return self.count, self.kind, self.op


def _calls() -> list[_Call]:
    if not hasattr(_own, "calls"):
        _own.calls, _own.depth = [], 0
    return _own.calls  # type: ignore[no-any-return]


def groupStart() -> None:
    _calls()
    _own.depth += 1


def groupEnd() -> None:
    calls = _calls()
    if not _own.depth:
        raise NcclError(5)
    _own.depth -= 1
    if _own.depth:
        return
    _own.calls = []
    cliques: dict[int, list[list[_Call]]] = {}
    for call in calls:
        ranks = cliques.setdefault(call.comm._clique, [[] for _ in range(call.comm._size)])
        ranks[call.comm._rank].append(call)
    for ranks in cliques.values():
        if len({len(row) for row in ranks}) != 1:
            counts = [len(row) for row in ranks]
            raise Fault(f"NCCL hangs: the devices of a clique make {counts} calls in a group")
        for parts in zip(*ranks, strict=True):
            _start(parts)


def _start(parts: tuple[_Call, ...]) -> None:
    if len({part.asks for part in parts}) != 1:
        asked = [part.asks for part in parts]
        raise Fault(f"NCCL hangs: the devices of a clique ask for {asked} (count, dtype, op)")
    dtype, combine = _DTYPES[parts[0].kind], _COMBINE[parts[0].op]

    def work() -> None:
        total = parts[0].bytes[0].view(dtype).copy()
        for part in parts[1:]:
            with np.errstate(all="ignore"):
                total = combine(total, part.bytes[0].view(dtype)).astype(dtype)
        for part in parts:
            part.bytes[1].view(dtype)[...] = total

    spans = [span for part in parts for span in part.spans]
    name = f"nccl sum of {parts[0].count} {dtype.name} on {len(parts)}"
    gpu.together(name, work, [part.queue for part in parts], spans)


class NcclCommunicator:
    """One device of a clique."""

    _clique = _rank = _size = _device = 0

    def __init__(self, ndev: int, commId: Any, rank: int, config: Any = None) -> None:
        raise NotImplementedError("the emulation has cliques of one process only: initAll")

    @staticmethod
    def initAll(devices: Any) -> list[NcclCommunicator]:
        if not isinstance(devices, int | list):
            raise ValueError('"devices" should be an int or a list of int.')
        indices = list(range(devices)) if isinstance(devices, int) else devices
        if len(set(indices)) < len(indices):
            raise NcclError(5)  # duplicate GPU detected
        if any(not 0 <= i < gpu.devices for i in indices):
            raise NcclError(1)
        clique, made = next(_cliques), []
        for rank, index in enumerate(indices):
            comm = NcclCommunicator.__new__(NcclCommunicator)
            comm._clique, comm._rank, comm._size, comm._device = clique, rank, len(indices), index
            made.append(comm)
        return made

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        if any(type(v) is not int for v in (sendbuf, recvbuf, count, datatype, op, stream)):
            raise TypeError("an integer is required")
        if not 0 <= datatype < len(_DTYPES) or not 0 <= op < len(_COMBINE):
            raise NcclError(4)
        call = _Call(self, sendbuf, recvbuf, count, datatype, op, stream)
        calls = _calls()
        if not _own.depth:
            if self._size > 1:
                raise Fault("NCCL hangs: a call for one of several devices outside of a group")
            _start((call,))
            return
        calls.append(call)

    def device_id(self) -> int:
        return self._device

    def rank_id(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    def check_async_error(self) -> None:
        """Nothing fails behind the host's back."""

    def destroy(self) -> None:
        """Nothing is to be given back."""

    abort = destroy
