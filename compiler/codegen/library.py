"""Groups that become library calls: matrix products through the BLAS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphnn.compiler.codegen.loops import Combine, Kernel, Loop, Product, Statement, Store
from graphnn.compiler.codegen.lower import Builder, Lowered
from graphnn.compiler.codegen.scalar import Scalar
from graphnn.compiler.ir.graph import Graph, Node, rewrite
from graphnn.compiler.ir.sizes import Var, atom, product, ravel, unravel
from graphnn.compiler.ir.types import DType, bfloat16, float16, float32
from graphnn.compiler.ops.base import broadcast_index
from graphnn.compiler.ops.library import Gemm
from graphnn.compiler.ops.logic import Cast
from graphnn.compiler.passes.fuse import Group, Partition
from graphnn.runtime.errors import Loc

_NARROW = (float16, bfloat16)
FLOPS_PER_OPERATION = 16  # multiply-adds that cost as much as one scalar operation of a loop


def library_call(node: Node, target: str) -> Gemm | None:
    """What a library can do for a node, by the op's own word."""
    rule = getattr(node.op, "library", None)
    return rule(target, *(i.tensor for i in node.inputs)) if rule else None


def widened(graph: Graph) -> Graph:
    """The graph with each product of 16-bit floats done in float32, where the library can do only
    that; it is rounded once, as the op says. The casts join the kernels around the product."""
    if any(_is_narrow_product(n) for n in graph.nodes):
        return rewrite(graph, _widen)
    return graph


def _is_narrow_product(node: Node) -> bool:
    if node.op.fusion != "library" or any(i.dtype not in _NARROW for i in node.inputs):
        return False
    return library_call(_in_float32(node), "cpu") is not None


def _in_float32(node: Node) -> Node:
    inputs = tuple(replace(i, type=i.tensor.with_dtype(float32)) for i in node.inputs)
    return replace(node, inputs=inputs)


def _widen(node: Node, inputs: tuple[Node, ...]) -> Node | None:
    if not _is_narrow_product(node):
        return None
    wide = tuple(_cast(i, float32, node.loc) for i in inputs)
    result = Node(node.op, wide, node.tensor.with_dtype(float32), node.loc)
    return _cast(result, node.dtype, node.loc)


def _cast(node: Node, dtype: DType, loc: Loc | None) -> Node:
    return Node(Cast(dtype=dtype.name), (node,), node.tensor.with_dtype(dtype), loc)


def lower_gemm(partition: Partition, group: Group, call: Gemm) -> Lowered:
    """The kernel of a matrix product; its rows are split over threads along m or n or the batch."""
    (node,) = group.nodes
    builder = Builder(partition, group)
    a, b = (builder.buffer(i) for i in node.inputs)
    c = builder.output(node)
    count = product(call.batch)
    if count == 1:
        wide = _is_wider(call.n, call.m)
        split, extent = ("n", call.n) if wide else ("m", call.m)
        at, work = (0, 0, 0), (call.m if wide else call.n) * call.k
    else:
        split, extent, work = "", count, call.m * call.n * call.k
        at = _offsets(call, atom(Var("i", count)))
    transpose = (call.transpose_a, call.transpose_b)
    body = Product(a, b, c, at, call.m, call.n, call.k, transpose, split)
    buffers = tuple(dict.fromkeys((a, b, c)))
    kernel = Kernel(
        stem=node.op.name,
        buffers=buffers,
        row=Var("i", extent),
        body=(body,),
        cost=work // FLOPS_PER_OPERATION + 1,
        writes=(c,),
        locs=(node.loc,) if node.loc else (),
        flat=bool(split),
    )
    return Lowered(kernel, {buffer: n for n, buffer in builder.buffers.items()})


def lower_product(partition: Partition, group: Group) -> Lowered:
    """A matrix product in plain loops: for dtypes that the BLAS lacks, or where there is none."""
    (node,) = group.nodes
    builder = Builder(partition, group)
    op: Any = node.op
    a, b = node.inputs
    *batch, m, n = node.shape
    depth = a.shape[-2] if op.transpose_a else a.shape[-1]
    row, inner, col = Var("i", product((*batch, m))), Var("r", depth), Var("j", n)
    *at, y = unravel(atom(row), (*batch, m))
    value_a = _matrix_element(builder, a, at, y, atom(inner), op.transpose_a)
    value_b = _matrix_element(builder, b, at, atom(inner), atom(col), op.transpose_b)
    out, dtype = builder.output(node), value_a.dtype
    direct = out.dtype == dtype
    target = out if direct else builder.scratch_buffer(dtype, row.extent * n)
    again, last = Var("c", n), Var("d", n)
    start = builder.emit.constant(0, dtype)
    here = Combine(target, atom(row) * n + atom(col), value_a * value_b, "add")
    body: list[Statement] = [
        Loop(again, (Store(target, atom(row) * n + atom(again), start),)),
        Loop(inner, (Loop(col, (here,)),)),
    ]
    if not direct:  # 16-bit floats are added up in float32 and rounded once
        place = atom(row) * n + atom(last)
        body.append(Loop(last, (Store(out, place, builder.emit.load(target, place)),)))
    return builder.kernel(row, body)


def _matrix_element(
    builder: Builder, node: Node, batch: list[Any], y: Any, x: Any, transposed: bool
) -> Scalar:
    index = broadcast_index(tuple(batch), node.shape[:-2])
    return builder.value(node, ravel((*index, *((x, y) if transposed else (y, x))), node.shape))


def _is_wider(n: Any, m: Any) -> bool:
    """Whether to split columns: by size where it is known, else the fixed one.

    Each part packs the whole of the other operand again, so the longer axis is split; among equal
    ones the rows, whose results lie together (512x64x512 on two threads: 118 us against 178).
    """
    if 1 in (n, m):
        return bool(n != 1)
    if isinstance(n, int) and isinstance(m, int):
        return n > m
    return isinstance(n, int)


def _offsets(call: Gemm, t: Any) -> tuple[Any, Any, Any]:
    """Linear indices of the matrices of one product of a batch."""
    index = unravel(t, call.batch)
    a = ravel(broadcast_index(index, call.a_batch), call.a_batch) * (call.m * call.k)
    b = ravel(broadcast_index(index, call.b_batch), call.b_batch) * (call.k * call.n)
    return a, b, t * (call.m * call.n)
