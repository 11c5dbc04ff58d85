"""The table of a run on a GPU: graphnn beside its goals and, where they were timed, its peers.

python benchmarks/gpu_table.py gpu_graphnn.jsonl [gpu_peers.jsonl]
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_data import FULL

# Milliseconds on one H100. goals: what the project wants. floors: least traffic over the rate of a
# copy, or least arithmetic over the rate of products; those of the small nets are estimates.
GOALS = {
    "chain": 0.375,
    "softmax_xent": 0.62,
    "layernorm": 0.13,
    "mlp_tiny": 0.040,
    "mlp_b64": 0.065,
    "mlp_b4096": 0.15,
    "gpt2_124m": 33.0,
}
FLOORS = {
    "chain": 0.356,
    "softmax_xent": 0.546,
    "layernorm": 0.111,
    "mlp_tiny": 0.015,
    "mlp_b64": 0.03,
    "mlp_b4096": 0.10,
    "gpt2_124m": 30.0,
}
MOST_FIRST_CALL_S = {"gpt2_124m": 5.0}
MOST_PEAK_MIB = {"gpt2_124m": 8.6 * 1024}
TOLERANCE = 2e-3  # between the values of frameworks
Line = dict[str, Any]


def read(paths: Sequence[str]) -> list[Line]:
    """All JSON lines of some files; those that are no objects are left out."""
    found = []
    for path in paths:
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            if text.startswith("{"):
                found.append(json.loads(text))
    return found


def table(lines: Sequence[Line], tiny: bool = False) -> list[str]:
    """A row a workload. tiny: shapes were small, so that goals and floors mean nothing."""
    head = ["workload", "ms", "goal", "", "floor", "share", "best peer", "ms", "first s", "MiB"]
    rows = [[*head, "value"]]
    for work in FULL:
        mine = _of(lines, work, own=True)
        if work == "eager_add":
            continue
        if not mine:
            continue
        row = mine[-1]
        if "error" in row:
            rows.append([work, "FAILED", *[""] * 8, row["error"][:60]])
            continue
        words = _row(work, row, _of(lines, work, own=False))
        rows.append([*words[:2], *["-"] * 4, *words[6:]] if tiny else words)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _of(lines: Sequence[Line], work: str, own: bool) -> list[Line]:
    return [
        row
        for row in lines
        if row.get("work") == work
        and (row.get("peer") == "graphnn") == own
        and ("median_ms" in row or (own and "error" in row))
    ]


def _row(work: str, row: Line, peers: Sequence[Line]) -> list[str]:
    best = min(peers, key=lambda r: r["median_ms"], default=None)
    time, floor = row["median_ms"], FLOORS[work]
    good = time <= GOALS[work]
    good &= row["first_call_s"] <= MOST_FIRST_CALL_S.get(work, float("inf"))
    good &= row.get("peak_mib", 0.0) <= MOST_PEAK_MIB.get(work, float("inf"))
    equal = all(_agree(row, other) for other in peers)
    return [
        work,
        f"{time:.4g}",
        f"{GOALS[work]:g}",
        "met" if good else "missed",
        f"{floor:g}",
        f"{floor / time:.0%}",
        str(best["peer"]) if best else "-",
        f"{best['median_ms']:.4g}" if best else "-",
        f"{row['first_call_s']:.2f}",
        f"{row['peak_mib']:.0f}" if "peak_mib" in row else "-",
        f"{row['value5']}" if equal else f"{row['value5']} DIFFERS",
    ]


def _agree(a: Line, b: Line) -> bool:
    return all(abs(a[k] - b[k]) <= TOLERANCE * max(1.0, abs(b[k])) for k in ("value1", "value5"))


def calls(lines: Sequence[Line]) -> list[str]:
    """What calls from Python cost."""
    rows = [r for r in lines if "issue_us" in r]
    return [
        f"{r['peer']}: {r['what']}: {r['issue_us']} us to issue, {r['alone_us']} us alone"
        for r in rows
    ]


def main() -> int:
    """Print the tables of the files that are named. Returns the exit status."""
    tiny = sys.argv[1] == "--tiny"
    lines = read(sys.argv[1 + tiny :])
    print("\n".join([*table(lines, tiny), *calls(lines)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
