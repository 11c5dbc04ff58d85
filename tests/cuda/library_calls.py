"""What a library does for a step of a program, in NumPy on host memory: for the emulated device."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnn.compiler.ir.types import as_dtype
from graphnn.compiler.ops.gemm import mask_bytes
from graphnn.runtime.device import AttentionRun, LibraryRun, ProductRun, StridedTensor

SHORT = ("float16", "bfloat16")


def run_library(run: LibraryRun, addresses: Sequence[int]) -> None:
    """One library step; addresses in the order of `run.operands`."""
    if isinstance(run, ProductRun):
        _product(run, addresses)
    else:
        _attention(run, addresses)


def view(address: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> Any:
    """An array over memory; strides in elements."""
    kind = as_dtype(dtype)
    if 0 in shape:
        return np.empty(shape, kind)
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    memory = (ctypes.c_char * ((last + 1) * kind.itemsize)).from_address(address)
    flat = np.frombuffer(memory, kind)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * kind.itemsize for s in strides])


def _wide(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype.name in SHORT else array


def _product(run: ProductRun, addresses: Sequence[int]) -> None:
    a, b, c, *rest = addresses
    sizes = [as_dtype(d).itemsize for d in (run.dtype, run.dtype, run.result)]
    for offsets in run.offsets:
        at = [p + o * size for p, o, size in zip((a, b, c), offsets, sizes, strict=True)]
        for t in range(run.batch):
            moved = [p + t * s * size for p, s, size in zip(at, run.stride, sizes, strict=True)]
            with np.errstate(all="ignore"):
                _one(run, moved, rest)


def _one(run: ProductRun, places: Sequence[int], rest: Sequence[int]) -> None:
    m, n, k, e = run.m, run.n, run.k, run.epilogue
    others = list(rest)
    left = _operand(places[0], run.dtype, m, k, run.leading[0], run.transpose[0])
    right = _operand(places[1], run.dtype, k, n, run.leading[1], run.transpose[1])
    out = view(places[2], run.result, (m, n), (run.leading[2], 1))
    value = _wide(left) @ _wide(right)
    if e.bias:
        value = value + _wide(view(others.pop(0), run.result, (n,), (1,)))
    if e.residual:
        value = value + _wide(view(others.pop(0), run.result, (m, n), (run.leading[2], 1)))
    if e.slope == "relu":
        bits = view(others.pop(0), "uint8", (m, mask_bytes(n)), (mask_bytes(n), 1))
        value = value * np.unpackbits(bits, axis=-1, bitorder="little")[:, :n]
    elif e.slope:
        value = value * _gelu_slope(_wide(view(others.pop(0), run.result, (m, n), (n, 1))))
    if e.keeps and e.activation == "relu":
        kept = view(others.pop(0), "uint8", (m, mask_bytes(n)), (mask_bytes(n), 1))
        bits = np.packbits(value > 0, axis=-1, bitorder="little")
        kept[...] = 0xAA  # the padding holds anything
        kept[:, : bits.shape[-1]] = bits
    elif e.keeps:
        kept = view(others.pop(0), run.result, (m, n), (n, 1))
        kept[...] = value.astype(kept.dtype)
    if e.activation == "relu":
        value = np.maximum(value, 0)
    elif e.activation:
        value = 0.5 * value * (1 + np.tanh(_inner(value)))
    out[...] = value.astype(out.dtype)
    if e.sums:
        sums = {"a": _wide(left).sum(-1), "b": _wide(right).sum(-2), "c": value.sum(-2)}[e.sums]
        view(others.pop(0), run.result, sums.shape, (1,))[...] = sums.astype(out.dtype)
    assert not others


def _operand(address: int, dtype: str, rows: int, cols: int, leading: int, flip: bool) -> Any:
    return view(address, dtype, (rows, cols), (1, leading) if flip else (leading, 1))


def _inner(x: Any) -> Any:
    return np.sqrt(np.float32(2 / np.pi)) * (x + np.float32(0.044715) * x**3)


def _gelu_slope(x: Any) -> Any:
    t = np.tanh(_inner(x))
    slope = np.sqrt(np.float32(2 / np.pi)) * (1 + np.float32(3 * 0.044715) * x * x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope


# ---- attention --------------------------------------------------------------------------------


def tensor(t: StridedTensor, address: int) -> Any:
    """An array over the memory of one tensor of a call."""
    return view(address + t.offset * as_dtype(t.dtype).itemsize, t.dtype, t.shape, t.strides)


def _attention(run: AttentionRun, addresses: Sequence[int]) -> None:
    own = {t.name: tensor(t, a) for t, a in zip(run.tensors, addresses, strict=True)}
    arrays = {k: np.asarray(v, np.float32) for k, v in own.items()}
    found = (
        attention_gradients(arrays, run.scale, run.causal)
        if run.backward
        else attention(arrays, run.scale, run.causal)
    )
    for name in found.keys() & own.keys():
        value = found[name]
        own[name][...] = value.astype(own[name].dtype)


def _scores(q: Any, k: Any, scale: float, causal: bool) -> tuple[Any, Any]:
    """(scores, keys with one head for each of the queries'); both have axes batch, heads, ..."""
    k = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    scores = (q @ k.swapaxes(-1, -2)) * np.float32(scale)
    if causal:
        after = np.arange(k.shape[2])[None, :] > np.arange(q.shape[2])[:, None]
        scores = np.where(after, -np.inf, scores)
    return scores, k


def attention(t: dict[str, Any], scale: float, causal: bool) -> dict[str, Any]:
    """out and stats for q, k and v of shape (batch, heads, time, depth)."""
    scores, _ = _scores(t["q"], t["k"], scale, causal)
    top = scores.max(-1, keepdims=True)
    raised = np.exp(scores - top)
    total = raised.sum(-1, keepdims=True)
    v = np.repeat(t["v"], t["q"].shape[1] // t["v"].shape[1], axis=1)
    return {"out": (raised / total) @ v, "stats": top + np.log(total)}


def attention_gradients(t: dict[str, Any], scale: float, causal: bool) -> dict[str, Any]:
    """dq, dk and dv from q, k, v, out, stats and g."""
    scores, k = _scores(t["q"], t["k"], scale, causal)
    heads = t["q"].shape[1] // t["k"].shape[1]
    v = np.repeat(t["v"], heads, axis=1)
    p = np.exp(scores - t["stats"])
    dp = t["g"] @ v.swapaxes(-1, -2)
    ds = p * (dp - (t["g"] * t["out"]).sum(-1, keepdims=True)) * np.float32(scale)
    dk, dv = ds.swapaxes(-1, -2) @ t["q"], p.swapaxes(-1, -2) @ t["g"]
    return {"dq": ds @ k, "dk": _grouped(dk, heads), "dv": _grouped(dv, heads)}


def _grouped(x: Any, heads: int) -> Any:
    """Sums over the query heads that share a head of the keys."""
    batch, count, *rest = x.shape
    return x.reshape(batch, count // heads, heads, *rest).sum(2)
