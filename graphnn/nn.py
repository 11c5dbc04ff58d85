"""Functions of neural networks: activations, normalisation, dropout, losses from logits."""

from __future__ import annotations

from typing import Any

from graphnn import random
from graphnn.apply import TENSOR_OPS, apply, cast, convert, promoted
from graphnn.compiler.ir.types import DEFAULT_FLOAT, bool_, is_float
from graphnn.compiler.ops import attention as _attention
from graphnn.compiler.ops import nn as _nn
from graphnn.compiler.ops import nn_losses as _losses
from graphnn.compiler.ops import nn_norm as _norm
from graphnn.distribute.training import compute_average_loss, scale_regularization_loss
from graphnn.ops import elementwise
from graphnn.ops.public import call
from graphnn.ops.reduction import sum as _sum
from graphnn.runtime.errors import ArgumentError
from graphnn.sizes import axes_of, one_axis, shape_of
from graphnn.tensor import Tensor

elu: Any = elementwise.elu
gelu: Any = elementwise.gelu
hard_sigmoid: Any = elementwise.hard_sigmoid
hard_silu: Any = elementwise.hard_silu
hard_tanh: Any = elementwise.hard_tanh
log_sigmoid: Any = elementwise.log_sigmoid
mish: Any = elementwise.mish
relu: Any = elementwise.relu
relu6: Any = elementwise.relu6
selu: Any = elementwise.selu
sigmoid: Any = elementwise.sigmoid
sigmoid_cross_entropy: Any = elementwise.sigmoid_cross_entropy
silu: Any = elementwise.silu
swish: Any = silu
softplus: Any = elementwise.softplus
softsign: Any = elementwise.softsign
tanh: Any = elementwise.tanh

__all__ = [
    "batch_normalization",
    "bias_add",
    "compute_average_loss",
    "dot_product_attention",
    "dropout",
    "elu",
    "embedding_lookup",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "l2_loss",
    "l2_normalize",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "moments",
    "relu",
    "relu6",
    "scale_regularization_loss",
    "selu",
    "sigmoid",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_with_logits",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_logits",
    "softplus",
    "softsign",
    "sparse_softmax_cross_entropy",
    "sparse_softmax_cross_entropy_with_logits",
    "swish",
    "tanh",
]


def _float(x: Any) -> Tensor:
    x = convert(x)
    return x if is_float(x.dtype) else cast(x, DEFAULT_FLOAT)


def leaky_relu(features: Any, alpha: float = 0.2, name: Any = None) -> Tensor:
    """x where x > 0, else alpha * x.

    >>> graphnn.nn.leaky_relu([-10.0, 1.0], alpha=0.5).numpy()
    array([-5.,  1.], dtype=float32)
    """
    return TENSOR_OPS.leaky_relu(_float(features), alpha=float(alpha))  # type: ignore[no-any-return]


def softmax(logits: Any, axis: int = -1, name: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow. Integers give float32.

    >>> graphnn.nn.softmax([0.0, 0.0]).numpy()
    array([0.5, 0.5], dtype=float32)
    """
    x = _float(logits)
    return call(_nn.Softmax, (x,), {"axis": one_axis(axis, x.ndim, "softmax")})  # type: ignore[no-any-return]


def log_softmax(logits: Any, axis: int = -1, name: Any = None) -> Tensor:
    """The logarithm of softmax along an axis, without overflow.

    >>> graphnn.nn.log_softmax([1000.0, 0.0]).numpy()
    array([    0., -1000.], dtype=float32)
    """
    x = _float(logits)
    return call(_nn.LogSoftmax, (x,), {"axis": one_axis(axis, x.ndim, "log_softmax")})  # type: ignore[no-any-return]


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    name: Any = None,
) -> Tensor:
    """softmax(query key' scale + bias) value for each head (A. Vaswani et al., 2017, equation 1).

    query: (batch, queries, heads, depth); key, value: (batch, keys, heads, depth), where heads may
    be a divisor of the query's: each then serves several. All three without the batch axis give a
    result without it. bias: added to the scores; mask: bool, False hides a key; both broadcast to
    (batch, heads, queries, keys). scale: 1 / sqrt(depth) if None. is_causal: a query sees keys up
    to its own position. A query that sees no key gets the mean of all values. Returns:
    (batch, queries, heads, depth of value), in the inputs' common float dtype. Raises ShapeError
    where shapes do not fit, ArgumentError where the scale has to be given.

    >>> q = graphnn.constant([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    >>> graphnn.nn.dot_product_attention(q, q, q, is_causal=True).numpy()[0, 0, 0].tolist()
    [1.0, 0.0]
    """
    given = [query, key, value] if bias is None else [query, key, value, bias]
    q, k, v, *rest = promoted(given, "float")
    depth = q.shape[-1] if q.ndim else None
    if scale is None and not isinstance(depth, int):
        raise ArgumentError(
            "dot_product_attention",
            received=f"scale None and a query of shape {q.shape}",
            expected="a number, where the last axis of the query has no fixed size",
            fix="give scale=depth ** -0.5",
        )
    if mask is not None:
        rest.append(cast(convert(mask), bool_))
    flat = q.ndim == 3
    q, k, v = (TENSOR_OPS.expand_dims(x, axes=(0,)) if flat else x for x in (q, k, v))
    factor = max(depth or 1, 1) ** -0.5 if scale is None else float(scale)
    op = {"scale": factor, "causal": bool(is_causal), "bias": bias is not None}
    op["mask"] = mask is not None
    out = call(_attention.Attention, (q, k, v, *rest), op)
    return TENSOR_OPS.squeeze(out, axes=(0,)) if flat else out  # type: ignore[no-any-return]


def dropout(
    x: Any, rate: float, noise_shape: Any = None, seed: Any = None, name: Any = None
) -> Tensor:
    """Sets a random share `rate` of the elements to 0 and divides the others by 1 - rate.

    noise_shape: shape of the mask, which broadcasts to x. seed: an integer, or a Generator; by
    default the global generator draws. The mask is the same in eager and compiled code. Raises
    ArgumentError for a rate outside 0 <= rate < 1.

    >>> graphnn.nn.dropout([1.0, 2.0], rate=0.0).numpy()
    array([1., 2.], dtype=float32)
    """
    features, share = _float(x), float(rate)
    if not 0 <= share < 1:
        raise ArgumentError(
            "dropout",
            received=f"rate={rate}",
            expected="0 <= rate < 1",
            fix="give the share of elements to drop, e.g. 0.5",
        )
    if not share:
        return features
    noise = () if noise_shape is None else _noise_shape(features, noise_shape)
    op = _nn.Dropout(rate=share, noise_shape=noise)
    return apply(op, features, random._state(seed))  # type: ignore[no-any-return]


def _noise_shape(x: Tensor, noise_shape: Any) -> tuple[Any, ...]:
    """The shape of the mask, None replaced by the size of x."""
    given = list(noise_shape)
    full = [x.shape[i] if s is None else s for i, s in enumerate(given)]
    return shape_of(full, "noise_shape of dropout")


def moments(
    x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: Any = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance (of a whole population) over axes.

    >>> [float(v) for v in graphnn.nn.moments([1.0, 3.0], axes=[0])]
    [2.0, 1.0]
    """
    x = _float(x)
    settings = {"axes": axes_of(axes, x.ndim, "moments"), "keepdims": bool(keepdims)}
    return call(_norm.Moments, (x,), settings)  # type: ignore[no-any-return]


def layer_norm(
    x: Any, gamma: Any = None, beta: Any = None, epsilon: float = 1e-5, name: Any = None
) -> Tensor:
    """Each vector along the last axis brought to mean 0 and variance 1, then * gamma + beta.

    gamma, beta: shape (x.shape[-1],), or None. Raises ShapeError where they do not fit.

    >>> graphnn.nn.layer_norm([1.0, 3.0], epsilon=0.0).numpy()
    array([-1.,  1.], dtype=float32)
    """
    settings = {"epsilon": float(epsilon), "scale": gamma is not None, "center": beta is not None}
    inputs = [
        _float(x),
        *(cast(convert(v), _float(x).dtype) for v in (gamma, beta) if v is not None),
    ]
    return call(_norm.LayerNorm, inputs, settings)  # type: ignore[no-any-return]


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    offset: Any = None,
    scale: Any = None,
    variance_epsilon: float = 1e-3,
    name: Any = None,
    *,
    axis: int = -1,
    epsilon: float | None = None,
    center: bool = True,
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset.

    mean, variance, offset, scale: of shape (x.shape[axis],), or any shapes that broadcast with x;
    offset and scale may be None. variance_epsilon, epsilon: two names for the number.

    >>> graphnn.nn.batch_normalization([[3.0]], [1.0], [4.0], epsilon=0.0).numpy()
    array([[1.]], dtype=float32)
    """
    x = _float(x)
    small = float(variance_epsilon if epsilon is None else epsilon)
    offset = offset if center and offset is not False else None
    scale = None if scale is False else scale
    given = {"scale": scale is not None, "center": offset is not None}
    others = [convert(v) for v in (mean, variance, scale, offset) if v is not None]
    channels = (x.shape[one_axis(axis, x.ndim, "batch_normalization")],)
    if all(tuple(v.shape) == channels for v in others):
        wide = [cast(v, x.dtype) for v in others]
        settings = {"axis": axis, "epsilon": small, **given}
        return call(_norm.BatchNormalization, [x, *wide], settings)  # type: ignore[no-any-return]
    factor = elementwise.rsqrt(convert(variance) + small)
    factor = factor if scale is None else factor * scale
    result: Tensor = (x - convert(mean)) * factor
    return result if offset is None else result + offset


def sparse_softmax_cross_entropy(logits: Any, labels: Any) -> Tensor:
    """-log(softmax(logits)[label]) along the last axis, one loss per example.

    logits: floats (..., classes). labels: integers (...). Raises OutOfRangeError for a label that
    is no class, ShapeError and DTypeError where they do not fit.

    >>> graphnn.nn.sparse_softmax_cross_entropy([[0.0, 0.0]], [1]).numpy()
    array([0.6931472], dtype=float32)
    """
    return call(_losses.SparseSoftmaxCrossEntropy, (_float(logits), labels))  # type: ignore[no-any-return]


def softmax_cross_entropy(logits: Any, targets: Any, axis: int = -1) -> Tensor:
    """-sum(targets * log(softmax(logits))) along an axis, one loss per example.

    logits, targets: floats that broadcast to one shape. Raises ShapeError.

    >>> graphnn.nn.softmax_cross_entropy([[0.0, 0.0]], [[0.0, 1.0]]).numpy()
    array([0.6931472], dtype=float32)
    """
    x = _float(logits)
    t = cast(convert(targets), x.dtype)
    place = one_axis(axis, x.ndim, "softmax_cross_entropy")
    if place != x.ndim - 1:
        order = (*(a for a in range(x.ndim) if a != place), place)
        x, t = TENSOR_OPS.permute_dims(x, axes=order), TENSOR_OPS.permute_dims(t, axes=order)
    return call(_losses.SoftmaxCrossEntropy, (x, t))  # type: ignore[no-any-return]


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any, name: Any = None) -> Tensor:
    """TensorFlow's name and argument order of `sparse_softmax_cross_entropy`."""
    return sparse_softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, axis: int = -1, name: Any = None
) -> Tensor:
    """TensorFlow's name and argument order of `softmax_cross_entropy`."""
    return softmax_cross_entropy(logits, labels, axis)


def sigmoid_cross_entropy_with_logits(
    labels: Any = None, logits: Any = None, name: Any = None
) -> Tensor:
    """TensorFlow's name and argument order of `sigmoid_cross_entropy`, element by element."""
    x, t = promoted((logits, labels), "float")
    return elementwise.sigmoid_cross_entropy(x, t)  # type: ignore[no-any-return]


def bias_add(value: Any, bias: Any, data_format: Any = None, name: Any = None) -> Tensor:
    """A vector added along the last axis, or along axis 1 where data_format starts with "NC".

    >>> graphnn.nn.bias_add([[1.0, 2.0]], [10.0, 20.0]).numpy()
    array([[11., 22.]], dtype=float32)
    """
    x, b = promoted((value, bias), "common")
    if data_format is not None and str(data_format).startswith("NC") and x.ndim > 2:
        b = TENSOR_OPS.reshape(b, shape=(b.shape[0], *[1] * (x.ndim - 2)))
    return TENSOR_OPS.add(x, b)  # type: ignore[no-any-return]


def embedding_lookup(params: Any, ids: Any, max_norm: Any = None, name: Any = None) -> Tensor:
    """Rows of a table. Raises OutOfRangeError.

    >>> graphnn.nn.embedding_lookup([[1.0], [2.0]], [1, 0]).numpy().tolist()
    [[2.0], [1.0]]
    """
    rows = TENSOR_OPS.take(convert(params), convert(ids), axis=0)
    if max_norm is None:
        return rows  # type: ignore[no-any-return]
    length = TENSOR_OPS.sqrt(_sum(TENSOR_OPS.square(rows), axis=-1, keepdims=True))
    factor = TENSOR_OPS.minimum(
        TENSOR_OPS.divide(float(max_norm), TENSOR_OPS.maximum(length, 1e-12)), 1.0
    )
    return TENSOR_OPS.multiply(rows, factor)  # type: ignore[no-any-return]


def l2_loss(t: Any, name: Any = None) -> Tensor:
    """Half the sum of squares.

    >>> graphnn.nn.l2_loss([3.0, 4.0])
    Tensor(12.5, shape=(), dtype=float32)
    """
    return _sum(TENSOR_OPS.square(_float(t))) * 0.5


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12, name: Any = None) -> Tensor:
    """x / sqrt(max(sum(x * x), epsilon)) over axes (all by default).

    >>> graphnn.nn.l2_normalize([3.0, 4.0]).numpy()
    array([0.6, 0.8], dtype=float32)
    """
    x = _float(x)
    total = _sum(TENSOR_OPS.square(x), axis=axis, keepdims=True)
    return TENSOR_OPS.multiply(x, TENSOR_OPS.rsqrt(TENSOR_OPS.maximum(total, float(epsilon))))  # type: ignore[no-any-return]
