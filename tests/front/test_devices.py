"""Devices as the user sees them, on an emulated GPU and without one."""

from __future__ import annotations

import copy
import linecache
import pickle
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.runtime import devices
from graphnn.runtime.cuda.device import DeviceError, why_not
from graphnn.runtime.errors import ArgumentError, OutOfRangeError
from graphnn.runtime.settings import settings
from tests import house
from tests.cuda import stand_in

GPU, CPU = "/device:GPU:0", "/device:CPU:0"


@pytest.fixture
def default_gpu(emulated_gpu: Any) -> Iterator[Any]:
    graphnn.config.set_default_device("GPU")
    yield emulated_gpu
    graphnn.config.set_default_device("CPU")


@pytest.fixture
def gpu(emulated_gpu: Any) -> Any:
    graphnn.debugging.forget_copies()
    return emulated_gpu


def copied() -> list[str]:
    return [c.what for c in graphnn.debugging.copies()]


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["gpu", "GPU:0", "/GPU:0", "/gpu:0", "/device:GPU:0", "cuda:0", "cuda"]
)
def test_spellings(gpu: Any, name: str) -> None:
    with graphnn.device(name):
        assert graphnn.zeros(2).device == GPU
    assert graphnn.zeros(2).device == CPU


def test_devices_are_listed_hidden_and_split(gpu: Any) -> None:
    config = graphnn.config
    (physical,) = config.list_physical_devices("GPU")
    assert [d.name for d in config.list_physical_devices()] == [
        "/physical_device:CPU:0",
        "/physical_device:GPU:0",
    ]
    parts = [config.LogicalDeviceConfiguration(memory_limit=n) for n in (16, 8)]
    config.set_logical_device_configuration(physical, parts)
    assert [d.name for d in config.list_logical_devices("GPU")] == [GPU, "/device:GPU:1"]
    with graphnn.device("/GPU:1"):
        assert graphnn.zeros(2).device == GPU  # the first part: they are one GPU
    assert devices.gpu(0).memory_limit() == 24 << 20
    config.set_logical_device_configuration(physical, None)
    assert devices.gpu(0).memory_limit() > 24 << 20
    config.set_visible_devices([], "GPU")
    assert not config.list_logical_devices("GPU") and config.get_visible_devices("GPU") == []
    with pytest.raises(ArgumentError, match="CPU:0"):
        graphnn.device("/GPU:0")
    config.set_visible_devices(physical, "GPU")
    with pytest.raises(ArgumentError, match="GPU:3"):
        graphnn.device("/GPU:3")


@pytest.mark.skipif(not why_not(), reason="this machine has a GPU")
def test_without_a_gpu_the_error_says_what_to_install() -> None:
    with pytest.raises(DeviceError, match="CuPy") as caught:
        graphnn.device("/GPU:0")
    assert "pip install 'graphnn[cuda13]'" in str(caught.value)
    assert "test_devices.py" in str(caught.value)
    for ask in (lambda: graphnn.zeros(2).gpu(), lambda: graphnn.zeros(2, device="cuda")):
        with pytest.raises(DeviceError, match="pip install"):
            ask()
    assert graphnn.config.list_physical_devices("GPU") == [] and not devices.used


# ---- where things are and run -------------------------------------------------------------------


def test_an_op_follows_its_inputs(gpu: Any) -> None:
    x = graphnn.constant([1.0, 2.0])
    y = x.gpu()
    assert (x.device, y.device, (y + 1.0).device, (2.0 * x).device) == (CPU, GPU, GPU, CPU)
    assert not copied()  # asked for, or a number
    z = x + y
    assert z.device == GPU and z.tolist() == [2.0, 4.0]
    (entry,) = graphnn.debugging.copies()
    assert entry.nbytes == 8 and entry.loc is not None and "test_devices.py" in str(entry)
    with graphnn.device("CPU"):
        assert (y * y).device == CPU
    assert len(copied()) == 2


def test_the_default_device(default_gpu: Any) -> None:
    assert graphnn.config.get_default_device() == GPU
    assert graphnn.constant(1.0).device == graphnn.constant([[1.0]]).device == GPU
    assert graphnn.Variable(3.0).device == graphnn.zeros((2, 2)).device == GPU
    with graphnn.device("/CPU:0"):
        x = graphnn.constant([1.0])
    assert (x * 2.0 + 1.0).device == CPU
    assert graphnn.ones(2, device="cpu").device == CPU
    assert graphnn.constant("text").device == CPU
    assert graphnn.strings.upper(graphnn.constant(["a"])).device == CPU
    doubled = graphnn.data.Dataset.range(2).map(lambda n: n * graphnn.constant([2]))
    with graphnn.device("GPU"):
        assert [x.device for x in doubled] == [CPU, CPU]


def test_leaving_the_gpu(gpu: Any) -> None:
    x = graphnn.constant([[1.0, 2.0]]).gpu()
    assert x.numpy().tolist() == x.tolist() == np.asarray(x).tolist() == [[1.0, 2.0]]
    assert float(x[0, 1]) == x[0, 0].item() * 2 == 2.0
    assert "device='/device:GPU:0'" in repr(x) and f"{x[0, 1]:.1f}" == "2.0"
    assert x.cpu().device == CPU and x.to_device(GPU) is x and x.cpu().gpu().tolist() == [[1, 2]]
    assert pickle.loads(pickle.dumps(x)).tolist() == [[1.0, 2.0]]
    assert copy.deepcopy(x).device == GPU
    turned = graphnn.transpose(graphnn.cast(graphnn.constant([[1.0, 2.0]]), "bfloat16").gpu())
    assert turned.tolist() == turned.cpu().tolist() == [[1.0], [2.0]]
    assert np.mean(x) == 1.5 and np.add(x.cpu(), 1).tolist() == [[2.0, 3.0]]


def test_a_gradient_goes_back_through_a_copy(gpu: Any) -> None:
    x = graphnn.constant([1.0, 2.0])
    with graphnn.GradientTape() as tape:
        tape.watch(x)
        y = graphnn.sum(graphnn.square(x.gpu()).cpu() * 3.0)
    assert tape.gradient(y, x).tolist() == [6.0, 12.0]


def test_sharing_with_cupy(gpu: Any) -> None:
    import cupy

    array = cupy.arange(4, dtype="float32")
    shared, own = graphnn.asarray(array, copy=False), graphnn.asarray(array)
    assert shared.device == own.device == GPU
    interface = shared.__cuda_array_interface__
    assert interface["data"][0] == array.data.ptr != own.__cuda_array_interface__["data"][0]
    assert graphnn.from_dlpack(array).__cuda_array_interface__["data"][0] == array.data.ptr
    assert shared.__dlpack_device__() == (2, 0) and graphnn.zeros(1).__dlpack_device__() == (1, 0)
    assert graphnn.function(lambda x: x + 1.0)(array).tolist() == [1, 2, 3, 4]
    assert not hasattr(graphnn.zeros(1), "__cuda_array_interface__")
    variable = graphnn.Variable(own)
    given = cupy.asarray(variable.value())
    variable.assign_add(graphnn.ones(4))
    assert given.get().tolist() == [0, 1, 2, 3]


# ---- Variables ----------------------------------------------------------------------------------


def test_variables_live_on_the_gpu(gpu: Any) -> None:
    with graphnn.device("GPU"):
        v = graphnn.Variable([[1.0, 2.0], [3.0, 4.0]], name="v")
    assert v.device == GPU and "GPU:0" in repr(v)
    before, part, turned = v.value(), v[0], graphnn.transpose(v)
    v.assign_add(np.ones((2, 2), "float32"))
    v.assign_sub([[0.5, 0.5], [0.5, 0.5]])
    v.assign(v * 2.0)
    assert v.numpy().tolist() == [[3.0, 5.0], [7.0, 9.0]]
    assert before.tolist() == [[1, 2], [3, 4]] and part.tolist() == [1, 2]
    assert turned.tolist() == [[1, 3], [2, 4]]
    v.scatter_update([1], [[0.0, 0.0]])
    v.scatter_add(graphnn.IndexedSlices(graphnn.ones((2, 2)), [0, 0]))
    assert v.numpy().tolist() == [[5.0, 7.0], [0.0, 0.0]]
    twin, saved = copy.deepcopy(v), pickle.loads(pickle.dumps(v))
    twin.assign(graphnn.zeros((2, 2)))
    assert twin.device == GPU and v.numpy()[0, 0] == saved.numpy()[0, 0] == 5.0
    half = graphnn.Variable(graphnn.cast(v, "bfloat16"))
    assert half.device == GPU and float(half.assign_add(half)[0, 0]) == 10.0


def test_variables_laid_back_to_back(gpu: Any) -> None:
    from graphnn.keras.arena import lay_out

    with graphnn.device("GPU"):
        made = [graphnn.Variable(np.full(n, n, "float32")) for n in (3, 1, 5)]
    made.append(graphnn.Variable([9.0]))
    lay_out(made)
    assert [v.device for v in made] == [GPU, GPU, GPU, CPU]
    assert [v.numpy().tolist() for v in made] == [[3.0] * 3, [1.0], [5.0] * 5, [9.0]]
    assert all(v._buffer.data.ptr % 16 == 0 for v in made[:3])
    assert made[0]._buffer.data.mem is made[2]._buffer.data.mem
    view = made[1].value()
    made[1].assign([2.0])
    assert view.tolist() == [1.0]


# ---- compiled functions -------------------------------------------------------------------------


def test_a_function_runs_where_the_call_says(gpu: Any) -> None:
    fn = graphnn.function(lambda x: graphnn.sum(x * x))
    x = graphnn.constant([1.0, 2.0])
    assert fn(x).device == CPU and fn(x.gpu()).device == GPU
    with graphnn.device("GPU"):
        assert fn(x).device == GPU and float(fn(x)) == 5.0
    assert fn.trace_count == 2 and "(device)" in fn.explain()
    assert copied() == ["argument 0 of <lambda>"]
    assert [c.device for c in fn.concretes] == [CPU, GPU]
    with graphnn.device("CPU"):
        assert fn(x.gpu()).device == CPU
    assert fn.trace_count == 2


def test_variables_of_the_other_device_are_copied_in_and_back(gpu: Any) -> None:
    count = graphnn.Variable([1.0, 2.0], name="count")

    @graphnn.function
    def add(x: Any) -> Any:
        return count.assign_add(x) * 2.0

    x = graphnn.constant([1.0, 1.0]).gpu()
    assert add(x).tolist() == [4.0, 6.0] and add(x).tolist() == [6.0, 8.0]
    assert count.device == CPU and count.numpy().tolist() == [3.0, 4.0]
    assert {c.count for c in graphnn.debugging.copies()} == {2}
    assert sorted(copied()) == [
        "Variable 'count' for add",
        "the new value of Variable 'count' of add",
    ]


def test_a_function_goes_where_its_variables_are(gpu: Any) -> None:
    with graphnn.device("GPU"):
        w = graphnn.Variable([2.0, 3.0])
        captured = graphnn.constant(np.ones(20, "float32"))
    fn = graphnn.function(lambda x: graphnn.sum(x * w) + graphnn.sum(captured))
    assert fn(graphnn.constant([1.0, 1.0])).device == GPU
    with graphnn.GradientTape() as tape:
        y = fn(graphnn.constant([1.0, 4.0]))
    assert tape.gradient(y, w).tolist() == [1.0, 4.0]
    assert tape.gradient is not None and w.device == GPU


def test_captured_tensors_of_the_host_are_copied_once(gpu: Any) -> None:
    table = graphnn.constant(np.arange(40, dtype="float32"))
    fn = graphnn.function(lambda x: x + table)
    with graphnn.device("GPU"):
        x = graphnn.zeros(40)
        for _ in range(3):
            assert fn(x).tolist() == list(range(40))
    assert [c.count for c in graphnn.debugging.copies()] == [1]


def test_reads_keep_their_values_when_a_program_writes(gpu: Any) -> None:
    with graphnn.device("GPU"):
        v = graphnn.Variable([1.0, 2.0])
        before, part = v.value(), v[:1]
        graphnn.function(lambda: v.assign(v * 10.0))()
    assert v.numpy().tolist() == [10.0, 20.0]
    assert before.tolist() == [1.0, 2.0] and part.tolist() == [1.0]


def test_no_call_waits_but_reading_does(gpu: Any) -> None:
    with graphnn.device("GPU"):
        v = graphnn.Variable(np.zeros(8, "float32"))
        step = graphnn.function(lambda x: graphnn.sum(v.assign_add(x)))
        x = graphnn.ones(8)
        step(x)
        with gpu.no_waits():
            for _ in range(4):
                loss = step(x)
    assert float(loss) == 40.0


def test_a_check_that_failed_is_raised_when_results_are_read(gpu: Any) -> None:
    with graphnn.device("GPU"):
        table = graphnn.ones((4, 2))
        look = graphnn.function(lambda i: graphnn.gather(table, i) * 2.0)
        assert look(graphnn.constant([1])).tolist() == [[2.0, 2.0]]
        found = look(graphnn.constant([9]))
    with pytest.raises(OutOfRangeError, match=r"test_devices\.py"):
        found.numpy()
    assert look(graphnn.constant([2]).gpu()).tolist() == [[2.0, 2.0]]


def test_symbolic_sizes_on_the_gpu(gpu: Any) -> None:
    fn = graphnn.function(lambda x: graphnn.nn.softmax(x))
    with graphnn.device("GPU"):
        for rows in (3, 4, 5, 1):
            x = np.arange(rows * 3, dtype="float32").reshape(rows, 3)
            total = fn(graphnn.constant(x)).numpy().sum(1)
            np.testing.assert_allclose(total, 1.0, rtol=1e-6)
    assert fn.trace_count == 3


# ---- several GPUs, and none ---------------------------------------------------------------------


def _need_emulation() -> None:
    if reason := stand_in.why_not():
        pytest.skip(reason)


def test_two_gpus() -> None:
    _need_emulation()
    second = "/device:GPU:1"
    with stand_in.emulated(devices=2):
        with graphnn.device("/GPU:1"):
            x = graphnn.ones(4)
            v = graphnn.Variable(x * 2.0)
        half = graphnn.cast(graphnn.exp(x) + v, "bfloat16") * 2
        assert {t.device for t in (x, v, half, x[1:])} == {second}
        v.assign_add(x)
        fn = graphnn.function(lambda a: graphnn.sum(a * v))
        assert [fn(x).device for _ in range(3)] == [second] * 3 and float(fn(x)) == 12.0
        moved = x.gpu(0)
        assert moved.device == (moved + x).device == fn(moved).device == GPU
        with graphnn.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        assert tape.gradient(y, x).tolist() == [3.0] * 4
        both = graphnn.config.list_physical_devices("GPU")
        graphnn.config.set_visible_devices(both[1:], "GPU")
        assert x.device == GPU  # numbered anew
        with graphnn.device("GPU"):
            assert devices.backend_of(graphnn.zeros(3)._value).index == 1
            assert graphnn.function(lambda a: a + 1.0)(x).tolist() == [2.0] * 4


@pytest.mark.parametrize("count", [0, 1])
def test_the_first_gpu_is_the_default(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    _need_emulation()
    monkeypatch.delenv("GRAPHNN_DEVICE")
    with stand_in.emulated(devices=count):
        assert devices.used  # until the first tensor asks
        assert graphnn.zeros(2).device == (GPU if count else CPU)
        assert devices.used is bool(count)
    monkeypatch.setenv("GRAPHNN_DEVICE", "gpu:1")
    with stand_in.emulated(devices=2):
        assert graphnn.zeros(2).device == "/device:GPU:1"
    monkeypatch.setenv("GRAPHNN_DEVICE", "cpu")
    devices.refresh()


# ---- memory and settings ------------------------------------------------------------------------


def test_memory_numbers(gpu: Any) -> None:
    experimental = graphnn.config.experimental
    experimental.reset_memory_stats("GPU:0")
    start = experimental.get_memory_info("GPU:0")["current"]
    with graphnn.device("GPU"):
        x = graphnn.zeros((256, 1024))
    info = experimental.get_memory_info("GPU:0")
    assert info["current"] == start + (1 << 20) <= info["peak"]
    assert experimental.get_memory_usage("GPU:0") == info["current"]
    del x
    assert experimental.get_memory_usage("GPU:0") == start
    (physical,) = graphnn.config.list_physical_devices("GPU")
    experimental.set_memory_growth(physical, True)
    assert experimental.get_memory_growth(physical)
    with pytest.raises(ArgumentError, match="GPU"):
        experimental.set_memory_growth("CPU:0", True)


def test_out_of_memory_names_the_largest_tensors(gpu: Any) -> None:
    (physical,) = graphnn.config.list_physical_devices("GPU")
    limit = [graphnn.config.LogicalDeviceConfiguration(memory_limit=8)]
    graphnn.config.set_logical_device_configuration(physical, limit)
    with graphnn.device("GPU"):
        weights = graphnn.Variable(graphnn.zeros((3, 256, 1024)), name="weights")
        held = graphnn.ones((2, 256, 1024)) + 1.0
        with pytest.raises(MemoryError) as caught:
            graphnn.concat([weights, held], axis=0)
        text = str(caught.value)
        assert "5.00 MiB (5242880 bytes) asked for by concat of float32[3, 256, 1024]" in text
        assert "3.00 MiB float32[3, 256, 1024], Variable 'weights' at test_devices.py" in text
        assert "2.00 MiB float32[2, 256, 1024], the result of add at test_devices.py" in text
        assert "limit 8.00 MiB" in text and "5.00 MiB in use" in text
        grow = graphnn.function(lambda x: (x + 1.0, x * 2.0, x - 3.0))
        with pytest.raises(MemoryError, match="the compiled function <lambda>"):
            grow(held)
        assert float(held[0, 0, 0]) == 2.0  # everything is as before
        assert float(graphnn.sum(held)) == 2.0 * 2 * 256 * 1024


def test_tf32_is_on_as_in_tensorflow() -> None:
    experimental = graphnn.config.experimental
    assert settings.tf32 and experimental.tensor_float_32_execution_enabled()
    experimental.enable_tensor_float_32_execution(False)
    assert not settings.tf32
    experimental.enable_tensor_float_32_execution(True)


def test_placement_is_printed(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    graphnn.debugging.set_log_device_placement(True)
    try:
        y = graphnn.zeros(4).gpu() + graphnn.ones(4)
    finally:
        graphnn.debugging.set_log_device_placement(False)
    assert y.device == GPU
    printed = capsys.readouterr().err
    assert "add: /device:GPU:0" in printed
    assert (
        "copy of an input of add: 16 bytes, /device:CPU:0 -> /device:GPU:0 at test_dev" in printed
    )


def test_everything_is_as_before_without_the_gpu(emulated_gpu: Any) -> None:
    with graphnn.device("GPU"):
        graphnn.function(lambda: graphnn.random.uniform((2,)))()
    assert devices.used
    stand_in.uninstall()
    assert not devices.used
    assert graphnn.random.uniform((2,)).device == CPU
    stand_in.install()


def test_the_page_runs_on_a_gpu(default_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of docs/devices.md, those that need a GPU as well, in order."""
    text = (house.ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py(?:thon)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    module = ModuleType("page_devices_gpu")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert len(blocks) > 10
    for number, block in enumerate(blocks):
        lines = block.splitlines(keepends=True)
        name = f"<devices.md block {number}>"
        linecache.cache[name] = (len(block), None, lines, name)
        exec(compile(block, name, "exec"), module.__dict__)
