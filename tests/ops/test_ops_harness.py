"""Every op with samples, through the generic harness."""

from __future__ import annotations

import pytest

from graphnn.compiler.ops.base import REGISTRY, Opaque
from tests.ops import harness

CASES = harness.cases()
OPS = sorted(REGISTRY.values(), key=lambda op: op.name)
# Ops of the graph's structure, which mean nothing by themselves.
STRUCTURE = {
    "call",
    "constant",
    "custom_gradient",
    "gradient",
    "host_call",
    "host_region",
    "input",
    "item",
    "size_of",
}
DATA_DEPENDENT = {"boolean_mask", "nonzero"}  # shapes that only data tells: tested by themselves


def parametrized(cases: list[harness.Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[harness.label(c) for c in cases])


@parametrized(CASES)
def test_eager_gives_the_inferred_type(case: harness.Case) -> None:
    for call in harness.calls_of(case):
        harness.check_eager(call)


@parametrized(CASES)
def test_wrong_dtype_is_refused(case: harness.Case) -> None:
    harness.check_wrong_dtype(case)


@parametrized(CASES)
def test_infer_with_symbolic_sizes(case: harness.Case) -> None:
    harness.check_symbolic(next(harness.calls_of(case)))


@parametrized([c for c in CASES if harness.has_element(c[0])])
def test_scalar_code_gives_the_eager_value(case: harness.Case) -> None:
    for call in harness.calls_of(case):
        harness.check_element(call)


@pytest.mark.parametrize("op", harness.elementwise(), ids=lambda op: op.name)
def test_scalar_code_on_special_values(op: type) -> None:
    for call in harness.special_calls(op):
        harness.check_element(call)


@pytest.mark.parametrize("op", harness.elementwise(), ids=lambda op: op.name)
def test_compiled_code_on_special_values(op: type) -> None:
    for call in harness.special_calls(op):
        harness.check_compiled(call)


DIFFERENTIABLE = [c for c in CASES if harness.gradient_call(c) is not None]


@parametrized(DIFFERENTIABLE)
def test_gradient(case: harness.Case) -> None:
    call = harness.gradient_call(case)
    assert call is not None
    harness.check_gradient(call, order=0)


@parametrized(DIFFERENTIABLE)
def test_second_gradient(case: harness.Case) -> None:
    call = harness.gradient_call(case)
    assert call is not None
    harness.check_gradient(call, order=1)


@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
def test_docstring(op: type) -> None:
    harness.check_docstring(op)


@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
def test_rules_are_stated(op: type) -> None:
    if op.name in STRUCTURE | DATA_DEPENDENT:
        return
    assert op.samples, f"{op.name} has no samples"
    assert op.has("infer")
    assert op.has("eager") or op.has("decompose")
    stated = op.has("grad") or op.has("decompose") or op.gradient is not None
    assert stated, f"{op.name} states neither a gradient nor why it has none"
    if op.fusion == "none" and not issubclass(op, Opaque):
        assert op.has("decompose"), f"{op.name} has no loop form and no decomposition"
