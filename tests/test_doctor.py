"""The doctor tells what it finds and survives whatever is missing."""

import importlib.util
import subprocess
import sys

import pytest

from graphnn import doctor


def test_report_names_each_fact() -> None:
    text = doctor.report()
    for name in ("graphnn", "Python", "CPU", "threads", "LLVM", "BLAS", "object cache", "GPU"):
        assert f"\n{name} " in f"\n{text}"
    assert "cannot tell" not in text


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "graphnn.doctor"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "optional packages" in result.stdout


def test_nothing_missing_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("no luck\nat all")

    monkeypatch.setattr(doctor.target, "host_cpu", broken)
    monkeypatch.setattr(doctor.blas, "describe", broken)
    monkeypatch.setattr(doctor.jit, "cache_status", broken)
    text = doctor.report()
    assert "cannot tell: RuntimeError: no luck\n" in text
    assert "GPU" in text


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    text = doctor.report()
    assert "missing; for HDF5 files: pip install 'graphnn[hdf5]'" in text
    assert "missing; for compiled functions: pip install 'llvmlite'" in text


@pytest.mark.parametrize(
    ("driver", "cupy", "expected"),
    [
        (([], 0), False, "graphnn runs on the CPU"),
        ((["H100"], 13000), False, "H100 (driver for CUDA 13.0), but CuPy is missing: pip"),
        (
            (["T4"], 12040),
            False,
            "(driver for CUDA 12.4), but CuPy is missing: pip install 'graphnn[cuda12]'",
        ),
        ((["H100", "H100"], 13010), True, "H100, H100 (driver for CUDA 13.1) with CuPy"),
    ],
)
def test_gpu_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, driver: tuple[list[str], int], cupy: bool, expected: str
) -> None:
    spec = importlib.util.find_spec("json") if cupy else None
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    monkeypatch.setattr(doctor, "find_spec", lambda name: spec)
    assert expected in doctor.report()
