"""The table of run.py as Markdown: one row a workload, one column a framework."""

from dataclasses import dataclass

from benchmarks.goals import Row

NOTHING = ""


@dataclass(frozen=True)
class Measured:
    """What a run found for one row, in seconds; frameworks without a figure are left out."""

    row: Row
    figures: dict[str, float]
    floor: float | None = None

    @property
    def own(self) -> float | None:
        return self.figures.get("graphnn")

    @property
    def best_peer(self) -> tuple[str, float] | None:
        """The fastest other framework and its figure."""
        others = [(value, name) for name, value in self.figures.items() if name != "graphnn"]
        if not others:
            return None
        value, name = min(others)
        return name, value

    @property
    def times_as_fast(self) -> float | None:
        """The best peer's time over graphnn's."""
        if self.own is None or self.best_peer is None:
            return None
        return self.best_peer[1] / self.own

    @property
    def goal(self) -> str:
        """The goal of the row and whether this run meets it; empty without a goal."""
        row = self.row
        if row.under is not None:
            text = f"under {number(row.under * row.unit.per_second)} {row.unit.name}"
            return _verdict(text, None if self.own is None else self.own < row.under)
        if row.times is not None:
            faster = self.times_as_fast
            return _verdict(f"{row.times:g}x", None if faster is None else faster >= row.times)
        return NOTHING


def _verdict(text: str, met: bool | None) -> str:
    if met is None:
        return text
    return f"{text}: {'met' if met else 'MISSED'}"


def number(value: float) -> str:
    """Three significant digits, without an exponent.

    >>> from benchmarks.table import number
    >>> number(0.012345), number(2.5), number(1234.5)
    ('0.0123', '2.5', '1234')
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".")


def render(measured: list[Measured], frameworks: list[str]) -> str:
    """A padded Markdown table."""
    head = [
        "workload",
        "unit",
        "floor",
        *frameworks,
        "times the best peer",
        "share of floor",
        "goal",
    ]
    rows = [head, *(_cells(item, frameworks) for item in measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join(lines)


def _cells(item: Measured, frameworks: list[str]) -> list[str]:
    unit = item.row.unit
    best, faster = item.best_peer, item.times_as_fast

    def time(seconds: float | None) -> str:
        return NOTHING if seconds is None else number(seconds * unit.per_second)

    share = NOTHING
    if item.floor and item.own:
        share = f"{item.floor / item.own:.0%}"
    ratio = NOTHING if best is None or faster is None else f"{faster:.2f}x {best[0]}"
    figures = [time(item.figures.get(name)) for name in frameworks]
    return [item.row.label, unit.name, time(item.floor), *figures, ratio, share, item.goal]


def _line(cells: list[str], widths: list[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"
