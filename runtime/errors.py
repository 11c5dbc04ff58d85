"""Error classes, source locations of the user's code, and the one text form of every user error."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_OWN = tuple(
    str(Path(__file__).resolve().parent.parent / part) + os.sep
    for part in ("graphnn", "compiler", "runtime")
)
# Frames of these are between ours and the user's, at the bottom of each thread and in each `with`.
_BETWEEN = frozenset(os.path.abspath(str(m.__file__)) for m in (threading, contextlib))


@dataclass(frozen=True)
class Loc:
    """A place in the user's code: file, line, columns, and the path of layers being called."""

    file: str
    line: int
    column: int | None = None
    end_column: int | None = None
    layer: str = ""

    def __str__(self) -> str:
        text = f"{os.path.basename(self.file)}:{self.line}"
        return f"{text} {self.layer}" if self.layer else text

    def source(self) -> str:
        """The line with the expression underlined, or nothing when the file cannot be read."""
        line = linecache.getline(self.file, self.line).rstrip("\n")
        if not line.strip():
            return ""
        indent = len(line) - len(line.lstrip())
        text = "    " + line.strip()
        if self.column is None or self.end_column is None or self.end_column <= self.column:
            return text
        return f"{text}\n    {' ' * (self.column - indent)}{'^' * (self.end_column - self.column)}"


@cache
def is_own_file(filename: str) -> bool:
    """Whether a code object belongs to graphnn itself (its frames are hidden from users)."""
    if filename.startswith("<"):
        return filename.startswith(("<frozen", "<string>"))
    path = os.path.abspath(filename)
    return path.startswith(_OWN) or path in _BETWEEN


_layer_path: Callable[[], str] = lambda: ""  # noqa: E731


def set_layer_path(function: Callable[[], str]) -> None:
    """Keras tells here how to name the layers that are being called."""
    global _layer_path
    _layer_path = function


class _Origin(threading.local):
    """The frame on whose behalf a thread runs, if another thread started it."""

    frame: FrameType | None = None


ORIGIN = _Origin()


def user_frame(start: FrameType | None = None) -> FrameType | None:
    """The innermost frame outside graphnn, or None."""
    return _outside(start or sys._getframe(1)) or _outside(ORIGIN.frame)


def _outside(frame: FrameType | None) -> FrameType | None:
    while frame is not None and is_own_file(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


@cache
def _position(code: CodeType, instruction: int) -> tuple[int, int | None, int | None]:
    positions = list(code.co_positions())
    line, end_line, column, end_column = positions[instruction // 2]
    if line is None:
        return code.co_firstlineno, None, None
    return line, column if line == end_line else None, end_column if line == end_line else None


def user_loc() -> Loc | None:
    """Where the user's code stands now; a walk over frames, so only traces and errors ask."""
    frame = user_frame(sys._getframe(1))
    if frame is None:
        return None
    line, column, end_column = _position(frame.f_code, frame.f_lasti)
    return Loc(frame.f_code.co_filename, line, column, end_column, _layer_path())


class GraphnnError(Exception):
    """Base of all errors that graphnn raises on purpose.

    Built from parts, printed in one form: what failed and where, the user's line, what was
    received, what was expected, and how to fix it.
    """

    def __init__(
        self,
        subject: str,
        *,
        received: str = "",
        expected: str = "",
        fix: str = "",
        loc: Loc | None = None,
    ) -> None:
        self.subject, self.received, self.expected, self.fix = subject, received, expected, fix
        self.loc = loc if loc is not None else user_loc()
        super().__init__(self.text())

    def text(self) -> str:
        """The whole message."""
        head = f"{type(self).__name__} in {self.subject}"
        lines = [head]
        if self.loc is not None:
            layer = f", layer {self.loc.layer}" if self.loc.layer else ""
            lines[0] += f" at {os.path.basename(self.loc.file)}:{self.loc.line}{layer}"
            lines += [self.loc.source()] if self.loc.source() else []
        parts = (("received", self.received), ("expected", self.expected), ("fix", self.fix))
        return "\n".join(lines + [f"{name}: {value}" for name, value in parts if value])

    def __str__(self) -> str:
        return self.text()

    def __reduce__(self) -> Any:
        keywords = dict(received=self.received, expected=self.expected, fix=self.fix, loc=self.loc)
        return _rebuild, (type(self), self.subject, keywords)


def _rebuild(cls: type[GraphnnError], subject: str, keywords: dict[str, Any]) -> GraphnnError:
    return cls(subject, **keywords)


class ShapeError(GraphnnError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(GraphnnError, TypeError):
    """A dtype that an operation does not take."""


class ArgumentError(GraphnnError, ValueError):
    """A setting with a value that has no meaning."""


class OutOfRangeError(GraphnnError, IndexError):
    """An index outside its axis, in eager and in compiled code."""


class CheckError(GraphnnError, ArithmeticError):
    """A runtime check (finite numbers, assertion, division) that failed."""


class DivisionError(CheckError, ZeroDivisionError):
    """An integer divided by zero, in eager and in compiled code."""


class GradientError(GraphnnError, ValueError):
    """A gradient that was asked for and does not exist."""


class TraceError(GraphnnError, TypeError):
    """Something that cannot be done with a value that is only a node of a graph."""


class LeakError(GraphnnError, RuntimeError):
    """A traced tensor used after, or outside of, the trace that made it."""


class StateError(GraphnnError, RuntimeError):
    """An object used in a state in which it cannot do what was asked."""


class MissingMethodError(GraphnnError, NotImplementedError):
    """A method that a class must define, and does not."""


class GraphError(GraphnnError, RuntimeError):
    """A graph that the verifier refuses: a defect of a pass, not of the user's code."""


class ParseError(GraphnnError, ValueError):
    """Text that is not a graph; carries line and column of the text."""


def missing_method(item: Any, signature: str, fix: str = "") -> MissingMethodError:
    """The error for a base class's method that `item`'s class has to define: its `signature`."""
    kind, name = type(item).__name__, signature.partition("(")[0]
    return MissingMethodError(
        f"{kind}.{name}",
        received=f"a class {kind} without a method {name}",
        expected=f"def {signature} in the class",
        fix=fix or f"define it in {kind}, and check that the name is spelled so",
    )


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code, however many of graphnn's frames lie between."""
    frame = user_frame(sys._getframe(1))
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
        return
    names = frame.f_globals
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=names.get("__name__"),
        registry=names.setdefault("__warningregistry__", {}),
    )


def full_traceback() -> bool:
    """Whether the user asked to see graphnn's own frames."""
    return os.environ.get("GRAPHNN_FULL_TRACEBACK", "") not in ("", "0")


def hide_own_frames(error: BaseException) -> BaseException:
    """Drop graphnn's frames from a traceback, keeping the user's; unless asked to keep all."""
    if full_traceback():
        return error
    kept = []
    entry = error.__traceback__
    while entry is not None:
        if not is_own_file(entry.tb_frame.f_code.co_filename):
            kept.append(entry)
        entry = entry.tb_next
    chain = None
    for entry in reversed(kept):
        chain = type(entry)(chain, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return error.with_traceback(chain)
