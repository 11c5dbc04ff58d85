"""The Python blocks of README.md and docs/*.md run, in order, one namespace for each file."""

import linecache
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from graphnn import keras
from tests import house

PAGES = sorted([house.ROOT / "README.md", *(house.ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)")


def python_lines(text: str) -> list[list[str]]:
    """Each Python block as a page-long list of lines: all but the block is blank."""
    lines = text.splitlines()
    blocks: list[list[str]] = []
    language: str | None = None
    indent = ""
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if fence is None:
            if language == "python":
                blocks[-1][number] = line.removeprefix(indent)
            continue
        if language is not None:
            language = None
            continue
        language, indent = fence["language"], fence["indent"]
        if language == "python":
            blocks.append([""] * len(lines))
    return blocks


def run_page(path: Path, module: ModuleType) -> int:
    """Run the blocks of one page in `module`; line numbers are those of the page."""
    blocks = python_lines(path.read_text(encoding="utf-8"))
    merged = ["\n"] * max((len(block) for block in blocks), default=0)
    for block in blocks:
        merged = [f"{new}\n" if new else old for new, old in zip(block, merged, strict=True)]
    # inspect.getsource must find the code without the text around it.
    linecache.cache[str(path)] = (sum(map(len, merged)), None, merged, str(path))
    for block in blocks:
        exec(compile("\n".join(block), str(path), "exec"), module.__dict__)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session()  # a page names its layers as it would alone
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    count = run_page(page, module)
    assert count or page.name != "README.md", "README.md holds no Python block"


def test_blocks_are_found_with_their_lines() -> None:
    text = "a\n```python\nx = 1\n```\n```sh\nls\n```\n- b\n  ```python\n  y = x\n  ```\n"
    blocks = python_lines(text)
    assert [[(i, line) for i, line in enumerate(b) if line] for b in blocks] == [
        [(2, "x = 1")],
        [(9, "y = x")],
    ]
