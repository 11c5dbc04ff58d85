"""What the tests of the data pipeline share."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphnn.data  # noqa: F401


def plain(value: Any) -> Any:
    """An element as nested Python values, for comparing."""
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return np.asarray(value).tolist()


def values(dataset: Any) -> list[Any]:
    """All elements as Python values."""
    return [plain(element) for element in dataset]


def data_threads() -> list[str]:
    """Names of the living threads of pipelines."""
    return [t.name for t in threading.enumerate() if t.name.startswith("graphnn-data")]


def no_threads_left() -> bool:
    """Whether all threads of pipelines are gone, at the latest in a moment."""
    for _ in range(100):
        if not data_threads():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(autouse=True)
def threads_are_gone() -> Iterator[None]:
    """No test may leave a thread behind."""
    yield
    assert no_threads_left(), data_threads()
