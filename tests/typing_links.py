"""Run mypy over the package as it is installed: `python tests/typing_links.py [mypy arguments]`.

mypy does not see that compiler/ and runtime/ are imported as graphnn.compiler and graphnn.runtime.
The folder .typing/graphnn/ links to all three, so that mypy finds them under those names.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / ".typing" / "graphnn"


def make_links(links: Path = LINKS, root: Path = ROOT) -> None:
    """Make the link folder afresh; where links are not allowed, copy."""
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    children = [p for p in (root / "graphnn").iterdir() if p.name != "__pycache__"]
    for source in sorted([*children, root / "compiler", root / "runtime"]):
        link(source, links / source.name)


def link(source: Path, target: Path) -> None:
    """One relative link, or a copy on systems that refuse links."""
    try:
        target.symlink_to(os.path.relpath(source, target.parent), source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def main(arguments: list[str]) -> int:
    """Check the whole package, or what the arguments name; returns mypy's exit status."""
    make_links()
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    config += ["--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *config, *(arguments or ["-p", "graphnn"])]
    return subprocess.run(command, cwd=LINKS.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
