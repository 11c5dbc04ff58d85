"""Data and first weights of the workloads, drawn from fixed seeds: equal for each framework.

Only NumPy is used, in a fixed order of draws, so that any framework can start from the same arrays.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Layers = list[tuple[FloatArray, FloatArray]]

YEAR = 2026
NORM_EPSILON = 1e-5
MLP_SIZES, MLP_BATCH = (784, 512, 512, 10), 64
TINY_SIZES, TINY_BATCH = (64, 32, 32, 32, 10), 32
FIT_SIZES, FIT_BATCH, FIT_SAMPLES, FIT_EPOCHS = (784, 128, 10), 64, 20000, 5
CHAIN_SHAPE = (4096, 4096)
SOFTMAX_SHAPE = (4096, 10000)
NORM_SHAPE = (8192, 1024)
GEMM_SHAPES = (
    (64, 784, 512),
    (64, 512, 512),
    (1024, 256, 1024),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)


def generator(name: str) -> np.random.Generator:
    """The stream of one workload: seeded by the sum of the name's code points and the year."""
    return np.random.default_rng([sum(ord(letter) for letter in name), YEAR])


def normal(stream: np.random.Generator, *shape: int, scale: float = 1.0) -> FloatArray:
    """float32 draws of N(0, scale^2): drawn and scaled in float64, then rounded."""
    return (stream.standard_normal(shape) * scale).astype(np.float32)


def chain() -> tuple[FloatArray, FloatArray, FloatArray]:
    """x (4096, 4096), w (4096,), b (4096,)."""
    stream = generator("chain")
    columns = CHAIN_SHAPE[1]
    return normal(stream, *CHAIN_SHAPE), normal(stream, columns), normal(stream, columns)


def softmax_xent() -> tuple[FloatArray, IntArray]:
    """logits (4096, 10000) and their labels (4096,)."""
    stream = generator("softmax")
    rows, classes = SOFTMAX_SHAPE
    return normal(stream, rows, classes), stream.integers(0, classes, rows)


def layernorm() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """x (8192, 1024), gain (1024,), offset (1024,), and dy of the shape of x."""
    stream = generator("layernorm")
    width = NORM_SHAPE[1]
    x = normal(stream, *NORM_SHAPE)
    gain, offset = normal(stream, width), normal(stream, width)
    return x, gain, offset, normal(stream, *NORM_SHAPE)


def mlp(sizes: tuple[int, ...], batch: int) -> tuple[FloatArray, IntArray, Layers]:
    """x (batch, sizes[0]), labels (batch,), and weight (in, out) and bias (out,) of each layer.

    Weights are N(0, 2 / in), biases N(0, 1e-4).
    """
    stream = generator("mlp")
    x = normal(stream, batch, sizes[0])
    labels = stream.integers(0, sizes[-1], batch)
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        weight = normal(stream, fan_in, fan_out, scale=math.sqrt(2 / fan_in))
        layers.append((weight, normal(stream, fan_out, scale=0.01)))
    return x, labels, layers


def fit() -> tuple[FloatArray, IntArray, Layers]:
    """20000 samples of 784 features, their labels, and the weights of a 784-128-10 net."""
    stream = generator("fit")
    x = normal(stream, FIT_SAMPLES, FIT_SIZES[0])
    labels = stream.integers(0, FIT_SIZES[-1], FIT_SAMPLES)
    return x, labels, mlp(FIT_SIZES, 1)[2]


def epoch_batches(number: int) -> list[IntArray]:
    """Indices of the batches of one shuffled epoch; the last one is short."""
    order = generator(f"epoch{number}").permutation(FIT_SAMPLES)
    return [order[start : start + FIT_BATCH] for start in range(0, FIT_SAMPLES, FIT_BATCH)]


def eager() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Two vectors (10,) and two matrices (8, 8)."""
    stream = generator("eager")
    vectors = normal(stream, 10), normal(stream, 10)
    return *vectors, normal(stream, 8, 8), normal(stream, 8, 8)


def gemm(rows: int, inner: int, columns: int) -> tuple[FloatArray, FloatArray]:
    """The factors (rows, inner) and (inner, columns)."""
    left = normal(generator("g"), rows, inner)
    return left, normal(generator("h"), inner, columns)


def memcpy() -> FloatArray:
    """256 MiB of float32."""
    return normal(generator("m"), 64 * 2**20)
