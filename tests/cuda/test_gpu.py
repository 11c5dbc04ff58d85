"""The same programs on a real GPU: every op, every schedule, random programs, training, all twice.

Run with `pytest -m gpu tests/cuda`; skipped with the reason where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.codegen.cuda_program import DeviceBuilt, build_device_program, options_for
from graphnn.compiler.interpret import interpret
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.runtime.cuda import device
from graphnn.runtime.cuda.driver import CupyDriver
from graphnn.runtime.cuda.execute import DeviceExecutable
from tests.codegen.traced import trace
from tests.cuda import samples, test_captures, test_mixed
from tests.cuda.running import assert_close
from tests.cuda.test_execute import momentum_step
from tests.cuda.test_random_programs import drawn
from tests.cuda.workloads import WORKLOADS, Workload
from tests.ops import harness

pytestmark = pytest.mark.gpu


def run(made: DeviceBuilt, arrays: Sequence[Any], times: int = 3) -> list[Any]:
    """Results of the last run; from the second one on a CUDA graph. All runs give equal bits."""
    driver = CupyDriver()
    executable = DeviceExecutable(made.device, driver)
    results: list[list[Any]] = []
    for _ in range(times):
        given = []
        for a in arrays:
            own = driver.empty(a.shape, a.dtype)
            driver.upload(own, a)
            given.append(own)
        outs = executable.run(given)
        executable.wait()
        results.append([driver.download(o) for o in outs])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes(), "two runs differ"
    return results[-1]


def built(graph: Any) -> DeviceBuilt:
    return build_device_program(Pipeline().run(graph), options_for(device.facts()))


@pytest.mark.parametrize("case", samples.CASES, ids=harness.label)
def test_op(case: harness.Case) -> None:
    for call in samples.calls(case, every_dtype=True):
        made = samples.program(call)  # of this case alone, so that processes can share the work
        expected: Any = call.eager()
        wanted = expected if isinstance(expected, tuple) else (expected,)
        for value, want in zip(run(made, call.arrays), wanted, strict=True):
            harness.assert_close(value, want, call)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_schedule(workload: Workload) -> None:
    graph = workload.graph()
    want, _ = interpret(Pipeline().run(graph), workload.arrays)
    small = build_device_program(Pipeline().run(graph), workload.options)
    for made in (small, built(graph)):
        for value, expected in zip(run(made, workload.arrays), want, strict=True):
            assert_close(value, expected, workload.rtol)


def test_random_programs() -> None:
    for program in drawn(60, 14):
        graph, arrays = program.graph(gradient=True), program.arrays()
        made = built(graph)
        want, _ = interpret(made.partition.graph, arrays)
        for value, expected in zip(run(made, arrays), want, strict=True):
            assert_close(value, expected, 3e-5)


@pytest.mark.parametrize(
    "test",
    [
        test_captures.test_inputs_that_always_move_are_copied,
        test_captures.test_addresses_that_do_not_come_back_make_room,
        test_captures.test_a_view_of_a_result_keeps_it,
        test_captures.test_two_programs_share_a_variable,
        test_captures.test_streams_have_their_own_memory_and_graphs,
        test_captures.test_threads_run_one_program,
        test_captures.test_the_number_of_sizes_is_bounded,
        test_captures.test_failed_checks_wait_until_somebody_asks,
        test_captures.test_a_failed_check_belongs_to_its_stream,
        test_captures.test_times_of_the_steps,
    ],
    ids=lambda test: test.__name__,
)
def test_captures_and_streams(test: Any) -> None:
    """What the emulated GPU shows, on a real one."""
    test(*[None] * test.__code__.co_argcount)  # the machine, which they only look at


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_while_capturing(error: type[BaseException]) -> None:
    test_captures.test_an_error_while_capturing_leaves_nothing_behind(error)


@pytest.mark.parametrize("wish", ["", test_mixed.CPU, test_mixed.GPU])
@pytest.mark.parametrize("first", [test_mixed.CPU, test_mixed.GPU])
@pytest.mark.parametrize("second", [test_mixed.CPU, test_mixed.GPU])
def test_variables_on_both_sides(first: str, second: str, wish: str) -> None:
    test_mixed.test_variables_on_both_sides((first, second), wish, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "test",
    [
        test_mixed.test_a_size_that_no_input_of_a_region_has,
        test_mixed.test_the_host_calls_python_between_captured_pieces,
        test_mixed.test_an_error_on_the_host_leaves_the_program_usable,
        test_mixed.test_random_numbers_on_the_host_are_those_of_the_gpu,
        test_mixed.test_random_wishes_with_symbolic_sizes,
    ],
    ids=lambda test: test.__name__,
)
def test_work_on_both_sides(test: Any) -> None:
    test(None)


def test_random_wishes() -> None:
    test_mixed.test_random_wishes(test_mixed.GPU, None)  # type: ignore[arg-type]
    test_mixed.test_random_updates_of_variables_anywhere(True, None)  # type: ignore[arg-type]


def test_training_follows_the_cpu() -> None:
    # More rows than weights: the loss does not fall to nothing, where rounding is all that is left.
    graph, tracer = trace(momentum_step, (60, 7), (60, 3))
    made = built(graph)
    driver = CupyDriver()
    executable = DeviceExecutable(made.device, driver)
    rng = np.random.default_rng(2)
    data = [rng.normal(size=s).astype(np.float32) for s in ((60, 7), (60, 3))]
    state = [c.source.buffer for c in tracer.trace.variables.values()]
    given = []
    for k, value in enumerate([*data, *state]):
        own = driver.empty(value.shape, value.dtype)
        driver.upload(own, value)
        given.append(own)
        if k >= len(data):
            executable.bind(k, own)
    inputs = [*given[: len(data)], *[None] * len(state)]
    for _ in range(200):
        (want,), state = interpret(made.partition.graph, [*data, *state])
        (loss,) = executable.run(inputs)
    np.testing.assert_allclose(float(driver.download(loss)), float(want), rtol=1e-4)
    for own, value in zip(given[len(data) :], state, strict=True):
        np.testing.assert_allclose(driver.download(own), value, rtol=1e-3, atol=1e-5)
