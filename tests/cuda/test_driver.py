"""The driver's own decisions, on the emulated GPU; what CuPy does needs a real one (mark `gpu`)."""

from __future__ import annotations

import ctypes
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.codegen.cuda_program import build_device_program
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.cuda import device, nvrtc
from graphnn.runtime.cuda.driver import CupyDriver, _load
from graphnn.runtime.cuda.execute import DeviceExecutable
from graphnn.runtime.cuda.pieces import Arguments
from graphnn.runtime.device import ProductRun
from tests.codegen.traced import trace
from tests.cuda import stand_in

needed = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())


@pytest.fixture
def own(emulated_gpu: stand_in.Machine) -> CupyDriver:
    return CupyDriver()


@needed
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_capture_is_ended_and_its_error_shown(
    error: type[BaseException], own: CupyDriver, emulated_gpu: stand_in.Machine
) -> None:
    array = own.empty((4,), np.dtype(np.float32))

    def work() -> None:
        own.copy(array, array)
        raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        own.capture(work)
    assert all(q.capture is None for q in emulated_gpu.queues.values())
    graph = own.capture(lambda: own.copy(array, array))
    own.replay(graph)
    assert emulated_gpu.launches[-1] == "graph of 1"


@needed
def test_a_capture_knows_the_stream_that_replays(own: CupyDriver) -> None:
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        seen: list[tuple[int, int]] = []
        own.capture(lambda: seen.append((own.stream, cupy.cuda.get_current_stream().ptr)))
        assert own.stream == stream.ptr == seen[0][0] != seen[0][1]
    assert own.stream == 0


@needed
def test_much_shared_memory_is_asked_for_once(
    own: CupyDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cupy.cuda import driver as low

    granted: list[tuple[int, int]] = []
    started: list[Any] = []
    monkeypatch.setattr(
        low, "funcSetAttribute", lambda function, which, value: granted.append((function, value))
    )
    own._start = lambda *arguments: started.append(arguments)
    kernel = types.SimpleNamespace(ptr=3)
    given = Arguments([ctypes.c_void_p(64), ctypes.c_int32(-7)])
    for shared in (1000, 100 << 10, 100 << 10, 200 << 10):
        own.launch(kernel, 4, 64, shared, given)
    assert granted == [(3, 100 << 10), (3, 200 << 10)]
    function, *grid, shared, stream, place, extra = started[0]
    assert (function, grid, shared, stream, extra) == (3, [4, 1, 1, 64, 1, 1], 1000, 0, 0)
    words = (ctypes.c_void_p * 2).from_address(place)
    assert ctypes.c_uint64.from_address(words[0] or 0).value == 64
    assert ctypes.c_int32.from_address(words[1] or 0).value == -7


@needed
def test_a_product_over_nothing_is_zero(own: CupyDriver) -> None:
    a, b = (own.empty(s, np.dtype(np.float32)) for s in ((2, 0), (0, 3)))
    c = own.empty((2, 3), np.dtype(np.float32))
    own.library(ProductRun(2, 3, 0, (False, False), (0, 3, 3)), [own.address(v) for v in (a, b, c)])
    np.testing.assert_array_equal(own.download(c), np.zeros((2, 3)))


@needed
def test_results_are_held_by_arrays_and_views(own: CupyDriver) -> None:
    buffer = own.buffer((4, 3), np.dtype(np.float32))
    assert not buffer.held()
    array = buffer.lend((4, 3))
    assert buffer.held() and own.address(array) == buffer.address
    for view in (lambda x: x[1:], lambda x: x.reshape(-1), lambda x: x.T):
        part = view(buffer.lend((12,)).reshape(4, 3))
        del array
        assert buffer.held()
        array = part
    del array, part
    assert not buffer.held()


@needed
def test_programs_run_on_their_own_gpu() -> None:
    with stand_in.emulated(devices=2):
        import cupy

        graph, _ = trace(lambda t, x: t.ops.cumsum(t.ops.exp(x), axis=0), (6, 3))
        built = build_device_program(Pipeline().run(graph))
        x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
        for index in (1, 0):
            run = DeviceExecutable(built.device, CupyDriver(index))
            with cupy.cuda.Device(index):
                given = cupy.asarray(x)
            for _ in range(3):
                (got,) = run.run([given])
                run.wait()
            assert got.data.device_id == index
            np.testing.assert_allclose(got.get(), np.exp(x).cumsum(0), rtol=1e-5)


def test_without_a_gpu_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "why_not", lambda: "CuPy is not installed")
    with pytest.raises(device.DeviceError, match=r"(?s)CuPy is not installed.*pip install"):
        device.require_gpu("graphnn.device('/GPU:0')")


@needed
def test_a_kernel_starts_in_a_new_thread(own: CupyDriver) -> None:
    """The driver's launch call knows no GPU there until the runtime was called."""
    graph, _ = trace(lambda t, x: t.ops.exp(x), (6, 3))
    run = DeviceExecutable(build_device_program(Pipeline().run(graph)).device, own)
    given = own.empty((6, 3), np.dtype(np.float32))
    own.upload(given, np.zeros((6, 3), np.float32))
    run.run([given])
    with ThreadPoolExecutor(1) as pool:
        (got,) = pool.submit(run.run, [given]).result()
    np.testing.assert_array_equal(own.download(got), np.ones((6, 3), np.float32))


@needed
def test_code_that_the_driver_is_too_old_for(
    own: CupyDriver, emulated_gpu: stand_in.Machine
) -> None:
    code = nvrtc.compile_cubin('extern "C" __global__ void k() {}', "sm_80")
    with pytest.raises(device.DeviceError, match=r"(?s)NO_BINARY.*NVRTC 99\.1.*CUDA 13\.0"):
        _load(cupy_module(), code)


def cupy_module() -> Any:
    import cupy

    return cupy.cuda.Module()


@needed
def test_few_works_are_behind_a_gate_at_a_time(
    own: CupyDriver, emulated_gpu: stand_in.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue would make a library wait with Python's lock, which the gate needs to open."""
    monkeypatch.setattr("graphnn.runtime.cuda.driver.BEHIND_GATE", 3)
    started: list[int] = []
    works = [lambda k=k: started.append(k) for k in range(8)]
    before = len(emulated_gpu.waits)
    assert len(own.times(works, True)) == 8  # type: ignore[arg-type]
    assert started == list(range(8)) and len(emulated_gpu.waits) - before == 3
