"""The benchmarks' graphs at full size, as shapes only: nothing here is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphnn.compiler.codegen.cuda import Options
from graphnn.compiler.codegen.cuda_program import DeviceBuilt, build_device_program
from graphnn.compiler.ir.types import TensorType, bfloat16, float32, int64
from graphnn.compiler.ops.core import Gradient
from graphnn.compiler.passes.pipeline import Pipeline
from tests.graphs import Builder

Variable = tuple[object, Any]  # what stands for it, and its value
MOMENTS = ("m", "v")


class Model(Builder):
    """A graph with Variables that are read and assigned."""

    def read(self, *shape: int, dtype: Any = float32) -> Variable:
        """A new Variable."""
        owner = object()
        return owner, self.trace.read(owner, "v", TensorType(shape, dtype))

    def assign(self, variable: Variable, value: Any) -> None:
        """Its new value."""
        self.trace.assign(variable[0], "v", variable[1].type, value)

    def gradients(self, target: Any, seed: Any, *sources: Any) -> tuple[Any, ...]:
        """Gradients of sum(target * seed)."""
        op = Gradient(targets=1, sources=len(sources))
        found = self.apply(op, target, *sources, seed)
        return tuple(found) if isinstance(found, tuple) else (found,)

    def built(self, *outputs: Any) -> DeviceBuilt:
        """The program for an H100."""
        return build_device_program(Pipeline().run(self.graph(*outputs)), Options())


def chain(rows: int = 16384, cols: int = 8192) -> DeviceBuilt:
    """gelu(x * w + b) * sigmoid(x) + x."""
    b = Model()
    x, w, offset = b.input(rows, cols), b.input(cols), b.input(cols)
    y = b.ops.gelu(b.ops.add(b.ops.multiply(x, w), offset), approximate=True)
    return b.built(b.ops.add(b.ops.multiply(y, b.ops.sigmoid(x)), x))


def softmax_xent(rows: int = 8192, cols: int = 50257) -> DeviceBuilt:
    """Mean cross-entropy of bfloat16 logits and its gradient."""
    b = Model()
    x, labels = b.input(rows, cols, dtype="bfloat16"), b.input(rows, dtype="int32")
    loss = b.ops.sparse_softmax_cross_entropy(b.ops.cast(x, dtype=float32), labels)
    mean = b.ops.mean(loss, axes=(0,))
    return b.built(mean, *b.gradients(mean, b.constant(1.0), x))


def layernorm(rows: int = 32768, cols: int = 1024, dtype: str = "bfloat16") -> DeviceBuilt:
    """Forward and backward for a given gradient."""
    b = Model()
    x, dy = b.input(rows, cols, dtype=dtype), b.input(rows, cols, dtype=dtype)
    scale, offset = b.input(cols, dtype=dtype), b.input(cols, dtype=dtype)
    y = b.ops.layer_norm(x, scale, offset, epsilon=1e-5)
    return b.built(y, *b.gradients(y, dy, x, scale, offset))


def gelu(rows: int = 16384, cols: int = 3072) -> DeviceBuilt:
    """With the bias before it."""
    b = Model()
    x, bias = b.input(rows, cols, dtype="bfloat16"), b.input(cols, dtype="bfloat16")
    return b.built(b.ops.gelu(b.ops.add(x, bias), approximate=True))


def embedding(tokens: int = 16384, places: int = 50304, width: int = 768) -> DeviceBuilt:
    """Rows of a table, and the table's gradient."""
    b = Model()
    table, index = b.input(places, width), b.input(tokens, dtype="int32")
    dy = b.input(tokens, width, dtype="bfloat16")
    y = b.ops.cast(b.ops.index(table, index, axes=(0,), at=0), dtype=bfloat16)
    return b.built(y, *b.gradients(y, dy, table))


def bias_gradient(rows: int = 16384, cols: int = 3072) -> DeviceBuilt:
    """What relu lets through, and its sum over rows."""
    b = Model()
    x, g = b.input(rows, cols, dtype="bfloat16"), b.input(rows, cols, dtype="bfloat16")
    slope = b.ops.where(b.ops.greater(x, 0.0), g, b.ops.zeros_like(g))
    return b.built(slope, b.ops.sum(b.ops.cast(slope, dtype=float32), axes=(0,)))


def adam(shapes: Sequence[tuple[int, ...]], narrow: bool = False) -> DeviceBuilt:
    """One update of all Variables for given gradients. narrow: with bfloat16 copies."""
    b = Model()
    _adam(b, [b.read(*s) for s in shapes], [b.input(*s) for s in shapes], narrow)
    return b.built()


def _adam(b: Model, variables: Sequence[Variable], grads: Sequence[Any], narrow: bool) -> None:
    o, count = b.ops, b.read(dtype=int64)
    now = o.add(count[1], 1)
    b.assign(count, now)
    steps = o.cast(now, dtype=float32)
    rest = [o.subtract(1.0, o.power(b.constant(beta), steps)) for beta in (0.9, 0.999)]
    rate = o.divide(o.multiply(o.sqrt(rest[1]), 1e-3), rest[0])
    for variable, g in zip(variables, grads, strict=True):
        m, v = (b.read(*variable[1].shape) for _ in MOMENTS)
        new_m = o.add(m[1], o.multiply(o.subtract(g, m[1]), 0.1))
        new_v = o.add(v[1], o.multiply(o.subtract(o.multiply(g, g), v[1]), 0.001))
        change = o.divide(o.multiply(new_m, rate), o.add(o.sqrt(new_v), 1e-8))
        value = o.subtract(variable[1], change)
        b.assign(m, new_m)
        b.assign(v, new_v)
        b.assign(variable, value)
        if narrow:
            b.assign(b.read(*value.shape, dtype=bfloat16), o.cast(value, dtype=bfloat16))


def blocks(layers: int, rows: int = 16384, width: int = 768) -> DeviceBuilt:
    """A training step of residual blocks: norm, product, gelu, product; float32 master weights."""
    b = Model()
    o, half = b.ops, bfloat16
    x, wrt = b.input(rows, width), []
    for _ in range(layers):
        scale, offset = b.read(width), b.read(width)
        wide, back = b.read(width, 4 * width), b.read(4 * width, width)
        bias = b.read(4 * width)
        h = o.cast(o.layer_norm(x, scale[1], offset[1], epsilon=1e-5), dtype=half)
        h = o.add(o.matmul(h, o.cast(wide[1], dtype=half)), o.cast(bias[1], dtype=half))
        h = o.matmul(o.gelu(h, approximate=True), o.cast(back[1], dtype=half))
        x = o.add(x, o.cast(h, dtype=float32))
        wrt += [scale, offset, wide, bias, back]
    loss = o.mean(o.square(x), axes=(0, 1))
    _adam(b, wrt, b.gradients(loss, b.constant(1.0), *(v for _, v in wrt)), False)
    return b.built(loss)


PROGRAMS: dict[str, Callable[[], DeviceBuilt]] = {
    "chain": chain,
    "softmax_xent": softmax_xent,
    "layernorm": layernorm,
    "layernorm_f32": lambda: layernorm(16384, 768, "float32"),
    "gelu": gelu,
    "embedding": embedding,
    "bias_gradient": bias_gradient,
    "adam": lambda: adam([(768, 2304), (2304,), (10,), (1000, 7)], narrow=True),
    "cross_entropy_50304": lambda: softmax_xent(16384, 50304),
}
