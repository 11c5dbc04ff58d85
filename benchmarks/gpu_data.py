"""Data and first weights of the GPU workloads, drawn from fixed seeds: equal for each framework.

The draws are those of other frameworks' scripts for the same workloads: one stream a workload,
float32 normal numbers, in a fixed order.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Layers = list[tuple[FloatArray, FloatArray]]
Shapes = Mapping[str, Any]

NORM_EPSILON = 1e-5
PEAK_FLOPS = 989e12  # of one H100 in bfloat16: what MFU refers to

FULL: dict[str, dict[str, Any]] = {
    "chain": dict(rows=16384, cols=8192),
    "softmax_xent": dict(rows=8192, cols=50257),
    "layernorm": dict(rows=32768, cols=1024),
    "mlp_b64": dict(dims=(784, 512, 512, 10), batch=64),
    "mlp_b4096": dict(dims=(784, 512, 512, 10), batch=4096),
    "mlp_tiny": dict(dims=(64, 32, 32, 10), batch=32),
    "gpt2_124m": dict(layers=12, width=768, heads=12, time=1024, batch=16, vocab=50304),
    "eager_add": dict(n=10, repeats=5000),
}
TINY: dict[str, dict[str, Any]] = {
    "chain": dict(rows=512, cols=32),
    "softmax_xent": dict(rows=512, cols=97),
    "layernorm": dict(rows=64, cols=32),
    "mlp_b64": dict(dims=(20, 16, 16, 10), batch=8),
    "mlp_b4096": dict(dims=(20, 16, 16, 10), batch=32),
    "mlp_tiny": dict(dims=(8, 4, 4, 10), batch=4),
    "gpt2_124m": dict(layers=2, width=32, heads=2, time=16, batch=2, vocab=64),
    "eager_add": dict(n=10, repeats=200),
}
LATER = {"lstm": "recurrence", "cnn": "convolution", "resnet50": "convolution"}


class Stream:
    """Draws in a fixed order, so that two frameworks that ask alike get alike."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> FloatArray:
        """float32 draws of N(0, scale^2)."""
        drawn = self.generator.standard_normal(shape, dtype=np.float32)
        return drawn if scale == 1.0 else drawn * np.float32(scale)

    def repeated(self, rows: int, columns: int, drawn: int = 256) -> FloatArray:
        """Rows of which only the first `drawn` are drawn and then repeated: quick to make."""
        block = self.normal(min(drawn, rows), columns)
        return np.tile(block, (-(-rows // len(block)), 1))[:rows]

    def labels(self, count: int, classes: int) -> IntArray:
        """Classes, each as likely as the other."""
        return self.generator.integers(0, classes, count).astype(np.int32)


def chain(shapes: Shapes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x (rows, cols), w (cols,), b (cols,)."""
    stream, columns = Stream(1), shapes["cols"]
    x = stream.repeated(shapes["rows"], columns)
    return x, stream.normal(columns), stream.normal(columns)


def softmax_xent(shapes: Shapes) -> tuple[FloatArray, IntArray]:
    """Logits (rows, cols) and their labels (rows,)."""
    stream, rows, columns = Stream(2), shapes["rows"], shapes["cols"]
    return stream.repeated(rows, columns, 128), stream.labels(rows, columns)


def layernorm(shapes: Shapes) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """x (rows, cols), gain (cols,), offset (cols,), and dy of the shape of x."""
    stream, rows, columns = Stream(3), shapes["rows"], shapes["cols"]
    x = stream.repeated(rows, columns)
    gain, offset = stream.normal(columns), stream.normal(columns)
    return x, gain, offset, stream.repeated(rows, columns)


def mlp(shapes: Shapes) -> tuple[FloatArray, IntArray, Layers]:
    """x (batch, dims[0]), labels (batch,), weight (in, out) and bias (out,) of each layer."""
    stream, sizes = Stream(4), shapes["dims"]
    layers = [
        (stream.normal(fan_in, fan_out, scale=math.sqrt(2 / fan_in)), np.zeros(fan_out, "f4"))
        for fan_in, fan_out in pairwise(sizes)
    ]
    x = stream.normal(shapes["batch"], sizes[0])
    return x, stream.labels(shapes["batch"], sizes[-1]), layers


def mlp_flops(shapes: Shapes) -> int:
    """Arithmetic of the products of a train step: forward and both gradients."""
    return int(6 * shapes["batch"] * sum(a * b for a, b in pairwise(shapes["dims"])))


def gpt2(shapes: Shapes) -> tuple[dict[str, FloatArray], IntArray, IntArray]:
    """Weights by name, tokens (batch, time) and the tokens that follow (batch, time)."""
    stream, count = Stream(8), shapes["batch"] * shapes["time"]
    weights = _gpt2_weights(shapes, stream)
    tokens = stream.labels(count, shapes["vocab"]).reshape(shapes["batch"], shapes["time"])
    return weights, tokens, stream.labels(count, shapes["vocab"]).reshape(tokens.shape)


def _gpt2_weights(shapes: Shapes, stream: Stream) -> dict[str, FloatArray]:
    width, layers = shapes["width"], shapes["layers"]
    one, zero = np.ones(width, "f4"), np.zeros(width, "f4")
    found = {
        "tokens": stream.normal(shapes["vocab"], width, scale=0.02),
        "positions": stream.normal(shapes["time"], width, scale=0.02),
    }
    small = 0.02 / math.sqrt(2 * layers)  # of what is added to the residual stream
    for i in range(layers):
        found |= {f"{i}.norm1.gain": one, f"{i}.norm1.offset": zero}
        found |= {f"{i}.norm2.gain": one, f"{i}.norm2.offset": zero}
        for name, fan_in, fan_out, scale in (
            ("qkv", width, 3 * width, 0.02),
            ("projection", width, width, small),
            ("up", width, 4 * width, 0.02),
            ("down", 4 * width, width, small),
        ):
            found[f"{i}.{name}.kernel"] = stream.normal(fan_in, fan_out, scale=scale)
            found[f"{i}.{name}.bias"] = np.zeros(fan_out, "f4")
    return found | {"norm.gain": one, "norm.offset": zero}


def gpt2_parameters(shapes: Shapes) -> int:
    """Number of weights; the head is the table of tokens."""
    width, layers = shapes["width"], shapes["layers"]
    tables = (shapes["vocab"] + shapes["time"]) * width
    return int(tables + layers * (12 * width * width + 13 * width) + 2 * width)


def gpt2_flops(shapes: Shapes) -> int:
    """Arithmetic of a train step: 6 N + 12 L d T a token, N without the table of positions.

    The count of the PaLM paper (Chowdhery et al., 2022, appendix B).
    """
    attention = 12 * shapes["layers"] * shapes["width"] * shapes["time"]
    parameters = gpt2_parameters(shapes) - shapes["time"] * shapes["width"]
    return int(shapes["batch"] * shapes["time"] * (6 * parameters + attention))
