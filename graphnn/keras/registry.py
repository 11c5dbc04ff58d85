"""Objects by name: how "relu", "glorot_uniform", a config or an object itself become an object."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from graphnn.keras import serialization
from graphnn.keras.custom_objects import CustomObjectScope, get_registered_object
from graphnn.keras.naming import to_snake_case
from graphnn.runtime.errors import ArgumentError

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """The named objects of one kind; `kind` is the name of its Keras module."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, Any] = {}
        self._names: dict[Any, str] = {}
        serialization.add_registry(kind, self)

    def register(self, *aliases: str) -> Callable[[T], T]:
        """Decorator: a class or function under its own name, in snake_case, and under aliases."""

        def add(item: T) -> T:
            name = item.__name__
            for key in (name, to_snake_case(name), *aliases):
                self._known[key] = item
            self._names[item] = name
            return item

        return add

    def alias(self, name: str, item: Any) -> None:
        """A further name."""
        self._known[name] = item

    def prefer_functions(self) -> None:
        """Let names that a class and a function share mean the function."""
        for item, name in self._names.items():
            if not isinstance(item, type):
                self._known[name] = item

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._known))

    def has(self, name: str) -> bool:
        """Whether there is a class or function with exactly this name."""
        return name in self._known

    def name_of(self, item: Any) -> str | None:
        """The name of a class or function that is registered here, otherwise None."""
        try:
            return self._names.get(item)
        except TypeError:  # not hashable: never registered
            return None

    def find(self, name: str) -> Any:
        """The class or function with a name, of users or of this kind; raises ArgumentError if
        there is none."""
        found = get_registered_object(name)
        if found is None:
            found = self._known.get(name, self._known.get(name.lower()))
        if found is not None:
            return found
        near = difflib.get_close_matches(name, self._known, n=3)
        raise ArgumentError(
            f"keras.{self.kind}",
            received=repr(name),
            expected="one of " + ", ".join(sorted({to_snake_case(n) for n in self._known})),
            fix=f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else "give one of these names, an object, or a callable",
        )

    def get(self, identifier: Any) -> Any:
        """The object that a name, a config, a class or an object stands for; None stays None."""
        if identifier is None:
            return None
        if isinstance(identifier, str):
            return self._made(self.find(identifier))
        if isinstance(identifier, dict):
            return self.deserialize(identifier)
        if isinstance(identifier, type):
            return identifier()
        if callable(identifier) or hasattr(identifier, "get_config"):
            return identifier
        raise ArgumentError(
            f"keras.{self.kind}",
            received=f"{identifier!r} of type {type(identifier).__name__}",
            expected="a name, a config dict, an object or a callable",
            fix=f"for example {self.names()[0]!r}",
        )

    @staticmethod
    def _made(found: Any) -> Any:
        return found() if isinstance(found, type) else found

    def serialize(self, item: Any) -> Any:
        """What `get` turns back into an equal object: a config dict; a name for a function of
        this kind."""
        if item is None:
            return None
        if hasattr(item, "get_config"):
            return serialization.serialize_object(item)
        return self.name_of(item) or serialization.function_config(item)

    def deserialize(self, config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
        """The object of a config dict or name."""
        with CustomObjectScope(custom_objects):
            if not isinstance(config, dict):
                return self.get(config)
            if "class_name" not in config:
                raise ArgumentError(
                    f"keras.{self.kind}",
                    received=f"a config with the keys {', '.join(map(str, config))}",
                    expected='a config with "class_name" and "config"',
                    fix="give what serialize() returned",
                )
            return serialization.construct(config, self)
