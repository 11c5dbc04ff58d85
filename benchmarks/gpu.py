"""Time graphnn on one GPU: one JSON line a workload, with the fields of the peers' scripts.

python benchmarks/gpu.py --peer graphnn --work chain,gpt2_124m
python benchmarks/gpu.py --work all --device cpu --tiny --quick     # a check without a GPU
python benchmarks/gpu.py --work gpt2_124m --profile                 # kernels by time instead
"""

import argparse
import contextlib
import gc
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_clock import Device, Row, Work, measure, measure_calls
from benchmarks.gpu_data import FULL, LATER, TINY

NAMES = [*FULL, *LATER]
PEER = "graphnn"


class TooLong(Exception):
    """A workload took longer than its limit."""


class Session:
    """Workloads of one process, one after another, on one device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        start = time.perf_counter()
        import graphnn

        self.tf = graphnn
        self.name = "/GPU:0" if options.device == "cuda" else "/CPU:0"
        with graphnn.device(self.name):  # raises where there is no GPU
            graphnn.constant(0.0)
        self.device = Device() if options.device == "cpu" else self._gpu()
        seconds = round(time.perf_counter() - start, 2)
        self.emit(work="start", start_s=seconds, versions=self._versions())

    def _gpu(self) -> Device:
        from graphnn.runtime import devices

        memory = self.tf.config.experimental

        def peak() -> Row:
            return dict(peak_mib=round(memory.get_memory_info("GPU:0")["peak"] / 2**20, 1))

        return Device(devices.gpu(0).synchronize, lambda: memory.reset_memory_stats("GPU:0"), peak)

    def _versions(self) -> Row:
        import numpy

        found = {
            "graphnn": self.tf.__version__,
            "python": platform.python_version(),
            "numpy": numpy.__version__,
        }
        if self.options.device == "cuda":
            import cupy

            facts = cupy.cuda.runtime.getDeviceProperties(0)
            found |= {"cupy": cupy.__version__, "gpu": facts["name"].decode()}
        return found

    def emit(self, **row: Any) -> None:
        """Print a line, and keep it in the file."""
        line = json.dumps(dict(peer=PEER, **row))
        print(line, flush=True)
        if self.options.out:
            with open(self.options.out, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def run(self, name: str) -> bool:
        """Time one workload; whether it came to its end."""
        label = name + (" (profile)" if self.options.profile else "")
        if name in LATER:
            self.emit(work=label, error=f"not available: needs {LATER[name]} (later issue)")
            return True
        start = time.perf_counter()
        try:
            with limit(self.options.limit), self.tf.device(self.name):
                for row in self._rows(name):
                    if name != "eager_add":
                        row["total_s"] = round(time.perf_counter() - start, 1)
                    self.emit(work=label, **row)
        except Exception as error:
            if self.options.raises:
                raise
            self.emit(work=label, error=f"{type(error).__name__}: {error}"[:600])
            return False
        finally:
            gc.collect()
        return True

    def _rows(self, name: str) -> Iterator[Row]:
        from benchmarks import gpu_works

        shapes = (TINY if self.options.tiny else FULL)[name]
        if name == "eager_add":
            repeats = shapes["repeats"]
            yield from gpu_works.eager_add(
                shapes, lambda call: measure_calls(call, self.device, repeats)
            )
            return
        work = gpu_works.WORKS[name](shapes)
        if self.options.profile:
            yield self._profile(work)
        else:
            yield measure(work, self.device, self.options.quick)

    def _profile(self, work: Work) -> Row:
        from benchmarks import gpu_profile

        return gpu_profile.profile(work, self.device, os.environ.get("BENCH_OUT", ""))


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise TooLong after some seconds, once Python runs again."""

    def fire(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, fire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--peer", default=PEER, choices=[PEER])
    found.add_argument("--work", default="all", help="names with commas between, or all")
    found.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    found.add_argument("--tiny", action="store_true", help="small shapes, for a check on a CPU")
    found.add_argument("--quick", action="store_true", help="10 timed steps, not 50 or more")
    found.add_argument("--profile", action="store_true", help="time of each kernel of a step")
    found.add_argument("--limit", type=int, default=150, help="seconds for one workload")
    found.add_argument("--raises", action="store_true", help="stop with the traceback of an error")
    folder = os.environ.get("BENCH_OUT")
    out = os.path.join(folder, "gpu_graphnn.jsonl") if folder else ""
    found.add_argument("--out", default=out, help="file that gets the lines as well")
    return found


def main() -> int:
    """Run a command line. Returns the exit status: 1 if a workload failed."""
    options = parser().parse_args()
    names = NAMES if options.work == "all" else options.work.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    try:
        session = Session(options)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if all([session.run(name) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
