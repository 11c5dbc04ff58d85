"""The clock of the GPU workloads: queued steps and one wait, the same rules for each framework.

Five calls first: the first alone is `first_call_s`, all five are `warmup_s`. Then 25 samples; a
sample is some steps one after another and one wait for the device, over their number.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu_data import PEAK_FLOPS

Row = dict[str, Any]
SAMPLES, QUICK_SAMPLES = 25, 5
QUICK_STEPS, FEWEST_STEPS, MOST_STEPS = 10, 50, 2000
TIMED_SECONDS = 1.0
WARM_UP_CALLS = 5
ALONE_CALLS = 30


@dataclass(frozen=True)
class Work:
    """One workload, ready to run.

    step: queues one step; what it returns can be waited for. value: a number that all frameworks
    must agree on. facts: `bytes` and `flops` of a step, `items` (what, how many), `parameters`, and
    `mfu`, whether the share of the GPU's peak is told. function, arguments: what `step` calls.
    """

    step: Callable[[], Any]
    value: Callable[[Any], float]
    facts: Mapping[str, Any] = field(default_factory=dict)
    function: Any = None
    arguments: tuple[Any, ...] = ()

    @classmethod
    def of(
        cls, function: Any, *arguments: Any, value: Callable[[Any], float], **facts: Any
    ) -> "Work":
        """One step is `function(*arguments)`."""
        return cls(lambda: function(*arguments), value, facts, function, arguments)


@dataclass(frozen=True)
class Device:
    """Where steps run. wait: until all that was queued is done. peak: MiB since `reset`."""

    wait: Callable[[], None] = lambda: None
    reset: Callable[[], None] = lambda: None
    peak: Callable[[], Row] = dict


def measure(work: Work, device: Device, quick: bool) -> Row:
    """The fields of a workload's line."""
    start = time.perf_counter()
    out = work.step()
    device.wait()
    first = time.perf_counter() - start
    values = [work.value(out)]
    for _ in range(WARM_UP_CALLS - 1):
        out = work.step()
    device.wait()
    warm = time.perf_counter() - start
    values.append(work.value(out))
    del out
    samples, steps = _samples(work.step, device, quick)
    median = statistics.median(samples)
    row: Row = dict(median_ms=_ms(median), min_ms=_ms(min(samples)), max_ms=_ms(max(samples)))
    row |= dict(steps=steps, first_call_s=round(first, 3), warmup_s=round(warm, 3))
    row |= dict(value1=round(values[0], 5), value5=round(values[1], 5))
    return row | device.peak() | _rates(work.facts, median)


def _samples(step: Callable[[], Any], device: Device, quick: bool) -> tuple[list[float], int]:
    """Seconds of a step in each sample, and the number of all steps."""
    estimate = _timed(step, device, 3)
    count = QUICK_SAMPLES if quick else SAMPLES
    steps = QUICK_STEPS
    if not quick:
        steps = int(min(MOST_STEPS, max(FEWEST_STEPS, TIMED_SECONDS / estimate)))
    each = max(2, steps // count)
    device.reset()
    return [_timed(step, device, each) for _ in range(count)], count * each


def _timed(step: Callable[[], Any], device: Device, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        out = step()
    device.wait()
    seconds = (time.perf_counter() - start) / steps
    del out
    return seconds


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def _rates(facts: Mapping[str, Any], seconds: float) -> Row:
    row: Row = {}
    if "bytes" in facts:
        row["gbps"] = round(facts["bytes"] / seconds / 1e9, 1)
    if "items" in facts:
        what, count = facts["items"]
        row[f"{what}_per_s"] = round(count / seconds)
    if "flops" in facts:
        row["tflops"] = round(facts["flops"] / seconds / 1e12, 2)
    if facts.get("mfu"):
        row["mfu_989"] = round(facts["flops"] / seconds / PEAK_FLOPS, 4)
    if "parameters" in facts:
        row["params"] = facts["parameters"]
    return row


def measure_calls(call: Callable[[], Any], device: Device, repeats: int) -> Row:
    """Microseconds of a call: to queue it, with the wait shared out, and each waited for."""
    calls = max(5, repeats // 5)
    for _ in range(max(20, calls // 4)):
        call()
    device.wait()
    issue, total = [], []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        queued = time.perf_counter()
        device.wait()
        issue.append((queued - start) / calls)
        total.append((time.perf_counter() - start) / calls)
    alone = [_timed(call, device, 1) for _ in range(ALONE_CALLS)]
    return dict(issue_us=_us(issue), total_us=_us(total), alone_us=_us(alone))


def _us(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1e6, 2)
