"""Time graphnn beside its peers and print one table: floors, medians, ratios, goals.

    python benchmarks/run.py
    python benchmarks/run.py --peers-script peers.py --peers-python venv/bin/python --rounds 5

Each figure is the median over rounds; in a round graphnn and each peer run one after the other,
each in a process of its own.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import table  # noqa: E402  needs the line above
from benchmarks.goals import EAGER, ROWS, Run  # noqa: E402
from benchmarks.peers import PEERS, environment  # noqa: E402
from benchmarks.session import OWN, OWN_SCRIPT, Session, Settings  # noqa: E402

# Frameworks that only a script of the user's own can time, and the modules they need.
SCRIPT_NEEDS = {
    "tf-function": ("tensorflow", "keras"),
    "tf-xla": ("tensorflow", "keras"),
    "keras-fit": ("tensorflow", "keras"),
    "tinygrad": ("tinygrad",),
}
NEEDS = {name: peer.needs for name, peer in PEERS.items() if name not in OWN} | SCRIPT_NEEDS
MACHINE = (Run("memcpy"), Run("gemm"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 if a figure of graphnn is missing."""
    options = parser().parse_args(arguments)
    rows = [row for row in ROWS if not options.work or row.run.work in options.work]
    runs = list(dict.fromkeys(row.run for row in rows))
    peers, left_out = installed(options)
    session = Session(_settings(options))
    _machine(session, runs)
    for run in runs:
        _rounds(session, run, peers, options.rounds)
    _machine(session, runs)
    measured = [session.measured(row, peers) for row in rows]
    print(_heading(session, options.rounds))
    print(table.render(measured, ["graphnn", *peers]))
    for note in [*left_out, *session.problems]:
        print(note)
    return 0 if all(item.own is not None for item in measured) else 1


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    works = tuple(dict.fromkeys(row.run.work for row in ROWS))
    made.add_argument("--work", nargs="+", choices=works, help="only these workloads")
    made.add_argument("--threads", type=int, help="cores to use (default: all)")
    made.add_argument("--rounds", type=int, default=3, help="processes of each framework (3)")
    made.add_argument("--peers", nargs="*", choices=NEEDS, help="only these peers")
    made.add_argument(
        "--peers-python",
        default=os.environ.get("PEERS_PYTHON") or sys.executable,
        help="Python with the peers (PEERS_PYTHON, else this one)",
    )
    made.add_argument(
        "--peers-script",
        type=Path,
        default=os.environ.get("PEERS_SCRIPT") or OWN_SCRIPT,
        help="script that times them, with the options of cpu.py (PEERS_SCRIPT, else cpu.py)",
    )
    made.add_argument("--max-time", type=float, default=20.0, help="seconds of timed steps (20)")
    made.add_argument("--save", type=Path, help="append the JSON lines to this file")
    made.add_argument("--quick", action="store_true", help="smoke test: one round of few steps")
    return made


def installed(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Peers to time, and one line for each that is left out because a module is missing."""
    own = Path(options.peers_script) == OWN_SCRIPT
    wanted = [name for name in NEEDS if not own or name not in SCRIPT_NEEDS]
    if options.peers is not None:
        wanted = options.peers
    modules = sorted({module for name in wanted for module in NEEDS[name]})
    missing = _missing(options.peers_python, modules)
    left_out = []
    for name in wanted:
        if lacks := [module for module in NEEDS[name] if module in missing]:
            left_out.append(f"{name} is left out, not installed: {', '.join(lacks)}")
    return [name for name in wanted if not missing.intersection(NEEDS[name])], left_out


def _missing(python: str, modules: list[str]) -> set[str]:
    code = (
        "import sys, importlib.util as u; print(*(m for m in sys.argv[1:] if not u.find_spec(m)))"
    )
    done = subprocess.run(
        [python, "-c", code, *modules],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    return set(done.stdout.split())


def _settings(options: argparse.Namespace) -> Settings:
    if options.quick:
        options.rounds, options.max_time = 1, min(options.max_time, 1.0)
    return Settings(
        peers_python=options.peers_python,
        peers_script=Path(options.peers_script),
        threads=options.threads,
        max_time=options.max_time,
        quick=options.quick,
        save=options.save,
        say=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
    )


def _machine(session: Session, runs: list[Run]) -> None:
    """Rates and least costs, before and after the workloads."""
    small = [run for run in runs if run == EAGER or run.work == "import"]
    for run in (*MACHINE, *small):
        session.time("numpy", run)


def _rounds(session: Session, run: Run, peers: list[str], rounds: int) -> None:
    """graphnn, peer, peer, graphnn, peer, peer, ...: slow spells of the machine hit all alike."""
    others = [] if run.only_graphnn else peers
    for _ in range(rounds):
        for peer in ("graphnn", *others):
            if not session.skips(peer, run):
                session.time(peer, run)


def _heading(session: Session, rounds: int) -> str:
    rates, threads = session.rates(), {line["threads"] for line in session.lines} or {0}
    machine = "rates of the machine unknown"
    if rates:
        copy, product = rates.copy / 1e9, rates.product / 1e9
        machine = f"copy {copy:.1f} GB/s, float32 products {product:.0f} GFLOP/s"
    usual, most = session.foreign_load()
    load = f"other processes used {usual:.2f} cores, at most {most:.2f}"
    count = f"{rounds} round{'s' if rounds > 1 else ''}"
    return f"{max(threads)} threads, medians of {count}; {machine}; {load}\n"


if __name__ == "__main__":
    sys.exit(main())
