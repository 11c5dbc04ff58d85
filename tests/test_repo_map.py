"""docs/repo_map.md has one line for each source file, with what its docstring says."""

import ast
import re
from pathlib import Path

import pytest

from tests import house

PAGE = house.ROOT / "docs" / "repo_map.md"
LIST = re.compile(r"^<!-- files: (\S+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def first_sentence(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".")


def listed(folder: str) -> str:
    """The lines of one folder, without its packages' __init__ files."""
    paths = sorted((house.ROOT / folder).glob("*.py"))
    lines = [
        f"- [{path.name}](../{folder}/{path.name}): {first_sentence(path)}"
        for path in paths
        if path.name != "__init__.py"
    ]
    return "\n".join([f"<!-- files: {folder} -->", *lines, "<!-- end -->"])


def test_page_is_up_to_date(request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text(encoding="utf-8")
    renewed = LIST.sub(lambda match: listed(match[1]), page)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(renewed, encoding="utf-8", newline="\n")
        page = renewed
    assert page == renewed, "run pytest tests/test_repo_map.py --update-golden"


def test_every_folder_with_code_is_on_the_page() -> None:
    folders = {
        path.parent.relative_to(house.ROOT).as_posix()
        for path in house.source_files("graphnn", "compiler", "runtime")
        if path.name != "__init__.py"
    }
    missing = sorted(folders - set(LIST.findall(PAGE.read_text(encoding="utf-8"))))
    assert not missing, house.report(missing, "give the folder a heading and a list in the page")


def test_every_file_says_what_it_is() -> None:
    silent = [
        path.relative_to(house.ROOT).as_posix()
        for path in house.source_files("graphnn", "compiler", "runtime", "benchmarks", "examples")
        if path.name != "__init__.py" and not first_sentence(path)
    ]
    assert not silent, house.report(silent, "the file needs a docstring")
