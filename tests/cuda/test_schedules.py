"""Every schedule of the CUDA emitter, run on the host: short and long rows, rows of odd lengths,
rows in registers, in shared memory and in neither, sums over rows, tiles, scans and scatters."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from graphnn.compiler.codegen.cuda_program import DeviceBuilt
from graphnn.compiler.ir.sizes import symbol
from tests.cuda import emulate
from tests.cuda.running import built, check, run
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


@pytest.mark.parametrize("place", ["registers", "shared", "nothing"])
def test_a_gradient_is_written_over_the_logits(place: str) -> None:
    """The logit of the label, which all lanes read, is read before any lane overwrites it."""
    made = compiled()[f"cross_entropy_in_place-1001-{place}"]
    loss = next(s[0] for s in made.steps if s[0].lowered and "exp" in s[0].lowered.kernel.stem)
    assert loss.lowered is not None and loss.lowered.kernel.inplace
    assert "all lanes have read what is overwritten now" in made.device.text
    assert made.device.program.layout(()).offsets.count(0) > 1


def test_quotients_by_one_number_are_rounded_as_divisions_are() -> None:
    """The inverse is computed once a row, and each quotient is corrected with it."""
    rng = np.random.default_rng(11)
    by = [3.0, -7.5, 1e-3, 1.5e19, 2e-20, 3e38, 1e-38, 1e-42, 0.0, -0.0, np.inf, -np.inf, np.nan]
    by += list(rng.uniform(0.5, 2, 50))
    rows = np.array(by, np.float32)[:, None]
    x = (
        rng.uniform(-2, 2, (len(by), 1000)) * 2.0 ** rng.integers(-60, 60, (len(by), 1000))
    ).astype(np.float32)
    x[:, :6] = [np.inf, -np.inf, np.nan, 0.0, -0.0, 3.4e38]
    b = Builder()
    made = built(b.graph(b.ops.divide(b.input(*x.shape), b.input(*rows.shape))))
    assert "over(" in made.device.text
    (got,) = run(made, [x, rows])
    with np.errstate(all="ignore"):
        want = x / rows
    ordinary = ~(np.abs(want) < 2.0**-126) | (want == 0)
    np.testing.assert_array_equal(got[ordinary], want[ordinary])
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
    np.testing.assert_allclose(got, want, rtol=0, atol=2.0**-148 if not ordinary.all() else 0)


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
