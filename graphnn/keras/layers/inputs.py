"""Input: what a model expects, stated before there are data."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.types import as_dtype
from graphnn.keras import naming
from graphnn.keras.layers.registry import register
from graphnn.runtime.errors import ArgumentError


@register()
class InputLayer:
    """Shape and dtype of one input of a model.

    shape: sizes without the batch axis, None for those that vary. batch_size: the size of the batch
    axis, None for any. Raises ArgumentError for other sizes.
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        name: str | None = None,
        batch_shape: Any = None,
    ) -> None:
        if shape is None and batch_shape is None:
            raise ArgumentError(
                "Input",
                received="no shape",
                expected="the sizes of one example, without the batch axis",
                fix="for example Input(shape=(784,))",
            )
        sizes = (shape,) if isinstance(shape, int) else shape
        self.batch_shape: tuple[int | None, ...] = (
            tuple(batch_shape) if batch_shape is not None else (batch_size, *sizes)
        )
        if any(s is not None and (not isinstance(s, int) or s < 0) for s in self.batch_shape):
            raise ArgumentError(
                "Input",
                received=f"shape {self.batch_shape}",
                expected="sizes of 0 or more, None for one that varies",
                fix="for example Input(shape=(None, 3))",
            )
        self.dtype = as_dtype(dtype or "float32").name
        self.name = name or naming.unique_name("input_layer")

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The sizes, batch axis first."""
        return self.batch_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"batch_shape": self.batch_shape, "dtype": self.dtype, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputLayer:
        """An equal input."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<InputLayer shape={self.batch_shape}, dtype={self.dtype}, name={self.name}>"


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    name: str | None = None,
    batch_shape: Any = None,
) -> InputLayer:
    """The first item of a Sequential model: shape and dtype of what it will be given.

    shape: sizes without the batch axis, None for those that vary.

    >>> graphnn.keras.Input(shape=(28, 28)).shape
    (None, 28, 28)
    """
    return InputLayer(shape, batch_size, dtype, name, batch_shape)
