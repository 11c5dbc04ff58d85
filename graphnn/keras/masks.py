"""Masks that travel with tensors: which steps of a batch are real, and which are padding."""

from __future__ import annotations

import weakref
from typing import Any

# By identity, since == on tensors compares elements; an entry goes when its tensor does.
_masks: dict[int, tuple[weakref.ref[Any], Any]] = {}


def set_mask(tensor: Any, mask: Any) -> None:
    """Let a mask travel with a tensor; None takes it off.

    mask: booleans of the leading axes of the tensor, False for padding.
    """
    key = id(tensor)
    if mask is None:
        _masks.pop(key, None)
        return
    _masks[key] = weakref.ref(tensor, lambda _: _masks.pop(key, None)), mask


def mask_of(tensor: Any) -> Any:
    """The mask that travels with a tensor, or None."""
    found = _masks.get(id(tensor))
    return found[1] if found is not None and found[0]() is tensor else None
