"""Each example runs as a user runs it, and prints what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# Optional packages, without which an example says so and stops.
NEEDS = {
    "csv_columns": ("pyarrow",),
    "fit_callbacks": ("tensorboard",),
    "images": ("PIL",),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.stem for e in EXAMPLES])
def test_example_runs(example: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(example.stem, ()):
        pytest.importorskip(package)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"
    if example.stem in CHECKS:
        CHECKS[example.stem](done.stdout)


def test_each_example_is_in_the_list() -> None:
    listed = re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text())
    assert sorted(listed) == [e.name for e in EXAMPLES]


def number(pattern: str, text: str) -> float:
    """The number in the only place that fits a pattern."""
    found = re.findall(pattern, text)
    assert len(found) == 1, f"{pattern!r} found {len(found)} times in:\n{text}"
    return float(found[0])


def check_csv_columns(text: str) -> None:
    assert "city,kind,area,rooms,year,rent" in text
    assert number(r"([\d.]+) before training", text) > 500
    assert number(r"([\d.]+) after", text) < 40
    assert number(r"of 1990: ([\d.]+), wanted 680", text) == pytest.approx(680, abs=60)


def check_custom_loop(text: str) -> None:
    losses = [float(v) for v in re.findall(r"loss ([\d.]+)", text)]
    accuracies = [float(v) for v in re.findall(r"on test digits ([\d.]+)%", text)]
    assert len(losses) == len(accuracies) == 10
    assert losses[-1] < losses[0] / 4
    assert accuracies[-1] > 95.0


def check_digits(text: str) -> None:
    accuracies = [float(a) for a in re.findall(r"(\d+\.\d)%", text)]
    assert len(accuracies) == 4
    assert min(accuracies) > 97.0
    assert "one native call" in text


def check_fit_callbacks(text: str) -> None:
    epochs = number(r"stopped after (\d+) of 40 epochs", text)
    best = number(r"best epoch: (\d+),", text)
    assert best <= epochs < 40, "EarlyStopping did not stop"
    assert number(r"log.csv: (\d+) lines", text) == epochs + 1
    first, last = map(float, re.findall(r"\d\.\de-\d+", text))
    assert last < first, "ReduceLROnPlateau did not reduce"
    assert number(r"event files: (\d+)", text) == 2  # training and validation
    assert number(r"in that epoch reads ([\d.]+)%", text) > 96.0


def check_gan(text: str) -> None:
    before, after = number(r"([\d.]+) before", text), number(r"([\d.]+) after", text)
    real = number(r"([\d.]+) for real ones", text)
    assert real < before / 2, "noise is far from digits"
    assert after < (before + real) / 2
    drawn = text.splitlines()[-8:]
    assert all(len(line) == 6 * 16 + 5 * 3 for line in drawn)
    assert "##" in "".join(drawn)


def check_images(text: str) -> None:
    assert "Found 1437 files belonging to 10 classes." in text
    assert "Using 1150 files for training." in text
    assert "Using 287 files for validation." in text
    assert number(r"accuracy on the test images: ([\d.]+)%", text) > 94.0
    named = re.findall(r"(\w+)/\d+\.png looks like (\w+)", text)
    assert len(named) == 4
    assert sum(name == answer for name, answer in named) >= 3


def check_resume(text: str) -> None:
    whole, rest = (int(v) for v in re.findall(r"trained (\d+) batches", text))
    assert whole == 225
    assert rest == whole - 120, "goes on from the last backup before batch 123"
    assert "files left: ['latest.backup']" in text
    one, two = re.findall(r"accuracy ([\d.]+)%", text)
    assert one == two
    assert "the weights are equal, bit for bit" in text


def check_text(text: str) -> None:
    assert number(r"accuracy on new reviews: ([\d.]+)%", text) > 95.0
    assert number(r"was great, the music was funny': good with probability ([\d.]+)", text) > 0.8
    assert number(r"was not great, not funny': good with probability ([\d.]+)", text) < 0.2


def check_two_replicas(text: str) -> None:
    assert "1 replica(s) on" in text
    assert "2 replica(s) on" in text
    differences = [float(v) for v in re.findall(r"largest difference.*: ([\d.e+-]+)", text)]
    assert len(differences) == 2
    assert max(differences) < 1e-5


CHECKS: dict[str, Callable[[str], None]] = {
    "csv_columns": check_csv_columns,
    "custom_loop": check_custom_loop,
    "digits": check_digits,
    "fit_callbacks": check_fit_callbacks,
    "gan": check_gan,
    "images": check_images,
    "resume": check_resume,
    "text": check_text,
    "two_replicas": check_two_replicas,
}
