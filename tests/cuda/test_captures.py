"""When graphs are captured and which one is replayed, on the emulated GPU: inputs that move,
results that are kept, Variables, arenas, streams, threads, sizes, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from graphnn.build import compile_graph
from graphnn.build_device import DeviceCompiled, driver
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, float32, int32
from graphnn.runtime.cuda import captures
from graphnn.runtime.cuda.arena import UNIT, shared_arena
from graphnn.runtime.errors import OutOfRangeError
from graphnn.runtime.execute import MAX_INSTANCES
from tests.codegen.traced import Tracer, Variable, trace
from tests.cuda import stand_in

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason=stand_in.why_not())
GPU = "/device:GPU:0"


@pytest.fixture(autouse=True)
def gpu(emulated_gpu: stand_in.Machine) -> Iterator[stand_in.Machine]:
    yield emulated_gpu


def compiled(function: Callable[..., Any], *shapes: Any) -> DeviceCompiled:
    made = compile_graph(trace(function, *shapes)[0], device=GPU)
    assert isinstance(made, DeviceCompiled)
    return made


def array(values: Any) -> Any:
    import cupy

    return cupy.asarray(np.asarray(values, np.float32))


def sums(t: Tracer, x: Any) -> Any:
    """Two kernels, one of them with an intermediate value."""
    return t.ops.sum(t.ops.cumsum(t.ops.exp(x), axis=0), axes=(0, 1))


def sums_of(x: Any) -> Any:
    return np.cumsum(np.exp(x), 0).sum()


def names(gpu: stand_in.Machine, work: Callable[[], Any]) -> list[str]:
    """What was started on the device by some work."""
    before = len(gpu.launches)
    work()
    return list(gpu.launches[before:])


def only(made: DeviceCompiled) -> Any:
    return made.executable._only.captures


def test_inputs_that_come_again_are_read_where_they_are(gpu: stand_in.Machine) -> None:
    made = compiled(sums, (6, 3))
    batches = [array(np.full((6, 3), k / 9)) for k in range(2)]
    for k in range(8):  # two batches in turn: each has graphs of its own by then
        loss = made.run([batches[k % 2]])[0]
        np.testing.assert_allclose(loss.get(), sums_of(batches[k % 2].get()), rtol=1e-5)
    started = names(gpu, lambda: made.run([batches[0]]))
    assert [s for s in started if not s.startswith("graph of")] == []
    assert len(started) == 1


def test_inputs_that_always_move_are_copied(gpu: stand_in.Machine) -> None:
    made = compiled(sums, (6, 3))
    kept = []
    for k in range(12):
        kept.append(array(np.full((6, 3), k / 12)))
        (loss,) = made.run([kept[-1]])
        np.testing.assert_allclose(loss.get(), sums_of(kept[-1].get()), rtol=1e-5)
    assert list(only(made).variants) == [None]


def test_addresses_that_do_not_come_back_make_room() -> None:
    made = compiled(sums, (6, 3))
    first = [array(np.full((6, 3), k)) for k in range(captures.MAX_DIRECT)]
    later = [array(np.full((6, 3), -k)) for k in range(2)]
    for x in first * 3:
        made.run([x])
    assert len([k for k in only(made).variants if k]) == captures.MAX_DIRECT
    for x in later * captures.OLD:
        (got,) = made.run([x])
        np.testing.assert_allclose(got.get(), sums_of(x.get()), rtol=1e-5)
    direct = {k for k in only(made).variants if k}
    assert {(x.data.ptr,) for x in later} <= direct and len(direct) <= captures.MAX_DIRECT


def test_a_result_that_is_kept_is_not_overwritten(gpu: stand_in.Machine) -> None:
    made = compiled(sums, (6, 3))
    x = array(np.ones((6, 3)))
    loss = None
    for _ in range(6):  # the last loss lives while the next one is computed
        (loss,) = made.run([x])
    assert len(only(made).sets) == 2 and loss is not None
    assert all(s.startswith("graph of") for s in names(gpu, lambda: made.run([x])))
    kept = []
    for k in range(8):
        x[...] = k / 8
        kept.append(made.run([x])[0])
    got = [float(v.get()) for v in kept]
    np.testing.assert_allclose(got, [sums_of(np.full((6, 3), k / 8)) for k in range(8)], rtol=1e-5)
    assert len(only(made).sets) == captures.MAX_SETS


def test_a_view_of_a_result_keeps_it() -> None:
    made = compiled(lambda t, x: t.ops.cumsum(t.ops.cumsum(x, axis=0), axis=1), (5, 4))
    x = array(np.ones((5, 4)))
    want = np.ones((5, 4)).cumsum(0).cumsum(1)
    parts = []
    for k in range(1, 7):
        x[...] = k
        (whole,) = made.run([x])
        parts.append((whole[1:3], whole.reshape(-1), whole.T)[k % 3])
        del whole
    for k, part in enumerate(parts, 1):
        np.testing.assert_allclose(part.get(), k * (want[1:3], want.reshape(-1), want.T)[k % 3])


def test_large_results_are_not_kept_in_many_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "MAX_SET_BYTES", 100)
    made = compiled(lambda t, x: t.ops.cumsum(t.ops.cumsum(x, axis=0), axis=1), (50, 4))
    x = array(np.ones((50, 4)))
    kept = [made.run([x])[0] for _ in range(5)]
    assert len(only(made).sets) == 1
    for value in kept:
        np.testing.assert_allclose(value.get(), np.ones((50, 4)).cumsum(0).cumsum(1))


def step_on(weights: Variable, scale: float = 1.0) -> Callable[..., Any]:
    def step(t: Tracer, x: Any) -> Any:
        new = t.ops.subtract(t.read(weights), t.ops.multiply(x, scale))
        t.assign(weights, new)
        return t.ops.sum(t.ops.cumsum(new, axis=0), axes=(0,))

    return step


def test_variables_that_move_get_other_graphs_and_come_back(gpu: stand_in.Machine) -> None:
    made = compiled(step_on(Variable(np.zeros(6, np.float32))), (6,))
    x, places = array(np.ones(6)), [array(np.zeros(6)) for _ in range(2)]
    for k in range(12):
        made.bind(1, places[k // 3 % 2])
        (loss,) = made.run([x])
    assert float(loss.get()) == -6 * 21
    for place in places:
        np.testing.assert_array_equal(place.get(), np.full(6, -6))
    assert len(only(made).places) == 2
    for place in places:
        made.bind(1, place)
        assert all(s.startswith("graph of") for s in names(gpu, lambda: made.run([x])))


def test_two_programs_share_a_variable() -> None:
    weights = Variable(np.zeros(6, np.float32))
    train = compiled(step_on(weights), (6,))
    more = compiled(step_on(weights, 10.0), (6,))
    x, own = array(np.ones(6)), array(np.zeros(6))
    train.bind(1, own)
    more.bind(1, own)
    for k in range(1, 6):
        train.run([x])
        (loss,) = more.run([x])
        assert float(loss.get()) == -11 * k * 21


def test_programs_share_one_arena_that_grows() -> None:
    import cupy

    small, large = compiled(sums, (6, 3)), compiled(sums, (3000, 90))
    arena = shared_arena(driver(0), 0)
    x, y = array(np.ones((6, 3))), array(np.zeros((3000, 90)))
    for _ in range(4):
        (a,) = small.run([x])
    assert arena.nbytes == UNIT
    for _ in range(3):
        (b,) = large.run([y])
        (a,) = small.run([x])
        np.testing.assert_allclose(a.get(), sums_of(np.ones((6, 3))), rtol=1e-5)
        np.testing.assert_allclose(b.get(), sums_of(np.zeros((3000, 90))), rtol=1e-5)
    assert arena.nbytes >= 3000 * 90 * 4
    assert small.executable._only.arena is large.executable._only.arena is arena
    used = cupy.get_default_memory_pool().used_bytes()
    assert used < arena.nbytes + y.nbytes + (1 << 18)


def test_streams_have_their_own_memory_and_graphs() -> None:
    import cupy

    made = compiled(sums, (60, 3))
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    inputs = [array(np.full((60, 3), k)) for k in range(2)]
    cupy.cuda.Device().synchronize()
    found: list[list[Any]] = [[], []]
    for _ in range(4):
        for k, stream in enumerate(streams):
            with stream:
                found[k].append(made.run([inputs[k]])[0])
    cupy.cuda.Device().synchronize()
    for k, values in enumerate(found):
        for value in values:
            np.testing.assert_allclose(value.get(), sums_of(np.full((60, 3), k)), rtol=1e-5)
    arenas = [made.executable._only.arenas[s.ptr] for s in streams]
    assert arenas[0] is not arenas[1] and len(only(made).places) == 2


def test_threads_run_one_program() -> None:
    made = compiled(sums, (8, 3))
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            x = array(np.full((8, 3), k / 4))
            for _ in range(12):
                (got,) = made.run([x])
                np.testing.assert_allclose(got.get(), sums_of(np.full((8, 3), k / 4)), rtol=1e-5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_default_streams_of_threads_are_not_one() -> None:
    import cupy

    found: list[int] = []

    def work() -> None:
        with cupy.cuda.Stream.ptds:
            found.append(driver(0).stream)

    work()
    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert len(set(found)) == 2 and driver(0).stream == 0


def test_the_number_of_sizes_is_bounded() -> None:
    t = Tracer()
    x = t.trace.argument("x", TensorType((symbol("n"), 3), float32))
    graph = t.trace.finish([sums(t, x)])
    made = compile_graph(graph, device=GPU)
    for rows in [*range(2, 24), 3, 22]:
        values = np.full((rows, 3), rows / 24, np.float32)
        for _ in range(2):
            (got,) = made.run([array(values)])
            np.testing.assert_allclose(got.get(), sums_of(values), rtol=1e-5)
    assert len(made.executable._instances) == MAX_INSTANCES
    assert made.executable.sizes == {"n": 22}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_while_capturing_leaves_nothing_behind(error: type[BaseException]) -> None:
    made = compiled(sums, (6, 3))
    x = array(np.ones((6, 3)))
    made.run([x])
    first, *_ = work = made.executable._only.work

    def broken() -> None:
        first()
        raise error("after the first kernel")

    work[0] = broken
    with pytest.raises(error, match="after the first kernel"):
        made.run([x])
    work[0] = first
    assert driver(0)._thread.replays_on is None
    for _ in range(3):
        (got,) = made.run([x])
        np.testing.assert_allclose(got.get(), sums_of(np.ones((6, 3))), rtol=1e-5)
    assert all(v.runs for v in only(made).variants.values())


def test_no_memory_for_results(gpu: stand_in.Machine) -> None:
    import cupy

    made = compiled(lambda t, x: t.ops.cumsum(t.ops.cumsum(x, axis=0), axis=1), (500, 40))
    x = array(np.ones((500, 40)))
    made.run([x])
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + 20_000)
    for _ in range(2):
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            made.run([x])
    pool.set_limit(size=0)
    for _ in range(2):
        (got,) = made.run([x])
        np.testing.assert_allclose(got.get(), np.ones((500, 40)).cumsum(0).cumsum(1))


def look_up(t: Tracer, x: Any) -> Any:
    index = t.trace.argument("i", TensorType((3,), int32))
    rows = t.ops.index(x, index, axes=(0,), at=0)
    return [rows, t.ops.cumsum(rows, axis=0)]


def test_failed_checks_wait_until_somebody_asks() -> None:
    import cupy

    made, own = compiled(look_up, (4, 2)), driver(0)
    table = array(np.arange(8).reshape(4, 2))
    good, bad = (cupy.asarray(np.array([0, k, 1], np.int32)) for k in (3, 9))
    for _ in range(3):  # launched one by one, captured, replayed
        rows, _ = made.run([table, bad])
        rows.get()
        assert own.pending
        with pytest.raises(OutOfRangeError, match="index 9 on axis 0 of size 4"):
            own.raise_failed()
        assert not own.pending
        own.raise_failed()
        rows, _ = made.run([table, good])
        np.testing.assert_array_equal(rows.get(), [[0, 1], [6, 7], [2, 3]])
        own.raise_failed()


def test_a_failed_check_belongs_to_its_stream() -> None:
    import cupy

    made, own = compiled(look_up, (4, 2)), driver(0)
    table = array(np.arange(8).reshape(4, 2))
    bad = cupy.asarray(np.array([0, 9, 1], np.int32))
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        made.run([table, bad])
        stream.synchronize()
    own.raise_failed()
    with pytest.raises(OutOfRangeError, match="index 9"):
        own.raise_failed(everything=True)


def test_a_run_does_not_wait() -> None:
    with stand_in.emulated(lazy=True) as lazy:
        made = compiled(sums, (6, 3))
        x = array(np.ones((6, 3)))
        for _ in range(2):
            made.run([x])
        made.wait()
        with lazy.no_waits():
            found = [made.run([x])[0] for _ in range(6)]
        for value in found:
            np.testing.assert_allclose(value.get(), sums_of(np.ones((6, 3))), rtol=1e-5)


def test_times_of_the_steps() -> None:
    made = compiled(sums, (6, 3))
    x = array(np.ones((6, 3)))
    times = made.executable.times([x], repeats=3)
    assert len(times) == len(made.built.program.steps) and all(t >= 0 for t in times)
    (got,) = made.run([x])
    np.testing.assert_allclose(got.get(), sums_of(np.ones((6, 3))), rtol=1e-5)


def test_pieces_say_why_they_are_no_graphs() -> None:
    one = compiled(lambda t, x: t.ops.exp(x), (4,))
    (piece,) = one.executable.pieces()
    assert (piece.graph, piece.reason) == (False, "a graph of one launch gains nothing")
    (piece,) = compiled(sums, (4, 3)).executable.pieces()
    assert piece.graph and piece.launches >= 2
