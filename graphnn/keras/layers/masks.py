"""Masks: bools that travel with tensors and say which steps of a sequence are no padding."""

from __future__ import annotations

from typing import Any

from graphnn import tree
from graphnn.tensor import Tensor


def mask_of(tensors: Any) -> Any:
    """The mask that a layer gave a tensor; for a structure, the masks nested alike; None if there
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
    """Give a tensor a mask (None: leave it as it is); returns the tensor."""
    if mask is not None and isinstance(tensor, Tensor):
        tensor._keras_mask = mask
    return tensor


def set_masks(tensors: Any, masks: Any) -> None:
    """Give each tensor of a structure its mask. One mask for several tensors goes to the first, as
    in Keras."""
    if masks is None:
        return
    for tensor, mask in zip(tree.flatten(tensors), tree.flatten(masks), strict=False):
        set_mask(tensor, mask)
