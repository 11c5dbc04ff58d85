"""The pages about the compiler show what their code prints: --update-golden rewrites them."""

import contextlib
import io
import linecache
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests import house

FENCE = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("tour.md", "dump.md")
NAME = "shown_page"  # of the module in which a page runs


def renewed(path: Path, page: str) -> str:
    """The page with each `text` block right after a `python` block replaced by what it prints."""
    module = sys.modules[NAME] = ModuleType(NAME)
    parts: list[str] = []
    end = 0
    printed: str | None = None
    for fence in FENCE.finditer(page):
        between = page[end : fence.start()]
        parts.append(between)
        block = fence[0]
        if fence[1] == "python":
            printed = run(path, page, fence.start(2), fence[2], module)
        elif printed is not None and not between.strip():
            block = f"```text\n{steady(printed)}```"
            printed = None
        parts.append(block)
        end = fence.end()
    return "".join([*parts, page[end:]])


def run(path: Path, page: str, start: int, code: str, module: ModuleType) -> str:
    """What a block prints; its lines have the numbers they have in the page."""
    lines = page.splitlines(keepends=True)
    linecache.cache[str(path)] = (len(page), None, lines, str(path))
    above = "\n" * page.count("\n", 0, start)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(above + code, str(path), "exec"), module.__dict__)
    return output.getvalue()


def steady(text: str) -> str:
    """Printed text, ended by one newline, without the hash of kernel names."""
    return re.sub(r"_[0-9a-f]{12}\b", "_HASH", text.rstrip("\n") + "\n")


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_what_it_prints(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = house.ROOT / "docs" / name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, NAME, ModuleType(NAME))
    page = path.read_text(encoding="utf-8")
    if request.config.getoption("--update-golden"):
        for _ in range(2):  # longer texts move the lines that later texts name
            page = renewed(path, page)
        path.write_text(page, encoding="utf-8", newline="\n")
    assert renewed(path, page) == page, "run pytest with --update-golden"
