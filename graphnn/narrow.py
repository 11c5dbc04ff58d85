"""The memory of narrow copies of Variables (see `graphnn.compiler.passes.narrow`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphnn.compiler.ir.types import DType
from graphnn.compiler.passes.narrow import NarrowCopy
from graphnn.runtime import devices

Array = Any  # a NumPy array, or a CuPy array on a GPU


class NarrowMemory:
    """One program's narrow copies of the Variables that it assigns.

    bind(position, array): fixes the memory of an input. cast(array, dtype): the array in another
    dtype, on the same device.
    """

    def __init__(
        self,
        copies: Sequence[NarrowCopy],
        bind: Callable[[int, Array], None],
        cast: Callable[[Array, DType], Array],
    ) -> None:
        self._bind, self._cast = bind, cast
        self._copies = copies
        self._own: dict[int, Array] = {}  # by position of the copy
        self._bound: dict[int, Array] = {}  # by position of the source

    @property
    def sources(self) -> frozenset[int]:
        """Positions of the inputs that have copies."""
        return frozenset(c.source for c in self._copies)

    def follow(self, position: int, array: Array) -> None:
        """Note where an input lies from now on; its copies hold nothing until `renew`."""
        for copy in self._copies:
            if copy.source != position:
                continue
            self._bound[position] = array
            if copy.position not in self._own:
                backend = devices.backend_of(array)
                own = self._own[copy.position] = backend.empty(array.shape, copy.dtype)
                self._bind(copy.position, own)

    def renew(self, position: int) -> None:
        """Fill the copies of a bound input from its values now."""
        for copy in self._copies:
            if copy.source == position:
                source = self._bound[position]
                fresh = self._cast(source, copy.dtype)
                devices.backend_of(source).copy(self._own[copy.position], fresh)

    def complete(self, arrays: Sequence[Array | None]) -> list[Array | None]:
        """Arguments of the program: copies of inputs that are given, not bound, are made anew."""
        extra = []
        for copy in self._copies:
            source = arrays[copy.source]
            extra.append(None if source is None else self._cast(source, copy.dtype))
        return [*arrays, *extra]
