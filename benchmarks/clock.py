"""The clock: first call, warm-up, then timed steps; the same rules for each framework."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# No NumPy here: a process first settles its threads, and importing NumPy is a part of `import_s`.
Result = dict[str, Any]

WARM_UP_CALLS, WARM_UP_SECONDS = 5, 0.5
MOST_WARM_UP_CALLS, MOST_STEPS = 1000, 5000
SLOW_STEP_SECONDS = 2.0
TIMED_IMPORTS = 5


@dataclass(frozen=True)
class Limits:
    """How long to time: at least `steps` and `seconds`, unless they take over `most_seconds`."""

    steps: int = 30
    seconds: float = 1.0
    most_seconds: float = 20.0
    warm_up_seconds: float = WARM_UP_SECONDS
    epochs: int = 5


QUICK = Limits(steps=3, seconds=0.0, most_seconds=1.0, warm_up_seconds=0.0, epochs=1)


@dataclass(frozen=True)
class Case:
    """One workload in one framework.

    step: does one step and returns what `sync` and `check` need.
    sync: blocks until all that the step began is done.
    check: floats that must agree between frameworks; the first is the loss of a train step.
    per_call: repetitions inside a step; times are divided by it.
    bytes, flops: the least traffic and arithmetic of a repetition, for the rates in the line.
    """

    step: Callable[[], Any]
    sync: Callable[[Any], Any] = lambda out: None
    check: Callable[[Any], list[Any]] = lambda out: []
    per_call: int = 1
    bytes: int = 0
    flops: int = 0
    note: str = ""


@dataclass(frozen=True)
class Epochs:
    """A training loop that is timed by epochs: `run(number)` returns the epoch's mean loss.

    base: another loop, timed in turn with this one, to whose time that of this one is compared.
    """

    run: Callable[[int], float]
    batches: int
    base: Callable[[int], float] | None = None


# What a workload of a peer returns: several cases become lines "work/name".
Made = Case | Epochs | dict[str, Case]


@dataclass(frozen=True)
class ForeignLoad:
    """Cores that other processes have kept busy since this was made; None where unknown."""

    start: float = field(default_factory=time.perf_counter)
    busy: float | None = field(default_factory=lambda: _foreign_seconds())

    def cores(self) -> float | None:
        """Mean number of cores, rounded to 0.01."""
        now = _foreign_seconds()
        if now is None or self.busy is None:
            return None
        seconds = max(time.perf_counter() - self.start, 0.01)
        return round(max(0.0, now - self.busy) / seconds, 2)


def _foreign_seconds() -> float | None:
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:  # not Linux
        return None
    user, nice, system, _idle, _wait, interrupt, soft_interrupt, stolen = map(int, words[:8])
    busy = user + nice + system + interrupt + soft_interrupt + stolen
    own = os.times()
    mine = own.user + own.system + own.children_user + own.children_system
    return busy / os.sysconf("SC_CLK_TCK") - mine


def measure(made: Case | Epochs, limits: Limits, begun: float, only_first: bool = False) -> Result:
    """Time a workload; `begun` is the clock when the process began its work.

    only_first: stop after the first call, which holds tracing and compilation.
    """
    if isinstance(made, Epochs):
        return _measure_epochs(made, limits)
    load = ForeignLoad()
    first, out = _timed(made)
    since = time.perf_counter() - begun
    result: Result = dict(first_call_s=first, process_to_first_step_s=since)
    result |= dict(foreign_cores=load.cores(), check=_check(made, out))
    if only_first:
        return result
    del out
    second, sixth = _warm_up(made, limits)
    result["check"] += sixth[:1]
    times, result["foreign_cores"] = _timed_steps(made, limits)
    result |= _summary(times) | dict(second_call_s=second)
    if made.bytes:
        result["gb_per_s"] = made.bytes / result["median_s"] / 1e9
    if made.flops:
        result["gflop_per_s"] = made.flops / result["median_s"] / 1e9
    return result | ({"note": made.note} if made.note else {})


def _timed(case: Case) -> tuple[float, Any]:
    start = time.perf_counter()
    out = case.step()
    case.sync(out)
    return time.perf_counter() - start, out


def _check(case: Case, out: Any) -> list[float]:
    return [float(value) for value in case.check(out)]


def _warm_up(case: Case, limits: Limits) -> tuple[float, list[float]]:
    """Seconds of the second call, and the check after the sixth: it tests the optimizer too."""
    end = time.perf_counter() + limits.warm_up_seconds
    second, sixth = 0.0, []
    for number in range(MOST_WARM_UP_CALLS):
        seconds, out = _timed(case)
        if number == 0:
            second = seconds
        if number == WARM_UP_CALLS - 1:
            sixth = _check(case, out)
        done = time.perf_counter() > end or seconds > SLOW_STEP_SECONDS
        if number >= WARM_UP_CALLS - 1 and done:
            break
    return second, sixth


def _timed_steps(case: Case, limits: Limits) -> tuple[list[float], float | None]:
    """Seconds of each repetition, and the cores that others used meanwhile."""
    times: list[float] = []
    load, start = ForeignLoad(), time.perf_counter()
    while True:
        seconds, out = _timed(case)
        del out  # the framework may use the last result's memory again
        times.append(seconds / case.per_call)
        spent = time.perf_counter() - start
        enough = len(times) >= limits.steps and spent > limits.seconds
        if spent > limits.most_seconds or enough or len(times) >= MOST_STEPS:
            return times, load.cores()


def _summary(times: list[float]) -> Result:
    median = statistics.median(times)
    return dict(median_s=median, min_s=min(times), max_s=max(times), steps=len(times))


def _measure_epochs(made: Epochs, limits: Limits) -> Result:
    times, bases, losses, load = [], [], [], ForeignLoad()
    epochs = limits.epochs if made.base is None else 2 * limits.epochs - 1
    for number in range(epochs + 1):
        if made.base is not None:
            bases.append(_epoch(made.base, number)[0])
        seconds, loss = _epoch(made.run, number)
        times.append(seconds)
        losses.append(loss)
    foreign = load.cores()
    result: Result = dict(first_call_s=times[0]) | _summary(times[1:])
    if bases:
        result["times_base"] = result["median_s"] / statistics.median(bases[1:])
    result["us_per_batch"] = result["median_s"] / made.batches * 1e6
    check = [float(losses[0]), float(losses[-1])]
    return result | dict(foreign_cores=foreign, check=check, unit="seconds per epoch")


def _epoch(run: Callable[[int], float], number: int) -> tuple[float, float]:
    start = time.perf_counter()
    loss = run(number)
    return time.perf_counter() - start, loss


def measure_import(module: str, environment: dict[str, str], folder: Path) -> Result:
    """Wall time and peak memory of new processes that import a module, run in `folder`.

    One unmeasured process first fills the page cache.
    """
    walls, load = [], ForeignLoad()
    code = "pass" if module == "none" else f"import {module}"
    for number in range(TIMED_IMPORTS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True)
        if number:
            walls.append(time.perf_counter() - start)
    result: Result = dict(module=module) | _summary(walls)
    return result | dict(foreign_cores=load.cores(), peak_rss_mib=peak_memory(of_children=True))


def peak_memory(of_children: bool = False) -> float:
    """Most memory this process, or the largest finished child, held: MiB; 0 where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    whose = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    peak = resource.getrusage(whose).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
