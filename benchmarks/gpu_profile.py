"""Time of each kernel and library call of a workload's step, against the least it could take."""

import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_clock import WARM_UP_CALLS, Device, Row, Work
from graphnn.compiler.dump_device import DeviceView, computes
from graphnn.inspection import inspect_program
from graphnn.runtime.device import AttentionRun, KernelRun, ProductRun

TOP = 14


def profile(work: Work, device: Device, folder: str = "") -> Row:
    """The fields of a profile's line. folder: gets the dump of the step, with times, as a file.

    Raises ValueError for a step that does not run on a GPU.
    """
    start = time.perf_counter()
    work.step()
    device.wait()
    first = time.perf_counter() - start
    for _ in range(WARM_UP_CALLS - 1):
        work.step()
    device.wait()
    compiled, arrays = _program(work)
    if not hasattr(compiled.executable, "times"):
        raise ValueError("the times of kernels are measured on a GPU: leave out --device cpu")
    found = inspect_program(compiled, compiled.times(arrays))
    if folder:
        text = "\n".join([found.text(), found.text("program"), found.text("memory")])
        (Path(folder) / f"gpu_{found.name}.txt").write_text(text, encoding="utf-8")
    view = found.view
    return dict(first_call_s=round(first, 3)) | _summary(view)  # type: ignore[arg-type]


def _program(work: Work) -> tuple[Any, list[Any]]:
    """The compiled step, and what it takes: None for what it has bound."""
    concrete = work.function.get_concrete_function(*work.arguments)
    tensors = [*work.arguments, *concrete.captures]
    return concrete.compiled, [t._value for t in tensors] + [None] * len(concrete.variables)


def _summary(view: DeviceView) -> Row:
    groups: dict[str, list[Any]] = {}
    top: dict[str, list[Any]] = {}
    for k, run in enumerate(view.plan.steps):
        cost, step = view.costs[k], view.program.steps[k]
        name = step.kernel if isinstance(run, KernelRun) else computes(step.title, run)
        for table, key in ((groups, _group(run, step.title)), (top, name)):
            entry = table.setdefault(key, [0, 0.0, 0.0])
            entry[0] += cost.nodes
            entry[1] += (cost.seconds or 0.0) * 1e3
            entry[2] += cost.floor * 1e3
    busy = sum(c.seconds or 0.0 for c in view.costs)
    floor = sum(c.floor for c in view.costs)
    return dict(
        kernels_per_step=sum(c.nodes for c in view.costs),
        gpu_busy_ms=round(busy * 1e3, 3),
        floor_ms=round(floor * 1e3, 3),
        groups={name: [n, round(ms, 3)] for name, (n, ms, _) in _sorted(groups)},
        top=[
            [name[:90], n, round(ms, 3), round(least, 3)] for name, (n, ms, least) in _sorted(top)
        ][:TOP],
    )


def _sorted(table: dict[str, list[Any]]) -> list[tuple[str, list[Any]]]:
    return sorted(table.items(), key=lambda entry: -entry[1][1])


def _group(run: Any, title: str) -> str:
    if isinstance(run, AttentionRun):
        return "attention"
    if isinstance(run, ProductRun):
        return "matmul"
    if "take_along_axis" in title or "one_hot" in title:
        return "loss"
    if "sqrt" in title and "rsqrt" not in title:
        return "optimizer"
    return "norm" if "sum" in title else "elementwise"
