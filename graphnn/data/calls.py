"""Calls of users' functions on elements, and how their errors reach the user."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any

from graphnn.data.elements import describe_element, map_leaves, to_array, wrap
from graphnn.data.seeds import EXAMPLE, Pass, Passes, Place, fresh_seed
from graphnn.draws import Draws
from graphnn.runtime.errors import (
    ArgumentError,
    DTypeError,
    GraphnnError,
    Loc,
    is_own_file,
    user_loc,
)
from graphnn.state import mode, state

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


class Call:
    """A user's function as a pipeline calls it: eagerly, on Tensors, whatever thread it is in.

    Its random numbers depend on the seed, the pass and the element alone. what: the method that it
    was given to. raw: whether it takes and gives NumPy arrays, and has nothing random.
    Raises ArgumentError unless it can be called.
    """

    def __init__(self, function: Callable[..., Any], what: str, raw: bool = False) -> None:
        if not callable(function):
            raise ArgumentError(
                what,
                received=f"a {type(function).__name__}",
                expected="a function of the parts of an element",
                fix="pass a function or a lambda",
            )
        self.function, self.what, self.raw = function, what, raw
        self.seed = 0 if raw else fresh_seed()
        self._passes = Passes()

    def begin(self) -> Pass:
        """A new pass over the elements."""
        return Pass(self.seed, self._passes)

    def __call__(self, element: Any, index: int, place: Place | None = None) -> Any:
        """What the function returns. A raised error gets a note with the element's index.

        place: of the pass; None stands for one of which the results are not elements.
        """
        args: Any = element if type(element) is tuple else (element,)
        before, state.device = (state.draws, state.device), None  # pipelines work on the CPU
        try:
            if self.raw:
                return self.function(*args)
            state.draws = Draws(*(place or (self.seed, EXAMPLE)), index)
            args = [map_leaves(wrap, arg) for arg in args]
            if not state.busy:
                return self.function(*args)
            with mode(None):  # an iteration inside a trace or under a tape is not part of it
                return self.function(*args)
        except Exception as error:
            failed = failure(error, self.what, index, self.function, element)
            if failed is error:
                raise
            raise failed from error
        finally:
            state.draws, state.device = before

    def element(self, element: Any, index: int, place: Place | None = None) -> Any:
        """The element of arrays that the function returns."""
        result = self(element, index, place)
        if self.raw:
            return result
        try:
            return map_leaves(to_array, result)
        except (DTypeError, ArgumentError) as error:
            failure(error, self.what, index, self.function, element)
            raise


def failure(
    error: Exception, what: str, index: int, function: Any, element: Any = None
) -> Exception:
    """The error with a note that says which element it was and where in the user's code."""
    if isinstance(error, StopIteration):
        # It would end the iteration without a word.
        ended = RuntimeError(f"the function given to {what} raised StopIteration")
        error = ended.with_traceback(error.__traceback__)
    loc = _place(error.__traceback__, function)
    lines = [f"in {what}, element {index}" + (f", at {loc}" if loc else "")]
    if loc is not None and loc.source():
        lines.append(loc.source())
    if element is not None:
        lines.append(f"received: {describe_element(element)}")
    error.add_note("\n".join(lines))
    return error


def in_users_code(error: BaseException) -> None:
    """Give an error that was made in a worker thread the line at which it reaches the user."""
    if not isinstance(error, GraphnnError):
        return
    if error.loc is None or error.loc.file.startswith(_LIBRARIES):
        error.loc = user_loc()


def _place(entry: TracebackType | None, function: Any) -> Loc | None:
    """The line in the file of the user's function, else the innermost one outside libraries."""
    code = _code(function)
    own = None if code is None or is_own_file(code.co_filename) else code.co_filename
    inside = outside = None
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if file == own:
            inside = Loc(file, entry.tb_lineno)
        elif not is_own_file(file) and not file.startswith(_LIBRARIES):
            outside = Loc(file, entry.tb_lineno)
        entry = entry.tb_next
    if inside is None and outside is None and own is not None and code is not None:
        return Loc(own, code.co_firstlineno)
    return inside or outside


def _code(function: Any) -> CodeType | None:
    function = getattr(function, "func", function)  # functools.partial
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
