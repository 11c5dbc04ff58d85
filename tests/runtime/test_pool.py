"""The thread pool: right ranges, nesting, other threads, fork and exit."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from graphnn.runtime.cpu import compile_library, pool

POINTER, INT = ctypes.c_void_p, ctypes.c_int64
PARALLEL = ctypes.CFUNCTYPE(None, POINTER, POINTER, POINTER, INT, INT, INT)

# buffers: marks (one per element), calls (one per part), and for `nest` the address of
# gnn_parallel and of `mark`. Every element gets part + 1 added, every call is counted.
KERNELS = """
define void @mark(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %part) {
entry:
  %marks = load ptr, ptr %buffers
  %calls.slot = getelementptr ptr, ptr %buffers, i64 1
  %calls = load ptr, ptr %calls.slot
  %call = getelementptr i64, ptr %calls, i64 %part
  %old = atomicrmw add ptr %call, i64 1 monotonic
  %value = add i64 %part, 1
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %place = getelementptr i64, ptr %marks, i64 %i
  %before = load i64, ptr %place
  %after = add i64 %before, %value
  store i64 %after, ptr %place
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
define void @nest(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %part) {
  %parallel.slot = getelementptr ptr, ptr %buffers, i64 2
  %parallel = load ptr, ptr %parallel.slot
  %marks = load ptr, ptr %buffers
  %row = mul i64 %begin, 100
  %own = getelementptr i64, ptr %marks, i64 %row
  %inner = alloca [2 x ptr]
  store ptr %own, ptr %inner
  %calls.slot = getelementptr ptr, ptr %buffers, i64 1
  %calls = load ptr, ptr %calls.slot
  %second = getelementptr ptr, ptr %inner, i64 1
  store ptr %calls, ptr %second
  call void %parallel(ptr @mark, ptr %inner, ptr %sizes, i64 100, i64 1, i64 4)
  ret void
}
"""


@pytest.fixture(autouse=True)
def keep_thread_count() -> Iterator[None]:
    yield
    pool.set_num_threads(None)


def run(total: int, grain: int, parts: int, kernel: str = "mark") -> tuple[np.ndarray, np.ndarray]:
    """Marks and number of calls per part after one region."""
    library = compile_library([("kernels", KERNELS)])
    marks = np.zeros(max(total, 1) * (100 if kernel == "nest" else 1), np.int64)
    calls = np.zeros(max(parts, 4) + 1, np.int64)
    address = pool.parallel_address()
    buffers = (POINTER * 3)(marks.ctypes.data, calls.ctypes.data, address)
    place = ctypes.addressof(buffers)
    PARALLEL(address)(library.address(kernel), place, None, total, grain, parts)
    return marks, calls


def expected(total: int, grain: int, parts: int) -> np.ndarray:
    """The marks that the definition asks for."""
    marks = np.zeros(max(total, 1), np.int64)
    grain = max(grain, 1)
    chunks = -(-max(total, 0) // grain)
    parts = min(max(parts, 1), chunks)
    first = 0
    for part in range(parts):
        last = first + chunks // parts + (part < chunks % parts)
        marks[first * grain : min(last * grain, total)] = part + 1
        first = last
    return marks


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_element_once_and_in_the_right_part(threads: int) -> None:
    pool.set_num_threads(threads)
    assert pool.num_threads() == threads
    for total in (-3, 0, 1, 2, 7, 64, 1000, 1001):
        for grain in (-1, 0, 1, 3, 64, 5000):
            for parts in (-1, 0, 1, 2, 3, 8, 50):
                marks, calls = run(total, grain, parts)
                wanted = expected(total, grain, parts)
                np.testing.assert_array_equal(marks, wanted, f"{total} {grain} {parts}")
                used = np.unique(wanted[wanted > 0]) - 1
                assert set(np.flatnonzero(calls)) == set(used)
                assert calls.max() <= 1


def test_one_thread_starts_no_worker() -> None:
    pool.set_num_threads(1)
    run(1000, 1, 8)
    assert pool.pool_status()["workers"] == 0


def test_workers_start_at_first_use_and_stop_on_resize() -> None:
    pool.set_num_threads(3)
    assert pool.pool_status()["workers"] == 0
    run(1000, 1, 8)
    assert pool.pool_status()["workers"] == 2
    pool.set_num_threads(2)
    assert pool.pool_status()["workers"] == 0
    run(1000, 1, 8)
    assert pool.pool_status()["workers"] == 1


def test_sleeping_workers_wake() -> None:
    pool.set_num_threads(2)
    before = pool.pool_status()["wakes"]
    for _ in range(5):
        time.sleep(0.01)
        marks, _ = run(1000, 1, 2)
        np.testing.assert_array_equal(marks, expected(1000, 1, 2))
    assert pool.pool_status()["wakes"] > before


def test_nested_regions_run() -> None:
    pool.set_num_threads(3)
    for _ in range(50):
        marks, calls = run(8, 1, 8, "nest")
        np.testing.assert_array_equal(marks, np.tile(expected(100, 1, 4), 8))
        assert calls.sum() == 32


def test_several_python_threads_at_once() -> None:
    pool.set_num_threads(3)
    wrong: list[int] = []

    def work(number: int) -> None:
        wanted = expected(1000 + number, 7, 5)
        for _ in range(200):
            marks, calls = run(1000 + number, 7, 5)
            if not (np.array_equal(marks, wanted) and calls.sum() == 5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_resizing_while_others_run() -> None:
    stop = threading.Event()
    wrong: list[int] = []

    def work() -> None:
        while not stop.is_set():
            marks, _ = run(500, 1, 4)
            if not np.array_equal(marks, expected(500, 1, 4)):
                wrong.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    for count in (1, 4, 2, 3, 1, 2) * 5:
        pool.set_num_threads(count)
    stop.set()
    thread.join()
    assert not wrong


def test_thread_count_is_checked() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        pool.set_num_threads(0)


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({"GRAPHNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"GRAPHNN_NUM_THREADS": "", "OMP_NUM_THREADS": "5,2"}, 5),
        ({"GRAPHNN_NUM_THREADS": "", "OMP_NUM_THREADS": "0"}, None),
    ],
)
def test_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], count: int | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pool.set_num_threads(None)
    assert pool.num_threads() == (count or pool.available_cores())


@pytest.mark.parametrize("value", ["many", "0", "-2", "1.5"])
def test_a_setting_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GRAPHNN_NUM_THREADS", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with pytest.warns(UserWarning, match=f"GRAPHNN_NUM_THREADS='{value}' is not used"):
        pool.set_num_threads(None)
    assert pool.num_threads() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_of_a_fork_has_a_pool_of_its_own(run_python: Callable[..., str]) -> None:
    code = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from tests.runtime.test_pool import expected, pool, run
pool.set_num_threads(3)
busy = threading.Event()
def forever():
    while True:
        run(20000, 1, 6)
        busy.set()
threading.Thread(target=forever, daemon=True).start()
busy.wait()
for _ in range(20):
    child = os.fork()
    if child == 0:
        ok = all((run(1000, 3, 7)[0] == expected(1000, 3, 7)).all() for _ in range(20))
        ok = ok and pool.pool_status()["workers"] == 2
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""
    assert run_python(code).strip() == "done"


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(0)", "time.sleep(0.01)", "pool.set_num_threads(1)"]
)
def test_exit_does_not_hang(run_python: Callable[..., str], ending: str) -> None:
    code = f"""
import atexit, sys, time
atexit.register(lambda: print(int(run(100, 1, 4)[0].sum())))
from tests.runtime.test_pool import pool, run
pool.set_num_threads(4)
run(1000, 1, 8)
{ending}
"""
    assert run_python(code).split() == [str(25 * (1 + 2 + 3 + 4))]


def test_exit_while_a_daemon_thread_computes(run_python: Callable[..., str]) -> None:
    code = """
import threading
from tests.runtime.test_pool import pool, run
pool.set_num_threads(3)
busy = threading.Event()
def forever():
    while True:
        run(100000, 1, 6)
        busy.set()
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
busy.wait()
print("done")
"""
    for _ in range(3):
        assert run_python(code).strip() == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")
def test_signals_reach_the_main_thread(run_python: Callable[..., str]) -> None:
    code = """
import os, signal, time
from tests.runtime.test_pool import pool, run
pool.set_num_threads(4)
run(1000, 1, 8)
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05)
start = time.monotonic()
signal.pause()
print(seen, time.monotonic() - start < 5)
"""
    assert run_python(code).strip() == "[1] True"


def test_both_system_forms_are_valid_ir() -> None:
    from graphnn.runtime.cpu.jit import optimized_ir
    from graphnn.runtime.cpu.pool_ir import Platform, pool_ir

    for platform in (Platform(True, "x86_64"), Platform(False, "riscv64", 2, -1)):
        assert "gnn_parallel" in optimized_ir(pool_ir(platform))
