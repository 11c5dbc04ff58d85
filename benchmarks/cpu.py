"""Time one framework on one CPU workload: one JSON line for each case.

    python benchmarks/cpu.py --peer graphnn --work mlp
    python benchmarks/cpu.py --peer graphnn --work all --threads 1

benchmarks/README.md says what the workloads are and what the fields of a line mean.
"""

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import clock  # noqa: E402  needs the line above
from benchmarks.peers import OPENBLAS_OVERRIDES, PEERS, WORKLOADS, Options, environment  # noqa: E402

BEGUN = time.perf_counter()
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    if options.work == "all":
        return _each_in_a_new_process(arguments)
    for line in lines(options):
        print(json.dumps(_rounded(line)), flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command line; the first block is that of other frameworks' scripts."""
    description = (__doc__ or "").split("\n")[0]
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--peer", required=True, choices=PEERS)
    made.add_argument("--work", required=True, choices=(*WORKLOADS, "all"))
    made.add_argument("--threads", type=int, help="cores to use (default: all)")
    made.add_argument(
        "--variant",
        help="fit: the workload fit by Model.fit; fit_dataset: by Model.fit of a Dataset",
    )
    made.add_argument("--cache-dir", type=Path, help="compile cache to use (default: a new one)")
    made.add_argument("--compile-only", action="store_true", help="stop after the first step")
    made.add_argument("--max-time", type=float, help="most seconds of timed steps (20)")
    made.add_argument("--module", help="what the import workload imports ('none': bare Python)")
    cache = made.add_mutually_exclusive_group()
    cache.add_argument("--cold", action="store_true", help="empty compile cache (the default)")
    cache.add_argument(
        "--warm", action="store_true", help="fill the compile cache in another process first"
    )
    made.add_argument("--quick", action="store_true", help="few steps: a smoke test, no timing")
    return made


def _each_in_a_new_process(arguments: list[str]) -> int:
    """Repeat the command line for each workload; the exit status is the worst."""
    place = next(i for i, word in enumerate(arguments) if word.startswith("--work"))
    span = 1 if "=" in arguments[place] else 2
    rest = arguments[:place] + arguments[place + span :]
    codes = []
    for work in WORKLOADS:
        command = [sys.executable, __file__, "--work", work, *rest]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(map(abs, codes))


def lines(options: argparse.Namespace) -> list[clock.Result]:
    """The lines of one workload. Sets threads and caches of this process for good."""
    base: clock.Result = dict(peer=options.peer, work=options.work)
    base["threads"] = options.threads or _cores()
    if variant := ",".join(filter(None, [options.variant, "warm" if options.warm else ""])):
        base["variant"] = variant
    for name in OPENBLAS_OVERRIDES:
        os.environ.pop(name, None)
    if options.work == "import":
        module = options.module or PEERS[options.peer].imports
        return [base | clock.measure_import(module, environment(), ROOT)]
    if options.threads:
        _set_threads(options.threads)
    with contextlib.ExitStack() as stack:
        folder = options.cache_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.warm:
            _fill_cache(options, folder)
        PEERS[options.peer].use_cache(folder, asked=options.warm or bool(options.cache_dir))
        return _measured(options, base)


def _measured(options: argparse.Namespace, base: clock.Result) -> list[clock.Result]:
    start = time.perf_counter()
    settings = Options(options.peer, base["threads"], frozenset((options.variant or "").split(",")))
    peer = load(options.peer)(settings)
    base |= dict(import_s=time.perf_counter() - start, version=peer.version)
    build = getattr(peer, options.work, None)
    if build is None:
        return [base | dict(skipped="no such workload for this peer", **_peak())]
    limits = clock.QUICK if options.quick else clock.Limits()
    if options.max_time is not None:
        limits = clock.Limits(**(vars(limits) | dict(most_seconds=options.max_time)))
    made: clock.Made = build()
    cases = made if isinstance(made, dict) else {"": made}
    found = []
    for name, case in cases.items():
        named = base | (dict(work=f"{options.work}/{name}") if name else {})
        result = clock.measure(case, limits, BEGUN, only_first=options.compile_only)
        found.append(named | result | _peak())
    return found


def load(name: str) -> Any:
    """The class of a peer; its module imports the framework."""
    module, _, attribute = PEERS[name].source.partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), attribute)


def _fill_cache(options: argparse.Namespace, folder: Path) -> None:
    command = [sys.executable, __file__, "--peer", options.peer, "--work", options.work]
    command += ["--cache-dir", str(folder), "--compile-only", "--quick"]
    command += ["--variant", options.variant] if options.variant else []
    command += ["--threads", str(options.threads)] if options.threads else []
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        sys.exit("cpu.py: the process that fills the compile cache failed, see above")


def _set_threads(count: int) -> None:
    """Bind to so many cores before a framework is imported: its pools follow the mask."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _peak() -> clock.Result:
    return dict(peak_rss_mib=clock.peak_memory())


def _rounded(line: clock.Result) -> clock.Result:
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in line.items()}


if __name__ == "__main__":
    sys.exit(main())
