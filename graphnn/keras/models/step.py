"""A model's step as one compiled program that serves batches of every size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import tree
from graphnn.function import function
from graphnn.keras.layers.preprocess_host import TextStep
from graphnn.keras.models.data import Leaves, rebuild
from graphnn.signature import TensorSpec
from graphnn.strings import is_string

Run = Callable[..., Any]


class Step:
    """`step(data)` compiled once per structure and dtypes of data.

    The first size of each tensor is symbolic from the start, so the last, smaller batch costs no
    compilation. Another axis becomes symbolic when it is seen with a second size.
    """

    def __init__(self, step: Callable[[Any], Any], name: str) -> None:
        self._step, self._name = step, name
        self._runs: dict[Any, tuple[tuple[TensorSpec, ...], Run]] = {}
        self._text = TextStep(step, Step, name)

    def bind(self, structure: Any, leaves: Leaves) -> Run:
        """The step for data of one structure: a function of the tuple of leaves (without None).

        Where leaves are text, layers that take text run on the host, before the compiled program.
        """
        if any(is_string(leaf) for leaf in leaves):
            return self._text.bind(structure, leaves)
        key = (
            str(tree.map_structure(lambda leaf: leaf is not None, structure)),
            tuple((leaf.dtype, len(leaf.shape)) for leaf in leaves),
        )
        found = self._runs.get(key)
        if found is not None and all(
            s.fits(x.shape) for s, x in zip(found[0], leaves, strict=True)
        ):
            return found[1]
        old = found[0] if found is not None else (None,) * len(leaves)
        specs = tuple(_widened(s, leaf) for s, leaf in zip(old, leaves, strict=True))
        run = self._compiled(structure, specs)
        self._runs[key] = specs, run
        return run

    def _compiled(self, structure: Any, specs: tuple[TensorSpec, ...]) -> Run:
        step = self._step

        def run(leaves: Leaves) -> Any:
            return step(rebuild(structure, leaves))

        return function(input_signature=[specs], name=self._name)(run)

    def graph(self) -> Any:
        """The graph of the latest trace after all passes, or None before the first step."""
        made = [c for _, run in self._runs.values() for c in getattr(run, "concretes", ())]
        return made[-1].compiled.graph if made else self._text.graph()


def _widened(spec: TensorSpec | None, leaf: Any) -> TensorSpec:
    if not len(leaf.shape):
        return TensorSpec((), leaf.dtype)
    sizes = (None, *leaf.shape[1:])
    if spec is not None:
        sizes = tuple(a if a == b else None for a, b in zip(spec.shape, sizes, strict=True))
    return TensorSpec(sizes, leaf.dtype)


class EagerStep:
    """`step(data)` run line by line."""

    def __init__(self, step: Callable[[Any], Any], name: str) -> None:
        self._step = step

    def bind(self, structure: Any, leaves: Leaves) -> Run:
        """The step for data of one structure: a function of the tuple of leaves (without None)."""
        return lambda leaves: self._step(rebuild(structure, leaves))

    def graph(self) -> Any:
        """None: nothing is compiled."""
        return None
