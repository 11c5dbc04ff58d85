"""Every schedule of the CUDA emitter, run on the host: short and long rows, rows of odd lengths,
rows in registers, in shared memory and in neither, sums over rows, tiles, scans and scatters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphnn.compiler.codegen.cuda import Options
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import as_dtype
from graphnn.compiler.ops.core import Gradient
from tests.cuda import emulate
from tests.cuda.running import SMALL, built, check
from tests.graphs import Builder

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())

REGISTERS = replace(SMALL, registers=64)
SHARED = replace(SMALL, registers=0)
NOTHING = replace(SMALL, registers=0, shared=0)
PLACES = {"registers": REGISTERS, "shared": SHARED, "nothing": NOTHING}


def data(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    rng = np.random.default_rng(7)
    return [rng.uniform(-2, 2, s).astype(as_dtype(dtype)) for s in shapes]


def compare(
    make: Callable[..., Any], arrays: list[Any], options: Options = SMALL, rtol: float = 2e-5
) -> str:
    """Build with `make(ops, *inputs)`, compare, and give the text."""
    b = Builder()
    inputs = [b.input(*a.shape, dtype=a.dtype.name) for a in arrays]
    outs = make(b, *inputs)
    graph = b.graph(*(outs if isinstance(outs, tuple) else (outs,)))
    made = built(graph, options)
    check(graph, arrays, made, rtol)
    return made.device.text


def gradients(b: Builder, total: Any, *sources: Any) -> tuple[Any, ...]:
    seed = b.trace.constant(1.0, total.dtype)
    op = Gradient(targets=1, sources=len(sources))
    return tuple(b.apply(op, total, *sources, seed))


# ---- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cols", [3, 37, 128, 130, 1000, 1025, 2048])
def test_softmax(cols: int, place: str) -> None:
    compare(lambda b, x: b.ops.softmax(x, axis=-1), data((5, cols)), PLACES[place])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cols", [100, 1003, 1024])
def test_softmax_of_other_dtypes(cols: int, place: str, dtype: str) -> None:
    x = data((3, cols), dtype=dtype)
    compare(lambda b, x: b.ops.softmax(x, axis=-1), x, PLACES[place])


def cross_entropy(b: Builder, x: Any, labels: Any) -> tuple[Any, ...]:
    loss = b.ops.sparse_softmax_cross_entropy(x, labels)
    total = b.ops.mean(loss, axes=(0,))
    return total, *gradients(b, total, x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cols", [10, 513, 1024, 3001])
def test_cross_entropy_with_its_gradient(cols: int, place: str, dtype: str) -> None:
    labels = np.random.default_rng(2).integers(0, cols, 20).astype(np.int32)
    x = data((20, cols), dtype=dtype)
    compare(cross_entropy, [*x, labels], PLACES[place], 1e-4)


def layer_norm(b: Builder, x: Any, scale: Any, offset: Any, g: Any) -> tuple[Any, ...]:
    y = b.ops.layer_norm(x, scale, offset, epsilon=1e-3)
    total = b.ops.sum(b.ops.multiply(y, g), axes=(0, 1))
    return y, *gradients(b, total, x, scale, offset)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cols", [6, 33, 256, 515, 1024, 1500])
def test_layer_norm_with_its_gradient(cols: int, place: str) -> None:
    arrays = data((70, cols), (cols,), (cols,), (70, cols))
    compare(layer_norm, arrays, PLACES[place], 1e-4)


@pytest.mark.parametrize("cols", [7, 64, 1027])
def test_layer_norm_in_one_block(cols: int) -> None:
    arrays = data((4, cols), (cols,), (cols,), (4, cols))
    compare(layer_norm, arrays, SMALL, 1e-4)


def test_rows_of_symbolic_length() -> None:
    n, m = symbol("n"), symbol("m")
    b = Builder()
    x, g = b.input(n, m), b.input(n, m)
    y = b.ops.softmax(x, axis=-1)
    total = b.ops.sum(b.ops.multiply(y, g), axes=(0, 1))
    graph = b.graph(y, b.ops.sum(g, axes=(0,)), *gradients(b, total, x))
    made = built(graph)
    for shape in ((2, 3), (5, 64), (3, 131), (40, 7)):
        check(graph, data(shape, shape), made)


# ---- sums over rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 5), (700, 10), (300, 129), (40, 1200), (5000, 2)])
def test_sums_of_columns(shape: tuple[int, int]) -> None:
    x = data(shape)
    compare(lambda b, x: (b.ops.sum(x, axes=(0,)), b.ops.max(x, axes=(0,))), x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "int8", "bool"])
@pytest.mark.parametrize("size", [1, 3, 1000, 20000])
def test_totals(size: int, dtype: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, size) if dtype == "bool" else rng.integers(-3, 4, size)
    both = ("any", "all") if dtype == "bool" else ("sum", "max")
    compare(
        lambda b, x: tuple(getattr(b.ops, name)(x, axes=(0,)) for name in both),
        [x.astype(as_dtype(dtype))],
    )


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 100, 40), (70, 3, 900), (5, 7, 2, 3)])
def test_reductions_in_the_middle(shape: tuple[int, ...]) -> None:
    axes = (1,) if len(shape) == 3 else (1, 3)
    compare(lambda b, x: b.ops.sum(x, axes=axes), data(shape))
    compare(lambda b, x: b.ops.sum(x, axes=axes), data(shape, dtype="bfloat16"))


# ---- maps, views, tiles ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int8", "bool"])
@pytest.mark.parametrize("size", [1, 5, 1000, 4099])
def test_neighbours_in_packs(size: int, dtype: str) -> None:
    x = data((size,), (size,))
    arrays = [(a > 0 if dtype == "bool" else a * 40).astype(as_dtype(dtype)) for a in x]
    both = ("logical_and", "logical_or") if dtype == "bool" else ("maximum", "minimum")
    compare(lambda b, x, y: tuple(getattr(b.ops, name)(x, y) for name in both), arrays)


@pytest.mark.parametrize("shape", [(2, 5000), (3, 4097), (1, 9000), (700, 6)])
def test_rows_shared_by_blocks(shape: tuple[int, int]) -> None:
    arrays = data(shape, (shape[1],))
    compare(lambda b, x, y: b.ops.flip(b.ops.add(x, y), axes=(1,)), arrays)
    compare(lambda b, x, y: b.ops.exp(b.ops.add(x, y)), arrays)


def test_slices_and_joints() -> None:
    def make(b: Builder, x: Any, y: Any) -> Any:
        low = b.ops.slice(x, starts=(0, 1), steps=(1, 1), shape=(9, 65))
        both = b.ops.concat(low, y, axis=1)
        return b.ops.pad(both, low=(1, 2), high=(0, 3)), both

    compare(make, data((9, 70), (9, 12)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [(40, 70), (33, 31), (8, 200)])
def test_transposed_copies(shape: tuple[int, int], dtype: str) -> None:
    x, y = data(shape, shape[::-1])
    arrays = [(a * 30).astype(as_dtype(dtype)) for a in (x, y)]
    text = compare(lambda b, x, y: b.ops.add(b.ops.permute_dims(x, axes=(1, 0)), y), arrays)
    assert "tile0[32][33]" in text


def test_permuted_copies_of_batches() -> None:
    x = data((3, 20, 4, 16))
    compare(lambda b, x: b.ops.permute_dims(x, axes=(0, 2, 1, 3)), x)
    compare(lambda b, x: b.ops.permute_dims(x, axes=(0, 3, 1, 2)), x)
    compare(lambda b, x: b.ops.permute_dims(x, axes=(3, 1, 0, 2)), x)


# ---- scans and scatters ------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 31, 255, 256, 257, 1000])
@pytest.mark.parametrize("settings", [{}, {"exclusive": True}, {"reverse": True}])
def test_scans(steps: int, settings: dict[str, bool]) -> None:
    x = data((3, steps, 2))
    compare(lambda b, x: b.ops.cumsum(x, axis=1, **settings), x, rtol=1e-4)
    compare(lambda b, x: b.ops.cumprod(x, axis=1, **settings), [np.abs(x[0]) ** 0.01])


def test_scan_of_integers_wraps() -> None:
    x = np.full((600,), 2**30, np.int64) * 7
    compare(lambda b, x: b.ops.cumprod(x, axis=0), [x])


@pytest.mark.parametrize("mode", ["add", "set", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_scatters_with_collisions(mode: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    where = rng.integers(-6, 6, 90).astype(np.int32)
    base, updates = (a.astype(as_dtype(dtype)) for a in data((6, 40), (90, 40)))
    compare(
        lambda b, x, i, u: b.ops.scatter(x, i, u, axes=(0,), at=0, mode=mode),
        [base, where, updates],
    )


def test_gradient_of_a_look_up() -> None:
    rng = np.random.default_rng(5)
    where = rng.integers(0, 11, (4, 9)).astype(np.int32)

    def make(b: Builder, table: Any, index: Any, g: Any) -> Any:
        rows = b.ops.index(table, index, axes=(0,), at=0)
        total = b.ops.sum(b.ops.multiply(rows, g), axes=(0, 1, 2))
        return gradients(b, total, table)

    table, g = data((11, 33), (4, 9, 33))
    compare(make, [table, where, g], rtol=1e-4)


def test_wide_indices_give_the_same() -> None:
    b = Builder()
    x = b.input(6, 50)
    graph = b.graph(b.ops.softmax(x, axis=1), b.ops.sum(x, axes=(0,)))
    made = built(graph)
    narrow = emulate.build(made.device.program.modules)
    wide = emulate.build(made.device.program.modules, wide=True)
    assert narrow.keys() == wide.keys()
