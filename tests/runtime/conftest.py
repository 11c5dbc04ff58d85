"""Helpers of the runtime's tests: a cache folder of their own, and programs in new processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphnn.runtime.cpu.objects import object_cache

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty disk cache, and nothing remembered in memory."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRAPHNN_CACHE_DIR", str(folder))
    object_cache.forget()
    yield folder
    object_cache.forget()


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run code in a new interpreter, fail on a bad exit or a hang, return what it printed."""

    def run(code: str, **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", code],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        assert not result.stderr, result.stderr
        return result.stdout

    return run
