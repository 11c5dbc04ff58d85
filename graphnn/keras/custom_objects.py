"""Classes and functions of users by name: beside Keras' own the only ones that a file may name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

from graphnn.runtime.errors import ArgumentError

T = TypeVar("T")

_registered: dict[str, Any] = {}
_names: dict[Any, str] = {}


class _Scopes(threading.local):
    """What `custom_object_scope` has made known on this thread, innermost last."""

    def __init__(self) -> None:
        self.stack: list[dict[str, Any]] = []


_SCOPES = _Scopes()


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[T], T]:
    """Decorator: a class or function that saved models may refer to, as "package>name".

    Configs then name it, and `load_model` finds it without `custom_objects`. A class needs
    `get_config`. Raises ArgumentError for one without.

    >>> @graphnn.keras.saving.register_keras_serializable("shop")
    ... def double(x):
    ...     return x * 2
    >>> graphnn.keras.saving.get_registered_name(double)
    'shop>double'
    """

    def add(item: T) -> T:
        if isinstance(item, type) and not hasattr(item, "get_config"):
            raise ArgumentError(
                "register_keras_serializable",
                received=f"the class {item.__name__}, which has no get_config",
                expected="a class with get_config(), or a function",
                fix="define get_config() and return the constructor's arguments from it",
            )
        key = f"{package}>{name or getattr(item, '__name__', '')}"
        _registered[key] = item
        _names[item] = key
        return item

    return add


def get_registered_name(obj: Any) -> str:
    """The name under which a class or function was registered, otherwise its own."""
    return registered_name(obj) or str(obj.__name__)


def registered_name(item: Any) -> str | None:
    """The name under which a class or function was registered, or None."""
    try:
        return _names.get(item)
    except TypeError:  # not hashable: never registered
        return None


def get_registered_object(
    name: str,
    custom_objects: dict[str, Any] | None = None,
    module_objects: dict[str, Any] | None = None,
) -> Any:
    """The class or function with a name, or None. Scopes first, then what was registered, then the
    given dicts."""
    for known in (*reversed(_SCOPES.stack), _registered, custom_objects, module_objects):
        if known and name in known:
            return known[name]
    return None


def get_custom_objects() -> dict[str, Any]:
    """All registered classes and functions by name; the dict may be changed."""
    return _registered


class CustomObjectScope:
    """Inside, configs may name these classes and functions.

    custom_objects: by the name that the config uses. Scopes may be nested.

    >>> def double(x):
    ...     return x * 2
    >>> with graphnn.keras.saving.custom_object_scope({"double": double}):
    ...     graphnn.keras.activations.get("double") is double
    True
    """

    def __init__(self, custom_objects: dict[str, Any] | None = None) -> None:
        self.custom_objects = dict(custom_objects or {})

    def __enter__(self) -> Self:
        _SCOPES.stack.append(self.custom_objects)
        return self

    def __exit__(self, *_: Any) -> None:
        _SCOPES.stack.pop()


custom_object_scope = CustomObjectScope
