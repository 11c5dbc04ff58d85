"""Input: what a model expects, stated before there are data."""

from __future__ import annotations

from typing import Any

from graphnn import strings
from graphnn.compiler.ir.types import DType, TensorType, as_dtype
from graphnn.keras import naming
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.registry import register
from graphnn.keras.layers.symbolic import Call, KerasTensor, input_sizes
from graphnn.runtime.errors import ArgumentError


@register()
class InputLayer(Layer):
    """Shape and dtype of one input of a model; `output` is its symbolic tensor.

    shape: sizes without the batch axis, None for those that vary. batch_size: the size of the batch
    axis, None for any. sparse, ragged: False, the only kind of tensors there is. Raises
    ArgumentError for other sizes.
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        name: str | None = None,
        batch_shape: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        optional: bool = False,
    ) -> None:
        super().__init__(name=name or naming.unique_name("input_layer"))
        self.batch_shape: tuple[int | None, ...] = _checked_shape(shape, batch_size, batch_shape)
        if sparse or ragged:
            raise ArgumentError(
                "Input",
                received="sparse=True" if sparse else "ragged=True",
                expected="dense tensors",
                fix="pad sequences to one length, or give indices to an Embedding layer",
            )
        text = strings.is_string_dtype(dtype)
        self._dtype: DType = strings.string if text else as_dtype(dtype or "float32")
        self.optional = optional
        self.built = True
        self.__dict__["_output_shape"] = self.batch_shape
        call = Call(self, (), {})
        tensor = KerasTensor(
            input_sizes(self.batch_shape, self.name), self._dtype, call, 0, self.name
        )
        call.outputs.append(tensor)
        call.structure = tensor

    @property
    def dtype(self) -> str:
        """Name of the dtype of the input."""
        return "string" if strings.is_string_dtype(self._dtype) else self._dtype.name

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The sizes, batch axis first."""
        return self.batch_shape

    @property
    def type(self) -> TensorType:
        """Shape and dtype, with symbols for sizes that vary."""
        return TensorType(input_sizes(self.batch_shape, self.name), self._dtype)

    def call(self, inputs: Any = None) -> Any:
        """The inputs as they are."""
        return inputs

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "batch_shape": self.batch_shape,
            "dtype": self.dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputLayer:
        """An equal input."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<InputLayer shape={self.batch_shape}, dtype={self.dtype}, name={self.name}>"


def _checked_shape(shape: Any, batch_size: int | None, batch_shape: Any) -> Any:
    if shape is None and batch_shape is None:
        raise ArgumentError(
            "Input",
            received="no shape",
            expected="the sizes of one example, without the batch axis",
            fix="for example Input(shape=(784,))",
        )
    sizes = (shape,) if isinstance(shape, int) else shape
    found = tuple(batch_shape) if batch_shape is not None else (batch_size, *sizes)
    if any(s is not None and (not isinstance(s, int) or s < 0) for s in found):
        raise ArgumentError(
            "Input",
            received=f"shape {found}",
            expected="sizes of 0 or more, None for one that varies",
            fix="for example Input(shape=(None, 3))",
        )
    return found


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
    ragged: bool | None = None,
) -> KerasTensor:
    """A symbolic tensor: the beginning of a functional model, or the first item of a Sequential.

    shape: sizes without the batch axis, None for those that vary. batch_size: a fixed number of
    examples. batch_shape: all sizes, instead of both. dtype: float32 by default. tensor: a symbolic
    tensor to be given back as it is. Raises ArgumentError for other sizes.

    >>> graphnn.keras.Input(shape=(28, 28)).shape
    (None, 28, 28)
    """
    if isinstance(tensor, KerasTensor):
        return tensor
    layer = InputLayer(shape, batch_size, dtype, name, batch_shape, sparse, ragged, optional)
    return layer._calls[0].outputs[0]
