"""Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate and Dot: many tensors to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn import ops
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError, ShapeError, missing_method


class Merge(Layer):
    """Base of layers that take a list of tensors element by element; subclasses define `combine`.

    Shapes broadcast; a tensor with fewer axes gets axes of size 1 after its first. A step of the
    result is padding where it is padding in all inputs. Raises ArgumentError for what is no list of
    at least two tensors.
    """

    supports_masking = True
    exactly: int | None = None

    def call(self, inputs: Any) -> Any:
        """One tensor."""
        self._check(inputs)
        return self.combine(_same_rank(list(inputs)))

    def combine(self, inputs: list[Any]) -> Any:
        """The result for tensors with the same number of axes."""
        raise missing_method(self, "combine(self, inputs)")

    def _check(self, inputs: Any) -> None:
        wanted = self.exactly
        given = len(inputs) if isinstance(inputs, list | tuple) else None
        if given is not None and (given == wanted if wanted else given >= 1):
            return
        raise ArgumentError(
            f"{type(self).__name__} {self.name!r}",
            received=f"{given} tensors" if given is not None else type(inputs).__name__,
            expected=f"a list of {wanted or '2 or more'} tensors",
            fix=f"for example {type(self).__name__}()([a, b])",
        )

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None or any(m is None for m in mask):
            return None
        return _folded(ops.logical_or, list(mask))


def _folded(function: Callable[[Any, Any], Any], items: list[Any]) -> Any:
    total = items[0]
    for item in items[1:]:
        total = function(total, item)
    return total


def _same_rank(inputs: list[Any]) -> list[Any]:
    rank = max(len(x.shape) for x in inputs)
    return [
        ops.expand_dims(x, axis=tuple(range(1, rank - len(x.shape) + 1)))
        if len(x.shape) < rank
        else x
        for x in inputs
    ]


@register()
class Add(Merge):
    """The sum of several tensors.

    >>> a = graphnn.constant([[1.0, 2.0]])
    >>> graphnn.keras.layers.Add()([a, a, a]).numpy().tolist()
    [[3.0, 6.0]]
    """

    def combine(self, inputs: list[Any]) -> Any:
        return _folded(ops.add, inputs)


@register()
class Subtract(Merge):
    """The first of two tensors minus the second.

    >>> a = graphnn.constant([[1.0, 2.0]])
    >>> graphnn.keras.layers.Subtract()([a, a]).numpy().tolist()
    [[0.0, 0.0]]
    """

    exactly = 2

    def combine(self, inputs: list[Any]) -> Any:
        return inputs[0] - inputs[1]


@register()
class Multiply(Merge):
    """The product of several tensors. Where one of them is padding, it counts as 1.

    >>> a = graphnn.constant([[1.0, 2.0]])
    >>> graphnn.keras.layers.Multiply()([a, a, a]).numpy().tolist()
    [[1.0, 8.0]]
    """

    def combine(self, inputs: list[Any]) -> Any:
        return _folded(ops.multiply, inputs)


@register()
class Average(Merge):
    """The mean of several tensors.

    >>> a = graphnn.constant([[1.0, 2.0]])
    >>> graphnn.keras.layers.Average()([a, a * 3.0]).numpy().tolist()
    [[2.0, 4.0]]
    """

    def combine(self, inputs: list[Any]) -> Any:
        return _folded(ops.add, inputs) / len(inputs)


@register()
class Maximum(Merge):
    """The greatest of several tensors, element by element.

    >>> a = graphnn.constant([[1.0, -2.0]])
    >>> graphnn.keras.layers.Maximum()([a, -a]).numpy().tolist()
    [[1.0, 2.0]]
    """

    def combine(self, inputs: list[Any]) -> Any:
        return _folded(ops.maximum, inputs)


@register()
class Minimum(Merge):
    """The least of several tensors, element by element.

    >>> a = graphnn.constant([[1.0, -2.0]])
    >>> graphnn.keras.layers.Minimum()([a, -a]).numpy().tolist()
    [[-1.0, -2.0]]
    """

    def combine(self, inputs: list[Any]) -> Any:
        return _folded(ops.minimum, inputs)


@register()
class Concatenate(Merge):
    """Several tensors one after the other along an axis; their other sizes are equal.

    >>> a = graphnn.constant([[1.0, 2.0]])
    >>> graphnn.keras.layers.Concatenate()([a, a]).numpy().tolist()
    [[1.0, 2.0, 1.0, 2.0]]
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any) -> Any:
        self._check(inputs)
        return ops.concat(list(inputs), axis=self.axis)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None or all(m is None for m in mask):
            return None
        full = [_full_mask(x, m) for x, m in zip(inputs, mask, strict=True)]
        return ops.any(ops.concat(full, axis=self.axis), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


def _full_mask(x: Any, mask: Any) -> Any:
    """A mask with the shape of its tensor; without a mask all is real."""
    if mask is None:
        return ops.ones_like(x, dtype="bool")
    missing = len(x.shape) - len(mask.shape)
    if missing > 0:
        mask = ops.expand_dims(mask, axis=tuple(range(-missing, 0)))
    return ops.broadcast_to(mask, x.shape)


@register()
class Dot(Merge):
    """Sums of products of two tensors along one axis of each, example by example.

    axes: the axis of both, or a pair; not 0, the batch axis. normalize: divide by the lengths along
    these axes first, which gives cosines. Result: the batch axis, then the axes that remain of the
    first and of the second tensor; at least two axes. Raises ArgumentError for other axes and
    ShapeError for sizes that differ.

    >>> a = graphnn.constant([[1.0, 2.0]])
    >>> graphnn.keras.layers.Dot(axes=1)([a, a]).numpy().tolist()
    [[5.0]]
    """

    exactly = 2

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        pair = isinstance(axes, list | tuple) and len(axes) == 2
        numbers = axes if pair else [axes]
        if any(isinstance(a, bool) or not isinstance(a, int) for a in numbers):
            raise ArgumentError(
                "Dot",
                received=f"axes={axes!r}",
                expected="an integer or two integers",
                fix="for example axes=1, or axes=(1, 2)",
            )
        self.axes, self.normalize = axes, normalize

    def _axes_for(self, inputs: list[Any]) -> list[int]:
        axes = [self.axes] * 2 if isinstance(self.axes, int) else list(self.axes)
        ranks = [len(x.shape) for x in inputs]
        found = [a % rank for a, rank in zip(axes, ranks, strict=True)]
        inside = all(-rank <= a < rank for a, rank in zip(axes, ranks, strict=True))
        if 0 in found or not inside:
            raise ArgumentError(
                f"Dot {self.name!r}",
                received=f"axes {self.axes} of tensors with {ranks} axes",
                expected="axes that the tensors have, without the batch axis 0",
                fix="add an axis to the tensors, or choose another one",
            )
        return found

    def call(self, inputs: Any) -> Any:
        self._check(inputs)
        pair = list(inputs)
        axes = self._axes_for(pair)
        x, y = (_unit(t, a) if self.normalize else t for t, a in zip(pair, axes, strict=True))
        return _batch_dot(x, y, axes[0], axes[1], self.name)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axes": self.axes, "normalize": self.normalize}


def _unit(x: Any, axis: int) -> Any:
    """x over its length along an axis; lengths near 0 count as 1e-6."""
    square = ops.sum(x * x, axis=axis, keepdims=True)
    return x / ops.sqrt(ops.maximum(square, 1e-12))


def _batch_dot(x: Any, y: Any, a: int, b: int, name: str) -> Any:
    if x.shape[a] != y.shape[b]:
        raise ShapeError(
            f"Dot {name!r}",
            received=f"size {x.shape[a]} of axis {a} and size {y.shape[b]} of axis {b}",
            expected="equal sizes",
            fix="choose other axes, or project one tensor to the size of the other",
        )
    rest_x = [i for i in range(1, len(x.shape)) if i != a]
    rest_y = [i for i in range(1, len(y.shape)) if i != b]
    left = _as_matrices(ops.permute_dims(x, (0, *rest_x, a)), last=True)
    right = _as_matrices(ops.permute_dims(y, (0, b, *rest_y)), last=False)
    product = ops.matmul(left, right)
    shape = [x.shape[0], *(x.shape[i] for i in rest_x), *(y.shape[i] for i in rest_y)]
    return ops.reshape(product, (*shape, *([1] if len(shape) == 1 else [])))


def _as_matrices(x: Any, last: bool) -> Any:
    """One matrix for each example: (n, rest, k) where `last`, else (n, k, rest)."""
    shape = x.shape
    sizes = shape[1:-1] if last else shape[2:]
    rest: Any = 1
    for size in sizes:
        rest = rest * size
    return ops.reshape(x, (shape[0], rest, shape[-1]) if last else (shape[0], shape[1], rest))


# ---- the same as functions ------------------------------------------------------------------


def _function(cls: type[Layer]) -> Callable[..., Any]:
    def merged(inputs: Any, **kwargs: Any) -> Any:
        return cls(**kwargs)(inputs)

    merged.__name__ = merged.__qualname__ = cls.__name__.lower()
    merged.__doc__ = f"`{cls.__name__}(**kwargs)(inputs)`."
    return merged


add, subtract, multiply = _function(Add), _function(Subtract), _function(Multiply)
average, maximum, minimum = _function(Average), _function(Maximum), _function(Minimum)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate(axis)(inputs)`."""
    return Concatenate(axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """`Dot(axes)(inputs)`."""
    return Dot(axes, **kwargs)(inputs)
