"""Operands of a library where they lie: views of a tensor as offset and strides."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.ir.graph import Graph, Node, Rewriter
from graphnn.compiler.ir.sizes import Var, atom, product, ravel
from graphnn.compiler.ir.types import bfloat16, float16, float32
from graphnn.compiler.ops.attention import Attention, AttentionGradient
from graphnn.compiler.ops.attention_call import AttentionCall, AttentionGradientCall, Place
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.ops.gemm import Gemm, Layout, merged
from graphnn.compiler.ops.linalg import MatMul
from graphnn.compiler.ops.logic import Cast
from graphnn.compiler.passes.access import accesses, is_alias
from graphnn.compiler.passes.affine import coefficients
from graphnn.compiler.passes.packing import Packing
from graphnn.compiler.trace import GraphHandler

SHORT = (float16, bfloat16)
CALLS = 4  # products of a batch that have no common stride, before operands are copied instead
PACK = 8  # 16-bit elements that a library reads at once


def strided_form(graph: Graph, tf32: bool, calls: int = CALLS) -> Graph:
    """The graph with products and attention said in strided library calls."""
    if not any(isinstance(n.op, MatMul | Attention | AttentionGradient) for n in graph.nodes):
        return graph
    return _Former(graph, tf32, calls).run()


class _Former:
    def __init__(self, graph: Graph, tf32: bool, calls: int) -> None:
        self.graph, self.tf32, self.calls = graph, tf32, calls
        self.handler = GraphHandler()
        self.ops = Ops(self.handler)
        self.rewriter = Rewriter()
        self.packing = Packing(graph)
        self.stats: dict[Node, Node] = {}
        self.differentiated = {
            n.inputs[3] for n in graph.nodes if isinstance(n.op, AttentionGradient)
        }

    def run(self) -> Graph:
        for node in self.graph.nodes:
            self.handler.at(node)
            self.rewriter.replace[node] = self._changed(node)
        return self.rewriter.graph(self.graph)

    def _changed(self, node: Node) -> Node:
        if node in self.packing.packed:
            return self._packed_gradient(node)
        if isinstance(node.op, MatMul):
            return self._product(node)
        if isinstance(node.op, Attention):
            return self._attention(node, node in self.differentiated)
        if isinstance(node.op, AttentionGradient) and node not in self.packing.sources:
            return self._gradient(node)
        return self.rewriter.copy(node)

    # ---- products ----------------------------------------------------------------------------

    def _product(self, node: Node) -> Node:
        op: Any = node.op
        if op.library("cuda", *(i.tensor for i in node.inputs)) is None:
            return _as_sum(self.ops, node, *self.rewriter.inputs(node))
        a, b = _narrow_sources(node)
        *batch, m, n = node.shape
        k = node.inputs[0].shape[-2 if op.transpose_a else -1]
        left = self._operand(a, op.transpose_a, len(batch))
        right = self._operand(b, op.transpose_b, len(batch))
        made = Gemm(
            m=m,
            n=n,
            k=k,
            a=left[1],
            b=right[1],
            c=(0, _dense_strides(batch, m * n), n, 1),
            shape=node.shape,
            dtype=node.dtype.name,
            batch=tuple(batch),
            tf32=self.tf32 and a.dtype == float32,
        )
        return self.handler.apply(made, (left[0], right[0]))  # type: ignore[no-any-return]

    def _operand(self, node: Node, swapped: bool, axes: int) -> tuple[Node, Layout]:
        """The tensor that holds an operand, and how its matrices lie there."""
        base, layout = strided(node)
        if layout is None or not self._fits(layout, node):
            base, layout = _dense(node)
        offset, strides, rows, cols = layout
        sizes = node.shape[:-2]
        moves = [0 if n == 1 else s for n, s in zip(sizes, strides, strict=True)]
        own = (*[0] * (axes - len(moves)), *moves)
        return self.rewriter(base), (offset, own, *((cols, rows) if swapped else (rows, cols)))

    def _fits(self, layout: Layout, node: Node) -> bool:
        """Whether the library can read such matrices, in few enough calls."""
        _, strides, rows, cols = layout
        leading, inner = (rows, node.shape[-1]) if cols == 1 else (cols, node.shape[-2])
        overlaps = isinstance(leading, int) and isinstance(inner, int) and leading < inner
        if 1 not in (rows, cols) or overlaps:
            return False
        sizes = node.shape[:-2]
        axes = merged([(n, (s,)) for n, s in zip(sizes, strides, strict=True)])
        if len(axes) < 2:
            return True
        if not all(isinstance(n, int) for n, _ in axes):
            return False
        return bool(product(sorted(n for n, _ in axes)[:-1]) <= self.calls)

    # ---- attention ---------------------------------------------------------------------------

    def _attention(self, node: Node, keeps: bool) -> Node:
        op: Any = node.op
        q, k, v = (self._place(i) for i in node.inputs[:3])
        made = AttentionCall(
            q=q[1],
            k=k[1],
            v=v[1],
            sizes=_sizes(node.inputs),
            scale=op.scale,
            causal=op.causal,
            keeps=keeps,
        )
        found = self.handler.apply(made, (q[0], k[0], v[0]))
        if not keeps:
            return found  # type: ignore[no-any-return]
        out, self.stats[node] = found
        return out  # type: ignore[no-any-return]

    def _gradient(self, node: Node, packed: Node | None = None) -> Node:
        """The gradients; into one tensor where `packed` joins them."""
        op: Any = node.op
        q, k, v = (self._place(i) for i in node.inputs[:3])
        out, g = node.inputs[3:5]
        forward, stats = self._forward(node, out)
        places = [self._place(x) for x in (g,)]
        made = AttentionGradientCall(
            q=q[1],
            k=k[1],
            v=v[1],
            g=places[0][1],
            sizes=_sizes(node.inputs),
            scale=op.scale,
            causal=op.causal,
            packed=() if packed is None else self.packing.packed[packed].places,
            shape=() if packed is None else packed.shape,
        )
        inputs = (q[0], k[0], v[0], forward, stats, places[0][0])
        found = self.handler.apply(made, inputs)
        return found if packed is not None else found[0].inputs[0]  # type: ignore[no-any-return]

    def _packed_gradient(self, node: Node) -> Node:
        return self._gradient(self.packing.packed[node].source, node)

    def _forward(self, node: Node, out: Node) -> tuple[Node, Node]:
        """The result of attention and the statistics that belong to it."""
        if out in self.stats and out.inputs[:3] == node.inputs[:3] and _same(out.op, node.op):
            return self.rewriter(out), self.stats[out]
        op: Any = node.op
        again = Node(Attention(**op.settings()), node.inputs[:3], out.type, node.loc, node.device)
        return self._attention(again, True), self.stats[again]

    def _place(self, node: Node) -> tuple[Node, Place]:
        """The tensor that holds q, k, v or g, and its offset and strides."""
        base, layout = strided(node)
        if layout is not None:
            offset, outer, rows, cols = layout
            strides = (*outer, rows, cols)
            dense = _dense_strides(node.shape, 1)
            rows_of = zip(strides, dense, node.shape, strict=True)
            own = tuple(d if n == 1 else s for s, d, n in rows_of)
            wide = (offset, *own[:3])
            if own[3] == 1 and all(isinstance(s, int) and s % PACK == 0 for s in wide) and all(own):
                return self.rewriter(base), (offset, own)
        base, _ = _dense(node)
        return self.rewriter(base), (0, _dense_strides(node.shape, 1))


def _sizes(inputs: Any) -> tuple[Any, ...]:
    q, k, v = inputs[:3]
    return (*q.shape[:3], *k.shape[1:3], q.shape[3], v.shape[3])


def _same(a: Any, b: Any) -> bool:
    return bool(a.settings() == b.settings())


def _narrow_sources(node: Node) -> tuple[Node, Node]:
    """Both operands; where both were 16-bit floats and cast to float32, those."""
    a, b = node.inputs
    if node.dtype == float32 and _is_widened(a) and _is_widened(b):
        short_a, short_b = a.inputs[0], b.inputs[0]
        if short_a.dtype == short_b.dtype:
            return short_a, short_b
    return a, b


def _is_widened(node: Node) -> bool:
    return isinstance(node.op, Cast) and node.inputs[0].dtype in SHORT


def _dense_strides(shape: Any, inner: Any) -> tuple[Any, ...]:
    return tuple(product(shape[k + 1 :]) * inner for k in range(len(shape)))


def _dense(node: Node) -> tuple[Node, Layout]:
    *batch, rows, cols = node.shape
    base = node
    while is_alias(base):
        base = base.inputs[0]
    return base, (0, _dense_strides(batch, rows * cols), cols, 1)


def strided(node: Node) -> tuple[Node, Layout | None]:
    """The tensor that a chain of moves reads, and the strides by which it does."""
    index = [Var(f"x{k}", size) for k, size in enumerate(node.shape)]
    linear = ravel(tuple(map(atom, index)), node.shape)
    base = node
    while base.op.rearranges and len(base.inputs) == 1:
        read = accesses(base, linear)
        if len(read) != 1:
            return node, None
        linear, base = read[0][1], base.inputs[0]
    found = coefficients(linear, index)
    if found is None:
        return node, None
    offset, strides = found
    return base, (offset, tuple(strides[:-2]), strides[-2], strides[-1])


def _as_sum(ops: Any, node: Node, a: Node, b: Node) -> Node:
    """A product said as element-wise products and their sum."""
    op: Any = node.op
    a = ops.permute_dims(a, axes=_swapped(a)) if op.transpose_a else a
    b = b if op.transpose_b else ops.permute_dims(b, axes=_swapped(b))
    wide_a, wide_b = ops.expand_dims(a, axes=(-2,)), ops.expand_dims(b, axes=(-3,))
    total: Node = ops.sum(ops.multiply(wide_a, wide_b), axes=(len(node.shape),))
    return total if total.dtype == node.dtype else ops.cast(total, dtype=node.dtype.name)


def _swapped(node: Node) -> tuple[int, ...]:
    ndim = len(node.shape)
    return (*range(ndim - 2), ndim - 1, ndim - 2)
