"""One run of the table: processes started, JSON lines collected, figures looked up in them."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.floors import SIZES, Rates
from benchmarks.goals import EXPECTED, TOLERANCE, Row, Run
from benchmarks.peers import environment
from benchmarks.table import Measured

Line = dict[str, Any]

OWN_SCRIPT = Path(__file__).resolve().parent / "cpu.py"
OWN = ("graphnn", "numpy")
PROCESS_SECONDS = 900
COPY, PRODUCT = "memcpy/reuse", "gemm/2048x2048x2048"
# The rows whose floor is another figure than traffic or arithmetic: NumPy's cost of the same.
NUMPY_FLOORS = ("eager_add/add", "eager_add/matmul", "import")


@dataclass(frozen=True)
class Settings:
    """Whom to time and how: the options of run.py."""

    peers_python: str = sys.executable
    peers_script: Path = OWN_SCRIPT
    threads: int | None = None
    max_time: float = 20.0
    quick: bool = False
    save: Path | None = None
    say: Callable[[str], None] = lambda text: None


@dataclass
class Session:
    """Lines and problems of one run."""

    settings: Settings
    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def time(self, peer: str, run: Run) -> None:
        """Start one process and keep its lines; a failure is noted, never raised."""
        self.settings.say(f"{peer}: {' '.join((run.work, *run.options))}")
        what = f"{peer}, {run.work}"
        try:
            done = subprocess.run(
                self.command(peer, run),
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PROCESS_SECONDS,
            )
        except subprocess.TimeoutExpired:
            self.note(f"{what}: no end after {PROCESS_SECONDS} s")
            return
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            self.note(f"{what}: exit status {done.returncode}: {last}")
        for text in done.stdout.splitlines():
            if text.startswith("{"):
                self.keep(json.loads(text))

    def command(self, peer: str, run: Run) -> list[str]:
        """graphnn and NumPy are timed by cpu.py in this Python, the others as the settings say."""
        settings = self.settings
        own = peer in OWN
        python = sys.executable if own else settings.peers_python
        script = OWN_SCRIPT if own else settings.peers_script
        command = [python, str(script), "--peer", peer, "--work", run.work, *run.options]
        command += ["--threads", str(settings.threads)] if settings.threads else []
        command += ["--max-time", str(settings.max_time)]
        return command + (["--quick"] if settings.quick and script == OWN_SCRIPT else [])

    def keep(self, line: Line) -> None:
        """Keep a line, in the file of the settings too, and compare what it computed."""
        self.lines.append(line)
        if self.settings.save:
            with self.settings.save.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if problem := wrong_result(line):
            self.note(problem)

    def note(self, problem: str) -> None:
        """Keep a problem once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def skips(self, peer: str, run: Run) -> bool:
        """Whether a peer has said that it cannot do a workload."""
        return any(
            "skipped" in line and line["peer"] == peer and line["work"] == run.work
            for line in self.lines
        )

    def measured(self, row: Row, peers: list[str]) -> Measured:
        """The medians over the rounds, and the floor of a row."""
        figures = {}
        for peer in ("graphnn", *peers):
            if found := self.figures(peer, row):
                figures[peer] = statistics.median(found)
        return Measured(row, figures, self.floor(row))

    def figures(self, peer: str, row: Row) -> list[float]:
        """What a framework's lines say for a row, in seconds, one value a round."""
        run = row.run if peer == "graphnn" or row.peers is None else row.peers
        return [
            line[row.field]
            for line in self.lines
            if line["peer"] == peer
            and line["work"] == row.work
            and line.get("variant", "") == run.variant
            and row.field in line
        ]

    def floor(self, row: Row) -> float | None:
        """Seconds that a row must take at least; None where nothing bounds it."""
        if row.field != "median_s":
            return None
        if row.work in NUMPY_FLOORS:
            found = self.figures("numpy", row)
            return statistics.median(found) if found else None
        size, rates = SIZES.get(row.work), self.rates()
        return rates.floor(size) if size and rates else None

    def rates(self) -> Rates | None:
        """The machine's best rates in this run: foreign load can only lower them."""
        copies = [line["gb_per_s"] for line in self.lines if line["work"] == COPY]
        products = [line["gflop_per_s"] for line in self.lines if line["work"] == PRODUCT]
        if not copies or not products:
            return None
        return Rates(max(copies) * 1e9, max(products) * 1e9)

    def foreign_load(self) -> tuple[float, float]:
        """The median and the most of the cores that other processes used in a measurement."""
        loads = [line.get("foreign_cores") or 0.0 for line in self.lines] or [0.0]
        return statistics.median(loads), max(loads)


def wrong_result(line: Line) -> str:
    """A sentence if a line's check differs from what every framework computes, else ""."""
    expected = EXPECTED.get(line["work"])
    found = line.get("check")
    if not expected or not found or "fit" in line.get("variant", "") or line["peer"] == "numpy":
        return ""
    pairs = zip(found, expected, strict=False)
    if all(abs(a - b) <= TOLERANCE * abs(b) for a, b in pairs):
        return ""
    return f"{line['peer']}, {line['work']}: wrong result: {found}, expected {list(expected)}"
