"""The GPU benchmarks on the CPU with small shapes: the lines, and the values of every framework."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu, gpu_clock, gpu_data
from tests import house

SCRIPT = house.ROOT / "benchmarks" / "gpu.py"
TIMED = {"peer", "work", "median_ms", "min_ms", "max_ms", "steps", "first_call_s", "warmup_s"}
TIMED |= {"value1", "value5", "total_s"}
# Values of the first and the fifth call with the small shapes, as PyTorch and JAX have them.
VALUES = {
    "chain": (0.93067, 0.93067),
    "softmax_xent": (5.14918, 5.14918),
    "layernorm": (0.4938, 0.4938),
    "mlp_b64": (2.8892, 2.65306),
    "mlp_b4096": (3.6779, 3.48953),
    "mlp_tiny": (3.40233, 3.3425),
    "gpt2_124m": (4.1938, 4.0362),
}
RATES = {
    "chain": {"gbps"},
    "softmax_xent": {"gbps"},
    "layernorm": {"gbps"},
    "mlp_b64": {"samples_per_s", "tflops"},
    "mlp_b4096": {"samples_per_s", "tflops"},
    "mlp_tiny": {"samples_per_s", "tflops"},
    "gpt2_124m": {"tokens_per_s", "tflops", "mfu_989", "params"},
}
TOLERANCE = {"gpt2_124m": 1e-4, "layernorm": 1e-3}  # bfloat16 products and results


def lines(*command: str) -> list[dict[str, Any]]:
    """The JSON lines of one process."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(text) for text in done.stdout.splitlines()]


def own(*options: str) -> dict[str, dict[str, Any]]:
    """The lines of graphnn by workload."""
    found = lines(sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--quick", *options)
    return {line["work"]: line for line in found}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    return own("--peer", "graphnn", "--work", "all")


def test_first_line_says_what_runs(measured: dict[str, dict[str, Any]]) -> None:
    assert set(measured["start"]) == {"peer", "work", "start_s", "versions"}


@pytest.mark.parametrize("work", VALUES)
def test_fields(work: str, measured: dict[str, dict[str, Any]]) -> None:
    assert set(measured[work]) == TIMED | RATES[work]


@pytest.mark.parametrize("work", VALUES)
def test_values_are_those_of_other_frameworks(
    work: str, measured: dict[str, dict[str, Any]]
) -> None:
    found = (measured[work]["value1"], measured[work]["value5"])
    assert found == pytest.approx(VALUES[work], rel=TOLERANCE.get(work, 1e-5))


def test_eager_lines(measured: dict[str, dict[str, Any]]) -> None:
    assert {"what", "issue_us", "total_us", "alone_us"} < set(measured["eager_add"])


@pytest.mark.parametrize("work", gpu_data.LATER)
def test_later_workloads_say_what_they_need(work: str, measured: dict[str, dict[str, Any]]) -> None:
    assert measured[work]["error"].startswith("not available: needs ")


@pytest.mark.skipif(
    not os.environ.get("GPU_PEERS_SCRIPT"),
    reason="set GPU_PEERS_SCRIPT and PEERS_PYTHON to compare with the other frameworks' script",
)
@pytest.mark.parametrize("peer", ["torch-eager", "jax"])
def test_values_of_the_other_frameworks_script(
    peer: str, measured: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    options = ("--device", "cpu", "--tiny", "--quick", "--out", str(tmp_path / "lines"))
    script = os.environ["GPU_PEERS_SCRIPT"]
    found = lines(python, script, "--peer", peer, "--work", ",".join(VALUES), *options)
    for line in found[1:]:
        mine, tolerance = measured[line["work"]], TOLERANCE.get(line["work"], 2e-5)
        for value in ("value1", "value5"):
            assert mine[value] == pytest.approx(line[value], rel=tolerance), line["work"]
        assert mine.get("params") == line.get("params")


def test_a_failing_workload_is_a_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(shapes: Any) -> gpu_clock.Work:
        raise ValueError("no such thing")

    from benchmarks import gpu_works

    monkeypatch.setitem(gpu_works.WORKS, "chain", broken)
    command = ["gpu.py", "--work", "chain", "--device", "cpu", "--tiny"]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu.main() == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["error"] == "ValueError: no such thing"


def test_without_a_gpu_one_sentence() -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cuda", "--work", "chain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert "GPU" in done.stderr and "Traceback" not in done.stderr


def test_unknown_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--work", "chian"])
    assert gpu.main() == 2


def test_size_of_gpt2() -> None:
    assert gpu_data.gpt2_parameters(gpu_data.FULL["gpt2_124m"]) == 124_475_904
    assert gpu_data.gpt2_flops(gpu_data.FULL["gpt2_124m"]) == pytest.approx(14.01e12, rel=1e-3)


def test_weights_of_gpt2_have_the_count() -> None:
    shapes = gpu_data.TINY["gpt2_124m"]
    weights, tokens, following = gpu_data.gpt2(shapes)
    assert sum(w.size for w in weights.values()) == gpu_data.gpt2_parameters(shapes)
    assert tokens.shape == following.shape == (shapes["batch"], shapes["time"])


def test_limit_stops_a_workload() -> None:
    with pytest.raises(gpu.TooLong), gpu.limit(1):
        while True:
            np.zeros(10)


def test_time_of_a_step_is_that_of_a_sample_over_its_steps() -> None:
    calls: list[int] = []
    work = gpu_clock.Work(lambda: calls.append(1), lambda out: 1.0, dict(bytes=10**9))
    row = gpu_clock.measure(work, gpu_clock.Device(), quick=True)
    assert row["steps"] == 10 and len(calls) == 5 + 3 + 10
    assert row["value1"] == row["value5"] == 1.0 and row["gbps"] > 0
