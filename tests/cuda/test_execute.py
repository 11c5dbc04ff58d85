"""Running whole programs for a GPU, on the emulated device: Variables in place, many small kernels
in one launch, failed checks, capture and replay, odd memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.codegen.cuda_program import DeviceBuilt
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, as_dtype, float32, int32
from graphnn.compiler.ops.core import HostCall
from graphnn.runtime.cuda.execute import DeviceExecutable, why_not_captured
from graphnn.runtime.device import KernelRun
from graphnn.runtime.errors import DivisionError, OutOfRangeError
from tests.codegen.traced import Tracer, Variable, trace
from tests.cuda import emulate
from tests.cuda.running import built

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())
STEPS = 6


class CountingDriver(emulate.EmulatedDriver):
    """Counts captures and replays, and can fail in the middle of a capture."""

    def __init__(self) -> None:
        super().__init__()
        self.captures = self.replays = 0
        self.breaks: type[BaseException] | None = None

    def capture(self, work: Callable[[], None]) -> Any:
        self.captures += 1
        return super().capture(partial(self._broken, work))

    def _broken(self, work: Callable[[], None]) -> None:
        work()
        if self.breaks is not None:
            raise self.breaks("in the middle of a capture")

    def replay(self, graph: Any) -> None:
        self.replays += 1
        super().replay(graph)


def executable(made: DeviceBuilt, **how: bool) -> tuple[DeviceExecutable, CountingDriver]:
    emulate.build_all([made.device])
    driver = CountingDriver()
    return DeviceExecutable(made.device, driver, **how), driver


def momentum_step(t: Tracer, x: Any, y: Any) -> Any:
    """A network of two layers, trained with momentum; Variables hang on the tracer."""
    rng = np.random.default_rng(1)
    ops = t.ops
    shapes = ((7, 40), (40,), (40, 3), (3,))
    t.weights = [Variable(rng.normal(size=s).astype(np.float32)) for s in shapes]  # type: ignore[attr-defined]
    t.slots = [Variable(np.zeros(s, np.float32)) for s in shapes]  # type: ignore[attr-defined]
    w1, b1, w2, b2 = (t.read(v) for v in t.weights)  # type: ignore[attr-defined]
    hidden = ops.tanh(ops.add(ops.matmul(x, w1), b1))
    out = ops.add(ops.matmul(hidden, w2), b2)
    loss = ops.mean(ops.square(ops.subtract(out, y)), axes=(0, 1))
    slopes = t.gradient(loss, w1, b1, w2, b2)
    for v, s, g in zip(t.weights, t.slots, slopes, strict=True):  # type: ignore[attr-defined]
        new = ops.add(ops.multiply(t.read(s), 0.9), g)
        t.assign(s, new)
        t.assign(v, ops.subtract(t.read(v), ops.multiply(new, 0.05)))
    return loss


def reference(made: DeviceBuilt, state: list[Any], data: list[Any], steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        (loss,), state = interpret(made.partition.graph, [*data, *state])
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("captured", [False, True])
def test_training_updates_variables_in_place(captured: bool) -> None:
    graph, tracer = trace(momentum_step, (5, 7), (5, 3))
    made = built(graph)
    run, driver = executable(made, captured=captured)
    rng = np.random.default_rng(2)
    data = [rng.normal(size=s).astype(np.float32) for s in ((5, 7), (5, 3))]
    variables = [*tracer.weights, *tracer.slots]  # type: ignore[attr-defined]
    order = {id(c.source): k for k, c in enumerate(tracer.trace.variables.values())}
    variables.sort(key=lambda v: order[id(v)])
    state = [v.buffer for v in variables]
    want = reference(made, state, data, STEPS)
    for k, buffer in enumerate(state):
        run.bind(2 + k, driver.array(buffer))
    got = [float(run.run([*map(driver.array, data), *[None] * 8])[0]) for _ in range(STEPS)]
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert (driver.captures, driver.replays) == ((1, STEPS - 1) if captured else (0, 0))


@pytest.mark.parametrize("captured", [False, True])
def test_new_values_reach_inputs_that_are_not_bound(captured: bool) -> None:
    count = Variable(np.zeros(6, np.float32))

    def step(t: Tracer, x: Any) -> Any:
        t.assign(count, t.ops.add(t.read(count), x))
        return t.ops.multiply(x, 2.0)

    graph, _ = trace(step, (6,))
    run, driver = executable(built(graph), captured=captured)
    x, own = driver.array(np.ones(6, np.float32)), driver.array(count.buffer)
    for _ in range(4):
        run.run([x, own])
    np.testing.assert_array_equal(own, np.full(6, 4))
    np.testing.assert_array_equal(x, np.ones(6))


def test_updates_of_equal_kind_are_one_launch() -> None:
    graph, _ = trace(momentum_step, (5, 7), (5, 3))
    made = built(graph)
    runs = [r for r in made.device.plan(()).steps if isinstance(r, KernelRun)]
    joined = [r for r in runs if r.firsts]
    assert joined and max(len(r.rows) for r in joined) >= 2
    assert all(len(r.launches) == 1 and r.launches[0].blocks == r.firsts[-1] for r in joined)


def two_kernels(t: Tracer, x: Any) -> Any:
    y = t.ops.exp(x)
    return [y, t.ops.cumsum(y, axis=0)]


def look_up(t: Tracer, x: Any) -> Any:
    index = t.trace.argument("i", TensorType((3,), int32))
    return t.ops.index(x, index, axes=(0,), at=0)


def test_a_failed_check_is_raised_at_wait_and_not_again() -> None:
    graph, _ = trace(look_up, (4, 2))
    run, driver = executable(built(graph))
    table = driver.array(np.arange(8, dtype=np.float32).reshape(4, 2))
    for _ in range(2):
        run.run([table, driver.array(np.array([0, 9, 1], np.int32))])
        with pytest.raises(OutOfRangeError, match="index 9 on axis 0 of size 4"):
            run.wait()
        run.wait()
        (rows,) = run.run([table, driver.array(np.array([3, -4, 1], np.int32))])
        run.wait()
        np.testing.assert_array_equal(rows, [[6, 7], [0, 1], [2, 3]])


@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
def test_integers_divided_by_zero_are_refused(name: str) -> None:
    def divided(t: Tracer, x: Any) -> Any:
        y = t.trace.argument("y", TensorType((40,), int32))
        return getattr(t.ops, name)(x, y)

    graph, _ = trace(divided, (40,), dtype=int32)
    run, driver = executable(built(graph))
    x, y = np.arange(-20, 20, dtype=np.int32), np.full(40, 3, np.int32)
    (found,) = run.run([driver.array(x), driver.array(y)])
    run.wait()
    np.testing.assert_array_equal(found, getattr(np, name)(x, y))
    y[17] = 0
    run.run([driver.array(x), driver.array(y)])
    with pytest.raises(DivisionError, match=f"{name} at(.|\n)*a divisor 0 of dtype int32"):
        run.wait()


def doubled(t: Tracer, x: Any) -> Any:
    both = t.ops.exp(x)
    kind = HostCall(function=lambda a: (a * 2,), types=(TensorType((4,), float32),))
    (result,) = t.trace.apply(kind, (both,))
    return t.ops.add(result, x)


def test_a_host_call_forbids_capture_and_says_so() -> None:
    graph, _ = trace(doubled, (4,))
    made = built(graph)
    assert why_not_captured(made.device) == "host_call runs on the host"
    run, driver = executable(made)
    x = np.arange(4, dtype=np.float32)
    for _ in range(3):
        (got,) = run.run([driver.array(x)])
        np.testing.assert_allclose(got, 2 * np.exp(x) + x, rtol=1e-6)
    assert driver.captures == 0


def test_each_size_has_its_graph() -> None:
    n = symbol("n")
    t = Tracer()
    x = t.trace.argument("x", TensorType((n, 3), float32))
    made = built(t.trace.finish([t.ops.softmax(x, axis=0), t.ops.sum(x, axes=(0,))]))
    run, driver = executable(made)
    for rows in (4, 9, 4, 9, 4):
        x_host = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        _, total = run.run([driver.array(x_host)])
        np.testing.assert_allclose(total, x_host.sum(0), rtol=1e-5)
    assert driver.captures == 2 and driver.replays == 3


def test_a_failed_capture_leaves_the_program_usable() -> None:
    graph, _ = trace(two_kernels, (40,))
    run, driver = executable(built(graph))
    x = driver.array(np.ones(40, np.float32))
    run.run([x])
    for error in (MemoryError, KeyboardInterrupt, RuntimeError):
        driver.breaks = error
        with pytest.raises(error):
            run.run([x])
    driver.breaks = None
    for _ in range(2):
        np.testing.assert_allclose(run.run([x])[0], np.full(40, np.e), rtol=1e-6)
    assert driver.replays == 2


def test_results_of_one_run_outlive_the_next() -> None:
    graph, _ = trace(lambda t, x: t.ops.multiply(x, 2.0), (5,))
    run, driver = executable(built(graph))
    found = [run.run([driver.array(np.full(5, k, np.float32))])[0] for k in range(4)]
    assert [float(f[0]) for f in found] == [0, 2, 4, 6]


def test_memory_that_is_not_aligned_is_moved() -> None:
    graph, _ = trace(lambda t, x: t.ops.exp(x), (6000,))
    run, driver = executable(built(graph), captured=False)
    whole = driver.array(np.arange(6001, dtype=np.float32) / 6001)
    (got,) = run.run([whole[1:]])
    np.testing.assert_allclose(got, np.exp(whole[1:]), rtol=1e-6)
    with pytest.raises(ValueError, match="multiple of 16"):
        run.bind(0, whole[1:])


def test_an_input_returned_as_it_is_is_copied() -> None:
    graph, _ = trace(lambda t, x: [x, t.ops.reshape(x, shape=(6,))], (2, 3))
    run, driver = executable(built(graph))
    x = driver.array(np.arange(6, dtype=np.float32).reshape(2, 3))
    for _ in range(2):
        same, flat = run.run([x])
        assert same is not x and not np.shares_memory(same, x) and flat.shape == (6,)
        np.testing.assert_array_equal(flat, np.arange(6))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_products(dtype: str) -> None:
    def product(t: Tracer, a: Any, b: Any) -> Any:
        return [t.ops.matmul(a, b), t.ops.matmul(b, a, transpose_a=True, transpose_b=True)]

    graph, _ = trace(product, (3, 4, 5), (5, 6), dtype=as_dtype(dtype))
    made = built(graph)
    assert not any(s.host for s in made.device.program.steps)
    run, driver = executable(made)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(as_dtype(dtype)) for s in ((3, 4, 5), (5, 6)))
    values = run.run([driver.array(a), driver.array(b)])
    want, _ = interpret(graph, [a, b])
    for value, expected in zip(values, want, strict=True):
        got, exact = value.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_allclose(got, exact, rtol=2e-2, atol=1e-2)
