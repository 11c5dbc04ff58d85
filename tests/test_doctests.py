"""The examples in docstrings run and print what they say."""

import doctest
import importlib

import numpy as np
import pytest

import graphnn
from tests import house

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(name for name in house.own_modules() if not name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(name)
    lines: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    finder = doctest.DocTestFinder()
    for test in finder.find(module, name, extraglobs={"graphnn": graphnn, "np": np}):
        runner.run(test, out=lines.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(lines)
