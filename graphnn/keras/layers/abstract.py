"""Running a layer on tensors without values: how output shapes are found and models are built."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, as_dtype
from graphnn.compiler.trace import Trace
from graphnn.keras.layers.context import outside
from graphnn.keras.shapes import map_shapes, shapes_of
from graphnn.state import mode
from graphnn.tensor import Tensor, Traced


def abstract_inputs(trace: Trace, shapes: Any, dtype: Any) -> Any:
    """Traced tensors for a structure of shapes. The first axis of each has the same unknown size,
    every other None is a size of its own."""
    count = 0

    def one(shape: tuple[int | None, ...]) -> Tensor:
        nonlocal count
        sizes: list[Any] = []
        for axis, size in enumerate(shape):
            count += size is None
            name = "batch" if axis == 0 else f"n{count}"
            sizes.append(symbol(name) if size is None else size)
        node = trace.argument(f"x{len(trace.arguments)}", TensorType(tuple(sizes), dtype))
        return Tensor(Traced(node, trace))

    return map_shapes(one, shapes)


def outputs_of(layer: Any, input_shape: Any, dtype: Any = None) -> Any:
    """What a layer gives for input shapes in which None is a size that may vary: tensors without
    values, of which shape and dtype may be asked.

    The layer gets built. dtype: of the inputs; the layer's `input_dtype`, or the dtype it computes
    in, by default. Raises what the layer's own code raises.
    """
    kind = as_dtype(dtype or getattr(layer, "input_dtype", None) or layer.compute_dtype)
    trace = Trace(f"the shape of {layer.name}")
    with mode(trace), outside():
        outputs = layer(abstract_inputs(trace, input_shape, kind), training=False)
    trace.closed = True
    layer._clear_losses()
    return outputs


def output_shape_of(layer: Any, input_shape: Any, dtype: Any = None) -> Any:
    """The shapes of `outputs_of`."""
    return shapes_of(outputs_of(layer, input_shape, dtype))
