"""Passes, and the one place that says in which order they run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Protocol

from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.passes.decompose import Decompose
from graphnn.compiler.passes.gradient import ExpandGradients
from graphnn.compiler.passes.recompute import Recompute
from graphnn.compiler.passes.simplify import Simplify
from graphnn.runtime.errors import ParseError

Callback = Callable[[str, Graph, Graph], None]


class Pass(Protocol):
    """A frozen dataclass with a name and options; `run` never changes the graph it is given."""

    @property
    def name(self) -> str:
        """What the text form, the dump and errors call it."""

    def run(self, graph: Graph) -> Graph:
        """A valid graph that computes the same."""


PASSES: tuple[type[Any], ...] = (Decompose, Simplify, ExpandGradients, Recompute)


AGAIN = 48  # scalar operations that a GPU does in the time that a float32 takes to and fro


@cache
def default_passes(kind: str = "cpu", libraries: tuple[str, ...] | None = None) -> tuple[Pass, ...]:
    """The passes from a traced graph to the one that placement and fusion see.

    kind: of the device, "cpu" or "cuda". libraries: names of those that do composite ops whole;
    None: cuDNN on a GPU.
    """
    if libraries is None:
        libraries = ("cudnn",) if kind == "cuda" else ()
    again = AGAIN if kind == "cuda" else 0
    return (
        Decompose(keep_rules=True),  # composites with a gradient rule stay whole: theirs is better
        Simplify(),
        ExpandGradients(),
        Decompose(libraries=libraries),
        Simplify(),  # forward and backward now share what they both compute
        Recompute(most_weight=again),  # last, since merging equal expressions would undo it
    )


@dataclass(frozen=True)
class Pipeline:
    """Runs passes in order; callback(pass name, before, after) serves dump, timing and checks."""

    passes: tuple[Pass, ...] = field(default_factory=default_passes)
    callback: Callback | None = None

    def run(self, graph: Graph) -> Graph:
        """The graph after the last pass."""
        for step in self.passes:
            after = step.run(graph)
            if self.callback is not None:
                self.callback(step.name, graph, after)
            graph = after
        return graph

    def stages(self, graph: Graph) -> list[tuple[str, Graph]]:
        """The graph as traced, then after each pass, with the name of the pass."""
        found = [("trace", graph)]
        for step in self.passes:
            graph = step.run(graph)
            found.append((step.name, graph))
        return found

    def without(self, name: str) -> Pipeline:
        """The pipeline with every pass of that name left out: for tests that results stay."""
        return Pipeline(tuple(p for p in self.passes if p.name != name), self.callback)

    def __str__(self) -> str:
        return ",".join(map(_pass_text, self.passes))


def _pass_text(step: Any) -> str:
    changed = [
        f"{f.name}={getattr(step, f.name)!r}"
        for f in fields(step)
        if getattr(step, f.name) != f.default
    ]
    return f"{step.name}{{{', '.join(changed)}}}" if changed else str(step.name)


_STEP = re.compile(r"\s*([a-z_]+)\s*(?:\{([^}]*)\})?\s*(,|$)")


def parse_pipeline(text: str, known: Iterable[type[Any]] = PASSES) -> Pipeline:
    """A pipeline from its text form.

    text: names separated by commas, options as Python literals in braces.

    >>> str(parse_pipeline("decompose{keep_rules=True}, simplify"))
    'decompose{keep_rules=True},simplify'
    """
    by_name = {cls.name: cls for cls in known}
    steps: list[Pass] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or match[1] not in by_name:
            raise ParseError(
                f"the pipeline at column {position + 1}",
                received=repr(text[position : position + 40]),
                expected="names from " + ", ".join(by_name) + ", options in braces",
                fix="write e.g. 'decompose,simplify,gradient,simplify'",
            )
        options = _options(match[2] or "", {f.name for f in fields(by_name[match[1]])}, match[1])
        steps.append(by_name[match[1]](**options))
        position = match.end()
    return Pipeline(tuple(steps))


def _options(text: str, known: set[str], name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        keywords = call.keywords if isinstance(call, ast.Call) and not call.args else None
        for keyword in keywords or ():
            options[str(keyword.arg)] = ast.literal_eval(keyword.value)
    except (SyntaxError, ValueError):
        keywords = None
    if keywords is None or not options.keys() <= known:
        raise ParseError(
            f"the options of pass {name}",
            received=repr(text),
            expected="option=value, with options from " + (", ".join(sorted(known)) or "(none)"),
            fix="give each value as a Python literal",
        )
    return options
