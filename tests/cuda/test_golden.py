"""Golden CUDA texts: one for each schedule, as people will read them in a dump."""

from __future__ import annotations

import math
from typing import Any

import pytest

from graphnn.compiler.codegen.cuda import CudaText, Options
from graphnn.compiler.codegen.cuda_program import build_device_program
from graphnn.compiler.ir.types import TensorType, float32
from graphnn.compiler.passes.pipeline import Pipeline
from tests.codegen.traced import Tracer
from tests.conftest import Golden
from tests.cuda.running import built
from tests.cuda.workloads import cross_entropy, crossed, layer_norm, look_up
from tests.graphs import Builder, relative


def texts(b: Builder, *outs: Any) -> str:
    """Kernels of a program on an H100, with their launches."""
    made = built(b.graph(*outs), Options())
    return shown(made.steps)


def shown(steps: Any) -> str:
    found = []
    for step in steps:
        text = step[0].text
        if isinstance(text, CudaText) and text.text:
            launches = [
                f"// {r.entry or 'launch'}: {r.blocks} blocks of {r.threads} threads, "
                f"{r.shared} bytes of shared memory"
                for r in text.rules
            ]
            found.append("\n".join([*launches, text.text]))
    return "\n".join(found)


def gelu_chain() -> str:
    b = Builder()
    x, w, offset = b.input(4096, 4096), b.input(4096), b.input(4096)
    y = b.ops.add(b.ops.multiply(x, w), offset)
    inner = b.ops.multiply(b.ops.add(y, b.ops.multiply(b.ops.power(y, 3.0), 0.044715)), 0.8)
    gelu = b.ops.multiply(b.ops.multiply(y, 0.5), b.ops.add(b.ops.tanh(inner), 1.0))
    return texts(b, b.ops.add(b.ops.multiply(gelu, b.ops.sigmoid(x)), x))


def softmax_cross_entropy() -> str:
    b = Builder()
    logits, labels = b.input(8192, 50257, dtype="bfloat16"), b.input(8192, dtype="int32")
    return texts(b, *cross_entropy(b, logits, labels))


def layer_norm_both_ways() -> str:
    b = Builder()
    x, g, scale, offset = b.input(8192, 1024), b.input(8192, 1024), b.input(1024), b.input(1024)
    return texts(b, *layer_norm(b, x, scale, offset, g))


def total() -> str:
    b = Builder()
    x = b.input(1 << 20, dtype="bfloat16")
    return texts(b, b.ops.sum(x, axes=(0,)), b.ops.exp(x))


def transposed() -> str:
    b = Builder()
    return texts(b, crossed(b, b.input(512, 300), b.input(300, 512)))


def running_sum() -> str:
    b = Builder()
    x = b.input(64, 5000)
    return texts(b, b.ops.cumsum(x, axis=1, reverse=True))


def embedding_gradient() -> str:
    b = Builder()
    table, index, g = b.input(1000, 64), b.input(4, 9, dtype="int32"), b.input(4, 9, 64)
    return texts(b, *look_up(b, table, index, g))


def middle_axis() -> str:
    b = Builder()
    return texts(b, b.ops.sum(b.input(8, 300, 40, dtype="float16"), axes=(1,)))


CASES = (
    gelu_chain,
    softmax_cross_entropy,
    layer_norm_both_ways,
    total,
    transposed,
    running_sum,
    embedding_gradient,
    middle_axis,
)


@pytest.mark.parametrize("case", CASES, ids=[c.__name__ for c in CASES])
def test_text(case: Any, golden: Golden) -> None:
    golden(f"golden/{case.__name__}.cu", case())


def test_lines_of_the_user_are_comments(golden: Golden) -> None:
    t = Tracer()
    x = t.trace.argument("x", TensorType((100, 64), float32))
    y = t.ops.multiply(x, math.pi)
    y = t.ops.tanh(y)
    graph = t.trace.finish([t.ops.sum(y, axes=(1,))])
    made = build_device_program(Pipeline().run(graph))
    text = relative(shown(made.steps), test_lines_of_the_user_are_comments)
    golden("golden/lines_of_the_user.cu", text)


def test_comments_do_not_make_kernels_differ() -> None:
    t = Tracer()
    x = t.trace.argument("x", TensorType((100, 64), float32))
    y = t.ops.softmax(t.ops.matmul(x, x, transpose_b=True), axis=-1)
    z = t.ops.softmax(t.ops.matmul(y, y, transpose_b=True), axis=-1)
    made = build_device_program(Pipeline().run(t.trace.finish([z])))
    names = {name for name, _ in made.device.program.modules}
    kernels = [s.kernel for s in made.device.program.steps if s.kernel in names]
    assert len(kernels) == 2 and len(set(kernels)) == 1
    assert len(made.device.program.modules) == 1
