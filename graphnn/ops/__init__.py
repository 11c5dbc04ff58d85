"""All operations as functions on tensors, arrays and numbers; `graphnn.ops.<name>`."""

from typing import Any

from graphnn.ops import creation, elementwise, indexing, linalg, manipulation, reduction

_parts = (creation, elementwise, indexing, linalg, manipulation, reduction)
globals().update({name: getattr(part, name) for part in _parts for name in part.__all__})
__all__ = sorted({name for part in _parts for name in part.__all__})


def __getattr__(name: str) -> Any:
    # Only for type checkers: every function is in the module's namespace already.
    raise AttributeError(f"graphnn.ops has no function {name!r}")
