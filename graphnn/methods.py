"""NumPy-like methods of Tensors and Variables: `x.sum(axis=0)`, `x.reshape(2, -1)`, `x.T`, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphnn.apply import apply, record
from graphnn.compiler.ops.core import Identity
from graphnn.logical import backend_for, device
from graphnn.ops import elementwise, indexing, linalg, manipulation, reduction
from graphnn.runtime import devices
from graphnn.runtime.errors import ShapeError
from graphnn.state import state
from graphnn.tensor import Operand, Tensor

# Functions whose first argument is the tensor, under the same name.
_SAME = (
    reduction.all,
    reduction.any,
    reduction.argmax,
    reduction.argmin,
    reduction.cumprod,
    reduction.cumsum,
    reduction.max,
    reduction.mean,
    reduction.min,
    reduction.prod,
    reduction.std,
    reduction.sum,
    reduction.var,
    manipulation.astype,
    manipulation.repeat,
    manipulation.squeeze,
    manipulation.swapaxes,
    indexing.clip,
    indexing.nonzero,
    indexing.take,
    linalg.diagonal,
    linalg.dot,
    linalg.trace,
)
_ELEMENTWISE = ("exp", "log", "sqrt", "square", "round", "sign", "tanh", "sigmoid")


def _reshape(self: Operand, *shape: Any) -> Tensor:
    """The same elements in another shape: sizes one by one, or as one sequence."""
    return manipulation.reshape(self, shape[0] if len(shape) == 1 else shape)


def _transpose(self: Operand, *axes: Any) -> Tensor:
    """The axes in another order, by default reversed."""
    order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return manipulation.transpose(self, order or None)


def _flatten(self: Operand) -> Tensor:
    """All elements on one axis, in row-major order."""
    return manipulation.reshape(self, (self.size,))


def _transposed(self: Operand) -> Tensor:
    """The tensor with its axes reversed."""
    return manipulation.transpose(self)


def _matrix_transposed(self: Operand) -> Tensor:
    """The tensor with its last two axes swapped. Raises ShapeError for fewer."""
    if self.ndim < 2:
        raise ShapeError(
            "mT",
            received=f"a tensor with {self.ndim} axes",
            expected="at least 2",
            fix="add an axis with expand_dims",
        )
    return manipulation.matrix_transpose(self)


def _copy(self: Operand) -> Tensor:
    """The tensor itself: it cannot be changed."""
    return self._tensor()


_MOVE = Identity()


def _to_device(self: Operand, device_name: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on a device, itself if it is there; a gradient goes back through the copy.

    device_name: a name such as "/GPU:0" or "cpu". Raises ArgumentError or DeviceError for a device
    that is not there.

    >>> graphnn.constant([1.0]).to_device("/CPU:0").device
    '/device:CPU:0'
    """
    backend, tensor = backend_for(device_name), self._tensor()
    body = tensor._body()
    if body is None:
        if tensor.device == backend.name:
            return tensor
        with device(backend.name):
            return apply(_MOVE, tensor)  # type: ignore[no-any-return]
    if devices.backend_of(body) is backend:
        return tensor
    moved = Tensor(devices.move(body, backend))
    if state.tapes:
        record(_MOVE, (tensor,), moved)
    return moved


def _cpu(self: Operand) -> Tensor:
    """The tensor in the memory of the CPU."""
    return _to_device(self, devices.HOST)


def _gpu(self: Operand, gpu_index: int = 0) -> Tensor:
    """The tensor on a GPU. Raises DeviceError if there is none."""
    return _to_device(self, f"/device:GPU:{gpu_index}")


def install() -> None:
    """Give Tensors and Variables their methods."""
    named: dict[str, Callable[..., Any]] = {f.__name__: f for f in _SAME}
    named |= {name: getattr(elementwise, name) for name in _ELEMENTWISE}
    named |= {"reshape": _reshape, "transpose": _transpose, "flatten": _flatten}
    named |= {"ravel": _flatten, "copy": _copy}
    named |= {"to_device": _to_device, "cpu": _cpu, "gpu": _gpu}
    for name, function in named.items():
        setattr(Operand, name, function)
    for name, getter in (("T", _transposed), ("mT", _matrix_transposed)):
        setattr(Operand, name, property(getter))


install()
