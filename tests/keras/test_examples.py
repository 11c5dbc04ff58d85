"""The examples do what they say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_digits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["digits.py", "--epochs", "15"])
    runpy.run_path(str(EXAMPLES / "digits.py"), run_name="__main__")
    text = capsys.readouterr().out
    accuracies = [float(v) for v in re.findall(r"([\d.]+)%", text)]
    assert len(accuracies) == 4 and min(accuracies) > 97
    assert "train step by hand, compiled" in text and "fit, compiled" in text
    assert "one native call" in text
