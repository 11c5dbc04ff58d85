"""Sums over GPUs: NCCL as the stand-in has it, and the links between devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graphnn.build_many import add_on
from graphnn.runtime import devices
from graphnn.runtime.collectives import Arena, Links
from graphnn.runtime.cuda import nccl
from tests.cuda import stand_in

pytestmark = pytest.mark.skipif(bool(stand_in.why_not()), reason="needs a compiler")
NAMES = tuple(f"/device:GPU:{i}" for i in range(3))


@pytest.fixture(autouse=True, params=[False, True], ids=["plain", "lazy"])
def machine(request: pytest.FixtureRequest) -> Iterator[stand_in.Machine]:
    with stand_in.emulated(devices=3, lazy=request.param) as gpu:
        yield gpu


def links() -> Links:
    return Links({name: devices.named(name) for name in NAMES}, add_on)


def arrays(dtype: str = "float32") -> list[Any]:
    """Six numbers on each of three GPUs."""
    values = [np.arange(6, dtype=dtype) + np.array(10 * i, dtype) for i in range(3)]
    return [devices.named(n).upload(v) for n, v in zip(NAMES, values, strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bfloat16"])
@pytest.mark.parametrize("library", [True, False])
def test_sums(machine: Any, dtype: str, library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not library:
        monkeypatch.setattr(nccl, "why_not", lambda indices=(): "switched off")
    given = arrays(dtype)
    links().add([(NAMES, given)])
    for array in given:
        found = devices.on_host(array).astype("float64")
        np.testing.assert_array_equal(found, 3 * np.arange(6) + 30)
    assert [name for name in machine.launches if name.startswith("nccl")] == (
        [f"nccl sum of 6 {dtype} on 3"] if library else []
    )


def test_several_sums_in_one_group(machine: Any) -> None:
    first, second = arrays(), arrays("int32")
    links().add([(NAMES, first), (NAMES[1:], second[1:])])
    assert devices.on_host(first[0])[0] == 30 and devices.on_host(second[2])[0] == 30
    assert devices.on_host(second[0])[0] == 0


def test_copies_wait_for_each_other(machine: Any) -> None:
    """What was sent may be overwritten at once; what arrives is what was there before."""
    (source, *_), ways = arrays(), links()
    backend = devices.named(NAMES[0])
    with machine.no_waits("a copy"):
        (there,) = ways.send([(source, NAMES[0], NAMES[2])])
        with backend.scope():
            source[...] = 7
    assert there.device.id == 2
    assert devices.on_host(there).tolist() == [0, 1, 2, 3, 4, 5]
    moved = devices.move(there, devices.named(NAMES[1]))
    assert moved.device.id == 1 and devices.on_host(moved).tolist() == [0, 1, 2, 3, 4, 5]


def test_an_arena_holds_tensors_back_to_back(machine: Any) -> None:
    ways = links()
    rows = [
        [devices.named(n).upload(np.full(shape, i + k, "float32")) for k, shape in enumerate(
            [(3,), (2, 2), ()])] for i, n in enumerate(NAMES)
    ]  # fmt: skip
    arena = Arena(ways, NAMES, rows[0])
    assert arena.fits(rows[1]) and not arena.fits(rows[1][:2])
    for flat, views in zip(arena.flats, arena.views, strict=True):
        assert [v.data.ptr - flat.data.ptr for v in views] == [0, 16, 32]
    arena.fill(ways, NAMES, rows)
    ways.add([(NAMES, arena.flats)])
    for views in arena.views:
        found = [devices.on_host(v) for v in views]
        assert [f.shape for f in found] == [(3,), (2, 2), ()]
        assert [float(f.max()) for f in found] == [3.0, 6.0, 9.0]


def test_what_nccl_refuses(machine: Any) -> None:
    import cupy

    module = cupy.cuda.nccl
    with pytest.raises(module.NcclError, match="INVALID_USAGE"):
        module.NcclCommunicator.initAll([0, 0])
    assert "refuses GPUs 0, 0" in nccl.why_not((0, 0))
    assert nccl.why_not() == nccl.why_not((0, 2)) == ""
    a, b, c = module.NcclCommunicator.initAll(3)
    given = arrays()
    size, kind = given[0].size, module.NCCL_FLOAT32

    def call(comm: Any, array: Any, device: int, count: int = size, stream: int = 0) -> None:
        with cupy.cuda.Device(device):
            comm.allReduce(array.data.ptr, array.data.ptr, count, kind, module.NCCL_SUM, stream)

    with pytest.raises(stand_in.Fault, match="outside of a group"):
        call(a, given[0], 0)
    for wrong, match in (
        ([(a, 0, size), (b, 1, size)], r"make \[1, 1, 0\] calls"),
        ([(a, 0, size), (b, 1, size), (c, 2, 3)], "count, dtype, op"),
    ):
        module.groupStart()
        for comm, device, count in wrong:
            call(comm, given[device], device, count)
        with pytest.raises(stand_in.Fault, match=match):
            module.groupEnd()
    module.groupStart()
    with pytest.raises(module.NcclError, match="INVALID_ARGUMENT"):
        call(a, given[1], 0)  # another GPU's memory
    with pytest.raises(module.NcclError, match="CUDA"):
        call(a, given[0], 1)  # another GPU's stream
    module.groupEnd()
    with pytest.raises(module.NcclError, match="INVALID_USAGE"):
        module.groupEnd()


def test_names_are_those_of_the_real_library() -> None:
    """Numbers of dtypes and operations as nccl.h has them."""
    import cupy

    module = cupy.cuda.nccl
    names = "INT8 UINT8 INT32 UINT32 INT64 UINT64 FLOAT16 FLOAT32 FLOAT64 BFLOAT16".split()
    assert [getattr(module, f"NCCL_{n}") for n in names] == list(range(10))
    assert set(nccl._NAMES.values()) == set(names) and module.NCCL_SUM == 0
