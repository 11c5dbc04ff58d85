"""The emulator finds the mistakes that it is there to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphnn.runtime.device import Launch
from tests.cuda import emulate

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())

HEAD = 'extern "C" __global__ void __launch_bounds__(64) '
KERNELS = {
    "shifted": """shifted(float* x, const idx rows) {
  __shared__ float row[64];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = row[(threadIdx.x + 1) % 64];
}""",
    "races": """races(float* x, const idx rows) {
  __shared__ float row[64];
  row[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = row[(threadIdx.x + 1) % 64];
  __syncthreads();
}""",
    "diverges": """diverges(float* x, const idx rows) {
  if (threadIdx.x < 40) x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}""",
    "misaligned": """misaligned(float* x, const idx rows) {
  store_pack<4>(x, load_pack<4>(x + 1));
}""",
    "outside": """outside(float* x, const idx rows) {
  x[rows] = 1;
}""",
    "too_much": """too_much(float* x, const idx rows) {
  DYNAMIC_SHARED(chip);
  chip[threadIdx.x] = 1;
}""",
    "warp_sum": """warp_sum(float* x, const idx rows) {
  x[threadIdx.x] = lanes_reduce<Add, 8>(x[threadIdx.x]) + lanes_reduce<Max, 32>(x[threadIdx.x]);
}""",
}


def run(name: str, order: int, shared: int = 0) -> Any:
    functions = emulate.build([(n, f"{HEAD}{text}\n") for n, text in KERNELS.items()])
    driver = emulate.EmulatedDriver(order)
    x = driver.array(np.arange(64, dtype=np.float32))
    launch = Launch(name, 1, 64, shared)
    given = [emulate.ctypes.c_void_p(driver.address(x)), emulate.ctypes.c_int32(64)]
    driver.launch(functions[launch.entry], launch.blocks, launch.threads, launch.shared, given)
    return x


def test_a_barrier_orders_threads() -> None:
    for order in (0, 1):
        np.testing.assert_array_equal(run("shifted", order), np.roll(np.arange(64), -1))


def test_a_missing_barrier_shows_in_one_of_the_orders() -> None:
    results = [run("races", order) for order in (0, 1)]
    assert not np.array_equal(results[0], results[1], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diverges", "threads wait for others that do not come"),
        ("misaligned", "misaligned pack"),
        ("outside", "wrote outside its arrays"),
        ("too_much", "behind the shared memory asked for"),
    ],
)
def test_mistakes_are_named(name: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        run(name, 0)


def test_shared_memory_that_was_asked_for_may_be_used() -> None:
    run("too_much", 0, shared=64)


def test_teams_and_warps_reduce() -> None:
    x = np.arange(64, dtype=np.float32)
    want = np.repeat(x.reshape(8, 8).sum(1), 8) + np.repeat([31, 63], 32)
    np.testing.assert_array_equal(run("warp_sum", 0), want)
