"""Groups that become library calls: matrix products through the BLAS."""

from __future__ import annotations

from typing import Any

from graphnn.compiler.codegen.loops import Kernel, Product
from graphnn.compiler.codegen.lower import Builder, Lowered
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Var, atom, product, ravel, unravel
from graphnn.compiler.ops.base import broadcast_index
from graphnn.compiler.ops.library import Gemm
from graphnn.compiler.passes.fuse import Group, Partition

FLOPS_PER_OPERATION = 16  # multiply-adds that cost as much as one scalar operation of a loop


def library_call(node: Node, target: str) -> Gemm | None:
    """What a library can do for a node, by the op's own word."""
    rule = getattr(node.op, "library", None)
    return rule(target, *(i.tensor for i in node.inputs)) if rule else None


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


def _is_wider(n: Any, m: Any) -> bool:
    """Whether to split columns: by size where it is known, else the fixed one."""
    if isinstance(n, int) and isinstance(m, int):
        return n >= m
    return isinstance(n, int)


def _offsets(call: Gemm, t: Any) -> tuple[Any, Any, Any]:
    """Linear indices of the matrices of one product of a batch."""
    index = unravel(t, call.batch)
    a = ravel(broadcast_index(index, call.a_batch), call.a_batch) * (call.m * call.k)
    b = ravel(broadcast_index(index, call.b_batch), call.b_batch) * (call.k * call.n)
    return a, b, t * (call.m * call.n)
