"""The benchmarks give every framework the same data and print the agreed lines; no timing here."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import clock, cpu, data, goals, peers, run, session, table
from benchmarks.floors import SIZES, Rates
from benchmarks.peers import PEERS, WORKLOADS
from tests import house

SCRIPT = house.ROOT / "benchmarks" / "cpu.py"
# First two elements and the sum of each array, as other frameworks' scripts draw them.
DRAWN: dict[str, list[tuple[tuple[int, ...], float, float, float]]] = {
    "chain": [
        ((4096, 4096), -1.80976772, -0.32173017, 5782.705125),
        ((4096,), -0.88738704, 1.88700283, 65.010505),
        ((4096,), 0.11752909, 0.35395396, 73.374060),
    ],
    "softmax_xent": [
        ((4096, 10000), 0.80085158, -0.79193616, 6481.166748),
        ((4096,), 9302, 1662, 20472827),
    ],
    "layernorm": [
        ((8192, 1024), 0.04272019, -0.06874362, -3.886139),
        ((1024,), -1.69086254, 0.60637814, -10.510196),
        ((1024,), 0.80591506, -0.11969224, 56.353066),
        ((8192, 1024), -0.35493940, -0.53841627, -4243.516424),
    ],
    "mlp_tiny": [
        ((32, 64), 0.10927238, 1.75944972, -72.194076),
        ((32,), 5, 0, 135),
        ((64, 32), 0.11735231, 0.32269925, 4.587256),
        ((32,), -0.00334567, -0.00049889, -0.046398),
    ],
    "fit": [
        ((20000, 784), 0.03620261, -2.62601066, -1272.235058),
        ((20000,), 5, 2, 89471),
        ((784, 128), -0.01077862, -0.03690749, -6.197583),
        ((128,), -0.00214206, -0.00352444, -0.051376),
    ],
}
COMMON = {
    "peer",
    "work",
    "threads",
    "import_s",
    "version",
    "first_call_s",
    "foreign_cores",
    "check",
    "peak_rss_mib",
}
TIMED = {"median_s", "min_s", "max_s", "steps"}
FIRST, SECOND = {"process_to_first_step_s"}, {"second_call_s"}


def arrays(name: str) -> list[Any]:
    """The arrays of one workload, weights and biases behind one another."""
    makers: dict[str, Callable[[], tuple[Any, ...]]] = {
        "chain": data.chain,
        "softmax_xent": data.softmax_xent,
        "layernorm": data.layernorm,
        "mlp_tiny": lambda: data.mlp(data.TINY_SIZES, data.TINY_BATCH),
        "fit": data.fit,
    }
    made = makers[name]()
    if isinstance(made[-1], list):
        return [*made[:-1], *(array for layer in made[-1] for array in layer)]
    return list(made)


@pytest.mark.parametrize("name", DRAWN)
def test_data_are_those_of_every_framework(name: str) -> None:
    for array, (shape, first, second, total) in zip(arrays(name), DRAWN[name], strict=False):
        assert array.shape == shape
        assert array.dtype == (np.int64 if array.dtype.kind == "i" else np.float32)
        np.testing.assert_allclose(array.ravel()[:2], [first, second], rtol=1e-5)
        np.testing.assert_allclose(array.sum(dtype=np.float64), total, rtol=1e-5, atol=1e-5)


def test_batches_of_an_epoch() -> None:
    batches = data.epoch_batches(1)
    assert batches[0][:4].tolist() == [16427, 10598, 18264, 13229]
    assert len(batches) == 313 and len(batches[-1]) == 32
    assert sorted(np.concatenate(batches)) == list(range(data.FIT_SAMPLES))


def lines(*options: str) -> list[dict[str, Any]]:
    """The JSON lines of one process of cpu.py."""
    command = [sys.executable, str(SCRIPT), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(text) for text in done.stdout.splitlines()]


def test_train_step_line() -> None:
    (line,) = lines("--peer", "graphnn", "--work", "mlp_tiny", "--threads", "1")
    assert set(line) == COMMON | TIMED | FIRST | SECOND
    assert (line["peer"], line["work"], line["threads"]) == ("graphnn", "mlp_tiny", 1)
    assert line["check"] == pytest.approx(goals.EXPECTED["mlp_tiny"], rel=goals.TOLERANCE)


def test_filled_cache_and_first_call_only() -> None:
    options = ("--peer", "graphnn", "--work", "mlp_tiny", "--warm", "--compile-only")
    (line,) = lines(*options)
    assert set(line) == COMMON | FIRST | {"variant"}
    assert line["variant"] == "warm" and len(line["check"]) == 1


def test_eager_lines() -> None:
    found = lines("--peer", "graphnn", "--work", "eager_add")
    names = ["add", "matmul", "add_recorded", "tape_per_op", "jit_call"]
    assert [line["work"] for line in found] == [f"eager_add/{name}" for name in names]
    assert all(set(line) - {"note"} == COMMON | TIMED | FIRST | SECOND for line in found)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["chain", "softmax_xent", "layernorm", "mlp"])
def test_checks_of_the_large_workloads(work: str) -> None:
    (line,) = lines("--peer", "graphnn", "--work", work)
    assert set(line) - {"gb_per_s"} == COMMON | TIMED | FIRST | SECOND
    assert line["check"] == pytest.approx(goals.EXPECTED[work], rel=goals.TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "fit", "fit_dataset"])
def test_fit_line(variant: str) -> None:
    (line,) = lines("--peer", "graphnn", "--work", "fit", f"--variant={variant}")
    assert set(line) - {"variant", "times_base"} == COMMON | TIMED | {"us_per_batch", "unit"}
    assert ("times_base" in line) == (variant == "fit_dataset")
    assert line["check"][0] == pytest.approx(goals.EXPECTED["fit"][0], rel=0.02)
    assert line["check"][1] < line["check"][0]


def test_unknown_workload_of_a_peer_is_said() -> None:
    (line,) = lines("--peer", "numpy", "--work", "lstm")
    assert line["skipped"] == "no such workload for this peer"


def test_import_line() -> None:
    (line,) = lines("--peer", "graphnn", "--work", "import")
    assert (
        set(line) == {"peer", "work", "threads", "module", "foreign_cores", "peak_rss_mib"} | TIMED
    )
    assert line["module"] == "graphnn" and 0 < line["min_s"] <= line["median_s"] <= line["max_s"]


def test_every_peer_has_known_workloads() -> None:
    assert set(SIZES) <= set(WORKLOADS)
    assert {row.run.work for row in goals.ROWS} <= set(WORKLOADS)
    assert set(goals.EXPECTED) <= set(WORKLOADS)
    for name in ("graphnn", "numpy"):
        methods = {key for key in vars(cpu.load(name)) if not key.startswith("_")}
        assert methods <= set(WORKLOADS), name


def test_clock_counts_warm_up_and_repetitions() -> None:
    calls: list[int] = []

    def step() -> int:
        calls.append(len(calls))
        return len(calls)

    limits = clock.Limits(steps=4, seconds=0.0, warm_up_seconds=0.0)
    case = clock.Case(step, check=lambda count: [count, 0.5], per_call=10, bytes=8, note="n")
    result = clock.measure(case, limits, begun=0.0)
    assert len(calls) == 1 + clock.WARM_UP_CALLS + 4
    assert result["check"] == [1.0, 0.5, 6.0]
    assert result["steps"] == 4 and result["note"] == "n"
    assert result["gb_per_s"] == pytest.approx(8e-9 / result["median_s"])


def test_floors() -> None:
    rates = Rates(copy=28e9, product=108e9)
    milliseconds = {work: rates.floor(size) * 1e3 for work, size in SIZES.items()}
    assert milliseconds["chain"] == pytest.approx(4.8, rel=0.01)
    assert milliseconds["softmax_xent"] == pytest.approx(11.7, rel=0.01)
    assert milliseconds["layernorm"] == pytest.approx(6.0, rel=0.01)
    assert SIZES["mlp"].flops == 6 * 64 * (784 * 512 + 512 * 512 + 5120) - 2 * 64 * 784 * 512


def made_up_line(peer: str, seconds: float, **further: Any) -> dict[str, Any]:
    return dict(peer=peer, work="chain", threads=2, median_s=seconds, foreign_cores=0.0) | further


def test_table() -> None:
    found = session.Session(session.Settings())
    for seconds in (0.010, 0.030, 0.012):
        found.keep(made_up_line("graphnn", seconds))
    found.keep(made_up_line("jax", 0.030))
    found.keep(made_up_line("torch-eager", 0.2))
    found.keep(made_up_line("numpy", 0.01, work="memcpy/reuse", gb_per_s=28.0))
    found.keep(made_up_line("numpy", 0.01, work="gemm/2048x2048x2048", gflop_per_s=100.0))
    chain, add = goals.ROWS[0], next(row for row in goals.ROWS if row.label == "eager add")
    measured = [found.measured(row, ["jax", "torch-eager"]) for row in (chain, add)]
    assert measured[0].own == 0.012
    assert table.render(measured, ["graphnn", "jax", "torch-eager"]).splitlines() == [
        "| workload  | unit | floor | graphnn | jax | torch-eager | times the best peer "
        "| share of floor | goal       |",
        "| --------- | ---- | ----- | ------- | --- | ----------- | ------------------- "
        "| -------------- | ---------- |",
        "| chain     | ms   | 4.79  | 12      | 30  | 200         | 2.50x jax           "
        "| 40%            | 2x: met    |",
        "| eager add | us   |       |         |     |             |                     "
        "|                | under 3 us |",
    ]


def test_wrong_results_are_noted_once() -> None:
    found = session.Session(session.Settings())
    for _ in range(2):
        found.keep(made_up_line("jax", 0.03, check=[0.5, 0.6419934]))
    assert found.problems == [
        "jax, chain: wrong result: [0.5, 0.6419934], expected [0.2242092, 0.6419934, 0.2242092]"
    ]


def test_benchmark_processes_are_like_those_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1024")
    monkeypatch.setenv("OPENBLAS_VERBOSE", "0")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    kept = peers.environment()
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE"} & set(kept)
    assert "OPENBLAS_VERBOSE" in kept


def test_missing_peers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_missing", lambda python, modules: {"torch", "tinygrad"})
    options = run.parser().parse_args(["--peers", "torch-eager", "jax", "tinygrad"])
    assert run.installed(options) == (
        ["jax"],
        [
            "torch-eager is left out, not installed: torch",
            "tinygrad is left out, not installed: tinygrad",
        ],
    )


@pytest.mark.slow
def test_smoke_run_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save = tmp_path / "lines.jsonl"
    arguments = ["--quick", "--work", "mlp_tiny", "--peers", "--save", str(save)]
    assert run.main(arguments) == 0
    assert "| mlp_tiny " in capsys.readouterr().out
    saved = [json.loads(text) for text in save.read_text().splitlines()]
    assert {line["peer"] for line in saved} == {"graphnn", "numpy"}


def test_peers_name_their_modules() -> None:
    folder = house.ROOT / "benchmarks"
    for name, peer in PEERS.items():
        module, _, attribute = peer.source.partition(":")
        assert f"class {attribute}" in (folder / f"{module}.py").read_text(encoding="utf-8"), name
