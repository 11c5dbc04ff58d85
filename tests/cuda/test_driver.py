"""The driver's own decisions, on a stand-in for CuPy; what CuPy does needs a GPU (mark `gpu`)."""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import numpy as np
import pytest

from graphnn.runtime.cuda import device, driver
from graphnn.runtime.device import DeviceFacts, ProductRun


class Stream:
    """Remembers what was captured."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking, self.calls, self.ptr = non_blocking, [], 9
        STREAMS.append(self)

    calls: list[str]

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.calls.append("exit")

    def begin_capture(self) -> None:
        self.calls.append("begin")

    def end_capture(self) -> str:
        self.calls.append("end")
        return "graph"


STREAMS: list[Stream] = []
GRANTED: list[tuple[int, int]] = []
CLEARED: list[tuple[int, int]] = []


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> driver.CupyDriver:
    for found in (STREAMS, GRANTED, CLEARED):
        found.clear()
    low = types.SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        funcSetAttribute=lambda function, which, value: GRANTED.append((function, value)),
    )
    runtime = types.SimpleNamespace(
        memsetAsync=lambda place, value, nbytes, stream: CLEARED.append((place, nbytes))
    )
    cuda = types.SimpleNamespace(
        Stream=Stream, driver=low, runtime=runtime, get_current_stream=Stream
    )
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)  # type: ignore[arg-type]
    monkeypatch.setattr(driver, "facts", lambda index: DeviceFacts())
    return driver.CupyDriver()


def test_a_capture_is_ended_and_its_error_shown(own: driver.CupyDriver) -> None:
    def work() -> None:
        raise MemoryError("in the middle")

    with pytest.raises(MemoryError, match="in the middle"):
        own.capture(work)
    assert STREAMS[0].calls == ["begin", "end", "exit"] and STREAMS[0].non_blocking
    assert own._capturing is None
    assert own.capture(lambda: None) == "graph"


def test_much_shared_memory_is_asked_for_once(own: driver.CupyDriver) -> None:
    given: list[Any] = []
    function = types.SimpleNamespace(ptr=3)
    call = lambda *arguments: given.append(arguments)  # noqa: E731
    kernel = type("Kernel", (), {"ptr": function.ptr, "__call__": lambda self, *a: call(*a)})()
    for shared in (1000, 100 << 10, 100 << 10, 200 << 10):
        own.launch(kernel, 4, 64, shared, [ctypes.c_void_p(64), ctypes.c_int32(-7)])
    assert GRANTED == [(3, 100 << 10), (3, 200 << 10)]
    grid, block, arguments, shared = given[0]
    assert (grid, block, shared) == ((4, 1, 1), (64, 1, 1), 1000)
    assert [a.dtype for a in arguments] == [np.dtype("uint64"), np.dtype("int32")]


def test_a_product_over_nothing_is_zero(own: driver.CupyDriver) -> None:
    run = ProductRun(2, 3, 0, (False, False), ((0, 0, 0), (0, 0, 6)))
    own.product(run, np.dtype("float32"), [0, 0, 4096])
    assert CLEARED == [(4096, 24), (4096 + 24, 24)]


def test_without_a_gpu_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "why_not", lambda: "CuPy is not installed")
    with pytest.raises(device.DeviceError, match=r"(?s)CuPy is not installed.*pip install"):
        device.require_gpu("graphnn.device('/GPU:0')")
