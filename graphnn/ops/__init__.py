"""All operations as functions on tensors, arrays and numbers; `graphnn.ops.<name>`."""

from graphnn.ops import creation, elementwise, indexing, linalg, manipulation, reduction

_parts = (creation, elementwise, indexing, linalg, manipulation, reduction)
globals().update({name: getattr(part, name) for part in _parts for name in part.__all__})
__all__ = sorted({name for part in _parts for name in part.__all__})
