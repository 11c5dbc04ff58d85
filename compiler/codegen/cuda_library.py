"""Steps of a GPU program that a library runs: which groups, and their numbers for given sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product as combinations
from math import prod
from typing import Any

from graphnn.compiler.codegen.cuda import CudaText
from graphnn.compiler.codegen.loops import Call, Kernel
from graphnn.compiler.codegen.lower import Builder, Lowered
from graphnn.compiler.codegen.scalar import Buffer
from graphnn.compiler.ir.graph import Node
from graphnn.compiler.ir.sizes import Size
from graphnn.compiler.ir.types import TensorType
from graphnn.compiler.ops.attention import Attention, AttentionGradient
from graphnn.compiler.ops.attention_call import AttentionGradientCall
from graphnn.compiler.ops.core import Item
from graphnn.compiler.ops.gemm import Gemm, Layout, merged
from graphnn.compiler.ops.linalg import MatMul
from graphnn.compiler.passes.fuse import Group, Partition
from graphnn.runtime.device import (
    AttentionRun,
    Epilogue,
    LibraryRun,
    ProductRun,
    StridedTensor,
)

GRADIENTS = ("dq", "dk", "dv")
DONE = (MatMul, Attention, AttentionGradient)  # become library calls or sums, by `passes.strides`
LIBRARY = GEMM = "library"  # name of the text that library steps have: none


def has_library(node: Node) -> bool:
    """Whether a device computes a node of fusion class "library"; else the host does.

    Products that the library lacks become sums of products (`passes.libraries`).
    """
    return isinstance(node.op, DONE) or hasattr(node.op, "words")


def lower_library(partition: Partition, group: Group) -> tuple[Lowered | None, CudaText | None]:
    """The library call of a group and its (empty) text; (None, None) where the host must do it."""
    node = group.nodes[0]
    if not hasattr(node.op, "words"):
        return None, None
    builder = Builder(partition, group)
    inputs = tuple(builder.buffer(i) for i in node.inputs)
    outputs = tuple(_outputs(builder, node, group))
    kernel = Kernel(
        stem=node.op.name,
        buffers=tuple(dict.fromkeys((*inputs, *outputs))),
        row=None,
        body=(Call(node.op, inputs, outputs),),
        writes=tuple(builder.written),
        locs=(node.loc,) if node.loc else (),
    )
    nodes = {buffer: n for n, buffer in builder.buffers.items()}
    return Lowered(kernel, nodes, builder.scratch), CudaText(LIBRARY, "", ())


def _outputs(builder: Builder, node: Node, group: Group) -> list[Buffer]:
    """One buffer for each result; those that nobody reads are scratch memory."""
    if isinstance(node.type, TensorType):
        return [builder.output(node)]
    items = {n.op.index: n for n in group.nodes if isinstance(n.op, Item)}
    return [
        builder.output(items[k]) if k in items else builder.scratch_buffer(t.dtype, t.size)
        for k, t in enumerate(node.type.items)
    ]


def library_run(kernel: Kernel, env: Mapping[Any, Any]) -> LibraryRun | None:
    """The numbers of a library step; None for a kernel that is none."""
    call = kernel.body[0]
    if not isinstance(call, Call):
        return None
    names = {a if isinstance(a, str) else str(a): v for a, v in env.items()}
    op = call.op.bind(names) if names else call.op
    if isinstance(op, Gemm):
        buffers = (*call.inputs[:2], call.outputs[0], *call.inputs[2:], *call.outputs[1:])
        operands = tuple(map(kernel.buffers.index, buffers))
        return product_run(op, call.inputs[0].dtype.name, operands)
    return _attention_run(op, call, kernel)


def product_run(op: Gemm, dtype: str, operands: tuple[int, ...]) -> ProductRun:
    """The numbers of a product with fixed sizes; dtype: of its operands."""
    layouts = (op.a, op.b, op.c)
    axes = [(size, tuple(layout[1][k] for layout in layouts)) for k, size in enumerate(op.batch)]
    left = merged(axes)
    # The longest axis is the batch of one call; there is a call for each index of the others.
    longest = max(range(len(left)), key=lambda k: left[k][0]) if left else 0
    count, stride = left.pop(longest) if left else (1, (0, 0, 0))
    offsets = []
    for index in combinations(*(range(size) for size, _ in left)):
        moves = [[i * s for s in strides] for i, (_, strides) in zip(index, left, strict=True)]
        at = (layout[0] + sum(m[k] for m in moves) for k, layout in enumerate(layouts))
        offsets.append(tuple(at))
    transpose, leading = zip(*map(_stored, layouts), strict=True)
    return ProductRun(
        m=op.m,
        n=op.n,
        k=op.k,
        transpose=transpose[:2],
        leading=leading,
        offsets=tuple(offsets) if 0 not in op.batch else (),
        batch=count,
        stride=stride,
        dtype=dtype,
        result=op.dtype or dtype,
        tf32=op.tf32,
        epilogue=Epilogue(op.bias, op.residual, op.activation, op.keeps, op.slope, op.sums),
        operands=operands,
    )


def _attention_run(op: Any, call: Call, kernel: Kernel) -> AttentionRun:
    """The numbers of attention or its gradient; tensors have their heads before their time."""
    backward = isinstance(op, AttentionGradientCall)
    dtype = call.inputs[0].dtype.name
    places = {"q": op.q, "k": op.k, "v": op.v}
    inputs = dict(zip("qkv", call.inputs, strict=False))
    if backward:
        inputs |= dict(zip(("out", "stats", "g"), call.inputs[3:], strict=True))
        places["g"] = op.g
        places |= dict(zip(GRADIENTS, op.packed, strict=False))
        own = call.outputs * len(GRADIENTS) if op.packed else call.outputs
        inputs |= dict(zip(GRADIENTS, own, strict=True))
    else:
        inputs |= dict(zip(("out", "stats"), call.outputs, strict=False))
    tensors = []
    for name in inputs:
        if name == "stats":
            shape = tuple(op.stats.shape)
            tensors.append(StridedTensor(name, "float32", shape, _dense(shape)))
            continue
        offset, strides = places.get(name, (0, _dense(op.shapes[name])))
        shape, strides = _heads_first(op.shapes[name]), _heads_first(strides)
        tensors.append(StridedTensor(name, dtype, shape, strides, offset))
    operands = tuple(kernel.buffers.index(b) for b in inputs.values())
    return AttentionRun(tuple(tensors), op.scale, op.causal, backward, operands)


def _heads_first(x: tuple[int, ...]) -> tuple[int, ...]:
    return x[0], x[2], x[1], x[3]


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[k + 1 :]) for k in range(len(shape)))


def asking(supports: Callable[[ProductRun], bool]) -> Callable[[Gemm, str], bool]:
    """A rule for `LibraryRules.supports`, from what a driver's library answers for fixed sizes."""

    def ask(op: Gemm, dtype: str) -> bool:
        is_fixed = not any(_sizes_within(tuple(op.settings().values())))
        return supports(product_run(op, dtype, tuple(range(8)))) if is_fixed else True

    return ask


def _sizes_within(value: Any) -> Iterator[Size]:
    if isinstance(value, Size):
        yield value
    elif isinstance(value, tuple):
        for v in value:
            yield from _sizes_within(v)


def _stored(layout: Layout) -> tuple[bool, int]:
    """(whether a matrix is stored transposed, elements from one stored row to the next)."""
    _, _, rows, cols = layout
    return (False, rows) if cols == 1 else (True, cols)
