"""Limits on gradients: by element, by the norm of each, or by the norm of all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnn import ops


def norm_of(gradients: Sequence[Any]) -> Any:
    """Euclidean norm of several tensors taken as one vector."""
    total = ops.sum(ops.square(gradients[0]))
    for gradient in gradients[1:]:
        total = total + ops.sum(ops.square(gradient))
    return ops.sqrt(total)


def _limited(gradient: Any, norm: Any, limit: float) -> Any:
    """The gradient scaled down so that a norm does not exceed a limit."""
    # Dividing by the larger of both leaves small gradients as they are, and zero stays zero.
    return gradient * (limit / ops.maximum(norm, limit))


def clipped(settings: Any, gradients: list[Any]) -> list[Any]:
    """Gradients within the limits `clipvalue`, `clipnorm` or `global_clipnorm` of an optimizer."""
    if settings.clipvalue is not None:
        return [ops.clip(g, -settings.clipvalue, settings.clipvalue) for g in gradients]
    if settings.clipnorm is not None:
        return [_limited(g, norm_of([g]), settings.clipnorm) for g in gradients]
    if settings.global_clipnorm is not None:
        norm = norm_of(gradients)
        return [_limited(g, norm, settings.global_clipnorm) for g in gradients]
    return gradients
