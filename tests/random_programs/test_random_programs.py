"""Random programs: interpreter = compiled, with and without each pass, for any sizes; gradients are
finite differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings

from graphnn.build import compile_graph, host_target
from graphnn.compiler.codegen.program import Target
from graphnn.compiler.interpret import interpret
from graphnn.compiler.ir.graph import Graph
from graphnn.compiler.ir.types import TensorType, float64
from graphnn.compiler.ops.base import Ops
from graphnn.compiler.passes.pipeline import Pipeline
from graphnn.compiler.trace import Trace
from tests.random_programs.generate import Program, programs

EXAMPLES = 100
RTOL, ATOL = 2e-5, 2e-5


def assert_same(got, want, rtol=RTOL, atol=ATOL):
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * max(1.0, np.abs(b).max(initial=0)))


def target(**changes):
    host = host_target()
    return Target(**{"threads": host.threads, "blas": host.blas, **changes})


def check_values(program: Program) -> None:
    graph, arrays = program.graph(), program.arrays()
    want, _ = interpret(graph, arrays)
    assert_same(compile_graph(graph).run(arrays), want)


def check_gradients(program: Program) -> None:
    """Compiled float64 gradients against central differences along a random direction."""
    graph = program.graph(float64, gradient=True)
    arrays = program.arrays(np.float64)
    compiled = compile_graph(graph)
    total, *gradients = compiled.run(arrays)
    rng = np.random.default_rng(program.seed + 1)
    directions = [rng.standard_normal(a.shape) for a in arrays]
    step = 1e-5
    ahead, behind = (
        compiled.run(
            [np.asarray(a + s * step * d) for a, d in zip(arrays, directions, strict=True)]
        )[0]
        for s in (1, -1)
    )
    numeric = (float(ahead) - float(behind)) / (2 * step)
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    scale = max(1.0, abs(float(total)), abs(exact))
    if abs(numeric - exact) > 1e-4 * scale:  # a kink of `where` between the two points is no error
        _assert_kink(program, compiled, arrays, directions, exact, scale)


def _assert_kink(program, compiled, arrays, directions, exact, scale):
    finer = []
    for step in (1e-6, 3e-7, 3e-6):
        ahead, behind = (
            compiled.run(
                [np.asarray(a + s * step * d) for a, d in zip(arrays, directions, strict=True)]
            )[0]
            for s in (1, -1)
        )
        finer.append((float(ahead) - float(behind)) / (2 * step))
    assert min(abs(f - exact) for f in finer) <= 1e-3 * scale, (program, finer, exact)


@settings(max_examples=EXAMPLES)
@given(programs())
def test_compiled_is_interpreter(program):
    check_values(program)


@settings(max_examples=EXAMPLES // 2)
@given(programs())
def test_eager_is_compiled(program):
    """Line by line as compiled: the values, and the gradients of the tape."""
    arrays = program.arrays()
    results, gradients = program.eager(arrays)
    assert_same(compile_graph(program.graph()).run(arrays), results)
    _, *compiled = compile_graph(program.graph(gradient=True)).run(arrays)
    assert_same(compiled, gradients, rtol=1e-4, atol=1e-4)


@settings(max_examples=EXAMPLES // 2)
@given(programs(10))
def test_gradients_are_finite_differences(program):
    check_gradients(program)


@settings(max_examples=EXAMPLES // 4)
@given(programs(10))
def test_one_program_serves_all_sizes(program):
    graph = program.graph(symbolic=True)
    compiled = compile_graph(graph)
    for batch in (6, 3, 17):
        arrays = program.arrays(batch=batch)
        want, _ = interpret(graph, arrays)
        assert_same(compiled.run(arrays), want)


@settings(max_examples=EXAMPLES // 4)
@given(programs(10))
def test_without_fusion_threads_or_blas(program):
    graph, arrays = program.graph(gradient=True), program.arrays()
    want = compile_graph(graph).run(arrays)
    for other in (target(fuse=False), target(threads=1), target(threads=3), target(blas=False)):
        assert_same(compile_graph(graph, target=other).run(arrays), want)


@settings(max_examples=EXAMPLES // 4)
@given(programs(10))
def test_any_optional_pass_removed(program):
    graph, arrays = program.graph(), program.arrays()
    want, _ = interpret(graph, arrays)
    for name in ("simplify", "recompute"):
        assert_same(compile_graph(graph, Pipeline().without(name)).run(arrays), want)


@pytest.mark.nightly
@settings(max_examples=1000)
@given(programs(20))
def test_many_random_programs(program):
    check_values(program)
    check_gradients(program)


def test_reversed_axes_of_symbolic_size():
    """Found by the emulator's random programs: a negative index was divided as if unsigned."""
    steps = (
        ("reshape", 6, 23, 6),
        ("matmul", 3, 1, 30),
        ("transpose", 17, 21, 30),
        ("softmax", 3, 6, 2),
        ("flip", 12, 20, 7),
        ("concat", 25, 26, 21),
    )
    program = Program((1, 5, 0), steps, 394)
    graph = program.graph(symbolic=True)
    compiled = compile_graph(graph)
    for batch in (6, 4):
        arrays = program.arrays(batch=batch)
        assert_same(compiled.run(arrays), interpret(graph, arrays)[0])


def updating(program: Program, trace: Trace | None = None, devices: Sequence[str] = ()) -> Graph:
    """The program with its inputs as Variables: each takes the last value that has its type.

    devices: where they are, if not where the program runs.
    """
    trace = trace or Trace("random")
    arrays = program.arrays()
    types = [TensorType(a.shape, a.dtype) for a in arrays]
    variables = [object() for _ in types]
    places = devices or [""] * len(types)
    sources = [
        trace.read(v, f"v{k}", t, device)
        for k, (v, t, device) in enumerate(zip(variables, types, places, strict=True))
    ]
    values = program.results(Ops(trace), sources, count=len(program.steps) + len(sources))
    for k, (variable, type) in enumerate(zip(variables, types, strict=True)):
        fitting = [v for v in values if v.tensor == type]
        if fitting:
            trace.assign(variable, f"v{k}", type, fitting[-1 - k % len(fitting)])
    return trace.finish(values[-1:])


@settings(max_examples=EXAMPLES)
@given(programs())
def test_variables_updated_in_place(program):
    """New values, and results, are as if everything had been computed before anything changed."""
    graph = updating(program)
    arrays = program.arrays()
    want, new = interpret(graph, arrays)
    for other in (target(), target(threads=1)):
        buffers = [a.copy() for a in arrays]
        assert_same(compile_graph(graph, target=other).run(buffers), want)
        changed = [buffers[graph.inputs.index(node)] for node, _ in graph.updates]
        assert_same(changed, new)
