"""Options, fixtures and isolation shared by all tests."""

import difflib
import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# Tests share one disk cache of compiled objects in the checkout and leave the user's alone.
os.environ.setdefault(
    "GRAPHNN_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "objects")
)

# NumPy's products in one thread each: several test processes would fight for the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# New tensors are on the CPU, also on a machine with a GPU: what tests a GPU says so.
os.environ.setdefault("GRAPHNN_DEVICE", "cpu")

# Every graph that any test compiles is verified in full after each pass.
os.environ.setdefault("GRAPHNN_VERIFY", "2")

Golden = Callable[[Path | str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite golden files with what the code gives now; review the diff before committing",
    )


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("GRAPHNN_STAND_IN_GPU", "") not in ("", "0"):
        # A whole run on the emulated GPU, as the default device; "lazy": work waits for a wait.
        os.environ["GRAPHNN_DEVICE"] = "gpu:0"
        from tests.cuda import stand_in

        stand_in.install(lazy=os.environ["GRAPHNN_STAND_IN_GPU"] == "lazy")
    if importlib.util.find_spec("hypothesis") is None:
        return
    from hypothesis import settings

    # Compiling makes single examples slow, and one seed makes a failure in CI one here too.
    settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
    settings.register_profile("nightly", deadline=None, max_examples=1000, print_blob=True)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and (reason := no_gpu()):
        pytest.skip(reason)


@cache
def no_gpu() -> str:
    """Why GPU tests cannot run here, or the empty string."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'graphnn[cuda13]'"
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA GPU: {error}"
    return "" if count else "no CUDA GPU in this machine"


@pytest.fixture
def emulated_gpu() -> Iterator[Any]:
    """The emulated GPU (see tests/cuda/stand_in) for one test, with its counters and modes."""
    from tests.cuda import stand_in

    if reason := stand_in.why_not():
        pytest.skip(reason)
    with stand_in.emulated() as gpu:
        yield gpu


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(path, text)`: text must be the content of the file; --update-golden rewrites it.

    A relative path is taken from the folder of the test.
    """
    update = bool(request.config.getoption("--update-golden"))

    def compare(path: Path | str, text: str) -> None:
        __tracebackhide__ = True
        file = request.path.parent / path
        text = text.rstrip("\n") + "\n"
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
            return
        if not file.is_file():
            pytest.fail(f"{file} does not exist; run pytest with --update-golden to write it")
        expected = file.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), "golden", "now", lineterm=""
            )
            hint = "if this is meant, run with --update-golden and review the diff"
            pytest.fail("\n".join([f"{file} differs; {hint}", *lines]))

    return compare
