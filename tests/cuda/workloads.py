"""Graphs that reach every schedule of the CUDA emitter, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphnn.compiler.codegen.cuda import Options
from graphnn.compiler.ir.types import as_dtype
from graphnn.compiler.ops.core import Gradient
from tests.cuda.running import SMALL
from tests.graphs import Builder

Make = Callable[..., Any]

# Where a row kernel keeps what several sweeps need.
PLACES = {
    "registers": SMALL,
    "shared": replace(SMALL, registers=0),
    "nothing": replace(SMALL, registers=0, shared=0),
}


@dataclass(frozen=True)
class Workload:
    """A graph made by `make(builder, *inputs)`, with arrays for its inputs."""

    name: str
    make: Make
    arrays: Sequence[Any]
    options: Options = SMALL
    rtol: float = 2e-5

    def graph(self) -> Any:
        """The traced graph."""
        b = Builder()
        inputs = [b.input(*a.shape, dtype=a.dtype.name) for a in self.arrays]
        outs = self.make(b, *inputs)
        return b.graph(*(outs if isinstance(outs, tuple) else (outs,)))


def data(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    """Numbers in [-2, 2)."""
    rng = np.random.default_rng(7)
    return [rng.uniform(-2, 2, s).astype(as_dtype(dtype)) for s in shapes]


def gradients(b: Builder, total: Any, *sources: Any) -> tuple[Any, ...]:
    """Gradients of a number."""
    seed = b.trace.constant(1.0, total.dtype)
    op = Gradient(targets=1, sources=len(sources))
    return tuple(b.apply(op, total, *sources, seed))


# ---- rows ------------------------------------------------------------------------------------


def softmax(b: Builder, x: Any) -> Any:
    """Along the last axis."""
    return b.ops.softmax(x, axis=-1)


def cross_entropy(b: Builder, x: Any, labels: Any) -> tuple[Any, ...]:
    """Mean loss and its gradient."""
    loss = b.ops.sparse_softmax_cross_entropy(x, labels)
    total = b.ops.mean(loss, axes=(0,))
    return total, *gradients(b, total, x)


def cross_entropy_in_place(b: Builder, h: Any, w: Any, labels: Any) -> tuple[Any, ...]:
    """Logits that nobody else reads: their gradient may be written over them."""
    loss = b.ops.sparse_softmax_cross_entropy(b.ops.matmul(h, w), labels)
    total = b.ops.mean(loss, axes=(0,))
    return total, *gradients(b, total, h, w)


def layer_norm(b: Builder, x: Any, scale: Any, offset: Any, g: Any) -> tuple[Any, ...]:
    """Forward and backward for a given gradient."""
    y = b.ops.layer_norm(x, scale, offset, epsilon=1e-3)
    total = b.ops.sum(b.ops.multiply(y, g), axes=(0, 1))
    return y, *gradients(b, total, x, scale, offset)


def rows() -> Iterator[Workload]:
    """Row kernels with rows of many lengths, in every place."""
    for place, options in PLACES.items():
        for cols in (3, 37, 128, 130, 1000, 1025, 2048):
            yield Workload(f"softmax-{cols}-{place}", softmax, data((5, cols)), options)
        for dtype in ("bfloat16", "float16", "float64"):
            for cols in (100, 1003, 1024):
                x = data((3, cols), dtype=dtype)
                yield Workload(f"softmax-{cols}-{dtype}-{place}", softmax, x, options)
        for cols in (6, 33, 256, 515, 1024, 1500):
            x = data((70, cols), (cols,), (cols,), (70, cols))
            yield Workload(f"layer_norm-{cols}-{place}", layer_norm, x, options, 1e-4)
        for dtype in ("float32", "bfloat16"):
            for cols in (10, 513, 1024, 3001):
                labels = np.random.default_rng(2).integers(0, cols, 20).astype(np.int32)
                arrays = [*data((20, cols), dtype=dtype), labels]
                name = f"cross_entropy-{cols}-{dtype}-{place}"
                yield Workload(name, cross_entropy, arrays, options, 1e-4)
        for cols in (10, 100, 1001):
            labels = np.random.default_rng(4).integers(0, cols, 20).astype(np.int32)
            arrays = [*data((20, 8), (8, cols)), labels]
            name = f"cross_entropy_in_place-{cols}-{place}"
            yield Workload(name, cross_entropy_in_place, arrays, options, 1e-4)
    for cols in (7, 64, 1027):
        x = data((4, cols), (cols,), (cols,), (4, cols))
        yield Workload(f"layer_norm-{cols}-one_block", layer_norm, x, SMALL, 1e-4)


def long_rows() -> Iterator[Workload]:
    """Few rows that several blocks share."""
    options = replace(SMALL, parts=40, long_from=1000)
    for cols in (1000, 3001, 20000):
        for dtype in ("float32", "bfloat16", "float64"):
            x = data((3, cols), dtype=dtype)
            yield Workload(f"long-softmax-{cols}-{dtype}", softmax, x, options)
        both = lambda b, x: (b.ops.sum(x, axes=(1,)), b.ops.max(x, axes=(1,)))  # noqa: E731
        yield Workload(f"long-sum-{cols}", both, data((2, cols)), options)
        yield Workload(f"long-norm-{cols}", normed, data((2, cols), (cols,)), options, 1e-4)


def normed(b: Builder, x: Any, scale: Any) -> Any:
    """Over the root of the mean square, with that root."""
    root = b.ops.sqrt(b.ops.add(b.ops.mean(b.ops.square(x), axes=(1,), keepdims=True), 1e-3))
    return b.ops.multiply(b.ops.divide(x, root), scale), root


# ---- sums over rows ----------------------------------------------------------------------------


def reductions() -> Iterator[Workload]:
    """Sums of columns, totals, axes in the middle."""

    def columns(b: Builder, x: Any) -> Any:
        return b.ops.sum(x, axes=(0,)), b.ops.max(x, axes=(0,))

    for shape in ((1, 5), (700, 10), (300, 129), (40, 1200), (5000, 2)):
        yield Workload(f"columns-{shape}", columns, data(shape))
    yield Workload("columns-empty", lambda b, x: b.ops.sum(x, axes=(0,)), data((0, 3)))
    rng = np.random.default_rng(3)
    for dtype in ("float32", "bfloat16", "int32", "int8", "bool"):
        both = ("any", "all") if dtype == "bool" else ("sum", "max")

        def totals(b: Builder, x: Any, both: tuple[str, str] = both) -> Any:
            return tuple(getattr(b.ops, name)(x, axes=(0,)) for name in both)

        for size in (1, 3, 1000, 20000):
            x = rng.integers(0, 2, size) if dtype == "bool" else rng.integers(-3, 4, size)
            yield Workload(f"totals-{size}-{dtype}", totals, [x.astype(as_dtype(dtype))])
    for shape in ((3, 4, 5), (2, 100, 40), (70, 3, 900), (5, 7, 2, 3)):
        axes = (1,) if len(shape) == 3 else (1, 3)

        def middle(b: Builder, x: Any, axes: tuple[int, ...] = axes) -> Any:
            return b.ops.sum(x, axes=axes)

        for dtype in ("float32", "bfloat16"):
            yield Workload(f"middle-{shape}-{dtype}", middle, data(shape, dtype=dtype))


# ---- maps and views ----------------------------------------------------------------------------


def joints(b: Builder, x: Any, y: Any) -> Any:
    """Slices, joints and edges."""
    low = b.ops.slice(x, starts=(0, 1), steps=(1, 1), shape=(9, 65))
    both = b.ops.concat(low, y, axis=1)
    return b.ops.pad(both, low=(1, 2), high=(0, 3)), both


def crossed(b: Builder, x: Any, y: Any) -> Any:
    """A transposed and a plain operand."""
    return b.ops.add(b.ops.permute_dims(x, axes=(1, 0)), y)


def maps() -> Iterator[Workload]:
    """Element-wise kernels over one and two axes, permuted copies."""
    for dtype in ("float32", "bfloat16", "float64", "int8", "bool"):
        both = ("logical_and", "logical_or") if dtype == "bool" else ("maximum", "minimum")

        def pairs(b: Builder, x: Any, y: Any, both: tuple[str, str] = both) -> Any:
            return tuple(getattr(b.ops, name)(x, y) for name in both)

        for size in (1, 5, 1000, 4099):
            x = data((size,), (size,))
            arrays = [(a > 0 if dtype == "bool" else a * 40).astype(as_dtype(dtype)) for a in x]
            yield Workload(f"packs-{size}-{dtype}", pairs, arrays)
    for shape in ((2, 5000), (3, 4097), (1, 9000), (700, 6)):
        arrays = data(shape, (shape[1],))
        yield Workload(f"exp-{shape}", lambda b, x, y: b.ops.exp(b.ops.add(x, y)), arrays)
        flipped = lambda b, x, y: b.ops.flip(b.ops.add(x, y), axes=(1,))  # noqa: E731
        yield Workload(f"flip-{shape}", flipped, arrays)
    yield Workload("joints", joints, data((9, 70), (9, 12)))
    for dtype in ("float32", "bfloat16", "int8"):
        for shape in ((40, 70), (33, 31), (8, 200)):
            arrays = [(a * 30).astype(as_dtype(dtype)) for a in data(shape, shape[::-1])]
            yield Workload(f"crossed-{shape}-{dtype}", crossed, arrays)
    for axes in ((0, 2, 1, 3), (0, 3, 1, 2), (3, 1, 0, 2)):

        def permuted(b: Builder, x: Any, axes: tuple[int, ...] = axes) -> Any:
            return b.ops.permute_dims(x, axes=axes)

        yield Workload(f"permuted-{axes}", permuted, data((3, 20, 4, 16)))


# ---- scans and scatters ------------------------------------------------------------------------


def scans() -> Iterator[Workload]:
    """Running sums and products, in all directions."""
    for settings in ({}, {"exclusive": True}, {"reverse": True}):

        def both(b: Builder, x: Any, y: Any, settings: dict[str, bool] = settings) -> Any:
            return b.ops.cumsum(x, axis=1, **settings), b.ops.cumprod(y, axis=1, **settings)

        for steps in (1, 31, 255, 256, 257, 1000):
            (x,) = data((3, steps, 2))
            name = f"scan-{steps}-{'-'.join(settings)}"
            yield Workload(name, both, [x, np.abs(x) ** np.float32(0.01)], rtol=1e-4)
    wrapping = np.full((600,), 7 * 2**30, np.int64)
    yield Workload("scan-wraps", lambda b, x: b.ops.cumprod(x, axis=0), [wrapping])
    many = data((20000, 40))
    yield Workload("scan-many", lambda b, x: b.ops.cumsum(x, axis=1), many, rtol=1e-4)


def look_up(b: Builder, table: Any, index: Any, g: Any) -> Any:
    """Rows of a table, and the gradient that is scattered into it."""
    taken = b.ops.index(table, index, axes=(0,), at=0)
    total = b.ops.sum(b.ops.multiply(taken, g), axes=(0, 1, 2))
    return gradients(b, total, table)


def scatters() -> Iterator[Workload]:
    """Updates that collide, in every mode."""
    rng = np.random.default_rng(5)
    where = rng.integers(-6, 6, 90).astype(np.int32)
    for mode in ("add", "set", "mul", "max", "min"):

        def scatter(b: Builder, x: Any, i: Any, u: Any, mode: str = mode) -> Any:
            return b.ops.scatter(x, i, u, axes=(0,), at=0, mode=mode)

        sorted_ = replace(SMALL, sorted_from=64)
        for dtype in ("float32", "bfloat16", "int32"):
            base, updates = (a.astype(as_dtype(dtype)) for a in data((6, 40), (90, 40)))
            arrays = [base, where, updates]
            yield Workload(f"scatter-{mode}-{dtype}", scatter, arrays)
            yield Workload(f"scatter-{mode}-{dtype}-sorted", scatter, arrays, sorted_)
    crowd = rng.integers(0, 4, 1500).astype(np.int32)
    for mode in ("add", "max", "set"):

        def crowded(b: Builder, x: Any, i: Any, u: Any, mode: str = mode) -> Any:
            return b.ops.scatter(x, i, u, axes=(0,), at=0, mode=mode)

        for dtype in ("float32", "bfloat16"):
            for wide in (1, 40):
                pair = data((4, wide), (1500, wide))  # whole, so that sums of 16 bits are exact
                base, updates = (np.rint(a / 2).astype(as_dtype(dtype)) for a in pair)
                name = f"scatter-{mode}-{dtype}-{wide}-crowd"
                yield Workload(name, crowded, [base, crowd, updates], sorted_, 1e-4)
    far = rng.integers(0, 20000, 3000).astype(np.int32)
    table, updates = data((20000,), (3000,))
    for name, options in (("", sorted_), ("-shared", replace(sorted_, most_bins=128))):
        yield Workload(
            f"scatter-many_bins{name}",
            lambda b, x, i, u: b.ops.scatter(x, i, u, axes=(0,), at=0, mode="add"),
            [table, far, updates],
            options,
        )

    def along(b: Builder, x: Any, i: Any, u: Any) -> Any:
        return b.ops.put_along_axis(x, i, u, axis=0, mode="add")

    where = rng.integers(0, 7, (50, 9)).astype(np.int32)
    for name, options in (("", SMALL), ("-sorted", replace(SMALL, sorted_from=64))):
        yield Workload(f"along{name}", along, [*data((7, 9)), where, *data((50, 9))], options)
    index = rng.integers(0, 11, (4, 9)).astype(np.int32)
    table, g = data((11, 33), (4, 9, 33))
    yield Workload("look_up", look_up, [table, index, g], rtol=1e-4)


WORKLOADS = {w.name: w for f in (rows, long_rows, reductions, maps, scans, scatters) for w in f()}
