"""Products over named axes said in other ops: matmul of vectors, tensordot, einsum.

The functions take a namespace `ops` (tensors, nodes or arrays) and inputs of one dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from graphnn.compiler.ir.sizes import product, substitute, symbols_of
from graphnn.compiler.ir.types import describe
from graphnn.compiler.ops.shape import normalize_axes
from graphnn.runtime.errors import ArgumentError, ShapeError

GUESS = 64  # what a symbolic size counts for when an order of products is chosen


def matmul(ops: Any, a: Any, b: Any) -> Any:
    """The array API's matmul: vectors count as a row (left) or a column (right), then dropped."""
    row, column = len(a.shape) == 1, len(b.shape) == 1
    a = ops.expand_dims(a, axes=(0,)) if row else a
    b = ops.expand_dims(b, axes=(1,)) if column else b
    out = ops.matmul(a, b)
    dropped = (*((-2,) if row else ()), *((-1,) if column else ()))
    return ops.squeeze(out, axes=dropped) if dropped else out


def tensordot(ops: Any, a: Any, b: Any, axes: int | tuple[Sequence[int], Sequence[int]]) -> Any:
    """Sum of products over pairs of axes.

    axes: a count n (the last n axes of a with the first n of b), or two equally long sequences.
    Returns: the other axes of a, then those of b. Raises ArgumentError and ShapeError.
    """
    ndim, other = len(a.shape), len(b.shape)
    if isinstance(axes, int):
        if not 0 <= axes <= min(ndim, other):
            raise ArgumentError(
                "tensordot",
                received=f"axes={axes} for tensors with {ndim} and {other} axes",
                expected=f"0 to {min(ndim, other)} axes",
                fix="contract fewer axes",
            )
        axes = (tuple(range(ndim - axes, ndim)), tuple(range(axes)))
    over_a = normalize_axes(axes[0], ndim, "tensordot")
    over_b = normalize_axes(axes[1], other, "tensordot")
    sizes_a, sizes_b = [a.shape[i] for i in over_a], [b.shape[i] for i in over_b]
    if sizes_a != sizes_b:
        raise ShapeError(
            "tensordot",
            received=f"a {describe(a.dtype, tuple(a.shape))}, b "
            f"{describe(b.dtype, tuple(b.shape))}, axes {over_a} and {over_b}",
            expected="as many axes on both sides, with equal sizes",
            fix="name the axes that belong together",
        )
    kept_a = [i for i in range(ndim) if i not in over_a]
    kept_b = [i for i in range(other) if i not in over_b]
    out_a, out_b = [a.shape[i] for i in kept_a], [b.shape[i] for i in kept_b]
    inner = product(sizes_a)
    left = _permuted(ops, a, (*kept_a, *over_a))
    right = _permuted(ops, b, (*over_b, *kept_b))
    left = ops.reshape(left, shape=(product(out_a), inner))
    right = ops.reshape(right, shape=(inner, product(out_b)))
    return ops.reshape(ops.matmul(left, right), shape=(*out_a, *out_b))


def _permuted(ops: Any, x: Any, axes: Sequence[int]) -> Any:
    return x if list(axes) == list(range(len(axes))) else ops.permute_dims(x, axes=tuple(axes))


# ---- einsum ---------------------------------------------------------------------------------

Label = str | int  # a letter, or a number for an axis under an ellipsis


@dataclass(frozen=True)
class Operand:
    """A tensor whose axes have labels, each once."""

    value: Any
    labels: tuple[Label, ...]

    def size(self, label: Label) -> Any:
        """Size of a labelled axis."""
        return self.value.shape[self.labels.index(label)]


def einsum(ops: Any, spec: str, *inputs: Any) -> Any:
    """Einstein's sum: axes with one letter run together, letters not in the result are summed.

    spec: "ij,jk->ik"; "..." stands for any axes, which broadcast; a letter twice in one input
    takes the diagonal; without "->" the letters that occur once, in order. Any number of inputs
    of one dtype, multiplied in pairs, the cheapest first. Raises ArgumentError and ShapeError.
    """
    labels, result = parse(spec, inputs)
    sizes = _sizes(spec, labels, inputs)
    operands = [_prepared(ops, x, names, sizes) for x, names in zip(inputs, labels, strict=True)]
    while len(operands) > 1:
        first, second = _cheapest(operands)
        rest = [o for o in operands if o is not first and o is not second]
        needed = {*result, *(label for o in rest for label in o.labels)}
        operands = [*rest, _contract(ops, first, second, needed)]
    final = _summed(ops, operands[0], set(result))
    return _permuted(ops, final.value, [final.labels.index(label) for label in result])


def parse(spec: str, inputs: Sequence[Any]) -> tuple[list[tuple[Label, ...]], tuple[Label, ...]]:
    """(labels of each input, labels of the result)."""
    text = spec.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    bare = left.replace("...", "").replace(",", "") + right.replace("...", "")
    if len(terms) != len(inputs) or any(not c.isalpha() for c in bare):
        raise _bad_spec(spec, f"{len(inputs)} inputs", "letters, one group for each input")
    labels = [_labelled(spec, t, x) for t, x in zip(terms, inputs, strict=True)]
    under = max((sum(isinstance(c, int) for c in names) for names in labels), default=0)
    dots = tuple(range(-under, 0))
    if not arrow:
        once = sorted(c for c in set(bare) if bare.count(c) == 1)
        return labels, (*dots, *once)
    known = {c for names in labels for c in names}
    before, ellipsis, after = right.partition("...")
    result = (*before, *dots, *after) if ellipsis else tuple(right)
    if len(set(result)) != len(result) or not known.issuperset(result) or "." in after:
        raise _bad_spec(spec, f"result {right!r}", "letters of the inputs, each once")
    return labels, result


def _bad_spec(spec: str, what: str, expected: str) -> ArgumentError:
    return ArgumentError(
        "einsum",
        received=f"spec {spec!r} with {what}",
        expected=expected,
        fix="write it like 'ij,jk->ik' or '...ij,...jk->...ik'",
    )


def _labelled(spec: str, term: str, x: Any) -> tuple[Label, ...]:
    before, ellipsis, after = term.partition("...")
    under = len(x.shape) - len(before) - len(after)
    if under < 0 or (under and not ellipsis) or "." in after:
        raise _bad_spec(
            spec,
            f"{term!r} for an input with {len(x.shape)} axes",
            "one letter for each axis, and at most one ellipsis",
        )
    return (*before, *range(-under, 0), *after)


def _sizes(spec: str, labels: Sequence[Sequence[Label]], inputs: Sequence[Any]) -> dict[Any, Any]:
    sizes: dict[Any, Any] = {}
    for names, x in zip(labels, inputs, strict=True):
        for label, size in zip(names, x.shape, strict=True):
            known = sizes.setdefault(label, size)
            if known == 1:
                sizes[label] = size
            elif size not in (1, known):
                name = label if isinstance(label, str) else "..."
                raise ShapeError(
                    "einsum",
                    received=f"spec {spec!r} with sizes {known} and {size} for {name!r}",
                    expected="one size for one letter",
                    fix="check the order of the letters against the shapes",
                )
    return sizes


def _prepared(ops: Any, x: Any, names: tuple[Label, ...], sizes: dict[Any, Any]) -> Operand:
    """Diagonals of labels that occur twice, and without axes that only broadcast."""
    stretched = tuple(
        i for i, (c, n) in enumerate(zip(names, x.shape, strict=True)) if n == 1 != sizes[c]
    )
    if stretched:
        x = ops.squeeze(x, axes=stretched)
        names = tuple(c for i, c in enumerate(names) if i not in stretched)
    while len(set(names)) < len(names):
        twice = next(c for c in names if names.count(c) > 1)
        first, second = [i for i, c in enumerate(names) if c == twice][:2]
        rest = [i for i in range(len(names)) if i not in (first, second)]
        x = ops.diagonal(_permuted(ops, x, (*rest, first, second)))
        names = (*(names[i] for i in rest), twice)
    return Operand(x, names)


def _cheapest(operands: Sequence[Operand]) -> tuple[Operand, Operand]:
    """The pair whose product takes the fewest multiplications."""
    if len(operands) == 2:
        return operands[0], operands[1]
    return min(combinations(operands, 2), key=lambda pair: _cost(*pair))


def _cost(a: Operand, b: Operand) -> int:
    labels = dict.fromkeys((*a.labels, *b.labels))
    sizes = [(a if label in a.labels else b).size(label) for label in labels]
    env = dict.fromkeys(symbols_of(sizes), GUESS)
    return int(product(substitute(s, env) for s in sizes))


def _summed(ops: Any, a: Operand, needed: set[Any]) -> Operand:
    """Without the labels that nothing needs."""
    gone = tuple(i for i, c in enumerate(a.labels) if c not in needed)
    if not gone:
        return a
    value = ops.sum(a.value, axes=gone)
    if value.dtype != a.value.dtype:  # integers are added up in 64 bits
        value = ops.cast(value, dtype=a.value.dtype.name)
    return Operand(value, tuple(c for c in a.labels if c in needed))


def _contract(ops: Any, a: Operand, b: Operand, needed: set[Any]) -> Operand:
    a = _summed(ops, a, needed | set(b.labels))
    b = _summed(ops, b, needed | set(a.labels))
    shared = [c for c in a.labels if c in b.labels]
    batch = [c for c in shared if c in needed]
    over = [c for c in shared if c not in needed]
    only_a = [c for c in a.labels if c not in shared]
    only_b = [c for c in b.labels if c not in shared]
    if not over or not (only_a or only_b):
        return _multiplied(ops, a, b, needed)
    outer = [a.size(c) for c in batch]
    rows, cols = [a.size(c) for c in only_a], [b.size(c) for c in only_b]
    inner = product(a.size(c) for c in over)
    left = _arranged(ops, a, (*batch, *only_a, *over))
    right = _arranged(ops, b, (*batch, *over, *only_b))
    left = ops.reshape(left, shape=(*outer, product(rows), inner))
    right = ops.reshape(right, shape=(*outer, inner, product(cols)))
    value = ops.reshape(ops.matmul(left, right), shape=(*outer, *rows, *cols))
    return Operand(value, (*batch, *only_a, *only_b))


def _arranged(ops: Any, a: Operand, labels: Sequence[Label]) -> Any:
    return _permuted(ops, a.value, [a.labels.index(c) for c in labels])


def _multiplied(ops: Any, a: Operand, b: Operand, needed: set[Any]) -> Operand:
    """The product element by element, summed: no matrix product in it. The axes keep the order
    of the input that has more of them, so that it is read as it is stored."""
    first, second = (b, a) if len(b.labels) > len(a.labels) else (a, b)
    labels = (*first.labels, *(c for c in second.labels if c not in first.labels))
    value = ops.multiply(_aligned(ops, a, labels), _aligned(ops, b, labels))
    return _summed(ops, Operand(value, labels), needed)


def _aligned(ops: Any, a: Operand, labels: tuple[Label, ...]) -> Any:
    value = _arranged(ops, a, [c for c in labels if c in a.labels])
    missing = tuple(i for i, c in enumerate(labels) if c not in a.labels)
    return ops.expand_dims(value, axes=missing) if missing else value
