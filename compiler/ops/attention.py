"""Scaled dot-product attention and its gradient.

Both are one op each, so that a library can do them without the scores in memory (T. Dao,
"FlashAttention-2", 2023); elsewhere they are said in products and row operations. Forward and
gradient use the same expression for the probabilities, so that a compiled program computes them
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.compiler.gradients import Step, backpropagate
from graphnn.compiler.ir.sizes import same
from graphnn.compiler.ir.types import TensorType, bfloat16, bool_, broadcast, describe, float16
from graphnn.compiler.ops.arrays import cast_op, wide_op
from graphnn.compiler.ops.base import BaseHandler, Composite, Op, Ops, Sample
from graphnn.runtime.errors import DTypeError, ShapeError

HIDDEN = -0.7 * float(np.finfo(np.float32).max)  # score of a key that is not seen; finite, so that
# a query that sees no key takes the mean of all values
SHORT = (float16, bfloat16)
MAX_DEPTH, DEPTH_MULTIPLE = 128, 8  # of heads, in the library
_QKV = (("f", (2, 3, 2, 4)), ("f", (2, 5, 2, 4)), ("f", (2, 5, 2, 3)))
_SQUARE = (("f", (1, 4, 2, 3)),) * 3


class _Attention(Composite):
    """What the op and its gradient share. bias, mask: whether they are inputs, after q, k and v."""

    promotes, fusion = "none", "library"
    scale: float
    causal: bool = False
    bias: bool = False
    mask: bool = False

    def check(self, types: Sequence[TensorType]) -> TensorType:
        """The type of the result; raises for inputs that do not fit."""
        floats = types[: 3 + self.bias]
        self.check_dtypes(floats)
        q, k, v = types[:3]
        right = len(types) == 3 + self.bias + self.mask
        if self.mask and right and types[-1].dtype != bool_:
            right = False
        if not right or len({t.dtype for t in floats}) > 1:
            raise DTypeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected="query, key and value, then the bias, of one dtype, and a bool mask",
                fix="cast some of them",
            )
        fits = all(t.ndim == 4 for t in (q, k, v)) and (
            k.shape[:3] == v.shape[:3]
            and q.shape[0] == k.shape[0]
            and q.shape[3] == k.shape[3]
            and _divides(k.shape[2], q.shape[2])
        )
        if not fits:
            raise ShapeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected="query (batch, queries, heads, depth), key and value (batch, keys, heads, "
                "depth) with as many heads as the query or a divisor of that",
                fix="put the axes in this order with graphnn.transpose",
            )
        scores = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        for t in types[3:]:
            if broadcast((t.shape, scores), self.name) != scores:
                raise ShapeError(
                    self.name,
                    received=f"bias or mask {describe(t.dtype, t.shape)}",
                    expected=f"a shape that broadcasts to (batch, heads, queries, keys) {scores}",
                    fix="reshape the bias or the mask",
                )
        return TensorType((*q.shape[:3], v.shape[3]), q.dtype)

    def library(self, target: str, *types: TensorType) -> bool | None:
        """Whether the library named "cudnn" does it: 16-bit floats, usual heads, no bias."""
        if target != "cudnn" or self.bias or self.mask or types[0].dtype not in SHORT:
            return None
        q, k, v = types[:3]
        depths = (q.shape[3], v.shape[3])
        usual = all(
            isinstance(d, int) and 0 < d <= MAX_DEPTH and d % DEPTH_MULTIPLE == 0 for d in depths
        )
        filled = all(s != 0 for t in (q, k) for s in t.shape)
        square = not self.causal or same(q.shape[1], k.shape[1])
        return True if usual and filled and square else None

    def probabilities(self, ops: Any, q: Any, k: Any, *others: Any) -> Any:
        """Softmax of the scores, (batch, heads, queries, keys), wide; q and k: heads first.

        others: bias and mask, as far as there are any.
        """
        batch, heads, queries, _ = q.shape
        keys = k.shape[2]
        s = ops.matmul(_grouped(ops, wide_op(ops, q), k), wide_op(ops, k), transpose_b=True)
        s = ops.multiply(ops.reshape(s, shape=(batch, heads, queries, keys)), self.scale)
        if self.bias:
            s = ops.add(s, wide_op(ops, others[0]))
        if self.causal:
            row, column = (
                ops.reshape(ops.arange(start=0, step=1, size=n, dtype="int32"), shape=shape)
                for n, shape in ((queries, (queries, 1)), (keys, (1, keys)))
            )
            s = ops.where(ops.less_equal(column, row), s, HIDDEN)
        if self.mask:
            s = ops.where(others[-1], s, HIDDEN)
        e = ops.exp(ops.subtract(s, ops.max(s, axes=(3,), keepdims=True)))
        return ops.divide(e, ops.sum(e, axes=(3,), keepdims=True))


class Attention(_Attention):
    """softmax(q k' scale + bias) v, for each head (A. Vaswani et al., 2017, equation 1).

    Inputs: q (batch, queries, heads, depth), k (batch, keys, heads, depth), v (batch, keys, heads,
    width), then with `bias` a tensor, and with `mask` a bool one, False where a key is not seen;
    both broadcast to (batch, heads, queries, keys). k and v may have fewer heads, each for several
    of the query's (J. Ainslie et al., 2023). causal: a query sees keys up to its own position.
    float16 and bfloat16 are computed in float32.
    Returns: (batch, queries, heads, width). Raises ShapeError or DTypeError for inputs that do not
    fit.

    >>> q = graphnn.ones((1, 2, 1, 8))
    >>> graphnn.nn.dot_product_attention(q, q, q).shape
    (1, 2, 1, 8)
    """

    name = "attention"
    samples = (
        Sample(_QKV, {"scale": 0.5}, ulp=16),
        Sample(_SQUARE, {"scale": 0.7, "causal": True}, ulp=16),
        Sample((*_QKV, ("f", (2, 1, 1, 5))), {"scale": 1.0, "bias": True}, ulp=16),
        Sample((*_QKV, ("b", (2, 1, 3, 5))), {"scale": 1.0, "mask": True}, ulp=16),
        Sample(
            (("f", (2, 3, 4, 4)), ("f", (2, 3, 2, 4)), ("f", (2, 3, 2, 4))),
            {"scale": 0.5, "causal": True},
            ulp=16,
        ),
        Sample((("f", (1, 1, 1, 2)),) * 3, {"scale": 1.0}, ulp=16),
        Sample((("f", (0, 3, 1, 2)),) * 3, {"scale": 1.0}),
    )

    def infer(self, *types: TensorType) -> TensorType:
        return self.check(types)

    def decompose(self, ops: Any, q: Any, k: Any, v: Any, *others: Any) -> Any:
        q, k, v = (_swapped(ops, x) for x in (q, k, v))
        p = cast_op(ops, self.probabilities(ops, q, k, *others), v.dtype)
        out = ops.matmul(_grouped(ops, p, k), v)
        return _swapped(ops, ops.reshape(out, shape=(*p.shape[:3], v.shape[3])))

    def grad(self, ops: Any, *inputs: Any, out: Any, g: Any) -> Any:
        found = ops.attention_gradient(*inputs, out, g, **self.settings())
        return (*found, None) if self.mask else found


class AttentionGradient(_Attention):
    """Gradients of `attention`: for q, k, v and the bias, if any.

    Inputs: those of `attention`, its result, and the gradient of that. Returns: one tensor for each
    of the inputs of `attention` that are floats.
    """

    name = "attention_gradient"
    samples = (
        Sample((*_QKV, ("f", (2, 3, 2, 3)), ("f", (2, 3, 2, 3))), {"scale": 0.5}, ulp=64),
        Sample((*_SQUARE, *_SQUARE[:2]), {"scale": 0.7, "causal": True}, ulp=64),
    )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        inputs = types[:-2]
        out = self.check(inputs)
        if types[-2:] != (out, out):
            raise ShapeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types[-2:]),
                expected=f"the result and its gradient, both {describe(out.dtype, out.shape)}",
                fix="leave it to the gradient of attention to make this op",
            )
        return tuple(inputs[: 3 + self.bias])

    def decompose(self, ops: Any, *values: Any) -> Any:
        *inputs, _, g = values
        q, k, v, g = (_swapped(ops, x) for x in (*inputs[:3], g))
        p = self.probabilities(ops, q, k, *inputs[3:])
        wide = ops.matmul(_grouped(ops, wide_op(ops, g), k), wide_op(ops, v), transpose_b=True)
        dp = ops.reshape(wide, shape=tuple(p.shape))
        total = ops.sum(ops.multiply(dp, p), axes=(3,), keepdims=True)
        ds = ops.multiply(p, ops.subtract(dp, total))
        scaled = _grouped(ops, cast_op(ops, ops.multiply(ds, self.scale), q.dtype), k)
        dq = ops.reshape(ops.matmul(scaled, k), shape=tuple(q.shape))
        dk = ops.matmul(scaled, _grouped(ops, q, k), transpose_a=True)
        narrow = _grouped(ops, cast_op(ops, p, v.dtype), k)
        dv = ops.matmul(narrow, _grouped(ops, g, k), transpose_a=True)
        results = [_swapped(ops, x) for x in (dq, dk, dv)]
        if self.bias:
            results.append(cast_op(ops, _summed(ops, ds, inputs[3]), inputs[3].dtype))
        return tuple(results)

    def grad(self, ops: Any, *inputs: Any, out: Any, g: Any) -> Any:
        recorder = _Recorder(ops)
        results = self.decompose(Ops(recorder), *inputs)
        found = backpropagate(ops, recorder.steps, zip(results, g, strict=True), inputs)
        return [found.pop(id(x), None) for x in inputs]  # a tensor given twice: its total once


def _divides(part: Any, whole: Any) -> bool:
    if isinstance(part, int) and isinstance(whole, int):
        return part == whole or (part > 0 and whole % part == 0)
    return bool(part == whole)


def _swapped(ops: Any, x: Any) -> Any:
    """(batch, time, heads, depth) to (batch, heads, time, depth), or back."""
    return ops.permute_dims(x, axes=(0, 2, 1, 3))


def _grouped(ops: Any, x: Any, k: Any) -> Any:
    """Heads that share a head of k, one below the other: as many products as k has heads."""
    batch, heads, rows, depth = x.shape
    count = k.shape[1]
    if heads == count:
        return x
    return ops.reshape(x, shape=(batch, count, heads // count * rows, depth))


def _summed(ops: Any, x: Any, like: Any) -> Any:
    """Sums over the axes along which a value was stretched."""
    extra = len(x.shape) - len(like.shape)
    wanted = (*(1,) * extra, *like.shape)
    axes = tuple(k for k, (a, b) in enumerate(zip(x.shape, wanted, strict=True)) if a != b)
    x = ops.sum(x, axes=axes, keepdims=True) if axes else x
    return ops.reshape(x, shape=tuple(like.shape)) if extra else x


class _Recorder(BaseHandler):
    """Applies ops in another namespace and keeps what was applied."""

    def __init__(self, ops: Any) -> None:
        self.outer = ops
        self.steps: list[Step] = []

    def apply(self, op: Op, inputs: Sequence[Any]) -> Any:
        """The value; composites without a gradient rule are taken apart."""
        if op.has("decompose") and not op.has("grad"):
            return op.decompose(Ops(self), *inputs)
        out = getattr(self.outer, op.name)(*inputs, **op.settings())
        self.steps.append(Step(op, tuple(inputs), out))
        return out

    def type(self, value: Any) -> TensorType:
        return TensorType(tuple(value.shape), value.dtype)

    def constant(self, value: Any, dtype: Any) -> Any:
        return self.outer.full(value=value, shape=(), dtype=dtype.name)
