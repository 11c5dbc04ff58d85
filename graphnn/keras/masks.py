"""Masks that travel with tensors: which steps of a batch are real, and which are padding."""

from __future__ import annotations

from typing import Any

from graphnn import tree
from graphnn.tensor import Tensor


def mask_of(tensors: Any) -> Any:
    """The mask that travels with a tensor; for a structure the masks, nested alike; None if there
    is none.

    >>> x = graphnn.keras.layers.Masking(0.0)(graphnn.constant([[[1.0], [0.0]]]))
    >>> mask_of(x).numpy().tolist()
    [[True, False]]
    """
    if isinstance(tensors, Tensor):
        return getattr(tensors, "_keras_mask", None)
    if not tree.is_nested(tensors):
        return None
    found = [mask_of(leaf) for leaf in tree.flatten(tensors)]
    if all(mask is None for mask in found):
        return None
    return tree.unflatten(tensors, found)


def set_mask(tensor: Any, mask: Any) -> Any:
    """Let a mask travel with a tensor; None takes it off. Returns the tensor.

    mask: booleans of the leading axes of the tensor, False for padding.
    """
    if isinstance(tensor, Tensor):
        tensor._keras_mask = mask
    return tensor


def set_masks(tensors: Any, masks: Any) -> None:
    """Give each tensor of a structure its mask; a single mask goes to the first, as in Keras.
    Tensors without a new mask keep theirs."""
    if masks is None:
        return
    for tensor, mask in zip(tree.flatten(tensors), tree.flatten(masks), strict=False):
        if mask is not None:
            set_mask(tensor, mask)
