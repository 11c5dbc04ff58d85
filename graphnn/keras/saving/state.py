"""Which object of a model has its weights where in a file, and putting them there and back.

Files of Keras name an object by the way to it: attributes, in lists and dicts numbered by class:
`layers/dense_1`, `encoder/blocks/block_2`, `optimizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphnn.keras.layers.saved import Saved, in_order
from graphnn.keras.layers.tracking import Tracked, matched
from graphnn.keras.naming import to_snake_case
from graphnn.keras.optimizers import Optimizer
from graphnn.runtime.errors import GraphnnError, warn_user
from graphnn.variable import Variable

Arrays = dict[str, Any]
_OWNERS = (Tracked, Optimizer)
_CONTAINERS = (list, tuple, dict)
_OWN_PACKAGE = "graphnn."
# What our base classes keep for themselves; the layers in it are found by other ways.
_HIDDEN = {
    "_added",
    "_arguments",
    "_build_shapes",
    "_calls",
    "_frozen",
    "_held",
    "_input",
    "_loss_functions",
    "_losses",
    "_operations",
    "_penalties",
    "_shapes",
    "_stack",
    "_steps",
}


@dataclass
class Group:
    """What one object keeps in a file: its name, and arrays by key."""

    name: str | None
    arrays: Arrays = field(default_factory=dict)


@dataclass
class Owner:
    """An object with state, and the paths that lead to it, the first one first."""

    item: Any
    paths: list[str]


# ---- finding --------------------------------------------------------------------------------


def owners_of(root: Any) -> list[Owner]:
    """A model and all objects below it that have state, in the order in which Keras visits them."""
    found: dict[int, Owner] = {}
    _visit(root, "", found)
    return list(found.values())


def _visit(item: Any, path: str, found: dict[int, Owner]) -> None:
    if id(item) in found:
        found[id(item)].paths.append(path)
        return
    found[id(item)] = Owner(item, [path])
    for name, value in _attributes(item):
        below = f"{path}/{name}" if path else name
        if isinstance(value, _OWNERS):
            _visit(value, below, found)
        elif isinstance(value, _CONTAINERS):
            _open(value, below, found, set())


def _open(container: Any, path: str, found: dict[int, Owner], opened: set[int]) -> None:
    """Objects in a list, tuple or dict: by class name in snake_case, numbered from the second."""
    if id(container) in opened:
        return
    opened.add(id(container))
    used: dict[str, int] = {}
    for value in container.values() if isinstance(container, dict) else container:
        if isinstance(value, _OWNERS):
            name = _numbered(to_snake_case(type(value).__name__), used)
            _visit(value, f"{path}/{name}", found)
        elif isinstance(value, _CONTAINERS):
            _open(value, f"{path}/{_numbered('container', used)}", found, opened)


def _numbered(name: str, used: dict[str, int]) -> str:
    number = used[name] = used.get(name, -1) + 1
    return f"{name}_{number}" if number else name


def _attributes(item: Any) -> Iterator[tuple[str, Any]]:
    """Attributes in which state may lie: by name, private ones last; layers of a model whose layers
    are its structure before all others."""
    names = {name for name in vars(item) if name not in _HIDDEN and not name.startswith("__")}
    names |= _user_properties(type(item))
    if isinstance(getattr(type(item), "layers", None), property):
        names.add("layers")
        if getattr(item, "_layers_first", False):
            names.discard("layers")
            yield "layers", item.layers
    for name in sorted(names, key=lambda name: f"~{name}" if name.startswith("_") else name):
        try:
            value = getattr(item, name)
        except Exception:  # a property of the user's that does not work now
            continue
        yield name, value


def _user_properties(cls: type) -> set[str]:
    """Properties that classes outside this package define: Keras looks behind them, too."""
    return {
        name
        for base in cls.__mro__
        if not base.__module__.startswith(_OWN_PACKAGE)
        for name, value in vars(base).items()
        if isinstance(value, property)
    }


# ---- saving ---------------------------------------------------------------------------------


def collect(root: Any) -> dict[str, Group]:
    """The state of a model: for each object the arrays of its group, by path."""
    groups: dict[str, Group] = {}
    for owner in owners_of(root):
        name = getattr(owner.item, "name", None)
        group = groups[owner.paths[0]] = Group(name if isinstance(name, str) else None)
        _save_own(owner.item, group.arrays)
    return groups


def _save_own(item: Any, arrays: Arrays) -> None:
    save = getattr(item, "save_own_variables", None)
    if save is not None:
        save(arrays)
        for key, value in arrays.items():
            arrays[key] = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
        return
    for number, variable in enumerate(item.variables):
        arrays[str(number)] = variable.numpy()


# ---- loading --------------------------------------------------------------------------------


def restore(root: Any, get: Callable[[str], Arrays | None], skip_mismatch: bool = False) -> None:
    """Give a model the state that a file has.

    get: the arrays of a path; None if the file has no such group. skip_mismatch: leave objects as
    they are whose state does not fit, with a warning. Otherwise raises what does not fit, and
    nothing has changed then.
    """
    owners = owners_of(root)
    _build_optimizer(root, owners, get)
    stored = [_stored(owner, get) for owner in owners]
    ready: list[tuple[Any, Any]] = []
    custom: list[tuple[Any, Arrays]] = []
    for owner, arrays in zip(owners, stored, strict=True):
        item = owner.item
        try:
            if isinstance(item, Optimizer):
                ready += _optimizer_values(item, arrays)
            elif _loads_itself(item):
                custom.append((item, arrays))
            else:
                ready += matched(item.name, item._own_weights(), in_order(arrays))
        except GraphnnError as error:
            if not skip_mismatch:
                raise
            warn_user(f"{item.name} keeps its weights: {error}")
    _assign(owners, ready, custom)


def _assign(
    owners: list[Owner],
    ready: list[tuple[Any, Any]],
    custom: list[tuple[Any, Arrays]],
) -> None:
    """Set all values; if a user's `load_own_variables` fails, everything is put back."""
    values: list[tuple[Variable, Any]] = []
    attributes = [(item, dict(vars(item))) for item, _ in custom]
    if custom:
        found = {id(v): v for owner in owners for v in owner.item.variables}
        values = [(v, np.array(v.numpy())) for v in found.values()]
    try:
        for item, arrays in custom:
            item.load_own_variables(arrays)
        for variable, array in ready:
            variable.assign(array)
    except BaseException:
        for item, before in attributes:
            vars(item).clear()
            vars(item).update(before)
        for variable, array in values:
            variable.assign(array)
        raise


def _loads_itself(item: Any) -> bool:
    return type(item).load_own_variables is not Saved.load_own_variables


def _stored(owner: Owner, get: Callable[[str], Arrays | None]) -> Arrays:
    """The arrays of an object: of the first path to it under which there are any."""
    for path in owner.paths:
        # The first versions of the format had another name for the layers of a model.
        for name in (path, path.replace("layers", "_layer_checkpoint_dependencies")):
            arrays = get(name)
            if arrays:
                return arrays
    return {}


def _build_optimizer(root: Any, owners: list[Owner], get: Callable[[str], Arrays | None]) -> None:
    """Make the slots of an optimizer whose slots are in the file, so that there is a place for
    them."""
    weights = getattr(root, "trainable_weights", None)
    for owner in owners:
        if isinstance(owner.item, Optimizer) and not owner.item.built and weights:
            if len(_stored(owner, get)) > len(owner.item.variables):
                owner.item.build(weights)


def _optimizer_values(optimizer: Any, arrays: Arrays) -> list[tuple[Any, Any]]:
    """Values of an optimizer's state; none, with a warning, if the file has another one's."""
    own = optimizer.variables
    if not arrays:
        return []
    if len(own) != len(arrays):
        warn_user(
            f"{optimizer.name} starts afresh: it has {len(own)} variables, "
            f"and the file has {len(arrays)}"
        )
        return []
    return matched(optimizer.name, own, in_order(arrays))
