"""Random numbers: streams, seeds, and the same bits in eager and compiled code."""

import itertools
from typing import Any

import numpy as np
import pytest

import graphnn
from graphnn.random import Generator, SeedGenerator
from graphnn.runtime.errors import ArgumentError, DTypeError
from tests.front.test_tape import MODES, eager

DRAWS: dict[str, Any] = {
    "normal": lambda g: g.normal((5, 3), 1.0, 2.0),
    "normal64": lambda g: g.normal((5,), dtype="float64"),
    "uniform": lambda g: g.uniform((7,), -1.0, 3.0),
    "bfloat16": lambda g: g.uniform((7,), dtype="bfloat16"),
    "truncated": lambda g: g.truncated_normal((9,)),
    "integers": lambda g: g.randint((9,), -5, 10),
    "int64": lambda g: g.uniform((4,), 0, 2**40, dtype="int64"),
    "bernoulli": lambda g: g.bernoulli((9,), 0.3),
    "shuffle": lambda g: graphnn.random.shuffle(graphnn.arange(9), seed=g),
    "permutation": lambda g: graphnn.random.permutation(9, seed=g),
    "dropout": lambda g: graphnn.nn.dropout(graphnn.ones((4, 5)), 0.4, seed=g),
    "dropout rows": lambda g: graphnn.nn.dropout(graphnn.ones((4, 5)), 0.4, (None, 1), seed=g),
}


@pytest.mark.parametrize("name", DRAWS)
def test_eager_and_compiled_bits(name: str) -> None:
    draw = DRAWS[name]
    a, b = Generator(11), Generator(11)
    step = graphnn.function(lambda: [draw(a), draw(a)])
    compiled = [v.numpy() for _ in range(2) for v in step()]
    plain = [draw(b).numpy() for _ in range(4)]
    for got, wanted in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(a.state.numpy(), b.state.numpy())
    assert a.state.numpy().tolist() == [11, 0, 4, 0]
    assert any((p != q).any() for p, q in itertools.pairwise(plain))


@MODES
def test_the_count_carries(mode: Any) -> None:
    g = Generator(1)
    g.state.assign(np.array([1, 0, 0xFFFFFFFF, 5], "uint32"))
    mode(lambda: g.normal((2,)))()
    assert g.state.numpy().tolist() == [1, 0, 0, 6]


def test_seeds() -> None:
    graphnn.random.set_seed(3)
    a = [graphnn.random.normal((3,)).numpy() for _ in range(2)]
    s = [graphnn.random.uniform((3,), seed=5).numpy() for _ in range(2)]
    graphnn.random.set_seed(3)
    b = [graphnn.random.normal((3,)).numpy() for _ in range(2)]
    t = [graphnn.random.uniform((3,), seed=5).numpy() for _ in range(2)]
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(s, t)
    assert (a[0] != a[1]).any() and (s[0] != s[1]).any()
    graphnn.random.set_seed(4)
    assert (graphnn.random.normal((3,)).numpy() != a[0]).any()
    assert Generator(2**40 + 7).state.numpy().tolist() == [7, 2**8, 0, 0]
    assert (Generator().state.numpy()[:2] != Generator().state.numpy()[:2]).any()


def test_a_global_draw_in_a_function_moves_on() -> None:
    graphnn.random.set_seed(9)
    f = graphnn.function(lambda: graphnn.random.normal((4,)))
    first, second = f().numpy(), f().numpy()
    graphnn.random.set_seed(9)
    np.testing.assert_array_equal(first, graphnn.random.normal((4,)).numpy())
    np.testing.assert_array_equal(second, graphnn.random.normal((4,)).numpy())


def test_moments_and_ranges() -> None:
    g = Generator(0)
    x = g.normal((20000,), 3.0, 2.0).numpy()
    assert abs(x.mean() - 3) < 0.05 and abs(x.std() - 2) < 0.05
    u = g.uniform((20000,), 2.0, 4.0).numpy()
    assert u.min() >= 2 and u.max() <= 4 and abs(u.mean() - 3) < 0.02
    assert sorted(set(g.randint((200,), 3, 6).tolist())) == [3, 4, 5]
    assert abs(g.bernoulli((20000,), 0.3).numpy().mean() - 0.3) < 0.02
    c = graphnn.random.categorical([[0.0, 0.0, np.log(2.0)]] * 2, 5000, seed=g).numpy()
    assert c.shape == (2, 5000) and abs((c == 2).mean() - 0.5) < 0.03
    assert sorted(graphnn.random.shuffle([5, 6, 7], seed=g).tolist()) == [5, 6, 7]


def test_broadcast_parameters_have_gradients() -> None:
    mean, scale = graphnn.Variable([0.0, 10.0]), graphnn.Variable(2.0)
    with graphnn.GradientTape() as tape:
        x = Generator(1).normal((3, 2), mean, scale)
    gm, gs = tape.gradient(x, [mean, scale])
    assert gm.tolist() == [3, 3]
    np.testing.assert_allclose(gs.numpy(), ((x - mean) / scale).numpy().sum(), rtol=1e-5)


def test_stateless_and_seed_generators() -> None:
    a = graphnn.random.stateless_normal((3,), seed=[1, 2])
    assert bool(graphnn.all(a == graphnn.random.stateless_normal((3,), seed=[1, 2])))
    assert bool(graphnn.any(a != graphnn.random.stateless_normal((3,), seed=[2, 1])))
    graphnn.random.set_seed(1)
    one = SeedGenerator()
    graphnn.random.set_seed(1)
    two = SeedGenerator()
    assert one.seed == two.seed
    assert SeedGenerator.from_config(one.get_config()).seed == one.seed
    parts = Generator(3).split(2)
    assert (parts[0].normal((4,)).numpy() != parts[1].normal((4,)).numpy()).any()


def test_errors_do_not_move_the_stream() -> None:
    g = Generator(0)
    with pytest.raises(ArgumentError, match="randint"):
        g.randint((2,), 5, 5)
    with pytest.raises(ArgumentError, match="maxval"):
        g.uniform((2,), 0, dtype="int32")
    with pytest.raises(DTypeError, match="floating-point"):
        g.normal((2,), dtype="int32")
    with pytest.raises(ArgumentError, match="0 <= rate < 1"):
        graphnn.nn.dropout([1.0], 1.0, seed=g)
    with pytest.raises(ArgumentError, match="two integers"):
        graphnn.random.stateless_uniform((2,), seed=[1])
    assert g.state.numpy().tolist() == [0, 0, 0, 0]
    assert eager(g.normal)((2,)).shape == (2,)
