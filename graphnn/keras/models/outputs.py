"""The outputs of a model one by one: targets, weights, and what `compile` was given for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphnn import tree
from graphnn.keras.losses.base import registry as losses
from graphnn.keras.metrics.base import registry as metrics
from graphnn.keras.registry import Registry
from graphnn.runtime.errors import ArgumentError

Rows = list[tuple[str, Any, Any, Any]]  # name of the output, its target, prediction and weight

# Names that stand for one of several functions, which depends on the shapes.
BY_SHAPES = {
    "accuracy": "accuracy",
    "acc": "accuracy",
    "crossentropy": "crossentropy",
    "ce": "crossentropy",
}


def outputs_of(
    y: Any, y_pred: Any, sample_weight: Any, output_names: list[str] | None = None
) -> Rows:
    """One row for each output of a model. Raises ArgumentError if targets and outputs differ.

    output_names: of a list of outputs; targets and weights may then be dicts with these names.
    """
    if not tree.is_nested(y_pred):
        return [("", _only(y, output_names), y_pred, _only(sample_weight, output_names))]
    names = _names(y_pred, output_names)
    return [
        (
            name,
            _pick(_by_number(y, names), key, "targets"),
            prediction,
            _weight(_by_number(sample_weight, names), key),
        )
        for (key, name), prediction in zip(names, _values(y_pred), strict=True)
    ]


def _only(structure: Any, names: list[str] | None) -> Any:
    """What is meant for a single output, which may come in a list or under its name."""
    if isinstance(structure, list | tuple) and len(structure) == 1:
        return structure[0]
    if isinstance(structure, dict) and names is not None and list(structure) == names:
        return structure[names[0]]
    return structure


def _by_number(structure: Any, names: list[tuple[Any, str]]) -> Any:
    """A dict by the names of a list of outputs, as a list; other structures as they are."""
    if not isinstance(structure, dict) or not isinstance(names[0][0], int):
        return structure
    return [structure.get(name) for _, name in names]


def _names(structure: Any, given: list[str] | None) -> list[tuple[Any, str]]:
    if isinstance(structure, dict):
        return [(key, str(key)) for key in structure]
    if given is not None and len(given) == len(structure) == len(set(given)):
        return list(enumerate(given))
    return [(i, f"output_{i + 1}") for i in range(len(structure))]


def _values(structure: Any) -> list[Any]:
    return list(structure.values()) if isinstance(structure, dict) else list(structure)


def _pick(structure: Any, key: Any, what: str) -> Any:
    try:
        if isinstance(structure, dict) or isinstance(structure, list | tuple):
            return structure[key]
    except (KeyError, IndexError, TypeError):
        pass
    raise ArgumentError(
        "a model with several outputs",
        received=f"{what} {tree.skeleton(structure)}",
        expected=f"{what} nested like the outputs, one for {key!r}",
        fix="give a dict or list like the one that the model returns",
    )


def _weight(weights: Any, key: Any) -> Any:
    return _pick(weights, key, "sample weights") if tree.is_nested(weights) else weights


# ---- what compile was given ------------------------------------------------------------------


def is_config(spec: Any) -> bool:
    """Whether a dict says how to make one object, and is not a dict by outputs."""
    return isinstance(spec, dict) and "class_name" in spec


def spec_of(what: str, spec: Any, row: int, name: str, rows: int) -> Any:
    """What `compile` was given as `what` for one output: by name, by position, or for all.

    Raises ArgumentError for a list of another length than the outputs'.
    """
    if isinstance(spec, dict) and not is_config(spec):
        return spec.get(name) if name else next(iter(spec.values()), None)
    if not isinstance(spec, list | tuple):
        return spec
    if rows != len(spec):
        raise _wrong_length(what, spec, rows)
    return spec[row]


def _wrong_length(what: str, spec: Any, rows: int) -> ArgumentError:
    count = "one output" if rows == 1 else f"{rows} outputs"
    return ArgumentError(
        "Model.compile",
        received=f"{what} with {len(spec)} entries, for a model with {count}",
        expected="one entry for each output",
        fix=f"give a list of {rows}, or a dict by the names of the outputs",
    )


def metrics_of(spec: Any, row: int, name: str, rows: int) -> list[Any]:
    """The metrics of one output, as a list. A flat list is for each of the outputs."""
    if isinstance(spec, dict) and not is_config(spec):
        spec = spec_of("metrics", spec, row, name, rows)
    elif isinstance(spec, list | tuple) and _is_by_output(spec):
        spec = spec_of("metrics", spec, row, name, rows)
    found = list(spec) if isinstance(spec, list | tuple) else [spec]
    return [m for m in found if m is not None]


def _is_by_output(spec: Any) -> bool:
    lists = [isinstance(s, list | tuple) for s in spec if s is not None]
    return bool(lists) and all(lists)


# ---- checks at compile -----------------------------------------------------------------------


def known_names(model: Any, output_names: list[str] | None) -> list[str] | None:
    """Names of the outputs of a functional model; None where they are not known yet."""
    if output_names is None:
        return None
    output = model.output
    return (
        [name for _, name in _names(output, output_names)]
        if tree.is_nested(output)
        else (list(output_names))
    )


def check_losses(loss: Any, loss_weights: Any, names: list[str] | None) -> None:
    """Raise ArgumentError for losses and weights that cannot be made or have no output."""
    _check("loss", loss, losses, ("crossentropy", "ce"), names)
    _check("loss_weights", loss_weights, None, (), names)
    for row, name in enumerate(names or ()):
        spec_of("loss", loss, row, name, len(names or ()))
        spec_of("loss_weights", loss_weights, row, name, len(names or ()))


def check_metrics(what: str, spec: Any, names: list[str] | None) -> None:
    """Raise ArgumentError for metrics that cannot be made or have no output."""
    _check(what, spec, metrics, tuple(BY_SHAPES), names)
    for row, name in enumerate(names or ()):
        metrics_of(spec, row, name, len(names or ()))


def _check(
    what: str, spec: Any, registry: Registry | None, others: tuple[str, ...], names: Any
) -> None:
    if isinstance(spec, dict) and not is_config(spec) and names is not None:
        for key in spec:
            _check_key(what, key, names)
    for leaf in _leaves(spec):
        if registry is None:
            _check_number(what, leaf)
        elif isinstance(leaf, str) and leaf not in others:
            registry.find(leaf)
        elif not (leaf is None or isinstance(leaf, str) or callable(leaf) or is_config(leaf)):
            registry.get(leaf)


def _leaves(spec: Any) -> Iterator[Any]:
    if isinstance(spec, list | tuple):
        for part in spec:
            yield from _leaves(part)
    elif isinstance(spec, dict) and not is_config(spec):
        for part in spec.values():
            yield from _leaves(part)
    else:
        yield spec


def _check_key(what: str, key: Any, names: list[str]) -> None:
    if key not in names:
        raise ArgumentError(
            "Model.compile",
            received=f"{what} for an output {key!r}",
            expected=f"names of outputs: {', '.join(map(repr, names))}",
            fix="use the name of the layer that gives the output, or the key in the dict of "
            "outputs",
        )


def _check_number(what: str, leaf: Any) -> None:
    if leaf is None or isinstance(leaf, int | float) or hasattr(leaf, "__array__"):
        return
    raise ArgumentError(
        "Model.compile",
        received=f"{what} with {leaf!r}",
        expected="a number for each output",
        fix="for example loss_weights=[1.0, 0.5]",
    )
