"""Every schedule of the CUDA emitter, run on the host: short and long rows, rows of odd lengths,
rows in registers, in shared memory and in neither, sums over rows, tiles, scans and scatters."""

from __future__ import annotations

from functools import cache

import pytest

from graphnn.compiler.codegen.cuda_program import DeviceBuilt
from graphnn.compiler.ir.sizes import symbol
from tests.cuda import emulate
from tests.cuda.running import built, check
from tests.cuda.workloads import WORKLOADS, data, gradients
from tests.graphs import Builder

pytestmark = pytest.mark.skipif(bool(emulate.why_not()), reason=emulate.why_not())


@cache
def compiled() -> dict[str, DeviceBuilt]:
    made = {name: built(w.graph(), w.options) for name, w in WORKLOADS.items()}
    emulate.build_all([m.device for m in made.values()])
    return made


@pytest.mark.parametrize("name", WORKLOADS)
def test_schedule(name: str) -> None:
    workload, made = WORKLOADS[name], compiled()[name]
    check(made, workload.arrays, workload.rtol)


def test_rows_of_symbolic_length() -> None:
    n, m = symbol("n"), symbol("m")
    b = Builder()
    x, g = b.input(n, m), b.input(n, m)
    y = b.ops.softmax(x, axis=-1)
    total = b.ops.sum(b.ops.multiply(y, g), axes=(0, 1))
    made = built(b.graph(y, b.ops.sum(g, axes=(0,)), *gradients(b, total, x)))
    for shape in ((2, 3), (5, 64), (3, 131), (40, 7)):
        check(made, data(shape, shape))


def test_transposed_operands_go_through_tiles() -> None:
    text = compiled()["crossed-(40, 70)-float32"].device.text
    assert "tile0[32][33]" in text


def test_wide_indices_give_the_same() -> None:
    made = compiled()["layer_norm-33-shared"]
    check(made, WORKLOADS["layer_norm-33-shared"].arrays, 1e-4, wide=True)
