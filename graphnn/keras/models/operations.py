"""Single ops in model configs: Keras' own operations, and graphnn's where Keras has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from graphnn import nn, ops, tree
from graphnn.compiler.ir.sizes import FloorDiv, Size, Symbol, floordiv, symbol
from graphnn.compiler.ir.types import TensorType, as_dtype
from graphnn.compiler.ops.base import REGISTRY
from graphnn.keras.layers.base import Layer
from graphnn.keras.layers.operation import OpLayer
from graphnn.keras.naming import to_snake_case
from graphnn.runtime.errors import ArgumentError

NUMPY, NN = "keras.src.ops.numpy", "keras.src.ops.nn"

# Ops without settings that Keras has under the same meaning: op name -> (module, class).
_SAME = {
    "divide": (NUMPY, "TrueDivide"),
    "abs": (NUMPY, "Absolute"),
    "remainder": (NUMPY, "Mod"),
    "pow": (NUMPY, "Power"),
    **{name: (NN, name.title()) for name in ("relu", "sigmoid", "softplus", "softsign", "silu")},
    **{
        name: (NUMPY, "".join(part.title() for part in name.split("_")))
        for name in (
            "add subtract multiply power negative square sqrt exp expm1 log log1p tanh sin cos "
            "floor ceil sign maximum minimum floor_divide equal not_equal less less_equal greater "
            "greater_equal logical_and logical_or logical_not isnan isfinite"
        ).split()
    },
}
# Keras' names for functions and settings that graphnn spells in another way.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "TrueDivide": ops.divide,
    "Divide": ops.divide,
    "Absolute": ops.abs,
    "Mod": ops.remainder,
    "Concatenate": ops.concat,
    "Transpose": lambda x, axes=None: ops.permute_dims(x, axes or tuple(range(x.ndim))[::-1]),
    "GetItem": lambda x, key: x[tuple(key) if isinstance(key, list) else key],
    "Cast": ops.cast,
    "Clip": lambda x, x_min, x_max: ops.clip(x, x_min, x_max),
}
_SETTINGS = {"newshape": "shape"}


def keras_function(class_name: str) -> Callable[..., Any]:
    """graphnn's function for a Keras operation. Raises ArgumentError if there is none."""
    name = to_snake_case(class_name)
    found = _FUNCTIONS.get(class_name) or getattr(ops, name, None) or getattr(nn, name, None)
    if found is None:
        raise ArgumentError(
            "a model config",
            received=f"the operation {class_name}",
            expected="an operation that graphnn has",
            fix="do it in a layer of your own instead",
        )
    return found


class KerasOperation(Layer):
    """An operation of Keras, as configs of real Keras name it.

    module, class_name: of the operation. settings: its arguments besides the tensors.
    """

    def __init__(self, module: str, class_name: str, settings: dict[str, Any], name: str) -> None:
        super().__init__(name=name)
        self.module, self.class_name, self.settings = module, class_name, settings
        self._function = keras_function(class_name)
        self.built = True

    def _cast_inputs(self, values: Any) -> Any:
        return values

    def _mark(self, inputs: Any, outputs: Any, mask: Any) -> None:
        """Masks end at single ops."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The operation's value."""
        settings = {_SETTINGS.get(k, k): v for k, v in self.settings.items()}
        return self._function(*args, **settings, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings}


def is_operation(config: dict[str, Any]) -> bool:
    """Whether an entry of a config's layers is a single op."""
    return config.get("class_name") == "OpLayer" or ".ops" in str(config.get("module"))


def operation_entry(layer: Any) -> dict[str, Any]:
    """The entry for an op among the layers of a config, without its calls."""
    if isinstance(layer, KerasOperation):
        module, class_name = layer.module, layer.class_name
        return _entry(module, class_name, layer.get_config())
    known = _in_keras(layer)
    if known is not None:
        (module, class_name), settings = known
        return _entry(module, class_name, {"name": layer.name, **settings})
    config = {
        "name": layer.name,
        "op": layer.op.name,
        "settings": {f.name: _packed(getattr(layer.op, f.name)) for f in fields(layer.op)},
        "types": [[_packed(t.shape), t.dtype.name] for t in layer.types],
    }
    return _entry("graphnn.keras.layers", "OpLayer", config)


def _entry(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": class_name,
    }


def _in_keras(layer: OpLayer) -> tuple[tuple[str, str], dict[str, Any]] | None:
    """Module, class and settings of the Keras operation that is the same, if there is one."""
    op: Any = layer.op
    if op.name in _SAME and not fields(op):
        return _SAME[op.name], {}
    if op.name == "concat":
        return (NUMPY, "Concatenate"), {"axis": op.axis}
    if op.name in ("softmax", "log_softmax"):
        name = "Softmax" if op.name == "softmax" else "LogSoftmax"
        return (NN, name), {"axis": op.axis}
    if op.name == "matmul" and not (op.transpose_a or op.transpose_b):
        return (NUMPY, "Matmul"), {}
    if op.name == "gelu":
        return (NN, "Gelu"), {"approximate": op.approximate}
    if op.name == "cast":
        return ("keras.src.ops.core", "Cast"), {"dtype": op.dtype}
    if op.name == "stack":
        return (NUMPY, "Stack"), {"axis": op.axis}
    if op.name == "where":
        return (NUMPY, "Where"), {}
    if op.name == "slice" and _slices(layer) is not None:
        return (NUMPY, "GetItem"), {}
    if op.name == "permute_dims":
        return (NUMPY, "Transpose"), {"axes": list(op.axes)}
    if op.name in ("mean", "sum", "max", "min"):
        settings = {"axis": list(op.axes), "keepdims": op.keepdims}
        return (NUMPY, op.name.title()), settings
    if op.name in ("expand_dims", "squeeze") and len(op.axes) == 1:
        name = "ExpandDims" if op.name == "expand_dims" else "Squeeze"
        return (NUMPY, name), {"axis": op.axes[0]}
    if op.name == "reshape" and sum(isinstance(s, Size) for s in op.shape) == 1:
        return (NUMPY, "Reshape"), {
            "newshape": [-1 if isinstance(s, Size) else s for s in op.shape]
        }
    return None


def takes_list(layer: Any) -> bool:
    """Whether Keras gives the operation its tensors in one list."""
    return isinstance(layer, OpLayer) and layer.op.name in ("concat", "stack")


def _slices(layer: OpLayer) -> list[slice] | None:
    """The slices of an op that slices, where they do not depend on symbolic sizes."""
    op: Any = layer.op
    found = []
    for start, step, size, extent in zip(
        op.starts, op.steps, op.shape, layer.types[0].shape, strict=True
    ):
        end = extent - (start + size) if step == 1 else 0
        if start == 0 and step == 1 and size == extent:
            found.append(slice(None))
        elif step == 1 and isinstance(start, int) and isinstance(end, int):
            found.append(
                slice(start, -end or None) if isinstance(extent, Size) else _upto(start, size)
            )
        elif step > 0 and all(isinstance(v, int) for v in (start, size)):
            found.append(slice(start, start + (size - 1) * step + 1, step))
        else:
            return None
    return found


def _upto(start: int, size: int) -> slice:
    return slice(start, start + size)


def extra_arguments(layer: Any) -> list[Any]:
    """What Keras gives the operation after its tensors."""
    if isinstance(layer, OpLayer) and layer.op.name == "slice":
        slices = _slices(layer)
        return [] if slices is None else [slices]
    return []


def operation_from(entry: dict[str, Any]) -> Layer:
    """The layer of an entry that is a single op. Raises ArgumentError for one that is unknown."""
    config = dict(entry["config"])
    name = config.pop("name")
    if entry["class_name"] != "OpLayer":
        return KerasOperation(entry["module"], entry["class_name"], config, name)
    cls = REGISTRY.get(config["op"])
    if cls is None:
        raise ArgumentError(
            "a model config",
            received=f"the op {config['op']}",
            expected="an op of this version of graphnn",
            fix="load it with the version that wrote it",
        )
    types = [TensorType(_unpacked(s), as_dtype(d)) for s, d in config["types"]]
    settings = {k: _unpacked(v) for k, v in config["settings"].items()}
    return OpLayer(cls(**settings), types, name)


# ---- settings as JSON: tuples become lists and are tuples again, sizes become lists of terms ---


def _packed(value: Any) -> Any:
    if isinstance(value, Size):
        return {"size": [[[_packed_atom(a) for a in atoms], n] for atoms, n in value.terms]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [_packed(v) for v in value] if isinstance(value, tuple | list) else value


def _packed_atom(a: Any) -> Any:
    if isinstance(a, Symbol):
        return a.name
    if isinstance(a, FloorDiv):
        return [_packed(a.numerator), _packed(a.denominator)]
    raise ArgumentError(
        "a model config", received=f"the size {a}", expected="sizes of the model's inputs"
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "size" in value:
        total: Any = 0
        for atoms, factor in value["size"]:
            product: Any = factor
            for a in atoms:
                part = symbol(a) if isinstance(a, str) else floordiv(*map(_unpacked, a))
                product = product * part
            total = total + product
        return total
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    return tuple(map(_unpacked, value)) if isinstance(value, list | tuple) else value


def constant_entry(tensor: Any) -> dict[str, Any]:
    """A tensor with numbers among the arguments of a call."""
    config = {"value": tree.map_structure(lambda v: v, tensor.tolist()), "dtype": tensor.dtype.name}
    return {"class_name": "__tensor__", "config": config}
