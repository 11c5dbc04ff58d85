"""What the machine can do, by NumPy: copy and matrix rates, and the least cost of a call."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.clock import Case
from benchmarks.peers import Options

SMALL_PRODUCT = 10**8  # operations in one timed step, so that small products are repeated
CALLS = 1000


class Numpy:
    """Ceilings: gemm and memcpy; chain is only a copy of its size, not its arithmetic."""

    def __init__(self, options: Options) -> None:
        self.threads = options.threads
        self.version = np.__version__

    def chain(self) -> Case:
        x, _, _ = data.chain()
        y = np.ones_like(x)
        note = "copy of the same size, not the maths"
        return Case(self._copy(y, x), bytes=2 * x.nbytes, note=note)

    def eager_add(self) -> dict[str, Case]:
        a, b, left, right = data.eager()
        return {"add": _calls(lambda: a + b), "matmul": _calls(lambda: left @ right)}

    def gemm(self) -> dict[str, Case]:
        return {"x".join(map(str, shape)): _product(*shape) for shape in data.GEMM_SHAPES}

    def memcpy(self) -> dict[str, Case]:
        source = data.memcpy()
        target = np.ones_like(source)
        small = source[: 2**16].copy()
        small_target = np.ones_like(small)
        size = source.nbytes

        def resident() -> None:
            for _ in range(CALLS):
                np.copyto(small_target, small)

        return {
            "reuse": Case(self._copy(target, source), bytes=2 * size),
            "fresh": Case(source.copy, bytes=2 * size, note="one thread, new pages every time"),
            "fill": Case(lambda: target.fill(1.0), bytes=size, note="one thread, write only"),
            "sum": Case(source.sum, bytes=size, note="one thread, read only"),
            "l2_resident": Case(
                resident,
                per_call=CALLS,
                bytes=2 * small.nbytes,
                note="one thread, 256 KiB to 256 KiB",
            ),
        }

    def _copy(self, target: data.FloatArray, source: data.FloatArray) -> Callable[[], None]:
        """A copy into memory that exists, a share for each thread."""
        targets = np.array_split(target, self.threads)
        shares = list(zip(targets, np.array_split(source, self.threads), strict=True))

        def step() -> None:
            helpers = [threading.Thread(target=np.copyto, args=share) for share in shares[1:]]
            for helper in helpers:
                helper.start()
            np.copyto(*shares[0])
            for helper in helpers:
                helper.join()

        return step


def _calls(call: Callable[[], Any]) -> Case:
    def step() -> None:
        for _ in range(CALLS):
            call()

    return Case(step, per_call=CALLS)


def _product(rows: int, inner: int, columns: int) -> Case:
    left, right = data.gemm(rows, inner, columns)
    out = np.empty((rows, columns), np.float32)
    flops = 2 * rows * inner * columns
    repeats = max(1, SMALL_PRODUCT // flops)

    def step() -> data.FloatArray:
        for _ in range(repeats):
            np.matmul(left, right, out=out)
        return out

    return Case(step, check=lambda o: [np.abs(o).mean()], per_call=repeats, flops=flops)
