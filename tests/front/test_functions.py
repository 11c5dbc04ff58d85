"""Public functions against NumPy, eager and traced; symbolic sizes; TensorFlow's names."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphnn as tf
from graphnn.runtime.errors import ArgumentError, ShapeError
from tests.front.test_tape import MODES

X = np.arange(24, dtype="float32").reshape(2, 3, 4) / 7 - 1
V = np.array([0.5, -1.5, 2.5], "float32")
M = X[0]

CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Any]] = {
    "sum": (lambda x: tf.sum(x, axis=(0, -1)), lambda x: x.sum((0, -1)), X),
    "sum none": (lambda x: tf.sum(x, axis=()), lambda x: x, X),
    "prod": (lambda x: tf.prod(x, axis=1), lambda x: x.prod(1), X),
    "max": (lambda x: tf.max(x, axis=-1, keepdims=True), lambda x: x.max(-1, keepdims=True), X),
    "var": (lambda x: tf.var(x, axis=1, correction=1), lambda x: x.var(1, ddof=1), X),
    "std": (lambda x: tf.std(x), lambda x: x.std(), X),
    "any": (lambda x: tf.any(x > 1, axis=0), lambda x: (x > 1).any(0), X),
    "all": (lambda x: tf.all(x), lambda x: x.all(), X),
    "argmax": (lambda x: tf.argmax(x, axis=1), lambda x: x.argmax(1), -X),
    "argmin": (lambda x: tf.argmin(x), lambda x: x.argmin(), -X),
    "argmax keepdims": (
        lambda x: tf.argmax(x, axis=1, keepdims=True, output_type="int32"),
        lambda x: x.argmax(1, keepdims=True),
        X,
    ),
    "cumsum": (lambda x: tf.cumsum(x, axis=1), lambda x: x.cumsum(1), X),
    "cumprod": (lambda x: tf.cumprod(x, axis=-1), lambda x: x.cumprod(-1), X),
    "cumulative": (
        lambda x: tf.cumulative_sum(x, include_initial=True),
        lambda x: np.concatenate([[0], x.cumsum()]),
        V,
    ),
    "count": (lambda x: tf.count_nonzero(x > 0, axis=0), lambda x: np.count_nonzero(x > 0, 0), X),
    "logsumexp": (lambda x: tf.logsumexp(x), lambda x: np.log(np.exp(x).sum()), X),
    "norm": (lambda x: tf.norm(x, axis=-1), lambda x: np.linalg.norm(x, axis=-1), X),
    "norm 1": (lambda x: tf.linalg.norm(x, 1, axis=0), lambda x: np.abs(x).sum(0), X),
    "norm inf": (lambda x: tf.norm(x, np.inf), lambda x: np.abs(x).max(), X),
    "norm 3": (lambda x: tf.norm(x, 3), lambda x: (np.abs(x) ** 3).sum() ** (1 / 3), X),
    "reshape": (lambda x: tf.reshape(x, (4, -1)), lambda x: x.reshape(4, -1), X),
    "transpose": (lambda x: tf.transpose(x), lambda x: x.T, X),
    "transpose perm": (
        lambda x: tf.transpose(x, perm=[0, 2, 1]),
        lambda x: x.transpose(0, 2, 1),
        X,
    ),
    "moveaxis": (lambda x: tf.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), X),
    "moveaxis many": (
        lambda x: tf.moveaxis(x, (0, 1), (2, 0)),
        lambda x: np.moveaxis(x, (0, 1), (2, 0)),
        X,
    ),
    "swapaxes": (lambda x: tf.swapaxes(x, 0, 2), lambda x: x.swapaxes(0, 2), X),
    "expand": (lambda x: tf.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1)), X),
    "squeeze": (lambda x: tf.squeeze(x[:1]), lambda x: x[0], X),
    "concat": (lambda x: tf.concat([x, x], axis=1), lambda x: np.concatenate([x, x], 1), X),
    "concat flat": (lambda x: tf.concat([x, x], axis=None), lambda x: np.append(x, x), X),
    "stack": (lambda x: tf.stack([x, x], axis=-1), lambda x: np.stack([x, x], -1), X),
    "split": (lambda x: tf.split(x, [1, -1], axis=1)[1], lambda x: x[:, 1:], X),
    "unstack": (lambda x: tf.unstack(x, axis=2)[3], lambda x: x[:, :, 3], X),
    "flip": (lambda x: tf.flip(x, axis=1), lambda x: x[:, ::-1], X),
    "reverse": (lambda x: tf.reverse(x, axis=[0, 2]), lambda x: x[::-1, :, ::-1], X),
    "roll": (lambda x: tf.roll(x, 5), lambda x: np.roll(x, 5), X),
    "roll axes": (
        lambda x: tf.roll(x, (1, -1), axis=(0, 2)),
        lambda x: np.roll(x, (1, -1), (0, 2)),
        X,
    ),
    "tile": (lambda x: tf.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), X),
    "tile less": (lambda x: tf.tile(x, 2), lambda x: np.tile(x, 2), X),
    "tile more": (lambda x: tf.tile(x, (2, 2)), lambda x: np.tile(x, (2, 2)), V),
    "repeat": (lambda x: tf.repeat(x, 2, axis=1), lambda x: x.repeat(2, 1), X),
    "repeat counts": (lambda x: tf.repeat(x, [2, 0, 1]), lambda x: x.repeat([2, 0, 1]), V),
    "pad": (
        lambda x: tf.pad(x, [[1, 0], [0, 2]], constant_values=7.0),
        lambda x: np.pad(x, [[1, 0], [0, 2]], constant_values=7),
        M,
    ),
    "pad reflect": (
        lambda x: tf.pad(x, [[1, 2], [2, 1]], mode="REFLECT"),
        lambda x: np.pad(x, [[1, 2], [2, 1]], mode="reflect"),
        M,
    ),
    "tril": (lambda x: tf.tril(x, k=1), lambda x: np.tril(x, 1), X),
    "broadcast": (lambda x: tf.broadcast_to(x, (2, 3)), lambda x: np.broadcast_to(x, (2, 3)), V),
    "meshgrid": (lambda x: tf.meshgrid(x, x * 2)[0], lambda x: np.meshgrid(x, x * 2)[0], V),
    "where": (lambda x: tf.where(x > 0, x, 0.0), lambda x: np.where(x > 0, x, 0), X),
    "clip": (lambda x: tf.clip(x, -0.5, 1), lambda x: x.clip(-0.5, 1), X),
    "clip above": (lambda x: tf.clip(x, max=1.0), lambda x: x.clip(max=1), X),
    "take": (lambda x: tf.take(x, [2, -1], axis=1), lambda x: x.take([2, -1], 1), X),
    "take flat": (lambda x: tf.take(x, [[5]]), lambda x: x.take([[5]]), X),
    "gather": (lambda x: tf.gather(x, [1, 1]), lambda x: x[[1, 1]], X),
    "gather batch": (
        lambda x: tf.gather(x, [[0, 2], [1, 1]], batch_dims=1),
        lambda x: np.stack([x[0][[0, 2]], x[1][[1, 1]]]),
        X,
    ),
    "gather batch axis": (
        lambda x: tf.gather(x, [[0, 2], [1, 1]], batch_dims=1, axis=2),
        lambda x: np.stack([x[0][:, [0, 2]], x[1][:, [1, 1]]]),
        X,
    ),
    "gather_nd": (lambda x: tf.gather_nd(x, [[1, 2], [0, 0]]), lambda x: x[[1, 0], [2, 0]], X),
    "along axis": (
        lambda x: tf.take_along_axis(x, [[[1]], [[0]]], axis=1),
        lambda x: np.take_along_axis(x, np.array([[[1]], [[0]]]), 1),
        X,
    ),
    "scatter_nd": (
        lambda x: tf.scatter_nd([[1], [1]], x[:2], (3, 4)),
        lambda x: np.stack([x[0] * 0, x[0] + x[1], x[0] * 0]),
        M,
    ),
    "one_hot": (
        lambda x: tf.one_hot([0, 2, 5], 3, on_value=x[0], off_value=-1.0),
        lambda x: np.where(np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]]), x[0], -1),
        V,
    ),
    "matmul": (lambda x: tf.matmul(x, x, transpose_b=True), lambda x: x @ x.swapaxes(1, 2), X),
    "matvec": (lambda x: tf.linalg.matvec(x, x[0]), lambda x: x @ x[0], M),
    "vector @ matrix": (lambda x: x @ tf.constant(M), lambda x: x @ M, V),
    "dot": (lambda x: tf.dot(x, x), lambda x: x @ x, V),
    "outer": (lambda x: tf.outer(x, x), lambda x: np.outer(x, x), V),
    "vecdot": (lambda x: tf.vecdot(x, x), lambda x: (x * x).sum(-1), X),
    "tensordot": (
        lambda x: tf.tensordot(x, x, [[0, 2], [0, 2]]),
        lambda x: np.tensordot(x, x, [[0, 2], [0, 2]]),
        X,
    ),
    "einsum": (
        lambda x: tf.einsum("bij,bkj->bik", x, x),
        lambda x: np.einsum("bij,bkj->bik", x, x),
        X,
    ),
    "diag": (lambda x: tf.diag(x, k=-1), lambda x: np.diag(x, -1), V),
    "trace": (lambda x: tf.linalg.trace(x), lambda x: np.trace(x), M[:, :3]),
    "linspace": (lambda x: x * tf.linspace(0.0, 1.0, 3), lambda x: x * [0, 0.5, 1], V),
    "arange": (lambda x: x * tf.range(1, 4), lambda x: x * [1, 2, 3], V),
    "eye": (lambda x: x @ tf.eye(3, 4, k=1), lambda x: x @ np.eye(3, 4, 1), V),
    "slice": (lambda x: tf.slice(x, [0, 1, 0], [1, -1, 2]), lambda x: x[:1, 1:, :2], X),
    "clip norm": (
        lambda x: tf.clip_by_norm(x, 1.0),
        lambda x: x / np.linalg.norm(x),
        V,
    ),
    "divide_no_nan": (
        lambda x: tf.math.divide_no_nan(x, x * 0),
        lambda x: x * 0,
        V,
    ),
    "softmax": (
        lambda x: tf.nn.softmax(x, axis=0),
        lambda x: np.exp(x) / np.exp(x).sum(0),
        X,
    ),
    "layer_norm": (
        lambda x: tf.nn.layer_norm(x, tf.ones(4) * 2, tf.ones(4), epsilon=0.0),
        lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * 2 + 1,
        X,
    ),
    "batch_norm": (
        lambda x: tf.nn.batch_normalization(x, *tf.nn.moments(x, [0, 1]), None, None, 0.0),
        lambda x: (x - x.mean((0, 1))) / x.std((0, 1)),
        X,
    ),
    "batch_norm kept": (
        lambda x: tf.nn.batch_normalization(
            x, *tf.nn.moments(x, [0], keepdims=True), 1.0, 2.0, 1e-3
        ),
        lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) * 2 + 1,
        X,
    ),
    "l2": (
        lambda x: tf.nn.l2_normalize(x, axis=1),
        lambda x: x / np.linalg.norm(x, axis=1, keepdims=True),
        X,
    ),
    "bias": (lambda x: tf.nn.bias_add(x, x[0, 0]), lambda x: x + x[0, 0], X),
    "bce": (
        lambda x: tf.nn.sigmoid_cross_entropy_with_logits(labels=x > 0, logits=x),
        lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0) - x * (x > 0),
        X,
    ),
    "dense ce": (
        lambda x: tf.nn.softmax_cross_entropy_with_logits(labels=tf.ones((3, 4)) / 4, logits=x),
        lambda x: np.log(np.exp(x).sum(1)) - x.mean(1),
        M,
    ),
}


@MODES
@pytest.mark.parametrize("name", CASES)
def test_like_numpy(name: str, mode: Any) -> None:
    function, reference, x = CASES[name]
    got, expected = mode(function)(tf.constant(x)), np.asarray(reference(x))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_settings_by_keyword_and_position() -> None:
    assert tf.add(x=1, y=2).item() == tf.add(1, y=2, name="sum").item() == 3
    assert tf.math.pow(2.0, 3.0).item() == 8
    assert tf.nn.leaky_relu(-1.0, 0.5).item() == -0.5
    with pytest.raises(TypeError, match="needs the argument 'y'"):
        tf.add(1)
    with pytest.raises(TypeError, match="takes 1 inputs but 2"):
        tf.exp(1.0, 2.0)
    with pytest.raises(TypeError, match="no setting 'what'"):
        tf.exp(1.0, what=2)


def test_integers_keep_their_dtype_under_tensorflow_names() -> None:
    x = tf.constant([1, 2, 3])
    assert tf.reduce_sum(x).dtype == "int32" and tf.sum(x).dtype == "int64"
    assert tf.math.cumsum(x).dtype == "int32"
    assert tf.reduce_mean(x).dtype == "float32"
    assert tf.reduce_any(x > 2).item() is True


def test_global_norm() -> None:
    clipped, length = tf.clip_by_global_norm([tf.constant([3.0]), None, tf.constant([4.0])], 1.0)
    assert length.item() == 5 and clipped[1] is None
    np.testing.assert_allclose(clipped[0].numpy(), [0.6], rtol=1e-6)
    with pytest.raises(ArgumentError, match="global_norm"):
        tf.linalg.global_norm([None])


def test_errors_of_arguments() -> None:
    x = tf.constant(X)
    for call in (
        lambda: tf.sum(x, axis=3),
        lambda: tf.sum(x, axis=(1, 1)),
        lambda: tf.sum(x, axis=1.5),
        lambda: tf.transpose(x, [0, 1]),
        lambda: tf.concat([], 0),
        lambda: tf.pad(x, [[1, 1]] * 2),
        lambda: tf.pad(x, 1, mode="what"),
        lambda: tf.zeros((2, None)),
        lambda: tf.zeros((-1,)),
        lambda: tf.arange(0, 5, 0),
        lambda: tf.where(x > 0, x),
        lambda: tf.meshgrid(x, indexing="yx"),
        lambda: tf.roll(x, (1, 2, 3), axis=(0, 1)),
        lambda: tf.isdtype("float32", "what"),
        lambda: tf.full((2,), 300, "uint8"),
    ):
        with pytest.raises(ArgumentError, match="received"):
            call()
    for call in (
        lambda: tf.split(x, 5, axis=1),
        lambda: tf.split(x, [1, 1], axis=1),
        lambda: tf.repeat(x, [1, 2], axis=1),
        lambda: tf.squeeze(x, axis=0),
        lambda: tf.broadcast_to(x, (3,)),
        lambda: tf.stack([x, x[0]]),
    ):
        with pytest.raises(ShapeError, match="received"):
            call()


# ---- symbolic sizes -------------------------------------------------------------------------

SYMBOLIC: dict[str, Callable[[Any], Any]] = {
    "shape": lambda x: tf.reshape(x, (tf.shape(x)[0] * 2, -1)),
    "size": lambda x: tf.reshape(x, [x.shape[0], -1, 2]),
    "zeros": lambda x: x + tf.zeros((tf.shape(x)[0], 1)),
    "ones of shape": lambda x: tf.ones(tf.shape(x)) * x,
    "arithmetic": lambda x: tf.zeros((tf.shape(x)[0] + 3,)),
    "mean by hand": lambda x: tf.reduce_sum(x) / tf.cast(tf.shape(x)[0], "float32"),
    "count": lambda x: x / x.shape[0],
    "last": lambda x: x[-1] + x[1:][0],
    "first two": lambda x: x[:2],
    "but one": lambda x: x[:-1] - x[1:],
    "backward": lambda x: x[::-1],
    "far index": lambda x: x[3],
    "range": lambda x: tf.range(tf.shape(x)[0]),
    "random": lambda x: tf.random.stateless_normal(tf.shape(x), seed=[1, 2]) + x,
    "flatten": lambda x: x.flatten(),
    "tile": lambda x: tf.tile(x, (2, 1)),
    "concat": lambda x: tf.concat([x, x], 0),
    "gather": lambda x: tf.gather(x, [0, 3]),
    "one_hot": lambda x: tf.one_hot(tf.argmax(x, axis=0), tf.shape(x)[0]),
    "softmax": lambda x: tf.nn.softmax(x, axis=0),
    "split": lambda x: tf.split(x, 2, axis=1)[1],
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_symbolic_sizes(name: str) -> None:
    function = SYMBOLIC[name]
    traces: list[int] = []

    @tf.function(input_signature=[tf.TensorSpec([None, 4], "float32")])
    def compiled(x: Any) -> Any:
        traces.append(1)
        return function(x)

    for count in (4, 7, 5):
        x = tf.constant(np.random.default_rng(count).normal(size=(count, 4)).astype("float32"))
        expected = function(x)
        got = compiled(x)
        assert got.shape == expected.shape and got.dtype == expected.dtype
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert len(traces) <= 2  # at most one more than the trace, to find out what is created


def test_a_variable_from_zeros_inside_a_function() -> None:
    made: list[Any] = []

    @tf.function
    def step(x: Any) -> Any:
        if not made:
            made.append(tf.Variable(tf.zeros((3,)) + 2.0))
        return x * made[0]

    assert step(tf.constant([1.0, 2.0, 3.0])).numpy().tolist() == [2, 4, 6]


def test_init_scope_is_eager() -> None:
    seen: list[bool] = []

    @tf.function
    def f(x: Any) -> Any:
        with tf.init_scope():
            seen.append(tf.executing_eagerly())
            assert tf.constant(1.0).numpy() == 1
        seen.append(tf.executing_eagerly())
        return x

    f(tf.constant(1.0))
    assert seen[:2] == [True, False]
