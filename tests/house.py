"""What the tests of the house rules share: the own modules, parsed, and their imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOTS = {"graphnn": "graphnn", "graphnn.compiler": "compiler", "graphnn.runtime": "runtime"}
LAYERS = ("graphnn", "compiler", "runtime")
PLACES = ("graphnn", "compiler", "runtime", "tests", "examples", "benchmarks", "docs")


@dataclass(frozen=True)
class Import:
    """One imported module: `where` is "module" (runs on import), "function" (lazy) or "typing"."""

    target: str
    line: int
    where: str = "module"
    star: bool = False
    relative: bool = False


@dataclass(frozen=True)
class Module:
    """One parsed source file under the name it is imported by."""

    name: str
    path: str
    tree: ast.Module = field(repr=False, compare=False)


def source_files(*folders: str) -> list[Path]:
    """Python files below the given folders of the repository, in sorted order."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


@cache
def own_modules() -> dict[str, Module]:
    """All modules of graphnn/, compiler/ and runtime/ by the name they are imported by."""
    modules = {}
    for package, folder in ROOTS.items():
        for path in source_files(folder):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            modules[name] = parse(name, path)
    return modules


def parse(name: str, path: Path) -> Module:
    """Read one file of the repository."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return Module(name, path.relative_to(ROOT).as_posix(), tree)


def is_own(target: str) -> bool:
    """Whether a dotted name belongs to the installed package."""
    return target == "graphnn" or target.startswith("graphnn.")


def layer(name: str) -> str:
    """The layer a module belongs to: "graphnn", "compiler" or "runtime"."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ("compiler", "runtime") else "graphnn"


def imports(module: Module, known: frozenset[str]) -> list[Import]:
    """All imports of a module; `from package import name` counts as the submodule if it is one."""
    collector = _Collector(known)
    collector.visit(module.tree)
    return collector.found


class _Collector(ast.NodeVisitor):
    def __init__(self, known: frozenset[str]) -> None:
        self.known = known
        self.found: list[Import] = []
        self._where = "module"

    def _inside(self, where: str, nodes: list[ast.stmt] | list[ast.AST]) -> None:
        before, self._where = self._where, where
        for node in nodes:
            self.visit(node)
        self._where = before

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._inside("function", list(ast.iter_child_nodes(node)))

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        if not ast.unparse(node.test).endswith("TYPE_CHECKING"):
            self.generic_visit(node)
            return
        self._inside("typing", node.body)
        self._inside(self._where, node.orelse)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.found.append(Import(alias.name, node.lineno, self._where))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        for alias in node.names:
            child = f"{base}.{alias.name}"
            target = child if child in self.known else base
            star = alias.name == "*"
            self.found.append(Import(target, node.lineno, self._where, star, node.level > 0))

    def visit_Call(self, node: ast.Call) -> None:
        # importlib.import_module("graphnn...") inside a function is a lazy import too; a `Later`
        # at the top of the file is one that the layers count and cycles do not.
        called = ast.unparse(node.func)
        if called.endswith(("import_module", "__import__", "Later")) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                delayed = called.endswith("Later") and self._where == "module"
                where = "later" if delayed else self._where
                self.found.append(Import(name.value, node.lineno, where))
        self.generic_visit(node)


def functions(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Name, line and length without docstring of each function, nested ones included."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        first = node.body[0]
        if ast.get_docstring(node, clean=False) is not None:
            length -= (first.end_lineno or first.lineno) - first.lineno + 1
        yield node.name, node.lineno, length


def report(problems: list[str], rule: str) -> str:
    """The text of a failed house rule: the rule, then one problem a line."""
    return "\n".join([f"{rule} ({len(problems)} found)", *(f"  {line}" for line in problems)])
