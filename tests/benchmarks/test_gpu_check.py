"""The check for a real GPU, rehearsed: its table, its parity runs, and the whole script."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_data, gpu_parity, gpu_table
from tests import house
from tests.cuda import stand_in

EMULATED = (
    "import runpy, sys; from tests.cuda import stand_in; stand_in.install(); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
LINE = dict(peer="graphnn", work="chain", median_ms=0.36, first_call_s=0.5, value1=1.0, value5=1.0)


def line(**changes: Any) -> dict[str, Any]:
    return LINE | changes


def needs_emulation() -> None:
    if reason := stand_in.why_not():
        pytest.skip(reason)


def rows(*lines: dict[str, Any], tiny: bool = False) -> list[list[str]]:
    return [text.split() for text in gpu_table.table(lines, tiny)[1:]]


def test_every_workload_has_a_goal_and_a_floor() -> None:
    timed = set(gpu_data.FULL) - {"eager_add"}
    assert set(gpu_table.GOALS) == set(gpu_table.FLOORS) == timed
    assert all(gpu_table.FLOORS[w] < gpu_table.GOALS[w] for w in timed)


def test_goals_met_and_missed() -> None:
    assert "met" in rows(line())[0]
    assert "missed" in rows(line(median_ms=0.5))[0]
    big = line(work="gpt2_124m", median_ms=31.0)
    assert "met" in rows(big | {"peak_mib": 8000.0})[0]
    assert "missed" in rows(big | {"peak_mib": 9000.0})[0]
    assert "missed" in rows(big | {"first_call_s": 7.0})[0]


def test_best_peer_and_values() -> None:
    peers = [line(peer="jax", median_ms=0.4), line(peer="torch", median_ms=0.38)]
    (found,) = rows(line(), *peers)
    assert "torch" in found and "jax" not in found
    (found,) = rows(line(), line(peer="jax", value5=1.1))
    assert found[-1] == "DIFFERS"


def test_failures_are_in_the_table() -> None:
    (found,) = rows(dict(peer="graphnn", work="chain", error="RuntimeError: no"))
    assert found[:2] == ["chain", "FAILED"] and found[-1] == "no"


def test_small_shapes_have_no_goals() -> None:
    assert not {"met", "missed"} & set(rows(line(), tiny=True)[0])


def test_table_of_files(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    calls = dict(peer="graphnn", work="eager_add", what="add", issue_us=1.0, alone_us=2.0)
    file.write_text("\n".join(["not json", json.dumps(line()), json.dumps(calls)]) + "\n")
    command = [sys.executable, str(house.ROOT / "benchmarks" / "gpu_table.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "chain" in done.stdout and "add: 1.0 us to issue" in done.stdout


@pytest.mark.parametrize("work", gpu_parity.TOLERANCE)
def test_parity_of_the_cpu_with_itself(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_parity.check(work, "/CPU:0", 5, tiny=True)
    assert "two runs equal in bits" in capsys.readouterr().out


def test_parity_on_the_emulated_gpu(emulated_gpu: object) -> None:
    assert gpu_parity.check("mlp_b64", "/GPU:0", 5, tiny=True)


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    needs_emulation()
    own = {**os.environ, "PYTHONPATH": str(house.ROOT), **environment}
    return subprocess.run(
        command, cwd=house.ROOT, env=own, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    script = str(house.ROOT / "benchmarks" / "gpu_check.sh")
    parts = "doctor,parity,sanitizer,bench,profile,peers,table"
    environment = {"OUT": str(tmp_path), "PYTHON": sys.executable, "PEERS_SCRIPT": ""}
    done = run([script, "--rehearse", "--only", parts], **environment)
    log = (tmp_path / "check.log").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout + log[-4000:]
    assert done.stdout == (tmp_path / "summary.txt").read_text(encoding="utf-8")
    for work in gpu_table.GOALS:
        assert f"\n{work}" in done.stdout
    assert done.stdout.count("equal in bits") == len(gpu_parity.TOLERANCE)
    assert "one CUDA graph of" in (tmp_path / "gpu_gpt2_step.txt").read_text(encoding="utf-8")
    assert len(list(tmp_path.iterdir())) <= 8


@pytest.mark.slow
def test_digits_on_the_emulated_gpu() -> None:
    script = str(house.ROOT / "examples" / "digits.py")
    options = [script, "--device", "gpu", "--epochs", "2"]
    done = run([sys.executable, "-c", EMULATED, *options])
    assert done.returncode == 0, done.stderr
    assert "one CUDA graph of" in done.stdout


def test_digits_without_a_gpu_says_what_to_do() -> None:
    script = str(house.ROOT / "examples" / "digits.py")
    environment = {"GRAPHNN_STAND_IN_GPU": "0"}
    done = run([sys.executable, script, "--device", "gpu", "--epochs", "2"], **environment)
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert "graphnn doctor" in done.stderr and "Traceback" not in done.stderr
