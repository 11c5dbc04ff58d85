"""Objects as plain configs and back, in the form of Keras 3.

A config is a dict with "module", "class_name", "config" and "registered_name". It can only name
Keras' own classes and functions and those that were registered or passed as custom objects: nothing
is imported by a name from a config, and no code is stored in one.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from graphnn.apply import convert
from graphnn.compiler.ir.types import as_dtype
from graphnn.keras.custom_objects import (
    CustomObjectScope,
    get_registered_object,
    registered_name,
)
from graphnn.runtime.errors import ArgumentError, StateError
from graphnn.tensor import Tensor
from graphnn.variable import Variable

T = TypeVar("T")
Config = dict[str, Any]

# Settings of real Keras that classes here do not have, with the value that changes nothing.
_NEUTRAL: dict[str, Any] = {
    "renorm_momentum": 0.99,
    "ema_momentum": 0.99,
    "aggregation": "only_first_replica",
}
_PLAIN = (bool, int, float, str, type(None))

_registries: dict[str, Any] = {}
_published: dict[Any, tuple[str, str]] = {}
_by_address: dict[tuple[str, str], Any] = {}


class _Sharing(threading.local):
    """While a whole model is converted: how often each object was met and which are known to be
    met more than once, or objects by number."""

    def __init__(self) -> None:
        self.met: dict[int, int] | None = None
        self.shared: dict[int, int] = {}
        self.objects: dict[int, Any] | None = None


_SHARING = _Sharing()


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, configs with one number become one object."""
    before = _SHARING.objects
    _SHARING.objects = {}
    try:
        yield
    finally:
        _SHARING.objects = before


def serialize_whole(obj: Any) -> Any:
    """`serialize_keras_object` with a number in the configs of each object that is met twice."""
    before = _SHARING.met, _SHARING.shared
    try:
        counts: dict[int, int] = {}
        _SHARING.met, _SHARING.shared = counts, {}
        config = serialize_keras_object(obj)
        often = [key for key, count in counts.items() if count > 1]
        if often:
            _SHARING.shared = {key: number for number, key in enumerate(often)}
            config = serialize_keras_object(obj)
    finally:
        _SHARING.met, _SHARING.shared = before
    return config


# ---- who is who ---------------------------------------------------------------------------------


def add_registry(kind: str, registry: Any) -> None:
    """Make the named objects of the Keras module `keras.<kind>` known to configs."""
    _registries[kind] = registry


def publish(module: str, name: str | None = None) -> Callable[[T], T]:
    """Decorator: the module, and name, under which Keras configs know one of our classes."""

    def add(item: T) -> T:
        address = module, name or str(getattr(item, "__name__", ""))
        _published[item] = address
        _by_address[address] = item
        return item

    return add


def address_of(item: Any) -> tuple[str, str] | None:
    """Module and name of a class or function of ours as Keras configs write them, or None."""
    if item in _published:
        return _published[item]
    for kind, registry in _registries.items():
        name = registry.name_of(item)
        if name is not None:
            return f"keras.{kind}", name
    return None


def _built_in(module: str, name: str) -> Any:
    """The object of ours that a config's module and name mean, or None."""
    found = _by_address.get((module, name))
    if found is not None:
        return found
    parts = [p for p in module.split(".") if p != "src"]
    if parts[0] != "keras":
        return None
    # keras.src.layers.core.dense and keras.layers are the same; models are found among the layers.
    for end in range(len(parts), 1, -1):
        registry = _registries.get(".".join(parts[1:end]))
        if registry is not None and registry.has(name):
            return registry.find(name)
    if len(parts) == 1 or parts[1] in ("models", "engine"):
        layers = _registries.get("layers")
        return layers.find(name) if layers is not None and layers.has(name) else None
    return None


# ---- objects to configs -------------------------------------------------------------------------


def serialize_keras_object(obj: Any) -> Any:
    """The config of an object: plain numbers, strings, lists and dicts.

    obj: anything with `get_config`, a named function, a tensor or array, plain values, and lists,
    tuples and dicts of them. Raises StateError for what cannot be stored.

    >>> config = graphnn.keras.saving.serialize_keras_object(graphnn.keras.layers.Flatten())
    >>> config["module"], config["class_name"]
    ('keras.layers', 'Flatten')
    """
    if isinstance(obj, _PLAIN):
        return obj
    if isinstance(obj, list | tuple):
        return type(obj)(map(serialize_keras_object, obj)) if _is_plain_sequence(obj) else list(obj)
    if isinstance(obj, dict):
        return {key: serialize_keras_object(value) for key, value in obj.items()}
    if hasattr(obj, "get_config") and not isinstance(obj, type):
        return serialize_object(obj)
    special = _special_config(obj)
    if special is not None:
        return special
    if callable(obj) and hasattr(obj, "__name__") and not isinstance(obj, type):
        return function_config(obj)
    raise StateError(
        "serialize_keras_object",
        received=f"{obj!r} of type {type(obj).__name__}",
        expected="an object with get_config(), a named function, or plain values",
        fix="define get_config() on its class, or store plain values in the config",
    )


def _is_plain_sequence(obj: Any) -> bool:
    return type(obj) in (list, tuple)


def _special_config(obj: Any) -> Any:
    """Values that JSON does not know."""
    if isinstance(obj, np.generic) or (isinstance(obj, np.ndarray) and obj.ndim == 0):
        return obj.item()
    if isinstance(obj, np.ndarray):
        return _array_config("__numpy__", obj)
    if isinstance(obj, Tensor | Variable):
        return _array_config("__tensor__", np.asarray(obj.numpy()))
    if isinstance(obj, np.dtype):
        return obj.name
    if isinstance(obj, bytes):
        return {"class_name": "__bytes__", "config": {"value": obj.decode("utf-8")}}
    if isinstance(obj, slice):
        parts = {k: serialize_keras_object(getattr(obj, k)) for k in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": parts}
    return {"class_name": "__ellipsis__", "config": {}} if obj is ... else None


def _array_config(kind: str, array: Any) -> Config:
    wide = array.astype("float32") if array.dtype.name == "bfloat16" else array
    return {"class_name": kind, "config": {"value": wide.tolist(), "dtype": array.dtype.name}}


def function_config(function: Any) -> Config:
    """The config of a function: where it is known, and by which name."""
    address = address_of(function)
    if address is not None:
        module, name = address
        return {
            "module": module,
            "class_name": "function",
            "config": name,
            "registered_name": name,
        }
    name = registered_name(function) or function.__name__
    if name == "<lambda>":  # kept so that get_config works; refused when it is written to a file
        return {"class_name": "__lambda__", "config": {"value": None}}
    return {
        "module": function.__module__,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }


def serialize_object(item: Any) -> Config:
    """The config of an object that has `get_config`, with what it was built and compiled with."""
    cls = type(item)
    address = address_of(cls)
    if address is not None:
        module, name = address
    else:
        module, name = cls.__module__, cls.__name__
    config: Config = {
        "module": None if module == "__main__" else module,
        "class_name": name,
        "config": serialize_keras_object(item.get_config()),
        "registered_name": None
        if address is not None and not module.startswith("keras.src")
        else registered_name(cls) or cls.__name__,
    }
    for key in ("build_config", "compile_config"):
        getter = getattr(item, f"get_{key}", None)
        found = getter() if getter is not None else None
        if found:
            config[key] = serialize_keras_object(found)
    if hasattr(item, "weights"):
        if _SHARING.met is not None:
            _SHARING.met[id(item)] = _SHARING.met.get(id(item), 0) + 1
        if id(item) in _SHARING.shared:
            config["shared_object_id"] = _SHARING.shared[id(item)]
    return config


# ---- configs to objects -------------------------------------------------------------------------


def deserialize_keras_object(
    config: Any, custom_objects: dict[str, Any] | None = None, safe_mode: bool = True, **_: Any
) -> Any:
    """The object of a config.

    custom_objects: classes and functions by name, beside those that are registered. safe_mode:
    taken for Keras' sake; lambdas stored in a config are never run. Raises ArgumentError for a
    class or function that is not known, or that does not take the config.

    >>> layer = graphnn.keras.layers.Dense(3)
    >>> config = graphnn.keras.saving.serialize_keras_object(layer)
    >>> graphnn.keras.saving.deserialize_keras_object(config).units
    3
    """
    with CustomObjectScope(custom_objects):
        return _object(config)


def _object(config: Any) -> Any:
    if isinstance(config, str):
        found = get_registered_object(config)  # older files name a function by a plain string
        return config if found is None else found
    if isinstance(config, list | tuple):
        return [_object(item) for item in config]
    if not isinstance(config, dict):
        return config
    if "class_name" not in config or "config" not in config:
        return {key: _object(value) for key, value in config.items()}
    return construct(config)


def construct(config: Config, registry: Any = None) -> Any:
    """The object or function that a config with a class name stands for.

    registry: where to look for a name without a module.
    """
    name, inner = config["class_name"], config.get("config")
    if not isinstance(name, str):
        raise _bad(config, f"the class name {name!r}", "a string")
    if name.startswith("__"):
        return _special_object(config)
    if name == "function":
        return _function(config, registry)
    inner = {} if inner is None else inner
    if not isinstance(inner, dict):
        raise _bad(config, f"the config {inner!r} for {name}", "a dict")
    number = config.get("shared_object_id")
    if number is not None and _SHARING.objects is not None and number in _SHARING.objects:
        return _SHARING.objects[number]
    item = _made(_resolve(config, name, registry), inner)
    if config.get("build_config") and hasattr(item, "build_from_config") and not item.built:
        item.build_from_config(config["build_config"])
    if config.get("compile_config") and hasattr(item, "compile_from_config"):
        item.compile_from_config(config["compile_config"])
    if number is not None and _SHARING.objects is not None:
        _SHARING.objects[number] = item
    return item


def _function(config: Config, registry: Any) -> Any:
    name = config.get("config")
    if not isinstance(name, str):
        raise _bad(config, f"the function name {name!r}", "a string")
    found = _resolve(config, name, registry)
    if isinstance(found, type):
        raise _bad(config, f"the class {name}", "the name of a function")
    return found


def _resolve(config: Config, name: str, registry: Any) -> Any:
    for key in (config.get("registered_name"), name):
        found = get_registered_object(key) if isinstance(key, str) else None
        if found is not None:
            return found
    module = config.get("module")
    if isinstance(module, str) and module != "builtins":
        found = _built_in(module, name)
        if found is not None:
            return found
    elif registry is not None:
        return registry.find(name)
    elif module == "builtins":
        kinds = ("activations", "losses", "metrics")
        found = next((r.find(name) for k in kinds if (r := _registries[k]).has(name)), None)
        if found is not None:
            return found
    raise _unknown(config, name, module)


def _unknown(config: Config, name: str, module: Any) -> ArgumentError:
    known = f'custom_objects={{"{name}": ...}}'
    own = f"pass {known}, or decorate it with @keras.saving.register_keras_serializable() before"
    lacking = f"graphnn has no {name}: write a class with its weights, and pass {known}"
    return _bad(
        config,
        f"{name} of module {module}",
        "a class or function of graphnn.keras, or a registered one",
        lacking if str(module).split(".")[0] == "keras" else f"{own} loading",
    )


def _made(found: Any, inner: Config) -> Any:
    if not isinstance(found, type):
        return found
    own = address_of(found) is not None
    inner = _without_neutral(found, inner) if own else inner
    make: Any = getattr(found, "from_config", None)
    try:
        return found(**inner) if make is None else make(inner)
    except TypeError as error:
        raise ArgumentError(
            f"the config of {found.__name__}",
            received=f"{', '.join(map(str, inner))}, which gave: {error}",
            expected="arguments that its constructor takes",
            fix="give what its get_config() returned"
            if own
            else "define get_config() and from_config() so that they fit together",
        ) from error


def _without_neutral(cls: type, inner: Config) -> Config:
    """A config without settings that our class does not have and that change nothing."""
    taken = _parameters(cls)
    return {k: v for k, v in inner.items() if k in taken or not _is_neutral(k, v)}


def _is_neutral(key: str, value: Any) -> bool:
    return value is None or value is False or (key in _NEUTRAL and _NEUTRAL[key] == value)


def _parameters(cls: type) -> set[str]:
    """Names that the constructor takes, by **kwargs also those of the base classes."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in base.__dict__:
            continue
        found = inspect.signature(base.__dict__["__init__"]).parameters.values()
        names |= {p.name for p in found}
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    return names


def _special_object(config: Config) -> Any:
    kind, inner = config["class_name"], config["config"]
    if kind in ("__numpy__", "__tensor__"):
        array = np.asarray(inner["value"], dtype=as_dtype(inner["dtype"]))
        return array if kind == "__numpy__" else convert(array)
    if kind == "__bytes__":
        return inner["value"].encode("utf-8")
    if kind == "__ellipsis__":
        return ...
    if kind == "__slice__":
        return slice(*(_object(inner[k]) for k in ("start", "stop", "step")))
    if kind == "__keras_tensor__":
        return config
    if kind == "__lambda__":
        raise _bad(
            config,
            "a lambda, stored as code",
            "the name of a function",
            "the code in a file is never run: write the function with a name, register it with "
            "@keras.saving.register_keras_serializable(), and save the model again",
        )
    raise _bad(config, f"an object of kind {kind}", "an object that graphnn knows")


def _bad(config: Config, received: str, expected: str, fix: str = "") -> ArgumentError:
    inner = config.get("config")
    label = inner.get("name") if isinstance(inner, dict) else None
    return ArgumentError(
        f"the config of {label or config.get('class_name')}",
        received=received,
        expected=expected,
        fix=fix or "give what serialize_keras_object() returned",
    )
