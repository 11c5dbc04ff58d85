"""pyproject.toml names every folder and file that users need."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests import house

PROJECT: dict[str, Any] = tomllib.loads((house.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS: dict[str, Any] = PROJECT["tool"]["setuptools"]
# Import names that differ from the name of the distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cuda": "cuda-bindings",
    "cudnn": "nvidia-cudnn-frontend",
    "cupy": "cupy-cuda13x",
    "cupyx": "cupy-cuda13x",
    "nvmath": "nvmath-python",
    "scipy_openblas32": "scipy-openblas32",
}
# Used when they happen to be installed; nothing is lost without them.
NOT_DECLARED = {"scipy", "rich", "threadpoolctl"}


def package_folders() -> dict[str, Path]:
    """Each package by its import name: the folders that have an __init__.py."""
    found = {}
    for package, folder in house.ROOTS.items():
        for init in (house.ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(house.ROOT / folder).parts
            found[".".join((package, *parts))] = init.parent
    return found


def test_packages_are_the_folders_with_an_init() -> None:
    listed, found = set(SETUPTOOLS["packages"]), set(package_folders())
    missing = [f"add {name!r}" for name in sorted(found - listed)]
    extra = [f"remove {name!r}" for name in sorted(listed - found)]
    assert listed == found, house.report(missing + extra, "[tool.setuptools] packages is stale")


def test_packages_are_sorted() -> None:
    assert SETUPTOOLS["packages"] == sorted(SETUPTOOLS["packages"])


def test_folders_with_code_have_an_init() -> None:
    below = (path.relative_to(house.ROOT) for path in house.source_files(*house.ROOTS.values()))
    folders = {house.ROOT / parent for path in below for parent in list(path.parents)[:-1]}
    bare = [
        p.relative_to(house.ROOT).as_posix() for p in folders if not (p / "__init__.py").exists()
    ]
    assert not bare, house.report(sorted(bare), "a folder with code needs an __init__.py")


def test_package_dir_maps_the_two_roots() -> None:
    assert SETUPTOOLS["package-dir"] == house.ROOTS


def test_data_files_are_listed() -> None:
    listed = {
        (package_folders()[package] / name)
        for package, names in SETUPTOOLS["package-data"].items()
        for name in names
    }
    absent = [str(path) for path in listed if not path.is_file()]
    assert not absent, house.report(absent, "package-data names files that do not exist")
    found = {
        path
        for folder in house.ROOTS.values()
        for path in (house.ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    lost = sorted(str(path.relative_to(house.ROOT)) for path in found - listed)
    assert not lost, house.report(lost, "data files that would be missing for users")


def declared() -> set[str]:
    """Names of all distributions that pyproject.toml asks for, in normal form."""
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(d for group in extras.values() for d in group)]
    return {normal(re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0]) for line in wanted}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_imported_packages_are_declared() -> None:
    known = frozenset(house.own_modules())
    problems = []
    for module in house.own_modules().values():
        for item in house.imports(module, known):
            top = item.target.split(".")[0]
            if house.is_own(item.target) or top in sys.stdlib_module_names or top in NOT_DECLARED:
                continue
            if normal(DISTRIBUTIONS.get(top, top)) not in declared():
                problems.append(f"{module.path}:{item.line}: {top} is in no list of pyproject.toml")
    assert not problems, house.report(problems, "declare it, or do without")


def test_python_versions() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"


def test_script_exists() -> None:
    module, _, function = PROJECT["project"]["scripts"]["graphnn"].partition(":")
    tree = house.own_modules()[module].tree
    assert function in {name for name, _, _ in house.functions(tree)}


def can_build() -> bool:
    """Whether a wheel can be built here without a network: setuptools that knows SPDX licences."""
    try:
        return int(metadata.version("setuptools").split(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not can_build(), reason="needs setuptools>=77 in this environment")
def test_wheel_is_complete_and_imports(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in house.ROOTS.values():
        shutil.copytree(house.ROOT / folder, tree / folder, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(house.ROOT / name, tree)
    build = "-m pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check"
    command = [sys.executable, *build.split(), "-w", str(tmp_path), str(tree)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} == {"graphnn"}
    assert names == expected_in_wheel()
    assert_imports_from(tmp_path / "site")


def expected_in_wheel() -> set[str]:
    """Every source and data file by its place below the one installed top-level folder."""
    expected = set()
    for package, folder in package_folders().items():
        place = package.replace(".", "/")
        expected |= {f"{place}/{path.name}" for path in folder.glob("*.py")}
        expected |= {f"{place}/{name}" for name in SETUPTOOLS["package-data"].get(package, ())}
    return expected


def assert_imports_from(site: Path) -> None:
    """The unpacked wheel must serve all three layers from one folder, nothing from the checkout."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import graphnn.compiler, graphnn.runtime;"
        "print(graphnn.__file__, graphnn.compiler.__file__, graphnn.runtime.__file__)"
    )
    command = [sys.executable, "-c", code, str(site)]
    result = subprocess.run(
        command, cwd=site, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert all(Path(path).is_relative_to(site) for path in result.stdout.split()), result.stdout
