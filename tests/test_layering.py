"""Imports run downward, at the top of the file; optional packages stay where they are used."""

import ast
import graphlib
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from tests import house
from tests.house import Module

# The modules of runtime/ that hold plain data: all that the compiler may see of it.
PLAIN_DATA = ("errors", "program", "device", "xp", "dtypes")
DEVICE_PACKAGES = {"cupy", "cupyx", "cupy_backends", "nvmath", "cudnn", "cuda"}
OTHER_FRAMEWORKS = {"torch", "torchvision", "jax", "jaxlib", "tensorflow", "keras", "flax"}
LAZY_PACKAGES = DEVICE_PACKAGES | {
    "PIL",
    "fsspec",
    "h5py",
    "llvmlite",
    "mpi4py",
    "networkx",
    "onnx",
    "pyarrow",
    "rich",
    "scipy",
    "scipy_openblas32",
    "tensorboard",
    "tqdm",
}
# What `import graphnn` must not load; doctor and tests look for the same names.
HEAVY = ("networkx", "llvmlite", "scipy", "rich", "tqdm", "h5py", "cupy")

Modules = dict[str, Module]
Rule = Callable[[Modules], list[str]]


def layer_order(modules: Modules) -> list[str]:
    """graphnn may import all, the compiler plain data of the runtime, the runtime only itself."""
    problems = []
    for module in modules.values():
        above = house.LAYERS[: house.LAYERS.index(house.layer(module.name))]
        for item in house.imports(module, frozenset(modules)):
            if not house.is_own(item.target):
                continue
            where = f"{module.path}:{item.line}: {module.name} imports {item.target}"
            if house.layer(item.target) in above:
                problems.append(f"{where}, which lies above it; pass data or a function down")
            elif _sees_too_much(module.name, item.target):
                problems.append(f"{where}; it may see only {', '.join(PLAIN_DATA)} of the runtime")
    return problems


def _sees_too_much(importer: str, target: str) -> bool:
    if house.layer(importer) != "compiler" or house.layer(target) != "runtime":
        return False
    rest = target.split(".")[2:]
    return not rest or rest[0] not in PLAIN_DATA


def known_by_one_name(modules: Modules) -> list[str]:
    """Own modules are imported absolutely as graphnn...., so that each exists once."""
    problems = []
    for module in modules.values():
        for item in house.imports(module, frozenset(modules)):
            where = f"{module.path}:{item.line}"
            if item.relative:
                problems.append(f"{where}: relative import; write it out from graphnn")
            if item.target.split(".")[0] in ("compiler", "runtime"):
                problems.append(f"{where}: import graphnn.{item.target}, not {item.target}")
            if house.is_own(item.target) and item.target not in modules:
                problems.append(f"{where}: there is no module {item.target}")
            if item.star:
                problems.append(f"{where}: from {item.target} import *; name what is used")
    return problems


def no_lazy_own_import(modules: Modules) -> list[str]:
    """Own code is imported at the top of the file, never inside a function."""
    return [
        f"{module.path}:{item.line}: {item.target} is imported inside a function"
        for module in modules.values()
        for item in house.imports(module, frozenset(modules))
        if item.where == "function" and house.is_own(item.target)
    ]


def no_cycle(modules: Modules) -> list[str]:
    """No module imports itself through others while it is being loaded."""
    edges: dict[str, dict[str, int]] = {name: {} for name in modules}
    for module in modules.values():
        for item in house.imports(module, frozenset(modules)):
            if item.where == "module" and item.target in modules and item.target != module.name:
                edges[module.name].setdefault(item.target, item.line)
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        chain = list(reversed(error.args[1]))
        steps = [
            f"{modules[a].path}:{edges[a][b]}: {a} imports {b}"
            for a, b in itertools.pairwise(chain)
            if b in edges[a]
        ]
        return steps or [" -> ".join(chain)]
    return []


def device_packages_stay_in_runtime(modules: Modules) -> list[str]:
    """CuPy, nvmath and cuDNN are known to the runtime only."""
    return _foreign(modules, DEVICE_PACKAGES, lambda m: house.layer(m.name) != "runtime")


def no_other_framework(modules: Modules) -> list[str]:
    """Nothing of torch, jax, tensorflow or keras outside benchmarks and tests."""
    return _foreign(modules, OTHER_FRAMEWORKS, lambda m: True)


def _foreign(modules: Modules, names: set[str], applies: Callable[[Module], bool]) -> list[str]:
    return [
        f"{module.path}:{item.line}: imports {item.target}"
        for module in modules.values()
        if applies(module)
        for item in house.imports(module, frozenset(modules))
        if item.target.split(".")[0] in names
    ]


def optional_packages_are_lazy(modules: Modules) -> list[str]:
    """Optional and slow packages are imported inside the function that uses them."""
    return [
        f"{module.path}:{item.line}: {item.target} is imported when the module is loaded"
        for module in modules.values()
        for item in house.imports(module, frozenset(modules))
        if item.where == "module" and item.target.split(".")[0] in LAZY_PACKAGES
    ]


RULES: tuple[Rule, ...] = (
    layer_order,
    known_by_one_name,
    no_lazy_own_import,
    no_cycle,
    device_packages_stay_in_runtime,
    no_other_framework,
    optional_packages_are_lazy,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    problems = rule(house.own_modules())
    assert not problems, house.report(problems, rule.__doc__ or rule.__name__)


def test_examples_use_no_other_framework() -> None:
    scripts = {p.stem: house.parse(p.stem, p) for p in house.source_files("examples", "docs")}
    problems = no_other_framework(scripts)
    assert not problems, house.report(problems, no_other_framework.__doc__ or "")


# Each planted fault must be seen by the rule that it breaks.
FAULTS: dict[str, tuple[Rule, str, str]] = {
    "runtime sees compiler": (
        layer_order,
        "graphnn.runtime.bad",
        "from graphnn.compiler.ir import graph",
    ),
    "runtime sees graphnn, for types only": (
        layer_order,
        "graphnn.runtime.bad",
        "if TYPE_CHECKING:\n    from graphnn.tensor import Tensor",
    ),
    "runtime sees graphnn, later": (
        layer_order,
        "graphnn.runtime.bad",
        "tensor = Later('graphnn.tensor')",
    ),
    "compiler sees the memory of the runtime": (
        layer_order,
        "graphnn.compiler.bad",
        "from graphnn.runtime import memory",
    ),
    "bare folder": (known_by_one_name, "graphnn.bad", "from compiler.ir import graph"),
    "relative": (known_by_one_name, "graphnn.bad", "from . import tensor"),
    "star": (known_by_one_name, "graphnn.bad", "from numpy import *"),
    "missing module": (known_by_one_name, "graphnn.bad", "import graphnn.no_such_module"),
    "lazy": (no_lazy_own_import, "graphnn.bad", "def f():\n    import graphnn.compiler"),
    "lazy by name": (
        no_lazy_own_import,
        "graphnn.bad",
        "def f():\n    importlib.import_module('graphnn.compiler')",
    ),
    "later inside a function": (
        no_lazy_own_import,
        "graphnn.bad",
        "def f():\n    return Later('graphnn.compiler')",
    ),
    "cycle": (no_cycle, "graphnn.runtime.errors", "import graphnn.bad"),
    "cupy above": (
        device_packages_stay_in_runtime,
        "graphnn.bad",
        "def f():\n    import cupy.cuda",
    ),
    "torch": (no_other_framework, "graphnn.bad", "def f():\n    from torch import nn"),
    "llvmlite at the top": (
        optional_packages_are_lazy,
        "graphnn.bad",
        "try:\n    import llvmlite.binding\nexcept ImportError:\n    pass",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str) -> None:
    rule, name, source = FAULTS[fault]
    names = (
        "graphnn",
        "graphnn.tensor",
        "graphnn.compiler",
        "graphnn.compiler.ir",
        "graphnn.compiler.ir.graph",
        "graphnn.runtime",
        "graphnn.runtime.memory",
    )
    modules = {n: Module(n, n, ast.parse("")) for n in names}
    source_of_bad = "import graphnn.runtime.errors" if rule is no_cycle else ""
    modules["graphnn.bad"] = Module("graphnn.bad", "bad.py", ast.parse(source_of_bad))
    modules[name] = Module(name, "planted.py", ast.parse(source))
    problems = rule(modules)
    assert any("planted.py:" in line for line in problems), problems


def run_python(code: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(
        command, cwd=cwd or house.ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_import_loads_no_heavy_package() -> None:
    result = run_python(f"""
        import sys
        import graphnn
        print(*[name for name in {HEAVY!r} if name in sys.modules])
    """)
    assert result.returncode == 0, result.stderr
    loaded = result.stdout.split()
    assert not loaded, (
        f"`import graphnn` loads {', '.join(loaded)}: import them where they are used"
    )


def test_bare_folders_refuse_to_be_imported() -> None:
    for folder in ("compiler", "runtime"):
        result = run_python(f"import {folder}")
        assert f"import graphnn.{folder}, not the folder" in result.stderr


def test_checkout_works_without_an_install() -> None:
    result = run_python("""
        import sys
        sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
        import graphnn.compiler, graphnn.runtime
        print(graphnn.compiler.__name__, graphnn.runtime.__name__)
    """)
    assert result.stdout.split() == ["graphnn.compiler", "graphnn.runtime"], result.stderr
