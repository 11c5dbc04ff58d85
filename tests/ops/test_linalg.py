"""Products: matmul, tensordot and einsum against NumPy, their errors and gradients."""

import itertools

import numpy as np
import pytest

import graphnn
from graphnn.compiler.ir.sizes import symbol
from graphnn.compiler.ir.types import TensorType, bfloat16, bool_, float32
from graphnn.compiler.ops import contract
from graphnn.compiler.ops.base import ArrayHandler, Ops
from graphnn.compiler.ops.linalg import MatMul
from graphnn.compiler.trace import GraphHandler
from graphnn.runtime.errors import ArgumentError, DTypeError, ShapeError
from tests.ops.harness import compiled_value
from tests.ops.recorder import Recorder

OPS = Ops(ArrayHandler(np))
RNG = np.random.default_rng(0)


def typed(*shape):
    return TensorType(shape, float32)


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 2, 3), (3,)), ((3,), (2, 3, 4))]
)
def test_vectors(a, b):
    a, b = RNG.normal(size=a), RNG.normal(size=b)
    np.testing.assert_allclose(contract.matmul(OPS, a, b), a @ b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(
    ("m", "k", "n"), [(7, 5, 1), (1, 5, 7), (1, 9, 1), (3, 0, 1), (1, 1, 4), (700, 600, 1)]
)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_compiled_products_with_a_vector(batch, m, k, n, flags, dtype):
    a = RNG.normal(size=(*batch, k, m) if flags[0] else (*batch, m, k)).astype(dtype)
    b = RNG.normal(size=(*batch, n, k) if flags[1] else (*batch, k, n)).astype(dtype)
    op = MatMul(transpose_a=flags[0], transpose_b=flags[1])
    for _ in range(2):  # the second time in memory that has been used
        found = compiled_value(op, [a, b])
        limit = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(found, op.eager(np, a, b), rtol=limit, atol=limit)


def test_products_with_a_vector_of_symbolic_sizes():
    both = graphnn.function(lambda a, v: (graphnn.linalg.matvec(a, v), v[None] @ a.mT))
    for size in (5, 6, 300):
        a, v = (RNG.normal(size=s).astype("float32") for s in ((size, 2 * size), (2 * size,)))
        column, row = both(graphnn.constant(a), graphnn.constant(v))
        np.testing.assert_allclose(column.numpy(), a @ v, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(row.numpy()[0], a @ v, rtol=1e-4, atol=1e-4)


def test_small_floats_are_multiplied_in_float32():
    a, b = (RNG.normal(size=(8, 8)).astype(bfloat16) for _ in range(2))
    exact = a.astype(np.float32) @ b.astype(np.float32)
    np.testing.assert_array_equal(OPS.matmul(a, b), exact.astype(bfloat16))


@pytest.mark.parametrize(
    ("op", "types", "error", "text"),
    [
        (
            MatMul(),
            [typed(2, 3), typed(2, 3)],
            ShapeError,
            r"a.shape\[-1\] == b.shape\[-2\]; got 3",
        ),
        (MatMul(transpose_a=True), [typed(2, 3), typed(3, 2)], ShapeError, r"a.shape\[-2\]"),
        (MatMul(), [typed(3), typed(3, 2)], ShapeError, "at least 2 axes"),
        (MatMul(), [typed(2, 4, 3), typed(3, 3, 4)], ShapeError, "sizes equal or 1"),
        (MatMul(), [TensorType((2, 2), bool_)] * 2, DTypeError, "bool"),
        (MatMul(), [typed(2, 2), TensorType((2, 2), bfloat16)], DTypeError, "one dtype"),
    ],
)
def test_errors_name_what_is_wrong(op, types, error, text):
    with pytest.raises(error, match=text):
        op.infer(*types)


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=2)))
def test_transposes_are_absorbed(flags):
    ops = Ops(GraphHandler())
    a = ops.full(shape=(3, 4) if flags[0] else (4, 3), dtype="float32", value=1)
    b = ops.full(shape=(2, 3) if flags[1] else (3, 2), dtype="float32", value=1)
    op = MatMul(transpose_a=flags[0], transpose_b=flags[1])
    assert op.fold(ops, a, b) is None
    turned = MatMul(transpose_a=not flags[0], transpose_b=flags[1])
    folded = turned.fold(ops, ops.permute_dims(a, axes=(1, 0)), b)
    assert folded.op == op
    assert folded.inputs == (a, b)


def test_a_stack_times_one_matrix_is_one_product():
    ops, n = Ops(GraphHandler()), symbol("n")
    a = ops.full(shape=(n, 3, 4), dtype="float32", value=1)
    b = ops.full(shape=(4, 2), dtype="float32", value=1)
    folded = MatMul().fold(ops, a, b)
    assert folded.shape == (n, 3, 2)
    assert folded.inputs[0].shape == (3 * n, 2)


@pytest.mark.parametrize("axes", [0, 1, ([2, 1], [0, 1]), ([-1], [0])])
def test_tensordot_is_numpys(axes):
    a, b = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(4, 3, 5))
    np.testing.assert_allclose(contract.tensordot(OPS, a, b, axes), np.tensordot(a, b, axes))


def test_tensordot_errors():
    a, b = np.zeros((2, 3)), np.zeros((2, 3))
    with pytest.raises(ShapeError, match="equal sizes"):
        contract.tensordot(OPS, a, b, 1)
    with pytest.raises(ArgumentError, match="0 to 2 axes"):
        contract.tensordot(OPS, a, b, 3)


SIZES = dict(zip("abcdijklbhqxyz", [2, 3, 4, 5, 2, 3, 4, 5, 3, 2, 3, 2, 3, 4], strict=True))
SPECS = [
    "ij,jk->ik",
    "ij,jk",
    "ii->i",
    "ii",
    "i,i",
    "i,j->ij",
    "ij->ji",
    "ij->",
    "...ij,...jk->...ik",
    "i...->...",
    "...,...->...",
    "b...d,dk->b...k",
    "...i,...i",
    "bhqd,bhkd->bhqk",
    "ij,jk,kl->il",
    "iij->j",
    "ijkj->ik",
    "iii->i",
    "ij,ij->i",
    "ab,ab,ab->ba",
    "aab,ab->b",
    "ij,kl->",
    "a,b,c->abc",
    "abc,cd,db->a",
    "xyz, xyz, x -> y",
]


def arrays_of(spec, under):
    inputs = []
    for term in spec.replace(" ", "").split("->")[0].split(","):
        before, dots, after = term.partition("...")
        middle = under if dots else ()
        shape = (*(SIZES[c] for c in before), *middle, *(SIZES[c] for c in after))
        inputs.append(RNG.normal(size=shape))
    return inputs


@pytest.mark.parametrize("spec", SPECS)
def test_einsum_is_numpys(spec):
    for under in [(), (2,), (2, 3)] if "..." in spec else [()]:
        inputs = arrays_of(spec, under)
        got = contract.einsum(OPS, spec, *inputs)
        np.testing.assert_allclose(got, np.einsum(spec, *inputs), rtol=1e-10, atol=1e-10)


def test_einsum_broadcasts_sizes_of_one():
    a, b = RNG.normal(size=(1, 3)), RNG.normal(size=(2, 3))
    for spec in ("ij,ij->i", "ij,ij->", "...j,...j->..."):
        np.testing.assert_allclose(contract.einsum(OPS, spec, a, b), np.einsum(spec, a, b))


def test_einsum_keeps_integers():
    a = np.arange(6, dtype=np.int32).reshape(2, 3)
    for spec in ("ij,kj->ik", "ij,ij->i"):
        got = contract.einsum(OPS, spec, a, a)
        np.testing.assert_array_equal(got, np.einsum(spec, a, a))
        assert got.dtype == np.int32


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ij,jk", [(2, 3)]),
        ("ij->k", [(2, 3)]),
        ("ij->ii", [(2, 3)]),
        ("ij", [(2,)]),
        ("i.j->i", [(2, 3)]),
        ("...i...->i", [(2, 3)]),
        ("ij", [(2, 3, 4)]),
    ],
)
def test_einsum_refuses_wrong_specs(spec, shapes):
    with pytest.raises(ArgumentError, match="einsum"):
        contract.einsum(OPS, spec, *map(np.zeros, shapes))


def test_einsum_names_the_size_that_differs():
    with pytest.raises(ShapeError, match="sizes 3 and 4 for 'j'"):
        contract.einsum(OPS, "ij,jk", np.zeros((2, 3)), np.zeros((4, 5)))


def test_einsum_with_symbolic_sizes():
    n, ops = symbol("n"), Ops(GraphHandler())
    a = ops.full(shape=(n, 3, 4), dtype="float32", value=1)
    b = ops.full(shape=(4, n), dtype="float32", value=1)
    assert contract.einsum(ops, "bij,jb,bkj->bik", a, b, a).shape == (n, 3, 3)


def test_einsum_gradient():
    rec, (a, b) = Recorder(), arrays_of("bij,bjk", ())
    seed = RNG.normal(size=(3, 2, 4))
    ga, gb = rec.gradients(contract.einsum(rec.ops, "bij,bjk->bik", a, b), seed, a, b)
    np.testing.assert_allclose(ga, np.einsum("bik,bjk->bij", seed, b))
    np.testing.assert_allclose(gb, np.einsum("bij,bik->bjk", a, seed))
