"""The errors that graphnn raises on purpose: each names the user's line and how to fix it."""

from graphnn.runtime.errors import (
    ArgumentError,
    CheckError,
    DivisionError,
    DTypeError,
    GradientError,
    GraphError,
    GraphnnError,
    LeakError,
    MissingMethodError,
    OutOfRangeError,
    ParseError,
    ShapeError,
    StateError,
    TraceError,
)

__all__ = [
    "ArgumentError",
    "CheckError",
    "DTypeError",
    "DivisionError",
    "GradientError",
    "GraphError",
    "GraphnnError",
    "LeakError",
    "MissingMethodError",
    "OutOfRangeError",
    "ParseError",
    "ShapeError",
    "StateError",
    "TraceError",
]
