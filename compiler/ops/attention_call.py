"""Attention as a library on a device does it: on tensors where they lie, with statistics kept."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from graphnn.compiler.ir.types import TensorType, bfloat16, describe, float16, float32
from graphnn.compiler.ops.attention import Attention
from graphnn.compiler.ops.base import NoGradient, Op, Sample
from graphnn.runtime.errors import DTypeError, ShapeError

Place = tuple[Any, tuple[Any, Any, Any, Any]]  # offset; strides of batch, time, heads and depth
_DENSE: Place = (0, (48, 16, 8, 1))
_SIZES = (1, 3, 2, 3, 2, 8, 8)
_INPUT = ("f", (1, 3, 2, 8))


class _Call(Op):
    """sizes: batch, queries, heads, keys, heads of the keys, depth, width of the values."""

    accepts, fusion = (float16, bfloat16), "library"
    gradient: ClassVar[NoGradient] = NoGradient("it is made after gradients are written out")
    q: Place
    k: Place
    v: Place
    sizes: tuple[Any, ...]
    scale: float
    causal: bool

    @property
    def words(self) -> str:
        """What it does, for the dump."""
        batch, queries, heads, keys, _, depth, _ = self.sizes
        text = f"{batch}x{heads} heads, {queries} queries, {keys} keys, depth {depth}"
        return text + ", causal" * self.causal

    @property
    def shapes(self) -> dict[str, tuple[Any, ...]]:
        """Shapes (batch, time, heads, depth) of all tensors by name."""
        batch, queries, heads, keys, shared, depth, width = self.sizes
        q, k = (batch, queries, heads, depth), (batch, keys, shared, depth)
        out, v = (batch, queries, heads, width), (batch, keys, shared, width)
        return {"q": q, "k": k, "v": v, "out": out, "g": out, "dq": q, "dk": k, "dv": v}

    @property
    def stats(self) -> TensorType:
        """Type of the logarithms of the sums of the softmax."""
        batch, queries, heads, *_ = self.sizes
        return TensorType((batch, heads, queries, 1), float32)

    def check_inputs(self, types: tuple[TensorType, ...], count: int) -> None:
        """Raise for inputs that do not fit; the fifth are the statistics."""
        self.check_dtypes((*types[:4], *types[5:]))
        if len(types) != count:
            raise ShapeError(
                self.name,
                received=", ".join(describe(t.dtype, t.shape) for t in types),
                expected=f"{count} inputs",
                fix="leave it to passes.strides to make this op",
            )

    def scores(self, q: Any, k: Any) -> Any:
        """What the softmax is taken of, in float32."""
        q, k = _heads_first(q), _heads_first(k, q.shape[2])
        scores = q @ k.swapaxes(-1, -2) * np.float32(self.scale)
        if not self.causal:
            return scores
        return np.where(np.tri(*scores.shape[-2:]) > 0, scores, np.float32(-np.inf))

    def view(self, array: Any, name: str, place: Place) -> Any:
        """A tensor inside an array."""
        flat = np.ascontiguousarray(array).reshape(-1)[place[0] :]
        strides = [s * array.itemsize for s in place[1]]
        return np.lib.stride_tricks.as_strided(flat, self.shapes[name], strides)


class AttentionCall(_Call):
    """`attention` of tensors that lie at places of other tensors.

    Inputs: the tensors that hold q, k and v. Results: (batch, queries, heads, width), and with
    `keeps` the statistics (batch, heads, queries, 1) in float32 that the gradient needs.
    """

    name = "attention_call"
    samples = (
        Sample((_INPUT,) * 3, {"q": _DENSE, "k": _DENSE, "v": _DENSE, "sizes": _SIZES,
                               "scale": 0.3, "causal": True}),
    )  # fmt: skip
    keeps: bool = False

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        self.check_inputs(types, 3)
        out = TensorType(self.shapes["out"], types[0].dtype)
        return (out, self.stats) if self.keeps else out

    def eager(self, xp: Any, q: Any, k: Any, v: Any) -> Any:
        views = [self.view(a, n, getattr(self, n)) for n, a in zip("qkv", (q, k, v), strict=True)]
        out = Attention(scale=self.scale, causal=self.causal).eager(np, *views)
        return (out, self._statistics(*views[:2])) if self.keeps else out

    def _statistics(self, q: Any, k: Any) -> Any:
        scores = self.scores(q, k)
        top = scores.max(-1, keepdims=True)
        return top + np.log(np.exp(scores - top).sum(-1, keepdims=True))


class AttentionGradientCall(_Call):
    """`attention_gradient` of tensors that lie at places of other tensors.

    Inputs: the tensors that hold q, k and v, the result, its statistics, and the tensor that holds
    the gradient of the result. Results: the gradients for q, k and v; or one tensor of `shape` in
    which they lie at the places `packed`.
    """

    name = "attention_gradient_call"
    samples = (
        Sample((*(_INPUT,) * 4, ("float32", (1, 2, 3, 1), 1.0, 2.0), _INPUT),
               {"q": _DENSE, "k": _DENSE, "v": _DENSE, "sizes": _SIZES, "scale": 0.3,
                "causal": True, "g": _DENSE}),
    )  # fmt: skip
    g: Place
    packed: tuple[Place, ...] = ()
    shape: tuple[Any, ...] = ()

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        self.check_inputs(types, 6)
        if types[4].dtype != float32:
            raise DTypeError(
                self.name,
                received=f"statistics {describe(types[4].dtype, types[4].shape)}",
                expected="float32",
                fix="give the second result of attention_call",
            )
        dtype = types[0].dtype
        if self.packed:
            return TensorType(self.shape, dtype)
        return tuple(TensorType(self.shapes[n], dtype) for n in ("dq", "dk", "dv"))

    def eager(self, xp: Any, q: Any, k: Any, v: Any, out: Any, stats: Any, g: Any) -> Any:
        views = [self.view(a, n, getattr(self, n)) for n, a in zip("qkv", (q, k, v), strict=True)]
        found = self._gradients(views, out, stats, self.view(g, "g", self.g))
        if not self.packed:
            return found
        result = np.empty(self.shape, q.dtype)
        for name, place, value in zip(("dq", "dk", "dv"), self.packed, found, strict=True):
            self.view(result, name, place)[...] = value
        return result

    def _gradients(self, views: list[Any], out: Any, stats: Any, g: Any) -> tuple[Any, ...]:
        """By the probabilities that the statistics say."""
        q, k, v = views
        p = np.exp(self.scores(q, k) - stats)
        heads = q.shape[2]
        wide_q, wide_k, wide_v = (_heads_first(x, heads) for x in (q, k, v))
        slope, value = _heads_first(g), _heads_first(out)
        ds = p * (slope @ wide_v.swapaxes(-1, -2) - (slope * value).sum(-1, keepdims=True))
        ds = ds * np.float32(self.scale)
        dk, dv = ds.swapaxes(-1, -2) @ wide_q, p.swapaxes(-1, -2) @ slope
        return tuple(
            _heads_last(x, like.shape[2]).astype(q.dtype)
            for x, like in ((ds @ wide_k, q), (dk, k), (dv, v))
        )


def _heads_first(x: Any, heads: int = 0) -> Any:
    """(batch, heads, time, depth) in float32; heads that several share are repeated."""
    x = x.astype(np.float32).swapaxes(1, 2)
    return np.repeat(x, heads // x.shape[1], axis=1) if heads else x


def _heads_last(x: Any, heads: int) -> Any:
    """(batch, time, heads, depth); heads that share one are added up."""
    batch, count, time, depth = x.shape
    return x.reshape(batch, heads, count // heads, time, depth).sum(2).swapaxes(1, 2)
