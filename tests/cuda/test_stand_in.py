"""The emulated GPU is as strict as a real one: arrays, memory, streams, captures."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.cuda import stand_in
from tests.cuda.stand_in import CUDARuntimeError, Fault, Machine, functions

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())
FILL = (
    'extern "C" __global__ void __launch_bounds__(64) fill(float* x, const int n, float v) {{{}}}'
)
BODY = "for (int k = threadIdx.x; k < n; k += 64) x[k] = v;"


@pytest.fixture
def cp(emulated_gpu: Machine) -> Any:
    import cupy

    return cupy


@pytest.fixture
def lazy() -> Iterator[Machine]:
    with stand_in.emulated(lazy=True) as gpu:
        yield gpu


def kernel(body: str = BODY, defines: tuple[str, ...] = ()) -> Any:
    """A kernel as graphnn's own code compiles and loads it."""
    import cupy

    from graphnn.runtime.cuda import nvrtc

    module = cupy.cuda.Module()
    module.load(nvrtc.compile_cubin(FILL.format(body), "sm_90", defines))
    return module.get_function("fill")


def fill(function: Any, x: Any, value: float, **kwargs: Any) -> None:
    function((1,), (64,), (x, np.int32(x.size), np.float32(value)), **kwargs)


# ---- names ---------------------------------------------------------------------------------------


def test_every_name_is_one_of_the_real_library(cp: Any) -> None:
    import cupyx

    modules = {"cupy": cp, "cupy.linalg": cp.linalg, "cupy.cuda": cp.cuda}
    modules |= {"cupy.cuda.runtime": cp.cuda.runtime, "cupy.cuda.driver": cp.cuda.driver}
    modules |= {"cupy.cuda.memory": cp.cuda.memory, "cupyx": cupyx}
    modules |= {"cupyx.scipy.special": cupyx.scipy.special, "cupy.ndarray": cp.ndarray}
    for name in ("Device", "Event", "Function", "Graph", "MemoryPointer", "MemoryPool", "Module",
                 "PinnedMemoryPointer", "PinnedMemoryPool", "Stream"):  # fmt: skip
        modules[f"cupy.cuda.{name}"] = getattr(cp.cuda, name)
    for owner, thing in modules.items():
        known = functions.names()[owner].keys() | {"is_stand_in", "cuda", "linalg", "scipy", "name"}
        known |= {"memory", "stream", "runtime", "driver", "nccl"}
        ours = {n for n in vars(thing) if not n.startswith("_")}
        assert ours <= known, owner


@pytest.mark.skipif(
    importlib.util.find_spec("cupy") is None or stand_in.installed(), reason="CuPy is not installed"
)
def test_the_list_of_names_is_the_installed_librarys() -> None:
    import cupy

    from tests.cuda.stand_in import record

    for name, kind in functions.names()["cupy"].items():
        if "." not in name:
            assert record.kind(getattr(cupy, name)) == kind


# ---- arrays --------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Callable[[Any, Any], Any], type[Exception], str]] = [
    ("asarray", lambda cp, x: np.asarray(x), TypeError, "Implicit conversion"),
    ("operand", lambda cp, x: x + np.ones(3), TypeError, "Unsupported type .*numpy.ndarray"),
    ("left operand", lambda cp, x: np.ones(3) + x, TypeError, "Unsupported type"),
    ("in place", lambda cp, x: x.__iadd__(np.ones(3)), TypeError, "Unsupported type"),
    ("concatenate", lambda cp, x: cp.concatenate([x, np.ones(3)]), TypeError, "Unsupported type"),
    ("assign", lambda cp, x: x.__setitem__(0, np.ones(())), TypeError, "Unsupported type"),
    ("strings", lambda cp, x: cp.asarray(["a"]), ValueError, "Unsupported dtype"),
    ("objects", lambda cp, x: cp.empty(3, object), ValueError, "Unsupported dtype"),
    ("float8", lambda cp, x: cp.empty(3, ml_dtypes.float8_e4m3fn), ValueError, "Unsupported dtype"),
    ("index", lambda cp, x: range(x[0]), TypeError, "cannot be interpreted as an integer"),
    ("missing", lambda cp, x: cp.unstack(x), AttributeError, "unstack"),
    ("parameter", lambda cp, x: cp.sum(x, where=x > 0), TypeError, "where"),
    ("condition", lambda cp, x: cp.where(True, x, x), AttributeError, "astype"),
    ("truth", lambda cp, x: bool(x), ValueError, "ambiguous"),
    ("other dtype", lambda cp, x: x.set(np.ones(3, np.float64)), TypeError, "cannot be set"),
    ("other shape", lambda cp, x: x.set(np.ones(2, np.float32)), ValueError, "Shape mismatch"),
    ("cast", lambda cp, x: cp.add(x, x, out=cp.empty(3, "i4")), TypeError, "casting rule"),
    ("hash", lambda cp, x: hash(x), TypeError, "unhashable"),
    ("scatter", lambda cp, x: cp.add.at(short(cp, x), x.astype(int), 1), TypeError, "bfloat16"),
    ("list", lambda cp, x: x.__add__([1, 2, 3]) + 1, TypeError, "unsupported operand"),
]  # fmt: skip


def short(cp: Any, x: Any) -> Any:
    return x.astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(("call", "error", "text"), [r[1:] for r in REFUSED],
                         ids=[r[0] for r in REFUSED])  # fmt: skip
def test_refused(cp: Any, call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(cp, cp.ones(3, np.float32))


def test_promotion(cp: Any) -> None:
    x = cp.ones(3, np.float32)
    for value, dtype in ((1, "f4"), (1.5, "f4"), (np.float64(1), "f8"), (np.float16(1), "f4"),
                         (True, "f4")):  # fmt: skip
        assert (x + value).dtype == (value + x).dtype == dtype, value
    assert cp.exp(x.astype("i1")).dtype == "f2"
    assert cp.exp(x.astype("i4")).dtype == "f8"
    assert (x.astype("u1") + 0.5).dtype == np.result_type(np.uint8, 0.5)
    assert (short(cp, x) + 1).dtype == short(cp, x).dtype == cp.exp(short(cp, x)).dtype
    assert cp.where(x > 0, short(cp, x), short(cp, x)).dtype == "f4"  # it has no own loop
    with pytest.raises(OverflowError):
        x.astype("i1") + 300


def test_reductions_and_elements_are_arrays(cp: Any, emulated_gpu: Machine) -> None:
    x = cp.arange(6, dtype=np.float32).reshape(2, 3)
    with emulated_gpu.no_waits():
        assert isinstance(x.sum(), cp.ndarray) and x.sum().shape == () == x[0, 1].shape
        assert isinstance(cp.array_equal(x, x), cp.ndarray)
    with pytest.raises(Fault, match="waits for the device"), emulated_gpu.no_waits():
        float(x.sum())
    with pytest.raises(Fault, match="waits"), emulated_gpu.no_waits():
        x[x > 2]
    with pytest.raises(Fault, match="waits"), emulated_gpu.no_waits():
        cp.nonzero(x)


def test_indices_beyond_an_axis_wrap(cp: Any) -> None:
    x = cp.arange(4)
    np.testing.assert_array_equal(x[cp.asarray([5, -1, -6])].get(), [1, 3, 2])
    np.testing.assert_array_equal(cp.take(x, cp.asarray([4, 9])).get(), [0, 1])
    x[cp.asarray([0, 0])] = cp.asarray([7, 8])
    assert int(x[0]) == 7  # NumPy's 8 is what nobody may rely on


def test_conversions_saturate(cp: Any) -> None:
    x = cp.asarray([1e20, -1e20, np.nan, 2.7], np.float32)
    np.testing.assert_array_equal(x.astype("i4").get(), [2**31 - 1, -(2**31), 0, 2])


def test_views_share_memory(cp: Any) -> None:
    x = cp.zeros((3, 4), np.float32)
    parts = [x.T, x[1:], x.reshape(4, 3), x.ravel(), cp.broadcast_to(x, (2, 3, 4)), x[..., ::2]]
    assert all(p.base is x and p.data.mem is x.data.mem for p in parts)
    assert parts[1].data.ptr == x.data.ptr + 16
    assert x.copy().base is None and x.T.reshape(12).base is None
    x[1:] += 1
    assert float(parts[0].sum()) == 8


def test_numpy_functions_are_handed_over(cp: Any) -> None:
    x = cp.ones(3, np.float32)
    assert isinstance(np.exp(x), cp.ndarray) and isinstance(np.sum(x), cp.ndarray)
    assert isinstance(np.float32(2) * x, cp.ndarray)


# ---- memory --------------------------------------------------------------------------------------


def test_memory_holds_poison_before_and_after(cp: Any) -> None:
    x = cp.empty(5, np.uint8)
    view, block = x._host, x.data.mem.block
    assert (view == 255).all() and x.data.ptr % 256 == 0
    x.fill(0)
    assert not view.any()
    del x
    assert not block.live and (view == 255).all()


def test_the_pool_counts(cp: Any) -> None:
    pool = cp.get_default_memory_pool()
    x = cp.empty(1000, np.uint8)
    assert pool.used_bytes() == pool.total_bytes() == 1024 and cp.empty(0).data.ptr == 0
    place = x.data.ptr
    del x
    assert pool.used_bytes() == 0 and pool.free_bytes() == 1024 and pool.n_free_blocks() == 1
    assert cp.empty(999, np.uint8).data.ptr == place
    pool.free_all_blocks()
    assert pool.total_bytes() == 0
    pool.set_limit(size=2048)
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="limit set to: 2,048 bytes"):
        cp.empty(4096, np.uint8)
    free, total = cp.cuda.runtime.memGetInfo()
    assert free == total


def test_the_device_is_full_at_some_point(cp: Any, emulated_gpu: Machine) -> None:
    emulated_gpu.chip = stand_in.Chip(memory_bytes=1 << 20)
    kept = cp.empty(600_000, np.uint8)
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="Out of memory"):
        cp.empty(600_000, np.uint8)
    del kept
    cp.empty(900_000, np.uint8)  # the pool gives back what it keeps


def test_writes_beside_an_array_are_found(cp: Any) -> None:
    beyond = kernel("x[n] = v;")
    with pytest.raises(Fault, match="wrote outside"):
        fill(beyond, cp.zeros(5, np.float32), 1)


def test_the_use_of_freed_memory_is_found(cp: Any) -> None:
    own = kernel()
    x = cp.zeros(4, np.float32)
    address = np.uint64(x.data.ptr)
    del x
    with pytest.raises(Fault, match="memory that was freed"):
        own((1,), (64,), (address, np.int32(4), np.float32(1)))
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalAddress"):
        own((1,), (64,), (np.uint64(4096), np.int32(4), np.float32(1)))


def test_pinned_memory_is_a_buffer(cp: Any, lazy: Machine) -> None:
    import cupy

    pinned = cupy.cuda.alloc_pinned_memory(16)
    host = np.frombuffer(pinned, np.float32, 4)
    x = cupy.empty(4, np.float32)
    host[:] = 1
    x.set(host)
    host[:] = 2  # too early: the copy has not run
    np.testing.assert_array_equal(x.get(), 2)
    pageable = np.ones(4, np.float32)
    x.set(pageable)
    pageable[:] = 2
    np.testing.assert_array_equal(x.get(), 1)


# ---- kernels -------------------------------------------------------------------------------------


def test_a_kernel_runs(cp: Any, emulated_gpu: Machine) -> None:
    x = cp.zeros(100, np.float32)
    fill(kernel(), x, 3)
    np.testing.assert_array_equal(x.get(), 3)
    assert emulated_gpu.launches.count("fill") == 1


def test_launches_are_checked(cp: Any) -> None:
    own, x = kernel(), cp.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match="OUT_OF_RESOURCES"):
        own((1,), (128,), (x, np.int32(4), np.float32(1)))
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        fill(own, x, 1, shared_mem=100 << 10)
    cp.cuda.driver.funcSetAttribute(own.ptr, 8, 100 << 10)
    fill(own, x, 1, shared_mem=100 << 10)
    with pytest.raises(Fault, match="takes parameters"):
        own((1,), (64,), (x, np.int64(4), np.float32(1)))
    with pytest.raises(TypeError, match="of shape"):
        own((1,), (64,), (np.zeros(4), np.int32(4), np.float32(1)))
    with pytest.raises(RuntimeError, match="NOT_FOUND"):
        own.module.get_function("other")


def test_code_of_another_architecture_is_refused(cp: Any) -> None:
    from graphnn.runtime.cuda import nvrtc

    code = nvrtc.compile_cubin(FILL.format(BODY), "sm_80")
    with pytest.raises(RuntimeError, match="NO_BINARY_FOR_GPU"):
        cp.cuda.Module().load(code)


# ---- streams and captures ------------------------------------------------------------------------


def test_nothing_runs_before_somebody_waits(lazy: Machine) -> None:
    import cupy as cp

    x = cp.zeros(4, np.float32)
    y = cp.exp(x) + x.sum()
    z = cp.concatenate([y, y[1:]]).reshape(7, 1)
    assert (x._host != 0).all() and z.shape == (7, 1)
    np.testing.assert_array_equal(z.get(), np.ones((7, 1)))


def test_streams_are_ordered_by_events_only(lazy: Machine) -> None:
    import cupy as cp

    first, second = (cp.cuda.Stream(non_blocking=True) for _ in range(2))
    x = cp.empty(4, np.float32)
    cp.cuda.Device().synchronize()
    with first:
        x.fill(1)
        done = first.record()
    with second:
        late = x + 1
        second.synchronize()
        assert np.isnan(late._host).all()  # the other stream has not run
        second.wait_event(done)
        assert float((x + 1).sum()) == 8


def test_a_function_of_the_host_holds_its_stream(cp: Any) -> None:
    gate: list[int] = []
    stream, x = cp.cuda.Stream(non_blocking=True), cp.zeros(3, np.float32)
    with stream:
        stream.launch_host_func(gate.append, 1)
        y = cp.add(x, 1)
        assert not gate and np.isnan(y._host).all()
        np.testing.assert_array_equal(y.get(), 1)
    assert gate == [1]


def test_stream_0_waits_for_blocking_streams(lazy: Machine) -> None:
    import cupy as cp

    x, other = cp.empty(4, np.float32), cp.cuda.Stream()
    with other:
        x.fill(1)
    assert float(x.sum()) == 4


def capture(cp: Any, work: Callable[[], None], **kwargs: Any) -> Any:
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture(**kwargs)
        try:
            work()
        except BaseException:
            with pytest.raises(CUDARuntimeError):
                stream.end_capture()
            raise
        return stream.end_capture()


def test_a_capture_records_and_replays(cp: Any) -> None:
    both, own = [cp.zeros(4, np.float32) for _ in range(2)], kernel()

    def work() -> None:
        fill(own, both[0], 5)
        both[1].data.copy_from_device_async(both[0].data, both[0].nbytes)
        cp.add(both[1], 1, out=both[1])

    graph = capture(cp, work)
    assert float(both[0].sum()) == 0
    graph.launch()
    np.testing.assert_array_equal(both[1].get(), 6)
    both.pop(0)
    with pytest.raises(Fault, match="memory that was freed"):
        graph.launch()


BROKEN: dict[str, Callable[[Any, Any], Any]] = {
    "wait": lambda cp, x: cp.cuda.get_current_stream().synchronize(),
    "device": lambda cp, x: cp.cuda.Device().synchronize(),
    "mask": lambda cp, x: x[x > 0],
    "nonzero": lambda cp, x: cp.nonzero(x),
}


@pytest.mark.parametrize("call", BROKEN.values(), ids=BROKEN)
def test_waiting_breaks_a_capture(cp: Any, call: Any) -> None:
    x = cp.zeros(4, np.float32)
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        capture(cp, lambda: call(cp, x))


def test_transfers_are_refused_in_a_capture(cp: Any) -> None:
    x = cp.zeros(4, np.float32)
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="H2D transfers are disallowed"):
            x.set(np.ones(4, np.float32))
        with pytest.raises(RuntimeError, match="D2H transfers are disallowed"):
            x.get()
        stream.end_capture()


def test_memory_in_a_capture(cp: Any) -> None:
    """CuPy captures in the mode in which cudaMalloc is allowed; the strictest one forbids it."""
    capture(cp, lambda: cp.empty(1 << 20))
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        capture(cp, lambda: cp.empty(3 << 20), mode=cp.cuda.runtime.streamCaptureModeGlobal)


def test_stream_0_may_not_be_used_while_a_blocking_stream_captures(cp: Any) -> None:
    x, stream = cp.zeros(4, np.float32), cp.cuda.Stream()
    with stream:
        stream.begin_capture()
        with cp.cuda.Stream.null, pytest.raises(CUDARuntimeError, match="CaptureImplicit"):
            x.fill(1)
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()


def test_a_second_stream_joins_a_capture(cp: Any) -> None:
    x, y = cp.zeros(4, np.float32), cp.zeros(4, np.float32)
    one, two = (cp.cuda.Stream(non_blocking=True) for _ in range(2))
    for joined in (True, False):
        with one:
            one.begin_capture()
            x.fill(1)
            two.wait_event(one.record())
            with two:
                cp.add(x, 1, out=y)
            if joined:
                one.wait_event(two.record())
                one.end_capture().launch()
                one.synchronize()
                np.testing.assert_array_equal(y.get(), 2)
            else:
                with pytest.raises(CUDARuntimeError, match="CaptureUnjoined"):
                    one.end_capture()


# ---- several devices -----------------------------------------------------------------------------


def test_devices_have_their_own_memory() -> None:
    with stand_in.emulated(devices=2):
        import cupy as cp

        assert cp.cuda.runtime.getDeviceCount() == 2
        with cp.cuda.Device(1):
            x = cp.ones(3, np.float32)
            stream = cp.cuda.Stream()
        assert x.device == cp.cuda.Device(1) and float(x.get().sum()) == 3
        with pytest.raises(ValueError, match="Peer access is unavailable"):
            x + 1
        with pytest.raises(RuntimeError, match="does not match with the current device"), stream:
            pass
        with pytest.raises(CUDARuntimeError, match="invalid device ordinal"):
            cp.cuda.Device(2).use()


def test_no_device() -> None:
    from graphnn.runtime.cuda import device

    with stand_in.emulated(devices=0):
        assert "no CUDA-capable device" in device.why_not()
    with stand_in.emulated():
        assert not device.why_not()
        assert device.facts().architecture == "sm_90"


def test_a_machine_within_another_leaves_it_as_it_was(cp: Any, emulated_gpu: Machine) -> None:
    x = cp.ones(3, np.float32)
    with stand_in.emulated(devices=2, lazy=True):
        import cupy

        assert cupy is not cp
        other = cupy.ones(5)
    import cupy

    assert cupy is cp and not emulated_gpu.lazy and emulated_gpu.devices == 1
    del other
    used = cp.get_default_memory_pool().used_bytes()
    assert used == 512
    assert float((x + 1).sum()) == 6
