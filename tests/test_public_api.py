"""The public surface is one explicit list, and each name in it says what it is."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

from tests import house
from tests.conftest import Golden

NEEDS_DOCSTRING = (type, ModuleType)


def public_modules() -> dict[str, ModuleType]:
    """graphnn and every module that can be reached from it through __all__."""
    found: dict[str, ModuleType] = {}
    waiting = [importlib.import_module("graphnn")]
    while waiting:
        module = waiting.pop()
        if module.__name__ in found:
            continue
        found[module.__name__] = module
        values = (getattr(module, name, None) for name in getattr(module, "__all__", ()))
        waiting += [v for v in values if isinstance(v, ModuleType) and house.is_own(v.__name__)]
    return dict(sorted(found.items()))


def public_names() -> Iterator[tuple[str, object]]:
    """Full name and value of each public name, in sorted order."""
    for module in public_modules().values():
        for name in sorted(getattr(module, "__all__", ())):
            yield f"{module.__name__}.{name}", getattr(module, name)


def test_each_public_module_lists_its_names() -> None:
    bare = [name for name, module in public_modules().items() if not hasattr(module, "__all__")]
    assert not bare, house.report(bare, "a public module needs __all__")


def test_lists_are_sound() -> None:
    problems = []
    for name, module in public_modules().items():
        listed = list(getattr(module, "__all__", ()))
        problems += [
            f"{name}.{n}: listed twice" for n in {n for n in listed if listed.count(n) > 1}
        ]
        problems += [f"{name}.{n}: does not exist" for n in listed if not hasattr(module, n)]
        problems += [f"{name}.{n}: a private name" for n in listed if n.startswith("_")]
    assert not problems, house.report(sorted(problems), "__all__ is wrong")


def test_public_names(golden: Golden) -> None:
    golden("public_api.txt", "\n".join(name for name, _ in public_names()))


def test_each_public_name_has_a_docstring() -> None:
    silent = [
        name
        for name, value in public_names()
        if (callable(value) or isinstance(value, NEEDS_DOCSTRING)) and not inspect.getdoc(value)
    ]
    assert not silent, house.report(silent, "a public name needs a docstring")
