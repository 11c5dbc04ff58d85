"""Files of at most 600 lines, functions of at most 60 without their docstring."""

import ast

import pytest

from tests import house

FILE_LINES = 600
FUNCTION_LINES = 60
# "path" or "path:function" -> lines allowed. The list may only shrink.
EXCEPTIONS: dict[str, int] = {}


def sizes() -> dict[str, int]:
    """Size of each file, and of each function outside the tests, by "path" or "path:function"."""
    found: dict[str, int] = {}
    for path in house.source_files(*house.PLACES):
        module = house.parse(path.stem, path)
        found[module.path] = len(path.read_text(encoding="utf-8").splitlines())
        if module.path.startswith("tests/"):
            continue
        for name, _, length in house.functions(module.tree):
            key = f"{module.path}:{name}"
            found[key] = max(length, found.get(key, 0))
    return found


def limit(key: str) -> int:
    return EXCEPTIONS.get(key, FUNCTION_LINES if ":" in key else FILE_LINES)


def test_sizes() -> None:
    over = [f"{k}: {n} lines, {limit(k)} at most" for k, n in sizes().items() if n > limit(k)]
    assert not over, house.report(over, "split by op family or by topic")


def test_exceptions_are_still_needed() -> None:
    found = sizes()
    default = {key: FUNCTION_LINES if ":" in key else FILE_LINES for key in EXCEPTIONS}
    stale = [key for key in EXCEPTIONS if found.get(key, 0) <= default[key]]
    loose = [key for key in EXCEPTIONS if key not in stale and found[key] < EXCEPTIONS[key]]
    assert not stale, house.report(stale, "no longer over the limit: remove from EXCEPTIONS")
    assert not loose, house.report(loose, "has shrunk: lower its number in EXCEPTIONS")


def test_docstring_does_not_count() -> None:
    body = "    " + "x = 1\n    " * 3
    tree = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n' + body)
    assert [length for _, _, length in house.functions(tree)] == [4]


@pytest.mark.parametrize("place", house.PLACES[:3])
def test_there_is_something_to_measure(place: str) -> None:
    assert any(key.startswith(f"{place}/") for key in sizes())
