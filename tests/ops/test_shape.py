"""Moves and sources: what the generic harness does not show."""

import numpy as np
import pytest

from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.ops.base import ArrayHandler, Ops
from graphnn.compiler.ops.creation import Arange, Full
from graphnn.compiler.ops.diagonal import Diagonal
from graphnn.compiler.ops.move import Concat, Pad, PadMode, Roll, Split
from graphnn.compiler.ops.shape import (
    BroadcastTo,
    ExpandDims,
    PermuteDims,
    Reshape,
    Slice,
    Squeeze,
)
from graphnn.compiler.trace import GraphHandler
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError
from tests.ops.recorder import Recorder

OPS = Ops(ArrayHandler(np))
N, M = symbol("n"), symbol("m")


def typed(*shape):
    return TensorType(shape, float32)


@pytest.mark.parametrize(
    ("op", "types", "error", "text"),
    [
        (Reshape(shape=(5,)), [typed(2, 3)], ShapeError, "with 6 elements"),
        (Reshape(shape=(-1, -6)), [typed(2, 3)], ShapeError, "as many as"),
        (Reshape(shape=(3, 2)), [typed(N)], ShapeError, "symbolic"),
        (PermuteDims(axes=(0,)), [typed(2, 3)], ArgumentError, "all 2 axes"),
        (BroadcastTo(shape=(3,)), [typed(2)], ShapeError, "lined up from the right"),
        (BroadcastTo(shape=(3,)), [typed(2, 3)], ShapeError, "lined up from the right"),
        (BroadcastTo(shape=(3,)), [typed(N)], ShapeError, "sizes equal or 1"),
        (ExpandDims(axes=(3,)), [typed(2)], ArgumentError, "axis 3"),
        (Squeeze(axes=(0,)), [typed(2)], ShapeError, "axis 0 has size 2"),
        (Slice(starts=(1,), steps=(1,), shape=(3,)), [typed(3)], ShapeError, "axis 0"),
        (Slice(starts=(0,), steps=(0,), shape=(3,)), [typed(3)], ArgumentError, "non-zero step"),
        (Pad(low=(-1,), high=(0,)), [typed(3)], ArgumentError, "non-negative"),
        (PadMode(low=(3,), high=(0,), mode="reflect"), [typed(3)], ShapeError, "at most 2"),
        (PadMode(low=(3,), high=(0,), mode="other"), [typed(3)], ArgumentError, "mode 'other'"),
        (Concat(axis=0), [typed(2, 3), typed(2, 4)], ShapeError, "equal sizes"),
        (Concat(axis=0), [typed(2), TensorType((2,), np.dtype("int32"))], DTypeError, "one dtype"),
        (Split(sizes=(1, 1), axis=0), [typed(3)], ShapeError, "add up"),
        (Roll(shifts=(1, 2), axes=(0,)), [typed(3)], ArgumentError, "one shift per axis"),
        (Diagonal(), [typed(3)], ShapeError, "at least 2 axes"),
        (Full(shape=(-1,), dtype="float32", value=0), [], ArgumentError, "size of 0 or more"),
    ],
)
def test_errors_name_what_is_wrong(op, types, error, text):
    with pytest.raises(error, match=text):
        op.infer(*types)


@pytest.mark.parametrize(
    ("op", "types", "shape"),
    [
        (Reshape(shape=(N * M, 2)), [typed(N, 2 * M)], (N * M, 2)),
        (BroadcastTo(shape=(N, 3)), [typed(1, 3)], (N, 3)),
        (Slice(starts=(1,), steps=(1,), shape=(N - 1,)), [typed(N)], (N - 1,)),
        (Pad(low=(1,), high=(2,)), [typed(N)], (N + 3,)),
        (Concat(axis=0), [typed(N), typed(M), typed(2)], (N + M + 2,)),
        (Roll(shifts=(1,), axes=(0,)), [typed(N)], (N,)),
        (Arange(start=0, step=1, size=N, dtype="int32"), [], (N,)),
    ],
)
def test_symbolic_sizes(op, types, shape):
    assert op.infer(*types).shape == shape


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_padding_modes_are_numpys(mode):
    x = np.arange(12.0).reshape(3, 4)
    got = OPS.pad_mode(x, low=(2, 0), high=(1, 3), mode=mode)
    np.testing.assert_array_equal(got, np.pad(x, ((2, 1), (0, 3)), mode=mode))


def test_stepped_slice_gradient_puts_elements_back():
    rec, x = Recorder(), np.zeros((7, 2))
    out = rec.ops.slice(x, starts=(6, 0), steps=(-3, 1), shape=(2, 2))
    (gx,) = rec.gradients(out, [[1.0, 2.0], [3.0, 4.0]], x)
    want = np.zeros((7, 2))
    want[6], want[3] = [1, 2], [3, 4]
    assert gx.tolist() == want.tolist()


def test_joined_and_repeated():
    x = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(
        OPS.roll(x, shifts=(1, -4), axes=(0, 1)), np.roll(x, (1, -4), (0, 1))
    )
    np.testing.assert_array_equal(OPS.tile(x, repeats=(2, 3)), np.tile(x, (2, 3)))
    np.testing.assert_array_equal(OPS.repeat(x, repeats=2, axis=1), np.repeat(x, 2, 1))
    np.testing.assert_array_equal(OPS.stack(x, x, axis=-1), np.stack([x, x], -1))
    first, second = OPS.split(x, sizes=(1, 2), axis=1)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), x)


def test_sources_are_numpys():
    np.testing.assert_array_equal(
        OPS.linspace(start=0.0, stop=1.0, size=7, dtype="float64"), np.linspace(0, 1, 7)
    )
    np.testing.assert_array_equal(OPS.eye(rows=3, cols=4, k=-1, dtype="int8"), np.eye(3, 4, -1))
    np.testing.assert_array_equal(
        OPS.arange(start=5, step=-2, size=3, dtype="uint8"), np.array([5, 3, 1], np.uint8)
    )


def test_signed_zeros_and_nan_are_settings():
    plus = Full(shape=(2,), dtype="float32", value=0.0)
    assert plus != Full(shape=(2,), dtype="float32", value=-0.0)
    nan = Full(shape=(), dtype="float32", value=float("nan"))
    assert nan == Full(shape=(), dtype="float32", value=float("nan"))
    assert hash(nan) == hash(Full(shape=(), dtype="float32", value=float("nan")))
    low = {"low": (1,), "high": (0,)}
    assert Pad(**low, value=0.0) != Pad(**low, value=-0.0)


@pytest.mark.parametrize("shape", [(3, 2, 4), (N, 2, 4)])
def test_moves_that_change_nothing_fold_away(shape):
    handler = GraphHandler()
    ops = Ops(handler)
    x = ops.broadcast_to(ops.full(shape=(), dtype="float32", value=1), shape=shape)
    same = [
        Reshape(shape=shape),
        PermuteDims(axes=(0, 1, -1)),
        BroadcastTo(shape=shape),
        Slice(starts=(0, 0, 0), steps=(1, 1, 1), shape=shape),
        Pad(low=(0, 0, 0), high=(0, 0, 0)),
        Concat(axis=1),
    ]
    assert all(op.fold(ops, x) is x for op in same)
    moved = ops.permute_dims(x, axes=(2, 0, 1))
    assert PermuteDims(axes=(1, 2, 0)).fold(ops, moved).op.axes == (0, 1, 2)
    part = ops.slice(x, starts=(1, 0, 1), steps=(1, 1, 2), shape=(1, 2, 2))
    inner = Slice(starts=(0, 1, 1), steps=(1, -1, 1), shape=(1, 2, 1)).fold(ops, part)
    assert (inner.op.starts, inner.op.steps) == ((1, 1, 3), (1, -1, 2))
